"""Break runs on purpose, and count what survives.

python benchmarks/soak.py --json soak.json      # 20 kills and every fault: some ten minutes
python benchmarks/soak.py --short               # 2 kills only

Prints a table: fault, tries, survived, lost. A kill is SIGKILL to a real ``maelib train`` at a
random (seeded) moment; the run is started again, and again killed, until it ends. It survived if
its weights, learning curves and measurements are bit for bit those of a run left in peace. The
other faults are those of the tests, each a try; survived means that the test passed.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).parents[1]
FAULTS = {  # fault: words in the names of its tests
    "checkpoint truncated or corrupted": ("damaged_checkpoint",),
    "disk full": ("disk_full", "cannot_be_written_whole"),
    "read-only output": ("read_only", "unwritable"),
    "two processes, one run": ("second_process",),
    "garbage among results": ("garbage", "damaged_result", "foreign_results"),
    "NaN at step n": ("nan_", "bad_step"),
    "out of memory": ("out_of_memory",),
    "Ctrl-C, SIGTERM, time is up": ("interrupting", "stopped_and_continued", "max_minutes"),
    "data file altered": ("truncated_mnist", "unpacked_and_checked"),
    "download cut half-way": ("download",),
}
Row = tuple[str, int, int]  # fault, tries, survived


def main(arguments: list[str] | None = None) -> int:
    """Run everything; 1 if anything was lost, else 0."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--kills", type=int, default=20)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--short", action="store_true", help="2 kills and nothing else")
    options.add_argument("--json", type=Path, help="write the table here as well")
    chosen = options.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        kills = 2 if chosen.short else chosen.kills
        rows = [soak_kills(kills, chosen.seed, Path(folder), epochs=8 if chosen.short else 60)]
        rows += [] if chosen.short else run_faults(Path(folder))
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
    """Start a run as often as it takes, killing it at most ``most`` times; how often it was."""
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
    smoke = ["--preset", "smoke", "--dataset", "digits", "--epochs", str(epochs)]
    command = [sys.executable, "-u", "-m", "maelib", "train", *smoke, "--out-dir", str(out)]
    more = ["--checkpoint-minutes", "0.0015"]
    return subprocess.Popen([*command, *more], stdout=subprocess.PIPE, text=True, cwd=ROOT)


def wait_for_training(process: subprocess.Popen) -> bool:
    """Read its output up to where it trains; False if it ended before."""
    return any(line.startswith("training on") for line in process.stdout)


def outcome(out: Path) -> tuple:
    """What must not depend on how often a run was killed."""
    (folder,) = out.glob("*/*/")
    record = json.loads((folder / "result.json").read_text())
    numbers = [record[name] for name in ("measurements", "history", "samples", "dimensions")]
    return json.dumps(numbers), (folder / "model.safetensors").read_bytes()


def run_faults(folder: Path) -> list[Row]:
    """Run the tests of faults, and count them by fault."""
    files = [f"tests/test_{name}.py" for name in ("faults", "runs", "data")]
    words = sorted({word for words in FAULTS.values() for word in words})
    report = folder / "report.xml"
    command = ["-m", "pytest", "-q", *files, "-k", " or ".join(words), f"--junitxml={report}"]
    subprocess.run([sys.executable, *command], cwd=ROOT, stdout=subprocess.DEVNULL)
    cases = list(ElementTree.parse(report).iter("testcase"))
    ran = {case.get("name"): len(case) == 0 for case in cases if case.find("skipped") is None}
    return [count(fault, words, ran) for fault, words in FAULTS.items()]


def count(fault: str, words: tuple[str, ...], ran: dict[str, bool]) -> Row:
    """A fault's row from the names of the tests that ran and whether each passed."""
    passed = [fine for name, fine in ran.items() if any(word in name for word in words)]
    return fault, len(passed), sum(passed)


if __name__ == "__main__":
    sys.exit(main())
