"""The steps of the autoregressive-flow priors: masked affine maps that are easy to invert.

The density is evaluated in parallel, z -> eps, each eps_k = (z_k - shift_k) exp(-log_scale_k)
with shift_k and log_scale_k functions of the z before k (Papamakarios et al., 2017). Sampling
inverts it one dimension at a time.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from maelib.internal.shapes import Codes, Maps, PerImage
from maelib.nets.layers import Linear, MaskedConv2d, elu


def degrees_mask(
    inputs: Int[Tensor, " inputs"], outputs: Int[Tensor, " outputs"], strict: bool
) -> Float[Tensor, "outputs inputs"]:
    """1 where an output's degree is at least an input's (greater, if ``strict``), else 0."""
    return (outputs[:, None] >= inputs + int(strict)).float()


class MADE(nn.Module):
    """Masked autoencoder (Germain et al., 2015): output k sees only the inputs before k.

    It has one hidden layer of ReLU units and a masked direct connection from input to output.
    ``reverse`` starts from the last dimension. Initially the outputs are near zero.
    """

    def __init__(self, latent: int, hidden: int, *, reverse: bool = False):
        super().__init__()
        order = torch.arange(1, latent + 1)
        order = order.flip(0) if reverse else order
        # A hidden unit of degree d sees inputs 1..d; degrees 1..latent-1 are equally frequent.
        degrees = torch.arange(hidden) % max(latent - 1, 1) + 1
        self.into = Linear(latent, hidden, degrees_mask(order, degrees, False), 0.1)
        self.out = Linear(hidden, latent, degrees_mask(degrees, order, True), 0.1)
        self.direct = Linear(latent, latent, degrees_mask(order, order, True), 0.1)

    def forward(self, z: Codes) -> Codes:
        return self.out(F.relu(self.into(z))) + self.direct(z)


class AutoregressiveStep(nn.Module):
    """One affine step of a vector z; one MADE gives its shift, another its log-scale."""

    def __init__(self, latent: int, hidden: int, *, reverse: bool = False):
        super().__init__()
        self.reverse = reverse
        self.shift = MADE(latent, hidden, reverse=reverse)
        self.log_scale = MADE(latent, hidden, reverse=reverse)

    def forward(self, z: Codes) -> tuple[Codes, PerImage]:
        """eps and log |det d eps / d z|, for all dimensions at once."""
        log_scale = self.log_scale(z).to(z.dtype)  # autocast makes it bfloat16
        return (z - self.shift(z)) * (-log_scale).exp(), -log_scale.sum(1)

    def inverse(self, eps: Codes) -> Codes:
        """z with ``forward(z)[0] == eps``, one masked pass for each dimension in turn."""
        z = torch.zeros_like(eps)
        order = range(eps.shape[1])
        for k in reversed(order) if self.reverse else order:
            z[:, k] = self.shift(z)[:, k] + eps[:, k] * self.log_scale(z)[:, k].exp()
        return z


class ConvStep(nn.Module):
    """One affine step over ``maps`` maps of ``size`` x ``size``, in raster order of positions.

    Three masked 3x3 convolutions give shift and log-scale of all maps at a position from the
    positions before it; the maps of one position do not see each other. ``reverse`` runs from the
    last position to the first. z is flat before and after the step.
    """

    def __init__(self, maps: int, size: int, hidden: int, *, reverse: bool = False):
        super().__init__()
        self.shape, self.reverse = (maps, size, size), reverse
        self.first = MaskedConv2d(maps, hidden, 3, mask_type="A")
        self.second = MaskedConv2d(hidden, hidden, 3, mask_type="B")
        self.last = MaskedConv2d(hidden, 2 * maps, 3, mask_type="B", init_scale=0.1)

    def shift_and_log_scale(self, maps: Maps) -> tuple[Maps, Maps]:
        """Shift and log-scale at every position, from the positions before it in raster order."""
        h = elu(self.second(elu(self.first(maps))))
        return self.last(h).to(maps.dtype).chunk(2, 1)  # autocast makes it bfloat16

    def forward(self, z: Codes) -> tuple[Codes, PerImage]:
        """eps and log |det d eps / d z|, for all dimensions at once."""
        maps = self._ordered(z.unflatten(1, self.shape))
        shift, log_scale = self.shift_and_log_scale(maps)
        eps = (maps - shift) * (-log_scale).exp()
        return self._ordered(eps).flatten(1), -log_scale.flatten(1).sum(1)

    def inverse(self, eps: Codes) -> Codes:
        """z with ``forward(z)[0] == eps``, one position of all maps at a time.

        Three layers of 3x3 look at most three rows up, so only those rows are evaluated.
        """
        noise = self._ordered(eps.unflatten(1, self.shape))
        maps = torch.zeros_like(noise)
        for row in range(noise.shape[2]):
            window = maps[:, :, max(0, row - 3) : row + 1]
            for column in range(noise.shape[3]):
                shift, log_scale = self.shift_and_log_scale(window)
                at = (..., -1, column)
                window[at] = shift[at] + noise[:, :, row, column] * log_scale[at].exp()
        return self._ordered(maps).flatten(1)

    def _ordered(self, maps: Tensor) -> Tensor:
        return maps.flip(2, 3) if self.reverse else maps


def vector_steps(latent: int, hidden: int, pairs: int) -> list[AutoregressiveStep]:
    """``pairs`` pairs of steps of opposite order; ``hidden`` units in each MADE."""
    return [AutoregressiveStep(latent, hidden, reverse=bool(i % 2)) for i in range(2 * pairs)]


def map_steps(maps: int, size: int, hidden: int, flows: int) -> list[ConvStep]:
    """``flows`` convolutional steps, every other one in reverse order."""
    return [ConvStep(maps, size, hidden, reverse=bool(i % 2)) for i in range(flows)]
