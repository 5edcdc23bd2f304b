"""scikit-learn's bundled 8x8 digits, enlarged to 28x28: 1,297 / 200 / 300 images, a seeded split.

They need no download, and stand in for MNIST where there is neither a copy of it nor a network.
Their numbers are never comparable with MNIST's.
"""

import torch
import torch.nn.functional as F

from maelib.data.split import Dataset, Split
from maelib.internal import rng


def load(source: str = "bundled with scikit-learn") -> Dataset:
    """scikit-learn's 1,797 digits of 8x8, enlarged to 28x28 grey images."""
    from sklearn import datasets

    bunch = datasets.load_digits()
    small = torch.from_numpy(bunch.images).float()[:, None] / 16
    large = F.interpolate(small, size=(24, 24), mode="bicubic", align_corners=False)
    # Enlarging blurs the strokes; the contrast curve makes their edges about as sharp as MNIST's.
    sharp = ((large - 0.25) / 0.5).clamp(0, 1)
    images = F.pad((sharp * 255).round(), (2, 2, 2, 2)).to(torch.uint8)
    labels = torch.from_numpy(bunch.target).long()
    order = torch.randperm(len(images), generator=rng.generator(0, "digits split"))
    parts = [Split(images[part], labels[part]) for part in order.split([1297, 200, 300])]
    return Dataset("digits", *parts, source)
