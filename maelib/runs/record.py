"""A finished run's record: one JSON file that says what was measured, how, and by which code."""

import json
import os
import platform
import subprocess
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from maelib.config import Config, from_json
from maelib.internal.files import write_json
from maelib.training import TRAINING_VERSION

SCHEMA = 2
PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Record:
    """One run: its configuration, what ``Measured`` says of it, and where it was made."""

    name: str
    key: str
    config: Config
    data: dict
    measurements: dict[str, float]  # ``Measured.means``
    evaluation: dict  # ``Measured.settings``
    history: list[dict]
    provenance: dict
    per_image: dict[str, list[float]] = field(default_factory=dict)
    dimensions: dict[str, list[float]] = field(default_factory=dict)

    def caption(self) -> str:
        """One line that belongs under every number or picture of this run."""
        how = self.evaluation
        return (
            f"{self.config.label()} on {self.config.data.name}, preset {self.config.preset}, seed "
            f"{self.config.seed}; NLL: k = {how['nll_k']}, {how['nll_images']} test images; other "
            f"measures: {how['test_images']} test images{binarised(how)}; "
            f"commit {self.provenance['commit']}"
        )


def binarised(evaluation: dict) -> str:
    """How many binarisations a record was measured on; nothing for colour images."""
    count = evaluation["binarisations"]
    return f", {count} seeded binarisation" + "s" * (count > 1) if count else ""


def write(record: Record, path: Path) -> None:
    """Write a record atomically."""
    write_json(path, {"schema": SCHEMA, "training_version": TRAINING_VERSION, **asdict(record)})


def read(path: Path) -> Record:
    """Read and validate a record; ValueError, naming the file, if it is not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        schema = content.pop("schema")
        content.pop("training_version")
        if schema != SCHEMA:
            raise ValueError(f"it has schema {schema}; this version reads schema {SCHEMA}")
        config = from_json(content.pop("config"))
        return Record(config=config, **content)
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise ValueError(f"{path.name} is not a maelib result ({problem}).") from problem


def publish(record: Record, folder: Path) -> Path:
    """Put a record where results are kept: ``folder``/<preset>/<name>.json."""
    path = folder / record.config.preset / f"{record.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write(record, path)
    return path


def collect(*folders: Path) -> list[Record]:
    """Every readable record below ``folders``, one for each run; a damaged file is named."""
    found: dict[str, Record] = {}
    for path in [path for folder in folders for path in sorted(folder.rglob("*.json"))]:
        in_checkpoint = path.parent.name.startswith((".part", "step-"))
        if in_checkpoint or path.name in ("config.json", "progress.json") or not path.is_file():
            continue
        try:
            record = read(path)
            if record.key != record.config.key(record.data["digest"]):
                raise ValueError(f"{path.name} does not have the key of its configuration.")
            found.setdefault(record.key, record)
        except ValueError as problem:
            warnings.warn(f"skipped: {problem}", stacklevel=2)
    return list(found.values())


def provenance(device: torch.device, seconds: float) -> dict:
    """Commit, versions and hardware; ``seconds`` of wall time that training took."""
    cores = f"{os.cpu_count()} CPU cores ({platform.machine()})"
    return {
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "hardware": torch.cuda.get_device_name(device) if device.type == "cuda" else cores,
        "device": device.type,
        "train_seconds": round(seconds, 1),
    }


def commit() -> str:
    """This code's git commit, marked ``-dirty`` if maelib/ differs from it; else ``unknown``."""
    head = _git("rev-parse", "--short=10", "HEAD") or "unknown"
    return head + ("-dirty" if _git("status", "--porcelain", ".") else "")


def _git(*arguments: str) -> str:
    quiet = {"cwd": PACKAGE, "stderr": subprocess.DEVNULL, "text": True}
    try:
        return subprocess.check_output(["git", *arguments], **quiet).strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
