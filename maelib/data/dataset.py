"""A data set by its name, and its images as a model sees them."""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8

from maelib.data import AUTO, DATASETS, cifar10, digits, mnist, omniglot, own, photos
from maelib.data.split import Dataset, Split
from maelib.internal.paths import data_roots
from maelib.internal.shapes import Images, StoredImages

__all__ = ["Dataset", "Split", "as_input", "binarise", "load", "unit_range"]
Noise = torch.Generator | None


def load(
    name: str | Path = AUTO, roots: list[Path] | None = None, download: bool = True
) -> Dataset:
    """The data set called ``name``, looked for in ``roots`` (default: ``paths.data_roots``).

    ``auto`` is MNIST if it is found or can be downloaded, else digits; ``source`` says which. A
    path is that of own pictures.
    ValueError for an unknown name, FileNotFoundError if it is not found and cannot be downloaded,
    ValueError naming the file if one is truncated or altered.
    """
    if name not in (AUTO, *DATASETS):
        return own.load(own.find(name))
    roots = data_roots() if roots is None else roots
    if name == AUTO:
        try:
            return mnist.load(roots, download)
        except FileNotFoundError as problem:
            return digits.load(f"bundled with scikit-learn, in place of MNIST: {problem}")
    loaders = {
        "mnist": mnist.load,
        "mnist_static": mnist.load_static,
        "omniglot": omniglot.load_burda,
        "omniglot_lake": omniglot.load_lake,
        "cifar10": cifar10.load,
    }
    if name in loaders:
        return loaders[name](roots, download)
    return digits.load() if name == "digits" else photos.load()


def binarise(images: UInt8[Any, "*shape"], generator: Noise = None) -> Float[Any, "*shape"]:
    """A fresh Bernoulli(pixel / 255) draw of every pixel, as 0. or 1., on the images' device."""
    return torch.bernoulli(images.float() / 255, generator=generator)


def as_input(images: StoredImages, generator: Noise = None) -> Images:
    """What a model sees of stored images: grey ones binarised afresh, colours as -1 ... 1."""
    return binarise(images, generator) if images.shape[1] == 1 else images.float() / 127.5 - 1


def unit_range(x: Images) -> Images:
    """Images as models see or draw them, scaled to 0 ... 1 for display."""
    return x if x.shape[1] == 1 else (x + 1) / 2
