"""The explorer: a page on which models draw digits in the browser, on the site and in notebooks.

It works from a disk, where a page may load scripts but neither modules nor data. So the modules
beside this file are joined into one script, and data are scripts that set a variable.
"""

import base64
import json
import re
import shutil
import zlib
from html import escape
from pathlib import Path
from string import Template

import numpy as np
import torch
from ipywidgets import HTML

from maelib.config import Config
from maelib.data.split import Dataset
from maelib.model import VAE
from maelib.nets.layers import WeightNorm

HERE = Path(__file__).parent
WORKER = ("network", "worker")
PAGE = (
    "dom", "noise", "ask", "state", "posteriors", "pair", "walk", "map", "digits", "samples",
    "start",
)  # fmt: skip
DIGITS, OFFERED = 200, 2  # test images on the map, and those of each class that can be picked
COMPONENTS = {  # what network.js computes
    "encoder": ("resnet",),
    "posterior": ("gaussian",),
    "prior": ("flow", "normal"),
    "decoder": ("pixelcnn", "resnet"),
    "z_path": ("input",),
    "image_shape": ((1, 28, 28),),
}
SOURCES = {"mnist": "MNIST's test set", "digits": "scikit-learn's digits, not MNIST's"}
Models = dict[str, tuple[Config, VAE]]  # by the name that the page shows


def write(folder: Path, models: Models, images: Dataset) -> None:
    """Write the files of the site's page; each model has one of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: f"{config.short_name()}.js" for name, (config, _) in models.items()}
    data = {"files": files, "models": {}, "digits": digits(images)}
    (folder / "explorer.js").write_text(script(data), encoding="utf-8")
    shutil.copy2(HERE / "explorer.css", folder)
    for name, model in models.items():
        setting = f"explorerData.models[{json.dumps(name)}] = {json.dumps(packed(*model))};\n"
        (folder / files[name]).write_text(setting, encoding="utf-8")


def widget(models: Models, images: Dataset) -> HTML:
    """The explorer for a notebook. Once it is shown, it needs neither a network nor the kernel.

    ValueError for a model with a component that the explorer does not compute.
    """
    frame = (
        f'<iframe title="Explorer" srcdoc="{escape(page(models, images))}" '
        'style="width: 100%; height: 46rem; border: 0"></iframe>'
    )
    # An identity made of its content: what a notebook stores of it changes only with that.
    return HTML(frame, model_id=f"{zlib.crc32(frame.encode()):08x}")


def page(models: Models, images: Dataset) -> str:
    """The explorer as one HTML file."""
    weights = {name: packed(*model) for name, model in models.items()}
    data = {"files": dict.fromkeys(models), "models": weights, "digits": digits(images)}
    style = (HERE / "explorer.css").read_text(encoding="utf-8")
    frame = Template((HERE / "frame.html").read_text(encoding="utf-8"))
    return frame.substitute(style=style, script=script(data))


def script(data: dict) -> str:
    """The page's script: its data, and its modules, of which the worker's are a string."""
    head = f"window.explorerData = {json.dumps(data)};\n"
    worker = f"const WORKER = {json.dumps(joined(*WORKER))};\n"
    return f"{head}(() => {{\n{worker}{joined(*PAGE)}}})();\n"


def joined(*names: str) -> str:
    """Modules as one script: each comes after those that it imports, and no two share a name."""
    text = "".join((HERE / f"{name}.js").read_text(encoding="utf-8") for name in names)
    text = re.sub(r"^import [^;]*;\n", "", text, flags=re.MULTILINE)
    return re.sub(r"^export ", "", text, flags=re.MULTILINE)


def digits(images: Dataset) -> dict:
    """The first test images as bits, eight a byte, with their labels."""
    test = images.test.first(DIGITS)
    labels = test.labels.numpy()
    # Those to pick from come first: two of each class, in order.
    offered = np.concatenate([np.flatnonzero(labels == digit)[:OFFERED] for digit in range(10)])
    order = [*offered, *np.setdiff1d(np.arange(len(labels)), offered)]
    pixels = (test.images[:, 0].numpy() > 127).reshape(len(labels), -1)[order]
    packed_rows = [encoded(row.tobytes()) for row in np.packbits(pixels, axis=1)]
    source = SOURCES.get(images.name, images.name)
    return {"source": source, "images": packed_rows, "labels": labels[order].tolist()}


def packed(config: Config, model: VAE) -> dict:
    """A model as network.js reads it.

    ``numbers`` are all weights but the masked ones, in float16 if that changes none and else in
    float32. The first bytes of all numbers come before all second bytes, which compresses better.
    """
    for part, known in COMPONENTS.items():
        if (given := getattr(config.network, part)) not in known:
            names = ", ".join(map(str, known))
            raise ValueError(f"{part} is {given!r}; the explorer knows only {names}.")
    tensors = model.state_dict()
    seen = {name: value.flatten() for name, value in tensors.items()} | {
        f"{name}.direction": layer.direction[layer.mask.expand_as(layer.direction) > 0]
        for name, layer in model.named_modules()
        if isinstance(layer, WeightNorm) and layer.mask is not None
    }
    numbers = torch.cat([seen[name] for name in tensors]).detach().cpu()
    half = numbers.half()
    numbers = (half if torch.equal(half.float(), numbers) else numbers).numpy()
    planes = numbers.view(np.uint8).reshape(len(numbers), -1).T
    return {
        "about": f"{config.short_name()} (preset {config.preset})",
        "decoder": config.network.decoder,
        "latent": config.network.latent,
        "tensors": {name: [list(t.shape), len(seen[name])] for name, t in tensors.items()},
        "numbers": encoded(zlib.compress(planes.tobytes(), 9)),
    }


def encoded(content: bytes) -> str:
    """Bytes as base64 text."""
    return base64.b64encode(content).decode("ascii")
