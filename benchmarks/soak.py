"""Damage every kind of file, strike at every moment, and count what becomes of it.

python benchmarks/soak.py --json benchmarks/soak.json     # everything
python benchmarks/soak.py --scale 0.02 --only mutants     # a short form of one part

An input is a damaged file, or a run that was struck at one of its file-system events: killed,
signalled, or told that the disk is full. Each ends in one of four ways:

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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from maelib import cli, config
from maelib.data import mnist, omniglot
from maelib.internal.files import sha256, write_text
from maelib.measure.evaluation import test_images
from maelib.report import claims, tables
from maelib.runs import monitor, pretrained
from maelib.runs import record as records
from maelib.runs.run import run
from maelib.runs.weights import load_model
from maelib.training.checkpoints import fingerprint
from maelib.training.state import TrainingError, restore

ROOT = Path(__file__).parents[1]
ENDS = ("refused", "survived", "wrong", "traceback")
OURS = (ValueError, OSError, FileNotFoundError, TrainingError)  # no class derived from them
DROP = object()
ODD = (
    DROP, None, True, -1, 0, 2**70, 10**400, 1e308, float("nan"), float("-inf"), "", "x",
    "../../x", "\ud800", [], [[]], {}, {"a": 1}, {"sha256": "0"},
)  # fmt: skip
CPU = torch.device("cpu")
SETTINGS = {"preset": "smoke", "dataset": "digits"}
TRAIN = ["train", "--preset", "smoke", "--dataset", "digits", "--checkpoint-minutes", "0"]


@dataclass(frozen=True)
class Reader:
    """A kind of file, and what is read from an intact one."""

    name: str
    path: Path
    read: Callable[[], object]
    good: tuple = ()  # all that may be read; empty where nothing tells what is right
    tries: int = 500


# The readers


def run_readers(folder: Path) -> list[Reader]:
    """The files of one finished run with two checkpoints, and of its exported model."""
    record, model, images = run(
        config.resolve(**SETTINGS), out_dir=folder / "runs", checkpoint_minutes=0.0, log=quiet
    )
    home = folder / "runs" / "smoke" / record.name
    bare = Path(shutil.copytree(home, folder / "bare" / "smoke" / record.name))
    shutil.rmtree(bare / "checkpoints")
    x = test_images(images.test.images[:20])
    kept = pretrained.export(model, record, x, folder / "checkpoints").path
    older = folder / "older" / f"{record.name}.json"
    older.parent.mkdir()
    content = json.loads((home / "result.json").read_text())
    older.write_text(json.dumps({k: content[k] for k in content if k not in ("sealed", "sha256")}))
    result, (_, last) = bare / "result.json", sorted((home / "checkpoints").iterdir())
    read_state = partial(restored, home / "checkpoints")
    newest, aside = read_state(), shutil.move(last, folder)
    states = (newest, read_state())
    shutil.move(aside, last)
    listed = partial(listing, home)
    both = (listed(), f"{'smoke':>7}  {record.name}  damaged")
    one = partial(weights, bare)
    exported = partial(from_export, kept)
    return [
        Reader("result.json", result, partial(records.read, result), (record,), 1500),
        Reader("results in tables", result, partial(reported, bare), (reported(bare), ""), 100),
        Reader("results without a digest", older, partial(reported, older.parent), (), 200),
        Reader("progress.json", home / "progress.json", listed, both, 600),
        Reader("state.json", last / "state.json", read_state, states, 300),
        Reader("checkpoint", last / "best.safetensors", read_state, states, 300),
        Reader("model.safetensors", bare / "model.safetensors", one, (one(),), 600),
        Reader("pretrained model", kept, exported, (exported(),), 700),
    ]


def restored(store: Path) -> tuple:
    """What training continues from."""
    state = restore(config.resolve(**SETTINGS), store, CPU)
    return state.progress, fingerprint(state.best.state_dict())


def listing(folder: Path) -> str:
    """The run's line in ``maelib runs``."""
    return monitor.status(folder).line()


def weights(folder: Path) -> str:
    """The digest of a run's model."""
    return fingerprint(load_model(folder).state_dict())


def from_export(path: Path) -> tuple:
    """A pretrained model's header and the digest of its weights."""
    found = pretrained.read_header(path)
    return found, fingerprint(found.load().state_dict())


def reported(folder: Path) -> str:
    """A table, the captions and the verdicts of the results in ``folder``; "" of none."""
    found = records.collect(folder)
    measured = tables.measured(found, [*tables.MEASURES, *tables.COLLAPSE]).to_csv()
    words = [tables.caption(found), *(r.caption() for r in found)]
    return measured + "".join(words) + str(claims.verdicts(found)) if found else ""


