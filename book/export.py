"""The explorer's files: its script, its digits, and the weights of its models.

They work from a disk, where a page may load scripts but neither modules nor data. So the modules
are joined into one script, and data are scripts that set a variable. The weights are the files of
checkpoints/ as they are, with every size in their headers.
"""

import base64
import json
import re
import shutil
from pathlib import Path

import numpy as np

from maelib.data import dataset
from maelib.runs.pretrained import FOLDER

SOURCES = Path(__file__).parent / "explorer"
MODELS = {"MAE": "mnist-mae-a1-b0.5", "VLAE": "mnist-vlae", "ResNet VAE": "mnist-vae"}
PAGE = (
    "dom", "noise", "ask", "state", "posteriors", "pair", "walk", "map", "digits", "samples",
    "start",
)  # fmt: skip
DIGITS, OFFERED = 200, 2  # test images on the map; of each class among those to pick from


def write(folder: Path) -> None:
    """Write the explorer's files into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "explorer.js").write_text(script(), encoding="utf-8")
    (folder / "digits.js").write_text(digits(), encoding="utf-8")
    shutil.copy2(SOURCES / "explorer.css", folder)
    for name, stem in MODELS.items():
        content = (FOLDER / f"{stem}.safetensors").read_bytes()
        (folder / f"{stem}.js").write_text(set_data("models", name, encoded(content)))


def script() -> str:
    """The page's script, which holds the worker's as a string."""
    files = {name: f"{stem}.js" for name, stem in MODELS.items()}
    data = f"window.explorerData = {json.dumps({'files': files, 'models': {}})};\n"
    thread = joined("network", "worker")
    return f"{data}(() => {{\nconst WORKER = {json.dumps(thread)};\n{joined(*PAGE)}}})();\n"


def joined(*names: str) -> str:
    """Modules as one script: each comes after those that it imports, and no two share a name."""
    text = "".join((SOURCES / f"{name}.js").read_text(encoding="utf-8") for name in names)
    text = re.sub(r"^import [^;]*;\n", "", text, flags=re.MULTILINE)
    return re.sub(r"^export ", "", text, flags=re.MULTILINE)


def digits() -> str:
    """Test images of MNIST where it is found, else of scikit-learn's digits; never downloaded."""
    images = dataset.load("auto", download=False)
    test = images.test.first(DIGITS)
    labels = test.labels.numpy()
    # Those to pick from come first: two of each class, in order.
    offered = np.concatenate([np.flatnonzero(labels == digit)[:OFFERED] for digit in range(10)])
    order = [*offered, *np.setdiff1d(np.arange(len(labels)), offered)]
    pixels = (test.images[:, 0].numpy() > 127).reshape(len(labels), -1)[order]
    packed = [encoded(row.tobytes()) for row in np.packbits(pixels, axis=1)]
    name = "MNIST's test set" if images.name == "mnist" else "scikit-learn's digits, not MNIST's"
    found = {"source": name, "images": packed, "labels": labels[order].tolist()}
    return f"window.explorerData.digits = {json.dumps(found)};\n"


def set_data(kind: str, name: str, value: str) -> str:
    """A script that sets one entry of the explorer's data."""
    return f"window.explorerData.{kind}[{json.dumps(name)}] = {json.dumps(value)};\n"


def encoded(content: bytes) -> str:
    """Bytes as base64 text."""
    return base64.b64encode(content).decode("ascii")
