"""One training step: sample, RE and KL, the objective, clipping, Adam, and the average."""

import math
from collections.abc import Callable
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
    terms = gradients(state, step, x, eps)
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), settings.clip)
    update(state, step, accumulate(state.totals, terms, norm, done))
    update_average(state.averaged, state.model, settings.ema, done)
    state.progress.step = done + 1
    return terms


def gradients(state: State, step: Step, x: Images, eps: Codes) -> Terms:
    """The terms of the loss, whose gradients the model's parameters then have."""
    with precision.autocast(step.precision, x.device):
        outputs = step.network(x, eps)  # z ~ q(z|x), RE and KL of each image: model.VAE.forward
    outputs = parallel.gather_outputs(outputs)
    progress = state.progress.step / step.total
    terms = step.objective(outputs, progress)  # of the whole batch: Eq. (7)
    state.optimizer.zero_grad(set_to_none=True)
    terms.loss.backward()
    return terms


def update(state: State, step: Step, bad: Bool[Tensor, ""]) -> None:
    """One update by Adam of all parameters that have a gradient; none where ``bad``."""
    done, halvings = state.progress.step, state.progress.halvings
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(step.settings, done, step.total, halvings)
    if state.optimizer.defaults["fused"]:
        state.optimizer.found_inf = bad.float()  # fused Adam skips the update where it is 1
    state.optimizer.step()


def encoder_steps(state: State, step: Step, batch: Callable[[int], tuple[Images, Codes]]) -> None:
    """Updates of the encoder alone before a step (He et al., 2019), on the batches 0, 1, ...

    There are at most ``settings.encoder_steps``; they end when ten of them lower the loss no more.
    """
    losses: list[Tensor] = []
    before = math.inf
    for number in range(step.settings.encoder_steps):
        losses.append(gradients(state, step, *batch(number)).loss.detach())
        for part in (state.model.prior, state.model.decoder):
            part.zero_grad(set_to_none=True)
        norm = nn.utils.clip_grad_norm_(state.model.parameters(), step.settings.clip)
        update(state, step, ~torch.isfinite(norm))
        if len(losses) == 10:
            now = float(sum(losses))
            if not now < before:
                return
            before, losses = now, []


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
