"""Every table and figure of a preset, written from the results and models there are."""

from pathlib import Path

import torch
from matplotlib.figure import Figure

from maelib import claims, data, figures, results, tables
from maelib.config import PRESETS, Config
from maelib.results import Record
from maelib.runs import load_model

STAND_INS = ("digits",)


def write_all(preset: str, dataset: str, root: Path, runs: Path) -> Path:
    """Tables 1, 2, 4 and Figures 1, 2, 3 of a preset; ``dataset`` is mnist or its stand-in.

    Records in ``runs`` are first published to ``root``/results. Returns the folder written to.
    """
    for record in results.collect(runs / preset):
        results.publish(record, root / "results")
    everything = results.collect(root / "results")
    folder = folder_for(preset, dataset, root, everything)
    records = [r for r in everything if r.config.preset == preset]
    digits = [r for r in records if r.config.dataset == dataset]
    write_tables(digits, records, folder)
    figures.save(figures.figure1(), folder / "figure1")
    figures.save(figures.forms_figure(digits), folder / "three_forms")
    shown = [r for r in records if r.config.dataset not in STAND_INS or dataset in STAND_INS]
    for name, picture in draw(shown, runs).items():
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
    tables.write(tables.table2(digits), words + " Accuracy in per cent.", folder / "table2")
    tables.write(tables.table4(digits), words + " All values in nats.", folder / "table4")
    tables.write(tables.collapse_table(digits), words, folder / "collapse")
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
    by_seed = [
        v
        for seed in sorted({r.config.seed for r in digits})
        for v in _verdicts([r for r in digits if r.config.seed == seed])
    ]
    tables.write(tables.verdict_table(by_seed), words, folder / "claims")


def _verdicts(records: list[Record]) -> list[claims.Verdict]:
    return claims.verdicts(records) + claims.clustering_verdicts(records)


def draw(records: list[Record], runs: Path) -> dict[str, Figure]:
    """Figures 2 and 3 of each data set by file name, where the weights of MAE and VLAE are."""
    pictures = {}
    for name in ("mnist", "digits", "omniglot", "omniglot_lake"):
        pictures |= _draw([r for r in records if r.config.dataset == name], runs)
    return pictures


def _draw(records: list[Record], runs: Path) -> dict[str, Figure]:
    mae = _first(records, runs, lambda c: c.objective == "mae" and c.diverse == "tempered")
    vlae = _first(records, runs, lambda c: c.objective == "vlae" and c.free_bits > 0)
    if mae is None:
        return {}
    dataset, preset = data.load(mae.config.dataset), mae.config.preset
    model, end = _load(mae, runs), dataset.name
    pictures = {f"figure3_{end}": figures.figure3(model, dataset, preset)}
    if vlae is not None:
        other = _load(vlae, runs)
        greedy, drawn = (
            figures.figure2(model, other, dataset, preset, greedy) for greedy in (True, False)
        )
        pictures |= {f"figure2_{end}": greedy, f"figure2_{end}_sampled": drawn}
    return pictures


def _first(records: list[Record], runs: Path, wanted) -> Record | None:
    """The wanted record that is the paper's main choice, alpha 1 and beta 0.5, if it is there."""
    there = [r for r in records if wanted(r.config) and _weights(r, runs).exists()]
    return min(there, key=lambda r: (_distance(r.config), r.config.seed), default=None)


def _distance(config: Config) -> float:
    return abs(config.alpha - 1) + abs(config.beta - 0.5) + config.free_bits / 1000


def _weights(record: Record, runs: Path) -> Path:
    return runs / record.config.preset / record.name / "model.safetensors"


def _load(record: Record, runs: Path) -> torch.nn.Module:
    return load_model(_weights(record, runs).parent, torch.device("cpu"))
