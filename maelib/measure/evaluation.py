"""What is measured on a trained model: RE, KL, L_elbo, MPD, STD, the NLL, collapse and Table 2.

Every model sees the test images in the same seeded order and binarisation and with the same noise,
so that models are compared by paired differences. "The first" images are those of that order,
in which the classes are balanced: a file's first images may be easier than the rest.
"""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from maelib.data import Data
from maelib.data.dataset import Dataset, Split, as_input
from maelib.divergences import log_density, mpd, reparameterise, std
from maelib.internal import rng
from maelib.internal.shapes import Codes, Images, ManyCodes, PerImage, Samples
from maelib.measure import EVALUATION_VERSION, Evaluation, collapse
from maelib.measure.estimate import balanced_order, estimate
from maelib.measure.kept import Kept
from maelib.model import VAE
from maelib.nets.layers import fixed_weights
from maelib.objectives.base import Outputs
from maelib.training.precision import choose, inference_precision

BLOCK = 64  # importance samples that share one noise key
PAIR_BATCH = 512  # test images among which MPD and STD are taken
COLLAPSE_IMAGES = 2000  # N of the aggregated posterior
CLUSTERING_RUNS = 5  # of k-means, and of the draw of labels
SEED = 0  # of the order, binarisation and noise of test images: the same for every run
LogWeights = Float[Tensor, "samples batch"]
Observe = Callable[[int, int], None]  # gets the number of images that are done, and of all


@dataclass(frozen=True)
class Measured:
    """All that is measured on one model, under the names of its ``Record``."""

    measurements: dict[str, float]  # means, in nats unless their name says otherwise
    per_image: dict[str, list[float]]  # for paired comparisons; mpd and std by batch of pairs
    dimensions: dict[str, list[float]]  # a number for each latent dimension
    evaluation: dict[str, object]  # how all of it was measured


def measure(
    model: VAE,
    dataset: Dataset,
    used: Data,
    settings: Evaluation,
    precision: str = "auto",
    observe: Observe | None = None,
    kept: Kept | None = None,
) -> Measured:
    """Every measure, on the images ``used``; ``observe`` gets the NLL's images done, and all.

    What there is of the NLL in ``kept`` is not computed again.

    All means are of the same images: the NLL of those without ``nll_k`` samples is estimated.
    Only colour images have bits/dim (``bpd``), and only binary ones with labels the measures of
    Table 2.
    """
    precision = choose(precision, model.device)
    order = torch.from_numpy(balanced_order(dataset.test.labels.numpy(), SEED))[: used.test_images]
    test = Split(dataset.test.images[order], dataset.test.labels[order])
    x = test_images(test.images.to(model.device))
    re, kl, mu, logvar = elbo_terms(model, x, precision=precision)
    mpds, stds = pair_measures(mu, logvar)
    is_colour = x.shape[1] == 3
    nlls = nll_terms(model, x, re + kl, settings, precision=precision, observe=observe, kept=kept)
    nll = estimate(*nlls.values())
    train = dataset.train.first(used.train_images)
    first = slice(COLLAPSE_IMAGES)
    kl_first = float(kl[first].mean())
    scalars, dimensions = collapse.measure(model, x[first], mu[first], logvar[first], kl_first)
    means = {
        "re": float(re.mean()),
        "kl": float(kl.mean()),
        "elbo": float((re + kl).mean()),
        "mpd": statistics.fmean(mpds),
        "std": statistics.fmean(stds),
        "nll": nll.mean,
        "nll_standard_error": nll.error,
        **scalars,
    }
    if is_colour:
        means["bpd"] = bits_per_dim(nll.mean, x[0].numel())
    elif len(train.labels.unique()) > 1:
        from maelib.measure import representations  # scikit-learn takes seconds to import

        means |= representations.measure_model(model, train, test, CLUSTERING_RUNS)
    lists = {**nlls, "re": re.tolist(), "kl": kl.tolist()}
    lists = {name: [round(value, 3) for value in values] for name, values in lists.items()}
    about = _about(settings, order, nlls, is_colour) | {"precision": precision}
    return Measured(means, {**lists, "mpd": mpds, "std": stds}, dimensions, about)


def _about(
    settings: Evaluation, order: Int64[Tensor, " images"], nlls: dict, is_colour: bool
) -> dict[str, object]:
    """How everything was measured, and on which of the test images."""
    images, count = len(order), len(nlls["nll"])
    return {
        "version": EVALUATION_VERSION,
        "test_images": images,
        "nll_images": count,
        "nll_k": settings.nll_k,
        "nll_k_all": settings.nll_k_all if "nll_all" in nlls else settings.nll_k,
        "nll_indices": order[:count].tolist(),
        "binarisations": 0 if is_colour else 1,
        "pair_batch": min(PAIR_BATCH, images),
        "collapse_images": min(COLLAPSE_IMAGES, images),
        "clustering_runs": CLUSTERING_RUNS,
        "weights": "exponential moving average, best validation ELBO",
    }


def nll_terms(
    model: VAE, x: Images, elbo: PerImage, settings: Evaluation, **how: object
) -> dict[str, list[float]]:
    """What ``estimate`` makes the NLL from: ``nll`` of the first images and ``nll_all`` of all.

    There is no ``nll_all`` where all images have ``nll_k`` samples. If ``nll_k_all`` is 1, it is
    ``elbo``, which needs no further samples.
    ``how`` are keywords of ``iw_nll``.
    """
    count, k_all = settings.nll_images or len(x), settings.nll_k_all
    costly = {"nll": iw_nll(model, x[:count], settings.nll_k, **how).tolist()}
    if count >= len(x):
        return costly
    cheap = elbo if k_all == 1 else iw_nll(model, x, k_all, **how)
    return {**costly, "nll_all": cheap.tolist()}


