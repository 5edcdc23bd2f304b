"""What an objective is: settings that are called with a batch's outputs and return its terms."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from maelib.internal.options import Settings, option
from maelib.internal.shapes import Codes, PerImage, Scalar

MEASURED = ("mpd", "std")  # the terms that are no part of every loss


class Outputs(NamedTuple):
    """What a model gives for each image of a batch: the terms of Eq. (3) in nats, and q(z|x)."""

    re: PerImage
    kl: PerImage
    mu: Codes
    logvar: Codes


@dataclass(frozen=True)
class Terms:
    """The terms of one batch's loss, in nats per image; ``loss`` is what is minimised.

    ``penalties`` are the terms that the objective adds to RE and KL, their weights included.
    """

    loss: Scalar
    re: Scalar
    kl: Scalar
    mpd: Scalar
    std: Scalar
    penalties: dict[str, Scalar]

    @property
    def elbo(self) -> Scalar:
        """L_elbo = RE + KL, the negative evidence lower bound (Eq. 3)."""
        return self.re + self.kl

    def named(self) -> dict[str, Scalar]:
        """Every term by its name: those of the loss, the loss, and what is only measured."""
        loss = {"re": self.re, "kl": self.kl, **self.penalties, "loss": self.loss}
        return loss | {name: getattr(self, name) for name in MEASURED}


@dataclass(frozen=True, kw_only=True)
class Objective(Settings):
    """Base of the objectives. A subclass has its hyper-parameters as options and a ``__call__``.

    ``penalties`` names its terms beside RE and KL; ``shown`` the options that a label always has.
    """

    penalties: ClassVar[tuple[str, ...]] = ()
    shown: ClassVar[tuple[str, ...]] = ()
    abbreviations: ClassVar[dict[str, str]] = {"free_bits": "fb"}

    name: str
    free_bits: float = option(0.0, "nats per image that the KL may have at no cost", least=0)

    def __call__(self, outputs: Outputs) -> Terms:
        """The terms of a batch of at least two images."""
        raise TypeError(f"{type(self).__name__} does not say what it minimises.")

    def label(self, usual: "Objective") -> str:
        """The name, then the options that differ from ``usual``: ``mae-a1-b0.5``, ``vlae-fb0``."""
        names = sorted(option_values := vars(self), key=lambda name: name == "free_bits")
        parts = [
            f"{self.abbreviations.get(name, name)}{_short(option_values[name])}"
            for name in names
            if name in self.shown or option_values[name] != getattr(usual, name)
        ]
        return "-".join([self.name, *parts])


def named(name: str) -> Any:
    """The field that holds an objective's name in ``OBJECTIVES``."""
    return field(default=name, kw_only=True)


def with_free_bits(kl: Scalar, free_bits: float) -> Scalar:
    """max(kl, free_bits): below ``free_bits`` nats a batch's mean KL costs nothing more."""
    return kl.clamp(min=free_bits)


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"
