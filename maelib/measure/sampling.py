"""Drawing images: from a code, from the prior, and from another image's posterior.

An image is a deterministic function of z and of the numbers ``uniform``, drawn beforehand. A
binary pixel has one number and is 1 where its probability exceeds it; a colour pixel has four,
for the mixture's component and the three colours. Greedy decoding takes 0.5 everywhere, and for
colours the most probable component (``argmax``).
"""

from collections.abc import Iterator
from itertools import islice, product

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from maelib.divergences import reparameterise
from maelib.internal.shapes import BinaryImages, Codes, ColourImages, Images
from maelib.model import VAE
from maelib.nets.layers import MaskedConv2d, WeightNorm, fixed_weights
from maelib.nets.likelihoods import draw_from_mixture
from maelib.nets.pixelcnn import PixelCNN
from maelib.nets.pixelcnnpp import FullPixelCNN, SmallPixelCNN

Uniform = Float[Tensor, "batch numbers h w"]


@torch.no_grad()
def decode(decoder: nn.Module, z: Codes, uniform: Uniform, argmax: bool = False) -> Images:
    """Images from p(x|z), determined by the numbers ``uniform``."""
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
    decoder: nn.Module, z: Codes, uniform: Uniform, argmax: bool = False, pixels: int | None = None
) -> ColourImages:
    """Colour images by a full forward pass for each pixel; for timing, of the first ``pixels``."""
    code = decoder.pyramid(z)
    x = z.new_zeros(len(z), *decoder.shape)
    for row, column in islice(_raster(x), pixels):
        at = _at(row, column)
        x[at] = draw_from_mixture(decoder.given_code(x, code)[at], uniform[at], argmax)
    return x


@torch.no_grad()
def decode_window(
    decoder: SmallPixelCNN, z: Codes, uniform: Uniform, argmax: bool = False
) -> ColourImages:
    """``decode_colour_reference``, each pixel from the piece of the image that it sees.

    Where the piece ends at the image's border, the layers' zeros are those of a full pass;
    elsewhere they lie too far off to reach the pixel.
    """
    *_, features = decoder.pyramid(z)
    x = z.new_zeros(len(z), *decoder.shape)
    for row, column in _raster(x):
        top, left = max(0, row - decoder.rows_above), max(0, column - decoder.columns_beside)
        piece = (..., slice(top, row + 1), slice(left, column + decoder.columns_beside + 1))
        output = decoder.given_features(x[piece], features[piece])
        pixel, at = output[_at(row - top, column - left)], _at(row, column)
        x[at] = draw_from_mixture(pixel, uniform[at], argmax)
    return x


@torch.no_grad()
def decode_pixels_reference(
    decoder: PixelCNN, z: Codes, uniform: BinaryImages, pixels: int | None = None
) -> BinaryImages:
    """Binary images by a full forward pass for each pixel; for timing, of the first ``pixels``."""
    x = torch.zeros_like(uniform)
    for row, column in islice(_raster(x), pixels):
        at = _at(row, column)
        x[at] = (decoder(z, x)[at].sigmoid() > uniform[at]).to(x.dtype)
    return x


@torch.no_grad()
def decode_pixels(decoder: PixelCNN, z: Codes, uniform: BinaryImages) -> BinaryImages:
    """Ancestral sampling in raster order; each layer computes one new pixel at a time."""
    x = torch.zeros_like(uniform)
    cache = _PixelCache(x.shape[2:])
    # Layer 0 without the image is known for all pixels at once, from the code alone.
    code = decoder.code_maps(z)
    from_code = decoder.first(torch.cat([x, code], 1))
    image_weight = decoder.first.weight[:, :1].flatten(1).T
    padded, kernel = decoder.first.pad(x), decoder.first.kernel
    for row, column in _raster(x):
        cache.at, at = (row, column), _at(row, column)
        seen = padded[:, :, row : row + kernel, column : column + kernel].flatten(1)
        h = from_code[:, :, row, column] + seen @ image_weight
        logits = decoder.head(h[:, :, None, None], code[at], cache.convolve)
        x[at] = (logits.sigmoid() > uniform[at]).to(x.dtype)
        padded[:, :, row + kernel // 2, column + kernel // 2] = x[:, :, row, column]
    return x


class _PixelCache:
    """Evaluates layers at the pixel ``at`` and keeps their inputs at earlier pixels."""

    def __init__(self, size: tuple[int, int]):
        self.size, self.at = size, (0, 0)
        self.weights: dict[WeightNorm, Tensor] = {}
        self.inputs: dict[WeightNorm, Tensor] = {}

    def convolve(self, layer: WeightNorm, pixel: Tensor) -> Tensor:
        if layer not in self.weights:
            self.weights[layer] = layer.weight.flatten(1).T.contiguous()
        seen = self._patch(layer, pixel) if isinstance(layer, MaskedConv2d) else pixel
        return torch.addmm(layer.bias, seen.flatten(1), self.weights[layer])[:, :, None, None]

    def _patch(self, layer: MaskedConv2d, pixel: Tensor) -> Tensor:
        if layer not in self.inputs:
            self.inputs[layer] = layer.pad(pixel.new_zeros(*pixel.shape[:2], *self.size))
        row, column = self.at
        rows, side = layer.direction.shape[2], layer.kernel // 2
        inputs = self.inputs[layer]
        inputs[:, :, row + rows - 1, column + side] = pixel[:, :, 0, 0]
        return inputs[:, :, row : row + rows, column : column + layer.kernel]


def _raster(x: Tensor) -> Iterator[tuple[int, int]]:
    return product(range(x.shape[2]), range(x.shape[3]))


def _at(row: int, column: int) -> tuple:
    """The index of one pixel that keeps its axes."""
    return ..., slice(row, row + 1), slice(column, column + 1)


@torch.no_grad()
def posterior_mean_code(model: VAE, x: Images, generator: Generator) -> Codes:
    """The mean of 50 draws from q(z|x), the code of the paper's reconstructions."""
    mu, logvar = model.encode(x)
    noise = torch.randn(50, *mu.shape, generator=generator, device=generator.device)
    return reparameterise(mu, logvar, noise.mean(0))


def reconstruct(model: VAE, x: Images, generator: Generator, greedy: bool = True) -> Images:
    """Images decoded from the posterior's code of ``x``, greedily or by sampling each pixel."""
    z = posterior_mean_code(model, x, generator)
    return decode(model.decoder, z, _uniform(len(x), model, generator, greedy), greedy)


def expected(model: VAE, z: Codes, generator: Generator, samples: int = 16) -> Images:
    """For each code, the mean of ``samples`` images that it decodes to.

    What the code fixes is sharp in it. All codes share their random numbers, so two expected
    images differ by their codes alone.
    """
    uniform = _uniform(samples, model, generator, False).repeat(len(z), 1, 1, 1)
    drawn = decode(model.decoder, z.repeat_interleave(samples, 0), uniform)
    return drawn.unflatten(0, (len(z), samples)).mean(1)


def sample(model: VAE, count: int, generator: Generator, temperature: float = 1.0) -> Images:
    """``count`` images from the model: z from the prior, then the pixels.

    ``temperature`` scales the noise from which the prior makes z.
    """
    z = model.prior.sample(count, generator, temperature)
    return decode(model.decoder, z, _uniform(count, model, generator, False))


def _uniform(count: int, model: VAE, generator: Generator, greedy: bool) -> Uniform:
    channels, height, width = model.decoder.shape
    shape = (count, 1 if channels == 1 else 4, height, width)
    if greedy:
        return torch.full(shape, 0.5, device=generator.device)
    return torch.rand(shape, generator=generator, device=generator.device)
