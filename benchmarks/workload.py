"""What the benchmarks run on: the paper's networks or tiny ones, and images that are at hand."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from timing import Row
from torch import Tensor
from torch.nn.modules.module import register_module_forward_hook

from maelib.config import Config, resolve
from maelib.data import dataset
from maelib.model import VAE, build
from maelib.nets.layers import WeightNorm
from maelib.training.loop import draw_batch
from maelib.training.precision import choose
from maelib.training.state import State, start


@dataclass(frozen=True)
class Bench:
    """Where to measure, and how large."""

    device: torch.device
    quick: bool

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def precision(self) -> str:
        """The precision of a run that asks for none."""
        return choose("auto", self.device)

    def configure(self, name: str = "digits", **changes: object) -> Config:
        """The paper's configuration, or a tiny one, for the data set ``name``.

        The learning rate is small because every step sees the same batch: the weights barely move.
        """
        preset = "smoke" if self.quick else "paper"
        return resolve(preset, name, lr=1e-5, init_images=100, **changes)

    def images(self, c: Config, count: int) -> Tensor:
        """8-bit images of the data set."""
        return dataset.load(c.data.name).train.first(count).images.to(self.device)

    def state(self, c: Config) -> State:
        """A fresh training state."""
        return start(c, self.images(c, c.training.init_images), self.device)

    def batch(self, c: Config, count: int) -> tuple[Tensor, Tensor]:
        """Images as the networks take them, and noise of the posterior."""
        return draw_batch(c, self.images(c, count), 0)

    def networks(self, c: Config) -> tuple[VAE, VAE]:
        """The model as the plain reference has it, contiguous, and as a run is loaded."""
        ours = self.state(c).model.eval()
        plain = build(c.network).to(self.device).eval()
        plain.load_state_dict(ours.state_dict())
        return plain, ours

    def row(self, name: str, *rest: object, **more: object) -> Row:
        """A row of the table, on this device."""
        return Row(name, self.device.type, *rest, **more)


def layer_calls(run: Callable[[], object]) -> list[tuple[WeightNorm, int]]:
    """The layers that ``run`` calls, in order, each with the bytes of its output."""
    calls = []

    def note(module: torch.nn.Module, _: tuple, output: object) -> None:
        if isinstance(module, WeightNorm):
            calls.append((module, output.nbytes))

    hook = register_module_forward_hook(note)
    run()
    hook.remove()
    return calls
