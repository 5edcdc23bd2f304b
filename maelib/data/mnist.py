"""MNIST's 28x28 handwritten digits, and the same in one fixed binarisation.

mnist         58,000 / 2,000 / 10,000 grey images, the validation images a seeded draw.
mnist_static  50,000 / 10,000 / 10,000 images of 0 and 1, on which many published NLLs were
              measured (Salakhutdinov & Murray, 2008; split by Larochelle). It has no labels.
"""

import gzip
import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from maelib.data.download import LIMIT, REMEDY, fetch, find, intact
from maelib.data.split import Dataset, Split, split_off
from maelib.internal.files import contents, reading

RAW = "MNIST/raw"
FILES = {  # SHA-256 of each, unpacked
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
STATIC_URL = "://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/binarized_mnist_"
STATIC_PARTS = {  # the SHA-256 that TensorFlow Datasets publishes
    "train": "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d",
    "valid": "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2",
    "test": "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c",
}


def load(roots: list[Path], download: bool = True) -> Dataset:
    """MNIST from the data folders; a file that is missing is downloaded."""
    images, labels, *test = (_read(_locate(name, roots, download), FILES[name]) for name in FILES)
    train, val = split_off(images, labels, 2000, "mnist split")
    return Dataset("mnist", train, val, Split(*test), "IDX files found on disk or downloaded")


def load_static(roots: list[Path], download: bool = True) -> Dataset:
    """The statically binarised MNIST, found or downloaded likewise; every label is 0."""
    parts = []
    for part, digest in STATIC_PARTS.items():
        urls = [f"{scheme}{STATIC_URL}{part}.amat" for scheme in ("https", "http") if download]
        name = f"binarized_mnist_{part}.amat"
        path = find(roots, ("binarized_mnist",), name)
        path = path or fetch(urls, roots, f"binarized_mnist/{name}", digest)
        with reading(path, "the fixed binarisation of MNIST", REMEDY):
            text = np.frombuffer(intact(contents(path), digest), np.uint8)
            pixels = torch.from_numpy(text[::2] - ord("0"))  # after each is a space or a new line
            if pixels.max() > 1:
                raise ValueError("it has other characters than 0 and 1")
            images = 255 * pixels.view(-1, 1, 28, 28)
            parts.append(Split(images, torch.zeros(len(images)).long()))
    return Dataset("mnist_static", *parts, "binarised once and for all; no labels")


def _locate(name: str, roots: list[Path], download: bool) -> Path:
    """An IDX file, or its .gz if only that is there."""
    from torchvision.datasets import MNIST

    if path := find(roots, (RAW, "raw"), name, f"{name}.gz"):
        return path
    urls = [f"{mirror}{name}.gz" for mirror in MNIST.mirrors if download]
    return fetch(urls, roots, f"{RAW}/{name}.gz", dict(MNIST.resources)[f"{name}.gz"])


def _read(path: Path, digest: str) -> Tensor:
    """Images [n, 1, 28, 28] or labels of an IDX file that may be packed."""
    with reading(path, "an intact file of MNIST", REMEDY):
        content = contents(path)
        if path.suffix == ".gz":
            content = gzip.GzipFile(fileobj=io.BytesIO(content)).read(LIMIT)
        content = intact(content, digest)
    if "images" in path.name:
        return torch.frombuffer(bytearray(content[16:]), dtype=torch.uint8).view(-1, 1, 28, 28)
    return torch.frombuffer(bytearray(content[8:]), dtype=torch.uint8).long()
