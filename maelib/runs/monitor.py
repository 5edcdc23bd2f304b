"""What a run shows while it trains: progress.json, a bar, TensorBoard's files, a profile."""

import importlib.util
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from operator import methodcaller
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm.asyncio import tqdm as console_tqdm
from tqdm.auto import tqdm

from maelib.internal.files import read_json, reading, typed, write_json
from maelib.training.loop import Observer, Pictures
from maelib.training.state import Progress

PROGRESS_SECONDS = 5.0
TRACE = "trace.json.gz"


@contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Make ``folder`` if need be; only this process trains in it. OSError if another one does.

    The lock is the operating system's, on the file ``lock``: it ends with the process that has it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Wait a moment, since ``maelib runs`` takes the lock briefly to test it.
        held = FileLock(folder / "lock").acquire(timeout=1)
    except Timeout as problem:
        raise OSError(
            f"run {folder.name} is being trained by another process; wait for it, or stop it and "
            "run the same command again."
        ) from problem
    except (OSError, NotImplementedError) as problem:
        raise OSError(
            f"out_dir is {str(folder.parents[1])!r}, which cannot be written or has no locks "
            f"({getattr(problem, 'strerror', None) or problem}); name a folder of a file system "
            "with locks that you may write to."
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
    except (OSError, NotImplementedError):  # another user's run, which this one may not lock
        return False


@dataclass(frozen=True)
class Seen:
    """What progress.json holds: how far a run was at its last report."""

    step: int = 0
    total: int = 0
    seconds: float = 0.0
    seconds_left: float = 0.0
    best_elbo: float | None = None  # nats, on validation images

    def __post_init__(self):
        if not 0 <= self.step <= self.total < 2**53:
            raise ValueError(f"step {self.step!r:.20} of {self.total!r:.20}")


def progress_writer(folder: Path) -> Callable[[Progress, int], None]:
    """A function of the progress and the last step that keeps ``folder``/progress.json."""
    begun, written = time.monotonic(), -PROGRESS_SECONDS
    first = None

    def write(progress: Progress, total: int) -> None:
        nonlocal written, first
        first = progress.step - 1 if first is None else first
        now = time.monotonic()
        if now - written < PROGRESS_SECONDS and progress.step < total:
            return
        written = now
        left = (now - begun) / (progress.step - first) * (total - progress.step)
        seen = Seen(progress.step, total, progress.seconds, left, progress.best_elbo)
        write_json(folder / "progress.json", asdict(seen))

    return write


@dataclass(frozen=True)
class Status:
    """A run as ``maelib runs`` lists it. ``state`` is finished, running, interrupted or damaged."""

    preset: str
    name: str
    state: str
    seen: Seen = Seen()

    def line(self) -> str:
        """One line for people."""
        seen = self.seen
        progress = f"{seen.step} of {seen.total} steps" if seen.total else ""
        elbo = "" if seen.best_elbo is None else f"best L_elbo {seen.best_elbo:.2f}"
        left = f"{seen.seconds_left / 60:.1f} min left" if self.state == "running" else ""
        parts = [f"{self.preset:>7}  {self.name}  {self.state}", progress, elbo, left]
        return "  ".join(part for part in parts if part)


def list_runs(out: Path) -> list[Status]:
    """The state of every run in ``out``, by preset and name."""
    return [status(path.parent) for path in sorted(out.glob("*/*/config.json"))]


def status(folder: Path) -> Status:
    """The state of one run."""
    run, path = (folder.parent.name, folder.name), folder / "progress.json"
    done = (folder / "result.json").exists()
    state = "finished" if done else "running" if is_locked(folder) else "interrupted"
    if not path.exists():
        return Status(*run, state)
    try:
        with reading(path, "a run's progress", "train again"):
            return Status(*run, state, typed(Seen, read_json(path)))
    except ValueError:
        return Status(*run, "finished" if done else "damaged")


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
            write(progress, total)

        yield Observer(stepped, validated)


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A function of what is done and how much there is; TQDM_DISABLE=1 makes it silent."""
    quiet = bool(os.environ.get("TQDM_DISABLE"))
    if tqdm is console_tqdm:  # not a notebook, whose stream is no terminal
        quiet = quiet or None  # None: silent without a terminal
    with tqdm(desc=label, leave=False, disable=quiet) as bar:

        def show(done: int, total: int) -> None:
            if bar.total != total:
                bar.reset(total)
            bar.update(done - bar.n)

        yield show


@contextmanager
def tensorboard(folder: Path) -> Iterator[Callable[[dict, Pictures], None]]:
    """A function that shows a recorded row and pictures in TensorBoard, if that is installed.

    Rows that a killed run showed but did not save are dropped. A run does not need what is shown:
    if it cannot be written, a warning says so.
    """
    if importlib.util.find_spec("tensorboard") is None:
        yield lambda row, pictures: None
        return
    from torch.utils.tensorboard import SummaryWriter

    writer, print_it = None, threading.excepthook
    # Its thread need not say that a disk is full: ``show`` does.
    threading.excepthook = lambda args: issubclass(args.exc_type, OSError) or print_it(args)

    def show(row: dict, pictures: Pictures) -> None:
        nonlocal writer
        step = row["step"]
        try:
            writer = writer or SummaryWriter(folder / "tensorboard", purge_step=step)
            for name, value in row.items():
                writer.add_scalar(name, value, step)
            writer.add_images("images, then their predicted pixels", pictures().cpu(), step)
            writer.flush()
        except OSError as problem:
            why = problem.strerror or problem
            warnings.warn(f"TensorBoard's files cannot be written ({why}).", stacklevel=2)

    try:
        yield show
    finally:
        threading.excepthook = print_it
        if writer is not None:
            with suppress(OSError):
                writer.close()


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
            # Without acc_events some versions of torch warn that a second cycle drops the first.
            recorder = profile(schedule=plan, on_trace_ready=write, acc_events=True)
            running = stack.enter_context(recorder)

        yield tick
