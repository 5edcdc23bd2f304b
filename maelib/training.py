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

from maelib import checkpoints, distributed, precision, rng, watch
from maelib.config import Config
from maelib.data import Dataset, as_input, unit_range
from maelib.model import VAE, build, initialise
from maelib.objectives import Terms, mae_loss

CURVES = ("loss", "re", "kl", "mpd", "std", "diverse", "smooth")
WATCHED = ("re", "kl", "diverse", "smooth", "loss", "gradient")  # for NaN, in order of blame
CHECK_EVERY = 100  # steps between looks at whether anything was NaN: a look waits for the GPU
GO_ON, SAVE, STOP = 0, 1, 2
PICTURES = 8  # validation images that TensorBoard shows


class TrainingError(RuntimeError):
    """Training cannot go on; the message says what went bad and what is saved."""


class Interrupted(Exception):
    """Training was stopped from outside, or ran out of time; its state is saved."""


@dataclass
class Progress:
    """The plain numbers of a run's state. ``sums`` are totals of ``CURVES`` since the last row.

    While training, the totals are those of ``Tally``; here they are as of the last checkpoint.
    """

    step: int = 0
    best_elbo: float = math.inf
    stale: int = 0  # validations since the best
    halvings: int = 0
    seconds: float = 0.0
    sums: list[float] = field(default_factory=lambda: [0.0] * len(CURVES))
    history: list[dict] = field(default_factory=list)


@dataclass
class Tally:
    """What every step adds to without the host waiting for it, in nats and step numbers.

    ``sums`` are the totals of ``CURVES`` since the last row; ``first_bad`` is the step at which
    each of ``WATCHED`` first was not finite, infinite while it is well.
    """

    sums: Float[Tensor, " curves"]
    first_bad: Float[Tensor, " watched"]

    @classmethod
    def on(cls, device: torch.device, sums: list[float]) -> "Tally":
        """A tally that goes on from ``sums``; float64 where the device has it."""
        dtype = torch.float32 if device.type == "mps" else torch.float64
        well = torch.full((len(WATCHED),), math.inf, dtype=dtype, device=device)
        return cls(torch.tensor(sums, dtype=dtype, device=device), well)


@dataclass
class State:
    """Everything that training changes. ``averaged`` is the EMA, ``best`` its best so far."""

    model: VAE
    averaged: VAE
    best: VAE
    optimizer: torch.optim.Optimizer
    progress: Progress
    tally: Tally


Observer = Callable[[Progress, int], None]


