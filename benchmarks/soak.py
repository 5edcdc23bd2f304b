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
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from soak_files import OK, SETTINGS, Reader, every_reader

from maelib import cli
from maelib.internal.files import write_text
from maelib.runs import record as records
from maelib.training.state import TrainingError

ROOT = Path(__file__).parents[1]
ENDS = ("refused", "survived", "wrong", "traceback")
OURS = (ValueError, OSError, FileNotFoundError, TrainingError)  # no class derived from them
DROP = object()
ODD = (
    DROP, None, True, -1, 0, 2**70, 10**400, 1e308, float("nan"), float("-inf"), "", "x",
    "../../x", "\ud800", [], [[]], {}, {"a": 1}, {"sha256": "0"},
)  # fmt: skip
STATUS = (b"200 OK", b"206 Part", b"302 Found", b"304 As before", b"404 No", b"500 No", b"two", b"")
HEADERS = (
    b"Content-Length: 7", b"Content-Length: ten", b"Content-Length: -7", b"Content-Encoding: gzip",
    b"Transfer-Encoding: chunked", b"Location: http://[::1", b"Location: ftp://localhost/x",
    b"Location: /again", b"X: " + b"x" * 10**6, b"\xff",
)  # fmt: skip
TRAIN = ["train", *(f"--{name}={value}" for name, value in SETTINGS.items())]
TRAIN += ["--checkpoint-minutes=0", "--train-images=60", "--test-images=10"]  # three steps


# The mutants


