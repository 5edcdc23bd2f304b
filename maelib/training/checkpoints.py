"""A training run's state on disk: whole or absent, checked by digest, without pickle.

A checkpoint is a folder of safetensors files with a ``state.json`` that holds the run's name, the
plain numbers, each file's SHA-256 and its own. It is written under another name and renamed; two
are kept.
"""

import hashlib
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from safetensors import torch as safetensors
from torch import Tensor

from maelib.internal.files import contents, read_json, reading, write_bytes, write_json

CHECKPOINTS_KEPT = 2
Tensors = dict[str, Tensor]
Restored = TypeVar("Restored")


def save(folder: Path, step: int, files: dict[str, Tensors], numbers: dict) -> Path:
    """Write the checkpoint of ``step`` into ``folder`` and delete all but the newest two.

    OSError if it cannot be written; the older ones stay. No other process may be saving.
    """
    target, part = folder / f"step-{step:08d}", folder / ".part"
    try:
        shutil.rmtree(part, ignore_errors=True)
        digests = {}
        for name, tensors in files.items():
            content = packed(tensors)
            write_bytes(part / f"{name}.safetensors", content)
            digests[f"{name}.safetensors"] = hashlib.sha256(content).hexdigest()
        about = {"run": folder.parent.name, "digests": digests, "numbers": numbers}
        write_json(part / "state.json", about)
        shutil.rmtree(target, ignore_errors=True)
        part.replace(target)
    except OSError as problem:
        shutil.rmtree(part, ignore_errors=True)
        older = "the one before it is intact: " if _newest_first(folder) else ""
        raise OSError(
            f"the checkpoint of step {step} cannot be written ({problem.strerror or problem}); "
            f"{older}make room, or make the folder writable, and train again."
        ) from problem
    for old in _newest_first(folder)[CHECKPOINTS_KEPT:]:
        shutil.rmtree(old)
    return target


def load_latest(
    folder: Path, restore: Callable[[dict[str, Tensors], dict], Restored]
) -> Restored | None:
    """What ``restore`` makes of the newest checkpoint in ``folder``; None if there is none at all.

    One that is damaged, or that ``restore`` fails on, is skipped with a warning. ValueError if
    none is left.
    """
    candidates = _newest_first(folder)
    for candidate in candidates:
        try:
            with reading(candidate, "an intact checkpoint of this version", "it is skipped"):
                return restore(*_load(candidate))
        except ValueError as problem:
            warnings.warn(str(problem), stacklevel=2)
    if candidates:
        raise ValueError(
            f"every checkpoint of run {folder.parent.name} is damaged or of another version of "
            "maelib; delete its folder 'checkpoints' to train it from the start."
        )
    return None


def packed(tensors: Tensors, header: dict[str, str] | None = None) -> bytes:
    """A safetensors file of the tensors, with ``header`` as its metadata."""
    return safetensors.save({name: t.contiguous() for name, t in tensors.items()}, header)


def fingerprint(tensors: Tensors) -> str:
    """The SHA-256 of ``packed`` tensors without a header."""
    return hashlib.sha256(packed(tensors)).hexdigest()


def read_tensors(path: Path, digest: str = "") -> Tensors:
    """The tensors of a safetensors file; ValueError if ``digest`` is not their fingerprint."""
    tensors = safetensors.load(contents(path))
    if digest and fingerprint(tensors) != digest:
        raise ValueError(f"the SHA-256 of {path.name} is not the recorded one")
    return tensors


def _newest_first(folder: Path) -> list[Path]:
    found = folder.glob("step-" + 8 * "[0-9]")
    return sorted((path for path in found if path.is_dir()), reverse=True)


def _load(checkpoint: Path) -> tuple[dict[str, Tensors], dict]:
    state, run = read_json(checkpoint / "state.json"), checkpoint.parents[1].name
    if state.get("run", run) != run:
        raise ValueError(f"it is of run {state['run']}")
    files = {
        name.removesuffix(".safetensors"): read_tensors(checkpoint / name, digest)
        for name, digest in state["digests"].items()
    }
    return files, state["numbers"]
