"""Data sets as uint8 tensors with a fixed train / validation / test split.

mnist    28x28 handwritten digits: 58,000 / 2,000 / 10,000. The validation images are a seeded
         draw from the original training set.
digits   scikit-learn's bundled 8x8 digits brought to 28x28: 1,297 / 200 / 300, a seeded split.
         It needs no download; its numbers are never comparable with MNIST's.
omniglot Burda et al.'s 28x28 characters (``chardata.mat``): 22,000 / 2,345 / 8,070, the
         validation images a seeded draw from the training set. Labels are alphabets.
omniglot_lake  the same drawings from their 105x105 originals: the same sizes, a seeded split.
cifar10  32x32 colour photographs of 10 classes: 48,000 / 2,000 / 10,000, the validation images a
         seeded draw from the training set.
photos   crops of two photographs bundled with scikit-learn: 8,000 / 500 / 500. It needs no
         download; its numbers are never comparable with CIFAR-10's.
auto     mnist if it is found or can be downloaded, else digits; ``source`` says which.
"""

import gzip
import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from maelib import colour, omniglot, rng
from maelib.download import DownloadError, fetch, sha256
from maelib.paths import data_roots

COLOUR = ("cifar10", "photos")
DATASETS = ("auto", "mnist", "digits", "omniglot", "omniglot_lake", *COLOUR)
MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "http://yann.lecun.com/exdb/mnist/",
)
# name: (SHA-256 of the file, SHA-256 of its .gz)
MNIST_FILES = {
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


@dataclass(frozen=True)
class Split:
    """Images with their labels."""

    images: UInt8[Tensor, "n channels height width"]
    labels: Int64[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.images)

    def first(self, count: int | None) -> "Split":
        """The first ``count`` images; all of them for None."""
        return Split(self.images[:count], self.labels[:count])


@dataclass(frozen=True)
class Dataset:
    """A data set's three splits, where it came from, and the SHA-256 of its contents."""

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


def load(name: str = "auto", roots: list[Path] | None = None, download: bool = True) -> Dataset:
    """The data set called ``name``, looked for in ``roots`` (default: ``paths.data_roots``).

    Raises ValueError for an unknown name, FileNotFoundError when it is neither found nor to be
    downloaded, and OSError naming the file when one is truncated or altered.
    """
    if name not in DATASETS:
        raise ValueError(f"dataset is {name!r}; it must be one of {', '.join(DATASETS)}.")
    if name == "digits":
        return load_digits("bundled with scikit-learn")
    roots = data_roots() if roots is None else roots
    if name == "omniglot":
        return load_omniglot(roots, download)
    if name == "omniglot_lake":
        return load_omniglot_lake(roots, download)
    if name == "cifar10":
        return load_cifar10(roots, download)
    if name == "photos":
        return load_photos()
    try:
        return load_mnist(roots, download)
    except FileNotFoundError:
        if name == "mnist":
            raise
        return load_digits("bundled with scikit-learn (MNIST not found and not downloadable)")


def binarise(
    images: UInt8[Tensor, "*shape"], generator: torch.Generator | None = None
) -> Float[Tensor, "*shape"]:
    """A fresh Bernoulli(pixel / 255) draw of every pixel, as 0. or 1., on the images' device."""
    return torch.bernoulli(images.float() / 255, generator=generator)


def as_input(
    images: UInt8[Tensor, "n channels h w"], generator: torch.Generator | None = None
) -> Float[Tensor, "n channels h w"]:
    """What a model sees of stored images: grey ones binarised afresh, colours as -1 ... 1."""
    if images.shape[1] == 1:
        return binarise(images, generator)
    return images.float() / 127.5 - 1


def unit_range(x: Float[Tensor, "n channels h w"]) -> Float[Tensor, "n channels h w"]:
    """Images as models see or draw them, brought to 0 ... 1 for the eye."""
    return x if x.shape[1] == 1 else (x + 1) / 2


def load_mnist(roots: list[Path], download: bool = True) -> Dataset:
    """MNIST from the first of ``roots`` that holds any of its files, else downloaded."""
    root = next((r for r in roots if _has_mnist(r)), None)
    source = "IDX files found on disk"
    if root is None:
        root, source = _download_mnist(roots, download), "IDX files downloaded"
    raw = root / "MNIST" / "raw"
    for name, (digest, gz_digest) in MNIST_FILES.items():
        _ensure_raw(raw / name, digest, gz_digest)
    images, labels = _read_mnist(root, train=True)
    order = torch.randperm(len(images), generator=rng.generator(0, "mnist split"))
    train, val = order[2000:].sort().values, order[:2000].sort().values
    return Dataset(
        "mnist",
        Split(images[train], labels[train]),
        Split(images[val], labels[val]),
        Split(*_read_mnist(root, train=False)),
        source,
    )


def load_digits(source: str) -> Dataset:
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


def load_omniglot(roots: list[Path], download: bool = True) -> Dataset:
    """Burda et al.'s OMNIGLOT, from the user's ``chardata.mat`` or downloaded."""
    path = omniglot.find_burda(roots)
    if path is None:
        path = omniglot.download_burda(_root_for("OMNIGLOT", "chardata.mat", roots, download))
    images, alphabets, *test = omniglot.read_burda(path)
    order = torch.randperm(len(images), generator=rng.generator(0, "omniglot split"))
    train, val = order[2345:].sort().values, order[:2345].sort().values
    return Dataset(
        "omniglot",
        Split(images[train], alphabets[train]),
        Split(images[val], alphabets[val]),
        Split(*test),
        f"chardata.mat with SHA-256 {sha256(path)}",
    )


def load_omniglot_lake(roots: list[Path], download: bool = True) -> Dataset:
    """OMNIGLOT made from the original drawings; never to be compared with ``omniglot``."""
    path = omniglot.find_lake(roots)
    if path is not None:
        drawings, alphabets = omniglot.read_lake(path)
    else:
        root = _root_for("OMNIGLOT", "omniglot/omniglot_105.npz", roots, download)
        drawings, alphabets = omniglot.read_torchvision(root, download)
    images = omniglot.shrink(drawings)
    order = torch.randperm(len(images), generator=rng.generator(0, "omniglot_lake split"))
    parts = order[: 24_345 + 8_070].split([22_000, 2_345, 8_070])
    splits = [Split(images[part], alphabets[part]) for part in parts]
    return Dataset("omniglot_lake", *splits, "28x28 by area from the 105x105 drawings")


def load_cifar10(roots: list[Path], download: bool = True) -> Dataset:
    """CIFAR-10 from the first of ``roots`` that holds any of its files, else downloaded."""
    root = colour.find_cifar(roots)
    if root is None:
        root = _root_for("CIFAR-10", "the folder cifar-10-batches-py", roots, download)
        try:
            colour.download_cifar(root)
        except DownloadError as error:
            raise FileNotFoundError(f"CIFAR-10 was not found, and {error}") from error
    images, labels, *test = colour.read_cifar(root)
    order = torch.randperm(len(images), generator=rng.generator(0, "cifar10 split"))
    train, val = order[2000:].sort().values, order[:2000].sort().values
    parts = (Split(images[train], labels[train]), Split(images[val], labels[val]), Split(*test))
    return Dataset("cifar10", *parts, "the original batches")


def load_photos() -> Dataset:
    """The stand-in for CIFAR-10 where there is neither a copy of it nor a network."""
    counts = {"train": 8000, "val": 500, "test": 500}
    parts = [Split(*colour.photo_crops(part, count)) for part, count in counts.items()]
    return Dataset("photos", *parts, "crops of two photographs bundled with scikit-learn")


def _root_for(name: str, what: str, roots: list[Path], download: bool) -> Path:
    """The folder to download into; FileNotFoundError where nothing may be downloaded."""
    root = next((r for r in roots if _writable(r)), None)
    if not download or root is None or os.environ.get("MAELIB_OFFLINE"):
        raise FileNotFoundError(
            f"{name} was not found in any data folder; put {what} in data/, or set MAELIB_DATA "
            "to the folder that holds it."
        )
    return root


def _has_mnist(root: Path) -> bool:
    raw = root / "MNIST" / "raw"
    return any((raw / (name + end)).exists() for name in MNIST_FILES for end in ("", ".gz"))


def _read_mnist(root: Path, train: bool) -> tuple[Tensor, Tensor]:
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


def _download_mnist(roots: list[Path], download: bool) -> Path:
    remedy = "put the folder MNIST/raw with its IDX files in data/, or set MAELIB_DATA to its root."
    root = next((r for r in roots if _writable(r)), None)
    if not download or root is None:
        raise FileNotFoundError(f"MNIST was not found in any data folder; {remedy}")
    try:
        for name, (_, gz_digest) in MNIST_FILES.items():
            target = root / "MNIST" / "raw" / f"{name}.gz"
            fetch([mirror + target.name for mirror in MNIST_MIRRORS], target, gz_digest)
    except DownloadError as error:
        raise FileNotFoundError(f"MNIST was not found, and {error}") from error
    return root


def _writable(root: Path) -> bool:
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    return os.access(existing, os.W_OK)
