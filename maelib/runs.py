"""A run from configuration to record: found again if finished, continued if begun, else trained."""

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from maelib import data, distributed, precision, pretrained, results, watch
from maelib.checkpoints import save_tensors, sweep, write_json
from maelib.config import Config, from_json
from maelib.evaluation import VERSION, measure
from maelib.model import VAE, build
from maelib.paths import default_out_dir, project_root
from maelib.progress import bar
from maelib.results import Record
from maelib.training import Progress, TrainingError, train

DEVICES = ("auto", "cpu", "cuda", "mps")
Say = Callable[[str], None]


def pick_device(name: str = "auto") -> torch.device:
    """``auto`` is CUDA if there is any, then MPS, then the CPU; each rank has its own GPU."""
    if name not in DEVICES:
        raise ValueError(f"device is {name!r}; it must be one of {', '.join(DEVICES)}.")
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next((kind for kind in there if there[kind]), "cpu")
    if not there.get(name, True):
        raise ValueError(f"device is {name!r}, which is not available here; use cpu or auto.")
    return torch.device("cuda", distributed.local_rank()) if name == "cuda" else torch.device(name)


def locate(config: Config, out_dir: str | Path | None) -> tuple[Config, data.Dataset, Path]:
    """The configuration with its data set resolved, the data, and the run's folder, if it is."""
    dataset = data.load(config.dataset)
    config = replace(config, dataset=dataset.name)
    out = Path(out_dir) if out_dir else default_out_dir()
    return config, dataset, out / config.preset / config.name(dataset.digest)


def prepare(config: Config, folder: Path) -> None:
    """Make the run's folder; OSError, naming out_dir, if it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.json", asdict(config))
    except OSError as problem:
        raise OSError(
            f"out_dir is {str(folder.parents[1])!r}, which cannot be written ({problem.strerror}); "
            "name a folder you may write to."
        ) from problem


def run(
    config: Config,
    *,
    device: str = "auto",
    out_dir: str | Path | None = None,
    say: Say = print,
    shipped: bool = False,
    **how: object,
) -> tuple[Record, VAE, data.Dataset]:
    """The run's record, its model and its data set; trains only what is not finished yet.

    With ``shipped`` a run that is not finished in ``out_dir``, but whose model comes with the
    project, is taken from there: its committed record, and its weights as ``pretrained`` has them.

    ``how`` are ``train``'s keywords max_minutes, checkpoint_minutes, compiled, precise and
    profile: they change how the numbers come, not which run it is. OSError if another process
    trains this run.
    """
    where = pick_device(device)
    config, dataset, folder = locate(config, out_dir)
    say(dataset.describe())
    if shipped and not (folder / "result.json").exists():
        found = find_shipped(folder.name, config.preset)
        if found is not None:
            say(found[1].describe())
            return found[0], pretrained.load_weights(found[1], where), dataset
    prepare(config, folder)
    record = _finished(folder)
    if record is not None and record.protocol.get("version") == VERSION:
        say(f"finished run found: {folder.name}")
        return record, load_model(folder, where), dataset
    with watch.lock(folder):
        sweep(folder)
        record = _finished(folder)
        if record is None:
            record, model = _train_and_measure(config, dataset, folder, where, say, **how)
        else:
            say(f"finished run found: {folder.name}")
            model = load_model(folder, where)
            record = measure_again(record, model, dataset)
        results.write(record, folder / "result.json")
    return record, model, dataset


def find_shipped(
    name: str, preset: str, root: Path | None = None
) -> tuple[Record, pretrained.Shipped] | None:
    """A run's committed record and shipped model, where both are there and measured as today."""
    path = (root or project_root()) / "results" / preset / f"{name}.json"
    if not path.exists() or all(name != shipped.run for shipped in pretrained.shipped_models()):
        return None
    record = results.read(path)
    model = pretrained.shipped_model(record)
    same = model is not None and record.protocol.get("version") == VERSION
    return (record, model) if same else None


def assist(config: Config, *, device: str, out_dir: str | Path | None, **how: object) -> None:
    """What a rank other than the first does under torchrun: train along, and write nothing."""
    config, dataset, folder = locate(config, out_dir)
    if not (folder / "result.json").exists():
        with remedy(config):
            train(config, dataset, folder, pick_device(device), **how)


