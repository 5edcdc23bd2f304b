"""The training loop: batches, steps, validation, checkpoints and interruption.

All randomness is a function of the seed and the step, so a run that is stopped and continued
goes through the same numbers as one that is not.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from maelib.data.dataset import Dataset
from maelib.internal import rng
from maelib.internal.shapes import Codes, Images, StoredImages
from maelib.model import VAE
from maelib.training import Job, ladder, parallel
from maelib.training.precision import choose, matmul_precision
from maelib.training.state import Progress, draw, restore, save, start
from maelib.training.step import Step, encoder_steps, train_step
from maelib.training.validate import information_rises, predictions, record_interval

CHECK_EVERY = 100  # steps between checks for NaN, since a check waits for the GPU
GO_ON, SAVE, STOP = 0, 1, 2
SHOWN_IMAGES = 8  # validation images that an observer may show


class Interrupted(Exception):
    """Training was stopped from outside, or ran out of time; its state is saved."""


Pictures = Callable[[], Images]


@dataclass(frozen=True)
class Observer:
    """Functions that training calls and that do not affect it."""

    stepped: Callable[[Progress, int], None] = lambda progress, total: None
    validated: Callable[[dict, Pictures], None] = lambda row, pictures: None


def train(
    config: Job,
    data: Dataset,
    folder: Path,
    device: torch.device,
    *,
    max_minutes: float | None = None,
    checkpoint_minutes: float = 2.0,
    observer: Observer = Observer(),
    way: str = "auto",
    precision: str = "auto",
) -> tuple[VAE, Progress]:
    """The averaged model with the best validation ELBO, and how training went.

    It continues from the checkpoint in ``folder`` if there is one.

    ``way`` is ``auto`` or the first of ``WAYS`` to be tried; ``precision`` is one of
    ``PRECISIONS``. Under torchrun all ranks call this, and rank 0 alone writes. TrainingError on a
    loss that is not finite, OSError if a checkpoint cannot be written, and Interrupted (state
    saved) on SIGINT, SIGTERM or after ``max_minutes``.
    """
    settings = config.training
    images = data.train.first(config.data.train_images).images.to(device)
    val = data.val.first(config.data.val_images).images.to(device)
    _check_batch_size(settings.batch_size, len(images))
    per_epoch = len(images) // settings.batch_size
    total = max(per_epoch * settings.epochs, settings.min_steps)
    validate_steps = settings.validate_steps or per_epoch
    store = folder / "checkpoints"
    state = restore(config, store, device) or start(config, images, device)
    progress, precision = state.progress, choose(precision, device)
    kept = progress.step  # in a checkpoint, which is never written twice
    step = Step(parallel.parallel(state.model), config.objective, settings, total, precision)
    stream = batches(config, images, progress.step, per_epoch)
    begun, saved = time.monotonic() - progress.seconds, time.monotonic()
    deadline = math.inf if max_minutes is None else time.monotonic() + 60 * max_minutes
    own = rng.own_generators(device)
    with interruption() as interrupted, matmul_precision(precision), own:
        progress.way, take = "eager", train_step
        tried = ladder.ways(way, state, step)
        if tried[0] != "eager":
            first = islice(batches(config, images, progress.step, per_epoch), ladder.COMPARED)
            progress.way, take = ladder.choose(state, step, first, tried)
        while progress.step < total and progress.halvings <= settings.halvings:
            torch.manual_seed(rng.derive(config.seed, "layers", progress.step, parallel.rank()))
            if settings.encoder_steps and information_rises(progress):
                encoder_steps(state, step, partial(extra_batch, config, images, progress.step))
            take(state, step, *next(stream))
            if progress.step % validate_steps == 0 or progress.step == total:
                record_interval(state, step, val, per_epoch)
                pictures = partial(predictions, state.averaged, val[:SHOWN_IMAGES])
                observer.validated(progress.history[-1], pictures)
            if progress.step % CHECK_EVERY == 0:
                state.totals.require_finite()
            progress.seconds = time.monotonic() - begun
            observer.stepped(progress, total)
            wish = SAVE if time.monotonic() - saved > 60 * checkpoint_minutes else GO_ON
            wish = STOP if interrupted() or time.monotonic() > deadline else wish
            decision = parallel.all_reduce_max(wish, progress.step)
            if decision:
                save(state, store)
                saved, kept = time.monotonic(), progress.step
            if decision == STOP and progress.step < total:
                how_far = f"step {progress.step} of {total}"
                raise Interrupted(f"stopped at {how_far}; the same command continues.")
    if progress.step > kept:
        save(state, store)
    return state.best, progress


def batches(
    config: Job, images: StoredImages, step: int, per_epoch: int
) -> Iterator[tuple[Images, Codes]]:
    """This rank's ``draw_batch`` of ``step`` and of every step after it."""
    while True:
        epoch, position = divmod(step, per_epoch)
        order = torch.randperm(len(images), generator=rng.generator(config.seed, "order", epoch))
        order = order.to(images.device).split(config.training.batch_size)
        for chosen in order[position:per_epoch]:
            x, eps = draw_batch(config, images[chosen], step)
            yield parallel.local_shard(x), parallel.local_shard(eps)
            step += 1


def draw_batch(config: Job, images: StoredImages, step: int) -> tuple[Images, Codes]:
    """The binarised images and the posterior noise of a step, from the seed alone."""
    noise = rng.generator(config.seed, "step", step, device=images.device)
    return draw(images, config.network.latent, noise)


def extra_batch(
    config: Job, images: UInt8[Tensor, "all channels h w"], step: int, number: int
) -> tuple[Images, Codes]:
    """This rank's part of a random batch for one of the encoder's own updates before a step."""
    noise = rng.generator(config.seed, "encoder", step, number, device=images.device)
    size = (config.training.batch_size,)
    chosen = torch.randint(len(images), size, generator=noise, device=images.device)
    x, eps = draw(images[chosen], config.network.latent, noise)
    return parallel.local_shard(x), parallel.local_shard(eps)


def ending() -> list[signal.Signals]:
    """The signals that ask a process to end. SIGHUP is one of them unless nohup ignores it."""
    hangup = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hangup]


@contextmanager
def interruption() -> Iterator[Callable[[], bool]]:
    """Context in which signals to end only set a flag, so that no step is cut short."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    flag = threading.Event()
    signals = ending()
    before = [signal.signal(number, lambda *_: flag.set()) for number in signals]
    try:
        yield flag.is_set
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def _check_batch_size(size: int, images: int) -> None:
    if size > images:
        raise ValueError(f"batch_size is {size}; it must be at most the {images} training images.")
    if size % parallel.size():
        raise ValueError(
            f"batch_size is {size}; it must be divisible by the {parallel.size()} processes that "
            "share each batch."
        )
