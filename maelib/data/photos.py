"""Crops of the two photographs that scikit-learn ships: 8,000 / 500 / 500 images of 32x32.

They stand in for CIFAR-10 where there is neither a copy of it nor a network. Their numbers mean
nothing for CIFAR-10. The three splits come from different parts of the pictures.
"""

import numpy as np
import torch

from maelib.data.split import Dataset, Split
from maelib.internal import rng
from maelib.internal.shapes import Labels, StoredImages

# Columns of a 640-pixel wide photograph: the three parts share no pixel.
PHOTO_PARTS = {"train": (0, 480), "val": (480, 544), "test": (544, 640)}
COUNTS = {"train": 8000, "val": 500, "test": 500}


def load() -> Dataset:
    """The crops, and which photograph each is from as its label."""
    parts = [Split(*photo_crops(part, count)) for part, count in COUNTS.items()]
    return Dataset("photos", *parts, "crops of two photographs bundled with scikit-learn")


def photo_crops(part: str, count: int) -> tuple[StoredImages, Labels]:
    """``count`` seeded crops of one of ``PHOTO_PARTS``; the label says which photograph."""
    from sklearn.datasets import load_sample_images

    photos = np.stack(load_sample_images().images)  # [2, 427, 640, 3]
    draw = rng.generator(0, "photos", part)
    low, high = PHOTO_PARTS[part]
    rows = torch.randint(0, photos.shape[1] - 32, (count,), generator=draw).tolist()
    columns = torch.randint(low, high - 32, (count,), generator=draw).tolist()
    which = torch.randint(0, 2, (count,), generator=draw)
    corners = zip(which.tolist(), rows, columns, strict=True)
    crops = np.stack([photos[w, r : r + 32, c : c + 32] for w, r, c in corners])
    return torch.from_numpy(crops).permute(0, 3, 1, 2).contiguous(), which
