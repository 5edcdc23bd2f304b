"""Trained models that come with the project, for those who do not train: the files in checkpoints/.

A file holds the evaluated weights, in float16 where that moves the NLL by less than 0.01 nats.
Its header names the run, its configuration and its NLL, and says by how much rounding moved that.
The same run trained anew, on another machine, has other weights: the NLL tells them apart.
"""

import copy
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from maelib.checkpoints import save_tensors
from maelib.config import Config, default_free_bits, from_json
from maelib.evaluation import iw_nll
from maelib.model import VAE, build
from maelib.results import Record

FOLDER = Path(__file__).parents[1] / "checkpoints"
TOLERANCE = 0.01  # nats by which float16 may move the NLL
IMAGES, K = 100, 64  # by which that is measured


@dataclass(frozen=True)
class Shipped:
    """A file's header. ``nll`` is the record's, ``shift`` how rounding moved it, both in nats."""

    path: Path
    run: str
    nll: float
    config: Config
    dtype: str
    shift: float

    def describe(self) -> str:
        """One line that belongs beside what is shown of this model."""
        about = f"preset {self.config.preset}, run {self.run}, weights in {self.dtype}"
        if self.dtype == "float16":
            about += f", which moves its NLL by {self.shift:+.4f} nats"
        return f"shipped model {self.path.stem}: {about}"


def load(name: str, device: torch.device | str = "cpu", folder: Path | None = None) -> VAE:
    """The model of that name in float32; ValueError, naming those there are, if it is not one."""
    return load_weights(find(name, folder), device)


def load_weights(shipped: Shipped, device: torch.device | str = "cpu") -> VAE:
    """The model of a file; ValueError if its weights are not those of its configuration."""
    model = build(shipped.config)
    try:
        model.load_state_dict(load_file(shipped.path))
    except (SafetensorError, RuntimeError, ValueError) as problem:
        raise ValueError(
            f"{shipped.path.name} does not hold the weights that its header says; restore it with "
            "git checkout."
        ) from problem
    return model.to(device, memory_format=torch.channels_last).eval()


def find(name: str, folder: Path | None = None) -> Shipped:
    """The file of a model's name or of a run's; ValueError, naming those there are, if none is."""
    there = shipped_models(folder)
    for shipped in there:
        if name in (shipped.path.stem, shipped.run):
            return shipped
    names = ", ".join(shipped.path.stem for shipped in there) or "none in this installation"
    raise ValueError(f"{name!r} is not a shipped model; there are: {names}.")


def shipped_model(record: Record) -> Shipped | None:
    """The file of the very model that a record was measured on, if it is there."""
    wanted = record.name, record.measurements["nll"]
    return next((s for s in shipped_models() if (s.run, s.nll) == wanted), None)


def shipped_models(folder: Path | None = None) -> list[Shipped]:
    """The header of every file in ``folder``, by default the project's checkpoints/."""
    return [read_header(path) for path in sorted((folder or FOLDER).glob("*.safetensors"))]


def read_header(path: Path) -> Shipped:
    """What a file says of itself; ValueError if it is damaged or not a shipped model."""
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {})["maelib"])
        return Shipped(path=path, config=from_json(header.pop("config")), **header)
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as problem:
        raise ValueError(
            f"{path.name} is not a shipped model ({problem}); restore it with git checkout."
        ) from problem


def export(
    model: VAE, record: Record, x: Float[Tensor, "n c h w"], folder: Path | None = None
) -> Shipped:
    """Write the file of a finished run; ``x`` are the test images that judge the rounding."""
    rounded = copy.deepcopy(model)
    with torch.no_grad():
        for weight in rounded.parameters():
            weight.copy_(weight.half())
    before, after = (iw_nll(m, x[:IMAGES], K) for m in (model, rounded))
    shift = float((after - before).mean())
    dtype = torch.float16 if abs(shift) < TOLERANCE else torch.float32
    shift = shift if dtype == torch.float16 else 0.0
    name = str(dtype).removeprefix("torch.")
    header = {
        "run": record.name,
        "nll": record.measurements["nll"],
        "config": asdict(record.config),
        "dtype": name,
        "shift": shift,
    }
    folder = folder or FOLDER
    folder.mkdir(exist_ok=True)
    path = folder / f"{short_name(record.config)}.safetensors"
    tensors = {key: value.cpu().to(dtype) for key, value in model.state_dict().items()}
    save_tensors(tensors, path, {"maelib": json.dumps(header)})
    return read_header(path)


def short_name(config: Config) -> str:
    """Data set and model, defaults left out: ``mnist-mae-a1-b0.5``, ``mnist-vlae``."""
    label = config.label().replace("-tempered", "")
    usual = default_free_bits(config.objective, config.dataset)
    if config.free_bits == usual:
        label = label.replace(f"-fb{usual:g}", "")
    elif not config.free_bits:
        label += "-fb0"
    return f"{config.dataset}-{label}" + (f"-s{config.seed}" if config.seed else "")
