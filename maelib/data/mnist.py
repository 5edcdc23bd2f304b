"""MNIST's 28x28 handwritten digits: 58,000 / 2,000 / 10,000 images.

The validation images are a seeded draw from the original training set.
"""

import gzip
import os
import tempfile
from pathlib import Path

from torch import Tensor

from maelib.data.download import DownloadError, fetch, folder_for
from maelib.data.split import Dataset, Split, split_off
from maelib.internal.files import sha256

MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/")
# name: (SHA-256 of the file, SHA-256 of its .gz)
FILES = {
    "train-images-idx3-ubyte": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    "train-labels-idx1-ubyte": (
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    ),
    "t10k-images-idx3-ubyte": (
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
    "t10k-labels-idx1-ubyte": (
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
}


def load(roots: list[Path], download: bool = True) -> Dataset:
    """MNIST from the first of ``roots`` that holds any of its files, else downloaded."""
    root = next((r for r in roots if _has_mnist(r)), None)
    source = "IDX files found on disk"
    if root is None:
        root, source = _download(roots, download), "IDX files downloaded"
    for name, (digest, gz_digest) in FILES.items():
        _ensure_raw(root / "MNIST" / "raw" / name, digest, gz_digest)
    train, val = split_off(*_read(root, train=True), 2000, "mnist split")
    return Dataset("mnist", train, val, Split(*_read(root, train=False)), source)


def _has_mnist(root: Path) -> bool:
    raw = root / "MNIST" / "raw"
    return any((raw / (name + end)).exists() for name in FILES for end in ("", ".gz"))


def _read(root: Path, train: bool) -> tuple[Tensor, Tensor]:
    from torchvision.datasets import MNIST

    dataset = MNIST(root, train=train, download=False)
    return dataset.data[:, None].contiguous(), dataset.targets.long()


def _ensure_raw(path: Path, digest: str, gz_digest: str) -> None:
    packed = path.with_name(path.name + ".gz")
    if not path.exists():
        _check(packed, gz_digest)
        _write_atomically(path, gzip.decompress(packed.read_bytes()))
    _check(path, digest)


def _check(path: Path, digest: str) -> None:
    where = f"MNIST/raw/{path.name}"
    if not path.exists():
        raise OSError(f"{where} is missing beside its siblings; restore it, or delete the folder "
                      "MNIST so that it is downloaded anew.")  # fmt: skip
    if sha256(path) != digest:
        raise OSError(f"{where} is truncated or altered (its SHA-256 is not MNIST's); delete it, "
                      "or delete the folder MNIST so that it is downloaded anew.")  # fmt: skip


def _write_atomically(path: Path, content: bytes) -> None:
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".unpack-")
    except OSError as error:
        raise OSError(f"cannot unpack {path.name}.gz: its folder is not writable; unpack it with "
                      "gunzip, or copy the folder MNIST to data/.") from error  # fmt: skip
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    Path(name).replace(path)


def _download(roots: list[Path], download: bool) -> Path:
    root = folder_for("MNIST", "the folder MNIST/raw with its IDX files", roots, download)
    try:
        for name, (_, gz_digest) in FILES.items():
            target = root / "MNIST" / "raw" / f"{name}.gz"
            fetch([mirror + target.name for mirror in MIRRORS], target, gz_digest)
    except DownloadError as error:
        raise FileNotFoundError(f"MNIST was not found, and {error}") from error
    return root
