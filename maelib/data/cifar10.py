"""CIFAR-10: 48,000 / 2,000 / 10,000 colour photographs of 32x32, of 10 classes.

The validation images are a seeded draw from the original training set.
"""

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import torch

from maelib.data.download import LIMIT, REMEDY, fetch, find, intact
from maelib.data.split import Dataset, Split, split_off
from maelib.internal.files import contents, reading

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
MD5 = "c58f30108f718f92721af3b95e74349a"
FOLDER = "cifar-10-batches-py"
FILES = {  # SHA-256
    "data_batch_1": "54636561a3ce25bd3e19253c6b0d8538147b0ae398331ac4a2d86c6d987368cd",
    "data_batch_2": "766b2cef9fbc745cf056b3152224f7cf77163b330ea9a15f9392beb8b89bc5a8",
    "data_batch_3": "0f00d98ebfb30b3ec0ad19f9756dc2630b89003e10525f5e148445e82aa6a1f9",
    "data_batch_4": "3f7bb240661948b8f4d53e36ec720d8306f5668bd0071dcb4e6c947f78e9682b",
    "data_batch_5": "d91802434d8376bbaeeadf58a737e3a1b12ac839077e931237e0dcd43adcb154",
    "test_batch": "f53d8d457504f7cff4ea9e021afcf0e0ad8e24a91f3fc42091b8adef61157831",
}


def load(roots: list[Path], download: bool = True) -> Dataset:
    """CIFAR-10 from its files or its archive in the data folders, else downloaded."""
    found = {name: find(roots, (FOLDER,), name) for name in FILES}
    archive = None
    if None in found.values():
        packed = Path(URL).name
        archive = find(roots, (), packed)
        archive = archive or fetch([URL] if download else [], roots, packed, MD5, 1800.0)
    batches = []
    for name, digest in FILES.items():
        path = archive or found[name]
        with reading(path, "an intact file of CIFAR-10", REMEDY):
            content = _member(path, name) if archive else contents(path)
            batches.append(_batch(content, digest))
    images, labels = (torch.cat(parts) for parts in zip(*batches[:-1], strict=True))
    train, val = split_off(images, labels, 2000, "cifar10 split")
    return Dataset("cifar10", train, val, Split(*batches[-1]), "the original batches")


def _member(archive: Path, name: str) -> bytes:
    with tarfile.open(archive) as packed:
        return packed.extractfile(f"{FOLDER}/{name}").read(LIMIT)


def _batch(content: bytes, digest: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [n, 3, 32, 32] and labels of a batch; only bytes of the digest are unpickled."""
    batch = ArraysOnly(io.BytesIO(intact(content, digest)), encoding="latin1").load()
    images = torch.from_numpy(batch["data"].reshape(-1, 3, 32, 32))
    return images, torch.tensor(batch["labels"])


class ArraysOnly(pickle.Unpickler):
    """Unpickles arrays, lists, bytes, strings and numbers; anything else is an UnpicklingError."""

    def find_class(self, module: str, name: str) -> object:
        admitted = {
            ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        if (module, name) not in admitted:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return admitted[module, name]
