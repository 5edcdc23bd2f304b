"""A finished run's record: one JSON file that says what was measured, how, and by which code."""

import os
import platform
import subprocess
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from maelib.config import Config, from_json
from maelib.internal.files import read_json, reading, typed, write_json
from maelib.internal.options import NOUNS
from maelib.measure import EVALUATION_VERSION
from maelib.training import TRAINING_VERSION

SCHEMA = 2
# Other JSON files in the folders of runs and of campaigns
OTHERS = ("config.json", "progress.json", "state.json", "nll.json", "campaign.json")
REQUIRED = {  # whatever else there is
    "data": {"name", "digest", "source"},
    "measurements": {"re", "kl", "elbo", "mpd", "std", "nll", "nll_standard_error"},
    "evaluation": {"version", "test_images", "nll_images", "nll_k", "binarisations"},
    "provenance": {"commit", "train_seconds"},
}
COUNTS = REQUIRED["evaluation"] | {"nll_k_all", "pair_batch", "collapse_images", "clustering_runs"}
KINDS = {"commit": str, "train_seconds": float, **dict.fromkeys(COUNTS, int)}


@dataclass(frozen=True)
class Record:
    """One run: its configuration, what ``Measured`` says of it, and where it was made."""

    name: str
    key: str
    config: Config
    data: dict[str, str]  # name, digest, source
    measurements: dict[str, float]
    evaluation: dict[str, bool | int | float | str | list]
    history: list[dict[str, int | float]]
    provenance: dict[str, bool | int | float | str]
    per_image: dict[str, list[float]] = field(default_factory=dict)
    dimensions: dict[str, list[float]] = field(default_factory=dict)
    model: str = ""  # ``fingerprint`` of the weights; records of older versions have none

    def caption(self) -> str:
        """One line that belongs under every number or picture of this run."""
        return (
            f"{self.config.label()} on {self.config.data.label}, preset {self.config.preset}, seed "
            f"{self.config.seed}; {measured_how(self.evaluation)}; "
            f"commit {self.provenance['commit']}"
        )


def measured_how(evaluation: dict) -> str:
    """The estimator of the NLL, the test images and their binarisations, for captions."""
    k, few, every = (evaluation[name] for name in ("nll_k", "nll_images", "test_images"))
    if evaluation["version"] < 3:
        text = f"NLL with k = {k} on the first {few:,} test images, other measures on {every:,}"
    elif few < every:
        cheap = evaluation["nll_k_all"]
        text = (
            f"{every:,} test images; NLL with k = {cheap} on all of them plus its mean change to "
            f"k = {k} on {few:,} random ones (control variate)"
        )
    else:
        text = f"{every:,} test images; NLL with k = {k} on all of them"
    count = evaluation["binarisations"]  # none for colour images
    return text + (f"; {count} seeded binarisation" + "s" * (count > 1) if count else "")


def write(record: Record, path: Path) -> None:
    """Write a record atomically; ValueError if a number in it is not finite."""
    write_json(path, {"schema": SCHEMA, "training_version": TRAINING_VERSION, **asdict(record)})


def read(path: Path) -> Record:
    """Read and validate a record; ValueError, naming the file, if it is not one.

    A record lies in a file or a folder of its name, which its configuration and data decide.
    """
    with reading(path, "a maelib result", "delete it to have it made again"):
        content = read_json(path)
        if (schema := content.pop("schema")) != SCHEMA:
            raise ValueError(f"it has schema {schema}; this version reads schema {SCHEMA}")
        content.pop("training_version")
        record = typed(Record, content | {"config": from_json(content["config"])})
        _check(record)
        if record.name not in (path.stem, path.parent.name):
            raise ValueError(f"it is the result of run {record.name}")
    return record


def intact(path: Path) -> Record | None:
    """The record of ``path``; None if there is none, or with a warning that names a damaged one."""
    if path.is_file():
        try:
            return read(path)
        except ValueError as problem:
            warnings.warn(f"skipped: {problem}", stacklevel=3)
    return None


def is_current(record: Record | None) -> bool:
    """Whether there is a record, and it has the current ``EVALUATION_VERSION``."""
    return record is not None and record.evaluation["version"] == EVALUATION_VERSION


def publish(record: Record, folder: Path) -> Path:
    """Put a record where results are kept: ``folder``/<preset>/<name>.json."""
    _check(record)
    path = folder / record.config.preset / f"{record.name}.json"
    write(record, path)
    return path


def collect(*folders: Path) -> list[Record]:
    """Every readable record below ``folders``, one for each run; a damaged file is named."""
    paths = [path for folder in folders for path in sorted(folder.rglob("*.json"))]
    found: dict[str, Record] = {}
    for record in [intact(path) for path in paths if path.name not in OTHERS]:
        if record is not None:
            found.setdefault(record.key, record)
    return list(found.values())


def _check(record: Record) -> None:
    """ValueError if the record has not the name, the key and the parts of its run."""
    for part, names in REQUIRED.items():
        if missing := names - getattr(record, part).keys():
            raise ValueError(f"its {part} has no {min(missing)}")
    for name, value in (record.evaluation | record.provenance).items():
        if (kind := KINDS.get(name)) and type(value) is not kind:
            raise ValueError(f"its {name} is not {NOUNS[kind]}")
    if not record.history or not all("val_elbo" in row for row in record.history):
        raise ValueError("its history has no val_elbo")
    record.caption()  # fails where something is missing
    config, digest = record.config, record.data["digest"]
    named = record.data["name"] == config.data.name and record.name == config.name(digest)
    if not named or record.key != config.key(digest) or Path(record.name).name != record.name:
        raise ValueError("its name or key is not that of its configuration")


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
    """This code's git commit, marked ``-dirty`` if maelib/ differs from it.

    Where it is in no repository of its own it is what $MAELIB_COMMIT says, or ``unknown``,
    whatever the environment says of git.
    """
    if not _git("ls-files", Path(__file__).name):
        return os.environ.get("MAELIB_COMMIT", "unknown")
    changed = _git("status", "--porcelain", "..")
    return _git("rev-parse", "--short=10", "HEAD") + ("-dirty" if changed else "")


def _git(*arguments: str) -> str:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    quiet = {"cwd": Path(__file__).parent, "stderr": subprocess.DEVNULL, "errors": "replace"}
    try:
        return subprocess.check_output(["git", *arguments], env=plain, **quiet).strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
