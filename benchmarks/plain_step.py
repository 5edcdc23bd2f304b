"""The training step as one would first write it: the twin of ``training.step.train_step``.

Eager float32 without TF32, contiguous tensors, masked kernels multiplied whole, PyTorch's ELU, an
Adam and an average that loop over the parameters, and a host that waits for every term.
``tests/test_speed_twins.py`` steps both.
"""

import copy
import math
from dataclasses import dataclass
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maelib.config import Config
from maelib.model import VAE
from maelib.nets import layers
from maelib.training.precision import matmul_precision
from maelib.training.state import State, TrainingError, curves
from maelib.training.step import learning_rate


class WholeMaskedConv2d(layers.WeightNorm):
    """``layers.MaskedConv2d`` as it is usually written: k x k weights, a mask, and a convolution.

    Ours does not store the rows below a kernel's middle where the mask hides all of them. They
    are here, hidden, so that the two have the same function and the same gradient.
    """

    def __init__(self, ours: layers.MaskedConv2d):
        hidden = (0, 0, 0, ours.kernel - ours.direction.shape[2])
        with ours.direction.device:
            shape = *ours.direction.shape[:2], ours.kernel, ours.kernel
            super().__init__(shape, F.pad(ours.mask, hidden))
        self.direction = nn.Parameter(F.pad(ours.direction.detach(), hidden).contiguous())
        self.gain = nn.Parameter(ours.gain.detach().clone())
        self.bias = nn.Parameter(ours.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, padding="same")


@dataclass
class Plain:
    """What the plain step changes. ``totals`` are those of ``RunningTotals``, by name."""

    model: VAE
    averaged: VAE
    optimizer: torch.optim.Optimizer
    totals: dict[str, float]
    step: int = 0


def begin(state: State, config: Config, whole: bool = True) -> Plain:
    """The plain twin of a state that has not taken a step; not ``whole``: with our kernels."""
    model = copy.deepcopy(state.model).to(memory_format=torch.contiguous_format)
    model = with_whole_kernels(model) if whole else model
    loops = {"foreach": False, "fused": False}
    betas = config.training.adam_betas
    optimizer = torch.optim.Adam(model.parameters(), config.training.lr, betas, **loops)
    totals = dict.fromkeys(curves(config.objective), 0.0)
    return Plain(model, copy.deepcopy(model), optimizer, totals)


def with_whole_kernels(module: nn.Module) -> nn.Module:
    """The module with each of its masked convolutions replaced by its plain twin."""
    for name, child in module.named_children():
        masked = isinstance(child, layers.MaskedConv2d)
        setattr(module, name, WholeMaskedConv2d(child) if masked else with_whole_kernels(child))
    return module


def plain_step(
    plain: Plain, config: Config, x: Tensor, eps: Tensor, total: int, precision: str = "float32"
) -> None:
    """One update of the weights and of their average; ``precision`` is float32 or tf32."""
    settings = config.training
    with matmul_precision(precision), mock.patch.object(layers.EluByExp, "apply", F.elu):
        terms = config.objective(plain.model(x, eps))
        plain.optimizer.zero_grad(set_to_none=True)
        terms.loss.backward()
        parameters = list(plain.model.parameters())
        norm = nn.utils.clip_grad_norm_(parameters, settings.clip, foreach=False).item()
    for name, value in terms.named().items():
        plain.totals[name] += value.item()
    if not math.isfinite(norm):
        raise TrainingError(f"the gradient is NaN or infinite at step {plain.step}.")
    for group in plain.optimizer.param_groups:
        group["lr"] = learning_rate(settings, plain.step, total, 0)
    plain.optimizer.step()
    decay = min(settings.ema, (1 + plain.step) / (10 + plain.step))
    with torch.no_grad():
        for mean, weight in zip(plain.averaged.parameters(), parameters, strict=True):
            mean.mul_(decay).add_(weight, alpha=1 - decay)
    plain.step += 1
