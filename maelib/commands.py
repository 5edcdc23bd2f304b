"""The commands of ``cli``: the options of each, all checked before its work begins, and the work.

It imports no torch before a command runs, so that help is fast.
"""

import argparse
from dataclasses import dataclass, replace
from os.path import expanduser, realpath
from pathlib import Path
from typing import TYPE_CHECKING

from maelib.config import PRESETS, Config, objective_classes, options_of, resolve
from maelib.data import AUTO, DATASETS, Data
from maelib.internal.options import Settings, add_arguments, option, options
from maelib.measure import Evaluation
from maelib.nets import Network
from maelib.objectives import OBJECTIVES
from maelib.training import DEVICES, PRECISIONS, WAYS, Training

if TYPE_CHECKING:
    from maelib.data.dataset import Dataset

RUN = "a run's folder, or the name of a pretrained model"
IMAGES_OUT = "a grid.png, a file.npz, or a folder of single pictures"


@dataclass(frozen=True)
class Device(Settings):
    """Where to compute."""

    device: str = option("auto", "device to compute on", choices=DEVICES)


@dataclass(frozen=True)
class ComputeOptions(Device):
    """Where and how precisely to compute."""

    precision: str = option("auto", "precision of matrix products", choices=PRECISIONS)


@dataclass(frozen=True)
class OutDir(Settings):
    """Where the runs lie."""

    out_dir: str | None = option(None, "folder of the runs instead of runs/")


@dataclass(frozen=True)
class RunChoice(Settings):
    """What a run is, beside its sizes."""

    dataset: str = option(AUTO, f"path of your own pictures, or one of {', '.join(DATASETS)}")
    preset: str = option("quick", "named set of sizes", choices=tuple(PRESETS))
    objective: str = option("mae", "the loss, by name", choices=tuple(OBJECTIVES))
    seed: int = option(0, "seed of all random numbers", least=0)


@dataclass(frozen=True)
class TrainOptions(OutDir, ComputeOptions):
    """How a run is trained, which does not change what it is."""

    max_minutes: float | None = option(None, "stop and save after so many minutes", above=0)
    checkpoint_minutes: float = option(2.0, "minutes between checkpoints", least=0)
    profile: bool = option(False, "write a trace of 20 steps into the run's folder")
    way: str = option("auto", "first way of taking steps that is tried", choices=("auto", *WAYS))


@dataclass(frozen=True)
class CampaignOptions(OutDir, ComputeOptions):
    """How long a campaign lasts, and what it trains."""

    minutes: float = option(13.0, "minutes until it ends, with everything saved", above=0)
    rows: str = option(
        "", "runs such as mnist-vlae,mnist-mae-a1-b0.5 (default: Table 4 and two forms of MAE)"
    )
    preset: str = option("short", "named set of sizes", choices=tuple(PRESETS))
    dataset: str = option(AUTO, "data set in MNIST's place", choices=(AUTO, "mnist", "digits"))


@dataclass(frozen=True)
class Drawing(Device):
    """What is drawn from a model."""

    count: int = option(64, "number of images", least=1, most=1_000_000)
    seed: int = option(0, "seed of the random numbers", least=0)
    temperature: float = option(1.0, "factor on the noise from which codes are drawn", above=0)
    out: str = option("samples.png", IMAGES_OUT)


@dataclass(frozen=True)
class Encoding(Device):
    """Which model makes codes of pictures."""

    model: str = option("", RUN)
    precision: str = option("float32", "precision of matrix products", choices=PRECISIONS)
    nll_k: int | None = option(None, "importance samples of each picture's NLL", least=1)
    out: str = option("codes.npz", "a file.npz of names, mu, logvar, kl and, with --nll-k, nll")


@dataclass(frozen=True)
class Reconstruction(Device):
    """Which model decodes the codes of pictures."""

    model: str = option("", RUN)
    seed: int = option(0, "seed of the random numbers", least=0)
    sampled: bool = option(False, "draw each pixel instead of taking its most probable value")
    out: str = option("reconstructions.png", IMAGES_OUT)


