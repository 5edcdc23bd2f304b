"""Loads the weights of a safetensors file into the model of its configuration."""

import warnings
from contextlib import suppress
from pathlib import Path

import torch

from maelib.internal.files import reading, write_bytes
from maelib.model import VAE, build
from maelib.nets import Network
from maelib.runs import record as records
from maelib.runs.record import Record
from maelib.training.checkpoints import fingerprint, packed, read_tensors
from maelib.training.state import restore


def load_weights(
    path: Path, network: Network, device: torch.device | str, remedy: str, digest: str = ""
) -> VAE:
    """The model in evaluation mode; ValueError with ``remedy`` if the file is not what it was.

    ``digest`` is the ``fingerprint`` of the weights, where one is known.
    """
    with reading(path, "the weights of its configuration", remedy):
        model = build(network)
        model.load_state_dict(read_tensors(path, digest))
        if not all(parameter.isfinite().all() for parameter in model.parameters()):
            raise ValueError("a weight is NaN or infinite")
    return _ready(model, device)


def load_model(folder: Path, device: torch.device | str = "cpu") -> VAE:
    """The model of a finished run's record, restored from its last checkpoint if it is damaged.

    FileNotFoundError if the run is not finished. ValueError if its record is damaged, or if both
    the model and that checkpoint are.
    """
    if not (folder / "result.json").exists():
        raise FileNotFoundError(f"{folder.name} is not a finished run: it has no result.json.")
    record, path = records.read(folder / "result.json"), folder / "model.safetensors"
    remedy = "restore it, or delete the run's folder and train again"
    try:
        return load_weights(path, record.config.network, device, remedy, record.model)
    except ValueError as problem:
        if (model := _from_checkpoint(record, path)) is None:
            raise
        warnings.warn(f"{problem} It was restored from the last checkpoint.", stacklevel=2)
        return _ready(model, device)


def _from_checkpoint(record: Record, path: Path) -> VAE | None:
    """The recorded model of the run's last checkpoint, also written to ``path`` if it may be."""
    with suppress(ValueError):
        state = restore(record.config, path.parent / "checkpoints", torch.device("cpu"))
        if state is None or state.progress.history != record.history:
            return None
        weights = state.best.state_dict()
        if record.model in ("", fingerprint(weights)):
            with suppress(OSError):
                write_bytes(path, packed(weights))
            return state.best
    return None


def _ready(model: VAE, device: torch.device | str) -> VAE:
    return model.to(device, memory_format=torch.channels_last).eval()
