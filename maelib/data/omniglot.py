"""The two 28x28 versions of OMNIGLOT, which are not comparable with each other.

omniglot
    Burda et al.'s ``chardata.mat``: the version of every published likelihood.
omniglot_lake
    made here from the original 105x105 drawings of Lake et al. (2015), by area resampling: the
    same drawings, other grey values, another split.
"""

import zipfile
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int64, UInt8
from torch import Tensor

from maelib.data.download import fetch, folder_for
from maelib.data.split import Dataset, Split, split_off
from maelib.internal import rng
from maelib.internal.files import sha256
from maelib.internal.shapes import Labels, StoredImages

BURDA_URL = "https://raw.githubusercontent.com/yburda/iwae/master/datasets/OMNIGLOT/chardata.mat"
BURDA_COUNTS = (24_345, 8_070)
LAKE_DIGEST = "84828307d4a41ec8fa245e41bd40972c8e1d05cb2e4de23b3f3971990b3b4bce"
Drawings = UInt8[Tensor, "batch 105 105"]  # 1 is ink


def load_burda(roots: list[Path], download: bool = True) -> Dataset:
    """Burda et al.'s OMNIGLOT, from the user's ``chardata.mat`` or downloaded; labels: alphabets.

    22,000 / 2,345 / 8,070 images, the validation images a seeded draw from the training set.
    """
    path = find_burda(roots)
    path = path or download_burda(folder_for("OMNIGLOT", "chardata.mat", roots, download))
    images, alphabets, *test = read_burda(path)
    train, val = split_off(images, alphabets, 2345, "omniglot split")
    source = f"chardata.mat with SHA-256 {sha256(path)}"
    return Dataset("omniglot", train, val, Split(*test), source)


def load_lake(roots: list[Path], download: bool = True) -> Dataset:
    """OMNIGLOT made from the original drawings: splits of the same sizes, seeded."""
    if path := find_lake(roots):
        drawings, alphabets = read_lake(path)
    else:
        root = folder_for("OMNIGLOT", "omniglot/omniglot_105.npz", roots, download)
        drawings, alphabets = read_torchvision(root, download)
    images = shrink(drawings)
    order = torch.randperm(len(images), generator=rng.generator(0, "omniglot_lake split"))
    parts = order[: 24_345 + 8_070].split([22_000, 2_345, 8_070])
    splits = [Split(images[part], alphabets[part]) for part in parts]
    return Dataset("omniglot_lake", *splits, "28x28 by area from the 105x105 drawings")


def find_burda(roots: list[Path]) -> Path | None:
    """The user's ``chardata.mat``, if one of the data folders has it."""
    places = (r / f / "chardata.mat" for r, f in product(roots, ("omniglot", "OMNIGLOT", "")))
    return next(filter(Path.exists, places), None)


def find_lake(roots: list[Path]) -> Path | None:
    """The packed original drawings, if one of the data folders has them."""
    return next(filter(Path.exists, (r / "omniglot" / "omniglot_105.npz" for r in roots)), None)


def download_burda(root: Path) -> Path:
    """``chardata.mat`` from its repository. Its digest is not known: ``read_burda`` checks it."""
    target = root / "omniglot" / "chardata.mat"
    fetch([BURDA_URL], target, None)
    return target


def read_burda(
    path: Path, counts: tuple[int, int] = BURDA_COUNTS
) -> tuple[StoredImages, Labels, UInt8[Tensor, "test 1 28 28"], Int64[Tensor, " test"]]:
    """Training images and alphabets, test images and alphabets, of a ``chardata.mat``.

    Each column is an image in Fortran order with values from 0 to 1. OSError if keys, shapes or
    range differ.
    """
    from scipy.io import loadmat

    remedy = "delete it and fetch chardata.mat again from the repository yburda/iwae."
    try:
        content = loadmat(path)
        parts = [content[key] for key in ("data", "target", "testdata", "testtarget")]
    except (ValueError, KeyError, TypeError, OSError, NotImplementedError, zipfile.BadZipFile) as e:
        raise OSError(f"{path.name} is truncated or not OMNIGLOT's ({e}); {remedy}") from e
    for images, target, count in ((*parts[:2], counts[0]), (*parts[2:], counts[1])):
        right = images.shape == (784, count) and target.shape[1] == count
        if not (right and images.min() >= 0 and images.max() <= 1):
            raise OSError(
                f"{path.name} does not hold {count:,} images of 784 pixels in 0 to 1; {remedy}"
            )
    return _grey(parts[0]), _alphabet(parts[1]), _grey(parts[2]), _alphabet(parts[3])


def read_lake(path: Path) -> tuple[Drawings, Labels]:
    """The original drawings and their alphabets, from the packed file."""
    if sha256(path) != LAKE_DIGEST:
        raise OSError(
            f"{path.name} is truncated or altered (its SHA-256 differs); restore it, or delete it "
            "so that the drawings are downloaded."
        )
    with np.load(path, allow_pickle=False) as content:
        bits = np.unpackbits(content["images"], axis=1, count=105 * 105)
        alphabet = content["alphabet"].astype(np.int64)
    return torch.from_numpy(bits.reshape(-1, 105, 105)), torch.from_numpy(alphabet)


def read_torchvision(root: Path, download: bool) -> tuple[Drawings, Labels]:
    """The same drawings in the same order, from torchvision's copy of the original archives."""
    from torchvision.datasets import Omniglot

    try:
        sets = [Omniglot(str(root), background=flag, download=download) for flag in (True, False)]
    except (RuntimeError, OSError) as problem:
        raise FileNotFoundError(
            "OMNIGLOT's drawings were not found and could not be downloaded "
            f"({problem}); put omniglot/omniglot_105.npz in data/, or set MAELIB_DATA to its root."
        ) from problem
    names = sorted({c.split("/")[0] for part in sets for c in part._characters})
    drawings, alphabets = [], []
    for part in sets:
        for image, character in part:
            drawings.append(torch.from_numpy(np.asarray(image) < 128))
            alphabets.append(names.index(part._characters[character].split("/")[0]))
    return torch.stack(drawings).to(torch.uint8), torch.tensor(alphabets)


def shrink(drawings: Drawings) -> StoredImages:
    """28x28 grey images: a pixel's value is the share of its area that is ink."""
    small = [
        F.interpolate(part[:, None].float(), size=(28, 28), mode="area")
        for part in drawings.split(2000)
    ]
    return (torch.cat(small) * 255).round().to(torch.uint8)


def _grey(columns: np.ndarray) -> StoredImages:
    images = np.rint(columns.T.reshape(-1, 1, 28, 28).swapaxes(2, 3) * 255).astype(np.uint8)
    return torch.from_numpy(np.ascontiguousarray(images))


def _alphabet(one_hot: np.ndarray) -> Labels:
    return torch.from_numpy(one_hot.argmax(0).astype(np.int64))
