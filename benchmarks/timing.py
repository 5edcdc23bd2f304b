"""Timing: interleaved runs, medians in seconds, Markdown tables and one JSON file."""

import json
import platform
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from maelib.runs import record

HEADER = ("row", "device", "reference", "ours", "ratio", "target", "note")
Times = dict[str, list[float]]  # of each side, the seconds of each run


@dataclass(frozen=True)
class Row:
    """One line of the table: medians in seconds, and every run they come from.

    ``reference`` and ``ours`` name two sides of ``timings`` (or nothing). A side that ran a part
    of its work is scaled to the whole by its entry in ``scale``. ``more`` is other findings.
    """

    row: str
    device: str
    timings: Times
    target: str
    note: str = ""
    reference: str | None = "reference"
    ours: str | None = "ours"
    scale: dict[str, float] = field(default_factory=dict)
    more: dict[str, object] = field(default_factory=dict)

    def seconds(self, side: str | None) -> float | None:
        """The side's median, of the whole work."""
        if side not in self.timings:
            return None
        return statistics.median(self.timings[side]) * self.scale.get(side, 1)

    @property
    def is_series(self) -> bool:
        """Whether the row is a series of sides rather than a comparison of two."""
        return self.reference is None and self.ours is None

    @property
    def ratio(self) -> float | None:
        """How many times as long as ours the reference takes."""
        reference, ours = self.seconds(self.reference), self.seconds(self.ours)
        return reference / ours if reference and ours else None

    def cells(self) -> tuple[str, ...]:
        """The row's text, in the order of ``HEADER``."""
        times = (duration(self.seconds(side)) for side in (self.reference, self.ours))
        ratio = "-" if self.ratio is None else f"{self.ratio:.3g}x"
        return (self.row, self.device, *times, ratio, self.target, self.note)

    def json(self) -> dict:
        """Every field, the medians and the ratio, for JSON."""
        medians = {side: self.seconds(side) for side in self.timings}
        return {**asdict(self), "medians": medians, "ratio": self.ratio}


def interleave(
    sides: dict[str, Callable[[], object]], repeats: int, device: torch.device, warm: int = 1
) -> Times:
    """Seconds of ``repeats`` rounds in which each side runs once, after ``warm`` not counted."""
    times: Times = {name: [] for name in sides}
    for count in range(-warm, repeats):
        for name, run in sides.items():
            seconds = clock(run, device)
            if count >= 0:
                times[name].append(seconds)
    return times


def clock(run: Callable[[], object], device: torch.device) -> float:
    """Seconds that ``run`` takes, whatever it started on the device included."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    begun = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - begun


def duration(seconds: float | None) -> str:
    """Seconds as text, to three figures."""
    if seconds is None:
        return "-"
    unit, factor = ("s", 1) if seconds >= 1 else ("ms", 1e3) if seconds >= 1e-3 else ("us", 1e6)
    value = seconds * factor
    return f"{value:.0f} {unit}" if value >= 1000 else f"{value:.3g} {unit}"


def markdown(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def provenance(device: torch.device) -> dict:
    """The commit, versions and hardware that the numbers belong to."""
    found = record.provenance(device, 0.0)
    del found["train_seconds"]
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else ""
    named = re.search(r"model name\s*: (.*)", text)
    return found | {
        "cpu": named[1].strip() if named else platform.processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
    }


def write(path: Path, about: dict, rows: list[Row]) -> None:
    """Write the provenance and the rows measured so far."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"provenance": about, "rows": [row.json() for row in rows]}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
