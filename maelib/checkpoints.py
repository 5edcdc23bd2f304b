"""A training run's state on disk: whole or absent, checked by digest, nothing unpickled.

A checkpoint is a folder of safetensors files with a ``state.json`` that holds the plain numbers
and each file's SHA-256. It is written under a temporary name and renamed; the last two are kept.
"""

import json
import os
import shutil
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from maelib.download import sha256

Tensors = dict[str, Tensor]


def save(folder: Path, step: int, files: dict[str, Tensors], numbers: dict, keep: int = 2) -> Path:
    """Write the checkpoint of ``step`` into ``folder``; older ones than ``keep`` are deleted."""
    target, part = folder / f"step-{step:08d}", folder / f".part-{os.getpid()}"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name, tensors in files.items():
        save_tensors(tensors, part / f"{name}.safetensors")
    digests = {path.name: sha256(path) for path in sorted(part.glob("*.safetensors"))}
    write_json(part / "state.json", {"digests": digests, "numbers": numbers})
    shutil.rmtree(target, ignore_errors=True)
    part.replace(target)
    for old in _newest_first(folder)[keep:]:
        shutil.rmtree(old)
    return target


def load_latest(folder: Path, device: torch.device) -> tuple[dict[str, Tensors], dict] | None:
    """The newest intact checkpoint in ``folder``; None if there is none at all.

    A damaged one is passed over with a warning. OSError if all are damaged.
    """
    candidates = _newest_first(folder)
    for candidate in candidates:
        try:
            return _load(candidate, device)
        except (OSError, ValueError, KeyError) as problem:
            warnings.warn(
                f"checkpoint {candidate.name} is damaged, skipped: {problem}", stacklevel=2
            )
    if candidates:
        raise OSError(
            f"every checkpoint of run {folder.parent.name} is damaged; delete its folder "
            "'checkpoints' to train it from the start."
        )
    return None


def save_tensors(tensors: Tensors, path: Path) -> None:
    """Write a safetensors file under a temporary name, then rename."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    save_file({name: value.contiguous() for name, value in tensors.items()}, part)
    part.replace(path)


def write_json(path: Path, content: object) -> None:
    """Write JSON under a temporary name, then rename: a reader never sees half a file."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with part.open("w") as file:
        json.dump(content, file, indent=1, allow_nan=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


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
