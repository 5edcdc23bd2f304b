"""What a run shows while it trains: progress.json, and TensorBoard's files if it is installed."""

import importlib.util
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from jaxtyping import Float
from torch import Tensor

from maelib.checkpoints import write_json

PROGRESS_SECONDS = 5.0
Show = Callable[[dict, Callable[[], Float[Tensor, "n c h w"]]], None]


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Within it this process alone trains in ``folder``; OSError if another one does.

    The lock is the operating system's, on the file ``lock``: it ends with the process that has it.
    """
    held = FileLock(folder / "lock")
    try:
        # A moment's patience, since ``maelib runs`` takes the lock to see whether it is taken.
        held.acquire(timeout=1)
    except Timeout as problem:
        raise OSError(
            f"run {folder.name} is being trained by another process; wait for it, or stop it and "
            "run the same command again."
        ) from problem
    try:
        yield
    finally:
        held.release()


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
        numbers = {"step": step, "total": total, "seconds": seconds, "seconds_left": left}
        write_json(folder / "progress.json", {**numbers, "best_elbo": best_elbo})

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
    done, path = (folder / "result.json").exists(), folder / "progress.json"
    state = "finished" if done else "running" if is_locked(folder) else "interrupted"
    label = (folder.parent.name, folder.name)
    if not path.exists():
        return Status(*label, state)
    try:
        seen = json.loads(path.read_text())
        steps, nats = (int(seen["step"]), int(seen["total"])), float(seen["best_elbo"])
        return Status(*label, state, *steps, nats, float(seen["seconds_left"]))
    except (ValueError, KeyError, TypeError):
        return Status(*label, "damaged")


@contextmanager
def board(folder: Path | None, step: int) -> Iterator[Show]:
    """A function that shows a recorded row and pictures in TensorBoard, if there is one.

    Without tensorboard, or without a folder, it does nothing. Rows after ``step``, which a run
    that was killed showed but did not save, are dropped.
    """
    if folder is None or importlib.util.find_spec("tensorboard") is None:
        yield lambda row, pictures: None
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(folder / "tensorboard", purge_step=step + 1) as writer:

        def show(row: dict, pictures: Callable[[], Tensor]) -> None:
            for name, value in row.items():
                writer.add_scalar(name, value, row["step"])
            writer.add_images("images, then their predicted pixels", pictures().cpu(), row["step"])
            writer.flush()

        yield show


@contextmanager
def profiler(trace: Path | None, left: int, steps: int = 20) -> Iterator[Callable[[], None]]:
    """A function to call after each step; ``trace`` will show ``steps`` of them (in Perfetto).

    The first ten steps, in which kernels are chosen, are left out if ``left`` steps allow it.
    Without a path it does nothing.
    """
    if trace is None:
        yield lambda: None
        return
    from torch.profiler import profile, schedule

    skipped = max(0, min(9, left - steps - 1))
    plan = schedule(wait=skipped, warmup=1, active=steps, repeat=1)
    with profile(schedule=plan, on_trace_ready=lambda p: p.export_chrome_trace(str(trace))) as p:
        yield p.step
