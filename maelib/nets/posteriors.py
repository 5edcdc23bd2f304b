"""The posteriors q(z|x): from an encoder's features to a mean and a log-variance."""

import math

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float
from scipy.special import lambertw
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from maelib.internal.shapes import Codes, PerDimension

MOMENTUM = 0.1  # share of a batch in the running mean and variance


class GaussianPosterior(nn.Module):
    """q(z|x) = N(mu, diag(exp logvar)) by ``layer``; ``logvar_range`` clamps logvar, if given."""

    def __init__(self, layer: nn.Module, logvar_range: tuple[float, float] | None = None):
        super().__init__()
        self.layer, self.logvar_range = layer, logvar_range

    def forward(self, features: Float[Tensor, "batch *shape"]) -> tuple[Codes, Codes]:
        mu, logvar = (part.flatten(1) for part in self.layer(features).chunk(2, 1))
        logvar = logvar if self.logvar_range is None else logvar.clamp(*self.logvar_range)
        return self.constrain(mu.to(self.layer.bias.dtype), logvar.to(self.layer.bias.dtype))

    def constrain(self, mu: Codes, logvar: Codes) -> tuple[Codes, Codes]:
        """What a subclass makes of mu and logvar, in the precision of the weights."""
        return mu, logvar


class BatchNormPosterior(GaussianPosterior):
    """mu = gamma (mu - mean) / std + shift over the batch (BN-VAE; Zhu et al., 2020).

    Over a batch the mean KL to N(0, I) is at least latent * gamma^2 / 2. Outside training the mean
    and variance are those of past batches. They are parameters without a gradient, so that
    they are averaged as the weights are.
    """

    def __init__(self, *layer_and_range, latent: int, gamma: float):
        super().__init__(*layer_and_range)
        self.gamma, self.shift = gamma, nn.Parameter(torch.zeros(latent))
        self.mean = nn.Parameter(torch.zeros(latent), requires_grad=False)
        self.var = nn.Parameter(torch.ones(latent), requires_grad=False)

    def constrain(self, mu: Codes, logvar: Codes) -> tuple[Codes, Codes]:
        return self.scale() * self.normalise(mu) + self.shift, logvar

    def scale(self) -> PerDimension:
        return torch.full_like(self.shift, self.gamma)

    def normalise(self, mu: Codes) -> Codes:
        mean, var = self.mean, self.var
        if self.training:
            mean = _mean_over_ranks(mu)
            var = _mean_over_ranks((mu - mean).square())
            with torch.no_grad():
                self.mean.lerp_(mean, MOMENTUM)
                self.var.lerp_(var, MOMENTUM)
        return (mu - mean) * (var + 1e-5).rsqrt()


class DUPosterior(BatchNormPosterior):
    """Diverse means and uncertain variances (DU-VAE; Shen et al., 2021).

    The scale of the batch normalisation is learned, with root mean square gamma. The variance
    exceeds 1 / (2 pi e), so that the entropy is positive, by a part that dropout sets to 0.
    """

    floor = 1 / (2 * math.pi * math.e)

    def __init__(self, *layer_and_range, latent: int, gamma: float, dropout: float):
        super().__init__(*layer_and_range, latent=latent, gamma=gamma)
        self.direction, self.dropout = nn.Parameter(torch.ones(latent)), dropout

    def constrain(self, mu: Codes, logvar: Codes) -> tuple[Codes, Codes]:
        mu, _ = super().constrain(mu, logvar)
        return mu, (self.floor + F.dropout(logvar.exp(), self.dropout, self.training)).log()

    def scale(self) -> PerDimension:
        return self.gamma * self.direction / self.direction.square().mean().sqrt()


class DeltaPosterior(GaussianPosterior):
    """At least ``delta`` nats of KL to N(0, 1) in each dimension (delta-VAE; Razavi et al., 2019).

    sigma lies between the roots of log s^2 - s^2 + 2 delta + 1 = 0, and
    mu = sqrt(2 delta + 1 + log sigma^2 - sigma^2 + relu(m)).
    """

    def __init__(self, *layer_and_range, delta: float):
        super().__init__(*layer_and_range)
        self.delta = delta
        roots = (-lambertw(-math.exp(-2 * delta - 1), branch).real for branch in (0, -1))
        self.low, self.high = (math.sqrt(root) for root in roots)

    def constrain(self, mu: Codes, logvar: Codes) -> tuple[Codes, Codes]:
        logvar = 2 * (self.low + (self.high - self.low) * logvar.sigmoid()).log()
        owed = 2 * self.delta + 1 + logvar - logvar.exp()
        return (owed.clamp(min=1e-6) + mu.relu()).sqrt(), logvar  # a root's slope at 0 is infinite


def _mean_over_ranks(values: Codes) -> PerDimension:
    """The mean over the global batch, of which every process has an equal part."""
    mean = values.mean(0)
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return mean
    return all_reduce(mean) / dist.get_world_size()