def mutate(reader: Reader, tries: int, number: int) -> Counter:
    """How reading ends with ``tries`` damaged forms of a file."""
    intact, ends = reader.path.read_bytes(), Counter()

    @seed(number)
    @settings(
        max_examples=tries, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(damaged(intact))
    def attempt(mutant: bytes) -> None:
        reader.path.write_bytes(mutant)
        ends[judged(reader)] += 1

    attempt()
    reader.path.write_bytes(intact)
    return ends


def judged(reader: Reader) -> str:
    """How one reading ends."""
    try:
        with warnings.catch_warnings(action="ignore"):
            found = reader.read()
    except Exception as problem:
        return "refused" if type(problem) in OURS and is_sentence(str(problem)) else "traceback"
    return "survived" if not reader.good or found in reader.good else "wrong"


def is_sentence(text: str) -> bool:
    """Whether an error is one line that ends as a sentence does."""
    return len(text.splitlines()) == 1 and text.endswith(".")


def damaged(intact: bytes) -> st.SearchStrategy[bytes]:
    """Files that differ from an intact one: in a bit, a piece, or for JSON in a value."""
    place, size = st.integers(0, len(intact) - 1), st.integers(1, 64)
    early = st.integers(0, min(len(intact) - 1, 3000))  # where headers are
    ways = [
        st.builds(lambda at, bit: splice(intact, at, 1, bytes([intact[at] ^ 1 << bit])),
                  place | early, st.integers(0, 7)),
        st.builds(lambda at: intact[:at], place | early),
        st.builds(lambda at, n: splice(intact, at, n, b""), place | early, size),
        st.builds(lambda at, new: splice(intact, at, len(new), new), place | early,
                  st.binary(min_size=1, max_size=64)),
        st.builds(lambda at, new: splice(intact, at, 0, new), place | early,
                  st.sampled_from([b"{", b"[" * 5000, b"\0", b'"', b"\xff", b"9" * 400, b"NaN"])),
        st.builds(lambda at, other: splice(intact, at, 64, intact[other:][:64]), place, place),
    ]  # fmt: skip
    if intact[:1] == b"{":
        ways.append(st.builds(partial(edited, intact), st.integers(0), st.sampled_from(ODD)))
    if intact[:5] == OK[:5]:
        headers = st.lists(st.sampled_from(HEADERS), max_size=3).map(
            lambda lines: [*lines, b"", b""]
        )
        status = st.sampled_from(STATUS).map(lambda words: b"HTTP/1.1 " + words)
        ways.append(st.builds(lambda *parts: b"\r\n".join([parts[0], *parts[1]]), status, headers))
    return st.one_of(ways)


def splice(content: bytes, at: int, lost: int, new: bytes) -> bytes:
    """``content`` with ``new`` in place of ``lost`` bytes at ``at``."""
    return content[:at] + new + content[at + lost :]


def edited(intact: bytes, number: int, odd: object) -> bytes:
    """JSON with one of its values replaced or dropped."""
    content = json.loads(intact)
    holder, key = (places := list(slots(content)))[number % len(places)]
    if odd is DROP:
        del holder[key]
    else:
        holder[key] = odd
    return json.dumps(content).encode()


def slots(content: object) -> Iterator[tuple]:
    """Every place of a value in JSON: its container and its key; few of a long list."""
    found = content.items() if isinstance(content, dict) else enumerate(content[:3])
    for key, value in list(found):
        yield content, key
        if isinstance(value, (dict, list)):
            yield from slots(value)


# The strikes


def failing(number: int, event: str) -> None:
    """What a disk says that is full or broken; what is there may still be deleted."""
    if event in ("open", "os.mkdir", "os.rename"):
        raise OSError(number, os.strerror(number))


def sending(number: int, _: str) -> None:
    """A signal to the process itself."""
    os.kill(os.getpid(), number)


def shrink(size: int, _: str) -> None:
    """From now on no file may be larger than ``size`` bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


# What is struck, with what, and at how many of the file-system events.
STRIKES = {
    "SIGKILL at a file-system event": (partial(sending, signal.SIGKILL), 1.0),
    "SIGTERM at a file-system event": (partial(sending, signal.SIGTERM), 0.2),
    "SIGINT at a file-system event": (partial(sending, signal.SIGINT), 0.2),
    "disk broken at a file-system event": (partial(failing, errno.EIO), 0.2),
    "disk full from a file-system event": (partial(failing, errno.ENOSPC), 0.2),
    "no file larger than 5 kB": (partial(shrink, 5_000), 0.05),
    "no file larger than 20 kB": (partial(shrink, 20_000), 0.05),
    "no file larger than 200 kB": (partial(shrink, 200_000), 0.05),
}
LASTING = {"disk full from a file-system event"}


def strikes(scale: float, number: int, folder: Path) -> Iterator[tuple[str, Counter]]:
    """How runs end that are struck at an event or started at once, and then started again."""
    calm, out, draw = folder / "calm", folder / "struck", random.Random(number)
    _, said = ended(begun(calm), calm)
    events, expected = int(said.split()[-1]), outcome(calm)
    few = STRIKES if scale >= 0.5 else dict(draw.sample(list(STRIKES.items()), 2))
    for name, (act, share) in few.items():
        places = draw.sample(range(events), max(1, round(scale * share * events)))
        begins = [partial(struck, out, place, act, name in LASTING) for place in places]
        yield name, Counter(verdict(begin, out, expected) for begin in begins)
    thrice = [partial(together, out)] * max(1, round(5 * scale))
    yield "three starts at once", Counter(verdict(begin, out, expected) for begin in thrice)


def struck(out: Path, event: int, act: Callable[[str], None], lasting: bool) -> list[int]:
    """One process, and what befalls it."""
    return [begun(out, event, act, lasting)]


def together(out: Path) -> list[int]:
    """Three processes that train the same run."""
    return [begun(out) for _ in range(3)]


def verdict(begin: Callable[[], list[int]], out: Path, expected: tuple) -> str:
    """How a run ended that ``begin`` starts one or several times, after one more start."""
    those = [ended(process, out) for process in begin()]
    those.append(ended(begun(out), out))
    stopped = (0, 2, 130, -signal.SIGKILL, -signal.SIGTERM)
    raw = [said for code, said in those if code not in stopped or "Traceback" in said]
    if raw or those[-1][0]:
        print(*raw or those[-1], sep="\n", file=sys.stderr)
        return "traceback"
    same = outcome(out) == expected
    shutil.rmtree(out)
    return "survived" if same else "wrong"


def begun(
    out: Path, event: int | None = None, act: Callable[[str], object] = str, lasting: bool = False
) -> int:
    """A forked process that trains in ``out``, and that ``act`` strikes at, or from, the event."""
    sys.stdout.flush()
    if process := os.fork():
        return process
    code, seen = 1, 0

    def watch(name: str, arguments: tuple) -> None:
        nonlocal seen
        if changes(name, arguments, str(out)):
            seen += 1
            if event is not None and (seen > event if lasting else seen == event + 1):
                act(name)

    output = os.open(f"{out}.{os.getpid()}", os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.addaudithook(watch)
    try:
        code = cli.main([*TRAIN, "--out-dir", str(out)])
        print(seen)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def ended(process: int, out: Path) -> tuple[int, str]:
    """Exit status and output of a process that ``begun`` gave."""
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status), Path(f"{out}.{process}").read_text(encoding="utf-8")


def changes(name: str, arguments: tuple, folder: str) -> bool:
    """Whether an audit event changes a file below ``folder``."""
    if name == "open":
        writes = arguments[2] & (os.O_WRONLY | os.O_RDWR)
    else:
        writes = name in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")
    return bool(writes) and str(arguments[0]).startswith(folder + os.sep)


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
    """Every row: what was done, and how it ended; ``scale`` 1 is some 5,000 inputs."""
    if only in ("", "mutants"):
        with every_reader(folder) as readers:
            for reader in readers:
                tries = max(1, round(reader.tries * scale))
                yield f"damaged {reader.name}", mutate(reader, tries, number)
    if only in ("", "strikes"):
        yield from strikes(scale, number, folder)
    if only in ("", "tests"):
        counter, plain = Tests(), ["-p", "no:jaxtyping", "-o", "addopts="]
        pytest.main(["-q", "-m", "fault", *plain, str(ROOT / "tests")], [counter])
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
