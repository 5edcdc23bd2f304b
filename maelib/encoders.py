"""The inference network q(z|x)."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from maelib.layers import Conv2d, Linear


class DownBlock(nn.Module):
    """Residual block that halves the image: two 3x3 convolutions beside a strided 1x1."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first = Conv2d(inputs, outputs, 3, stride=2, padding=1)
        self.second = Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = Conv2d(inputs, outputs, 1, stride=2)

    def forward(self, x: Float[Tensor, "batch inputs h w"]) -> Float[Tensor, "batch outputs h2 w2"]:
        return F.elu(self.second(F.elu(self.first(x))) + self.shortcut(x))


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
        h = F.elu(self.features(self.blocks(x))).flatten(1)  # [batch, hidden]
        mu, logvar = self.head(h).chunk(2, dim=1)
        return mu, logvar
