"""MNIST's 28x28 handwritten digits: 58,000 / 2,000 / 10,000 images.

The validation images are a seeded draw from the original training set.
"""

import gzip
import hashlib
import zlib
from pathlib import Path

import torch
from torch import Tensor

from maelib.data.download import DownloadError, fetch, folder_for
from maelib.data.split import Dataset, Split, split_off

RAW = "MNIST/raw"
FILES = {  # SHA-256 of each, unpacked
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def load(roots: list[Path], download: bool = True) -> Dataset:
    """MNIST from the first of ``roots`` that holds any of its files, else downloaded."""
    root = next((r for r in roots if any((r / RAW).glob("*-ubyte*"))), None)
    source = "IDX files found on disk" if root else "IDX files downloaded"
    root = root or _download(roots, download)
    images, labels, *test = (_read(root / RAW / name, digest) for name, digest in FILES.items())
    train, val = split_off(images, labels, 2000, "mnist split")
    return Dataset("mnist", train, val, Split(*test), source)


def _download(roots: list[Path], download: bool) -> Path:
    """The data folder into which MNIST's packed files were downloaded."""
    from torchvision.datasets import MNIST

    root = folder_for("MNIST", "the folder MNIST/raw with its IDX files", roots, download)
    try:
        for name, md5 in MNIST.resources:
            fetch([mirror + name for mirror in MNIST.mirrors], root / RAW / name, f"md5:{md5}")
    except DownloadError as error:
        raise FileNotFoundError(f"MNIST was not found, and {error}") from error
    return root


def _read(path: Path, digest: str) -> Tensor:
    """Images [n, 1, 28, 28] or labels of an IDX file, or of its .gz if only that is there."""
    found = path if path.exists() else path.with_name(f"{path.name}.gz")
    where, anew = f"{RAW}/{found.name}", "delete the folder MNIST so that it is downloaded again."
    if not found.exists():
        raise OSError(f"{where} is missing beside its siblings; restore it, or {anew}")
    try:
        content = gzip.decompress(found.read_bytes()) if found != path else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error):
        content = b""
    if hashlib.sha256(content).hexdigest() != digest:
        raise OSError(
            f"{where} is truncated or altered (its SHA-256 is not MNIST's); delete it, or {anew}"
        )
    if "images" in path.name:
        return torch.frombuffer(bytearray(content[16:]), dtype=torch.uint8).view(-1, 1, 28, 28)
    return torch.frombuffer(bytearray(content[8:]), dtype=torch.uint8).long()
