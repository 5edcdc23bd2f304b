"""Damage every kind of file, strike at every moment, and count what becomes of it.

python benchmarks/soak.py --json benchmarks/soak.json     # everything
python benchmarks/soak.py --scale 0.02 --only mutants     # a short form of one part

docs/reliability.md says what an input is and how it may end. Hypothesis makes the damaged files,
and a seed chooses the moments. The parts run side by side, and JSON is written of what is complete.
"""

import argparse
import errno
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import count
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from soak_files import KINDS, OK, Reader, noise

from maelib import cli
from maelib.internal.files import write_text
from maelib.runs import record as records
from maelib.training.state import TrainingError

ENDS = ("refused", "survived", "wrong", "traceback")
OURS = (ValueError, OSError, FileNotFoundError, TrainingError)  # no class derived from them
FORK = get_context("fork")
Rows = Iterator[tuple[str, Counter]]  # what was done, and how often it ended in which way

DROP = object()
ODD = (
    DROP, None, True, -1, 0, 2**70, 10**400, 1e308, float("nan"), float("-inf"), "", "x",
    "../../x", "\ud800", [], [[]], {}, {"a": 1}, {"sha256": "0"},
)  # fmt: skip
PIECES = (b"", b"{", b"[" * 5000, b"\0", b'"', b"\xff", b"9" * 400, b"NaN")
REPLY = (  # lines of the head of a server's reply
    b"200 OK", b"206 Part", b"302 Found", b"304 As before", b"404 No", b"500 No", b"two", b"",
    b"Content-Length: 7", b"Content-Length: ten", b"Content-Length: -7", b"Content-Encoding: gzip",
    b"Transfer-Encoding: chunked", b"Location: http://[::1", b"Location: ftp://localhost/x",
    b"Location: /again", b"X: " + b"x" * 10**6, b"\xff",
)  # fmt: skip


def mutants(scale: float, number: int, folder: Path) -> Rows:
    """How reading ends with damaged forms of every kind of file."""
    with pytest.MonkeyPatch.context() as change:
        for kind in KINDS:
            for reader in kind(folder / kind.__name__, change):
                tries = max(1, round(reader.tries * scale))
                yield f"damaged {reader.name}", mutate(reader, tries, number)


