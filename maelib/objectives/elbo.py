"""The evidence lower bound of Eq. (3), with free bits (VLAE) or with a weight on its KL."""

from dataclasses import dataclass

from maelib.internal.options import option
from maelib.objectives.base import Objective, Outputs, Terms, named, with_free_bits


@dataclass(frozen=True)
class ELBO(Objective):
    """L = RE + kl_weight max(KL, free_bits).

    The defaults give L_elbo. Free bits give the loss of the VLAE (Chen et al., 2017), and a weight
    other than 1 that of the beta-VAE (Higgins et al., 2017).
    """

    abbreviations = Objective.abbreviations | {"kl_weight": "kl"}

    name: str = named("vlae")
    kl_weight: float = option(1.0, "weight of the KL", least=0)

    def __call__(self, outputs: Outputs) -> Terms:
        from maelib.divergences import mpd, std  # these import torch

        re, kl = outputs.re.mean(), outputs.kl.mean()
        loss = re + self.kl_weight * with_free_bits(kl, self.free_bits)
        mu, logvar = outputs.mu.detach(), outputs.logvar.detach()  # measured, not minimised
        return Terms(loss, re, kl, mpd(mu, logvar), std(mu, logvar), {})
