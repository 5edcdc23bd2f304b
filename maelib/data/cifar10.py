"""CIFAR-10: 48,000 / 2,000 / 10,000 colour photographs of 32x32, of 10 classes.

The validation images are a seeded draw from the original training set.
"""

import tarfile
import tempfile
from pathlib import Path

import torch

from maelib.data.download import DownloadError, fetch, folder_for
from maelib.data.split import Dataset, Split, split_off
from maelib.internal.files import sha256

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
FOLDER = "cifar-10-batches-py"
# torchvision unpickles these files, so none is opened whose SHA-256 is not the original's.
FILES = {
    "data_batch_1": "54636561a3ce25bd3e19253c6b0d8538147b0ae398331ac4a2d86c6d987368cd",
    "data_batch_2": "766b2cef9fbc745cf056b3152224f7cf77163b330ea9a15f9392beb8b89bc5a8",
    "data_batch_3": "0f00d98ebfb30b3ec0ad19f9756dc2630b89003e10525f5e148445e82aa6a1f9",
    "data_batch_4": "3f7bb240661948b8f4d53e36ec720d8306f5668bd0071dcb4e6c947f78e9682b",
    "data_batch_5": "d91802434d8376bbaeeadf58a737e3a1b12ac839077e931237e0dcd43adcb154",
    "test_batch": "f53d8d457504f7cff4ea9e021afcf0e0ad8e24a91f3fc42091b8adef61157831",
    "batches.meta": "f962466ef690d46b226450fb9aadc74ba4bc64a76aa526b5827fe4bc5c7125cb",
}


def load(roots: list[Path], download: bool = True) -> Dataset:
    """CIFAR-10 from the first of ``roots`` that holds any of its files, else downloaded."""
    root = next((r for r in roots if any((r / FOLDER / name).exists() for name in FILES)), None)
    if root is None:
        root = folder_for("CIFAR-10", f"the folder {FOLDER}", roots, download)
        try:
            _download(root)
        except DownloadError as error:
            raise FileNotFoundError(f"CIFAR-10 was not found, and {error}") from error
    _check(root)
    full, test = _read(root, train=True), _read(root, train=False)
    train, val = split_off(full.images, full.labels, 2000, "cifar10 split")
    return Dataset("cifar10", train, val, test, "the original batches")


def _download(root: Path) -> None:
    """CIFAR-10's archive, unpacked into ``root``; its members are checked when they are read."""
    archive = root / "cifar-10-python.tar.gz"
    fetch([URL], archive, None, timeout=30.0)
    try:
        with tempfile.TemporaryDirectory(dir=root) as part, tarfile.open(archive) as packed:
            packed.extractall(part, filter="data")
            (Path(part) / FOLDER).rename(root / FOLDER)
    except (tarfile.TarError, EOFError) as problem:
        raise OSError(f"{archive.name} is cut off or altered; try again.") from problem
    finally:
        archive.unlink()


def _check(root: Path) -> None:
    for name, digest in FILES.items():
        path = root / FOLDER / name
        if not path.exists() or sha256(path) != digest:
            raise OSError(
                f"{path} is missing or altered (its SHA-256 is not CIFAR-10's); restore it, or "
                f"delete {path.parent} so that it is downloaded again."
            )


def _read(root: Path, train: bool) -> Split:
    """The 50,000 training or the 10,000 test images with their labels, in the original order."""
    from torchvision.datasets import CIFAR10

    found = CIFAR10(root, train)
    images = torch.from_numpy(found.data).permute(0, 3, 1, 2).contiguous()
    return Split(images, torch.tensor(found.targets))
