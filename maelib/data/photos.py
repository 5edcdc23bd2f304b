"""Crops of the two photographs that scikit-learn ships: 8,000 / 500 / 500 images of 32x32.

They stand in for CIFAR-10 where there is neither a copy of it nor a network. Their numbers mean
nothing for CIFAR-10. The three splits come from different parts of the pictures.
"""

import numpy as np
import torch

from maelib.data.split import Dataset, Split
from maelib.internal import rng
from maelib.internal.shapes import Labels, StoredImages

# How many crops a part has, and from which of a photograph's 640 columns: no pixel is shared.
PARTS = {"train": (8000, 0, 480), "val": (500, 480, 544), "test": (500, 544, 640)}


def load() -> Dataset:
    """The crops, and which photograph each is from as its label."""
    parts = [Split(*crops(part, *where)) for part, where in PARTS.items()]
    return Dataset("photos", *parts, "crops of two photographs bundled with scikit-learn")


def crops(part: str, count: int, low: int, high: int) -> tuple[StoredImages, Labels]:
    """``count`` crops of the columns ``low`` to ``high``, seeded by the part's name."""
    from sklearn.datasets import load_sample_images

    photos = np.stack(load_sample_images().images)  # [2, 427, 640, 3]
    draw = rng.generator(0, "photos", part)
    rows = torch.randint(0, photos.shape[1] - 32, (count,), generator=draw).tolist()
    columns = torch.randint(low, high - 32, (count,), generator=draw).tolist()
    which = torch.randint(0, 2, (count,), generator=draw)
    corners = zip(which.tolist(), rows, columns, strict=True)
    images = np.stack([photos[w, r : r + 32, c : c + 32] for w, r, c in corners])
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), which
