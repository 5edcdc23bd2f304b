"""KL divergences between diagonal Gaussian posteriors, and their mean and spread over pairs.

Everything is in nats. ``mu`` and ``logvar`` are the posterior's mean and log-variance.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def gaussian_kl(
    mu1: Float[Tensor, "*#shape"],
    logvar1: Float[Tensor, "*#shape"],
    mu2: Float[Tensor, "*#shape"],
    logvar2: Float[Tensor, "*#shape"],
) -> Float[Tensor, "*#shape"]:
    """KL(N(mu1, exp logvar1) || N(mu2, exp logvar2)) in nats, elementwise; the shapes broadcast."""
    distance = (mu1 - mu2).square()
    return 0.5 * (logvar2 - logvar1 + (distance + logvar1.exp()) / logvar2.exp() - 1)


def standard_kl(
    mu: Float[Tensor, "*shape"], logvar: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """KL(N(mu, exp logvar) || N(0, 1)) in nats, elementwise."""
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar)


def pairwise_kl(
    mu: Float[Tensor, "batch latent"], logvar: Float[Tensor, "batch latent"]
) -> Float[Tensor, "pairs latent"]:
    """KL(q(z_k|x_i) || q(z_k|x_j)) in nats for every ordered pair i != j, dimension k (Eq. 8).

    ``pairs`` is batch * (batch - 1), row by row, so a batch of one has no pair: a ValueError.
    The slow, obvious form, and the only one that keeps every dimension of every pair.
    """
    batch = _pairable(mu)
    full = gaussian_kl(mu[:, None], logvar[:, None], mu[None], logvar[None])
    return full[~torch.eye(batch, dtype=torch.bool, device=mu.device)]


def mean_kl_per_dimension(
    mu: Float[Tensor, "batch latent"], logvar: Float[Tensor, "batch latent"]
) -> Float[Tensor, " latent"]:
    """Mean of ``pairwise_kl`` over its pairs, per dimension, without forming any pair.

    Per dimension the sum over all i, j of ((mu_i - mu_j)^2 + var_i) / var_j separates into
    batch moments. The means are centred first, so that nothing large cancels.
    """
    batch = _pairable(mu)
    centred = mu - mu.mean(0)
    precision = (-logvar).exp()
    spread = centred.square() + logvar.exp()
    cross = spread.mean(0) * precision.mean(0) + (centred.square() * precision).mean(0)
    all_pairs = 0.5 * (cross - 1)
    return all_pairs * batch / (batch - 1)


def pairwise_total_kl(
    mu: Float[Tensor, "batch latent"], logvar: Float[Tensor, "batch latent"]
) -> Float[Tensor, " pairs"]:
    """KL(q(z|x_i) || q(z|x_j)) in nats for every ordered pair i != j, summed over dimensions.

    Equals ``pairwise_kl(mu, logvar).sum(1)`` with two matrix products in place of a
    [batch, batch, latent] array: (mu_i - mu_j)^2 / var_j expands in i and j.
    """
    batch = _pairable(mu)
    centred = mu - mu.mean(0)
    precision = (-logvar).exp()
    left = torch.cat([centred.square() + logvar.exp(), centred], 1)
    right = torch.cat([precision, -2 * centred * precision], 1)
    entropy = logvar.sum(1)
    own = (centred.square() * precision).sum(1)
    latent = mu.shape[1]
    full = 0.5 * (left @ right.T + own + entropy - entropy[:, None] - latent)
    # Dropping the diagonal by views: each row of batch entries starts one past a diagonal entry.
    return full.flatten()[1:].view(batch - 1, batch + 1)[:, :-1].reshape(-1)


def mpd(
    mu: Float[Tensor, "batch latent"], logvar: Float[Tensor, "batch latent"]
) -> Float[Tensor, ""]:
    """Mutual posterior divergence: the mean KL over ordered pairs x1 != x2, in nats (Eq. 4)."""
    return mean_kl_per_dimension(mu, logvar).sum()


def std(
    mu: Float[Tensor, "batch latent"], logvar: Float[Tensor, "batch latent"]
) -> Float[Tensor, ""]:
    """Standard deviation of the pairwise KL over ordered pairs x1 != x2, in nats (Eq. 6)."""
    return spread(pairwise_total_kl(mu, logvar))


def spread(kl: Float[Tensor, " pairs"]) -> Float[Tensor, ""]:
    """Standard deviation over pairs (normalised by their number), with gradient 0 at spread 0."""
    variance = kl.var(correction=0)
    is_zero = variance == 0
    return torch.where(is_zero, 0.0, torch.where(is_zero, 1.0, variance).sqrt())


def _pairable(mu: Tensor) -> int:
    batch = mu.shape[0]
    if batch < 2:
        raise ValueError(
            f"a batch of {batch} has no pair of different images; "
            "the mutual posterior divergence needs a batch size of at least 2."
        )
    return batch
