"""The two 28x28 versions of OMNIGLOT, which are not comparable with each other.

omniglot
    Burda et al.'s ``chardata.mat``: the version of every published likelihood.
omniglot_lake
    made here from the original 105x105 drawings of Lake et al. (2015), by area resampling: the
    same drawings, other grey values, another split.
"""

import hashlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

from maelib.data.download import REMEDY, fetch, find, intact
from maelib.data.split import Dataset, Split, split_off
from maelib.internal import rng
from maelib.internal.files import contents, reading
from maelib.internal.shapes import Labels, StoredImages

BURDA_URL = "https://raw.githubusercontent.com/yburda/iwae/master/datasets/OMNIGLOT/chardata.mat"
BURDA_COUNTS = (24_345, 8_070)
LAKE_DIGEST = "84828307d4a41ec8fa245e41bd40972c8e1d05cb2e4de23b3f3971990b3b4bce"
LAKE_COUNTS = (22_000, 2_345, 8_070)
# SciPy's reader can crash on a damaged file, so it runs in a process of its own.
READ_MAT = """
import io, sys, numpy, scipy.io
content = scipy.io.loadmat(io.BytesIO(sys.stdin.buffer.read()))
parts = {key: content[key] for key in ("data", "target", "testdata", "testtarget")}
numpy.savez(sys.stdout.buffer, **parts)
"""
Drawings = UInt8[Tensor, "batch 105 105"]  # 1 is ink


def load_burda(roots: list[Path], download: bool = True) -> Dataset:
    """Burda et al.'s OMNIGLOT, from the user's ``chardata.mat`` or downloaded; labels: alphabets.

    22,000 / 2,345 / 8,070 images, the validation images a seeded draw from the training set.
    """
    path = find(roots, ("omniglot", "OMNIGLOT"), "chardata.mat")
    path = path or fetch([BURDA_URL] if download else [], roots, "omniglot/chardata.mat", None)
    train, test, digest = read_burda(path)
    parts = split_off(train.images, train.labels, 2345, "omniglot split")
    return Dataset("omniglot", *parts, test, f"chardata.mat with SHA-256 {digest}")


def load_lake(roots: list[Path], download: bool = True) -> Dataset:
    """OMNIGLOT made from the original drawings: splits of the same sizes, seeded."""
    path = find(roots, ("omniglot",), "omniglot_105.npz")
    drawings, alphabets = read_lake(path) if path else read_archives(roots, download)
    images = shrink(drawings)
    order = torch.randperm(len(images), generator=rng.generator(0, "omniglot_lake split"))
    parts = order[: sum(LAKE_COUNTS)].split(list(LAKE_COUNTS))
    splits = [Split(images[part], alphabets[part]) for part in parts]
    return Dataset("omniglot_lake", *splits, "28x28 by area from the 105x105 drawings")


def read_burda(path: Path, counts: tuple[int, int] = BURDA_COUNTS) -> tuple[Split, Split, str]:
    """Training and test images of a ``chardata.mat`` with their alphabets, and its SHA-256.

    Each column is an image in Fortran order with values from 0 to 1. ValueError if the file is
    anything else, since no digest of it is published.
    """
    with reading(path, "Burda et al.'s OMNIGLOT", "delete it and fetch it again from yburda/iwae"):
        content = contents(path)
        command = [sys.executable, "-c", READ_MAT]
        done = subprocess.run(command, input=content, capture_output=True, timeout=300)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise ValueError(said[-1] if said else "it crashes SciPy")
        with np.load(io.BytesIO(done.stdout), allow_pickle=False) as arrays:
            train = _columns(arrays["data"], arrays["target"], counts[0])
            test = _columns(arrays["testdata"], arrays["testtarget"], counts[1])
    return train, test, hashlib.sha256(content).hexdigest()


def read_lake(path: Path) -> tuple[Drawings, Labels]:
    """All 32,460 drawings and their alphabets from the packed file."""
    with reading(path, "the packed drawings of OMNIGLOT", "delete it, so that they are downloaded"):
        packed = intact(contents(path), LAKE_DIGEST)
        with np.load(io.BytesIO(packed), allow_pickle=False) as content:
            bits = np.unpackbits(content["images"], axis=1, count=105 * 105)
            alphabet = content["alphabet"].astype(np.int64)
    return torch.from_numpy(bits.reshape(-1, 105, 105)), torch.from_numpy(alphabet)


def read_archives(roots: list[Path], download: bool) -> tuple[Drawings, Labels]:
    """The same drawings in the same order, from the two original archives."""
    from PIL import Image
    from torchvision.datasets import Omniglot

    drawings, alphabets = [], []
    for name, md5 in Omniglot.zips_md5.items():
        urls = [f"{Omniglot.download_url_prefix}/{name}.zip"] if download else []
        path = find(roots, ("omniglot-py", "omniglot"), f"{name}.zip")
        path = path or fetch(urls, roots, f"omniglot-py/{name}.zip", md5)
        with reading(path, "an archive of OMNIGLOT", REMEDY):
            content = intact(contents(path), md5)
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                for member in sorted(n for n in archive.namelist() if n.endswith(".png")):
                    with archive.open(member) as file:
                        grey = np.asarray(Image.open(file).convert("L"))
                    drawings.append(torch.from_numpy(grey < 128))
                    alphabets.append(member.split("/")[1])
    _, labels = np.unique(alphabets, return_inverse=True)
    return torch.stack(drawings).to(torch.uint8), torch.from_numpy(labels.astype(np.int64))


def shrink(drawings: Drawings) -> StoredImages:
    """28x28 grey images: a pixel's value is the share of its area that is ink."""
    parts = (part[:, None].float() for part in drawings.split(2000))
    small = [F.interpolate(part, size=(28, 28), mode="area") for part in parts]
    return (torch.cat(small) * 255).round().to(torch.uint8)


def _columns(columns: np.ndarray, one_hot: np.ndarray, count: int) -> Split:
    """Images and alphabets, one a column; ValueError if shapes or range differ."""
    right = columns.shape == (784, count) and one_hot.ndim == 2 and one_hot.shape[1] == count
    if not right or columns.dtype.kind not in "buif" or one_hot.dtype.kind not in "buif":
        raise ValueError(f"it does not hold {count:,} images of 784 pixels with their alphabets")
    if not (columns.min() >= 0 and columns.max() <= 1):
        raise ValueError("it does not hold pixels from 0 to 1")
    grey = np.rint(columns.T.reshape(-1, 1, 28, 28).swapaxes(2, 3) * 255).astype(np.uint8)
    alphabets = one_hot.argmax(0).astype(np.int64)
    return Split(torch.from_numpy(np.ascontiguousarray(grey)), torch.from_numpy(alphabets))
