"""Damage every kind of file, strike at every moment, and count what becomes of it.

python benchmarks/soak.py --json benchmarks/soak.json     # everything
python benchmarks/soak.py --scale 0.02 --only mutants     # a short form of one part

An input is a damaged file, a bad reply of a server, or a run that was struck at one of its
file-system events: killed, signalled, or told that the disk is full. Each ends in one of four ways:

refused     an error of one sentence
survived    what is read, or what the run ends with, is what it would have been without the fault
wrong       something else is read, or something is lost
traceback   a foreign exception

The last two must not occur. Hypothesis makes the damaged files, and a seed chooses the moments.
The tests marked ``fault`` are counted as well.
"""

import argparse
import errno
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from soak_files import OK, Reader, every_reader, noise

from maelib import cli
from maelib.internal.files import write_text
from maelib.runs import record as records
from maelib.training.state import TrainingError

ROOT = Path(__file__).parents[1]
ENDS = ("refused", "survived", "wrong", "traceback")
OURS = (ValueError, OSError, FileNotFoundError, TrainingError)  # no class derived from them


# The mutants

DROP = object()
ODD = (
    DROP, None, True, -1, 0, 2**70, 10**400, 1e308, float("nan"), float("-inf"), "", "x",
    "../../x", "\ud800", [], [[]], {}, {"a": 1}, {"sha256": "0"},
)  # fmt: skip
PIECES = (b"", b"{", b"[" * 5000, b"\0", b'"', b"\xff", b"9" * 400, b"NaN")
STATUS = (b"200 OK", b"206 Part", b"302 Found", b"304 As before", b"404 No", b"500 No", b"two", b"")
HEADERS = (
    b"Content-Length: 7", b"Content-Length: ten", b"Content-Length: -7", b"Content-Encoding: gzip",
    b"Transfer-Encoding: chunked", b"Location: http://[::1", b"Location: ftp://localhost/x",
    b"Location: /again", b"X: " + b"x" * 10**6, b"\xff",
)  # fmt: skip


