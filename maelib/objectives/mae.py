"""The paper's objective: L_MAE = L_elbo + alpha L_diverse + beta L_smooth (Eq. 7)."""

from dataclasses import dataclass

from maelib.internal.options import option
from maelib.objectives.base import Objective, Outputs, Terms, with_free_bits

DIVERSE_FORMS = ("tempered", "mean", "pairwise")


@dataclass(frozen=True)
class MAE(Objective):
    """L_MAE = RE + max(KL, free_bits) + alpha L_diverse + beta L_smooth.

    ``diverse`` is one of the three forms of ``divergences.diverse_loss``.
    """

    penalties = ("diverse", "smooth")
    shown = ("alpha", "beta")
    abbreviations = Objective.abbreviations | {"alpha": "a", "beta": "b", "diverse": ""}

    name: str = "mae"
    alpha: float = option(1.0, "weight of L_diverse", least=0)
    beta: float = option(0.5, "weight of L_smooth", least=0)
    diverse: str = option("tempered", "form of L_diverse", choices=DIVERSE_FORMS)

    def __call__(self, outputs: Outputs, progress: float = 1.0) -> Terms:
        from maelib.divergences import diverse_loss, mpd, std  # these import torch

        re, kl, mu, logvar = outputs
        diverse = diverse_loss(mu, logvar, self.alpha, self.diverse)  # Eqs. (5) and (8)
        deviation = std(mu, logvar)
        smooth = self.beta * deviation  # Eq. (6)
        re, kl = re.mean(), kl.mean()  # Eq. (3)
        loss = re + with_free_bits(kl, self.free_bits) + diverse + smooth  # Eq. (7)
        penalties = {"diverse": diverse, "smooth": smooth}
        return Terms(loss, re, kl, mpd(mu, logvar), deviation, penalties)
