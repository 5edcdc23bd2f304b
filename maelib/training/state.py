"""Everything that training changes, and how it is saved and restored."""

import copy
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from maelib.data.dataset import as_input
from maelib.internal import rng
from maelib.internal.files import reading, typed
from maelib.internal.shapes import Codes, Images, StoredImages
from maelib.model import VAE, build, initialise
from maelib.objectives.base import MEASURED, Objective
from maelib.training import Job, Training, checkpoints, parallel

MODELS = ("weights", "averaged", "best")  # a checkpoint's files, beside Adam's moments
MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class TrainingError(RuntimeError):
    """Training cannot continue; the message says what failed and what is saved."""


def curves(objective: Objective) -> tuple[str, ...]:
    """The names of the terms that are recorded, in the order of ``Terms.named``."""
    return ("re", "kl", *objective.penalties, "loss", *MEASURED)


@dataclass
class Progress:
    """The plain numbers of a run's state."""

    step: int = 0
    best_elbo: float | None = None  # on validation images, in nats
    stale: int = 0  # validations since the best
    halvings: int = 0
    seconds: float = 0.0
    way: str = "eager"  # of ``WAYS``, in which steps were last taken
    sums: list[float] = field(default_factory=list)  # of ``RunningTotals``, as last saved
    history: list[dict[str, int | float]] = field(default_factory=list)


@dataclass
class RunningTotals:
    """Sums on the device, to which a step adds without a wait of the host."""

    names: tuple[str, ...]
    sums: Float[Tensor, " curves"]  # of ``names`` since the last row of the history, in nats
    first_bad: Float[Tensor, " watched"]  # the step in which each was first not finite, or inf
    step: Float[Tensor, ""]  # the number of the present step

    @classmethod
    def on(cls, device: torch.device, names: tuple[str, ...], sums: list[float]) -> "RunningTotals":
        """Totals that continue from ``sums``, or start at 0; float64 where the device has it."""
        dtype = torch.float32 if device.type == "mps" else torch.float64
        first = torch.tensor(sums or [0.0] * len(names), dtype=dtype, device=device)
        totals = cls(names, first, torch.empty(0), first.new_zeros(()))
        totals.first_bad = first.new_full((len(totals.watched),), math.inf)
        return totals

    @property
    def watched(self) -> tuple[str, ...]:
        """The terms of the loss, the loss and its gradient: causes before their effects."""
        return (*self.names[: -len(MEASURED)], "gradient")

    def require_finite(self) -> None:
        """TrainingError if anything was not finite; it names the first step and what it was."""
        first_bad = self.first_bad.tolist()
        step = min(first_bad)
        if step == math.inf:
            return
        bad = [name for name, when in zip(self.watched, first_bad, strict=True) if when == step]
        terms = [name for name in bad if name not in ("loss", "gradient")]
        what = f"the term {' and '.join(terms)}" if terms else f"the {bad[0]}"
        kept = "the weights and the last checkpoint are from before it: lower lr or"
        early = "lr has had no effect yet: change init_images or"
        remedy = f"{kept if step else early} the weights of the loss's terms"
        raise TrainingError(
            f"{what} is NaN or infinite at step {int(step)}; {remedy} and train again."
        )


@dataclass
class State:
    """Everything that training changes. ``averaged`` is the EMA, ``best`` its best so far.

    ``model`` is in torch's training mode, and the other two are in evaluation mode.
    """

    model: VAE
    averaged: VAE
    best: VAE
    optimizer: torch.optim.Optimizer
    progress: Progress
    totals: RunningTotals


def start(config: Job, images: StoredImages, device: torch.device) -> State:
    """A fresh state: weights drawn from the seed and initialised on the first images.

    With ``init_from`` they are that model's weights; ValueError if its file is damaged or has
    changed.
    """
    noise = rng.generator(config.seed, "initialise", device=device)
    x, eps = draw(images[: config.training.init_images], config.network.latent, noise)
    with rng.own_generators(device):
        torch.manual_seed(rng.derive(config.seed, "weights"))
        model = build(config.network).to(device, memory_format=torch.channels_last)
        if config.training.init_from:
            _load(model.train(), config.training)
        else:
            initialise(model.train(), x, eps)
    optimizer = adam(model, config.training)
    totals = RunningTotals.on(device, curves(config.objective), [])
    averaged, best = (copy.deepcopy(model).eval() for _ in range(2))
    return State(model, averaged, best, optimizer, Progress(), totals)


