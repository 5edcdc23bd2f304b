"""Pretrained models: the files in checkpoints/, for those who do not train.

A file holds the evaluated weights, in float16 where that moves the NLL by less than 0.01 nats.
Its header names the run, its configuration and its NLL, and says by how much rounding moved that.
The same run trained again on another machine has other weights: the NLL tells them apart.
Header and weights are checked against digests that stand in the header.
"""

import copy
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open

from maelib.config import Config, from_json
from maelib.internal.files import reading, sealed, typed, unsealed, write_bytes
from maelib.internal.paths import CHECKPOINTS as FOLDER
from maelib.internal.shapes import Images
from maelib.measure.evaluation import iw_nll
from maelib.model import VAE
from maelib.runs import record as records
from maelib.runs.record import Record
from maelib.runs.weights import load_weights
from maelib.training.checkpoints import fingerprint, packed

TOLERANCE = 0.01  # nats by which float16 may move the NLL
ROUNDING_IMAGES, ROUNDING_K = 100, 64  # test images and samples by which the shift is measured
REMEDY = (
    "restore it with git checkout, or move it elsewhere if it is not one of this project's models"
)


@dataclass(frozen=True)
class Pretrained:
    """A file's header. ``nll`` is the record's, ``shift`` how rounding moved it, both in nats."""

    path: Path
    run: str
    nll: float
    config: Config
    dtype: str
    shift: float
    weights: str = ""  # their ``fingerprint``; files of older versions have none

    def describe(self) -> str:
        """One line that belongs beside what is shown of this model."""
        about = f"preset {self.config.preset}, run {self.run}, weights in {self.dtype}"
        if self.dtype == "float16":
            about += f", which moves its NLL by {self.shift:+.4f} nats"
        return f"pretrained model {self.path.stem}: {about}"

    def load(self, device: torch.device | str = "cpu") -> VAE:
        """The model in float32; ValueError if its weights are not those of its configuration."""
        return load_weights(self.path, self.config.network, device, REMEDY, self.weights)


def load(name: str, device: torch.device | str = "cpu", folder: Path | None = None) -> VAE:
    """The model of that name; ValueError, naming those there are, if it is not one."""
    return find(name, folder).load(device)


def find(name: str, folder: Path | None = None) -> Pretrained:
    """The file of the model or run ``name``; ValueError, naming those there are, if none is."""
    if (path := (folder or FOLDER) / f"{name}.safetensors").exists():
        return read_header(path)
    there = pretrained_models(folder)
    for model in there:
        if name in (model.path.stem, model.run):
            return model
    known = ", ".join(model.path.stem for model in there) or "none in this installation"
    raise ValueError(f"{name!r} is not a pretrained model; there are: {known}.")


def model_of(record: Record) -> Pretrained | None:
    """The file of the very model that a record was measured on, if it is there."""
    measured = record.name, record.measurements["nll"]
    return next((m for m in pretrained_models() if (m.run, m.nll) == measured), None)


def find_pretrained(
    name: str, preset: str, root: Path | None = None
) -> tuple[Record, Pretrained] | None:
    """A run's committed record and pretrained model, where both are there."""
    record = records.intact((root or FOLDER.parent) / "results" / preset / f"{name}.json")
    model = None if record is None else model_of(record)
    return (record, model) if record and model else None


def pretrained_models(folder: Path | None = None) -> list[Pretrained]:
    """The header of every file in ``folder``, by default the project's checkpoints/.

    A file that is no pretrained model is skipped with a warning that names it.
    """
    found = []
    for path in sorted((folder or FOLDER).glob("*.safetensors")):
        try:
            found.append(read_header(path))
        except ValueError as problem:
            warnings.warn(f"skipped: {problem}", stacklevel=2)
    return found


def names(config: Config) -> tuple[str, str]:
    """The names that a run's pretrained model may have; the second ends in the preset."""
    return config.short_name(), f"{config.short_name()}-{config.preset}"


def read_header(path: Path) -> Pretrained:
    """What a file says of itself; ValueError if it is damaged or not a pretrained model."""
    with reading(path, "a pretrained model", REMEDY):
        if not path.is_file():
            raise ValueError("it is no file")
        with safe_open(path, "pt") as file:
            content = unsealed((file.metadata() or {})["maelib"].encode())
        config = from_json(content["config"])
        if path.stem not in names(config):
            raise ValueError(f"it holds the model {config.short_name()}")
        return typed(Pretrained, content | {"path": path, "config": config})


def export(model: VAE, record: Record, x: Images, folder: Path | None = None) -> Pretrained:
    """Write the file of a finished run; ``x`` are the test images that judge the rounding.

    Its name ends in the preset where a run of another preset has the shorter name. ValueError if
    the file holds the model of another run, or there is no project to put it in.
    """
    if folder is None and not (FOLDER.parent / "pyproject.toml").is_file():
        raise ValueError(
            "a model is exported into checkpoints/ of the project, but this maelib is installed "
            "without it; run pip install -e . in a clone, then export again."
        )
    path, longer = ((folder or FOLDER) / f"{name}.safetensors" for name in names(record.config))
    if path.exists() and read_header(path).config.preset != record.config.preset:
        path = longer
    if path.exists() and (other := read_header(path)).run != record.name:
        raise ValueError(
            f"{path.name} holds the model of run {other.run} (preset {other.config.preset}); "
            "delete it first if yours is to take its place."
        )
    rounded = copy.deepcopy(model)
    with torch.no_grad():
        for weight in rounded.parameters():
            weight.copy_(weight.half())
    before, after = (iw_nll(m, x[:ROUNDING_IMAGES], ROUNDING_K) for m in (model, rounded))
    shift = float((after - before).mean())
    if not before.isfinite().all():
        raise ValueError(f"the model of run {record.name} has no finite NLL; train it again.")
    dtype, shift = ("float16", shift) if abs(shift) < TOLERANCE else ("float32", 0.0)
    weights = model.state_dict().items()
    tensors = {key: value.cpu().to(getattr(torch, dtype)) for key, value in weights}
    header = {
        "run": record.name,
        "nll": record.measurements["nll"],
        "config": asdict(record.config),
        "dtype": dtype,
        "shift": shift,
        "weights": fingerprint(tensors),
    }
    write_bytes(path, packed(tensors, {"maelib": sealed(header)}))
    return read_header(path)
