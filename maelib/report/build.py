"""Every table and figure of a preset, written from the available results and models.

python -m maelib.report.build        # of every preset, from results/ and runs/
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from maelib.config import PRESETS
from maelib.data import COLOUR_DATASETS, STAND_INS
from maelib.data import dataset as datasets
from maelib.data.dataset import Dataset
from maelib.experiments import PAPER, PICTURED, Experiment, experiment_of, images_of
from maelib.internal.paths import default_out_dir, project_root
from maelib.model import VAE
from maelib.report import claims, evidence, figures, tables, zoo
from maelib.report.claims import Verdict
from maelib.runs import record as records_on_disk
from maelib.runs.pretrained import model_of
from maelib.runs.record import Record
from maelib.runs.weights import load_model

Sheet = tuple[str, pd.DataFrame, str]
NO_COMPARISON = "{0} is not the {1} of the paper: do not compare its numbers."


@dataclass(frozen=True)
class Picture:
    """A figure and what it was made from: the runs it shows and their data."""

    figure: Figure
    made_from: tuple


def write_all(
    preset: str, dataset: str, root: Path, runs: Path, drawn: dict[str, Picture] | None = None
) -> Path:
    """Tables, figures and claims of a preset; ``dataset`` is mnist or its stand-in.

    Records in ``runs`` are first published to ``root``/results. ``drawn`` are the figures of
    trained models, if they have been drawn already. Returns the folder written to.
    """
    for record in records_on_disk.collect(runs / preset):
        is_of_paper = images_of(record.config.data.name)  # not of own pictures
        if is_of_paper and records_on_disk.is_current(record):
            records_on_disk.publish(record, root / "results")
    everything = records_on_disk.collect(root / "results")
    folder = folder_for(preset, dataset, root, everything)
    records = [r for r in everything if r.config.preset == preset]
    digits = _of(dataset, records)
    colours = "photos" if _is_stand_in(dataset) else "cifar10"
    judged = claims.verdicts(digits + _of(colours, records))
    for name, frame, caption in sheets(digits, records, colours, judged):
        tables.write(frame, caption, folder / name)
    figures.save(figures.figure1(), folder / "figure1")
    figures.save(figures.forms_figure(digits), folder / "three_forms", _measured(digits))
    code = Path(evidence.__file__).read_text(encoding="utf-8")
    figures.save(evidence.forest(judged), folder / "forest", code, list(map(repr, judged)))
    up_to = list(PRESETS)[: list(PRESETS).index(preset) + 1]
    if smaller := [r for r in _of(dataset, everything) if r.config.preset in up_to]:
        figures.save(evidence.plane(smaller), folder / "plane", code, _measured(smaller))
    if zoo.trained(digits) >= zoo.ENOUGH:
        code = Path(zoo.__file__).read_text(encoding="utf-8")
        measured = _measured(digits, *zoo.MEASURES, "saturated")
        figures.save(zoo.plane(digits), folder / "zoo_plane", code, measured)
    for name, picture in (draw(records, dataset, runs) if drawn is None else drawn).items():
        figures.save(picture.figure, folder / name, *picture.made_from)
    return folder


def write_presets(root: Path, runs: Path) -> Iterator[Path]:
    """``write_all`` for every preset that has results on real data; gives each folder."""
    records = records_on_disk.collect(root / "results")
    real = {r.config.preset for r in records if not _is_stand_in(r.config.data.name)}
    for preset in (preset for preset in PRESETS if preset in real):
        yield write_all(preset, "mnist", root, runs)


def folder_for(preset: str, dataset: str, root: Path, records: list[Record]) -> Path:
    """figures/ for the preset at which most of the paper's models have results, else a subfolder.

    Of two presets with as many it is the larger. Results on stand-ins do not count.
    """
    if _is_stand_in(dataset):
        return root / "figures" / preset / dataset
    real = {(r.config.preset, experiment_of(r.config)) for r in records
            if not _is_stand_in(r.config.data.name)}  # fmt: skip
    count = Counter(at for at, experiment in real if experiment in PAPER)
    fullest = max(reversed(PRESETS), key=lambda each: count[each])
    return root / "figures" / ("" if preset == fullest else preset)


def sheets(
    digits: list[Record], records: list[Record], colours: str, judged: list[Verdict]
) -> Iterator[Sheet]:
    """Every table by its file name: frame and caption. ``colours`` is CIFAR-10 or its stand-in."""
    words = tables.caption(digits)
    yield "table1a", tables.table1(digits, "a"), f"{words} NLL and KL in nats."
    used = [_all_labels(n) for n in sorted({r.config.data.train_images or 0 for r in digits})]
    codes = tables.caption(digits, "Accuracy in per cent.", *used, how=tables.codes_how)
    yield "table2", tables.table2(digits), codes
    yield "clustering", tables.clustering(digits), f"{codes} NMI from 0 to 1."
    yield "table4", tables.table4(digits), f"{words} All values in nats."
    yield "collapse", *_collapse(digits, words)
    if zoo.trained(digits) >= zoo.ENOUGH:
        yield "zoo_table", zoo.table(digits), zoo.caption(digits)
    omniglot, lake = (_of(name, records) for name in ("omniglot", "omniglot_lake"))
    yield "table1b", tables.table1(omniglot, "b"), tables.caption(omniglot, "NLL and KL in nats.")
    if lake:
        note = NO_COMPARISON.format("omniglot_lake", "OMNIGLOT")
        measured = tables.measured(lake, tables.MEASURES)
        yield "omniglot_lake", measured, tables.caption(lake, "All values in nats.", note)
    ours = _of(colours, records)
    stand_in = [NO_COMPARISON.format(colours, "CIFAR-10")] if _is_stand_in(colours) else []
    colour_words = tables.caption(ours, *stand_in)
    yield "table3", tables.table3(ours), f"{colour_words} Bits/dim."
    yield "collapse_colour", *_collapse(ours, colour_words)
    also = f" Claim (vi): {colour_words}" if ours else ""
    shown = [v for v in judged if ours or v.claim.larger.images != "cifar10"]
    text = f"{words}{also} {tables.verdict_note(judged)}"
    yield "claims", tables.verdict_table(shown), text


def draw(records: list[Record], dataset: str, runs: Path) -> dict[str, Picture]:
    """Figures 2, 3 and 4 of each data set by file name, where weights and images are at hand.

    Those of the stand-ins are drawn only where ``dataset`` is one.
    """
    pictures = {}
    for name in sorted({r.config.data.name for r in records}):
        if _is_stand_in(name) and not _is_stand_in(dataset):
            continue
        if (images := _at_hand(name)) is not None:
            pictures |= _draw(_of(name, records), images, runs)
    return pictures


def _draw(records: list[Record], dataset: Dataset, runs: Path) -> dict[str, Picture]:
    name, chosen = dataset.name, PICTURED[images_of(dataset.name)]
    mae, vlae = (_first_trained(experiments, records, runs) for experiments in chosen)
    if mae is None:
        return {}
    preset, model = mae.config.preset, _load(mae, runs)
    made_from = [dataset.digest, *_identity(mae)]
    pictures = {}
    if name not in COLOUR_DATASETS:
        figure = figures.figure3(model, dataset, preset)
        pictures[f"figure3_{name}"] = Picture(figure, tuple(made_from))
    if vlae is not None:
        pair = (model, _load(vlae, runs), dataset, preset)
        number, figure = (4, figures.figure4) if name in COLOUR_DATASETS else (2, figures.figure2)
        both = (*made_from, *_identity(vlae))
        pictures[f"figure{number}_{name}"] = Picture(figure(*pair), both)
        pictures[f"figure{number}_{name}_sampled"] = Picture(figure(*pair, greedy=False), both)
    return pictures


def _first_trained(chosen: list[Experiment], records: list[Record], runs: Path) -> Record | None:
    """The record, with weights at hand, of the first of the chosen experiments that has one."""
    order = sorted(records, key=lambda r: r.config.seed)
    made = (r for e in chosen for r in order if e.matches(r.config))
    return next((r for r in made if model_of(r) or _weights(r, runs).exists()), None)


def _identity(record: Record) -> tuple[str, float]:
    """What tells a trained model from the same run trained elsewhere."""
    return record.name, record.measurements["nll"]


def _weights(record: Record, runs: Path) -> Path:
    return runs / record.config.preset / record.name / "model.safetensors"


def _load(record: Record, runs: Path) -> VAE:
    """The pretrained model before the run's own, so that everyone draws the same pictures."""
    pretrained = model_of(record)
    return load_model(_weights(record, runs).parent) if pretrained is None else pretrained.load()


def _at_hand(name: str) -> Dataset | None:
    try:
        return datasets.load(name, download=False)
    except (OSError, ValueError):
        return None


def _is_stand_in(name: str) -> bool:
    return name in STAND_INS.values()


def _of(dataset: str, records: list[Record]) -> list[Record]:
    return [r for r in records if r.config.data.name == dataset]


def _measured(records: list[Record], *more: str) -> list:
    """What a picture of records is made from."""
    measures = ("re", "kl", "mpd", "std", *more)
    return sorted([r.name, *(r.measurements.get(m) for m in measures)] for r in records)


def _collapse(records: list[Record], words: str) -> tuple[pd.DataFrame, str]:
    counts = sorted({r.evaluation.get("collapse_images", 0) for r in records})
    note = (
        f"Measures of collapse: {', '.join(f'{n:,}' for n in counts)} of the test images. "
        "active_units: dimensions; saturated: share of the seeds; the others in nats."
    )
    return tables.measured(records, tables.COLLAPSE), f"{words} {note}"


def _all_labels(train_images: int) -> str:
    used = f"the first {train_images:,}" if train_images else "all"
    return f'"all": the labels of {used} training images.'


if __name__ == "__main__":
    for written in write_presets(project_root(), default_out_dir()):
        print(written)
