"""The priors p(z): N(0, I), and N(0, I) transformed by an autoregressive flow."""

import math
from collections.abc import Iterable

import torch
from torch import Generator, nn

from maelib.internal.shapes import Codes, PerImage, Samples
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
    def sample(self, count: int, generator: Generator) -> Samples:
        """``count`` draws of z, on the generator's device."""
        return torch.randn(count, self.latent, generator=generator, device=generator.device)


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
    def sample(self, count: int, generator: Generator) -> Samples:
        """``count`` draws of z, on the generator's device."""
        with fixed_weights(self):
            return self.inverse(super().sample(count, generator))
