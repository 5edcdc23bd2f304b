"""A user's pictures in and out of a model: codes, reconstructions and samples, and their files.

Pictures come as a path of ``data.own``, as a data set's name (its test images) or as an array as in
``data.own``: [n, side, side] or [n, side, side, 3], or with the channels first. They leave as
``ReadyPictures``, in colour with three channels.
"""

import io
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torchvision.utils import save_image

from maelib.data import DATASETS, dataset, own
from maelib.data.dataset import unit_range
from maelib.internal import rng
from maelib.internal.files import write_bytes
from maelib.internal.options import checked
from maelib.internal.shapes import Images, StoredImages
from maelib.measure import sampling
from maelib.measure.evaluation import elbo_terms, iw_nll, test_images
from maelib.model import VAE
from maelib.training.precision import choose

KINDS = (".png", ".npz", "")
Pictures = str | Path | np.ndarray | torch.Tensor
ReadyPictures = UInt8[np.ndarray, "batch side side"] | UInt8[np.ndarray, "batch side side 3"]
BATCH = 256  # images decoded at once


def stored(images: Pictures) -> tuple[StoredImages, list[str]]:
    """Pictures as they are stored, and their names."""
    if isinstance(images, (str, Path)) and str(images) not in DATASETS:
        pixels, _, names = own.read(own.find(images, "images", DATASETS))
        return pixels, names
    if isinstance(images, (str, Path)):
        images = dataset.load(images).test.images
    array = images.cpu().numpy() if isinstance(images, torch.Tensor) else np.asarray(images)
    pixels = torch.from_numpy(own.arranged("images", array))
    return pixels, [f"{number:06}" for number in range(len(pixels))]


def encode(
    model: VAE, images: Pictures, nll_k: int | None = None, precision: str = "float32"
) -> dict[str, np.ndarray]:
    """``names`` of the pictures, ``mu`` and ``logvar`` [n, latent], and ``kl`` [n] in nats.

    With ``nll_k`` also ``nll`` [n]: the importance-weighted NLL in nats. Grey pictures are
    binarised by a seeded draw, and KL is of one seeded sample, so equal calls agree.
    """
    nll_k = checked("nll_k", nll_k, int | None, {"least": 1})
    x, names = _seen(model, images)
    precision = choose(precision, x.device)
    _, kl, mu, logvar = elbo_terms(model, x, precision=precision)
    found = {"mu": mu, "logvar": logvar, "kl": kl}
    if nll_k:
        found["nll"] = iw_nll(model, x, nll_k, precision=precision)
    return {"names": np.array(names)} | {key: v.cpu().numpy() for key, v in found.items()}


def reconstruct(model: VAE, images: Pictures, seed: int = 0, greedy: bool = True) -> ReadyPictures:
    """The pictures as the model decodes them from the means of 50 samples of their codes."""
    return reconstruct_named(model, images, seed, greedy)[0]


def reconstruct_named(
    model: VAE, images: Pictures, seed: int = 0, greedy: bool = True
) -> tuple[ReadyPictures, list[str]]:
    """``reconstruct``, and the names of the pictures."""
    seed = checked("seed", seed, int, {"least": 0})
    x, names = _seen(model, images)
    noise = rng.generator(seed, "reconstruct", device=x.device)
    parts = [_pixels(sampling.reconstruct(model, p, noise, greedy)) for p in x.split(BATCH)]
    return np.concatenate(parts), names


def sampled(model: VAE, count: int, seed: int = 0, temperature: float = 1.0) -> ReadyPictures:
    """``count`` images drawn from the model."""
    noise = rng.generator(seed, "sample", device=model.device)
    sizes = [min(BATCH, count - begun) for begun in range(0, count, BATCH)]
    draw = partial(sampling.sample, model, generator=noise, temperature=temperature)
    return np.concatenate([_pixels(draw(size)) for size in sizes])


def check_out(out: str, kinds: tuple[str, ...] = KINDS) -> None:
    """ValueError if ``out`` cannot be written; its folder is made. No suffix means a folder."""
    path = Path(out)
    if path.suffix not in kinds:
        accepted = ", ".join(kind or "a folder's name" for kind in kinds)
        raise ValueError(f"out is {out!r}; it must end in {accepted}.")
    folder = path.parent if path.suffix else path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as problem:
        why = problem.strerror
        raise ValueError(f"out is {out!r}, which cannot be written ({why}).") from problem
    if path.is_dir() and (path.suffix or any(path.iterdir())):
        raise ValueError(f"out is {out!r}, a folder that is in use; name a new one.")


def write(out: str, images: ReadyPictures, names: list[str] | None = None) -> None:
    """Write pictures as one grid (.png), as an array (.npz) or, each by its name, in a folder."""
    path, names = Path(out), names or [f"{number:06}" for number in range(len(images))]
    if path.suffix == ".npz":
        return write_arrays(out, {"images": images, "names": np.array(names)})
    if path.suffix == ".png":
        return write_bytes(path, _grid(images))
    for name, image in zip(names, images, strict=True):
        png = io.BytesIO()
        Image.fromarray(image).save(png, "png")
        write_bytes(path / (name if name.endswith(".png") else f"{name}.png"), png.getvalue())


def write_arrays(out: str, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays as a .npz file."""
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    write_bytes(Path(out), content.getvalue())


def _seen(model: VAE, images: Pictures) -> tuple[Images, list[str]]:
    """Pictures as a model sees them, on its device, and their names."""
    pixels, names = stored(images)
    return test_images(pixels.to(model.device)), names


def _pixels(drawn: Images) -> ReadyPictures:
    pixels = (unit_range(drawn) * 255).round().to(torch.uint8).cpu()
    return pixels.permute(0, 2, 3, 1).squeeze(3).numpy()


def _grid(images: ReadyPictures) -> bytes:
    """A PNG of all images; grey ones as dark ink on white."""
    png, pixels = io.BytesIO(), torch.from_numpy(images).float() / 255
    pixels = 1 - pixels[:, None] if pixels.dim() == 3 else pixels.permute(0, 3, 1, 2)
    save_image(pixels, png, "png", nrow=max(1, round(len(images) ** 0.5)), pad_value=0.8)
    return png.getvalue()
