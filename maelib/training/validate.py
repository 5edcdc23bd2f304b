"""Validation: the averaged weights on images whose binarisation and noise never change."""

import math
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float

from maelib.data.dataset import as_input, unit_range
from maelib.divergences import mutual_information
from maelib.internal import rng
from maelib.internal.shapes import StoredImages
from maelib.model import VAE
from maelib.nets.layers import fixed_weights
from maelib.training import parallel
from maelib.training.precision import inference_precision
from maelib.training.state import Progress, State, TrainingError, draw
from maelib.training.step import Step


def record_interval(state: State, step: Step, val: StoredImages, per_epoch: int) -> None:
    """Validate the average, keep it if it is the best, and record the curves since the last."""
    state.totals.require_finite()
    progress, totals, settings = state.progress, state.totals, step.settings
    re, kl = parallel.broadcast_from_rank0(lambda: validate(state.averaged, val, step.precision))
    since = progress.step - (progress.history[-1]["step"] if progress.history else 0)
    sums = zip(totals.names, totals.sums.tolist(), strict=True)
    means = {name: total / since for name, total in sums}
    row = {"epoch": progress.step / per_epoch, "step": progress.step, **means}
    row |= {"val_re": re, "val_kl": kl, "val_elbo": re + kl}
    if settings.encoder_steps:
        row["val_information"] = parallel.broadcast_from_rank0(
            lambda: information(state.averaged, val)
        )
    if bad := [name for name, value in row.items() if not math.isfinite(value)]:
        raise TrainingError(f"{bad[-1]} is {row[bad[-1]]} after step {progress.step}; lower lr.")
    progress.history.append(row)
    progress.stale += 1
    if progress.best_elbo is None or re + kl < progress.best_elbo:
        progress.best_elbo, progress.stale = re + kl, 0
        state.best.load_state_dict(state.averaged.state_dict())
    totals.sums.zero_()
    if settings.schedule == "plateau" and progress.stale >= settings.patience:
        progress.halvings, progress.stale = progress.halvings + 1, 0


@torch.no_grad()
def validate(model: VAE, images: StoredImages, precision: str) -> tuple[float, float]:
    """RE and KL in nats, averaged over the images; binarisation and noise are always the same."""
    noise = rng.generator(0, "validation", device=images.device)
    re_sum = kl_sum = 0.0
    with fixed_weights(model), inference_precision(precision, images.device):
        for chunk in images.split(500):
            outputs = model(*draw(chunk, model.prior.latent, noise))
            re_sum, kl_sum = re_sum + float(outputs.re.sum()), kl_sum + float(outputs.kl.sum())
    return re_sum / len(images), kl_sum / len(images)


@torch.no_grad()
def information(model: VAE, images: StoredImages) -> float:
    """I_q(x; z) in nats of at most 1000 images."""
    noise = rng.generator(0, "validation", device=images.device)
    x, eps = draw(images[:1000], model.prior.latent, noise)
    return float(mutual_information(*model.encode(x), eps)[0])


def information_rises(progress: Progress) -> bool:
    """Whether no validation so far has found a smaller I_q than the one before it."""
    found = [row["val_information"] for row in progress.history]
    return all(before <= after for before, after in pairwise(found))


@torch.no_grad()
def predictions(model: VAE, images: StoredImages) -> Float[Any, "2*batch channels h w"]:
    """The images, then what each pixel is expected to be, given those before it and the code."""
    x = images / 255 if images.shape[1] == 1 else as_input(images)
    mu, _ = model.encode(x)
    return unit_range(torch.cat([x, model.decoder.expected(model.decoder(mu, x), x)]))
