"""A campaign: as many of the paper's runs as fit into a short slot, the most informative first.

maelib campaign --minutes 13 --out runs --preset short

It checks the device, measures how long a step takes, and then trains and measures run after run
until the time is up. Each is a run of ``maelib train``, in a folder of its own, and the next slot
continues what this one began. ``campaign.json`` says at any moment what was found.
"""

import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch

from maelib.config import Config
from maelib.experiments import EVERYTHING, FORMS, MAE, MNIST, VAE, VLAE, Experiment
from maelib.internal.files import read_json, reading, write_json
from maelib.runs import record as records
from maelib.runs.record import Record
from maelib.runs.run import Log, pick_device, run
from maelib.training import Training
from maelib.training.loop import Interrupted
from maelib.training.precision import choose as choose_precision
from maelib.workflow.checks import Check, attempt, checks
from maelib.workflow.plan import available, dataset_of

# MAE beside VLAE, the three forms of L_diverse at alpha = 2, then the other rows of Table 4
FIRST = (MAE[1.0, 0.5], VLAE, *(FORMS[form][2.0] for form in FORMS), MAE[1.0, 0.1], VAE)
ROWS = tuple(dict.fromkeys((*FIRST, *MNIST)))
LEAST, MOST = 40, 300  # bounds of the epochs of a run, unless its preset has fewer than ``LEAST``
CHECKING = 60.0  # seconds after which no further check begins, or a quarter of the slot
RESERVE = 5.0  # seconds for saving at the end
Found = dict[str, Record | None]


def campaign(
    minutes: float,
    out: Path,
    rows: tuple[Experiment, ...] = ROWS,
    *,
    preset: str = "short",
    dataset: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    log: Log = print,
) -> Found:
    """Train and measure the rows in their order for ``minutes``; each one's record, if finished.

    Interrupted, with everything saved, on SIGINT or SIGTERM.
    """
    seconds = 60 * minutes
    end, chosen = time.monotonic() + seconds - RESERVE, pick_device(device)
    name = available(dataset)
    configs = [row.config(preset, dataset_of(row, name)) for row in rows]
    products, path = choose_precision(precision, chosen), out / "campaign.json"
    report = _earlier(path, chosen, preset, products)
    until = time.monotonic() + min(CHECKING, seconds / 4)
    run_checks(checks(configs[0], chosen, products), report, path, until, log)
    pace = report.get("pace", {})
    if "epochs" not in report:
        report["epochs"] = affordable(configs[0].training, (end - time.monotonic()) / 2, pace)
        write_json(path, report)
    how = {"device": device, "precision": precision, "way": pace.get("way", "eager")}
    found: Found = {}
    for config in configs:
        config = shortened(config, report["epochs"])
        found[config.short_name()] = train_row(config, out, end, how, log)
    log(table(found))
    return found


def run_checks(made: dict[str, Check], report: dict, path: Path, until: float, log: Log) -> None:
    """Make the checks that ``report`` does not have yet, and write it after each of them.

    ``pace`` is made even if it is late, since it decides how to train.
    """
    for name, check in made.items():
        if name not in report and (name == "pace" or time.monotonic() < until):
            report[name] = attempt(check)
            write_json(path, report)
            log(f"{name}: {report[name]}")


def train_row(config: Config, out: Path, end: float, how: dict, log: Log) -> Record | None:
    """The row's record if it is finished by ``end``; it is left for the next slot if not."""
    left = end - time.monotonic()
    if left <= 0:
        return None
    limits = {"max_minutes": left / 60, "checkpoint_minutes": 1.0}
    try:
        return run(config, out_dir=out, log=log, **how, **limits)[0]
    except Interrupted as stop:
        log(f"{config.short_name()}: {stop}")
        if time.monotonic() < end:  # by a signal
            raise
    except (OSError, ValueError, RuntimeError) as problem:
        log(f"{config.short_name()} is left out: {problem}")
    return None


def named(names: str) -> tuple[Experiment, ...]:
    """The experiments of a list with commas, such as mnist-vlae,mnist-vae; ``ROWS`` if it is empty.

    ValueError, naming those there are, for any other.
    """
    there = {e.config("paper", e.images).short_name(): e for e in EVERYTHING}
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    if unknown := [name for name in chosen if name not in there]:
        raise ValueError(f"rows has {unknown[0]!r}; it must be of: {', '.join(there)}.")
    return tuple(there[name] for name in chosen) or ROWS


def affordable(settings: Training, seconds: float, pace: dict) -> int:
    """How many epochs a run may have that is to be trained and measured in the seconds.

    A preset of at most ``LEAST`` epochs keeps its own number, and any other gets from ``LEAST`` to
    ``MOST``. A run that does not end in this slot goes on in the next.
    """
    if settings.epochs <= LEAST or "epoch" not in pace:
        return settings.epochs
    return min(MOST, max(LEAST, int((seconds - pace["nll"]) / pace["epoch"])))


def shortened(config: Config, epochs: int) -> Config:
    """The run with at most so many epochs; if they are fewer, its learning rate falls at the end.

    Its key then tells it from the preset's own run.
    """
    if config.training.epochs <= epochs:
        return config
    return replace(config, training=replace(config.training, epochs=epochs, schedule="cooldown"))


def table(found: Found) -> str:
    """A line for each row: what was measured, or that it is not finished."""
    lines = [f"{'run':32} {'KL':>8} {'MPD':>8} {'STD':>8} {'NLL':>8}  standard error"]
    for name, record in found.items():
        if record is None:
            lines.append(f"{name:32} not finished; the same command continues")
            continue
        shown = [record.measurements[measure] for measure in ("kl", "mpd", "std", "nll")]
        numbers = " ".join(f"{value:8.2f}" for value in shown)
        lines.append(f"{name:32} {numbers}  {record.measurements['nll_standard_error']:.2f}")
    return "\n".join(lines)


def _earlier(path: Path, device: torch.device, preset: str, precision: str) -> dict:
    """What an earlier slot found on the same kind of device.

    Of a slot on another device only the number of epochs is kept.
    """
    machine = {**records.provenance(device, 0.0), "preset": preset, "precision": precision}
    with suppress(ValueError), reading(path, "a campaign's report", "begin another"):
        report = read_json(path)
        if report["machine"] == machine:
            return {n: part for n, part in report.items() if n == "epochs" or "failed" not in part}
        if report["machine"]["preset"] == preset:
            return {"machine": machine, "epochs": report["epochs"]}
    return {"machine": machine}
