"""Rows about models in use: drawing pixels and codes, the NLL, and start-up."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

import torch
from timing import Row, interleave
from torch import nn
from workload import Bench, layer_calls

import maelib
from maelib.data import dataset
from maelib.internal import rng
from maelib.measure import evaluation
from maelib.measure.sampling import decode, decode_colour_reference, decode_pixels_reference

NLL_K = 4096


def sampled(b: Bench, images: str, slow: Callable, name: str, target: str) -> Row:
    """``slow``, a full forward pass for each pixel, against ``decode``."""
    c = b.configure(images)
    count = 4 if b.quick else 100
    plain, ours = b.networks(c)
    channels, size, _ = ours.decoder.shape
    pixels = 20 if b.on_gpu else 2
    z = torch.randn(count, c.network.latent, device=b.device)
    uniform = torch.rand(count, 1 if channels == 1 else 4, size, size, device=b.device)
    sides = {
        "reference": partial(slow, plain.decoder, z, uniform, pixels=pixels),
        "ours": partial(decode, ours.decoder, z, uniform),
    }
    times = interleave(sides, 3, b.device)
    note = f"reference: {pixels} of {size * size} pixels, scaled"
    scale = {"reference": size * size / pixels}
    return b.row(f"{name}, batch {count}", times, target, note, scale=scale)


def pixels(b: Bench) -> Iterator[Row]:
    """Binary 28x28 images, pixel by pixel."""
    yield sampled(b, "digits", decode_pixels_reference, "pixel sampling, 28x28", "30x")


def colour(b: Bench) -> Iterator[Row]:
    """Colour images of the decoder with the small window."""
    yield sampled(b, "photos", decode_colour_reference, "pixel sampling, 32x32 colour", "20x")


def one_by_one(model: nn.Module, x: torch.Tensor, k: int) -> None:
    """The work of ``iw_nll`` by the plain loop: one image and one sample at a time."""
    for image, _ in product(x, range(k)):
        eps = torch.randn(1, 1, model.prior.latent, device=x.device)
        evaluation.log_weights(model, image[None], eps)


def nll(b: Bench) -> Iterator[Row]:
    """Importance-weighted NLL."""
    c, n = b.configure(), 100 if b.on_gpu and not b.quick else 2
    whole = 64 if b.quick else NLL_K
    few, many = (1, 256) if b.on_gpu else (64, 256)
    many = min(many, whole)
    plain, ours = b.networks(c)
    x = b.batch(c, n)[0]
    sides = {
        "reference": torch.no_grad()(partial(one_by_one, plain, x, few)),
        "ours": partial(evaluation.iw_nll, ours, x, many),
    }
    times = interleave(sides, 3, b.device)
    note = f"timed at k = {few} (reference) and {many} (ours), scaled"
    scale = {"reference": whole / few, "ours": whole / many}
    yield b.row(f"IW-NLL, k = {whole}, {n} images", times, "2x", note, scale=scale)


def nll_precision(b: Bench) -> Iterator[Row]:
    """How far a trained model's NLL in the fast precisions lies from its NLL in float32."""
    model = maelib.load("mnist-mae-a1-b0.5").to(b.device)
    n, k, found = 4 if b.quick else 200, 8 if b.quick else 64, {}
    data = dataset.load("auto")
    x = evaluation.test_images(data.test.first(n).images.to(b.device))

    def measure(precision: str) -> None:
        found[precision] = evaluation.iw_nll(model, x, k, precision=precision)

    fast = [p for p in dict.fromkeys((b.precision, "bf16")) if p != "float32"]
    sides = {p: partial(measure, p) for p in ("float32", *fast)}
    times = interleave(sides, 1, b.device, warm=0)
    for precision in fast:
        gap = found[precision] - found["float32"]
        error = float(gap.std()) / n**0.5
        note = f"mean difference {gap.mean():+.2g} +- {error:.1g} nats, pretrained MAE(1, 0.5)"
        kept = {side: times[side] for side in ("float32", precision)}
        name = f"NLL in {precision}, k = {k}, {n} images of {data.name}"
        yield b.row(name, kept, "within 0.005 nats", note, reference="float32", ours=precision)


def flow(b: Bench) -> Iterator[Row]:
    """Sampling the flow priors: seconds, and how often a masked layer is evaluated."""
    for images, count in (("digits", 100), ("photos", 64)):
        c = b.configure(images)
        prior = b.state(c).model.prior
        draw = partial(prior.sample, count, rng.generator(0, "flow", device=b.device))
        calls = Counter(layer for layer, _ in layer_calls(draw) if layer.mask is not None)
        passes = max(calls.values())
        times = interleave({"ours": draw}, 3, b.device)
        n = c.network
        dimensions = n.map_side**2 if n.is_colour else n.latent
        what = "positions of the maps" if n.is_colour else "dimensions"
        note = f"{passes} passes of each masked layer for {dimensions} {what}"
        more = {"passes": passes, "dimensions": dimensions}
        name = f"flow sampling, {c.network.latent} latent, batch {count}"
        yield b.row(name, times, "a pass a dimension at most", note, reference=None, more=more)


def start(b: Bench) -> Iterator[Row]:
    """Fresh processes: the import, the help, and the import of all that a run needs."""
    commands = {
        "import torch": ["-c", "import torch"],
        "import maelib": ["-c", "import maelib"],
        "maelib --help": ["-m", "maelib", "--help"],
        "import maelib.runs": ["-c", "import maelib.runs.run"],
    }
    sides = {
        name: partial(subprocess.run, [sys.executable, *words], check=True, capture_output=True)
        for name, words in commands.items()
    }
    times = interleave(sides, 5, torch.device("cpu"))
    for name, target in (("import maelib", "3 s"), ("maelib --help", "1 s")):
        yield Row(name, "cpu", {"ours": times[name]}, target, reference=None)
    both = {"reference": times["import torch"], "ours": times["import maelib.runs"]}
    note = "all that a run needs; reference: import torch"
    yield Row("import maelib.runs", "cpu", both, "-", note)
