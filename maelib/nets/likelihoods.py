"""p(x|z) of an image from a decoder's output: Bernoulli pixels, or a mixture of logistics.

Binary images are 0 or 1. Colour images are 8-bit values scaled to -1, ..., 1 in steps of 2/255;
their likelihood is the discretised mixture of logistics of PixelCNN++ (Salimans et al., 2017).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

HALF_BIN = 1 / 255  # half the distance between two neighbouring values
LOG_SCALE_RANGE = (-7.0, 7.0)


def bernoulli_log_prob(
    logits: Float[Tensor, "batch 1 h w"], x: Float[Tensor, "batch 1 h w"]
) -> Float[Tensor, " batch"]:
    """log p(x|z) in nats of each binary image, pixels independent given their logits."""
    return -F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)


def bernoulli_mean(
    logits: Float[Tensor, "batch 1 h w"], x: Float[Tensor, "batch 1 h w"]
) -> Float[Tensor, "batch 1 h w"]:
    """The probability that each pixel is 1."""
    return logits.sigmoid()


@dataclass(frozen=True)
class LogisticMixture:
    """A mixture of ``m`` components at every pixel, each a logistic for every colour channel.

    ``mean`` is the channels' own; red and green, once known, shift those after them by
    ``coupling`` (green by red; blue by red; blue by green).
    """

    logits: Float[Tensor, "batch m h w"]
    mean: Float[Tensor, "batch m 3 h w"]
    log_scale: Float[Tensor, "batch m 3 h w"]
    coupling: Float[Tensor, "batch m 3 h w"]

    @staticmethod
    def outputs(mixtures: int) -> int:
        """How many numbers a pixel's mixture takes."""
        return 10 * mixtures

    @classmethod
    def split(cls, output: Float[Tensor, "batch outputs h w"]) -> "LogisticMixture":
        """The mixtures that a decoder's output describes."""
        m = output.shape[1] // 10
        logits, rest = output[:, :m], output[:, m:].unflatten(1, (3, m, 3))  # [b, 3, m, 3, h, w]
        mean, log_scale, coupling = rest.unbind(1)
        return cls(logits, mean, log_scale.clamp(*LOG_SCALE_RANGE), coupling.tanh())

    def means_given(self, x: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch m 3 h w"]:
        """The components' means given the image: green's after red, blue's after both."""
        red, green = x[:, None, 0], x[:, None, 1]
        green_by_red, blue_by_red, blue_by_green = self.coupling.unbind(2)
        shift = torch.stack(
            [
                torch.zeros_like(green_by_red),
                green_by_red * red,
                blue_by_red * red + blue_by_green * green,
            ],
            2,
        )
        return self.mean + shift


def mixture_log_prob(
    output: Float[Tensor, "batch outputs h w"], x: Float[Tensor, "batch 3 h w"]
) -> Float[Tensor, " batch"]:
    """log p(x|z) in nats of each colour image."""
    mixture = LogisticMixture.split(output)
    channels = logistic_log_prob(x[:, None], mixture.means_given(x), mixture.log_scale)
    weights = mixture.logits.log_softmax(1)
    return (weights + channels.sum(2)).logsumexp(1).flatten(1).sum(1)


def mixture_mean(
    output: Float[Tensor, "batch outputs h w"], x: Float[Tensor, "batch 3 h w"]
) -> Float[Tensor, "batch 3 h w"]:
    """The expected value of each of a pixel's colours, given those before it in the order RGB.

    The components' means are weighted by how well they explain the colours before.
    """
    mixture = LogisticMixture.split(output)
    means = mixture.means_given(x)
    channels = logistic_log_prob(x[:, None], means, mixture.log_scale)
    before = channels.cumsum(2) - channels
    weights = (mixture.logits[:, :, None] + before).softmax(1)
    return (weights * means).sum(1).clamp(-1, 1)


def logistic_log_prob(
    x: Float[Tensor, "*#shape"], mean: Float[Tensor, "*#shape"], log_scale: Float[Tensor, "*#shape"]
) -> Float[Tensor, "*#shape"]:
    """log probability in nats of the bin around each value; the end bins reach to infinity.

    The bin's mass sigmoid(a) - sigmoid(b) is sigmoid(a) sigmoid(-b) (1 - exp(b - a)), whose
    logarithm and gradient stay finite however far ``x`` lies from ``mean``.
    """
    rate = (-log_scale).exp()
    above, below = (x + HALF_BIN - mean) * rate, (x - HALF_BIN - mean) * rate
    left, right = F.logsigmoid(above), F.logsigmoid(-below)
    width = torch.log(-torch.expm1(-2 * HALF_BIN * rate))
    middle = left + right + width
    return torch.where(x < -0.999, left, torch.where(x > 0.999, right, middle))


def draw_from_mixture(
    output: Float[Tensor, "batch outputs h w"],
    uniform: Float[Tensor, "batch 4 h w"],
    argmax: bool = False,
) -> Float[Tensor, "batch 3 h w"]:
    """A colour image: the component by ``uniform``'s first channel, the colours by the others.

    ``argmax`` always takes the most probable component, which draws from another distribution.
    Values are rounded to the 256 levels.
    """
    mixture = LogisticMixture.split(output)
    chosen = _component(mixture.logits, uniform[:, :1], argmax)[:, :, None]
    mean, log_scale, coupling = (
        part.gather(1, chosen.expand(-1, 1, 3, -1, -1))[:, 0]
        for part in (mixture.mean, mixture.log_scale, mixture.coupling)
    )
    free = mean + log_scale.exp() * torch.logit(uniform[:, 1:], eps=1e-6)
    red = _level(free[:, 0])
    green = _level(free[:, 1] + coupling[:, 0] * red)
    blue = _level(free[:, 2] + coupling[:, 1] * red + coupling[:, 2] * green)
    return torch.stack([red, green, blue], 1)


def _component(logits: Tensor, uniform: Tensor, argmax: bool) -> Tensor:
    if argmax:
        return logits.argmax(1, keepdim=True)
    passed = logits.softmax(1).cumsum(1) < uniform
    return passed.sum(1, keepdim=True).clamp(max=logits.shape[1] - 1)


def _level(value: Tensor) -> Tensor:
    return ((value.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
