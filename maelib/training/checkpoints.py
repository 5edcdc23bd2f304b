"""A training run's state on disk: whole or absent, checked by digest, without pickle.

A checkpoint is a folder of safetensors files with a ``state.json`` that holds the plain numbers
and each file's SHA-256. It is written under a temporary name and renamed; the last two are kept.
"""

import json
import shutil
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from maelib.internal.files import sha256, whole, write_json

Tensors = dict[str, Tensor]


def save(folder: Path, step: int, files: dict[str, Tensors], numbers: dict, keep: int = 2) -> Path:
    """Write the checkpoint of ``step`` into ``folder`` and delete all but the ``keep`` newest.

    OSError if it cannot be written; the older ones stay. No other process may be saving.
    """
    target, part = folder / f"step-{step:08d}", folder / ".part"
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for name, tensors in files.items():
            save_tensors(tensors, part / f"{name}.safetensors")
        digests = {path.name: sha256(path) for path in sorted(part.glob("*.safetensors"))}
        write_json(part / "state.json", {"digests": digests, "numbers": numbers})
        shutil.rmtree(target, ignore_errors=True)
        part.replace(target)
    except OSError as problem:
        shutil.rmtree(part, ignore_errors=True)
        raise OSError(
            f"the checkpoint of step {step} cannot be written ({problem.strerror or problem}); the "
            "one before it is intact: make room, or make the folder writable, and train again."
        ) from problem
    for old in _newest_first(folder)[keep:]:
        shutil.rmtree(old)
    return target


def load_latest(folder: Path, device: torch.device) -> tuple[dict[str, Tensors], dict] | None:
    """The newest intact checkpoint in ``folder``; None if there is none at all.

    A damaged one is skipped with a warning. OSError if all are damaged.
    """
    candidates = _newest_first(folder)
    for candidate in candidates:
        try:
            return _load(candidate, device)
        except (OSError, ValueError, KeyError) as problem:
            damaged = f"checkpoint {candidate.name} is damaged, skipped: {problem}"
            warnings.warn(damaged, stacklevel=2)
    if candidates:
        raise OSError(
            f"every checkpoint of run {folder.parent.name} is damaged; delete its folder "
            "'checkpoints' to train it from the start."
        )
    return None


def save_tensors(tensors: Tensors, path: Path, header: dict[str, str] | None = None) -> None:
    """Write a safetensors file, whole or not at all; ``header`` is its metadata."""
    with whole(path) as part:
        try:
            save_file({name: value.contiguous() for name, value in tensors.items()}, part, header)
        except SafetensorError as problem:
            raise OSError(f"{path.name} cannot be written: {problem}") from problem


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), reverse=True)


def _load(checkpoint: Path, device: torch.device) -> tuple[dict[str, Tensors], dict]:
    state = json.loads((checkpoint / "state.json").read_text())
    files = {}
    for name, digest in state["digests"].items():
        if sha256(checkpoint / name) != digest:
            raise ValueError(f"{name} does not match its SHA-256")
        files[name.removesuffix(".safetensors")] = load_file(checkpoint / name, str(device))
    return files, state["numbers"]