def _load(model: VAE, settings: Training) -> None:
    path = Path(settings.init_from)
    with reading(path, "the model that this run began with", "restore it"):
        model.load_state_dict(checkpoints.read_tensors(path, settings.init_weights))


def draw(images: StoredImages, latent: int, noise: torch.Generator) -> tuple[Images, Codes]:
    """The images as the model sees them, and the noise of their posterior samples."""
    x = as_input(images, noise)
    return x, torch.randn(len(x), latent, generator=noise, device=x.device)


def adam(model: VAE, settings: Training) -> torch.optim.Adam:
    """The paper's optimiser. One kernel updates all parameters, where the device has such a kernel.

    The learning rate is then a tensor on the device, as a captured step needs it.
    """
    parameters = list(model.parameters())
    device = parameters[0].device
    on_gpu = device.type == "cuda"
    fused = on_gpu or device.type == "cpu"
    # The kernel of a GPU takes the rate in float32, and that of a CPU in float64.
    kind = torch.float32 if on_gpu else torch.float64
    rate = torch.tensor(settings.lr, dtype=kind, device=device) if fused else settings.lr
    how = {"fused": fused, "capturable": on_gpu}
    return torch.optim.Adam(parameters, rate, settings.adam_betas, **how)


def save(state: State, store: Path) -> None:
    """Checkpoint the whole state, on rank 0; TrainingError instead if anything was not finite."""
    state.totals.require_finite()
    if parallel.rank() > 0:
        return
    state.progress.sums = state.totals.sums.tolist()
    models = zip(MODELS, (state.model, state.averaged, state.best), strict=True)
    files = {name: model.state_dict() for name, model in models} | moments(state.optimizer)
    checkpoints.save(store, state.progress.step, files, asdict(state.progress))


def restore(config: Job, store: Path, device: torch.device) -> State | None:
    """The state of the newest intact checkpoint; None if there is none, ValueError if all fail."""

    def rebuild(files: dict[str, dict[str, Tensor]], numbers: dict) -> State:
        progress = typed(Progress, numbers)
        models = [_model(config, files[name], device) for name in MODELS]
        models[0].train()
        optimizer = adam(models[0], config.training)
        load_moments(optimizer, files)
        totals = RunningTotals.on(device, curves(config.objective), progress.sums)
        return State(*models, optimizer, progress, totals)

    return checkpoints.load_latest(store, rebuild)


def moments(optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Tensor]]:
    """Each of Adam's ``MOMENTS`` of every parameter, by the parameter's number."""
    rows = optimizer.state_dict()["state"]
    return {f"adam-{key}": {str(i): row[key] for i, row in rows.items()} for key in MOMENTS}


def load_moments(optimizer: torch.optim.Optimizer, files: dict[str, dict[str, Tensor]]) -> None:
    """Restore Adam from what ``moments`` returned."""
    parameters = optimizer.param_groups[0]["params"]
    rows = {
        int(i): {key: _like(parameters[int(i)], files[f"adam-{key}"][i]) for key in MOMENTS}
        for i in files["adam-step"]
    }
    optimizer.load_state_dict({**optimizer.state_dict(), "state": rows})


def _model(config: Job, weights: dict[str, Tensor], device: torch.device) -> VAE:
    model = build(config.network).to(device, memory_format=torch.channels_last)
    model.load_state_dict(weights)
    return model


def _like(parameter: Tensor, moment: Tensor) -> Tensor:
    """The moment in its parameter's memory order, which a fused optimiser assumes."""
    return torch.empty_like(parameter).copy_(moment) if moment.dim() else moment
