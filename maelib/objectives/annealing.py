"""A weight on the KL that rises from 0 to 1 during training, once or in cycles."""

from dataclasses import dataclass

from maelib.internal.options import option
from maelib.objectives.elbo import ELBO


@dataclass(frozen=True)
class Annealing(ELBO):
    """L = RE + w KL with w = min(1, t / ramp), where t goes from 0 to 1 in each of ``cycles``.

    One cycle is KL annealing (Bowman et al., 2016), and several are cyclical annealing (Fu et al.,
    2019; M and R there are ``cycles`` and ``ramp``). Published over epochs or steps, both are here
    over a share of training, whatever its length.
    """

    varies = True
    abbreviations = ELBO.abbreviations | {"cycles": "c", "ramp": "r"}

    name: str = "annealing"
    cycles: int = option(1, "times that the KL's weight rises", least=1)
    ramp: float = option(0.25, "share of a cycle in which the KL's weight rises", above=0, most=1)

    def weight(self, progress: float) -> float:
        cycle = min(int(self.cycles * progress), self.cycles - 1)
        return self.kl_weight * min(1.0, (self.cycles * progress - cycle) / self.ramp)
