"""Every table and figure of a preset, written from the results and models there are."""

from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.figure import Figure

from maelib import claims, data, figures, pretrained, results, tables
from maelib.claims import Verdict
from maelib.config import COLOUR_DECODERS, PRESETS, Config, default_free_bits
from maelib.results import Record
from maelib.runs import load_model

Judge = Callable[[list[Record]], list[Verdict]]
OTHER_DECODERS = COLOUR_DECODERS[1:]
STAND_INS = ("digits", "photos")


def write_all(
    preset: str, dataset: str, root: Path, runs: Path, drawn: dict[str, Figure] | None = None
) -> Path:
    """Tables 1 to 4 and Figures 1 to 4 of a preset; ``dataset`` is mnist or its stand-in.

    Records in ``runs`` are first published to ``root``/results. ``drawn`` are the figures of
    trained models, if they have been drawn already. Returns the folder written to.
    """
    for record in results.collect(runs / preset):
        results.publish(record, root / "results")
    everything = results.collect(root / "results")
    folder = folder_for(preset, dataset, root, everything)
    records = [r for r in everything if r.config.preset == preset]
    digits = [r for r in records if r.config.dataset == dataset]
    write_tables(digits, records, folder)
    write_colour_tables(records, "photos" if dataset in STAND_INS else "cifar10", folder)
    figures.save(figures.figure1(), folder / "figure1")
    figures.save(figures.forms_figure(digits), folder / "three_forms")
    for name, picture in (draw(records, dataset, runs) if drawn is None else drawn).items():
        figures.save(picture, folder / name)
    return folder


def folder_for(preset: str, dataset: str, root: Path, records: list[Record]) -> Path:
    """figures/ for the largest preset with results on real data, figures/<preset>/ for others."""
    real = {r.config.preset for r in records if r.config.dataset not in STAND_INS}
    largest = next((name for name in reversed(PRESETS) if name in real), None)
    if dataset in STAND_INS:
        return root / "figures" / preset / dataset
    return root / "figures" / ("" if preset == largest else preset)


def write_tables(digits: list[Record], records: list[Record], folder: Path) -> None:
    """Tables 1, 2, 4, the measures of collapse and the verdicts."""
    words = tables.caption(digits)
    tables.write(tables.table1(digits, "a"), words + " NLL and KL in nats.", folder / "table1a")
    accuracy = words + " Accuracy in per cent." + tables.table2_note(digits)
    tables.write(tables.table2(digits), accuracy, folder / "table2")
    tables.write(tables.table4(digits), words + " All values in nats.", folder / "table4")
    used = words + tables.collapse_note(digits)
    tables.write(tables.collapse_table(digits), used, folder / "collapse")
    for name in ("omniglot", "omniglot_lake"):
        ours = [r for r in records if r.config.dataset == name]
        if name == "omniglot":
            tables.write(tables.table1(ours, "b"), tables.caption(ours), folder / "table1b")
        elif ours:
            table = tables.own_table(ours)
            text = tables.caption(ours) + (
                " omniglot_lake is not the OMNIGLOT of Table 1b: do not compare its numbers."
            )
            tables.write(table, text, folder / "omniglot_lake")
    binary = (claims.verdicts, claims.representation_verdicts)
    judged = tables.verdict_table(by_seed(digits, *binary))
    tables.write(judged, words + tables.verdict_note(digits), folder / "claims")


def write_colour_tables(records: list[Record], name: str, folder: Path) -> None:
    """Table 3 and its claim, from CIFAR-10's runs or those of its stand-in."""
    colours = [r for r in records if r.config.dataset == name]
    words = tables.caption(colours)
    if name in STAND_INS:
        words += f" {name} stands in for CIFAR-10: do not compare its numbers with the paper's."
    tables.write(tables.table3(colours), words + " Bits/dim.", folder / "table3")
    used = words + tables.collapse_note(colours)
    tables.write(tables.collapse_table(colours), used, folder / "collapse_colour")
    table = tables.verdict_table(by_seed(colours, claims.colour_verdicts))
    judged = words + " NLL in nats per image." + tables.verdict_note(colours)
    tables.write(table, judged, folder / "claims_colour")


def by_seed(records: list[Record], *judges: Judge) -> list[Verdict]:
    """The verdicts of ``judges`` on the runs of each seed."""
    seeds = sorted({r.config.seed for r in records}) or [0]
    return [
        verdict
        for seed in seeds
        for judge in judges
        for verdict in judge([r for r in records if r.config.seed == seed])
    ]


def draw(records: list[Record], dataset: str, runs: Path) -> dict[str, Figure]:
    """Figures 2, 3 and 4 of each data set by file name, where weights and images are at hand.

    Those of the stand-ins are drawn only where ``dataset`` is one.
    """
    pictures = {}
    named = {r.config.dataset for r in records}
    for name in sorted(named if dataset in STAND_INS else named - set(STAND_INS)):
        images = _at_hand(name)
        if images is not None:
            pictures |= _draw([r for r in records if r.config.dataset == name], images, runs)
    return pictures


def _at_hand(name: str) -> data.Dataset | None:
    try:
        return data.load(name, download=False)
    except FileNotFoundError:
        return None


def _draw(records: list[Record], dataset: data.Dataset, runs: Path) -> dict[str, Figure]:
    mae = _main(records, runs, "mae")
    vlae = _main(records, runs, "vlae")
    if mae is None:
        return {}
    preset, model, end = mae.config.preset, _load(mae, runs), dataset.name
    other = None if vlae is None else _load(vlae, runs)
    if end in data.COLOUR:
        return {} if other is None else _greedy_and_sampled(
            figures.figure4, f"figure4_{end}", model, other, dataset, preset
        )  # fmt: skip
    pictures = {f"figure3_{end}": figures.figure3(model, dataset, preset)}
    if other is not None:
        name = f"figure2_{end}"
        pictures |= _greedy_and_sampled(figures.figure2, name, model, other, dataset, preset)
    return pictures


def _greedy_and_sampled(picture: Callable[..., Figure], name: str, *what: object) -> dict:
    return {name: picture(*what), f"{name}_sampled": picture(*what, greedy=False)}


def _main(records: list[Record], runs: Path, objective: str) -> Record | None:
    """The run with weights at hand that is nearest to the paper's main choice of settings."""
    there = [
        r for r in records
        if r.config.objective == objective and r.config.diverse in ("tempered", "none")
        and _has_weights(r, runs)
    ]  # fmt: skip
    return min(there, key=lambda r: (_distance(r.config), r.config.seed), default=None)


def _distance(config: Config) -> float:
    alpha, beta = (0.5, 1.0) if config.dataset in data.COLOUR else (1.0, 0.5)
    far = abs(config.alpha - alpha) + abs(config.beta - beta) if config.objective == "mae" else 0.0
    usual = default_free_bits(config.objective, config.dataset)
    return far + abs(config.free_bits - usual) / 1000 + (config.decoder in OTHER_DECODERS)


def _has_weights(record: Record, runs: Path) -> bool:
    return pretrained.shipped_model(record) is not None or _weights(record, runs).exists()


def _weights(record: Record, runs: Path) -> Path:
    return runs / record.config.preset / record.name / "model.safetensors"


def _load(record: Record, runs: Path) -> torch.nn.Module:
    """The shipped model before the run's own, so that everyone draws the same pictures."""
    shipped = pretrained.shipped_model(record)
    if shipped is not None:
        return pretrained.load_weights(shipped)
    return load_model(_weights(record, runs).parent, torch.device("cpu"))
