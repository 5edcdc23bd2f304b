"""The training loop: Adam on Eq. (7), averaged weights, selection by validation ELBO.

All randomness is a function of the seed and the step, so a run that is stopped and continued
goes through the same numbers as one that is not.
"""

import copy
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from maelib import checkpoints, rng
from maelib.config import Config
from maelib.data import Dataset, as_input
from maelib.model import VAE, build, initialise
from maelib.objectives import Terms, mae_loss

CURVES = ("loss", "re", "kl", "mpd", "std", "diverse", "smooth")
CHECKPOINT_SECONDS = 120.0


class TrainingError(RuntimeError):
    """Training cannot go on; the message says what went bad and what is saved."""


class Interrupted(Exception):
    """Training was stopped from outside, or ran out of time; its state is saved."""


@dataclass
class Progress:
    """The plain numbers of a run's state. ``sums`` are totals of ``CURVES`` since the last row."""

    step: int = 0
    best_elbo: float = math.inf
    stale: int = 0  # validations since the best
    halvings: int = 0
    seconds: float = 0.0
    sums: list[float] = field(default_factory=lambda: [0.0] * len(CURVES))
    history: list[dict] = field(default_factory=list)


@dataclass
class State:
    """Everything that training changes. ``averaged`` is the EMA, ``best`` its best so far."""

    model: VAE
    averaged: VAE
    best: VAE
    optimizer: torch.optim.Optimizer
    progress: Progress


Observer = Callable[[Progress, int], None]


def train(
    config: Config,
    data: Dataset,
    folder: Path,
    device: torch.device,
    max_minutes: float | None = None,
    observe: Observer | None = None,
    compiled: bool = False,
) -> tuple[VAE, Progress]:
    """Train to the end, continuing from ``folder``'s checkpoint if there is one.

    Returns the averaged model of the best validation ELBO. ``observe`` is called after every step
    with the progress and the number of steps in all; ``compiled`` trains through torch.compile.
    Raises TrainingError on a loss that is not finite, and Interrupted (state saved) on SIGINT,
    SIGTERM or after ``max_minutes``.
    """
    images = data.train.first(config.train_images).images.to(device)
    val = data.val.first(config.val_images).images.to(device)
    per_epoch = max(1, len(images) // config.batch_size)
    total = max(per_epoch * config.epochs, config.min_steps)
    if config.batch_size > len(images):
        raise ValueError(
            f"batch_size is {config.batch_size}; it must be at most the {len(images)} "
            "training images."
        )
    store = folder / "checkpoints"
    state = restore(config, store, device) or start(config, images, device)
    if compiled:
        state.model.compile()
    progress = state.progress
    begun, saved = time.monotonic() - progress.seconds, time.monotonic()
    deadline = math.inf if max_minutes is None else time.monotonic() + 60 * max_minutes
    with interruption() as interrupted:
        while progress.step < total and progress.halvings <= config.halvings:
            train_step(state, config, images, per_epoch, total)
            if progress.step % (config.validate_steps or per_epoch) == 0 or progress.step == total:
                record_interval(state, config, val, per_epoch)
            progress.seconds = time.monotonic() - begun
            if observe is not None:
                observe(progress, total)
            stop = interrupted() or time.monotonic() > deadline
            if stop or time.monotonic() - saved > CHECKPOINT_SECONDS:
                save(state, store)
                saved = time.monotonic()
            if stop and progress.step < total:
                raise Interrupted(
                    f"stopped at step {progress.step} of {total}; the same command continues."
                )
    save(state, store)
    return state.best, progress


def start(config: Config, images: UInt8[Tensor, "n c h w"], device: torch.device) -> State:
    """A fresh state: weights drawn from the seed, then initialised on the first images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.derive(config.seed, "weights"))
        model = build(config)
    model = model.to(device, memory_format=torch.channels_last)
    noise = rng.generator(config.seed, "initialise", device=device)
    first = as_input(images[: config.init_images], noise)
    eps = torch.randn(len(first), config.latent, generator=noise, device=device)
    initialise(model, first, eps)
    optimizer = adam(model, config)
    return State(model, copy.deepcopy(model), copy.deepcopy(model), optimizer, Progress())


def adam(model: VAE, config: Config) -> torch.optim.Adam:
    """The paper's optimiser, all parameters updated by one kernel where the device has it."""
    fused = next(model.parameters()).device.type in ("cpu", "cuda")
    return torch.optim.Adam(model.parameters(), lr=config.lr, fused=fused)


def train_step(
    state: State, config: Config, images: UInt8[Tensor, "n c h w"], per_epoch: int, total: int
) -> Terms:
    """One update of the weights and of their average."""
    step = state.progress.step
    x, eps = draw_batch(config, images, step, per_epoch)
    terms = loss_terms(state.model, x, eps, config)
    state.optimizer.zero_grad(set_to_none=True)
    terms.loss.backward()
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), config.clip)
    _require_finite(terms, norm, step)
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(config, step, total, state.progress.halvings)
    state.optimizer.step()
    update_average(state.averaged, state.model, config.ema, step)
    state.progress.step = step + 1
    values = [getattr(terms, name).item() for name in CURVES]
    state.progress.sums = [a + b for a, b in zip(state.progress.sums, values, strict=True)]
    return terms


