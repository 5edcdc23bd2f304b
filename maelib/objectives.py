"""The loss of the paper, term by term: L_MAE = L_elbo + alpha L_diverse + beta L_smooth (Eq. 7)."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from maelib.divergences import gaussian_kl, mean_kl_per_dimension, mpd, pairwise_kl, std

DIVERSE_FORMS = ("tempered", "mean", "pairwise")


@dataclass(frozen=True)
class Terms:
    """The terms of one batch's loss, in nats per image; ``loss`` is what is minimised."""

    loss: Tensor
    re: Tensor
    kl: Tensor
    mpd: Tensor
    std: Tensor
    diverse: Tensor
    smooth: Tensor

    @property
    def elbo(self) -> Tensor:
        """L_elbo = RE + KL, the negative evidence lower bound (Eq. 3)."""
        return self.re + self.kl


def diverse_loss(
    mu: Float[Tensor, "batch latent"],
    logvar: Float[Tensor, "batch latent"],
    alpha: float,
    form: str = "tempered",
) -> Float[Tensor, ""]:
    """The diversity term of the loss, weight alpha included, in one of three forms.

    ``pairwise``: alpha mean_pairs sum_k softplus(-KL_k), as printed in Eq. (8). ``mean``: alpha
    sum_k softplus(-mean_pairs KL_k), the authors' released code; never above ``pairwise``
    (Jensen). ``tempered``: alpha sum_k softplus(-mean_pairs KL_k / alpha), their code on the
    submission's deadline day, whose closed form Table 4 follows (notebook 02).
    """
    if form not in DIVERSE_FORMS:
        raise ValueError(f"diverse is {form!r}; it must be one of {', '.join(DIVERSE_FORMS)}.")
    if alpha == 0:
        return mu.new_zeros(())
    if form == "pairwise":
        return alpha * mean_pairwise_softplus(mu, logvar)
    temperature = alpha if form == "tempered" else 1.0
    return alpha * F.softplus(-mean_kl_per_dimension(mu, logvar) / temperature).sum()


def mean_pairwise_softplus(
    mu: Float[Tensor, "batch latent"],
    logvar: Float[Tensor, "batch latent"],
    elements: int = 2**22,
) -> Float[Tensor, ""]:
    """mean_pairs sum_k softplus(-KL_k), the estimate of Eq. (8).

    A part of the pairs is formed at a time, about ``elements`` numbers, and again for the
    gradient: memory does not grow with batch^2 * latent.
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


def _softplus_sum(mu1: Tensor, logvar1: Tensor, mu2: Tensor, logvar2: Tensor) -> Tensor:
    kl = gaussian_kl(mu1[:, None], logvar1[:, None], mu2[None], logvar2[None])
    return F.softplus(-kl).sum()


def with_free_bits(kl: Float[Tensor, ""], free_bits: float) -> Float[Tensor, ""]:
    """max(kl, free_bits): below ``free_bits`` nats a batch's mean KL costs nothing more."""
    return kl.clamp(min=free_bits)


def mae_loss(
    re: Float[Tensor, " batch"],
    kl: Float[Tensor, " batch"],
    mu: Float[Tensor, "batch latent"],
    logvar: Float[Tensor, "batch latent"],
    *,
    alpha: float = 0.0,
    beta: float = 0.0,
    diverse: str = "tempered",
    free_bits: float = 0.0,
) -> Terms:
    """Eq. (7) over one batch, from each image's reconstruction error and KL in nats.

    With alpha = beta = 0 it is the plain ELBO, or a VLAE's with ``free_bits``.
    """
    diverse_term = diverse_loss(mu, logvar, alpha, diverse)
    deviation = std(mu, logvar)
    smooth_term = beta * deviation
    re, kl = re.mean(), kl.mean()
    loss = re + with_free_bits(kl, free_bits) + diverse_term + smooth_term
    return Terms(loss, re, kl, mpd(mu, logvar), deviation, diverse_term, smooth_term)


def closed_form_mpd(alpha: float, beta: float, ratio: float, latent: int, form: str) -> float:
    """The MPD at which L_diverse and L_smooth alone balance, in nats, if STD = ratio * MPD.

    ``tempered``: latent alpha log(1/(beta ratio) - 1). ``mean``: latent log(alpha/(beta ratio)
    - 1). It assumes equal dimensions and neglects the ELBO's own pull; 0 where the balance lies
    at no positive MPD. ``pairwise`` has no such closed form.
    """
    if form not in ("tempered", "mean"):
        raise ValueError(f"diverse is {form!r}; a closed form exists for tempered and mean only.")
    pull = 1.0 if form == "tempered" else alpha
    temperature = alpha if form == "tempered" else 1.0
    odds = pull / (beta * ratio) - 1
    return latent * temperature * math.log(odds) if odds > 1 else 0.0


def importance_weighted_bound(
    log_weights: Float[Tensor, "samples batch"],
) -> Float[Tensor, " batch"]:
    """log (1/k) sum_i exp(log_weights_i), in nats: a bound on log p(x) from k samples.

    ``log_weights`` are log p(x|z) + log p(z) - log q(z|x) with z drawn from q(z|x). In
    expectation it rises with k towards log p(x) (Burda et al., 2016); at k = 1 it is the ELBO.
    """
    return torch.logsumexp(log_weights, 0) - math.log(log_weights.shape[0])
