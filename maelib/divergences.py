"""Divergences of diagonal Gaussian posteriors: MPD, L_diverse, STD, I_q (Eqs. 4, 5, 6, 8, 9).

Everything is in nats. ``mu`` and ``logvar`` are the posterior's mean and log-variance.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from maelib.internal.shapes import AnyCodes, AnyShape, Codes, PerDimension, PerPair, Samples, Scalar


def gaussian_kl(mu1: AnyShape, logvar1: AnyShape, mu2: AnyShape, logvar2: AnyShape) -> AnyShape:
    """KL(N(mu1, exp logvar1) || N(mu2, exp logvar2)) in nats, elementwise; the shapes broadcast."""
    distance = (mu1 - mu2).square()
    return 0.5 * (logvar2 - logvar1 + (distance + logvar1.exp()) / logvar2.exp() - 1)


def standard_kl(mu: AnyShape, logvar: AnyShape) -> AnyShape:
    """KL(N(mu, exp logvar) || N(0, 1)) in nats, elementwise."""
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar)


def pairwise_kl(mu: Codes, logvar: Codes) -> Float[Tensor, "pairs latent"]:
    """KL(q(z_k|x_i) || q(z_k|x_j)) in nats for every ordered pair i != j, dimension k (Eq. 8).

    ``pairs`` is batch * (batch - 1), row by row. Here and below, a batch of one is a ValueError.
    """
    batch = _pairable(mu)
    full = gaussian_kl(mu[:, None], logvar[:, None], mu[None], logvar[None])
    return _without_diagonal(full.flatten(0, 1), batch)


def mean_kl_per_dimension(mu: Codes, logvar: Codes) -> PerDimension:
    """Mean of ``pairwise_kl`` over its pairs, without forming any pair.

    The sum over all i, j of ((mu_i - mu_j)^2 + var_i) / var_j separates into batch moments. The
    means are centred first, so that nothing large cancels.
    """
    batch = _pairable(mu)
    centred = mu - mu.mean(0)
    precision = (-logvar).exp()
    second_moment = centred.square() + logvar.exp()
    cross = second_moment.mean(0) * precision.mean(0) + (centred.square() * precision).mean(0)
    return 0.5 * (cross - 1) * batch / (batch - 1)


def pairwise_total_kl(mu: Codes, logvar: Codes) -> PerPair:
    """KL(q(z|x_i) || q(z|x_j)) in nats for every ordered pair i != j, summed over dimensions.

    This is ``pairwise_kl(mu, logvar).sum(1)`` by a matrix product: (mu_i - mu_j)^2 / var_j
    expands in i and j, so no [batch, batch, latent] array is formed.
    """
    batch = _pairable(mu)
    centred = mu - mu.mean(0)
    precision = (-logvar).exp()
    left = torch.cat([centred.square() + logvar.exp(), centred], 1)
    right = torch.cat([precision, -2 * centred * precision], 1)
    entropy = logvar.sum(1)
    own = (centred.square() * precision).sum(1)
    exact = torch.float64 if mu.is_cuda else mu.dtype  # a GPU may round a product's inputs to TF32
    product = (left.to(exact) @ right.T.to(exact)).to(mu.dtype)
    full = 0.5 * (product + own + entropy - entropy[:, None] - mu.shape[1])
    return _without_diagonal(full.flatten(), batch)


def mpd(mu: Codes, logvar: Codes) -> Scalar:
    """Mutual posterior divergence: the mean KL over ordered pairs x1 != x2, in nats (Eq. 4)."""
    return mean_kl_per_dimension(mu, logvar).sum()


def std(mu: Codes, logvar: Codes) -> Scalar:
    """Standard deviation of the pairwise KL over ordered pairs x1 != x2, in nats (Eq. 6)."""
    return std_over_pairs(pairwise_total_kl(mu, logvar))


def std_over_pairs(kl: PerPair) -> Scalar:
    """Standard deviation over pairs (normalised by their number); its gradient at 0 is 0."""
    variance = kl.var(correction=0)
    is_zero = variance == 0
    return variance.masked_fill(is_zero, 1.0).sqrt().masked_fill(is_zero, 0.0)


def diverse_loss(mu: Codes, logvar: Codes, alpha: float, form: str = "tempered") -> Scalar:
    """The diversity term of the loss, weight alpha included, in one of three forms.

    - ``pairwise``: alpha mean_pairs sum_k softplus(-KL_k), as printed in Eq. (8).
    - ``mean``: alpha sum_k softplus(-mean_pairs KL_k), the authors' released code; never above
      ``pairwise`` (Jensen).
    - ``tempered``: alpha sum_k softplus(-mean_pairs KL_k / alpha), their code on the day of
      the submission deadline. Table 4 follows its closed form (notebook 02).
    """
    if form not in ("tempered", "mean", "pairwise"):
        raise ValueError(f"form is {form!r}; it must be one of tempered, mean, pairwise.")
    if alpha == 0:
        return mu.new_zeros(())
    if form == "pairwise":
        return alpha * mean_pairwise_softplus(mu, logvar)
    temperature = alpha if form == "tempered" else 1.0
    return alpha * F.softplus(-mean_kl_per_dimension(mu, logvar) / temperature).sum()


def mean_pairwise_softplus(mu: Codes, logvar: Codes, elements: int = 2**22) -> Scalar:
    """mean_pairs sum_k softplus(-KL_k), the estimate of Eq. (8).

    About ``elements`` terms are formed at a time, and formed again for the gradient. Memory
    therefore does not grow with batch^2 * latent.
    """
    batch, latent = mu.shape
    rows = max(1, elements // mu.numel())
    if rows >= batch:
        return F.softplus(-pairwise_kl(mu, logvar)).sum(1).mean()
    total = sum(
        checkpoint(_softplus_sum, m, v, mu, logvar, use_reentrant=False)
        for m, v in zip(mu.split(rows), logvar.split(rows), strict=True)
    )
    # The pairs of an image with itself have KL_k = 0 for every k, and no gradient.
    return (total - batch * latent * math.log(2)) / (batch * (batch - 1))


def _softplus_sum(mu1: Tensor, logvar1: Tensor, mu2: Tensor, logvar2: Tensor) -> Scalar:
    kl = gaussian_kl(mu1[:, None], logvar1[:, None], mu2[None], logvar2[None])
    return F.softplus(-kl).sum()


def reparameterise(mu: AnyCodes, logvar: AnyCodes, eps: AnyCodes) -> AnyCodes:
    """The posterior sample z = mu + exp(logvar / 2) eps; shapes broadcast."""
    return mu + (0.5 * logvar).exp() * eps


def log_density(eps: AnyCodes, logvar: AnyCodes) -> AnyCodes:
    """log q(z_k|x) in nats of each dimension, at z = mu + exp(logvar / 2) eps; shapes broadcast."""
    return -0.5 * (eps.square() + logvar + math.log(2 * math.pi))


def log_posteriors(z: Samples, mu: Codes, logvar: Codes) -> Float[Tensor, "samples batch latent"]:
    """log q(z_k|x_j) for every sample, every posterior and every dimension."""
    distance = (z[:, None] - mu).square() / logvar.exp()
    return -0.5 * (distance + logvar + math.log(2 * math.pi))


def mutual_information(
    mu: Codes, logvar: Codes, eps: Codes, elements: int = 2**24
) -> tuple[Scalar, PerDimension]:
    """I_q(x;z) of Eq. (9), and I_q(x;z_k) of every dimension.

    The estimate is the mean of log q(z_i|x_i) - log (1/N) sum_j q(z_i|x_j), with one z_i for each
    image. It cannot exceed log N. For the N images alone it is unbiased; for the population that
    they are drawn from, its expectation is a lower bound (InfoNCE with the best critic).
    Arrays have at most about ``elements`` elements.
    """
    z, own = reparameterise(mu, logvar, eps), log_density(eps, logvar)
    joint, single = [], []
    for part in z.split(max(1, elements // mu.numel())):
        log_q = log_posteriors(part, mu, logvar)
        joint.append(log_q.sum(2).logsumexp(1))
        single.append(log_q.logsumexp(1))
    log_n = math.log(len(mu))
    total = own.sum(1) - torch.cat(joint) + log_n
    return total.mean(), (own - torch.cat(single)).mean(0) + log_n


def closed_form_mpd(alpha: float, beta: float, ratio: float, latent: int, form: str) -> float:
    """The MPD at which L_diverse and L_smooth alone balance, in nats, if STD = ratio * MPD.

    ``tempered``: latent alpha log(1/(beta ratio) - 1). ``mean``: latent log(alpha/(beta ratio)
    - 1). It assumes equal dimensions and neglects the ELBO's own pull. It is 0 if they
    balance at no positive MPD, and infinite if nothing opposes L_diverse, as at beta = 0.
    ``pairwise`` has no such closed form.
    """
    if form not in ("tempered", "mean"):
        raise ValueError(f"form is {form!r}; a closed form exists for tempered and mean only.")
    if beta * ratio == 0:
        return math.inf
    pull, temperature = (1.0, alpha) if form == "tempered" else (alpha, 1.0)
    odds = pull / (beta * ratio) - 1
    return latent * temperature * math.log(odds) if odds > 1 else 0.0


def _without_diagonal(all_pairs: Float[Tensor, "all *rest"], batch: int) -> Tensor:
    """The pairs i != j, in their order. A boolean mask would make the host wait for the device.

    After the first entry, every (batch + 1)-th entry is one of the diagonal.
    """
    rows = all_pairs[1:].unflatten(0, (batch - 1, batch + 1))
    return rows[:, :-1].flatten(0, 1)


def _pairable(mu: Codes) -> int:
    """The batch size, at least 2."""
    if len(mu) < 2:
        raise ValueError(
            f"a batch of {len(mu)} has no pair of different images; "
            "the mutual posterior divergence needs a batch size of at least 2."
        )
    return len(mu)
