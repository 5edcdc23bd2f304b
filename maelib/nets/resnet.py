"""The ResNet encoder of binary images, and its mirror image: a factorised decoder p(x|z)."""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maelib.internal.shapes import BinaryImages, Codes, Images, Maps, ResizedMaps
from maelib.nets import halved
from maelib.nets.layers import Conv2d, ConvTranspose2d, Linear, elu
from maelib.nets.likelihoods import bernoulli_log_prob, bernoulli_mean


class DownBlock(nn.Module):
    """Residual block that halves the image: two 3x3 convolutions beside a strided 1x1."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first = Conv2d(inputs, outputs, 3, stride=2, padding=1)
        self.second = Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = Conv2d(inputs, outputs, 1, stride=2)

    def forward(self, x: Maps) -> ResizedMaps:
        return elu(self.second(elu(self.first(x))) + self.shortcut(x))


class ResNetEncoder(nn.Module):
    """Three residual blocks of ``channels`` and a convolution of all that is left.

    A block halves the image and rounds up: 28 -> 14 -> 7 -> 4.
    """

    def __init__(self, channels: tuple[int, int, int], hidden: int, side: int = 28):
        super().__init__()
        self.blocks = nn.Sequential(*(DownBlock(*pair) for pair in pairwise((1, *channels))))
        self.features = Conv2d(channels[-1], hidden, halved(side, 3))
        self.outputs = hidden

    def forward(self, x: BinaryImages) -> Float[Tensor, "batch hidden"]:
        return elu(self.features(self.blocks(x))).flatten(1)


class ConstantEncoder(nn.Module):
    """The same learned features for every image: a control that cannot pass on any information."""

    def __init__(self, hidden: int):
        super().__init__()
        self.features, self.outputs = nn.Parameter(torch.randn(hidden)), hidden

    def forward(self, x: Images) -> Float[Tensor, "batch hidden"]:
        return self.features.expand(len(x), -1)


class UpBlock(nn.Module):
    """A transposed ``DownBlock``. It doubles the side, less one pixel if not ``even`` (4 -> 7)."""

    def __init__(self, inputs: int, outputs: int, even: bool):
        super().__init__()
        pad = int(even)
        self.first = ConvTranspose2d(inputs, inputs, 3, padding=1)
        self.second = ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=pad)
        self.shortcut = ConvTranspose2d(inputs, outputs, 1, stride=2, output_padding=pad)

    def forward(self, h: Maps) -> ResizedMaps:
        return self.second(elu(self.first(h))) + self.shortcut(h)


class ResNetDecoder(nn.Module):
    """p(x|z) = prod_i p(x_i | z): the encoder mirrored, for the ResNet VAE baseline."""

    autoregressive = False
    log_prob, expected = staticmethod(bernoulli_log_prob), staticmethod(bernoulli_mean)

    def __init__(self, latent: int, channels: tuple[int, int, int], hidden: int, side: int = 28):
        super().__init__()
        self.shape = (1, side, side)
        a, b, c = channels
        even = [halved(side, times) % 2 == 0 for times in range(3)]
        self.features = Linear(latent, hidden)
        self.project = ConvTranspose2d(hidden, c, halved(side, 3))  # 1x1 -> 4x4 for side 28
        self.up7, self.up14 = UpBlock(c, b, even[2]), UpBlock(b, a, even[1])
        self.up28 = UpBlock(a, 1, even[0])

    def forward(self, z: Codes, x: BinaryImages | None = None) -> BinaryImages:
        h = elu(self.project(elu(self.features(z))[:, :, None, None]))
        return self.up28(elu(self.up14(elu(self.up7(h)))))
