"""How precisely the networks multiply; likelihoods, divergences and weights are always float32."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

PRECISIONS = ("auto", "float32", "tf32", "bf16")


def choose(name: str, device: torch.device) -> str:
    """``auto`` is tf32 on CUDA and float32 elsewhere; ValueError for what is not a precision."""
    if name not in PRECISIONS:
        raise ValueError(f"precision is {name!r}; it must be one of {', '.join(PRECISIONS)}.")
    if name != "auto":
        return name
    return "tf32" if device.type == "cuda" else "float32"


@contextmanager
def multiplying(name: str) -> Iterator[None]:
    """Within it CUDA multiplies float32 matrices in TF32 (``tf32``, ``bf16``) or not at all so."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest" if name == "float32" else "high")
    torch.backends.cudnn.allow_tf32 = name != "float32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


@contextmanager
def within(name: str, device: torch.device) -> Iterator[None]:
    """``multiplying`` and ``autocast`` at once."""
    with multiplying(name), autocast(name, device):
        yield


def autocast(name: str, device: torch.device) -> AbstractContextManager:
    """Within it layers multiply in bfloat16, if ``name`` says so."""
    return torch.autocast(device.type, torch.bfloat16, enabled=name == "bf16")
