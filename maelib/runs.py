"""A run from configuration to record: found again if finished, continued if begun, else trained."""

import csv
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from maelib import data, results
from maelib.checkpoints import save_tensors, write_json
from maelib.config import Config, from_json
from maelib.evaluation import VERSION, measure
from maelib.model import VAE, build
from maelib.paths import default_out_dir
from maelib.progress import bar
from maelib.results import Record
from maelib.training import Progress, train

DEVICES = ("auto", "cpu", "cuda", "mps")
Say = Callable[[str], None]


def pick_device(name: str = "auto") -> torch.device:
    """``auto`` is CUDA if there is any, then MPS, then the CPU."""
    if name not in DEVICES:
        raise ValueError(f"device is {name!r}; it must be one of {', '.join(DEVICES)}.")
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next((kind for kind in there if there[kind]), "cpu"))
    if not there.get(name, True):
        raise ValueError(f"device is {name!r}, which is not available here; use cpu or auto.")
    return torch.device(name)


def prepare(config: Config, out_dir: str | Path | None = None) -> tuple[Config, data.Dataset, Path]:
    """The configuration with its data set resolved, the data, and the run's (writable) folder."""
    dataset = data.load(config.dataset)
    config = replace(config, dataset=dataset.name)
    out = Path(out_dir) if out_dir else default_out_dir()
    folder = out / config.preset / config.name(dataset.digest)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.json", asdict(config))
    except OSError as problem:
        raise OSError(
            f"out_dir is {str(out)!r}, which cannot be written ({problem.strerror}); "
            "name a folder you may write to."
        ) from problem
    return config, dataset, folder


def run(
    config: Config,
    *,
    device: str = "auto",
    out_dir: str | Path | None = None,
    max_minutes: float | None = None,
    compiled: bool = False,
    say: Say = print,
) -> tuple[Record, VAE, data.Dataset]:
    """The run's record, its model and its data set; trains only what is not finished yet.

    ``compiled`` trains through torch.compile: the same mathematics, after minutes of compiling.
    """
    where = pick_device(device)
    config, dataset, folder = prepare(config, out_dir)
    say(dataset.describe())
    path = folder / "result.json"
    if path.exists():
        say(f"finished run found: {folder.name}")
        record, model = results.read(path), load_model(folder, where)
        if record.protocol.get("version") != VERSION:
            record = measure_again(record, model, dataset)
            results.write(record, path)
        return record, model, dataset
    say(f"training on {where.type}: {folder.name}")
    with bar("training") as tick:
        observe = _follow(tick)
        model, progress = train(config, dataset, folder, where, max_minutes, observe, compiled)
    write_history(progress, folder / "metrics.csv")
    save_tensors(model.state_dict(), folder / "model.safetensors")
    with bar("importance-weighted NLL") as tick:
        measured = measure(model, dataset, config, observe=tick)
    record = Record(
        name=folder.name,
        key=config.key(dataset.digest),
        config=config,
        data={"name": dataset.name, "digest": dataset.digest, "source": dataset.source},
        measurements=measured.means,
        protocol=measured.protocol,
        history=progress.history,
        provenance=results.provenance(where, progress.seconds),
        samples=measured.samples,
        dimensions=measured.dimensions,
    )
    results.write(record, path)
    return record, model, dataset


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


def _follow(tick: Callable[[int, int], None]) -> Callable[[Progress, int], None]:
    return lambda progress, total: tick(progress.step, total)
