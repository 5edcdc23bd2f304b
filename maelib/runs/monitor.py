"""What a run shows while it trains: progress.json, a bar, TensorBoard's files, a profile."""

import importlib.util
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from operator import methodcaller
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from maelib.internal.files import write_json
from maelib.training.loop import Observer, Pictures
from maelib.training.state import Progress

PROGRESS_SECONDS = 5.0
TRACE = "trace.json.gz"


@contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Context in which only this process trains in ``folder``; OSError if another one does.

    The lock is the operating system's, on the file ``lock``: it ends with the process that has it.
    """
    try:
        # Wait a moment, since ``maelib runs`` takes the lock briefly to test it.
        held = FileLock(folder / "lock").acquire(timeout=1)
    except Timeout as problem:
        raise OSError(
            f"run {folder.name} is being trained by another process; wait for it, or stop it and "
            "run the same command again."
        ) from problem
    with held:
        yield


def is_locked(folder: Path) -> bool:
    """Whether a living process trains in ``folder``."""
    if not (folder / "lock").exists():
        return False
    try:
        with FileLock(folder / "lock", timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # another user's run, which this one may not lock
        return False


def progress_writer(folder: Path) -> Callable[..., None]:
    """A function of step, total, seconds and best ELBO that keeps ``folder``/progress.json."""
    begun, written = time.monotonic(), -PROGRESS_SECONDS
    first = None

    def write(step: int, total: int, seconds: float, best_elbo: float) -> None:
        nonlocal written, first
        first = step - 1 if first is None else first
        now = time.monotonic()
        if now - written < PROGRESS_SECONDS and step < total:
            return
        written = now
        left = (now - begun) / (step - first) * (total - step)
        steps, times = {"step": step, "total": total}, {"seconds": seconds, "seconds_left": left}
        write_json(folder / "progress.json", {**steps, **times, "best_elbo": best_elbo})

    return write


@dataclass(frozen=True)
class Status:
    """A run as ``maelib runs`` lists it. ``state`` is finished, running, interrupted or damaged."""

    preset: str
    name: str
    state: str
    step: int = 0
    total: int = 0
    best_elbo: float = float("inf")  # nats, on validation images
    seconds_left: float = 0.0

    def line(self) -> str:
        """One line for people."""
        progress = f"{self.step} of {self.total} steps" if self.total else ""
        elbo = f"best L_elbo {self.best_elbo:.2f}" if self.best_elbo < float("inf") else ""
        left = f"{self.seconds_left / 60:.1f} min left" if self.state == "running" else ""
        parts = [f"{self.preset:>7}  {self.name}  {self.state}", progress, elbo, left]
        return "  ".join(part for part in parts if part)


def list_runs(out: Path) -> list[Status]:
    """The state of every run in ``out``, by preset and name."""
    return [status(path.parent) for path in sorted(out.glob("*/*/config.json"))]


def status(folder: Path) -> Status:
    """The state of one run."""
    preset, name, path = folder.parent.name, folder.name, folder / "progress.json"
    done = (folder / "result.json").exists()
    state = "finished" if done else "running" if is_locked(folder) else "interrupted"
    if not path.exists():
        return Status(preset, name, state)
    try:
        seen = json.loads(path.read_text())
        numbers = [float(seen[key]) for key in ("best_elbo", "seconds_left")]
        return Status(preset, name, state, int(seen["step"]), int(seen["total"]), *numbers)
    except (ValueError, KeyError, TypeError):
        return Status(preset, name, "damaged")


@contextmanager
def observer(folder: Path, profile: bool = False) -> Iterator[Observer]:
    """An observer that writes progress.json, the bar, TensorBoard's files and ``TRACE``."""
    write = progress_writer(folder)
    with (
        progress_bar("training") as show,
        tensorboard(folder) as validated,
        profiler(folder / TRACE if profile else None) as tick,
    ):

        def stepped(progress: Progress, total: int) -> None:
            show(progress.step, total)
            tick(progress.step, total)
            write(progress.step, total, progress.seconds, progress.best_elbo)

        yield Observer(stepped, validated)


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A function of what is done and how much there is; TQDM_DISABLE=1 makes it silent."""
    quiet = bool(os.environ.get("TQDM_DISABLE")) or None  # None: silent without a terminal
    with tqdm(desc=label, leave=False, disable=quiet) as bar:

        def show(done: int, total: int) -> None:
            if bar.total != total:
                bar.reset(total)
            bar.update(done - bar.n)

        yield show


@contextmanager
def tensorboard(folder: Path) -> Iterator[Callable[[dict, Pictures], None]]:
    """A function that shows a recorded row and pictures in TensorBoard, if that is installed.

    Rows that a killed run showed but did not save are dropped.
    """
    if importlib.util.find_spec("tensorboard") is None:
        yield lambda row, pictures: None
        return
    from torch.utils.tensorboard import SummaryWriter

    with ExitStack() as stack:
        writer = None

        def show(row: dict, pictures: Pictures) -> None:
            nonlocal writer
            step = row["step"]
            if writer is None:
                opened = SummaryWriter(folder / "tensorboard", purge_step=step)
                writer = stack.enter_context(opened)
            for name, value in row.items():
                writer.add_scalar(name, value, step)
            writer.add_images("images, then their predicted pixels", pictures().cpu(), step)
            writer.flush()

        yield show


@contextmanager
def profiler(trace: Path | None, steps: int = 20) -> Iterator[Callable[[int, int], None]]:
    """A function to call after each step. If given, ``trace`` records ``steps`` of them (Perfetto).

    The first ten steps, in which kernels are chosen, are left out if there are enough others.
    """
    if trace is None:
        yield lambda step, total: None
        return
    from torch.profiler import profile, schedule

    running = None
    with ExitStack() as stack:

        def tick(step: int, total: int) -> None:
            nonlocal running
            if running is not None:
                return running.step()
            skipped = max(0, min(9, total - step - steps - 1))
            plan = schedule(wait=skipped, warmup=1, active=steps, repeat=1)
            write = methodcaller("export_chrome_trace", str(trace))
            running = stack.enter_context(profile(schedule=plan, on_trace_ready=write))

        yield tick