def run(name: str, given: dict) -> None:
    """Run the command ``name`` on what was given; the options of its own are checked first."""
    work, argument, own, others = COMMANDS[name]
    given = {key: expanduser(v) if isinstance(v, str) else v for key, v in given.items()}
    settings = [kind(**options_of(kind, given)) for kind in own]
    rest = {key: given[key] for kind in others for key in options(kind)}
    work(*([given[argument]] if argument else []), *settings, **rest)


def add_options(name: str, command: argparse.ArgumentParser) -> None:
    """Add a command's argument and flags."""
    _, argument, own, others = COMMANDS[name]
    if argument:
        optional = {"nargs": "?", "default": AUTO} if argument == "dataset" else {}
        command.add_argument(argument, help=ARGUMENTS[argument], **optional)
    add_arguments(command, *own, defaults=True)
    if others:
        about = "settings of the run (default: as the preset, objective or run has them)"
        add_arguments(command.add_argument_group(about), *others)
    if name == "train":
        command.epilog = _tuned()
        command.formatter_class = argparse.RawDescriptionHelpFormatter


def _tuned() -> str:
    """Every objective of the zoo with the options that tune it."""
    from maelib.experiments import ZOO

    flags = {}
    for e in (e for tries in ZOO.values() for e in tries):
        flags.setdefault(e.objective, {}).update(dict.fromkeys(e.options.keys() - {"prior"}))
    lines = [
        f"  {name:<20} {' '.join('--' + o.replace('_', '-') for o in sorted(own)) or 'none'}"
        for name, own in flags.items()
    ]
    return "\n".join(["objectives, and the options that tune each:", *lines])


def _train(chosen: RunChoice, how: TrainOptions, **given: object) -> None:
    from maelib.runs.run import run, train_worker
    from maelib.training import parallel

    config = resolve(**vars(chosen), **given)
    settings = vars(how)
    with parallel.group() as rank:
        if rank > 0:
            return train_worker(config, **settings)
        print(config.describe())
        record, _, _ = run(config, **settings)
    _print_measured(record.measurements)
    print(record.caption())


def _campaign(slot: CampaignOptions) -> None:
    from maelib.internal.paths import default_out_dir, resolved
    from maelib.workflow.campaign import campaign, named

    out = resolved(slot.out_dir or default_out_dir())
    how = {name: getattr(slot, name) for name in ("preset", "dataset", "device", "precision")}
    campaign(slot.minutes, out, named(slot.rows), **how)


def _evaluate(name: str, where: ComputeOptions, **given: object) -> None:
    changes = options_of(Evaluation, given)
    from maelib.data import dataset
    from maelib.measure.evaluation import measure

    model, config, run = _opened(name, where)
    images = dataset.load(config.data.name)
    _require_data(images, config, run)
    settings = replace(config.evaluation, **changes)
    measured = measure(model, images, config.data, settings, where.precision)
    _print_measured(measured.measurements)
    shown = {name: v for name, v in measured.evaluation.items() if not isinstance(v, list)}
    print(", ".join(f"{name}: {value}" for name, value in shown.items()))


def _sample(name: str, drawing: Drawing) -> None:
    from maelib.measure import pictures

    pictures.check_out(drawing.out)
    model, *_ = _opened(name, drawing)
    drawn = pictures.sampled(model, drawing.count, drawing.seed, drawing.temperature)
    pictures.write(drawing.out, drawn)
    print(f"{drawing.count} images written to {drawing.out}")


def _encode(images: str, encoding: Encoding) -> None:
    from maelib.measure import pictures

    pictures.check_out(encoding.out, (".npz",))
    model, *_ = _opened(encoding.model, encoding)
    found = pictures.encode(model, images, encoding.nll_k, encoding.precision)
    pictures.write_arrays(encoding.out, found)
    print(f"codes of {len(found['mu'])} images written to {encoding.out}")


