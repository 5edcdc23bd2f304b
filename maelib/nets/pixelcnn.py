"""The PixelCNN p(x|z) of binary images.

A decoder is called with the code and the image and returns the logit of every pixel.
``autoregressive`` says whether it looks at the image. ``shape`` is an image's; ``log_prob`` and
``expected`` are an image's likelihood and its pixels' means, given what the decoder returned.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maelib.nets.layers import Conv2d, Linear, MaskedConv2d, elu
from maelib.nets.likelihoods import bernoulli_log_prob, bernoulli_mean

KERNELS = (7, 7, 5, 5, 3, 3)
Apply = Callable[[nn.Module, Tensor], Tensor]


class MaskedBlock(nn.Module):
    """1x1 to half the channels, a causal k x k, and 1x1 back; its output is a residual."""

    def __init__(self, channels: int, kernel: int):
        super().__init__()
        self.reduce = Conv2d(channels, channels // 2, 1)
        self.masked = MaskedConv2d(channels // 2, channels // 2, kernel, mask_type="B")
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
        self.first = MaskedConv2d(1 + maps, channels, 7, mask_type="A", unmasked_channels=maps)
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
