"""The priors p(z): N(0, I), the same transformed by a flow, and a mixture of posteriors."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Generator, nn

from maelib.divergences import log_posteriors, reparameterise
from maelib.internal.shapes import Codes, Images, PerImage, Samples
from maelib.nets.layers import fixed_weights, in_float32


class StandardNormal(nn.Module):
    """p(z) = N(0, I) over ``latent`` dimensions."""

    def __init__(self, latent: int):
        super().__init__()
        self.latent = latent

    def log_prob(self, z: Codes) -> PerImage:
        """log p(z) in nats."""
        return -0.5 * (z.square() + math.log(2 * math.pi)).sum(1)

    @torch.no_grad()
    def sample(self, count: int, generator: Generator, temperature: float = 1.0) -> Samples:
        """``count`` draws of z, on the generator's device; ``temperature`` scales the noise."""
        noise = torch.randn(count, self.latent, generator=generator, device=generator.device)
        return temperature * noise


class FlowPrior(StandardNormal):
    """p(z) as N(0, I) transformed by the inverses of ``steps`` (see ``flows``)."""

    def __init__(self, latent: int, steps: Iterable[nn.Module]):
        super().__init__(latent)
        self.steps = nn.ModuleList(steps)

    def forward(self, z: Codes) -> tuple[Codes, PerImage]:
        """eps and log |det d eps / d z|."""
        log_det = z.new_zeros(z.shape[0])
        for step in self.steps:
            z, step_log_det = step(z)
            log_det = log_det + step_log_det
        return z, log_det

    def inverse(self, eps: Codes) -> Codes:
        """The z that ``forward`` maps to ``eps``."""
        for step in reversed(self.steps):
            eps = step.inverse(eps)
        return eps

    def log_prob(self, z: Codes) -> PerImage:
        """log p(z) in nats, by the change of variables."""
        eps, log_det = in_float32(self, z)
        return log_det + super().log_prob(eps)

    @torch.no_grad()
    def sample(self, count: int, generator: Generator, temperature: float = 1.0) -> Samples:
        """``count`` draws of z, on the generator's device; ``temperature`` scales the noise."""
        with fixed_weights(self):
            return self.inverse(super().sample(count, generator, temperature))


class VampPrior(StandardNormal):
    """p(z) = (1/K) sum_k q(z|u_k), of ``count`` learned pseudo-inputs (Tomczak & Welling, 2018).

    The model sees to it that ``encode``, which gives the mu and logvar of q(z|u), is saved and
    trained; it is no part of this module. Before ``start`` the pseudo-inputs are noise.
    """

    def __init__(self, latent: int, encode: tuple[Callable, ...], count: int, shape: tuple):
        super().__init__(latent)
        self.encode = encode  # a tuple, so that torch does not register the networks twice
        self.pseudo_inputs = nn.Parameter(0.05 * torch.randn(count, *shape))

    @torch.no_grad()
    def start(self, x: Images) -> None:
        """Add images to the pseudo-inputs, the first ones again where there are too few."""
        count = len(self.pseudo_inputs)
        self.pseudo_inputs += x[torch.arange(count, device=x.device) % len(x)]

    def components(self) -> tuple[Samples, Samples]:
        """mu and logvar of every q(z|u_k)."""
        encoder, posterior = self.encode
        mu, logvar = posterior(encoder(self.pseudo_inputs))
        return mu.to(self.pseudo_inputs.dtype), logvar.to(self.pseudo_inputs.dtype)

    def log_prob(self, z: Codes) -> PerImage:
        """log p(z) in nats."""
        log_q = log_posteriors(z, *self.components()).sum(2)
        return log_q.logsumexp(1) - math.log(len(self.pseudo_inputs))

    @torch.no_grad()
    def sample(self, count: int, generator: Generator, temperature: float = 1.0) -> Samples:
        """``count`` draws of z, on the generator's device; ``temperature`` scales the noise."""
        mu, logvar = self.components()
        drawn = {"generator": generator, "device": generator.device}
        chosen = torch.randint(len(mu), (count,), **drawn)
        noise = temperature * torch.randn(count, self.latent, **drawn)
        return reparameterise(mu[chosen], logvar[chosen], noise)
