"""A run from configuration to record: found again if finished, continued if begun, else trained."""

import csv
import io
import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch

from maelib.config import Config
from maelib.data import dataset as datasets
from maelib.data.dataset import Dataset
from maelib.internal.files import (
    out_of_memory,
    remove_partials,
    write_bytes,
    write_json,
    write_text,
)
from maelib.internal.options import checked
from maelib.internal.paths import default_out_dir, resolved
from maelib.measure import EVALUATION_VERSION
from maelib.measure.evaluation import measure
from maelib.measure.kept import Kept
from maelib.model import VAE
from maelib.runs import monitor
from maelib.runs import record as records
from maelib.runs.pretrained import find_pretrained
from maelib.runs.record import Record
from maelib.runs.weights import load_model
from maelib.training import DEVICES, parallel, precision
from maelib.training.checkpoints import fingerprint, packed
from maelib.training.loop import Interrupted, train
from maelib.training.state import Progress, TrainingError

NLL_FILE = "nll.json"  # of a run that is being measured
Log = Callable[[str], None]


def pick_device(name: str = "auto") -> torch.device:
    """``auto`` is CUDA if there is any, then MPS, then the CPU; each rank has its own GPU."""
    checked("device", name, str, {"choices": DEVICES})
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next((kind for kind in there if there[kind]), "cpu")
    if not there.get(name, True):
        raise ValueError(f"device is {name!r}, which is not available here; use cpu or auto.")
    return torch.device("cuda", parallel.local_rank()) if name == "cuda" else torch.device(name)


def locate(config: Config, out_dir: str | Path | None) -> tuple[Config, Dataset, Path]:
    """The configuration with its data set resolved, the data, and the run's folder."""
    dataset = datasets.load(config.data.name)
    config = config.on(dataset.name)
    out = resolved(out_dir) if out_dir else default_out_dir()
    return config, dataset, out / config.preset / config.name(dataset.digest)


def run(
    config: Config,
    *,
    device: str = "auto",
    out_dir: str | Path | None = None,
    log: Log = print,
    pretrained: bool = False,
    **how: object,
) -> tuple[Record, VAE, Dataset]:
    """The run's record, its model and its data set; trains only what is not finished yet.

    With ``pretrained`` a run that is not finished in ``out_dir`` may be the project's own: its
    committed record and its pretrained model. ``how`` are ``train``'s keywords max_minutes,
    checkpoint_minutes, way and precision, and ``profile``: they change how the numbers are
    computed, not which run it is. OSError if another process trains this run. Interrupted, with
    the NLL of some images kept, if ``max_minutes`` are over while it is measured.
    """
    chosen, pretrained = pick_device(device), checked("pretrained", pretrained, bool, {})
    config, dataset, folder = locate(config, out_dir)
    log(dataset.describe())
    record = records.intact(folder / "result.json")
    if pretrained and not record and (found := find_pretrained(folder.name, config.preset)):
        record, model = found
        log(model.describe())
        return record, model.load(chosen), dataset
    if records.is_current(record):  # nothing is written: the folder may be read-only
        log(f"finished run found: {folder.name}")
    else:
        with monitor.exclusive_lock(folder):
            record = _finish(config, dataset, folder, chosen, log, **how)
    return record, load_model(folder, chosen), dataset


def train_worker(config: Config, *, device: str, out_dir: str | Path | None, **how: object) -> None:
    """What a rank other than the first does under torchrun: train along, and write nothing."""
    config, dataset, folder = locate(config, out_dir)
    how.pop("profile", None)
    if records.intact(folder / "result.json") is None:
        with explain_oom(config):
            train(config, dataset, folder, pick_device(device), **how)


@contextmanager
def explain_oom(config: Config) -> Iterator[None]:
    """Turns running out of memory into a TrainingError that proposes what to lower."""
    try:
        yield
    except (RuntimeError, MemoryError) as problem:
        if not out_of_memory(problem):
            raise
        raise TrainingError(
            "out of memory; what is saved stays: lower batch_size "
            f"({config.training.batch_size}) or channels ({config.network.channels}) to train, or "
            "run the same command with device cpu to train or to measure."
        ) from problem


def _finish(
    config: Config, dataset: Dataset, folder: Path, device: torch.device, log: Log, **how: object
) -> Record:
    """Do and record what is left of the run; this process holds the lock of ``folder``."""
    minutes = how.get("max_minutes")
    how["precision"] = precision.choose(how.get("precision", "auto"), device)
    deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes
    measured = partial(_measured, config, dataset, folder, how["precision"], deadline)
    remove_partials(folder)
    shutil.rmtree(folder / "checkpoints" / ".part", ignore_errors=True)
    write_json(folder / "config.json", asdict(config))
    result = folder / "result.json"
    record = records.intact(result)  # another process may have just written it
    if record is None:
        if result.exists():  # damaged, or of another version or run
            result.replace(result.with_suffix(".damaged"))
        model, trained = _trained(config, dataset, folder, device, log, **how)
        record = Record(**trained, **measured(model))
    elif not records.is_current(record):  # training's provenance stays
        log(f"measuring again: {folder.name}")
        record = replace(record, **measured(load_model(folder, device)))
    records.write(record, result)
    (folder / NLL_FILE).unlink(missing_ok=True)
    return record


def _trained(
    config: Config, dataset: Dataset, folder: Path, device: torch.device, log: Log, **how: object
) -> tuple[VAE, dict]:
    """The trained model, and the fields of its record that do not depend on a measurement."""
    log(f"training on {device.type}: {folder.name}")
    profile = how.pop("profile", False)
    with monitor.observer(folder, profile) as observer, explain_oom(config):
        model, progress = train(config, dataset, folder, device, observer=observer, **how)
    if profile:
        log(f"profile of training steps: {folder / monitor.TRACE}")
    write_history(progress, folder / "metrics.csv")
    weights = model.state_dict()
    write_bytes(folder / "model.safetensors", packed(weights))
    made = {
        **records.provenance(device, progress.seconds),
        "precision": how["precision"],
        "compiled": "compiled" in progress.way,
        "way": progress.way,
        "processes": parallel.size(),
    }
    return model, {
        "name": folder.name,
        "key": config.key(dataset.digest),
        "config": config,
        "data": {"name": dataset.name, "digest": dataset.digest, "source": dataset.source},
        "history": progress.history,
        "provenance": made,
        "model": fingerprint(weights),
    }


def _measured(
    config: Config, dataset: Dataset, folder: Path, chosen: str, deadline: float, model: VAE
) -> dict:
    """The fields of a record that say what is measured, in the precision ``chosen``, on the model.

    The NLL of some images is kept in ``folder``, and Interrupted is raised after ``deadline``.
    """
    about = {
        "model": fingerprint(model.state_dict()),
        "version": EVALUATION_VERSION,
        "device": model.device.type,
        "precision": chosen,
    }
    with monitor.progress_bar("importance-weighted NLL") as show, explain_oom(config):

        def observe(done: int, total: int) -> None:
            show(done, total)
            if time.monotonic() > deadline and done < total:
                raise Interrupted(f"measured {done} of {total} images; the same command continues.")

        how = {"precision": chosen, "observe": observe, "kept": Kept(folder / NLL_FILE, about)}
        return vars(measure(model, dataset, config.data, config.evaluation, **how))


def write_history(progress: Progress, path: Path) -> None:
    """The learning curves as CSV in nats, one row for each validation."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(progress.history[0]))
    writer.writeheader()
    writer.writerows(progress.history)
    write_text(path, text.getvalue())