def data_readers(folder: Path) -> list[Reader]:
    """Small data sets in the formats of the real ones, whose published digests they are given."""
    raw, packed = folder / "MNIST" / "raw", folder / "omniglot" / "omniglot_105.npz"
    draw = np.random.default_rng(0)
    for path in (raw, packed.parent):
        path.mkdir(parents=True)
    for name in mnist.FILES:
        shape = (2100, 28, 28) if "images" in name else (2100,)
        head = b"".join(n.to_bytes(4, "big") for n in (0x800 + len(shape), *shape))
        (raw / name).write_bytes(head + draw.integers(0, 10, shape, np.uint8).tobytes())
        mnist.FILES[name] = sha256(raw / name)
    np.savez(packed, images=draw.integers(0, 256, (10, 1379), np.uint8), alphabet=np.arange(10))
    omniglot.LAKE_DIGEST = sha256(packed)
    digits, drawings = partial(loaded, folder), partial(unpacked, packed)
    return [
        Reader("IDX file of images", raw / min(mnist.FILES), digits, (digits(),), 100),
        Reader("IDX file of labels", raw / max(mnist.FILES), digits, (digits(),), 100),
        Reader("omniglot_105.npz", packed, drawings, (drawings(),), 700),
    ]


def loaded(root: Path) -> str:
    """The digest of MNIST in a folder."""
    return mnist.load([root], download=False).digest


def unpacked(path: Path) -> str:
    """The digest of Lake's drawings in a file."""
    return fingerprint(dict(zip(("drawings", "alphabets"), omniglot.read_lake(path), strict=True)))


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


def failing(number: int) -> Callable[[], None]:
    """What a disk says that is full or broken."""

    def strike() -> None:
        raise OSError(number, os.strerror(number))

    return strike


def sending(number: int) -> Callable[[], None]:
    """A signal to the process itself."""
    return lambda: os.kill(os.getpid(), number)


def shrink() -> None:
    """From now on no file may be larger than 20 kB."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))


STRIKES = {
    "SIGKILL at a file-system event": sending(signal.SIGKILL),
    "SIGTERM at a file-system event": sending(signal.SIGTERM),
    "SIGINT at a file-system event": sending(signal.SIGINT),
    "disk full at a file-system event": failing(errno.ENOSPC),
    "disk broken at a file-system event": failing(errno.EIO),
    "files larger than 20 kB refused": shrink,
}


def strikes(scale: float, number: int, folder: Path) -> Iterator[tuple[str, Counter]]:
    """How runs end that are struck at an event or started at once, and then started again."""
    calm, out, draw = folder / "calm", folder / "struck", random.Random(number)
    _, said = ended(begun(calm), calm)
    events, expected = int(said.split()[-1]), outcome(calm)
    few = STRIKES if scale >= 0.5 else dict(draw.sample(list(STRIKES.items()), 2))
    for name, act in few.items():
        places = [draw.randrange(events) for _ in range(max(1, round(2 * scale)))]
        begins = [partial(struck, out, place, act) for place in places]
        yield name, Counter(verdict(begin, out, expected) for begin in begins)
    three = [
        verdict(partial(together, out), out, expected) for _ in range(max(1, round(2 * scale)))
    ]
    yield "three starts of one run at once", Counter(three)


def struck(out: Path, event: int, act: Callable[[], None]) -> list[int]:
    """One process, and what befalls it."""
    return [begun(out, event, act)]


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


def begun(out: Path, event: int = -1, act: Callable[[], None] = lambda: None) -> int:
    """A forked process that trains in ``out``, and that ``act`` strikes at the event."""
    sys.stdout.flush()
    if process := os.fork():
        return process
    code, seen = 1, 0

    def watch(name: str, arguments: tuple) -> None:
        nonlocal seen
        if changes(name, arguments, str(out)):
            seen += 1
            if seen == event + 1:
                act()

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
    return os.waitstatus_to_exitcode(status), Path(f"{out}.{process}").read_text()


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
        published = patch.object(omniglot, "LAKE_DIGEST", omniglot.LAKE_DIGEST)
        with patch.dict(mnist.FILES), published:
            for reader in [*run_readers(folder), *data_readers(folder / "data")]:
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


def quiet(_: str) -> None:
    """Say nothing."""


if __name__ == "__main__":
    sys.exit(main())