def _finished(folder: Path) -> Record | None:
    path = folder / "result.json"
    if not path.exists():
        return None
    try:
        return results.read(path)
    except ValueError as problem:
        raise ValueError(
            f"the result of run {folder.name} is damaged ({problem}); delete its result.json and "
            "run the same command again, which measures its model anew."
        ) from problem


def _train_and_measure(
    config: Config, dataset: data.Dataset, folder: Path, where: torch.device, say: Say, **how
) -> tuple[Record, VAE]:
    say(f"training on {where.type}: {folder.name}")
    write = watch.progress_writer(folder)
    with bar("training") as tick, remedy(config):

        def observe(progress: Progress, total: int) -> None:
            tick(progress.step, total)
            write(progress.step, total, progress.seconds, progress.best_elbo)

        model, progress = train(config, dataset, folder, where, observe=observe, **how)
    if how.get("profile"):
        say(f"profile of training steps: {folder / 'trace.json.gz'}")
    write_history(progress, folder / "metrics.csv")
    save_tensors(model.state_dict(), folder / "model.safetensors")
    with bar("importance-weighted NLL") as tick, remedy(config):
        measured = measure(model, dataset, config, observe=tick)
    made = {
        **results.provenance(where, progress.seconds),
        "precision": precision.choose(how.get("precise", "auto"), where),
        "compiled": bool(how.get("compiled")),
        "processes": distributed.size(),
    }
    record = Record(
        name=folder.name,
        key=config.key(dataset.digest),
        config=config,
        data={"name": dataset.name, "digest": dataset.digest, "source": dataset.source},
        measurements=measured.means,
        protocol=measured.protocol,
        history=progress.history,
        provenance=made,
        samples=measured.samples,
        dimensions=measured.dimensions,
    )
    return record, model


@contextmanager
def remedy(config: Config) -> Iterator[None]:
    """Out of memory within it becomes a TrainingError that proposes what to lower."""
    try:
        yield
    except (RuntimeError, MemoryError) as problem:
        if not _is_out_of_memory(problem):
            raise
        raise TrainingError(
            f"out of memory; what is saved stays: lower batch_size ({config.batch_size}) or "
            f"channels ({config.channels}) to train, nll_k ({config.nll_k}) below 64 to measure, "
            "or run the same command with device cpu."
        ) from problem


def _is_out_of_memory(problem: BaseException) -> bool:
    kinds = (MemoryError, torch.OutOfMemoryError)
    return isinstance(problem, kinds) or "can't allocate memory" in str(problem)


def measure_again(record: Record, model: VAE, dataset: data.Dataset) -> Record:
    """The record with what is measured today; training's provenance stays."""
    with bar("measuring again") as tick:
        measured = measure(model, dataset, record.config, observe=tick)
    return replace(
        record,
        measurements=measured.means,
        protocol=measured.protocol,
        samples=measured.samples,
        dimensions=measured.dimensions,
    )


def load_config(folder: Path) -> Config:
    """The configuration in a run's folder; FileNotFoundError if it is not a run's folder."""
    path = folder / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"{folder.name} is not a run: it has no config.json.")
    return from_json(json.loads(path.read_text()))


def load_model(folder: Path, device: torch.device) -> VAE:
    """The model a run saved; ValueError if its weights are of another architecture."""
    weights = folder / "model.safetensors"
    if not weights.exists():
        raise FileNotFoundError(f"run {folder.name} has no model.safetensors: it is not finished.")
    model = build(load_config(folder)).to(device, memory_format=torch.channels_last)
    try:
        model.load_state_dict(load_file(weights, str(device)))
    except (RuntimeError, ValueError) as problem:
        raise ValueError(
            f"{folder.name}/model.safetensors does not hold the weights of its config.json's "
            "architecture; restore the one or the other, or delete the folder and train again."
        ) from problem
    return model.eval()


def write_history(progress: Progress, path: Path) -> None:
    """The learning curves as CSV, one row an epoch, in nats."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(progress.history[0]))
        writer.writeheader()
        writer.writerows(progress.history)