def bits_per_dim(nll: float, dimensions: int) -> float:
    """An NLL in nats per image as bits for each of its ``dimensions`` numbers."""
    return nll / (dimensions * math.log(2))


def test_images(images: UInt8[Tensor, "batch channels h w"]) -> Images:
    """The test images that every model is measured on, binary ones in one seeded binarisation."""
    return as_input(images.cpu(), rng.generator(SEED, "test binarisation")).to(images.device)


@torch.no_grad()
def elbo_terms(model: VAE, x: Images, batch: int = 500, precision: str = "float32") -> Outputs:
    """RE and KL in nats of each image by one posterior sample, and mu and logvar."""
    noise = rng.generator(SEED, "elbo")
    eps = torch.randn(len(x), model.prior.latent, generator=noise).to(x.device)
    with inference_precision(precision, x.device):
        parts = [model(*chunk) for chunk in zip(x.split(batch), eps.split(batch), strict=True)]
    return Outputs(*map(torch.cat, zip(*parts, strict=True)))


def pair_measures(mu: Codes, logvar: Codes) -> tuple[list[float], list[float]]:
    """MPD and STD in nats of each full batch of ``PAIR_BATCH`` images, or of all of fewer."""
    size = min(PAIR_BATCH, len(mu))
    batches = zip(mu.split(size), logvar.split(size), strict=True)
    full = [batch for batch in batches if len(batch[0]) == size]
    return [float(mpd(*batch)) for batch in full], [float(std(*batch)) for batch in full]


@torch.no_grad()
def iw_nll(
    model: VAE,
    x: Images,
    k: int,
    rows: int | None = None,
    precision: str = "float32",
    observe: Observe | None = None,
    kept: Kept | None = None,
) -> PerImage:
    """-log (1/k) sum_i p(x, z_i) / q(z_i|x) in nats for each image, z_i from q(z|x).

    At most about ``rows`` images are decoded at once, whatever k; by default as many as suit the
    device. The noise is keyed by the image's index and the block of ``BLOCK`` samples, so ``rows``
    changes only round-off. The networks multiply as ``precision`` says; log-probabilities and their
    sums are float32. What ``kept`` has is not computed again, and it is told the rest.
    """
    per_batch = max(1, (rows or rows_at_once(x.device, x[0].numel())) // min(BLOCK, k))
    done = x.new_tensor(kept.read(k) if kept else [])[: len(x)]
    with fixed_weights(model), inference_precision(precision, x.device):
        try:
            while len(done) < len(x):
                chunk = x[len(done) : len(done) + per_batch]
                done = torch.cat([done, _stream(model, chunk, len(done), k)])
                if kept:
                    kept.note(k, done)
                if observe:
                    observe(len(done), len(x))
        finally:
            if kept:
                kept.write(k, done)
    return done


def rows_at_once(device: torch.device, numbers: int) -> int:
    """How many images of so many ``numbers`` the NLL decodes at once.

    They are 256, and on a GPU as many as keep it busy: 5,349 of MNIST, 1,365 of CIFAR-10.
    """
    return 2**22 // numbers if device.type == "cuda" else 256


def log_weights(
    model: VAE, x: Images, eps: ManyCodes, posterior: tuple[Codes, Codes] | None = None
) -> LogWeights:
    """log p(x|z) + log p(z) - log q(z|x) in nats at z = mu + exp(logvar / 2) eps.

    ``posterior`` is the encoder's mu and logvar of ``x``, if they are known already.
    """
    mu, logvar = posterior or model.encode(x)
    z = reparameterise(mu, logvar, eps).flatten(0, 1)
    repeated = x.expand(len(eps), *x.shape).flatten(0, 1)
    joint = model.log_likelihood(repeated, z) + model.prior.log_prob(z)
    return joint.view(eps.shape[:2]) - log_density(eps, logvar).sum(-1)


def importance_weighted_bound(log_weights: LogWeights) -> PerImage:
    """log (1/k) sum_i exp(log_weights_i), in nats: a bound on log p(x) from k samples.

    In expectation it rises with k towards log p(x) (Burda et al., 2016); at k = 1 it is the ELBO.
    """
    return log_weights.logsumexp(0) - math.log(len(log_weights))


def noise_block(image: int, block: int, latent: int) -> Samples:
    """Standard normal noise of one block of importance samples of one image."""
    return torch.randn(BLOCK, latent, generator=rng.generator(SEED, "nll", image, block))


def _stream(model: VAE, x: Images, first: int, k: int) -> PerImage:
    """``iw_nll`` of the images that begin at index ``first``, block by block of samples."""
    total = x.new_full((len(x),), -math.inf)
    posterior = model.encode(x)
    for block in range(-(-k // BLOCK)):
        noise = [noise_block(first + i, block, model.prior.latent) for i in range(len(x))]
        eps = torch.stack(noise, 1)[: k - block * BLOCK]
        eps = eps.pin_memory() if x.is_cuda else eps  # so that the host does not wait for the GPU
        eps = eps.to(x, non_blocking=True)
        total = torch.logaddexp(total, log_weights(model, x, eps, posterior).logsumexp(0))
    return math.log(k) - total
