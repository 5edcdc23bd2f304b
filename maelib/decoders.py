"""The generative networks p(x|z) of binary images: a PixelCNN, and a factorised ResNet.

A decoder is called with the code and the image and returns the logit of every pixel. The
factorised one does not look at the image; ``autoregressive`` says which kind it is. ``shape`` is
an image's; ``log_prob`` and ``expected`` are an image's likelihood and its pixels' means, given
what the decoder returned for it.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maelib.layers import Conv2d, ConvTranspose2d, Linear, MaskedConv2d, elu
from maelib.likelihoods import bernoulli_log_prob, bernoulli_mean

KERNELS = (7, 7, 5, 5, 3, 3)
Apply = Callable[[nn.Module, Tensor], Tensor]


class MaskedBlock(nn.Module):
    """1x1 to half the channels, a causal k x k, and 1x1 back; its output is a residual."""

    def __init__(self, channels: int, kernel: int):
        super().__init__()
        self.reduce = Conv2d(channels, channels // 2, 1)
        self.masked = MaskedConv2d(channels // 2, channels // 2, kernel, see_self=True)
        self.expand = Conv2d(channels // 2, channels, 1)

    def forward(
        self, h: Float[Tensor, "batch c h w"], apply: Apply = nn.Module.__call__
    ) -> Float[Tensor, "batch c h w"]:
        h = apply(self.reduce, elu(h))
        return apply(self.expand, elu(apply(self.masked, elu(h))))


class PixelCNN(nn.Module):
    """p(x|z) = prod_i p(x_i | x_<i, z) over the pixels of a binary image in raster order.

    z becomes ``maps`` feature maps beside the image. A mask-A 7x7 convolution is layer 0; layers
    1 to 6 are residual blocks with ``KERNELS``. Five skip blocks each add layer j's output
    to what enters layer j + 3, the last one to the output.
    """

    autoregressive = True
    log_prob, expected = staticmethod(bernoulli_log_prob), staticmethod(bernoulli_mean)

    def __init__(self, latent: int, channels: int, maps: int = 4, size: int = 28):
        super().__init__()
        self.maps, self.size, self.shape = maps, size, (1, size, size)
        self.code = Linear(latent, maps * size * size)
        self.first = MaskedConv2d(1 + maps, channels, 7, see_self=False, free=maps)
        self.blocks = nn.ModuleList(MaskedBlock(channels, k) for k in KERNELS)
        self.skips = nn.ModuleList(MaskedBlock(channels, k) for k in KERNELS[:-1])
        self.last = Conv2d(channels, channels, 1)
        self.logit = Conv2d(channels, 1, 1)

    def code_maps(self, z: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch maps h w"]:
        """The code as feature maps of the image's size."""
        return elu(self.code(z)).unflatten(1, (self.maps, self.size, self.size))

    def forward(
        self, z: Float[Tensor, "batch latent"], x: Float[Tensor, "batch 1 h w"]
    ) -> Float[Tensor, "batch 1 h w"]:
        return self.head(self.first(torch.cat([x, self.code_maps(z)], 1)))

    def head(
        self, h: Float[Tensor, "batch c h w"], apply: Apply = nn.Module.__call__
    ) -> Float[Tensor, "batch 1 h w"]:
        """Logits from the output of layer 0.

        ``apply`` calls each layer; ``sampling`` passes one that computes a single pixel.
        """
        outputs = [h]
        for j, block in enumerate(self.blocks, 1):
            h = self._input(j, outputs, apply)
            outputs.append(h + block(h, apply))
        h = apply(self.last, elu(self._input(7, outputs, apply)))
        return apply(self.logit, elu(h))

    def _input(self, j: int, outputs: list[Tensor], apply: Apply) -> Tensor:
        return outputs[-1] if j < 3 else outputs[-1] + self.skips[j - 3](outputs[j - 3], apply)


class UpBlock(nn.Module):
    """Residual block that doubles the image, a transposed ``DownBlock``; 4 -> 7 drops a row."""

    def __init__(self, inputs: int, outputs: int, even: bool):
        super().__init__()
        pad = int(even)
        self.first = ConvTranspose2d(inputs, inputs, 3, padding=1)
        self.second = ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=pad)
        self.shortcut = ConvTranspose2d(inputs, outputs, 1, stride=2, output_padding=pad)

    def forward(self, h: Float[Tensor, "batch inputs h w"]) -> Float[Tensor, "batch outputs h2 w2"]:
        return self.second(elu(self.first(h))) + self.shortcut(h)


class ResNetDecoder(nn.Module):
    """p(x|z) = prod_i p(x_i | z): the encoder mirrored, for the ResNet VAE baseline."""

    autoregressive = False
    log_prob, expected = staticmethod(bernoulli_log_prob), staticmethod(bernoulli_mean)
    shape = (1, 28, 28)

    def __init__(self, latent: int, channels: tuple[int, int, int], hidden: int):
        super().__init__()
        a, b, c = channels
        self.features = Linear(latent, hidden)
        self.spread = ConvTranspose2d(hidden, c, 4)  # 1x1 -> 4x4
        self.up7, self.up14 = UpBlock(c, b, even=False), UpBlock(b, a, even=True)
        self.up28 = UpBlock(a, 1, even=True)

    def forward(
        self, z: Float[Tensor, "batch latent"], x: Float[Tensor, "batch 1 h w"] | None = None
    ) -> Float[Tensor, "batch 1 h2 w2"]:
        h = elu(self.spread(elu(self.features(z))[:, :, None, None]))
        return self.up28(elu(self.up14(elu(self.up7(h)))))
