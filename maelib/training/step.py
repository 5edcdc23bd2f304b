"""One training step: sample, RE and KL, the objective, clipping, Adam, and the average."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from maelib.internal.shapes import Codes, Images
from maelib.objectives.base import MEASURED, Objective, Terms
from maelib.training import Training, parallel, precision
from maelib.training.state import RunningTotals, State

Loss = Callable[..., Terms]  # ``loss_terms``, or a compiled form of it


@dataclass(frozen=True)
class Step:
    """What stays the same from step to step."""

    network: nn.Module  # the model as it is called: itself, or wrapped for several ranks
    objective: Objective
    settings: Training
    total: int  # steps in all
    precision: str = "float32"
    loss: Loss | None = None  # in place of ``loss_terms``


def train_step(state: State, step: Step, x: Images, eps: Codes) -> Terms:
    """One update of the weights and of their average, without a wait of the host for the device.

    ``x`` and ``eps`` are this rank's images and posterior noise. A loss or gradient that is not
    finite leaves the weights as they are.
    """
    announce(state, step)
    terms = device_step(state, step, x, eps)
    state.progress.step += 1
    return terms


def announce(state: State, step: Step) -> None:
    """Tell the device what changes from step to step: the learning rate and the step's number."""
    settings, progress = step.settings, state.progress
    rate = learning_rate(settings, progress.step, step.total, progress.halvings)
    for group in state.optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
    state.totals.step.fill_(progress.step)


def device_step(state: State, step: Step, x: Images, eps: Codes) -> Terms:
    """The part of a step that happens on the device, and so may be captured and replayed.

    All it reads and changes is tensors, which stay where they are; ``announce`` comes before it.
    """
    terms = gradients(state, step, x, eps)
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), step.settings.clip)
    update(state, accumulate(state.totals, terms, norm))
    update_average(state.averaged, state.model, step.settings.ema, state.totals.step)
    return terms


def gradients(
    state: State, step: Step, x: Images, eps: Codes, of: list[nn.Parameter] | None = None
) -> Terms:
    """The terms of the loss. Its gradients are set on all parameters or those of ``of``."""
    progress = state.progress.step / step.total if step.objective.varies else 1.0
    terms = (step.loss or loss_terms)(step, x, eps, progress)
    state.optimizer.zero_grad(set_to_none=True)
    terms.loss.backward(inputs=of)
    return terms


def loss_terms(step: Step, x: Images, eps: Codes, progress: float) -> Terms:
    """The terms of the loss of the whole batch (Eq. 7); ``progress`` is the share of steps done."""
    with precision.autocast(step.precision, x.device):
        outputs = step.network(x, eps)  # z ~ q(z|x), RE and KL of each image: model.VAE.forward
    return step.objective(parallel.gather_outputs(outputs), progress)


def update(state: State, bad: Bool[Tensor, ""]) -> None:
    """One update by Adam of all parameters that have a gradient; none where ``bad``."""
    if state.optimizer.defaults["fused"]:
        state.optimizer.found_inf = bad.float()  # fused Adam skips the update where it is 1
    elif bad:  # a wait for the device
        return
    state.optimizer.step()


def encoder_steps(state: State, step: Step, batch: Callable[[int], tuple[Images, Codes]]) -> None:
    """Updates of the encoder alone before a step (He et al., 2019), on the batches 0, 1, ...

    There are at most ``settings.encoder_steps``; they end when ten of them lower the loss no more.
    The step that follows trains the encoder too, where the authors' trains the decoder alone.
    """
    losses: list[Tensor] = []
    before = math.inf
    inference = nn.ModuleList([state.model.encoder, state.model.posterior])
    alone = [p for p in inference.parameters() if p.requires_grad]
    of = alone if parallel.size() == 1 else None  # several processes wait for all gradients
    announce(state, step)
    for number in range(step.settings.encoder_steps):
        losses.append(gradients(state, step, *batch(number), of).loss.detach())
        for part in (state.model.prior, state.model.decoder):
            part.zero_grad(set_to_none=True)
        norm = nn.utils.clip_grad_norm_(state.model.parameters(), step.settings.clip)
        update(state, ~torch.isfinite(norm))
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
def update_average(
    averaged: nn.Module, model: nn.Module, decay: float, step: int | Float[Tensor, ""]
) -> None:
    """Exponential moving average, warmed up so that early weights are soon forgotten."""
    means, weights = list(averaged.parameters()), list(model.parameters())
    done = step if isinstance(step, Tensor) else torch.tensor(step, dtype=torch.float64)
    share = 1 - ((1 + done) / (10 + done)).clamp(max=decay)
    torch._foreach_lerp_(means, weights, [share.to(means[0])] * len(means))


@torch.no_grad()
def accumulate(totals: RunningTotals, terms: Terms, norm: Tensor) -> Bool[Tensor, ""]:
    """Add a step's terms to the totals; returns whether any was not finite, as a tensor."""
    values = torch.stack(list(terms.named().values()))
    totals.sums += values
    finite = torch.isfinite(torch.cat([values[: -len(MEASURED)], norm[None]]))
    steps = torch.where(finite, math.inf, totals.step)
    torch.minimum(totals.first_bad, steps, out=totals.first_bad)
    return ~finite.all()
