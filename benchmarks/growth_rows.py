"""Rows about growth: seconds and peak memory against batch, importance samples and images."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from unittest import mock

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from timing import Row, interleave
from training_rows import stepper
from workload import Bench

from maelib.measure import evaluation

# What grows, and through which sizes: of the whole measurement, and of the quick one.
STEP, SAMPLES, IMAGES = "training step", "NLL of 2 images", "NLL with k = 64"
GROWS = {
    STEP: ("images a batch", (25, 50, 100, 200, 400), (4, 8)),
    SAMPLES: ("importance samples k", (8, 64, 512, 4096), (8, 16)),
    IMAGES: ("images", (1, 2, 4, 8, 16), (1, 2)),
}


def growth(b: Bench) -> Iterator[Row]:
    """Each of ``GROWS``, every size in a process of its own."""
    for name, (what, *sizes) in GROWS.items():
        points = [in_child(cost, b, name, n) for n in sizes[b.quick]]
        times = {f"{what} {p['size']}": p.pop("runs") for p in points}
        peaks = ", ".join(f"{p['MiB']:.0f}" for p in points)
        note = f"peak MiB beside model and optimiser: {peaks}"
        more = {"grows": name, "what": what, "points": points}
        yield b.row(f"growth: {name}", times, "-", note, reference=None, ours=None, more=more)


def cost(b: Bench, name: str, size: int) -> dict:
    """Seconds of some runs of a size, and the peak MiB, in a process that did nothing else."""
    work = prepared(b, name, size)
    before = memory(b, "VmRSS")
    forget_peak(b)
    repeats = 1 if size > 512 else 3
    runs = interleave({"ours": work}, repeats, b.device, warm=min(1, repeats - 1))["ours"]
    return {"size": size, "runs": runs, "MiB": memory(b, "VmHWM") - before}


def prepared(b: Bench, name: str, size: int) -> Callable[[], object]:
    """The work that is timed: a training step, or an estimate of the NLL."""
    if name == STEP:
        c = b.configure(batch_size=size)
        return stepper(b.state(c), c, b.batch(c, size), b.precision)
    c = b.configure()
    _, ours = b.networks(c)
    images, k = (2, size) if name == SAMPLES else (size, 64)
    return partial(evaluation.iw_nll, ours, b.batch(c, images)[0], k, precision=b.precision)


def picture(rows: list[Row]) -> Figure:
    """Seconds and memory against size, a column for each row; dashed: proportional to the size."""
    found = [row for row in rows if "grows" in row.more]
    figure, axes = plt.subplots(
        2, len(found), squeeze=False, sharex="col", figsize=(4 * len(found), 6),
        layout="constrained",
    )  # fmt: skip
    for column, row in zip(axes.T, found, strict=True):
        points = row.more["points"]
        sizes = np.array([p["size"] for p in points])
        seconds = np.array([row.seconds(side) for side in row.timings])
        peaks = np.array([p["MiB"] for p in points])
        for ax, values, unit in zip(column, (seconds, peaks), ("seconds", "peak MiB"), strict=True):
            ax.loglog(sizes, values, "o-", color="#0173B2")
            ax.loglog(sizes, values[-1] * sizes / sizes[-1], "--", color="#949494", lw=1)
            ax.set_xticks(sizes, [f"{n:,}" for n in sizes])
            ax.minorticks_off()
            ax.set_ylabel(unit)
        column[0].set_title(row.more["grows"], fontsize=10)
        column[1].set_xlabel(row.more["what"])
    return figure


def memory(b: Bench, which: str) -> float:
    """MiB now (``VmRSS``) or at most so far (``VmHWM``); NaN where the system does not say."""
    if b.on_gpu:
        now, most = torch.cuda.memory_allocated, torch.cuda.max_memory_allocated
        return (now() if which == "VmRSS" else most()) / 2**20
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    return next((int(s.split()[1]) / 2**10 for s in lines if s.startswith(which)), float("nan"))


def forget_peak(b: Bench) -> None:
    """``memory``'s peak starts anew from what is held now, where the system allows that."""
    if b.on_gpu:
        torch.cuda.reset_peak_memory_stats()
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def in_child(function: Callable, *arguments: object) -> dict:
    """What ``function`` returns in a fresh process that gives freed tensors back at once.

    Otherwise how much glibc keeps for later, some hundred MiB, would hide what is measured.
    """
    at_once = mock.patch.dict(os.environ, MALLOC_MMAP_THRESHOLD_="65536", MALLOC_TOP_PAD_="0")
    with at_once, multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)
