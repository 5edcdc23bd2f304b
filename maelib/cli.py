"""The command line: ``maelib train | evaluate | sample | export | runs | data``.

maelib train --dataset mnist --preset quick --alpha 1.0 --beta 0.5
torchrun --nproc-per-node 4 -m maelib train --preset paper
maelib runs
maelib evaluate runs/quick/NAME --nll-k 256
maelib sample runs/quick/NAME --out samples.png
maelib sample mnist-mae-a1-b0.5
"""

import argparse
import sys
from pathlib import Path

RUN = "the run's folder, or the name of a pretrained model"


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0, or 2 after one sentence on stderr that says what to change."""
    given = sys.argv[1:] if arguments is None else arguments
    options = parser(given[0] if given else "").parse_args(given)
    from maelib.training.loop import Interrupted
    from maelib.training.state import TrainingError

    try:
        COMMANDS[options.command][1](options)
    except (ValueError, OSError, TrainingError) as problem:
        print(f"maelib: error: {problem}", file=sys.stderr)
        return 2
    except (Interrupted, KeyboardInterrupt) as problem:
        print(f"maelib: {problem or 'interrupted'}", file=sys.stderr)
        return 130
    return 0


def parser(command: str) -> argparse.ArgumentParser:
    """All commands, and the options of ``command``: those of the others take time to import."""
    about = "VAEs with mutual posterior-divergence regularisation."
    top = argparse.ArgumentParser(prog="maelib", description=about)
    commands = top.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for name, (text, _, add_options) in COMMANDS.items():
        added = commands.add_parser(name, help=text, description=text)
        if name == command:
            add_options(added)
    return top


def _train_options(command: argparse.ArgumentParser) -> None:
    from maelib.config import PRESETS, objective_classes
    from maelib.data import AUTO, DATASETS, Data
    from maelib.internal.options import add_arguments
    from maelib.measure import Evaluation
    from maelib.nets import Network
    from maelib.objectives import OBJECTIVES
    from maelib.training import Training

    command.add_argument("--dataset", default=AUTO, help=_choice(AUTO, *DATASETS))
    command.add_argument("--preset", default="quick", help=_choice(*PRESETS))
    command.add_argument("--objective", default="mae", help=_choice(*OBJECTIVES))
    command.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    sizes = command.add_argument_group(
        "what the run is (default: as the preset or objective has it)"
    )
    add_arguments(sizes, *objective_classes(), Data, Network, Training, Evaluation)
    _device_options(command)
    command.add_argument("--out-dir", help="folder of the runs (default: runs/)")
    command.add_argument("--max-minutes", type=float, help="stop and save after so many minutes")
    command.add_argument(
        "--checkpoint-minutes", type=float, default=2.0, help="default: %(default)s"
    )
    command.add_argument(
        "--profile", action="store_true", help="write a trace of 20 steps into the run's folder"
    )
    command.add_argument(
        "--compile", action="store_true", help="train through torch.compile (needs a C++ compiler)"
    )


def _evaluate_options(command: argparse.ArgumentParser) -> None:
    from maelib.internal.options import add_arguments
    from maelib.measure import Evaluation

    command.add_argument("run", type=Path, help=RUN)
    add_arguments(command, Evaluation)
    _device_options(command)


def _sample_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", type=Path, help=RUN)
    command.add_argument("--count", type=int, default=64, help="images (default: %(default)s)")
    command.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    command.add_argument(
        "--out", type=Path, default=Path("samples.png"), help="PNG (default: %(default)s)"
    )
    _device_options(command)


def _export_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", type=Path, help="the run's folder")
    _device_options(command)


def _runs_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--out-dir", type=Path, help="folder of the runs (default: runs/)")


def _data_options(command: argparse.ArgumentParser) -> None:
    from maelib.data import AUTO, DATASETS

    command.add_argument("name", nargs="?", default=AUTO, help=_choice(AUTO, *DATASETS))


def _device_options(command: argparse.ArgumentParser) -> None:
    from maelib.training import DEVICES, PRECISIONS

    command.add_argument("--device", default="auto", help=_choice(*DEVICES))
    command.add_argument("--precision", default="auto", help=_choice(*PRECISIONS))


def _choice(*names: str) -> str:
    return f"one of {', '.join(names)} (default: %(default)s)"


def _train(options: argparse.Namespace) -> None:
    from maelib.config import resolve
    from maelib.runs.run import run, train_worker
    from maelib.training import parallel

    values = {name: value for name, value in vars(options).items() if name != "command"}
    names = ("device", "out_dir", "max_minutes", "checkpoint_minutes", "profile", "precision")
    how = {name: values.pop(name) for name in names} | {"compiled": values.pop("compile")}
    config = resolve(**values)
    with parallel.group() as rank:
        if rank > 0:
            return train_worker(config, **how)
        print(config.describe())
        record, _, _ = run(config, **how)
    _print_measured(record.measurements)
    print(record.caption())


def _evaluate(options: argparse.Namespace) -> None:
    from dataclasses import replace

    from maelib.config import options_of
    from maelib.data import dataset
    from maelib.measure import Evaluation
    from maelib.measure.evaluation import measure

    model, config = _opened(options)
    settings = replace(config.evaluation, **options_of(Evaluation, vars(options)))
    images = dataset.load(config.data.name)
    measured = measure(model, images, config.data, settings, options.precision)
    _print_measured(measured.means)
    shown = {name: v for name, v in measured.settings.items() if not isinstance(v, list)}
    print(", ".join(f"{name}: {value}" for name, value in shown.items()))


def _sample(options: argparse.Namespace) -> None:
    from torchvision.utils import save_image

    from maelib.data.dataset import unit_range
    from maelib.internal import rng
    from maelib.internal.options import checked
    from maelib.measure.sampling import sample

    count = checked("count", options.count, int, {"least": 1})
    model, _ = _opened(options)
    noise = rng.generator(options.seed, "sample", device=next(model.parameters()).device)
    drawn = sample(model, count, noise)
    images = 1 - drawn if drawn.shape[1] == 1 else unit_range(drawn)
    save_image(images, options.out, nrow=max(1, round(count**0.5)), pad_value=0.8)
    print(f"{count} images written to {options.out}")


def _export(options: argparse.Namespace) -> None:
    from maelib.data import dataset
    from maelib.measure.evaluation import test_images
    from maelib.runs import pretrained
    from maelib.runs import record as records
    from maelib.runs.run import pick_device
    from maelib.runs.weights import load_model

    device = pick_device(options.device)
    folder = options.run.resolve()
    model, record = load_model(folder, device), records.read(folder / "result.json")
    images = dataset.load(record.config.data.name).test.images[: pretrained.IMAGES]
    written = pretrained.export(model, record, test_images(images.to(device)))
    print(f"{written.describe()}; {written.path.stat().st_size / 2**20:.2f} MiB")


def _opened(options: argparse.Namespace):
    """Model and configuration of ``options.run``: a run's folder, or a pretrained model's name."""
    from maelib.runs import pretrained
    from maelib.runs import record as records
    from maelib.runs.run import pick_device
    from maelib.runs.weights import load_model

    device = pick_device(options.device)
    if options.run.is_dir():
        folder = options.run.resolve()
        return load_model(folder, device), records.read(folder / "result.json").config
    found = pretrained.find(str(options.run))
    return found.load(device), found.config


def _runs(options: argparse.Namespace) -> None:
    from maelib.internal.paths import default_out_dir, resolved
    from maelib.runs.monitor import list_runs

    for status in list_runs(resolved(options.out_dir or default_out_dir())):
        print(status.line())


def _data(options: argparse.Namespace) -> None:
    from maelib.data import dataset

    found = dataset.load(options.name)
    print(found.describe())
    print(f"SHA-256 {found.digest}")


def _print_measured(measured: dict[str, float]) -> None:
    for name, value in measured.items():
        print(f"{name:>20} = {value:.3f}")


COMMANDS = {
    "train": ("train (or find) a run and print its record", _train, _train_options),
    "evaluate": ("measure a finished run again", _evaluate, _evaluate_options),
    "sample": ("draw images from a finished run", _sample, _sample_options),
    "export": ("put a finished run's model into checkpoints/", _export, _export_options),
    "runs": ("list the runs there are", _runs, _runs_options),
    "data": ("find or download a data set and describe it", _data, _data_options),
}
