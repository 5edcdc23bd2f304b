"""Precision of the networks' products.

Likelihoods, divergences, the flow prior, the logits and the weights are always float32. On CUDA
the products of the flow prior and of the logits are in TF32 unless the precision is float32.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from maelib.internal.options import checked
from maelib.training import PRECISIONS


def choose(name: str, device: torch.device) -> str:
    """``auto`` is tf32 on CUDA, bf16 on a CPU that multiplies in it, else float32.

    A CPU multiplies in bfloat16 with AMX or with the instructions AVX512_BF16 (docs/benchmarks.md
    has the times). ValueError for an unknown name.
    """
    checked("precision", name, str, {"choices": PRECISIONS})
    if name != "auto":
        return name
    if device.type == "cuda":
        return "tf32"
    # Every processor with AMX has AVX512_BF16 too.
    has_bf16 = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return "bf16" if has_bf16 else "float32"


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """Context in which CUDA multiplies float32 matrices in TF32, unless ``name`` is float32.

    cuDNN tries its convolutions and takes the fastest, which is not the same in each process: a
    run that is continued on a GPU is not the same to the last bit.
    """
    cudnn = torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark
    torch.set_float32_matmul_precision("highest" if name == "float32" else "high")
    cudnn.allow_tf32, cudnn.benchmark = name != "float32", True
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        cudnn.allow_tf32, cudnn.benchmark = before[1:]


@contextmanager
def inference_precision(name: str, device: torch.device) -> Iterator[None]:
    """``matmul_precision`` and ``autocast`` together."""
    with matmul_precision(name), autocast(name, device):
        yield


def autocast(name: str, device: torch.device) -> AbstractContextManager:
    """Context in which layers multiply in bfloat16 if ``name`` is bf16."""
    return torch.autocast(device.type, torch.bfloat16, enabled=name == "bf16")
