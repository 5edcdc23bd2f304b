"""The generative networks p(x|z) of colour images: PixelCNN++ with two receptive fields.

Both are two stacks of shifted convolutions (Salimans et al., 2017): the vertical one sees the
rows above a pixel, the horizontal one also what is left of it, and takes up the vertical one's
features. z, maps of a quarter of the image's side, is brought to every resolution and enters
each block. They return the parameters of a mixture of logistics for each pixel (``likelihoods``).
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from maelib.internal.shapes import Codes, ColourImages, Maps, OtherMaps, ResizedMaps
from maelib.nets import halved
from maelib.nets.layers import Conv2d, ConvTranspose2d, WeightNorm, concat_elu, elu, in_float32
from maelib.nets.likelihoods import PER_COMPONENT, mixture_log_prob, mixture_mean

Kernel = tuple[int, int]  # rows and columns
MakeConv = Callable[[int, int], nn.Module]
Pyramid = tuple[
    Float[Tensor, "batch c quarter quarter"],
    Float[Tensor, "batch c half half"],
    Float[Tensor, "batch c side side"],
]
Stacks = tuple[Maps, Maps]  # the vertical one's features, and the horizontal one's


class ShiftedConv2d(WeightNorm):
    """Convolution of pixels above and on both sides or, with ``corner``, above and on the left.

    The kernel's last row is the pixel's own, and so is its middle column or, with ``corner``, its
    last one. A stack of these, its first outputs shifted down or right by one, is causal without
    a mask and has no blind spot (Salimans et al., 2017).
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: Kernel, *, corner=False, stride=1, init_scale=1.0
    ):
        super().__init__((outputs, inputs, *kernel), init_scale=init_scale)
        rows, columns = kernel
        left = columns - 1 if corner else columns // 2
        self.border = (left, columns - 1 - left, rows - 1, 0)
        self.stride = stride

    def forward(self, x: Maps) -> ResizedMaps:
        return F.conv2d(F.pad(x, self.border), self.weight, self.bias, self.stride)


class ShiftedConvTranspose2d(WeightNorm):
    """Doubles an image; each pixel depends only on coarse pixels above it (or to its left).

    The counterpart of a ``ShiftedConv2d`` of stride 2 with the same ``kernel`` and ``corner``.
    """

    def __init__(self, inputs: int, outputs: int, kernel: Kernel, *, corner: bool = False):
        super().__init__((outputs, inputs, *kernel))
        self.first = 0 if corner else (kernel[1] - 1) // 2

    def forward(self, x: Maps) -> ResizedMaps:
        height, width = 2 * x.shape[2], 2 * x.shape[3]
        weight = self.weight.transpose(0, 1)
        y = F.conv_transpose2d(x, weight, self.bias, stride=2, output_padding=1)
        return y[:, :, :height, self.first : self.first + width]


def shift_down(x: Maps) -> Maps:
    """Every row moved one down; zeros enter at the top."""
    return F.pad(x, (0, 0, 1, 0))[:, :, :-1]


def shift_right(x: Maps) -> Maps:
    """Every column moved one to the right; zeros enter at the left."""
    return F.pad(x, (1, 0))[:, :, :, :-1]


def vertical(columns: int, rows: int = 1) -> MakeConv:
    """Makes convolutions over ``rows`` rows up to the pixel's own and ``columns`` around it."""
    return partial(ShiftedConv2d, kernel=(rows, columns))


def horizontal(columns: int, rows: int = 1) -> MakeConv:
    """Makes convolutions over ``rows`` rows up to the pixel's own and ``columns`` up to it."""
    return partial(ShiftedConv2d, kernel=(rows, columns), corner=True)


