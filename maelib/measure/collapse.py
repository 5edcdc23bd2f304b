"""How much of the code a model uses: the measures of posterior collapse in the literature.

All are taken from one sample z_i ~ q(z|x_i) of each of N images, and the N posteriors' mu and
logvar. The aggregated posterior q(z) is their mixture. Values are in nats.
"""

import math

import torch

from maelib.divergences import mean_kl_per_dimension, mutual_information, reparameterise
from maelib.internal import rng
from maelib.internal.shapes import Codes, Images
from maelib.model import VAE

ACTIVE = 0.01  # variance of the posterior mean above which a dimension is active


def active_units(mu: Codes) -> int:
    """Number of dimensions whose mean varies by more than ``ACTIVE`` (Burda et al., 2016)."""
    return int((mu.var(0) > ACTIVE).sum())


@torch.no_grad()
def swap_cost(model: VAE, x: Images, z: Codes, batch: int = 500) -> float:
    """Increase of RE if each image is decoded from another's code; near 0 if codes are ignored.

    The other image is the one before. In the evaluation's order it is of another class.
    """
    parts = zip(x.split(batch), z.split(batch), z.roll(1, 0).split(batch), strict=True)
    gaps = [model.log_likelihood(a, b) - model.log_likelihood(a, c) for a, b, c in parts]
    return float(torch.cat(gaps).mean())


def measure(
    model: VAE, x: Images, mu: Codes, logvar: Codes, kl: float
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Every measure of this module, and those of single dimensions as lists.

    ``kl`` is KL(q(z|x) || p(z)) on the same images; ``marginal_kl`` is KL(q(z) || p(z)) = KL - I_q.
    For the population it is an upper estimate. It is far too large where ``saturated`` is 1, that
    is, where I_q lies within half a nat of its ceiling ``log_n``. A flow prior does not factorise
    and gives no KL per dimension.
    """
    eps = torch.randn(mu.shape, generator=rng.generator(0, "collapse")).to(mu)
    info, per_dimension = mutual_information(mu, logvar, eps)
    active, log_n = active_units(mu), math.log(len(mu))
    scalars = {
        "active_units": float(active),
        "collapsed_fraction": 1 - active / mu.shape[1],
        "mutual_information": float(info),
        "log_n": log_n,
        "saturated": float(info > log_n - 0.5),
        "marginal_kl": kl - float(info),
        "swap_cost": swap_cost(model, x, reparameterise(mu, logvar, eps)),
    }
    lists = {
        "mutual_kl": mean_kl_per_dimension(mu, logvar).tolist(),
        "mutual_information": per_dimension.tolist(),
    }
    return scalars, lists