def _reconstruct(images: str, how: Reconstruction) -> None:
    from maelib.measure import pictures

    pictures.check_out(how.out)
    model, *_ = _opened(how.model, how)
    decoded, names = pictures.reconstruct_named(model, images, how.seed, not how.sampled)
    pictures.write(how.out, decoded, names)
    print(f"{len(decoded)} reconstructions written to {how.out}")


def _export(name: str, where: Device) -> None:
    from maelib.data import dataset
    from maelib.measure.evaluation import test_images
    from maelib.runs import pretrained
    from maelib.runs import record as records
    from maelib.runs.run import pick_device
    from maelib.runs.weights import load_model

    device, folder = pick_device(where.device), _folder(name)
    model, record = load_model(folder, device), records.read(folder / "result.json")
    data = dataset.load(record.config.data.name)
    _require_data(data, record.config, record.name)
    images = data.test.images[: pretrained.ROUNDING_IMAGES]
    written = pretrained.export(model, record, test_images(images.to(device)))
    print(f"{written.describe()}; {written.path.stat().st_size / 2**20:.2f} MiB")


def _runs(place: OutDir) -> None:
    from maelib.internal.paths import default_out_dir, resolved
    from maelib.runs.monitor import list_runs

    out = resolved(place.out_dir or default_out_dir())
    for line in [status.line() for status in list_runs(out)] or [f"there is no run in {out}"]:
        print(line)


def _data(name: str) -> None:
    from maelib.data import dataset

    found = dataset.load(name)
    print(found.describe())
    print(f"SHA-256 {found.digest}")


def _opened(name: str, where: Device) -> tuple:
    """Model, configuration and name of a run, of which the folder or pretrained model is named."""
    from maelib.runs import pretrained
    from maelib.runs import record as records
    from maelib.runs.run import pick_device
    from maelib.runs.weights import load_model

    if not name:
        raise ValueError(f"model is not given; --model names {RUN}.")
    device, folder = pick_device(where.device), _folder(name)
    if folder.is_dir():
        model, record = load_model(folder, device), records.read(folder / "result.json")
        return model, record.config, record.name
    try:
        found = pretrained.find(name)
    except ValueError as problem:
        raise ValueError(f"there is no folder {name}, and {problem}") from problem
    return found.load(device), found.config, found.run


def _folder(name: str) -> Path:
    """A run's folder, from the current folder or else from the project's."""
    from maelib.internal.paths import resolved

    here = Path(realpath(name))
    return here if here.is_dir() else resolved(name)


def _require_data(images: "Dataset", config: Config, run: str) -> None:
    """ValueError if a data set is not the one that the run was trained on, which its name tells."""
    if config.name(images.digest) != run:
        raise ValueError(
            f"{config.data.label} is not the data that {run} was trained on; restore it."
        )


def _print_measured(measured: dict[str, float]) -> None:
    for name, value in measured.items():
        print(f"{name:>20} = {value:.3f}")


ARGUMENTS = {
    "run": RUN,
    "folder": "the folder of a finished run",
    "images": "a folder, .npz or .npy file of pictures, or a data set's name for its test images",
    "dataset": f"{', '.join((AUTO, *DATASETS))}, or the path of your own pictures",
}
SIZES = (Data, Network, Training, Evaluation, *objective_classes())
# Each command's function, its argument, its own options, and those of the run it is about.
COMMANDS = {
    "train": (_train, None, (RunChoice, TrainOptions), SIZES),
    "campaign": (_campaign, None, (CampaignOptions,), ()),
    "evaluate": (_evaluate, "run", (ComputeOptions,), (Evaluation,)),
    "sample": (_sample, "run", (Drawing,), ()),
    "encode": (_encode, "images", (Encoding,), ()),
    "reconstruct": (_reconstruct, "images", (Reconstruction,), ()),
    "export": (_export, "folder", (Device,), ()),
    "runs": (_runs, None, (OutDir,), ()),
    "data": (_data, "dataset", (), ()),
}
