"""The DenseNet encoder of colour images."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maelib.internal.shapes import ColourImages, Maps, OtherMaps
from maelib.nets.layers import Conv2d, elu

LOGVAR_RANGE = (-7.0, 7.0)  # bounds of the posterior's logvar


class DenseBlock(nn.Module):
    """``steps`` layers, whose outputs are appended to their inputs.

    A layer is a 1x1 convolution to 4 ``growth`` channels, then a 3x3 one to ``growth``.
    """

    def __init__(self, inputs: int, growth: int, steps: int):
        super().__init__()
        widths = [inputs + i * growth for i in range(steps)]
        self.bottleneck = nn.ModuleList(Conv2d(width, 4 * growth, 1) for width in widths)
        self.conv = nn.ModuleList(Conv2d(4 * growth, growth, 3, padding=1) for _ in widths)
        self.outputs = inputs + steps * growth

    def forward(self, h: Maps) -> OtherMaps:
        for bottleneck, conv in zip(self.bottleneck, self.conv, strict=True):
            h = torch.cat([h, elu(conv(elu(bottleneck(h))))], 1)
        return h


class DenseNetEncoder(nn.Module):
    """Dense blocks at three sizes, then a 1x1 convolution to half the channels.

    The sizes are the image's, 32x32 for example, then 16x16 and 8x8.
    A strided convolution halves the image after the first block and after the second.
    """

    def __init__(self, growth: tuple[int, int, int], steps: tuple[int, int, int]):
        super().__init__()
        self.blocks, self.transition = nn.ModuleList(), nn.ModuleList()
        width = 3
        for level, sizes in enumerate(zip(growth, steps, strict=True)):
            self.blocks.append(DenseBlock(width, *sizes))
            width = self.blocks[-1].outputs
            if level < 2:
                self.transition.append(Conv2d(width, width, 3, stride=2, padding=1))
        self.outputs = width // 2
        self.features = Conv2d(width, self.outputs, 1)

    def forward(self, x: ColourImages) -> Float[Tensor, "batch outputs map_side map_side"]:
        h = self.blocks[0](x)  # [batch, 48, 32, 32] at the published size
        h = self.blocks[1](elu(self.transition[0](h)))  # [batch, 96, 16, 16]
        h = self.blocks[2](elu(self.transition[1](h)))  # [batch, 192, 8, 8]
        return elu(self.features(h))
