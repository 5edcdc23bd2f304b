"""Drawing images: from a code, from the prior, and from another image's posterior.

Every pixel is decided by numbers ``uniform`` drawn beforehand, one a pixel for binary images
(1 where the pixel's probability exceeds it), four for colour ones (the mixture's component and
the three colours), so that an image is a deterministic function of z and ``uniform``. Greedy
decoding is 0.5 everywhere, and for colours the most probable component (``argmax``).
"""

from collections.abc import Iterator
from itertools import islice, product

import torch
from jaxtyping import Float
from torch import Tensor

from maelib.model import VAE, reparameterise
from maelib.nets.layers import MaskedConv2d, WeightNorm, fixed_weights
from maelib.nets.likelihoods import draw_from_mixture
from maelib.nets.pixelcnn import PixelCNN
from maelib.nets.pixelcnnpp import FullPixelCNN, SmallPixelCNN


@torch.no_grad()
def decode(
    decoder: torch.nn.Module,
    z: Float[Tensor, "batch latent"],
    uniform: Float[Tensor, "batch numbers h w"],
    argmax: bool = False,
) -> Float[Tensor, "batch c h w"]:
    """Images from p(x|z), as the numbers ``uniform`` decide."""
    with fixed_weights(decoder):
        if isinstance(decoder, SmallPixelCNN):
            return decode_window(decoder, z, uniform, argmax)
        if isinstance(decoder, FullPixelCNN):
            return decode_colour_reference(decoder, z, uniform, argmax)
        if decoder.autoregressive:
            return decode_pixels(decoder, z, uniform)
        return (decoder(z).sigmoid() > uniform).to(z.dtype)


@torch.no_grad()
def decode_colour_reference(
    decoder: SmallPixelCNN | FullPixelCNN,
    z: Float[Tensor, "batch latent"],
    uniform: Float[Tensor, "batch 4 h w"],
    argmax: bool = False,
    pixels: int | None = None,
) -> Float[Tensor, "batch 3 h w"]:
    """Colour images by a full forward pass for every pixel (the code's features are kept).

    ``pixels`` stops after so many, for timing.
    """
    code = decoder.pyramid(z)
    x = z.new_zeros(len(z), *decoder.shape)
    for row, column in islice(_raster(x), pixels):
        at = (..., slice(row, row + 1), slice(column, column + 1))
        x[at] = draw_from_mixture(decoder.given_code(x, code)[at], uniform[at], argmax)
    return x


@torch.no_grad()
def decode_window(
    decoder: SmallPixelCNN,
    z: Float[Tensor, "batch latent"],
    uniform: Float[Tensor, "batch 4 h w"],
    argmax: bool = False,
) -> Float[Tensor, "batch 3 h w"]:
    """``decode_colour_reference``, each pixel from the piece of the image that it sees.

    The piece ends at the image's border, so that the layers' own zeros stand where they do in a
    full pass; elsewhere the zeros around the piece lie too far off to reach the pixel.
    """
    *_, features = decoder.pyramid(z)
    x = z.new_zeros(len(z), *decoder.shape)
    for row in range(x.shape[2]):
        for column in range(x.shape[3]):
            top, left = max(0, row - decoder.above), max(0, column - decoder.side)
            piece = (..., slice(top, row + 1), slice(left, column + decoder.side + 1))
            output = decoder.given_features(x[piece], features[piece])
            pixel = output[:, :, -1:, column - left : column - left + 1]
            at = (..., slice(row, row + 1), slice(column, column + 1))
            x[at] = draw_from_mixture(pixel, uniform[at], argmax)
    return x


@torch.no_grad()
def decode_pixels_reference(
    decoder: PixelCNN,
    z: Float[Tensor, "batch latent"],
    uniform: Float[Tensor, "batch 1 h w"],
    pixels: int | None = None,
) -> Float[Tensor, "batch 1 h w"]:
    """``decode_pixels``, the slow and obvious way: a full forward pass for every pixel.

    ``pixels`` stops after so many, for timing.
    """
    x = torch.zeros_like(uniform)
    for row, column in islice(_raster(x), pixels):
        logits = decoder(z, x)[:, :, row, column]
        x[:, :, row, column] = (logits.sigmoid() > uniform[:, :, row, column]).to(x.dtype)
    return x


