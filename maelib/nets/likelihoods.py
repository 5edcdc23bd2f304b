"""p(x|z) of an image from a decoder's output: Bernoulli pixels, or a mixture of logistics.

Binary images are 0 or 1. Colour images are 8-bit values scaled to -1, ..., 1 in steps of 2/255;
their likelihood is the discretised mixture of logistics of PixelCNN++ (Salimans et al., 2017).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from maelib.internal.shapes import AnyShape, BinaryImages, ColourImages, OtherMaps, PerImage

PER_COMPONENT = 10  # numbers at a pixel: weight, three means, scales and couplings
HALF_BIN = 1 / 255  # half the distance between two neighbouring values
LOG_SCALE_RANGE = (-7.0, 7.0)
Components = Float[Tensor, "batch m 3 h w"]


def bernoulli_log_prob(logits: BinaryImages, x: BinaryImages) -> PerImage:
    """log p(x|z) in nats of each binary image, pixels independent given their logits."""
    return -F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)


def bernoulli_mean(logits: BinaryImages, x: BinaryImages) -> BinaryImages:
    """The probability that each pixel is 1."""
    return logits.sigmoid()


@dataclass(frozen=True)
class LogisticMixture:
    """A mixture of ``m`` components at every pixel, each a logistic for every colour channel.

    ``coupling`` holds the factors by which a colour shifts the ``mean`` of a later one: green by
    red, blue by red, blue by green.
    """

    logits: Float[Tensor, "batch m h w"]
    mean: Components
    log_scale: Components
    coupling: Components

    @classmethod
    def split(cls, output: OtherMaps) -> "LogisticMixture":
        """The mixtures that a decoder's output describes."""
        m = output.shape[1] // PER_COMPONENT
        logits, rest = output[:, :m], output[:, m:].unflatten(1, (3, m, 3))  # [b, 3, m, 3, h, w]
        mean, log_scale, coupling = rest.unbind(1)
        return cls(logits, mean, log_scale.clamp(*LOG_SCALE_RANGE), coupling.tanh())

    def means_given(self, x: ColourImages) -> Components:
        """The components' means given the image: green's after red, blue's after both."""
        red, green = x[:, None, 0], x[:, None, 1]
        green_by_red, blue_by_red, blue_by_green = self.coupling.unbind(2)
        of_green, of_blue = green_by_red * red, blue_by_red * red + blue_by_green * green
        return self.mean + torch.stack([torch.zeros_like(of_green), of_green, of_blue], 2)


def mixture_log_prob(output: OtherMaps, x: ColourImages) -> PerImage:
    """log p(x|z) in nats of each colour image."""
    mixture = LogisticMixture.split(output)
    channels = logistic_log_prob(x[:, None], mixture.means_given(x), mixture.log_scale)
    joint = mixture.logits.log_softmax(1) + channels.sum(2)
    return joint.logsumexp(1).flatten(1).sum(1)


def mixture_mean(output: OtherMaps, x: ColourImages) -> ColourImages:
    """The expected value of each of a pixel's colours, given those before it in the order RGB.

    The components' means are weighted by how well they explain the colours before.
    """
    mixture = LogisticMixture.split(output)
    means = mixture.means_given(x)
    channels = logistic_log_prob(x[:, None], means, mixture.log_scale)
    before = channels.cumsum(2) - channels
    weights = (mixture.logits[:, :, None] + before).softmax(1)
    return (weights * means).sum(1).clamp(-1, 1)


def logistic_log_prob(x: AnyShape, mean: AnyShape, log_scale: AnyShape) -> AnyShape:
    """log probability in nats of the bin around each value; the end bins reach to infinity.

    The bin's mass sigmoid(a) - sigmoid(b) is sigmoid(a) sigmoid(-b) (1 - exp(b - a)), whose
    logarithm and gradient stay finite however far ``x`` lies from ``mean``.
    """
    rate = (-log_scale).exp()
    above, below = (x + HALF_BIN - mean) * rate, (x - HALF_BIN - mean) * rate
    left, right = F.logsigmoid(above), F.logsigmoid(-below)
    middle = left + right + torch.log(-torch.expm1(-2 * HALF_BIN * rate))
    return torch.where(x < -0.999, left, torch.where(x > 0.999, right, middle))


def draw_from_mixture(
    output: OtherMaps, uniform: Float[Tensor, "batch 4 h w"], argmax: bool = False
) -> ColourImages:
    """A colour image of the 256 levels, drawn from the mixtures.

    ``uniform``'s first channel draws the component, its others draw the colours. ``argmax`` takes
    the most probable component instead, as the authors' implementation does; images drawn in this
    way have another distribution.
    """
    mixture = LogisticMixture.split(output)
    if argmax:
        chosen = mixture.logits.argmax(1, keepdim=True)
    else:
        passed = mixture.logits.softmax(1).cumsum(1) < uniform[:, :1]
        chosen = passed.sum(1, keepdim=True).clamp(max=passed.shape[1] - 1)
    index = chosen[:, :, None].expand(-1, 1, 3, -1, -1)
    parts = (mixture.mean, mixture.log_scale, mixture.coupling)
    mean, log_scale, coupling = (part.gather(1, index)[:, 0] for part in parts)
    free = mean + log_scale.exp() * torch.logit(uniform[:, 1:], eps=1e-6)
    red = _level(free[:, 0])
    green = _level(free[:, 1] + coupling[:, 0] * red)
    blue = _level(free[:, 2] + coupling[:, 1] * red + coupling[:, 2] * green)
    return torch.stack([red, green, blue], 1)


def _level(value: Tensor) -> Tensor:
    """The nearest of the 256 levels."""
    return ((value.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