def mutate(reader: Reader, tries: int, number: int) -> Counter:
    """How reading ends with ``tries`` damaged forms of a file."""
    intact, right, ends = reader.path.read_bytes(), [reader.read()], Counter()
    reader.path.write_bytes(b"")
    how, of_nothing = end(reader)  # as if there were no such file
    right += [of_nothing] if how == "read" else []

    @seed(number)
    @settings(
        max_examples=tries, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(damaged(intact))
    def attempt(mutant: bytes) -> None:
        reader.path.write_bytes(mutant)
        how, found = end(reader)
        is_right = not reader.has_digest or found in right
        ends[how if how != "read" else "survived" if is_right else "wrong"] += 1

    attempt()
    reader.path.write_bytes(intact)
    return ends


def end(reader: Reader) -> tuple[str, object]:
    """How one reading ends, and what was read or went wrong."""
    try:
        with warnings.catch_warnings(action="ignore"):
            return "read", reader.read()
    except Exception as problem:
        is_sentence = re.fullmatch(r".*\.", str(problem)) and type(problem) in OURS
        return "refused" if is_sentence else "traceback", problem


def damaged(intact: bytes) -> st.SearchStrategy[bytes]:
    """Files that differ from an intact one: in a bit, in a piece, or for JSON in a value."""
    anywhere = st.integers(0, len(intact) - 1)
    at = anywhere | st.integers(0, min(len(intact), 3000) - 1)  # more often where headers are
    lost = st.integers(0, 64) | st.just(len(intact))
    new = st.sampled_from(PIECES) | st.binary(max_size=64) | anywhere.map(lambda a: intact[a:][:64])

    def splice(at: int, lost: int, new: bytes) -> bytes:
        return intact[:at] + new + intact[at + lost :]

    def flip(at: int, bit: int) -> bytes:
        return splice(at, 1, bytes([intact[at] ^ 1 << bit]))

    ways = [st.builds(flip, at, st.integers(0, 7)), st.builds(splice, at, lost, new)]
    if intact.startswith(b"{"):
        ways.append(st.builds(partial(edit, intact), st.integers(0), st.sampled_from(ODD)))
    if intact.startswith(OK):
        lines = st.lists(st.sampled_from(REPLY), min_size=1, max_size=4)
        ways.append(lines.map(lambda lines: b"HTTP/1.1 " + b"\r\n".join([*lines, b"", b""])))
    return st.one_of(ways)


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
    for key, value in content.items() if isinstance(content, dict) else enumerate(content[:3]):
        yield content, key
        if isinstance(value, (dict, list)):
            yield from slots(value)


def once(act: Callable, *arguments: object) -> Callable[[str, int], None]:
    """A strike that does something at its first event."""
    return lambda _, late: None if late else act(*arguments)


def failing(number: int, lasts: bool, event: str, late: int) -> None:
    """A strike as of a disk that is full or broken; what is there may still be deleted."""
    if event in ("open", "os.mkdir", "os.rename") and (lasts or not late):
        raise OSError(number, os.strerror(number))


def limited(size: int) -> Callable[[str, int], None]:
    """A strike from which on no file may be larger than ``size`` bytes."""
    return once(resource.setrlimit, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


# A strike is told of every event from its first one on, and of how many it has seen. With each
# stands at how many of a run's events it begins.
STRIKES = {
    "SIGKILL at a file-system event": (once(signal.raise_signal, signal.SIGKILL), 1.0),
    "SIGTERM at a file-system event": (once(signal.raise_signal, signal.SIGTERM), 0.2),
    "SIGINT at a file-system event": (once(signal.raise_signal, signal.SIGINT), 0.2),
    "disk broken at a file-system event": (partial(failing, errno.EIO, False), 0.2),
    "disk full from a file-system event": (partial(failing, errno.ENOSPC, True), 0.2),
    "no file larger than 5 kB": (limited(5_000), 0.05),
    "no file larger than 20 kB": (limited(20_000), 0.05),
    "no file larger than 100 kB": (limited(100_000), 0.05),
}
EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")
TRAIN = (
    "train", "--preset=smoke", "--epochs=2", "--train-images=20", "--checkpoint-minutes=0",
    "--decoder=resnet", "--prior=normal",
)  # fmt: skip


def strikes(scale: float, number: int, folder: Path) -> Rows:
    """How runs end that are struck or started at once, and then started again."""
    np.save(folder / "own.npy", noise(40, 16, 16))
    calm, out, draw = folder / "calm", folder / "struck", random.Random(number)
    events = int(ended(begun(calm), calm)[1].split()[-1])
    for name, (strike, share) in STRIKES.items():
        places = draw.sample(range(events), max(1, round(scale * share * events)))
        yield name, Counter(verdict(out, calm, 1, at, strike) for at in places)
    starts = range(max(1, round(5 * scale)))
    yield "three starts at once", Counter(verdict(out, calm, 3) for _ in starts)


def begun(out: Path, at: int = 0, strike: Callable = lambda *_: None) -> BaseProcess:
    """A forked process that trains in ``out``, and is struck from the event ``at`` on."""
    process = FORK.Process(target=train, args=(out, at, strike))
    process.start()
    return process


def train(out: Path, at: int, strike: Callable[[str, int], None]) -> None:
    """Train in ``out`` and end the process; its last words are the number of events."""
    said = os.open(f"{out}.{os.getpid()}", os.O_WRONLY | os.O_CREAT)
    os.dup2(said, 1), os.dup2(said, 2)
    events = count(-at)

    def watch(name: str, arguments: tuple) -> None:
        if name in EVENTS and str(arguments[0]).startswith(f"{out}{os.sep}"):
            reads = name == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if not reads and (late := next(events)) >= 0:
                strike(name, late)

    sys.addaudithook(watch)
    code = cli.main([*TRAIN, f"--dataset={out.with_name('own.npy')}", f"--out-dir={out}"])
    print(next(events))
    sys.exit(code)


def ended(process: BaseProcess, out: Path) -> tuple[int, str]:
    """Exit status and output of a process that ``begun`` gave."""
    process.join()
    return process.exitcode, Path(f"{out}.{process.pid}").read_text(encoding="utf-8")


def verdict(out: Path, calm: Path, starts: int, *struck: object) -> str:
    """How a run ends that is begun so often at once, is struck, and is then begun once more."""
    processes = [begun(out, *struck) for _ in range(starts)]
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


def tests(_: float, __: int, folder: Path) -> Rows:
    """How the tests marked ``fault`` end, by what they break."""
    report, rows, root = folder / "tests.xml", {}, Path(__file__).parents[1]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "fault", f"--junitxml={report}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if subprocess.run([*command, "tests"], cwd=root, env=environment).returncode > 1:
        raise RuntimeError("the tests were not run to their end")
    for case in ElementTree.parse(report).iter("testcase"):
        faults = [p.get("value") for p in case.iter("property") if p.get("name") == "fault"]
        for fault in faults if case.find("skipped") is None else []:
            failed = any(case.find(how) is not None for how in ("failure", "error"))
            rows.setdefault(f"tests: {fault}", Counter())["wrong" if failed else "survived"] += 1
    yield from rows.items()


PARTS = {part.__name__: part for part in (mutants, strikes, tests)}


def counted(part: str, *how: object) -> list[dict]:
    """The rows of a part, each of which is printed as soon as it is there."""
    rows = []
    for name, ends in PARTS[part](*how):
        rows.append({"fault": name, "tried": ends.total()} | {end: ends[end] for end in ENDS})
        print(*rows[-1].values(), sep=" | ", flush=True)
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Run and print everything; 1 if anything was wrong or ended in a traceback, else 0."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--scale", type=float, default=1.0, help="of the number of inputs")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--only", choices=PARTS)
    options.add_argument("--json", type=Path, help="write the rows here as well")
    chosen = options.parse_args(arguments)
    torch.set_num_threads(1)
    parts = [chosen.only] if chosen.only else list(PARTS)
    with tempfile.TemporaryDirectory() as name, ProcessPoolExecutor(len(parts), FORK) as pool:
        how = chosen.scale, chosen.seed, Path(name)
        begun_parts = [pool.submit(counted, part, *how) for part in parts]
        rows = [row for part in begun_parts for row in part.result()]
    if chosen.json:
        write_text(chosen.json, json.dumps(rows, indent=1) + "\n")
    return int(any(row["wrong"] + row["traceback"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
