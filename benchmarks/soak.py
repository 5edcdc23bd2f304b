"""Break runs on purpose, and count what survives.

python benchmarks/soak.py --json soak.json      # 20 kills and every fault: some ten minutes
python benchmarks/soak.py --short               # 2 kills only

Prints a table: fault, tries, survived, lost. A kill is SIGKILL to a real ``maelib train`` at a
random (seeded) moment; the run is started again, and again killed, until it ends. It survived if
its weights, learning curves and measurements are bit for bit those of an undisturbed run. The
other faults are tests marked ``fault``, each a try; survived means that the test passed.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
Row = tuple[str, int, int]  # fault, tries, survived


def main(arguments: list[str] | None = None) -> int:
    """Run and print everything; 1 if anything was lost, else 0."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--kills", type=int, default=20)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--short", action="store_true", help="2 kills and nothing else")
    options.add_argument("--json", type=Path, help="write the table here as well")
    chosen = options.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        kills = 2 if chosen.short else chosen.kills
        rows = [soak_kills(kills, chosen.seed, Path(folder), epochs=8 if chosen.short else 60)]
        rows += [] if chosen.short else run_faults()
    print(table(rows))
    if chosen.json:
        names = ("fault", "tries", "survived")
        chosen.json.write_text(json.dumps([dict(zip(names, row, strict=True)) for row in rows]))
    return int(any(survived < tries for _, tries, survived in rows))


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [f"| {fault} | {tries} | {kept} | {tries - kept} |" for fault, tries, kept in rows]
    return "\n".join(["| fault | tries | survived | lost |", "| --- | --- | --- | --- |", *lines])


def soak_kills(kills: int, seed: int, folder: Path, epochs: int) -> Row:
    """Kill runs until ``kills`` are done; those of a run that ends differently are lost."""
    draw = random.Random(seed)
    calm = start(folder / "calm", epochs)
    wait_for_training(calm)
    begun = time.monotonic()
    calm.communicate()
    longest = time.monotonic() - begun
    expected = outcome(folder / "calm")
    done = survived = tries = 0
    while done < kills:
        out, tries = folder / f"run{tries}", tries + 1
        killed = kill_until_finished(out, epochs, kills - done, draw, longest)
        done += killed
        survived += killed if outcome(out) == expected else 0
    return "SIGKILL, then the same command", done, survived


def kill_until_finished(
    out: Path, epochs: int, most: int, draw: random.Random, longest: float
) -> int:
    """Start a run until it finishes, killing it at most ``most`` times; how often it was killed."""
    killed = 0
    while True:
        process = start(out, epochs)
        if killed < most and wait_for_training(process):
            try:
                process.communicate(timeout=draw.uniform(0, longest))
            except subprocess.TimeoutExpired:
                process.kill()
                killed += 1
        process.communicate()
        if process.returncode == 0:
            return killed
        if process.returncode > 0:
            raise RuntimeError(f"maelib train failed with status {process.returncode}.")


def start(out: Path, epochs: int) -> subprocess.Popen:
    """A real training process that saves about ten times a second."""
    options = f"--preset smoke --dataset digits --epochs {epochs} --checkpoint-minutes 0.0015"
    command = [sys.executable, "-u", "-m", "maelib", "train", *options.split(), "--out-dir", out]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def wait_for_training(process: subprocess.Popen) -> bool:
    """Read its output up to where it trains; False if it ended before that."""
    return any(line.startswith("training on") for line in process.stdout)


def outcome(out: Path) -> tuple:
    """What must not depend on how often a run was killed."""
    (folder,) = out.glob("*/*/")
    record = json.loads((folder / "result.json").read_text())
    numbers = [record[name] for name in ("measurements", "history", "per_image", "dimensions")]
    return json.dumps(numbers), (folder / "model.safetensors").read_bytes()


def run_faults() -> list[Row]:
    """Run the tests that are marked ``fault``, and count them by the fault that they name."""
    counter = Counter()
    status = pytest.main(["-q", "-m", "fault", str(ROOT / "tests")], [counter])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"pytest failed with status {status}.")
    return [(fault, len(tests), sum(tests.values())) for fault, tests in counter.passed.items()]


class Counter:
    """A pytest plugin that keeps whether each test passed, by its fault and its name."""

    def __init__(self):
        self.passed: dict[str, dict[str, bool]] = defaultdict(dict)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Iterator[None]:
        report = yield
        if report.failed or (report.passed and report.when == "call"):
            fault = item.get_closest_marker("fault").args[0]
            self.passed[fault][item.nodeid] = report.passed
        return report


if __name__ == "__main__":
    sys.exit(main())
