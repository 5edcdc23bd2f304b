"""``make reproduce``: lets Snakemake make what is missing, and reports its progress.

python -m maelib.workflow.reproduce --preset quick          # what make reproduce does
python -m maelib.workflow.reproduce --preset quick -n       # what is missing
python -m maelib.workflow.reproduce --preset paper --profile profiles/slurm

Any other option is Snakemake's own.
"""

import argparse
import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from maelib.config import PRESETS
from maelib.data import AUTO
from maelib.internal.files import silence
from maelib.internal.paths import default_out_dir, project_root
from maelib.runs import record as records
from maelib.runs.monitor import status
from maelib.training.loop import ending
from maelib.workflow import plan

DRY = {"-n", "--dry-run", "--dryrun"}
SPEAK_EVERY = 30.0  # seconds without news, after which the trainings are reported
PATIENCE = 20.0  # seconds that jobs have to end after a signal
NOTEWORTHY = re.compile(r"error|exception|submitted|left out|cannot|missing", re.IGNORECASE)


def main(arguments: list[str] | None = None) -> int:
    """Run everything and name what failed. The result is 0 only if nothing failed."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw, allow_abbrev=False)
    default = "default: %(default)s"
    parser.add_argument("--preset", default="quick", choices=PRESETS, help=default)
    parser.add_argument("--dataset", default=AUTO, choices=plan.CHOICES, help=default)
    groups = "paper, or zoo: the remedies (%(default)s is the default)"
    parser.add_argument("--group", default="paper", choices=("paper", "zoo"), help=groups)
    options, more = parser.parse_known_args(arguments)
    try:
        return _reproduce(options.preset, options.dataset, options.group, more, project_root())
    except BrokenPipeError:  # as of ``make reproduce | head -1``
        silence(sys.stdout)
        return 141
    except OSError as problem:
        print(f"maelib: error: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("maelib: interrupted; the same command continues.", file=sys.stderr)
        return 130


def _reproduce(preset: str, dataset: str, group: str, more: list[str], root: Path) -> int:
    cores = [] if any(word.startswith("--profile") for word in more) else ["--cores", "all"]
    config = ["--nolock", "--config", f"preset={preset}", f"dataset={dataset}", f"group={group}"]
    anew = [str(path) for path in damaged(root) if path.parent.name == preset]
    common = [*cores, *more, *config, *(["--forcerun", *anew] if anew else [])]
    with workflow_lock(root) as handle:
        if DRY & set(more):
            return subprocess.call([sys.executable, "-m", "snakemake", *common], cwd=root)
        board = Board(default_out_dir() / preset)
        code = _snakemake(common, root, handle, board)
        if 0 < code < 128:
            _snakemake(["report", *common], root, handle, Board(board.runs))
        elif not code and damaged(root):  # no run of this preset makes that file
            code = 1
    _sum_up(board, code, preset, root)
    return code


def damaged(root: Path) -> list[Path]:
    """The files in ``root``/results that are no results, each of which is named."""
    found = []
    for path in sorted(root.glob("results/*/*.json")):
        try:
            records.read(path)
        except ValueError as problem:
            print(f"missing: {problem}", file=sys.stderr, flush=True)
            found.append(path.relative_to(root))
    return found


def _sum_up(board: "Board", code: int, preset: str, root: Path) -> None:
    for name in board.unfinished():
        print(f"not finished: {name}; its notebook and its log are in build/")
    if not code and not board.total:
        print("nothing is missing.")
    print(f"tables and figures: {root / 'figures'}; executed notebooks: {root / 'build'}")
    if code:
        print(f"preset {preset} is not complete; the same command continues.")


@dataclass
class Board:
    """The jobs of a workflow: what runs, what is done, and how much of the whole that is."""

    runs: Path  # the folder of the preset's runs
    total: int = 0
    done: int = 0
    running: dict[str, str] = field(default_factory=dict)  # job number: what it makes
    failed: list[str] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)

    def follow(self, lines: Iterator[str | None]) -> None:
        """Print the news in the lines and, after a silence, how far the trainings are."""
        spoken = time.monotonic()
        for line in lines:
            news = [] if line is None else [self.hear(line)]
            if line is None and time.monotonic() - spoken > SPEAK_EVERY:
                news = self.trainings()
            for words in filter(None, news):
                print(words, flush=True)
                spoken = time.monotonic()

    def hear(self, line: str) -> str | None:
        """Process a line that Snakemake printed; returns the news in it for a person, if any."""
        if match := re.match(r"total\s+(\d+)$", line):
            self.total = int(match[1])
        elif match := re.match(r"Job (\d+): (.*)", line):
            self.running[match[1]] = match[2]
            return self.news("begins", match[2])
        elif match := re.match(r"Finished jobid: (\d+)", line):
            self.done += 1
            return self.news("done", self.running.pop(match[1], "a job"))
        elif match := re.match(r"\s+jobid: (\d+)", line):
            if name := self.running.pop(match[1], ""):
                self.failed.append(name)
                return self.news("failed", name)
        elif not line.startswith(" ") and NOTEWORTHY.search(line):
            return line
        return None

    def news(self, what: str, name: str) -> str:
        """One line: the share of the whole, what happened, and the time left."""
        share = self.share()
        seconds = time.monotonic() - self.begun
        minutes = seconds * (1 - share) / share / 60 if share else 0
        left = f"about {minutes:.0f} min left" if 0.02 < share < 1 else ""
        return f"{share:4.0%}  {what:8}  {name:55}  {left}".rstrip()

    def trainings(self) -> list[str]:
        """A line for each run that trains at the moment."""
        found = {name: self._progress(name) for name in self.running.values()}
        return [
            self.news("trains", f"{name}: step {step} of {total}")
            for name, (step, total) in found.items()
            if total
        ]

    def share(self) -> float:
        """How much is done, from 0 to 1; running jobs count by steps, and all jobs equally."""
        parts = [self._progress(name) for name in self.running.values()]
        part = sum(step / total for step, total in parts if total)
        return (self.done + part) / self.total if self.total else 0.0

    def unfinished(self) -> list[str]:
        """What failed, or was still running at the end."""
        return [name.removeprefix("run ") for name in (*self.failed, *self.running.values())]

    def _progress(self, job: str) -> tuple[int, int]:
        seen = status(self.runs / job.removeprefix("run ")).seen
        return seen.step, seen.total


def _snakemake(arguments: list[str], root: Path, handle: int, board: Board) -> int:
    """Run Snakemake, print what its lines mean, and keep all of them in build/reproduce.log.

    The result is its exit status, or 128 and the number of the signal that stopped it.
    """
    log = root / "build" / "reproduce.log"
    log.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "snakemake", *arguments]
    with log.open("a") as file, log.open(encoding="utf-8", errors="replace") as written:
        written.seek(0, os.SEEK_END)
        said = {"stdin": subprocess.DEVNULL, "stdout": file, "stderr": subprocess.STDOUT}
        with group(command, cwd=root, pass_fds=(handle,), **said) as (process, caught):
            board.follow(_lines(written, process))
    return 128 + caught[0] if caught else process.returncode


@contextmanager
def group(command: list[str], **how: object) -> Iterator[tuple[subprocess.Popen, list[int]]]:
    """A command in a process group of its own.

    The first signal to end is passed on to the group, and the second one kills it.

    Yields it with the list of the signals caught, and of the one that killed the process itself.
    If there was one, or the block fails, the group is gone at the end of the block.
    """
    caught: list[int] = []
    process = None

    def forward(number: int, frame: object) -> None:
        caught.append(number)
        gently = signal.SIGINT if number == signal.SIGINT else signal.SIGTERM
        with suppress(ProcessLookupError):
            if process is not None:
                os.killpg(process.pid, gently if len(caught) == 1 else signal.SIGKILL)

    numbers = ending()
    before = [signal.signal(number, forward) for number in numbers]
    process = subprocess.Popen(command, process_group=0, **how)
    if caught:  # while the process began
        forward(caught.pop(), None)
    try:
        yield process, caught
    except BaseException:  # as of a closed pipe
        forward(signal.SIGTERM, None)
        raise
    finally:
        ended = process.wait()
        with suppress(ProcessLookupError):
            if ended < 0 and not caught:  # by another's signal: its jobs know nothing of it
                caught.append(-ended)
                os.killpg(process.pid, signal.SIGTERM)
            patience = time.monotonic() + PATIENCE
            while caught and time.monotonic() < patience:  # notebooks end their kernels
                os.killpg(process.pid, 0)
                time.sleep(0.1)
            if caught:
                os.killpg(process.pid, signal.SIGKILL)
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _lines(written: TextIO, process: subprocess.Popen) -> Iterator[str | None]:
    """Every line that is written until the process has ended; None at moments without one."""
    ended = False
    while not ended:
        ended = process.poll() is not None
        yield from (line.rstrip("\n") for line in written)
        time.sleep(0.2)
        yield None


@contextmanager
def workflow_lock(root: Path) -> Iterator[int]:
    """A lock on the folder that dies with the last process that holds its file descriptor.

    It takes the place of Snakemake's own lock, which outlives a process that is killed.
    """
    path = root / ".snakemake" / "reproduce.lock"
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as problem:
            raise BlockingIOError(
                "another make reproduce is at work in this folder; wait for it or stop it."
            ) from problem
        yield file.fileno()


if __name__ == "__main__":
    sys.exit(main())