def train(
    config: Config,
    data: Dataset,
    folder: Path,
    device: torch.device,
    *,
    max_minutes: float | None = None,
    checkpoint_minutes: float = 2.0,
    observe: Observer | None = None,
    compiled: bool = False,
    precise: str = "auto",
    profile: bool = False,
) -> tuple[VAE, Progress]:
    """Train to the end, continuing from ``folder``'s checkpoint if there is one.

    Returns the averaged model of the best validation ELBO. ``observe`` is called after every step
    with the progress and the number of steps in all; ``compiled`` trains through torch.compile;
    ``precise`` is one of ``precision.PRECISIONS``; ``profile`` writes trace.json.gz of 20 steps.
    Under torchrun all ranks call it, and rank 0 alone writes.
    Raises TrainingError on a loss that is not finite, OSError if a checkpoint cannot be written,
    and Interrupted (state saved) on SIGINT, SIGTERM or after ``max_minutes``.
    """
    images = data.train.first(config.train_images).images.to(device)
    val = data.val.first(config.val_images).images.to(device)
    _require_divisible(config, len(images))
    per_epoch = max(1, len(images) // config.batch_size)
    total = max(per_epoch * config.epochs, config.min_steps)
    store = folder / "checkpoints"
    state = restore(config, store, device) or start(config, images, device)
    if compiled:
        state.model.compile()
    network = distributed.parallel(state.model)
    progress, precise = state.progress, precision.choose(precise, device)
    stream = batches(config, images, progress.step, per_epoch)
    begun, saved = time.monotonic() - progress.seconds, time.monotonic()
    deadline = math.inf if max_minutes is None else time.monotonic() + 60 * max_minutes
    trace = folder / "trace.json.gz" if profile and distributed.rank() == 0 else None
    shown = folder if distributed.rank() == 0 else None
    with (
        interruption() as interrupted,
        precision.multiplying(precise),
        watch.board(shown, progress.step) as show,
        watch.profiler(trace, total - progress.step) as tick,
    ):
        while progress.step < total and progress.halvings <= config.halvings:
            train_step(state, network, config, *next(stream), total, precise)
            tick()
            if progress.step % (config.validate_steps or per_epoch) == 0 or progress.step == total:
                record_interval(state, config, val, per_epoch)
                show(progress.history[-1], lambda: predictions(state.averaged, val[:PICTURES]))
            if progress.step % CHECK_EVERY == 0:
                require_finite(state.tally)
            progress.seconds = time.monotonic() - begun
            if observe is not None:
                observe(progress, total)
            wish = SAVE if time.monotonic() - saved > 60 * checkpoint_minutes else GO_ON
            wish = STOP if interrupted() or time.monotonic() > deadline else wish
            agreed = distributed.agree(wish, progress.step)
            if agreed:
                save(state, store)
                saved = time.monotonic()
            if agreed == STOP and progress.step < total:
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
    progress = Progress()
    tally = Tally.on(device, progress.sums)
    return State(model, copy.deepcopy(model), copy.deepcopy(model), optimizer, progress, tally)


def adam(model: VAE, config: Config) -> torch.optim.Adam:
    """The paper's optimiser, all parameters updated by one kernel where the device has it."""
    fused = next(model.parameters()).device.type in ("cpu", "cuda")
    kind = {"lr": config.lr, "betas": config.adam_betas, "fused": fused}
    return torch.optim.Adam(model.parameters(), **kind)


def train_step(
    state: State,
    network: nn.Module,
    config: Config,
    x: Float[Tensor, "batch c h w"],
    eps: Float[Tensor, "batch latent"],
    total: int,
    precise: str = "float32",
) -> Terms:
    """One update of the weights and of their average, in which the host waits for nothing.

    ``network`` is the model as it is called: itself, or wrapped for several ranks; ``x`` and
    ``eps`` are this rank's slice. A loss or gradient that is not finite leaves the weights alone.
    """
    step = state.progress.step
    with precision.autocast(precise, x.device):
        outputs = network(x, eps)
    terms = loss_terms(outputs, config)
    state.optimizer.zero_grad(set_to_none=True)
    terms.loss.backward()
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), config.clip)
    bad = count(state.tally, terms, norm, step)
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(config, step, total, state.progress.halvings)
    if state.optimizer.defaults["fused"]:
        state.optimizer.found_inf = bad.float()  # fused Adam skips the update where it is 1
    state.optimizer.step()
    update_average(state.averaged, state.model, config.ema, step)
    state.progress.step = step + 1
    return terms


@torch.no_grad()
def count(tally: Tally, terms: Terms, norm: Tensor, step: int) -> Tensor:
    """Add a step to the tally; whether anything in it was not finite, as a tensor."""
    tally.sums += torch.stack([getattr(terms, name) for name in CURVES])
    watched = torch.stack([*(getattr(terms, name) for name in WATCHED[:-1]), norm])
    finite = torch.isfinite(watched)
    steps = torch.where(finite, math.inf, float(step)).to(tally.first_bad.dtype)
    torch.minimum(tally.first_bad, steps, out=tally.first_bad)
    return ~finite.all()


def require_finite(tally: Tally) -> None:
    """TrainingError, naming the first bad step and what went bad in it, if any did."""
    first_bad = tally.first_bad.tolist()
    step = min(first_bad)
    if step == math.inf:
        return
    bad = [name for name, when in zip(WATCHED, first_bad, strict=True) if when == step]
    terms = [name for name in bad if name not in ("loss", "gradient")]
    what = f"the term {' and '.join(terms)}" if terms else f"the {bad[0]}"
    raise TrainingError(
        f"{what} is NaN or infinite at step {int(step)}; the weights and the last checkpoint are "
        "from before it: lower lr or alpha and train again."
    )