class GatedBlock(nn.Module):
    """Residual block x + a sigmoid(b), a and b from two convolutions, both made by ``conv``.

    Features of another stack, with ``skip`` channels, enter after the first convolution, the
    code's before the gate. ``second`` makes the second convolution if it is to differ.
    """

    def __init__(
        self, channels: int, conv: MakeConv, second: MakeConv | None = None, *, skip: int = 0
    ):
        super().__init__()
        self.first = conv(2 * channels, channels)
        self.skip = Conv2d(2 * skip, channels, 1) if skip else None
        self.second = (second or conv)(2 * channels, 2 * channels, init_scale=0.1)
        self.code = Conv2d(channels, 2 * channels, 1)

    def forward(self, x: Maps, code: Maps, skip: OtherMaps | None = None) -> Maps:
        h = self.first(concat_elu(x))
        if self.skip is not None:
            h = h + self.skip(concat_elu(skip))
        a, b = (self.second(concat_elu(h)) + self.code(code)).chunk(2, 1)
        return x + a * b.sigmoid()


class CodePyramid(nn.Module):
    """The code's maps as ``channels`` features of 8x8, 16x16 and 32x32, for images of 32x32."""

    def __init__(self, maps: int, channels: int, side: int):
        super().__init__()
        self.maps, self.side = maps, side
        self.first = Conv2d(maps, channels, 3, padding=1)
        self.up16 = ConvTranspose2d(channels, channels, 4, stride=2, padding=1)
        self.up32 = ConvTranspose2d(channels, channels, 4, stride=2, padding=1)

    def forward(self, z: Codes) -> Pyramid:
        quarter = halved(self.side, 2)
        h8 = elu(self.first(z.unflatten(1, (self.maps, quarter, quarter))))
        h16 = _cut(elu(self.up16(h8)), halved(self.side, 1))
        return h8, h16, _cut(elu(self.up32(h16)), self.side)


class Stem(nn.Module):
    """The two stacks' first layers, which alone leave out the pixel itself.

    The vertical stack begins with the two rows above, the horizontal one with the row above and
    the pixel to the left. A constant channel tells the image from the zeros around it.
    """

    def __init__(self, channels: int, left_rows: int):
        super().__init__()
        self.above = vertical(3, rows=2)(4, channels)
        self.row_above = vertical(3)(4, channels)
        self.left = horizontal(1, rows=left_rows)(4, channels)

    def forward(self, x: ColourImages) -> Stacks:
        x = F.pad(x, (0, 0, 0, 0, 0, 1), value=1.0)
        down = shift_down(self.above(x))
        right = shift_down(self.row_above(x)) + shift_right(self.left(x))
        return down, right


class _ColourDecoder(nn.Module):
    """The base of both decoders: the code's pyramid, first layers and mixture parameters."""

    autoregressive = True
    log_prob, expected = staticmethod(mixture_log_prob), staticmethod(mixture_mean)

    def __init__(self, maps: int, channels: int, mixtures: int, left_rows: int, side: int):
        super().__init__()
        self.shape = (3, side, side)
        self.pyramid = CodePyramid(maps, channels, side)
        self.stem = Stem(channels, left_rows)
        self.last = Conv2d(channels, PER_COMPONENT * mixtures, 1)

    def forward(self, z: Codes, x: ColourImages) -> OtherMaps:
        return self.given_code(x, self.pyramid(z))


class SmallPixelCNN(_ColourDecoder):
    """A PixelCNN++ that sees 7 columns by 3 rows: a pixel's own row to its left, and two above.

    Only z tells what lies further away (Chen et al., 2017). Each stack has one block with wide
    convolutions; ``blocks`` blocks of 1x1 follow.
    """

    rows_above, columns_beside = 2, 3  # that a pixel sees, the columns to either side

    def __init__(self, maps: int, channels: int, blocks: int, mixtures: int, side: int = 32):
        super().__init__(maps, channels, mixtures, 1, side)
        self.down = GatedBlock(channels, vertical(3))
        # The second is 1x1: no pixel further right may see the vertical features, 7 columns wide.
        self.right = GatedBlock(channels, horizontal(3), horizontal(1), skip=channels)
        self.deepen = nn.ModuleList(GatedBlock(channels, horizontal(1)) for _ in range(blocks))

    def given_code(self, x: ColourImages, code: Pyramid) -> OtherMaps:
        """The mixtures' parameters from the image and the code's features."""
        return self.given_features(x, code[2])

    def given_features(self, x: ColourImages, features: Maps) -> OtherMaps:
        """``given_code`` for the image or a piece of it, with the code's features of that piece."""
        down, right = self.stem(x)
        right = self.right(right, features, self.down(down, features))
        for block in self.deepen:
            right = block(right, features)
        return in_float32(self.last, elu(right))


