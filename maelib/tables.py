"""The paper's tables with our measurements beside its own; what was not run says so."""

from pathlib import Path

import pandas as pd

from maelib import paper
from maelib.results import Record

MEASURES = ("re", "kl", "mpd", "std", "elbo", "nll")
NOT_RUN = "not run"


def table4(records: list[Record]) -> pd.DataFrame:
    """Table 4, a column pair (paper, ours) a measure, in nats; ours is the mean over seeds.

    All ``records`` must share preset and data set; ValueError if they do not.
    """
    _require_one_protocol(records)
    return pd.DataFrame([_row(row, records) for row in paper.tables()["table4"]["rows"]])


def compare(record: Record) -> pd.DataFrame:
    """One run beside the paper's row for it, in nats; the paper's is empty where it has none."""
    printed = paper.table4_row(record.config) or {}
    return pd.DataFrame(
        {
            "paper (MNIST)": {name: printed.get(name, float("nan")) for name in MEASURES},
            f"ours ({record.config.dataset}, {record.config.preset})": {
                name: record.measurements[name] for name in MEASURES
            },
        }
    ).round(2)


def caption(records: list[Record]) -> str:
    """Preset, data set, protocol and commits of ``records``, in one sentence."""
    if not records:
        return "No run of this preset and data set has been made."
    first, p = records[0].config, records[0].protocol
    commits = ", ".join(sorted({r.provenance["commit"] for r in records}))
    seeds = ", ".join(str(s) for s in sorted({r.config.seed for r in records}))
    return (
        f"Data: {first.dataset}; preset: {first.preset}; seeds: {seeds}; NLL with k = "
        f"{p['nll_k']} on {p['nll_images']} test images, other measures on {p['test_images']}, "
        f"{p['binarisations']} seeded binarisation; commit {commits}. All values in nats."
    )


def write(table: pd.DataFrame, text: str, stem: Path) -> None:
    """``stem``.md with its caption, and ``stem``.csv."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in [table.columns, *table.values]]
    lines.insert(1, "|" + " --- |" * len(table.columns))
    stem.with_suffix(".md").write_text("\n".join([*lines, "", text, ""]))
    table.to_csv(stem.with_suffix(".csv"), index=False)


def _row(printed: dict, records: list[Record]) -> dict:
    ours = [r for r in records if paper.table4_row(r.config) is printed and _is_default(r)]
    name = printed["model"]
    if "alpha" in printed:
        name += f" (alpha = {printed['alpha']}, beta = {printed['beta']})"
    row = {"model": name}
    for measure in MEASURES:
        row[f"{measure} paper"] = f"{printed[measure]:.2f}"
        row[f"{measure} ours"] = _mean([r.measurements[measure] for r in ours])
    return row


def _is_default(record: Record) -> bool:
    plain_free_bits = record.config.objective == "vlae" or record.config.free_bits == 0
    return record.config.diverse in ("tempered", "none") and plain_free_bits


def _mean(values: list[float]) -> str:
    if not values:
        return NOT_RUN
    mean = f"{sum(values) / len(values):.2f}"
    return mean if len(values) == 1 else f"{mean} ± {pd.Series(values).std():.2f}"


def _require_one_protocol(records: list[Record]) -> None:
    kinds = {(r.config.preset, r.config.dataset) for r in records}
    if len(kinds) > 1:
        raise ValueError(f"a table must not mix presets or data sets, but got {sorted(kinds)}.")
