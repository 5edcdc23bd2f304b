"""Rows about training: the step, its pairwise terms, its growth with the batch, its floor."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import torch
from plain_step import begin, plain_step
from timing import Row, interleave
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from workload import Bench, layer_calls

from maelib.config import Config, resolve
from maelib.data import dataset
from maelib.experiments import ZOO
from maelib.objectives.base import Outputs
from maelib.training import loop
from maelib.training.ladder import MAKERS
from maelib.training.precision import matmul_precision
from maelib.training.state import State
from maelib.training.step import Step, encoder_steps, train_step

REMEDIES = "training step, laptop, by remedy"
STEPS = 10**6  # of the learning-rate schedule; its length does not change what is timed


def stepper(
    state: State, c: Config, batch: tuple[Tensor, Tensor], precision: str, way: str = "eager"
) -> Callable[[], None]:
    """A function that takes one training step, as ``maelib train --precision --way`` does.

    It makes the extra updates of the encoder that the configuration asks for, all of them.
    """
    step = Step(state.model, c.objective, c.training, STEPS, precision)
    with matmul_precision(precision):
        take = train_step if way == "eager" else MAKERS[way](state, step, *batch)

    def work() -> None:
        if c.training.encoder_steps:
            encoder_steps(state, step, lambda _: batch)
        take(state, step, *batch)

    return matmul_precision(precision)(work)


def train(b: Bench) -> Iterator[Row]:
    """A training step against ``plain_step``, in each way and in each precision."""
    c = b.configure()
    size = c.training.batch_size
    batch = b.batch(c, size)
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    has_bf16 = torch.cuda.is_bf16_supported() if b.on_gpu else torch.cpu._is_avx512_bf16_supported()
    precisions = ["float32", *["tf32"] * b.on_gpu, *["bf16"] * has_bf16]
    plain, cut = begin(b.state(c), c), begin(b.state(c), c, whole=False)
    sides = {
        "reference": partial(plain_step, plain, c, *batch, STEPS),
        "reference, hidden rows cut": partial(plain_step, cut, c, *batch, STEPS),
    }
    if b.on_gpu:
        twin = begin(b.state(c), c)
        sides["reference in TF32"] = partial(plain_step, twin, c, *batch, STEPS, "tf32")
    states = []
    ways = ["eager", *["compiled"] * bool(compiler), *["captured"] * b.on_gpu]
    ways += ["compiled-captured"] * (b.on_gpu and bool(compiler))
    for precision, way in product(precisions, ways):
        state = b.state(c)
        states.append(state)
        name = precision if way == "eager" else f"{precision}, {way}"
        sides[name] = stepper(state, c, batch, precision, way)
    times = interleave(sides, 20 if b.on_gpu else 5, b.device, warm=3 if b.on_gpu else 1)
    for state in states:
        state.totals.require_finite()
    target = "5x, on an H100 or H200 below 4 ms" if b.on_gpu else "2x"
    for side in list(sides)[1:]:
        kept = {name: times[name] for name in ("reference", side)}
        note = "channels-last, fused Adam, no hidden rows of masked kernels"
        rest = ("-",) if side.startswith("reference") else (target, note)
        yield b.row(f"training step, batch {size}: {side}", kept, *rest, ours=side)
    for missing in {"bf16"} - set(precisions):
        yield b.row(f"training step: {missing}", {}, target, "not measured: not in this hardware")
    if not compiler:
        yield b.row("training step: compiled", {}, target, "not measured: no C++ compiler")


def remedies(b: Bench) -> Iterator[Row]:
    """A step of each remedy on ``laptop``'s network, by its middle try."""
    preset, sides = "smoke" if b.quick else "laptop", {}
    for name, tries in ZOO.items():
        e = tries[len(tries) // 2]
        c = resolve(preset, "digits", e.objective, **e.options, lr=1e-5, init_images=100)
        sides[name] = stepper(b.state(c), c, b.batch(c, c.training.batch_size), b.precision)
    times = interleave(sides, 1 if b.quick else 9, b.device, warm=0 if b.quick else 2)
    yield b.row(REMEDIES, times, "-", reference=None, ours=None)


def curve(b: Bench) -> Iterator[Row]:
    """500 steps in bfloat16, which a CPU can emulate, against float32 and another seed of it."""
    sizes = dict(epochs=2, validate_steps=5)
    if not b.quick:
        sizes = dict(epochs=25, validate_steps=100, channels=8, batch_size=50, train_images=1000)
    images, last = dataset.load("digits"), {}

    def train(side: str, precision: str, seed: int) -> None:
        preset = "smoke" if b.quick else "quick"
        c = resolve(preset, "digits", val_images=100, seed=seed, **sizes)
        with tempfile.TemporaryDirectory() as folder:
            _, progress = loop.train(c, images, Path(folder), b.device, precision=precision)
        last[side] = progress.history[-1]

    sides = {"reference": ("float32", 0), "bf16": ("bf16", 0), "other seed": ("float32", 1)}
    runs = {side: partial(train, side, *how) for side, how in sides.items()}
    times = interleave(runs, 1, b.device, warm=0)
    gaps = {
        side: ", ".join(
            f"{name} {last[side][name] - last['reference'][name]:+.2f}"
            for name in ("loss", "kl", "mpd", "val_elbo")
        )
        for side in ("bf16", "other seed")
    }
    note = (
        f"bf16 less float32 over the last {sizes['validate_steps']} steps, nats: {gaps['bf16']}; "
        f"another seed in float32 less it: {gaps['other seed']}"
    )
    name = f"{last['bf16']['step']} steps in bf16, small network"
    yield b.row(name, times, "within noise", note, ours="bf16", more=last)


class Largest(TorchDispatchMode):
    """Within it, ``numbers`` becomes the size of the largest tensor that any operation makes."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves(made) if isinstance(leaf, Tensor)]
        sizes = [t.untyped_storage().nbytes() // t.itemsize for t in tensors]
        self.numbers = max([self.numbers, *sizes])
        return made


def pairs(b: Bench) -> Iterator[Row]:
    """The pairwise terms, forward and backward, as a share of a training step."""
    for name in ("digits", "photos"):
        c = b.configure(name)
        size, latent = c.training.batch_size, c.network.latent
        mu, logvar = (torch.randn(size, latent, device=b.device).requires_grad_() for _ in "12")
        terms = partial(pair_terms, c, mu, logvar)
        terms()
        with Largest() as largest:
            terms()
        step = stepper(b.state(c), c, b.batch(c, size), "float32")
        times = interleave({"reference": step, "ours": terms}, 3, b.device)
        found = b.row(f"pairwise KL, {size} x {latent}", times, "5 % of a step")
        note = (
            f"{100 / found.ratio:.2g} % of the step (reference); largest tensor "
            f"{largest.numbers:,} numbers, batch^2 * latent is {size**2 * latent:,}"
        )
        yield replace(found, note=note, more={"largest": largest.numbers})


def pair_terms(c: Config, mu: Tensor, logvar: Tensor) -> None:
    """Value and gradient of all that the objective computes from pairs."""
    nothing = mu.new_zeros(len(mu))
    terms = c.objective(Outputs(nothing, nothing, mu, logvar))
    torch.autograd.grad(terms.loss, (mu, logvar))


def busy(b: Bench) -> Iterator[Row]:
    """Steps of a run beside a process that keeps one core busy, by threads and how they wait."""
    if b.on_gpu:
        return
    own = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    policies = {"as maelib sets it": {}} | {
        word.lower(): {"OMP_WAIT_POLICY": word} for word in ("PASSIVE", "ACTIVE")
    }
    for threads in (1, 2):
        times = {}
        for (policy, variables), others in product(policies.items(), (0, 1)):
            environment = own | variables | {"OMP_NUM_THREADS": str(threads)}
            with spinning(others):
                found = in_child(b, b.precision, environment)
            times[f"{policy}, {'beside another' if others else 'alone'}"] = found
        name = f"training step, laptop, {threads} thread{'s' * (threads > 1)}, by OMP_WAIT_POLICY"
        yield b.row(name, times, "-", reference=None, ours=None)


@contextmanager
def spinning(count: int) -> Iterator[None]:
    """Context in which so many other processes compute without a pause."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def instructions(b: Bench) -> Iterator[Row]:
    """Steps in both precisions, with oneDNN kept to each set of instructions there is here."""
    if b.on_gpu:
        return
    has = {
        "AVX512_CORE": torch.cpu._is_avx512_supported(),
        "AVX512_CORE_BF16": torch.cpu._is_avx512_bf16_supported(),
        "AVX512_CORE_AMX": torch.cpu._is_amx_tile_supported(),
    }
    for preset, name in product(("laptop", "short"), (name for name in has if has[name])):
        environment = os.environ | {"ONEDNN_MAX_CPU_ISA": name, "OMP_NUM_THREADS": "1"}
        times = {p: in_child(b, p, environment, preset) for p in ("float32", "bf16")}
        row = f"training step, {preset}, {name}"
        yield b.row(row, times, "-", reference="float32", ours="bf16")


def in_child(
    b: Bench, precision: str, environment: dict[str, str], preset: str = "laptop"
) -> list[float]:
    """``step_seconds`` in a process of its own."""
    command = [sys.executable, __file__, precision, "smoke" if b.quick else preset]
    said = subprocess.check_output(command, env=environment, text=True)
    return json.loads(said.splitlines()[-1])


def step_seconds(b: Bench, precision: str, preset: str) -> list[float]:
    """Seconds of each of some steps of a preset's network."""
    c = resolve(preset, "digits", lr=1e-5, init_images=100)
    step = stepper(b.state(c), c, b.batch(c, c.training.batch_size), precision)
    return interleave({"step": step}, 3 if b.quick else 15, b.device, warm=3)["step"]


def floor(b: Bench) -> Iterator[Row]:
    """The step against the least time that its operations and its bytes can take."""
    c = b.configure()
    state, batch = b.state(c), b.batch(c, c.training.batch_size)
    step = stepper(state, c, batch, b.precision)
    with FlopCounterMode(display=False) as counter:
        step()
    operations, moved = counter.get_total_flops(), bytes_moved(state, batch)
    size = 256 if b.quick else 8192 if b.on_gpu else 2048
    a, big = torch.randn(size, size, device=b.device), torch.randn(16 * size**2, device=b.device)
    target = torch.empty_like(big)
    multiply = matmul_precision(b.precision)(partial(torch.mm, a, a))
    sides = {"step": step, "matmul": multiply, "copy": partial(target.copy_, big)}
    times = interleave(sides, 5, b.device, warm=2)
    found = b.row("training step: distance from its floor", times, "-", ours="step")
    rate = 2 * size**3 / found.seconds("matmul")
    bandwidth = 2 * big.nbytes / found.seconds("copy")
    least = {"operations": operations / rate, "bytes": moved / bandwidth}
    limit = max(least, key=least.get)
    note = (
        f"reference is the floor by {limit}: {operations / 1e9:.3g} GFLOP at {rate / 1e9:.3g} "
        f"GFLOP/s; {moved / 1e9:.2g} GB at {bandwidth / 1e9:.3g} GB/s ({b.precision})"
    )
    more = {"operations": operations, "bytes": moved, "flop/s": rate, "bytes/s": bandwidth}
    times |= {"reference": [least[limit]]}
    yield replace(found, timings=times, note=note, more=more | {"least_seconds": least})


def bytes_moved(state: State, batch: tuple[Tensor, Tensor]) -> int:
    """Roughly the bytes that a step must move: each layer's output five times, a weight ten.

    Outputs are written, read, read again for the gradient, and their gradients written and read.
    Weights are read twice, their gradients written and read, and Adam reads and writes the
    weight, two moments and the average. Elementwise operations are taken to be fused.
    """
    with torch.no_grad():
        outputs = sum(size for _, size in layer_calls(lambda: state.model(*batch)))
    return 5 * outputs + 10 * sum(p.nbytes for p in state.model.parameters())


if __name__ == "__main__":
    chosen, network = sys.argv[1:]
    here = Bench(torch.device("cpu"), network == "smoke")
    print(json.dumps(step_seconds(here, chosen, network)))