class FullPixelCNN(_ColourDecoder):
    """The three-level PixelCNN++: ``blocks`` blocks a level on the way down, and on the way up.

    A coarser level shows only rows that are complete. Of its own row and the nearest ones above, a
    pixel therefore sees only the columns that the finest level reaches: 18 to a side at four
    blocks. The way up takes the features of the way down, in reverse.
    """

    def __init__(self, maps: int, channels: int, blocks: int, mixtures: int, side: int = 32):
        super().__init__(maps, channels, mixtures, 2, side)
        self.down_blocks = nn.ModuleList(_levels(channels, blocks, skip=False))
        self.up_blocks = nn.ModuleList(_levels(channels, blocks, skip=True))
        self.shrink = nn.ModuleList(_Resize(channels, up=False) for _ in range(2))
        self.enlarge = nn.ModuleList(_Resize(channels, up=True) for _ in range(2))

    def given_code(self, x: ColourImages, code: Pyramid) -> OtherMaps:
        """The mixtures' parameters from the whole image and the code's features."""
        stacks = self.stem(x)
        passed = [stacks]
        for level, pairs in enumerate(self.down_blocks):
            if level:
                stacks = self.shrink[level - 1](*stacks)
                passed.append(stacks)
            for pair in pairs:
                stacks = pair(*stacks, code[2 - level])
                passed.append(stacks)
        stacks = passed.pop()
        for level, pairs in enumerate(self.up_blocks):
            for pair in pairs:
                stacks = pair(*stacks, code[level], passed.pop())
            if level < 2:
                larger = self.enlarge[level](*stacks)
                stacks = tuple(_cut(stack, passed[-1][0].shape[-1]) for stack in larger)
        return in_float32(self.last, elu(stacks[1]))


class _Pair(nn.Module):
    """A block of each stack; with ``skip`` both also take features of the way down."""

    def __init__(self, channels: int, skip: bool):
        super().__init__()
        self.down = GatedBlock(channels, vertical(3, rows=2), skip=channels * skip)
        self.right = GatedBlock(channels, horizontal(2, rows=2), skip=channels * (1 + skip))

    def forward(self, down: Maps, right: Maps, code: Maps, skip: Stacks | None = None) -> Stacks:
        down = self.down(down, code, skip and skip[0])
        features = down if skip is None else torch.cat([down, skip[1]], 1)
        return down, self.right(right, code, features)


class _Resize(nn.Module):
    """Halves or doubles the resolution of both stacks."""

    def __init__(self, channels: int, up: bool):
        super().__init__()
        kind = ShiftedConvTranspose2d if up else partial(ShiftedConv2d, stride=2)
        self.down = kind(channels, channels, (2, 3))
        self.right = kind(channels, channels, (2, 2), corner=True)

    def forward(self, down: Maps, right: Maps) -> tuple[ResizedMaps, ResizedMaps]:
        return self.down(down), self.right(right)


def _levels(channels: int, blocks: int, skip: bool) -> list[nn.ModuleList]:
    # On the way up the two larger levels take one more feature: that of the halving before them.
    counts = [blocks, blocks + 1, blocks + 1] if skip else [blocks] * 3
    return [nn.ModuleList(_Pair(channels, skip) for _ in range(count)) for count in counts]


def _cut(h: Maps, side: int) -> ResizedMaps:
    """The first rows and columns: an odd side was rounded up when it was halved."""
    return h[..., :side, :side]
