"""The PixelCNN p(x|z) of binary images.

A decoder is called with the code and the image and returns the logit of every pixel.
``autoregressive`` says whether it looks at the image. ``shape`` is an image's; ``log_prob`` and
``expected`` are an image's likelihood and its pixels' means, given what the decoder returned.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from maelib.internal.shapes import BinaryImages, Codes, Maps, OtherMaps
from maelib.nets.layers import Conv2d, Linear, MaskedConv2d, elu, in_float32
from maelib.nets.likelihoods import bernoulli_log_prob, bernoulli_mean

KERNELS = (7, 7, 5, 5, 3, 3)
Apply = Callable[[nn.Module, Tensor], Tensor]


class MaskedBlock(nn.Module):
    """A residual: 1x1 to half the channels, a causal k x k convolution, and 1x1 back."""

    def __init__(self, channels: int, kernel: int):
        super().__init__()
        self.reduce = Conv2d(channels, channels // 2, 1)
        self.masked = MaskedConv2d(channels // 2, channels // 2, kernel, mask_type="B")
        self.expand = Conv2d(channels // 2, channels, 1)

    def forward(self, h: Maps, apply: Apply = nn.Module.__call__) -> Maps:
        h = apply(self.reduce, elu(h))
        return apply(self.expand, elu(apply(self.masked, elu(h))))


class PixelCNN(nn.Module):
    """p(x|z) = prod_i p(x_i | x_<i, z) over the pixels of a binary image in raster order.

    z enters as ``maps`` feature maps beside the image, and with ``z_path`` "skip" in the last
    hidden layer too; with "none" they are those of z = 0. A mask-A 7x7 convolution is layer 0;
    layers 1 to 6 are residual blocks with ``KERNELS``, none above ``max_kernel``. Five skip
    blocks each add layer j's output to what enters layer j + 3, the last one to the output. In
    training each pixel that is looked at is 1/2 with probability ``input_dropout``.
    """

    autoregressive = True
    log_prob, expected = staticmethod(bernoulli_log_prob), staticmethod(bernoulli_mean)

    def __init__(
        self,
        latent: int,
        channels: int,
        maps: int = 4,
        size: int = 28,
        *,
        z_path: str = "input",
        max_kernel: int = 7,
        input_dropout: float = 0.0,
    ):
        super().__init__()
        self.maps, self.size, self.shape = maps, size, (1, size, size)
        self.z_path, self.input_dropout = z_path, input_dropout
        first, *kernels = (min(kernel, max_kernel) for kernel in (7, *KERNELS))
        self.code = Linear(latent, maps * size * size)
        self.first = MaskedConv2d(1 + maps, channels, first, mask_type="A", unmasked_channels=maps)
        self.blocks = nn.ModuleList(MaskedBlock(channels, k) for k in kernels)
        self.skips = nn.ModuleList(MaskedBlock(channels, k) for k in kernels[:-1])
        self.last = Conv2d(channels + maps * (z_path == "skip"), channels, 1)
        self.logit = Conv2d(channels, 1, 1)

    def code_maps(self, z: Codes) -> Maps:
        """The code as feature maps of the image's size."""
        z = torch.zeros_like(z) if self.z_path == "none" else z
        return elu(self.code(z)).unflatten(1, (self.maps, self.size, self.size))

    def forward(self, z: Codes, x: BinaryImages) -> BinaryImages:
        code = self.code_maps(z)
        if self.training and self.input_dropout:
            x = x.masked_fill(torch.rand_like(x) < self.input_dropout, 0.5)
        return self.head(self.first(torch.cat([x, code], 1)), code)

    def head(self, h: Maps, code: OtherMaps, apply: Apply = nn.Module.__call__) -> BinaryImages:
        """Logits from layer 0's output; ``apply`` calls a layer (``sampling``: on one pixel)."""
        outputs = [h]
        for j, block in enumerate(self.blocks, 1):
            h = h + block(h, apply)
            outputs.append(h)
            if j >= 2:
                h = h + self.skips[j - 2](outputs[j - 2], apply)
        h = torch.cat([h, code], 1) if self.z_path == "skip" else h
        return in_float32(partial(apply, self.logit), elu(apply(self.last, elu(h))))
