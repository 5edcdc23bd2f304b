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

# Written out, since maelib.data imports torch and --help must not wait for it.
PRECISION = "auto, float32, tf32 or bf16 (default: auto, tf32 on CUDA)"
DATASETS = "auto, mnist, digits, omniglot, omniglot_lake, cifar10 or photos"

RUN = "the run's folder, or the name of a model in checkpoints/"


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0, or 2 after one sentence on stderr that says what to change."""
    options = parser().parse_args(arguments)
    from maelib.training import Interrupted, TrainingError

    try:
        options.command(options)
    except (ValueError, OSError, TrainingError) as problem:
        print(f"maelib: error: {problem}", file=sys.stderr)
        return 2
    except (Interrupted, KeyboardInterrupt) as problem:
        print(f"maelib: {problem or 'interrupted'}", file=sys.stderr)
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    about = "VAEs with mutual posterior-divergence regularisation."
    top = argparse.ArgumentParser(prog="maelib", description=about)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _train_options(
        _command(commands, "train", _train, "train (or find) a run and print its record")
    )
    evaluate = _command(commands, "evaluate", _evaluate, "measure a finished run again")
    evaluate.add_argument("run", type=Path, help=RUN)
    evaluate.add_argument("--nll-k", type=int, help="importance samples (default: the run's)")
    evaluate.add_argument("--nll-images", type=int, help="test images (default: the run's)")
    evaluate.add_argument("--precision", default="auto", help=PRECISION)
    sample = _command(commands, "sample", _sample, "draw images from a finished run")
    sample.add_argument("run", type=Path, help=RUN)
    sample.add_argument("--count", type=int, default=64, help="images (default: %(default)s)")
    sample.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    png = Path("samples.png")
    sample.add_argument("--out", type=Path, default=png, help="PNG (default: %(default)s)")
    export = _command(commands, "export", _export, "put a finished run's model into checkpoints/")
    export.add_argument("run", type=Path, help="the run's folder")
    runs = _command(commands, "runs", _runs, "list the runs there are")
    runs.add_argument("--out-dir", type=Path, help="folder of the runs (default: runs/)")
    data = _command(commands, "data", _data, "find or download a data set and describe it")
    names = f"{DATASETS} (default: %(default)s)"
    data.add_argument("name", nargs="?", default="auto", help=names)
    for command in (evaluate, sample, export):
        command.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    return top


def _command(commands, name: str, function, text: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text)
    command.set_defaults(command=function)
    return command


def _train_options(p: argparse.ArgumentParser) -> None:
    add = p.add_argument
    add("--dataset", default="auto", help=f"{DATASETS} (default: %(default)s)")
    add("--preset", default="quick", help="smoke, quick, laptop or paper (default: %(default)s)")
    add("--objective", default="mae", help="vae, vlae or mae (default: %(default)s)")
    add("--alpha", type=float, default=1.0, help="weight of L_diverse (default: %(default)s)")
    add("--beta", type=float, default=0.5, help="weight of L_smooth (default: %(default)s)")
    add("--diverse", default="tempered", help="tempered, mean or pairwise (default: %(default)s)")
    add(
        "--free-bits",
        type=float,
        help="nats per image (default: 7.84 for vlae on binary images)",
    )
    add("--decoder", help="pixelcnn, resnet; for colours pixelcnnpp-7x3, pixelcnnpp")
    add("--seed", type=int, default=0, help="default: %(default)s")
    add("--epochs", type=int, help="passes over the training images (default: the preset's)")
    add("--batch-size", type=int, help="images a step (default: the preset's)")
    add("--train-images", type=int, help="use only the first so many (default: the preset's)")
    add("--lr", type=float, help="Adam's learning rate (default: the preset's)")
    add("--device", default="auto", help="auto, cpu, cuda or mps (default: %(default)s)")
    add("--out-dir", help="folder of the runs (default: runs/)")
    add("--max-minutes", type=float, help="stop and save after so many minutes")
    add(
        "--checkpoint-minutes", type=float, default=2.0, help="between saves (default: %(default)s)"
    )
    add("--precision", default="auto", help=PRECISION)
    add("--profile", action="store_true", help="write a trace of 20 steps into the run's folder")
    add("--compile", action="store_true", help="train through torch.compile (needs a C++ compiler)")


def _train(options: argparse.Namespace) -> None:
    from maelib import distributed
    from maelib.config import resolve
    from maelib.runs import assist, run

    values = {k: v for k, v in vars(options).items() if k != "command"}
    names = ("device", "out_dir", "max_minutes", "checkpoint_minutes", "profile")
    own = {name: values.pop(name) for name in names}
    own |= {"compiled": values.pop("compile"), "precise": values.pop("precision")}
    config = resolve(**values)
    with distributed.group() as rank:
        if rank > 0:
            return assist(config, **own)
        print(config.describe())
        record, _, _ = run(config, **own)
    _print_measured(record.measurements)
    print(record.caption())


def _evaluate(options: argparse.Namespace) -> None:
    from dataclasses import replace

    from maelib import data
    from maelib.evaluation import measure

    model, config = _opened(options)
    changed = {k: getattr(options, k) for k in ("nll_k", "nll_images") if getattr(options, k)}
    dataset = data.load(config.dataset)
    measured = measure(model, dataset, replace(config, **changed), options.precision)
    _print_measured(measured.means)
    print(", ".join(f"{name}: {value}" for name, value in measured.protocol.items()))


def _sample(options: argparse.Namespace) -> None:
    from torchvision.utils import save_image

    from maelib import data, rng, sampling

    model, _ = _opened(options)
    device = next(model.parameters()).device
    noise = rng.generator(options.seed, "sample", device=device)
    drawn = sampling.sample(model, options.count, noise)
    images = 1 - drawn if drawn.shape[1] == 1 else data.unit_range(drawn)
    save_image(images, options.out, nrow=max(1, round(options.count**0.5)), pad_value=0.8)
    print(f"{options.count} images written to {options.out}")


def _export(options: argparse.Namespace) -> None:
    from maelib import data, pretrained, results
    from maelib.evaluation import test_images
    from maelib.runs import load_model, pick_device

    device = pick_device(options.device)
    model, record = load_model(options.run, device), results.read(options.run / "result.json")
    images = data.load(record.config.dataset).test.images[: pretrained.IMAGES]
    shipped = pretrained.export(model, record, test_images(images.to(device)))
    print(f"{shipped.describe()}; {shipped.path.stat().st_size / 2**20:.2f} MiB")


def _opened(options: argparse.Namespace):
    """Model and configuration of ``options.run``: a run's folder, or a shipped model's name."""
    from maelib import pretrained
    from maelib.runs import load_config, load_model, pick_device

    device = pick_device(options.device)
    if options.run.is_dir():
        return load_model(options.run, device), load_config(options.run)
    shipped = pretrained.find(str(options.run))
    return pretrained.load_weights(shipped, device), shipped.config


def _runs(options: argparse.Namespace) -> None:
    from maelib.paths import default_out_dir
    from maelib.watch import list_runs

    for status in list_runs(options.out_dir or default_out_dir()):
        print(status.line())


def _data(options: argparse.Namespace) -> None:
    from maelib import data

    dataset = data.load(options.name)
    print(dataset.describe())
    print(f"SHA-256 {dataset.digest}")


def _print_measured(measured: dict[str, float]) -> None:
    for name, value in measured.items():
        print(f"{name:>20} = {value:.3f}")
