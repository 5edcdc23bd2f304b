"""A data set as uint8 tensors with a fixed train / validation / test split."""

import hashlib
from dataclasses import dataclass

import torch

from maelib.internal import rng
from maelib.internal.shapes import Labels, StoredImages


@dataclass(frozen=True)
class Split:
    """Images with their labels."""

    images: StoredImages
    labels: Labels

    def __len__(self) -> int:
        return len(self.images)

    def first(self, count: int | None) -> "Split":
        """The first ``count`` images; all of them for None."""
        return Split(self.images[:count], self.labels[:count])


@dataclass(frozen=True)
class Dataset:
    """A data set's three splits, and where it came from."""

    name: str
    train: Split
    val: Split
    test: Split
    source: str

    @property
    def digest(self) -> str:
        """Hex SHA-256 over all images and labels, in order."""
        content = hashlib.sha256()
        for split in (self.train, self.val, self.test):
            content.update(split.images.numpy().tobytes())
            content.update(split.labels.numpy().tobytes())
        return content.hexdigest()

    def describe(self) -> str:
        """One line: name, split sizes, source."""
        sizes = f"{len(self.train):,} / {len(self.val):,} / {len(self.test):,}"
        return f"{self.name}: {sizes} train / validation / test images; {self.source}"


def split_off(images: StoredImages, labels: Labels, count: int, key: str) -> tuple[Split, Split]:
    """The images without, and with only, a draw of ``count`` seeded by ``key``, in their order."""
    order = torch.randperm(len(images), generator=rng.generator(0, key))
    rest, drawn = order[count:].sort().values, order[:count].sort().values
    return Split(images[rest], labels[rest]), Split(images[drawn], labels[drawn])
