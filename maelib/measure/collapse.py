"""How much of the code a model uses: the measures of posterior collapse in the literature.

All from one sample z_i ~ q(z|x_i) of each of N images, and the N posteriors' mu and logvar. The
aggregated posterior q(z) is their mixture. In nats unless a docstring says otherwise.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from maelib.divergences import mean_kl_per_dimension
from maelib.internal import rng
from maelib.model import VAE, reparameterise

ACTIVE = 0.01  # variance of the posterior mean above which a dimension is active


def active_units(mu: Float[Tensor, "n latent"]) -> int:
    """Number of dimensions whose posterior mean varies by more than 0.01 over the images.

    Burda et al. (2016).
    """
    return int((mu.var(0) > ACTIVE).sum())


def log_posteriors(
    z: Float[Tensor, "m latent"], mu: Float[Tensor, "n latent"], logvar: Float[Tensor, "n latent"]
) -> Float[Tensor, "m n latent"]:
    """log q(z_k|x_j) for every sample, every posterior and every dimension."""
    distance = (z[:, None] - mu).square() / logvar.exp()
    return -0.5 * (distance + logvar + math.log(2 * math.pi))


def mutual_information(
    mu: Float[Tensor, "n latent"],
    logvar: Float[Tensor, "n latent"],
    eps: Float[Tensor, "n latent"],
    elements: int = 2**24,
) -> tuple[Float[Tensor, ""], Float[Tensor, " latent"]]:
    """I_q(x;z) of Eq. (9), and I_q(x;z_k) of every dimension, against the N aggregated posteriors.

    The estimate is the mean of log q(z_i|x_i) - log (1/N) sum_j q(z_i|x_j). It cannot exceed
    log N: near it, it says only that the true value is at least about that large. So many
    samples are compared at a time that an array has about ``elements`` numbers.
    """
    z = reparameterise(mu, logvar, eps)
    own = -0.5 * (eps.square() + logvar + math.log(2 * math.pi))
    joint, single = [], []
    for part in z.split(max(1, elements // mu.numel())):
        log_q = log_posteriors(part, mu, logvar)
        joint.append(log_q.sum(2).logsumexp(1))
        single.append(log_q.logsumexp(1))
    log_n = math.log(len(mu))
    total = own.sum(1) - torch.cat(joint) + log_n
    return total.mean(), (own - torch.cat(single)).mean(0) + log_n


def mutual_information_reference(
    mu: Float[Tensor, "n latent"], logvar: Float[Tensor, "n latent"], eps: Float[Tensor, "n latent"]
) -> float:
    """``mutual_information``'s I_q(x;z), by ``torch.distributions`` and loops."""
    posteriors = [
        torch.distributions.Normal(m, (0.5 * v).exp()) for m, v in zip(mu, logvar, strict=True)
    ]
    total = 0.0
    for q, e in zip(posteriors, eps, strict=True):
        z = q.mean + q.stddev * e
        densities = torch.stack([other.log_prob(z).sum() for other in posteriors])
        total += float(q.log_prob(z).sum() - densities.logsumexp(0) + math.log(len(mu)))
    return total / len(mu)


@torch.no_grad()
def swap_cost(
    model: VAE, x: Float[Tensor, "n c h w"], z: Float[Tensor, "n latent"], batch: int = 500
) -> float:
    """Increase of RE in nats when every image is decoded from another image's code.

    Near zero for a decoder that ignores the code.
    """
    other = z.roll(1, 0)
    parts = zip(x.split(batch), z.split(batch), other.split(batch), strict=True)
    gaps = [model.log_likelihood(a, b) - model.log_likelihood(a, c) for a, b, c in parts]
    return float(torch.cat(gaps).mean())


def measure(
    model: VAE,
    x: Float[Tensor, "n c h w"],
    mu: Float[Tensor, "n latent"],
    logvar: Float[Tensor, "n latent"],
    kl: float,
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Every measure of this module, and those of single dimensions as lists.

    ``kl`` is KL(q(z|x) || p(z)) in nats on the same images; ``marginal_kl`` is KL(q(z) || p(z))
    = KL - I_q. ``saturated`` is 1 where I_q lies within half a nat of its ceiling ``log_n``; the
    marginal KL is then an upper estimate. The flow prior does not factorise, so there is no KL
    to it per dimension.
    """
    eps = torch.randn(mu.shape, generator=rng.generator(0, "collapse")).to(mu)
    info, per_dimension = mutual_information(mu, logvar, eps)
    z, log_n = reparameterise(mu, logvar, eps), math.log(len(mu))
    scalars = {
        "active_units": float(active_units(mu)),
        "collapsed_fraction": 1 - active_units(mu) / mu.shape[1],
        "mutual_information": float(info),
        "log_n": log_n,
        "saturated": float(info > log_n - 0.5),
        "marginal_kl": kl - float(info),
        "swap_cost": swap_cost(model, x, z),
    }
    lists = {
        "mutual_kl": mean_kl_per_dimension(mu, logvar).tolist(),
        "mutual_information": per_dimension.tolist(),
    }
    return scalars, lists
