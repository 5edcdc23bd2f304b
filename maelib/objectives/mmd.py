"""The InfoVAE, which holds the aggregated posterior q(z) at the prior (Zhao et al., 2017)."""

from dataclasses import dataclass

from maelib.internal.options import option
from maelib.internal.shapes import Codes, Scalar
from maelib.objectives.base import Objective, Outputs, Terms, terms, with_free_bits


@dataclass(frozen=True)
class MMD(Objective):
    """L = RE + kl_weight max(KL, free_bits) + mmd_weight MMD(q(z), N(0, I)).

    In the symbols of the paper, kl_weight is 1 - alpha and mmd_weight is alpha + lambda - 1. The
    latter must not be negative, as it is at alpha = 0 and a small lambda.
    """

    penalties = ("mmd",)
    needs_normal = True
    abbreviations = Objective.abbreviations | {"kl_weight": "kl", "mmd_weight": "m"}

    name: str = "mmd"
    kl_weight: float = option(0.5, "weight of the KL", least=0)
    mmd_weight: float = option(100.0, "weight of the MMD between q(z) and the prior", least=0)

    def __call__(self, outputs: Outputs, progress: float = 1.0) -> Terms:
        penalty = self.mmd_weight * mmd(outputs.mu, outputs.logvar)
        kl = with_free_bits(outputs.kl.mean(), self.free_bits)
        loss = outputs.re.mean() + self.kl_weight * kl + penalty
        return terms(outputs, loss, {"mmd": penalty})


def mmd(mu: Codes, logvar: Codes) -> Scalar:
    """Squared maximum mean discrepancy of q(z) and N(0, I); an unbiased estimate, without samples.

    The kernel is exp(-|z - z'|^2 / (2 latent)). Its mean over two Gaussians has a closed form,
    so the posteriors' own noise adds no variance. Pairs of different images stand for q(z).
    """
    batch, width = mu.shape  # the kernel's variance is ``width``
    var = logvar.exp()

    def mean_kernel(difference, variance):
        """E exp(-|d|^2 / (2 width)) for d ~ N(difference, variance), over the last axis."""
        scale = 1 + variance / width
        return (-0.5 * (scale.log() + difference.square() / (width * scale)).sum(-1)).exp()

    within = mean_kernel(mu[:, None] - mu, var[:, None] + var)
    pairs = (within.sum() - within.diagonal().sum()) / (batch * (batch - 1))
    return pairs - 2 * mean_kernel(mu, var + 1).mean() + (1 + 2 / width) ** (-width / 2)
