"""The base of the objectives: settings that turn a batch's outputs into the terms of its loss."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from maelib.internal.options import Settings, option
from maelib.internal.shapes import AnyShape, Codes, PerImage, Scalar

MEASURED = ("mpd", "std")  # the terms that are recorded whether or not the loss has them


class Outputs(NamedTuple):
    """The terms of Eq. (3) in nats, and mu and logvar of q(z|x), of each image of a batch."""

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
        """Every term by its name: the parts of the loss, the loss, then ``MEASURED``."""
        loss = {"re": self.re, "kl": self.kl, **self.penalties, "loss": self.loss}
        return loss | {name: getattr(self, name) for name in MEASURED}


@dataclass(frozen=True, kw_only=True)
class Objective(Settings):
    """Base of the objectives. A subclass has its hyper-parameters as options and a ``__call__``.

    ``penalties`` names its terms beside RE and KL; ``shown`` names the options in every label.
    ``needs_normal`` says whether its loss takes the prior to be N(0, I), and ``varies`` whether it
    depends on the share of training that is done. If ``has_free_bits`` is false, ``free_bits`` must
    be 0. If ``needs_free_bits`` is true, it must be more.
    """

    penalties: ClassVar[tuple[str, ...]] = ()
    shown: ClassVar[tuple[str, ...]] = ()
    needs_normal: ClassVar[bool] = False
    varies: ClassVar[bool] = False
    has_free_bits: ClassVar[bool] = True
    needs_free_bits: ClassVar[bool] = False
    abbreviations: ClassVar[dict[str, str]] = {"free_bits": "fb"}

    name: str
    free_bits: float = option(0.0, "nats per image that the KL may have at no cost", least=0)

    def __call__(self, outputs: Outputs, progress: float = 1.0) -> Terms:
        """The terms of a batch of at least two images; ``progress`` is the share of training done.

        Since it is a function of the step alone, a run that is continued goes through the same.
        """
        raise TypeError(f"{type(self).__name__} does not define its loss.")

    def label(self, usual: "Objective") -> str:
        """The name, then the options that differ from ``usual``: ``mae-a1-b0.5``, ``vlae-fb0``."""
        options = sorted(vars(self).items(), key=lambda item: item[0] == "free_bits")
        parts = [
            f"{self.abbreviations.get(name, name)}{_short(value)}"
            for name, value in options
            if name in self.shown or value != getattr(usual, name)
        ]
        return "-".join([self.name, *parts])


def terms(outputs: Outputs, loss: Scalar, penalties: dict[str, Scalar] | None = None) -> Terms:
    """A loss with what is recorded beside it. MPD and STD are measured here, not minimised."""
    from maelib.divergences import mpd, std  # these import torch

    mu, logvar = outputs.mu.detach(), outputs.logvar.detach()
    means = outputs.re.mean(), outputs.kl.mean()
    return Terms(loss, *means, mpd(mu, logvar), std(mu, logvar), penalties or {})


def with_free_bits(kl: AnyShape, free_bits: float) -> AnyShape:
    """max(kl, free_bits), elementwise: a KL below ``free_bits`` nats has no gradient."""
    return kl.clamp(min=free_bits)


def _short(value: int | float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"