def draw_batch(
    config: Config, images: UInt8[Tensor, "n c h w"], step: int, per_epoch: int
) -> tuple[Float[Tensor, "batch c h w"], Float[Tensor, "batch latent"]]:
    """The binarised images and the posterior noise of a step, from the seed alone."""
    epoch, position = divmod(step, per_epoch)
    order = torch.randperm(len(images), generator=rng.generator(config.seed, "order", epoch))
    chosen = order[position * config.batch_size :][: config.batch_size].to(images.device)
    noise = rng.generator(config.seed, "step", step, device=images.device)
    x = as_input(images[chosen], noise)
    eps = torch.randn(len(x), config.latent, generator=noise, device=images.device)
    return x, eps


def loss_terms(model: VAE, x: Tensor, eps: Tensor, config: Config) -> Terms:
    """Eq. (7) for one batch, as the configuration weighs it."""
    re, kl, mu, logvar = model(x, eps)
    return mae_loss(
        re, kl, mu, logvar,
        alpha=config.alpha, beta=config.beta, free_bits=config.free_bits,
        diverse="tempered" if config.diverse == "none" else config.diverse,
    )  # fmt: skip


def learning_rate(config: Config, step: int, total: int, halvings: int) -> float:
    """``plateau``: the paper's decay and halvings; ``cosine``: to zero over the whole run."""
    if config.schedule == "cosine":
        return config.lr * 0.5 * (1 + math.cos(math.pi * step / total))
    return config.lr * config.lr_decay**step * 0.5**halvings


@torch.no_grad()
def update_average(averaged: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Exponential moving average, warmed up so that early weights are soon forgotten."""
    decay = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(averaged.parameters()), list(model.parameters()), 1 - decay)


def record_interval(
    state: State, config: Config, val: UInt8[Tensor, "n c h w"], per_epoch: int
) -> None:
    """Validate the average, keep it if it is the best, and record the curves since the last."""
    progress = state.progress
    re, kl = validate(state.averaged, val)
    elbo = re + kl
    if not math.isfinite(elbo):
        raise TrainingError(f"the validation ELBO is {elbo} after step {progress.step}.")
    progress.stale += 1
    if elbo < progress.best_elbo:
        progress.best_elbo, progress.stale = elbo, 0
        state.best.load_state_dict(state.averaged.state_dict())
    steps = progress.step - (progress.history[-1]["step"] if progress.history else 0)
    means = {name: total / steps for name, total in zip(CURVES, progress.sums, strict=True)}
    row = {"epoch": progress.step / per_epoch, "step": progress.step, **means}
    progress.history.append({**row, "val_re": re, "val_kl": kl, "val_elbo": elbo})
    progress.sums = [0.0] * len(CURVES)
    if config.schedule == "plateau" and progress.stale >= config.patience:
        progress.halvings, progress.stale = progress.halvings + 1, 0


@torch.no_grad()
def validate(model: VAE, images: UInt8[Tensor, "n c h w"], batch: int = 500) -> tuple[float, float]:
    """Mean RE and KL in nats over images whose binarisation and noise never change."""
    noise = rng.generator(0, "validation", device=images.device)
    re_sum = kl_sum = 0.0
    for chunk in images.split(batch):
        x = as_input(chunk, noise)
        latent = model.prior.latent
        eps = torch.randn(len(x), latent, generator=noise, device=images.device)
        re, kl, _, _ = model(x, eps)
        re_sum, kl_sum = re_sum + float(re.sum()), kl_sum + float(kl.sum())
    return re_sum / len(images), kl_sum / len(images)


def save(state: State, store: Path) -> None:
    """Checkpoint the whole state."""
    moments = state.optimizer.state_dict()["state"]
    files = {
        "weights": state.model.state_dict(),
        "averaged": state.averaged.state_dict(),
        "best": state.best.state_dict(),
        "optimizer": {f"{i}.{k}": v for i, row in moments.items() for k, v in row.items()},
    }
    checkpoints.save(store, state.progress.step, files, asdict(state.progress))


def restore(config: Config, store: Path, device: torch.device) -> State | None:
    """The state of the newest intact checkpoint, or None if there is none."""
    found = checkpoints.load_latest(store, device)
    if found is None:
        return None
    files, numbers = found
    models = [build(config).to(device, memory_format=torch.channels_last) for _ in range(3)]
    for model, name in zip(models, ("weights", "averaged", "best"), strict=True):
        model.load_state_dict(files[name])
    optimizer = adam(models[0], config)
    parameters = list(models[0].parameters())
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in files["optimizer"].items():
        index, key = name.split(".")
        moments.setdefault(int(index), {})[key] = _like(parameters[int(index)], value)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    return State(*models, optimizer, Progress(**numbers))


def _like(parameter: Tensor, moment: Tensor) -> Tensor:
    """The moment in its parameter's memory order, which a fused optimiser takes for granted."""
    return torch.empty_like(parameter).copy_(moment) if moment.dim() else moment


@contextmanager
def interruption() -> Iterator[Callable[[], bool]]:
    """Within it SIGINT and SIGTERM only raise a flag, so that a step is never cut in two."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    flag = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: flag.set()) for number in signals]
    try:
        yield flag.is_set
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def _require_finite(terms: Terms, norm: Tensor, step: int) -> None:
    if torch.isfinite(terms.loss) and torch.isfinite(norm):
        return
    bad = [n for n in ("re", "kl", "diverse", "smooth") if not torch.isfinite(getattr(terms, n))]
    what = f"the term {' and '.join(bad)}" if bad else "the gradient"
    raise TrainingError(
        f"{what} is NaN or infinite at step {step}; the last checkpoint is intact: "
        "lower lr or alpha and train again."
    )
