"""A KL that is drawn to a given value, the capacity (Burgess et al., 2018)."""

from dataclasses import dataclass

from maelib.internal.options import option
from maelib.objectives.base import Objective, Outputs, Terms, terms


@dataclass(frozen=True)
class Capacity(Objective):
    """L = RE + pull mean |KL - C|, where C rises from 0 to ``capacity`` nats.

    The KL of each image is the closed form to N(0, I).
    """

    needs_normal = varies = True
    has_free_bits = False
    abbreviations = Objective.abbreviations | {"capacity": "c", "ramp": "r"}

    name: str = "capacity"
    capacity: float = option(10.0, "nats that each image's KL is drawn to", least=0)
    pull: float = option(10.0, "weight of the KL's distance from the capacity", least=0)
    ramp: float = option(0.25, "share of training in which the capacity rises", above=0, most=1)

    def __call__(self, outputs: Outputs, progress: float = 1.0) -> Terms:
        from maelib.divergences import standard_kl  # imports torch

        kl = standard_kl(outputs.mu, outputs.logvar).sum(1)
        target = self.capacity * min(1.0, progress / self.ramp)
        return terms(outputs, outputs.re.mean() + self.pull * (kl - target).abs().mean())