@torch.no_grad()
def decode_pixels(
    decoder: PixelCNN, z: Float[Tensor, "batch latent"], uniform: Float[Tensor, "batch 1 h w"]
) -> Float[Tensor, "batch 1 h w"]:
    """Ancestral sampling in raster order; each layer computes one new pixel at a time."""
    x = torch.zeros_like(uniform)
    cache = _PixelCache(decoder, *x.shape[2:])
    # Layer 0 without the image is known for all pixels at once, from the code alone.
    blank = torch.cat([x, decoder.code_maps(z)], 1)
    from_code = decoder.first(blank)
    image_weight = decoder.first.weight[:, :1]
    padded = decoder.first.pad(x)
    for row in range(x.shape[2]):
        for column in range(x.shape[3]):
            cache.at = (row, column)
            seen = padded[:, :, row : row + 7, column : column + 7].flatten(1)
            h = from_code[:, :, row, column] + seen @ image_weight.flatten(1).T
            logits = decoder.head(h[:, :, None, None], cache.convolve)[:, :, 0, 0]
            pixel = (logits.sigmoid() > uniform[:, :, row, column]).to(x.dtype)
            x[:, :, row, column] = padded[:, :, row + 3, column + 3] = pixel
    return x


class _PixelCache:
    """Evaluates a decoder's layers at one pixel, remembering their inputs at earlier ones."""

    def __init__(self, decoder: PixelCNN, height: int, width: int):
        self.size = (height, width)
        self.at = (0, 0)
        self.weights: dict[WeightNorm, Tensor] = {}
        self.inputs: dict[WeightNorm, Tensor] = {}

    def convolve(self, layer: WeightNorm, pixel: Tensor) -> Tensor:
        if layer not in self.weights:
            self.weights[layer] = layer.weight.flatten(1).T.contiguous()
        seen = self._patch(layer, pixel) if isinstance(layer, MaskedConv2d) else pixel
        return torch.addmm(layer.bias, seen.flatten(1), self.weights[layer])[:, :, None, None]

    def _patch(self, layer: MaskedConv2d, pixel: Tensor) -> Tensor:
        if layer not in self.inputs:
            blank = pixel.new_zeros(*pixel.shape[:2], *self.size)
            self.inputs[layer] = layer.pad(blank)
        row, column = self.at
        rows, side = layer.direction.shape[2], layer.kernel // 2
        inputs = self.inputs[layer]
        inputs[:, :, row + rows - 1, column + side] = pixel[:, :, 0, 0]
        return inputs[:, :, row : row + rows, column : column + layer.kernel]


def _raster(x: Tensor) -> Iterator[tuple[int, int]]:
    return product(range(x.shape[2]), range(x.shape[3]))


@torch.no_grad()
def posterior_mean_code(
    model: VAE, x: Float[Tensor, "batch c h w"], generator: torch.Generator, samples: int = 50
) -> Float[Tensor, "batch latent"]:
    """The mean of ``samples`` draws from q(z|x), the code of the paper's reconstructions."""
    mu, logvar = model.encode(x)
    shape = (samples, *mu.shape)
    eps = torch.randn(shape, generator=generator, device=generator.device).mean(0)
    return reparameterise(mu, logvar, eps)


def reconstruct(
    model: VAE, x: Float[Tensor, "batch c h w"], generator: torch.Generator, greedy: bool = True
) -> Float[Tensor, "batch c h w"]:
    """Images decoded from the posterior's code of ``x``, greedily or by sampling each pixel."""
    z = posterior_mean_code(model, x, generator)
    return decode(model.decoder, z, _uniform(len(x), model, generator, greedy), greedy)


def sample(
    model: VAE, count: int, generator: torch.Generator, argmax: bool = False
) -> Float[Tensor, "count c h w"]:
    """``count`` images from the model: z from the prior, then the pixels.

    ``argmax`` takes the most probable component of each colour pixel's mixture, as the authors'
    implementation did, in place of a random one; binary images have no components.
    """
    z = model.prior.sample(count, generator)
    return decode(model.decoder, z, _uniform(count, model, generator, False), argmax)


def _uniform(count: int, model: VAE, generator: torch.Generator, greedy: bool) -> Tensor:
    channels, height, width = model.decoder.shape
    shape = (count, channels if channels == 1 else 4, height, width)
    if greedy:
        return torch.full(shape, 0.5, device=generator.device)
    return torch.rand(shape, generator=generator, device=generator.device)
