"""What a campaign looks at before it trains: whether the device computes right, and how fast.

Each check returns what it found, for ``campaign.json``, or raises an error that says what is wrong.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice

import torch

from maelib.config import Config
from maelib.data import dataset as datasets
from maelib.measure.estimate import balanced_order
from maelib.measure.evaluation import SEED, iw_nll, test_images
from maelib.runs.pretrained import find
from maelib.training import ladder
from maelib.training.loop import batches
from maelib.training.precision import inference_precision, matmul_precision
from maelib.training.state import Progress, RunningTotals, State, adam, curves, start
from maelib.training.step import Step, train_step

PRETRAINED, PRETRAINED_IMAGES, PRETRAINED_K = "mnist-mae-a1-b0.5", 32, 8
NLL_TOLERANCE = 0.01  # nats
CPU = torch.device("cpu")
Check = Callable[[], dict]


def checks(config: Config, device: torch.device, precision: str) -> dict[str, Check]:
    """Every check by its name, the one that compiles, and so takes longest, last."""
    return {
        "steps": partial(like_on_cpu, config, device, precision),
        "waits": partial(no_waits, config, device, precision),
        "rates": partial(rates, device, precision),
        "nll": partial(pretrained_nll, device, precision),
        "pace": partial(pace, config, device, precision),
    }


def attempt(check: Check) -> dict:
    """What a check finds, or why it failed, and the seconds it took."""
    begun = time.monotonic()
    try:
        found = check()
    except Exception as problem:  # a check must not cost the slot, whatever is wrong
        said = str(problem).strip() or type(problem).__name__
        found = {"failed": said.splitlines()[0][:300]}
    return found | {"seconds": round(time.monotonic() - begun, 2)}


def pace(config: Config, device: torch.device, precision: str) -> dict:
    """The first way to take steps that works, and seconds of an epoch and of a run's NLL."""
    state, step, first = prepared(config, device, precision, ladder.COMPARED)
    data, settings, x = datasets.load(config.data.name), config.evaluation, first[0][0][:8]
    with matmul_precision(precision):
        way, take = ladder.choose(state, step, first, ladder.ways("auto", state, step))
        stepping = timed(lambda: take(state, step, *first[0]), device, 50 if x.is_cuda else 5)
    k = min(64, settings.nll_k)
    nll = timed(lambda: iw_nll(state.best, x, k, precision=precision), device, 1) / (k * len(x))
    every = len(data.test.first(config.data.test_images))
    some = min(settings.nll_images or every, every)
    samples = some * settings.nll_k + (every * settings.nll_k_all if some < every else 0)
    per_epoch = len(data.train.first(config.data.train_images)) // config.training.batch_size
    return {"way": way, "step": stepping, "epoch": per_epoch * stepping, "nll": samples * nll}


def like_on_cpu(config: Config, device: torch.device, precision: str) -> dict:
    """The losses of three steps here and on the CPU in float32; RuntimeError if they differ."""
    origin, step, first = prepared(config, CPU, "float32", 3)
    before = {name: tensor.clone() for name, tensor in ladder.tensors(origin).items()}
    here = moved(origin, config, device)
    same = replace(step, network=here.model, precision=precision)
    with matmul_precision(precision):
        there = [(x.to(device), eps.to(device)) for x, eps in first]
        losses, after = ladder.results(here, same, train_step, there)
    plain = ladder.results(origin, step, train_step, first)
    ours = losses, {name: tensor.cpu() for name, tensor in after.items()}
    ladder.require_like(ours, plain, before, ladder.TOLERANCE[precision])
    return {"losses": losses, "on the CPU": plain[0]}


def no_waits(config: Config, device: torch.device, precision: str) -> dict:
    """Three steps in which a wait of the host for the GPU is an error; none without a GPU."""
    if device.type != "cuda":
        return {"steps": 0}
    state, step, first = prepared(config, device, precision, 4)
    train_step(state, step, *first[0])
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in first[1:]:
            train_step(state, step, *batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return {"steps": 3}


def rates(device: torch.device, precision: str) -> dict:
    """Operations a second of a product of matrices, and bytes a second of a copy."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = torch.randn(2, size, size, device=device)
    with inference_precision(precision, device):
        product = timed(lambda: a @ b, device, 3)
    return {"flop/s": 2 * size**3 / product, "bytes/s": 2 * a.nbytes / timed(a.clone, device, 3)}


def pretrained_nll(device: torch.device, precision: str) -> dict:
    """The NLL of a few images by a model of checkpoints/, beside the CPU's in float32, in nats."""
    pretrained = find(PRETRAINED)
    test = datasets.load(pretrained.config.data.name).test
    few = torch.from_numpy(balanced_order(test.labels.numpy(), SEED))[:PRETRAINED_IMAGES]
    x = test_images(test.images[few])
    ours = iw_nll(pretrained.load(device), x.to(device), PRETRAINED_K, precision=precision)
    here, plain = float(ours.mean()), float(iw_nll(pretrained.load(), x, PRETRAINED_K).mean())
    if not abs(here - plain) < NLL_TOLERANCE:
        raise RuntimeError(f"the NLL of {PRETRAINED} is {here:.4f}, and {plain:.4f} on the CPU")
    return {"nll": here, "on the CPU": plain}


def prepared(
    config: Config, device: torch.device, precision: str, count: int
) -> tuple[State, Step, list[ladder.Batch]]:
    """A fresh state of the run, its step, and its first batches."""
    train = datasets.load(config.data.name).train.first(config.data.train_images)
    images, per_epoch = train.images.to(device), len(train) // config.training.batch_size
    state, stream = start(config, images, device), batches(config, images, 0, per_epoch)
    total = max(per_epoch * config.training.epochs, config.training.min_steps)
    step = Step(state.model, config.objective, config.training, total, precision)
    return state, step, list(islice(stream, count))


def moved(state: State, config: Config, device: torch.device) -> State:
    """A state that has taken no step, on another device."""
    nets = [copy.deepcopy(net).to(device) for net in (state.model, state.averaged, state.best)]
    totals = RunningTotals.on(device, curves(config.objective), [])
    return State(*nets, adam(nets[0], config.training), Progress(), totals)


def timed(work: Callable[[], object], device: torch.device, count: int) -> float:
    """Seconds that ``work`` takes on the device, the mean of ``count`` times after a first one."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    work()
    wait()
    begun = time.perf_counter()
    for _ in range(count):
        work()
    wait()
    return (time.perf_counter() - begun) / count