def mutate(reader: Reader, tries: int, number: int) -> Counter:
    """How reading ends with ``tries`` damaged forms of a file."""
    intact, right, ends = reader.path.read_bytes(), [reader.read(), *reader.also], Counter()

    @seed(number)
    @settings(
        max_examples=tries, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(damaged(intact))
    def attempt(mutant: bytes) -> None:
        reader.path.write_bytes(mutant)
        ends[judged(reader, right)] += 1

    attempt()
    reader.path.write_bytes(intact)
    return ends


def judged(reader: Reader, right: list) -> str:
    """How one reading ends."""
    try:
        with warnings.catch_warnings(action="ignore"):
            found = reader.read()
    except Exception as problem:
        return "refused" if type(problem) in OURS and is_sentence(str(problem)) else "traceback"
    return "survived" if not reader.has_digest or found in right else "wrong"


def is_sentence(text: str) -> bool:
    """Whether an error is one line that ends as a sentence does."""
    return len(text.splitlines()) == 1 and text.endswith(".")


def damaged(intact: bytes) -> st.SearchStrategy[bytes]:
    """Files that differ from an intact one: in a bit, in a piece, or for JSON in a value."""
    anywhere = st.integers(0, len(intact) - 1)
    at = anywhere | st.integers(0, min(len(intact), 3000) - 1)  # more often where headers are
    lost = st.integers(0, 64) | st.just(len(intact))
    copied = st.builds(lambda at: intact[at:][:64], anywhere)
    new = st.sampled_from(PIECES) | st.binary(max_size=64) | copied
    ways = [
        st.builds(partial(flip, intact), at, st.integers(0, 7)),
        st.builds(partial(splice, intact), at, lost, new),
    ]
    if intact.startswith(b"{"):
        ways.append(st.builds(partial(edit, intact), st.integers(0), st.sampled_from(ODD)))
    if intact.startswith(OK):
        headers = st.lists(st.sampled_from(HEADERS), max_size=3)
        ways.append(st.builds(reply, st.sampled_from(STATUS), headers))
    return st.one_of(ways)


def flip(content: bytes, at: int, bit: int) -> bytes:
    """``content`` with one bit changed."""
    return splice(content, at, 1, bytes([content[at] ^ 1 << bit]))


def splice(content: bytes, at: int, lost: int, new: bytes) -> bytes:
    """``content`` with ``new`` in place of ``lost`` bytes at ``at``."""
    return content[:at] + new + content[at + lost :]


def edit(intact: bytes, number: int, odd: object) -> bytes:
    """JSON with one of its values replaced or dropped."""
    places = list(slots(content := json.loads(intact)))
    holder, key = places[number % len(places)]
    holder[key] = odd
    if odd is DROP:
        del holder[key]
    return json.dumps(content).encode()


def slots(content: dict | list) -> Iterator[tuple]:
    """Every place of a value in JSON: its container and its key; few of a long list."""
    for key in list(content) if isinstance(content, dict) else range(min(3, len(content))):
        yield content, key
        if isinstance(content[key], (dict, list)):
            yield from slots(content[key])


def reply(status: bytes, headers: list[bytes]) -> bytes:
    """What a server may say, without a body."""
    return b"\r\n".join([b"HTTP/1.1 " + status, *headers, b"", b""])


# The strikes: each is told of every event from that at which it begins, and of how many it missed.


def sending(number: int, _: str, late: int) -> None:
    """A signal to the process itself."""
    if not late:
        os.kill(os.getpid(), number)


def failing(number: int, lasts: bool, event: str, late: int) -> None:
    """What a disk says that is full or broken; what is there may still be deleted."""
    if event in ("open", "os.mkdir", "os.rename") and (lasts or not late):
        raise OSError(number, os.strerror(number))


def shrinking(size: int, _: str, late: int) -> None:
    """From now on no file may be larger than ``size`` bytes."""
    if not late:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


STRIKES = {  # with what, and beginning at how many of the events
    "SIGKILL at a file-system event": (partial(sending, signal.SIGKILL), 1.0),
    "SIGTERM at a file-system event": (partial(sending, signal.SIGTERM), 0.2),
    "SIGINT at a file-system event": (partial(sending, signal.SIGINT), 0.2),
    "disk broken at a file-system event": (partial(failing, errno.EIO, False), 0.2),
    "disk full from a file-system event": (partial(failing, errno.ENOSPC, True), 0.2),
    "no file larger than 5 kB": (partial(shrinking, 5_000), 0.05),
    "no file larger than 20 kB": (partial(shrinking, 20_000), 0.05),
    "no file larger than 100 kB": (partial(shrinking, 100_000), 0.05),
}
TRAIN = (
    "--preset=smoke", "--epochs=2", "--train-images=20", "--checkpoint-minutes=0",
    "--decoder=resnet", "--prior=normal",
)  # fmt: skip


def strikes(scale: float, number: int, folder: Path) -> Iterator[tuple[str, Counter]]:
    """How runs end that are struck or started at once, and then started again."""
    np.save(folder / "own.npy", noise(40, 16, 16))
    calm, out, draw = folder / "calm", folder / "struck", random.Random(number)
    events = int(ended(begun(calm), calm)[1].split()[-1])
    for name, (strike, share) in STRIKES.items():
        places = draw.sample(range(events), max(1, round(scale * share * events)))
        yield name, Counter(verdict([begun(out, at, strike)], out, calm) for at in places)
    starts = range(max(1, round(5 * scale)))
    yield (
        "three starts at once",
        Counter(verdict([begun(out) for _ in range(3)], out, calm) for _ in starts),
    )


def begun(out: Path, at: int = 0, strike: Callable = lambda *_: None) -> BaseProcess:
    """A forked process that trains in ``out``, and is struck from the event ``at`` on."""
    process = multiprocessing.get_context("fork").Process(target=train, args=(out, at, strike))
    process.start()
    return process


def train(out: Path, at: int, strike: Callable[[str, int], None]) -> None:
    """Train in ``out`` and end the process; its last words are the number of events."""
    said = os.open(f"{out}.{os.getpid()}", os.O_WRONLY | os.O_CREAT)
    os.dup2(said, 1), os.dup2(said, 2)
    events = count(-at)

    def watch(name: str, arguments: tuple) -> None:
        if changes(name, arguments, str(out)) and (late := next(events)) >= 0:
            strike(name, late)

    sys.addaudithook(watch)
    pictures = out.with_name("own.npy")
    code = cli.main(["train", *TRAIN, f"--dataset={pictures}", f"--out-dir={out}"])
    print(next(events))
    sys.exit(code)


def changes(name: str, arguments: tuple, folder: str) -> bool:
    """Whether an audit event changes a file below ``folder``."""
    if name == "open":
        writes = arguments[2] & (os.O_WRONLY | os.O_RDWR)
    else:
        writes = name in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")
    return bool(writes) and str(arguments[0]).startswith(folder + os.sep)


def ended(process: BaseProcess, out: Path) -> tuple[int, str]:
    """Exit status and output of a process that ``begun`` gave."""
    process.join()
    return process.exitcode, Path(f"{out}.{process.pid}").read_text(encoding="utf-8")


def verdict(processes: list[BaseProcess], out: Path, calm: Path) -> str:
    """How the run of some processes ends, which is then started once more."""
    those = [*(ended(process, out) for process in processes), ended(begun(out), out)]
    stopped = (0, 2, 130, -signal.SIGKILL, -signal.SIGTERM)
    raw = [said for code, said in those if code not in stopped or "Traceback" in said]
    if raw or those[-1][0]:
        print(*raw or those[-1], sep="\n", file=sys.stderr)
        return "traceback"
    same = outcome(out) == outcome(calm)
    shutil.rmtree(out)
    return "survived" if same else "wrong"


def outcome(out: Path) -> tuple:
    """What must not depend on strikes."""
    (folder,) = out.glob("*/*/")
    record = records.read(folder / "result.json")
    numbers = (record.measurements, record.history, record.per_image, record.dimensions)
    partials = [path.name for path in folder.rglob("*.part")]
    return numbers, record.model, (folder / "model.safetensors").read_bytes(), partials


# The tests


class Tests:
    """A pytest plugin that counts the tests marked ``fault`` by what they break."""

    def __init__(self):
        self.rows: dict[str, Counter] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.names = {i.nodeid: i.get_closest_marker("fault").args[0] for i in session.items}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed or (report.passed and report.when == "call"):
            ends = self.rows.setdefault(f"tests: {self.names[report.nodeid]}", Counter())
            ends["survived" if report.passed else "wrong"] += 1


# All of it


def soak(scale: float, number: int, folder: Path, only: str = "") -> Iterator[tuple[str, Counter]]:
    """Every row: what was done, and how it ended; ``scale`` 1 is some 7,000 inputs."""
    if only in ("", "mutants"):
        for reader in every_reader(folder):
            tries = max(1, round(reader.tries * scale))
            yield f"damaged {reader.name}", mutate(reader, tries, number)
    if only in ("", "strikes"):
        yield from strikes(scale, number, folder)
    if only in ("", "tests"):
        counter, plain = Tests(), ["-p", "no:jaxtyping", "-o", "addopts="]
        loaded = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # modules, before the tests
        pytest.main(["-q", "-m", "fault", *plain, *loaded, str(ROOT / "tests")], [counter])
        yield from counter.rows.items()


def main(arguments: list[str] | None = None) -> int:
    """Run and print everything; 1 if anything was wrong or ended in a traceback, else 0."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--scale", type=float, default=1.0, help="of the number of inputs")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--only", default="", choices=("", "strikes", "mutants", "tests"))
    options.add_argument("--json", type=Path, help="write the rows here as well")
    chosen = options.parse_args(arguments)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, ends in soak(chosen.scale, chosen.seed, Path(folder), chosen.only):
            rows.append({"fault": name, "tried": ends.total()} | {end: ends[end] for end in ENDS})
            print(*rows[-1].values(), sep=" | ", flush=True)
            if chosen.json:
                write_text(chosen.json, json.dumps(rows, indent=1) + "\n")
    return int(any(row["wrong"] + row["traceback"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
