"""The toy of notebooks 01 and 02: strings of pixels whose entropy is known, and their decoder."""

import math

import torch
from torch import nn

from maelib.internal.shapes import BinaryImages, Codes
from maelib.nets.flows import MADE
from maelib.nets.likelihoods import bernoulli_log_prob

LENGTH, FLIP = 64, 0.05
ENTROPY = math.log(2) - (LENGTH - 1) * (FLIP * math.log(FLIP) + (1 - FLIP) * math.log(1 - FLIP))


def draw(count: int) -> BinaryImages:
    """Strings as images of one row; a pixel differs from the one before it with chance FLIP."""
    chance = torch.full((count, LENGTH), FLIP)
    chance[:, 0] = 0.5
    return (torch.bernoulli(chance).cumsum(1) % 2).view(count, 1, 1, LENGTH)


class StringDecoder(nn.Module):
    """Logits from the code and, if ``autoregressive``, from earlier pixels; ``deaf`` ignores z."""

    log_prob = staticmethod(bernoulli_log_prob)

    def __init__(self, latent: int, autoregressive: bool = True, deaf: bool = False):
        super().__init__()
        self.code = nn.Sequential(nn.Linear(latent, 64), nn.ELU(), nn.Linear(64, LENGTH))
        self.pixels = MADE(LENGTH, 128) if autoregressive else None
        self.deaf = deaf

    def forward(self, z: Codes, x: BinaryImages) -> BinaryImages:
        logits = self.code(torch.zeros_like(z) if self.deaf else z)
        return (logits + (self.pixels(x.flatten(1)) if self.pixels else 0)).view_as(x)
