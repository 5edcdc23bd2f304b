"""One training step: sample, RE and KL, the objective, clipping, Adam, and the average."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from maelib.internal.shapes import Codes, Images
from maelib.objectives.base import MEASURED, Objective, Terms
from maelib.training import Training, parallel, precision
from maelib.training.state import RunningTotals, State


@dataclass(frozen=True)
class Step:
    """What stays the same from step to step."""

    network: nn.Module  # the model as it is called: itself, or wrapped for several ranks
    objective: Objective
    settings: Training
    total: int  # steps in all
    precision: str = "float32"


def train_step(state: State, step: Step, x: Images, eps: Codes) -> Terms:
    """One update of the weights and of their average, without a wait of the host for the device.

    ``x`` and ``eps`` are this rank's images and posterior noise. A loss or gradient that is not
    finite leaves the weights as they are.
    """
    settings, done = step.settings, state.progress.step
    with precision.autocast(step.precision, x.device):
        outputs = step.network(x, eps)  # z ~ q(z|x), RE and KL of each image: model.VAE.forward
    outputs = parallel.gather_outputs(outputs)
    terms = step.objective(outputs, done / step.total)  # of the whole batch: Eq. (7)
    state.optimizer.zero_grad(set_to_none=True)
    terms.loss.backward()
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), settings.clip)
    bad = accumulate(state.totals, terms, norm, done)
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(settings, done, step.total, state.progress.halvings)
    if state.optimizer.defaults["fused"]:
        state.optimizer.found_inf = bad.float()  # fused Adam skips the update where it is 1
    state.optimizer.step()
    update_average(state.averaged, state.model, settings.ema, done)
    state.progress.step = done + 1
    return terms


def learning_rate(settings: Training, step: int, total: int, halvings: int) -> float:
    """The learning rate of a step by the schedule's name.

    ``plateau`` is the paper's decay and halvings. ``cosine`` falls to zero over the whole run.
    ``cooldown`` is constant, then falls linearly to zero over the last quarter.
    """
    if settings.schedule == "cosine":
        return settings.lr * 0.5 * (1 + math.cos(math.pi * step / total))
    if settings.schedule == "cooldown":
        return settings.lr * min(1.0, 4 * (1 - step / total))
    return settings.lr * settings.lr_decay**step * 0.5**halvings


@torch.no_grad()
def update_average(averaged: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Exponential moving average, warmed up so that early weights are soon forgotten."""
    decay = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(averaged.parameters()), list(model.parameters()), 1 - decay)


@torch.no_grad()
def accumulate(totals: RunningTotals, terms: Terms, norm: Tensor, step: int) -> Bool[Tensor, ""]:
    """Add a step's terms to the totals; returns whether any was not finite, as a tensor."""
    values = torch.stack(list(terms.named().values()))
    totals.sums += values
    finite = torch.isfinite(torch.cat([values[: -len(MEASURED)], norm[None]]))
    steps = torch.where(finite, math.inf, float(step)).to(totals.first_bad.dtype)
    torch.minimum(totals.first_bad, steps, out=totals.first_bad)
    return ~finite.all()
