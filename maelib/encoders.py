"""The inference networks q(z|x): a ResNet for binary images, a DenseNet for colour ones."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maelib.layers import Conv2d, Linear, elu

LOGVAR_RANGE = (-7.0, 7.0)


class DownBlock(nn.Module):
    """Residual block that halves the image: two 3x3 convolutions beside a strided 1x1."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first = Conv2d(inputs, outputs, 3, stride=2, padding=1)
        self.second = Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = Conv2d(inputs, outputs, 1, stride=2)

    def forward(self, x: Float[Tensor, "batch inputs h w"]) -> Float[Tensor, "batch outputs h2 w2"]:
        return elu(self.second(elu(self.first(x))) + self.shortcut(x))


class ResNetEncoder(nn.Module):
    """Mean and log-variance of q(z|x) for 28x28 images.

    Three residual blocks of ``channels`` (28 -> 14 -> 7 -> 4), a 4x4 convolution to ``hidden``
    features, and a linear layer.
    """

    def __init__(self, latent: int, channels: tuple[int, int, int], hidden: int):
        super().__init__()
        sizes = (1, *channels)
        self.blocks = nn.Sequential(
            *(DownBlock(a, b) for a, b in zip(sizes, channels, strict=False))
        )
        self.features = Conv2d(channels[-1], hidden, 4)
        self.head = Linear(hidden, 2 * latent)

    def forward(
        self, x: Float[Tensor, "batch 1 28 28"]
    ) -> tuple[Float[Tensor, "batch latent"], Float[Tensor, "batch latent"]]:
        h = elu(self.features(self.blocks(x))).flatten(1)  # [batch, hidden]
        mu, logvar = self.head(h).chunk(2, dim=1)
        return mu, logvar


class DenseBlock(nn.Module):
    """``steps`` times: 1x1 to 4 ``growth`` channels, 3x3 to ``growth``, put beside the input."""

    def __init__(self, inputs: int, growth: int, steps: int):
        super().__init__()
        widths = [inputs + i * growth for i in range(steps)]
        self.narrow = nn.ModuleList(Conv2d(width, 4 * growth, 1) for width in widths)
        self.look = nn.ModuleList(Conv2d(4 * growth, growth, 3, padding=1) for _ in widths)
        self.outputs = inputs + steps * growth

    def forward(self, h: Float[Tensor, "batch inputs h w"]) -> Float[Tensor, "batch outputs h w"]:
        for narrow, look in zip(self.narrow, self.look, strict=True):
            h = torch.cat([h, elu(look(elu(narrow(h))))], 1)
        return h


class DenseNetEncoder(nn.Module):
    """Mean and log-variance of q(z|x) for 32x32 colour images, z being ``maps`` maps of 8x8.

    Three dense blocks at 32x32, 16x16 and 8x8 with a strided convolution after the first two, then
    1x1 to half the channels and 1x1 to the maps, flattened. logvar is clamped to -7 ... 7.
    """

    def __init__(self, maps: int, growth: tuple[int, int, int], steps: tuple[int, int, int]):
        super().__init__()
        self.blocks, self.halve = nn.ModuleList(), nn.ModuleList()
        width = 3
        for level, (g, s) in enumerate(zip(growth, steps, strict=True)):
            self.blocks.append(DenseBlock(width, g, s))
            width = self.blocks[-1].outputs
            if level < 2:
                self.halve.append(Conv2d(width, width, 3, stride=2, padding=1))
        self.features = Conv2d(width, width // 2, 1)
        self.head = Conv2d(width // 2, 2 * maps, 1)

    def forward(
        self, x: Float[Tensor, "batch 3 32 32"]
    ) -> tuple[Float[Tensor, "batch latent"], Float[Tensor, "batch latent"]]:
        h = self.blocks[0](x)  # [batch, 48, 32, 32] at the published size
        h = self.blocks[1](elu(self.halve[0](h)))  # [batch, 96, 16, 16]
        h = self.blocks[2](elu(self.halve[1](h)))  # [batch, 192, 8, 8]
        mu, logvar = self.head(elu(self.features(h))).chunk(2, dim=1)
        return mu.flatten(1), logvar.flatten(1).clamp(*LOGVAR_RANGE)
