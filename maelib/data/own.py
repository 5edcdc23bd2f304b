"""A user's own pictures: a folder of picture files, or an array in a .npz or .npy file.

All of them are square, of one size, and either all grey or all in RGB. A folder's subfolders, or
the array ``labels`` of a .npz file, are the labels; without them every label is 0.
"""

from os.path import realpath
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from maelib.data import AUTO, DATASETS
from maelib.data.split import Dataset, split_off
from maelib.internal.files import reading
from maelib.internal.paths import resolved
from maelib.internal.shapes import Labels, StoredImages
from maelib.nets import SIDES

ARRAYS = (".npz", ".npy")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
LEAST = 20  # pictures that a data set needs
Picture = UInt8[np.ndarray, "channels side side"]


def find(
    path: str | Path, option: str = "dataset", names: tuple[str, ...] = (AUTO, *DATASETS)
) -> Path:
    """The absolute path of own pictures; ValueError if it holds none.

    The error names the ``option`` that the path is the value of, and the ``names`` of data sets
    that it may have instead.
    """
    found = Path(realpath(resolved(path)))
    is_text = str(found) == str(found).encode(errors="replace").decode()
    if not (is_text and (found.is_dir() or (found.is_file() and found.suffix in ARRAYS))):
        raise ValueError(
            f"{option} is {str(path)!r}; it must be one of {', '.join(names)}, or the path of your "
            "own pictures: a folder, or a .npz or .npy file, with a name in UTF-8; "
            f"{str(found)!r} is none of these."
        )
    return found


def look(path: Path) -> tuple[bool, int]:
    """Whether the pictures are in colour, and their side. Of a folder only the first is read."""
    shape = _picture(_files(path)[0]).shape if path.is_dir() else _arrays(path)[0].shape[1:]
    return shape[0] == 3, shape[1]


def load(path: Path) -> Dataset:
    """The pictures split by a seed: a tenth is for validation, a tenth for tests.

    ValueError, one sentence, if they are too few, unreadable or unlike one another.
    """
    images, labels, _ = read(path)
    if len(images) < LEAST:
        raise ValueError(f"{path.name} holds {len(images)} pictures; at least {LEAST} are needed.")
    tenth = len(images) // 10
    train, held_out = split_off(images, labels, 2 * tenth, "own split")
    val, test = split_off(held_out.images, held_out.labels, tenth, "own test split")
    return Dataset(str(path), train, val, test, "your own pictures")


def read(path: Path) -> tuple[StoredImages, Labels, list[str]]:
    """All pictures in their order, their labels, and their file names or numbers."""
    if path.is_dir():
        files = _files(path)
        images, folders = _alike(files), [str(file.parent) for file in files]
        names = [str(file.relative_to(path)) for file in files]
    else:
        images, folders = _arrays(path)
        names = [f"{number:06}" for number in range(len(images))]
    labels = np.unique(folders, return_inverse=True)[1].astype(np.int64)
    return torch.from_numpy(images), torch.from_numpy(labels), names


def _files(folder: Path) -> list[Path]:
    def is_picture(file: Path) -> bool:
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        return not hidden and file.suffix.lower() in SUFFIXES and file.is_file()

    files = [file for file in folder.rglob("*") if is_picture(file)]
    if not files:
        raise ValueError(f"the folder {folder.name} holds no pictures ({', '.join(SUFFIXES)}).")
    return sorted(files)


def _alike(files: list[Path]) -> UInt8[np.ndarray, "batch channels side side"]:
    pictures = [_picture(file) for file in files]
    for file, picture in zip(files, pictures, strict=True):
        if picture.shape != pictures[0].shape:
            raise ValueError(
                f"{file.name} is {_in_words(picture)}, but {files[0].name} is "
                f"{_in_words(pictures[0])}; all pictures must be alike."
            )
    return np.stack(pictures)


def _picture(file: Path) -> Picture:
    """One picture file; ValueError if it is unreadable, not square, or neither grey nor RGB."""
    from PIL import Image, ImageOps

    with (
        reading(file, "a readable picture", "restore it or take it out"),
        Image.open(file) as opened,
    ):
        picture = ImageOps.exif_transpose(opened)
        as_stored = {"1": "L", "P": "RGB"}.get(picture.mode, picture.mode)
        pixels = np.asarray(picture.convert(as_stored))
    if as_stored not in ("L", "RGB"):
        raise ValueError(f"{file.name} has the mode {as_stored}; save it as grey (L) or as RGB.")
    _check_sides(file.name, *pixels.shape[:2])
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def arranged(name: str, images: np.ndarray) -> UInt8[np.ndarray, "batch channels side side"]:
    """Images as they are stored, whatever the order of their axes and the kind of their numbers.

    ValueError, one sentence that begins with ``name``, if they cannot be pictures.
    """
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[3] in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"{name} holds images of shape {images.shape}; they must be [n, side, side] or "
            "[n, side, side, 3]."
        )
    _check_sides(name, *images.shape[2:])
    return np.ascontiguousarray(_bytes(name, images))


def _arrays(path: Path) -> tuple[UInt8[np.ndarray, "batch channels side side"], np.ndarray]:
    """The images and labels of a .npz or .npy file."""
    remedy = "save a .npy file, or a .npz file that calls it 'images'"
    with reading(path, "a readable array of pictures", remedy), path.open("rb") as file:
        try:
            content = np.load(file, allow_pickle=False)
            arrays = {"images": content} if isinstance(content, np.ndarray) else content
            images = arrays["images"]
            labels = arrays["labels"] if "labels" in arrays else np.zeros(len(images), np.int64)
        except MemoryError as problem:  # a damaged header asks for terabytes
            raise ValueError(str(problem)) from problem
    if labels.shape != images.shape[:1]:
        raise ValueError(
            f"{path.name} holds {len(images)} images and labels of shape {labels.shape}; there "
            "must be a label for each image."
        )
    return arranged(path.name, images), labels


def _bytes(name: str, images: np.ndarray) -> np.ndarray:
    """Pixels as uint8, from booleans, from whole numbers to 255 or from fractions to 1."""
    if not images.size:
        raise ValueError(f"{name} holds no pictures; at least one is needed.")
    kind = images.dtype.kind
    highest = 255 if kind in "ui" else 1
    if kind not in "buif" or not (images.min() >= 0 and images.max() <= highest):
        raise ValueError(
            f"the pixels of {name} are outside their range, which is 0 to 255 for whole numbers "
            "and 0 to 1 for fractions."
        )
    if kind in "ui" and images.max() == 1:
        raise ValueError(
            f"the pixels of {name} are the whole numbers 0 and 1; save them as booleans."
        )
    return np.rint(images * (255 // highest)).astype(np.uint8)


def _check_sides(name: str, height: int, width: int) -> None:
    if height != width or not SIDES[0] <= height <= SIDES[1]:
        raise ValueError(
            f"{name} has pictures of {height}x{width} pixels; they must be square, with a side of "
            f"{SIDES[0]} to {SIDES[1]}."
        )


def _in_words(picture: Picture) -> str:
    return f"{'grey' if len(picture) == 1 else 'RGB'}, {picture.shape[1]}x{picture.shape[2]}"