def batches(
    config: Config, images: UInt8[Tensor, "n c h w"], step: int, per_epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """This rank's ``draw_batch`` of ``step`` and of every step after it."""
    while True:
        epoch, position = divmod(step, per_epoch)
        order = torch.randperm(len(images), generator=rng.generator(config.seed, "order", epoch))
        order = order.to(images.device).split(config.batch_size)
        for chosen in order[position:per_epoch]:
            x, eps = draw_batch(config, images[chosen], step)
            yield distributed.own_slice(x), distributed.own_slice(eps)
            step += 1


def draw_batch(
    config: Config, images: UInt8[Tensor, "batch c h w"], step: int
) -> tuple[Float[Tensor, "batch c h w"], Float[Tensor, "batch latent"]]:
    """The binarised images and the posterior noise of a step, from the seed alone."""
    noise = rng.generator(config.seed, "step", step, device=images.device)
    x = as_input(images, noise)
    eps = torch.randn(len(x), config.latent, generator=noise, device=images.device)
    return x, eps


def loss_terms(outputs: tuple[Tensor, Tensor, Tensor, Tensor], config: Config) -> Terms:
    """Eq. (7) for the global batch, as the configuration weighs it.

    ``outputs`` are RE and KL [own], mu and logvar [own, latent] of this rank's images. Free bits,
    L_diverse and L_smooth are of the whole batch, so all ranks' are gathered first.
    """
    re, kl, mu, logvar = outputs
    own = torch.cat([re[:, None], kl[:, None], mu, logvar], 1)  # RE and KL are never bfloat16
    re, kl, mu, logvar = distributed.gather(own).split([1, 1, mu.shape[1], mu.shape[1]], 1)
    return mae_loss(
        re[:, 0], kl[:, 0], mu, logvar,
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
    require_finite(state.tally)
    progress = state.progress
    re, kl = distributed.from_first(lambda: validate(state.averaged, val))
    elbo = re + kl
    if not math.isfinite(elbo):
        raise TrainingError(f"the validation ELBO is {elbo} after step {progress.step}.")
    progress.stale += 1
    if elbo < progress.best_elbo:
        progress.best_elbo, progress.stale = elbo, 0
        state.best.load_state_dict(state.averaged.state_dict())
    steps = progress.step - (progress.history[-1]["step"] if progress.history else 0)
    means = {
        name: total / steps for name, total in zip(CURVES, state.tally.sums.tolist(), strict=True)
    }
    row = {"epoch": progress.step / per_epoch, "step": progress.step, **means}
    progress.history.append({**row, "val_re": re, "val_kl": kl, "val_elbo": elbo})
    state.tally.sums.zero_()
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


@torch.no_grad()
def predictions(model: VAE, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "2*n c h w"]:
    """The images, then what each pixel is expected to be, given those before it and the code."""
    x = images / 255 if images.shape[1] == 1 else as_input(images)
    mu, _ = model.encoder(x)
    return unit_range(torch.cat([x, model.decoder.expected(model.decoder(mu, x), x)]))


def save(state: State, store: Path) -> None:
    """Checkpoint the whole state, from rank 0; TrainingError rather than a state that went bad."""
    require_finite(state.tally)
    if distributed.rank() > 0:
        return
    state.progress.sums = state.tally.sums.tolist()
    files = {
        "weights": state.model.state_dict(),
        "averaged": state.averaged.state_dict(),
        "best": state.best.state_dict(),
        **moments(state.optimizer),
    }
    checkpoints.save(store, state.progress.step, files, asdict(state.progress))


def moments(optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Tensor]]:
    """Adam's state as ``step``, ``exp_avg`` and ``exp_avg_sq`` of each parameter by its number."""
    rows = optimizer.state_dict()["state"]
    return {
        f"adam-{key}": {str(i): row[key] for i, row in rows.items()}
        for key in ("step", "exp_avg", "exp_avg_sq")
    }


def restore(config: Config, store: Path, device: torch.device) -> State | None:
    """The state of the newest intact checkpoint, or None if there is none.

    ValueError if it is of another version of this code.
    """
    found = checkpoints.load_latest(store, device)
    if found is None:
        return None
    files, numbers = found
    try:
        progress = Progress(**numbers)
        models = [_model(config, files[name], device) for name in ("weights", "averaged", "best")]
        optimizer = adam(models[0], config)
        load_moments(optimizer, files)
    except (KeyError, TypeError) as problem:
        raise ValueError(
            f"the checkpoints of run {store.parent.name} are of another version of maelib; delete "
            "its folder 'checkpoints' to train it from the start."
        ) from problem
    return State(*models, optimizer, progress, Tally.on(device, progress.sums))


def load_moments(optimizer: torch.optim.Optimizer, files: dict[str, dict[str, Tensor]]) -> None:
    """Give Adam back what ``moments`` took."""
    parameters = optimizer.param_groups[0]["params"]
    keys = ("step", "exp_avg", "exp_avg_sq")
    rows = {
        int(i): {key: _like(parameters[int(i)], files[f"adam-{key}"][i]) for key in keys}
        for i in files["adam-step"]
    }
    optimizer.load_state_dict({**optimizer.state_dict(), "state": rows})


def _model(config: Config, weights: dict[str, Tensor], device: torch.device) -> VAE:
    model = build(config).to(device, memory_format=torch.channels_last)
    model.load_state_dict(weights)
    return model


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


def _require_divisible(config: Config, images: int) -> None:
    if config.batch_size > images:
        raise ValueError(
            f"batch_size is {config.batch_size}; it must be at most the {images} training images."
        )
    if config.batch_size % distributed.size():
        raise ValueError(
            f"batch_size is {config.batch_size}; it must be divisible by the "
            f"{distributed.size()} processes that share each batch."
        )
