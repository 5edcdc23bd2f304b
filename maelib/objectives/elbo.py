"""The evidence lower bound of Eq. (3), with free bits (VLAE) or with a weight on its KL."""

from dataclasses import dataclass

from maelib.internal.options import option
from maelib.internal.shapes import Scalar
from maelib.objectives.base import Objective, Outputs, Terms, terms, with_free_bits

FREE_BITS_FORMS = ("batch", "dimension", "image")


@dataclass(frozen=True)
class ELBO(Objective):
    """L = RE + kl_weight max(KL, free_bits).

    The defaults give L_elbo. Free bits give the loss of the VLAE (Chen et al., 2017), and a weight
    other than 1 that of the beta-VAE (Higgins et al., 2017).
    """

    abbreviations = Objective.abbreviations | {"kl_weight": "kl", "free_bits_per": ""}

    name: str = "vlae"
    kl_weight: float = option(1.0, "weight of the KL", least=0)
    free_bits_per: str = option("batch", "what free bits are given to", choices=FREE_BITS_FORMS)

    @property
    def needs_free_bits(self) -> bool:
        return self.free_bits_per != "batch"

    @property
    def needs_normal(self) -> bool:
        return self.needs_free_bits

    def __call__(self, outputs: Outputs, progress: float = 1.0) -> Terms:
        return terms(outputs, outputs.re.mean() + self.weight(progress) * self.charged(outputs))

    def weight(self, progress: float) -> float:
        """The weight of the KL."""
        return self.kl_weight

    def charged(self, outputs: Outputs) -> Scalar:
        """The KL in nats, less what the free bits pay. Three different losses bear that name.

        - ``batch``: max(mean KL, free_bits); the VLAE's.
        - ``dimension``: sum_k max(mean KL_k, free_bits / latent) (Kingma et al., 2016).
        - ``image``: mean max(KL, free_bits), the maximum of each image.

        The last two take the KL to N(0, I) in closed form.
        """
        from maelib.divergences import standard_kl  # imports torch

        if self.free_bits_per == "batch":
            return with_free_bits(outputs.kl.mean(), self.free_bits)
        kl = standard_kl(outputs.mu, outputs.logvar)
        if self.free_bits_per == "image":
            return with_free_bits(kl.sum(1), self.free_bits).mean()
        return with_free_bits(kl.mean(0), self.free_bits / kl.shape[1]).sum()
