"""What the benchmarks run on: the paper's networks or tiny ones, and images that are at hand."""

from dataclasses import dataclass, replace

import torch
from timing import Row
from torch import Tensor

from maelib import config, data, model, precision, training


@dataclass(frozen=True)
class Bench:
    """Where to measure, and how large."""

    device: torch.device
    quick: bool

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def precise(self) -> str:
        """The precision of a run that asks for none."""
        return precision.choose("auto", self.device)

    def configure(self, dataset: str = "digits", **changes: object) -> config.Config:
        """The paper's configuration, or a tiny one, with steps too small to go astray.

        The batch of the benchmarks never changes, and training on it is not what is measured.
        """
        preset = "smoke" if self.quick else "paper"
        return config.resolve(preset, dataset, lr=1e-5, **changes)

    def images(self, c: config.Config, count: int) -> Tensor:
        """8-bit images of the data set."""
        return data.load(c.dataset).train.first(count).images.to(self.device)

    def state(self, c: config.Config) -> training.State:
        """A fresh training state."""
        return training.start(replace(c, init_images=100), self.images(c, 100), self.device)

    def batch(self, c: config.Config, count: int) -> tuple[Tensor, Tensor]:
        """Images as the networks take them, and noise of the posterior."""
        return training.draw_batch(c, self.images(c, count), 0)

    def row(self, name: str, *rest: object, **more: object) -> Row:
        """A row of the table, on this device."""
        return Row(name, self.device.type, *rest, **more)

    def networks(self, c: config.Config) -> tuple[model.VAE, model.VAE]:
        """The model as the plain reference has it, contiguous, and as a run is loaded."""
        ours = self.state(c).model.eval()
        plain = model.build(c).to(self.device).eval()
        plain.load_state_dict(ours.state_dict())
        return plain, ours
