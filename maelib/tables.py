"""The paper's tables with our measurements beside its own; what was not run says so."""

import math
from pathlib import Path

import pandas as pd

from maelib import paper
from maelib.claims import Verdict
from maelib.config import COLOUR_DECODERS, resolve
from maelib.data import COLOUR
from maelib.results import Record, binarised

MEASURES = ("re", "kl", "mpd", "std", "elbo", "nll")
COLLAPSE = (
    "active_units", "mutual_information", "log_n", "saturated", "marginal_kl", "swap_cost",
)  # fmt: skip
NOT_RUN = "not run"
QUOTED = "quoted"


def table1(records: list[Record], part: str) -> pd.DataFrame:
    """Table 1a (``part`` "a", MNIST) or 1b ("b", OMNIGLOT): NLL and KL in nats.

    Rows that the paper quotes from earlier work are printed as quoted, never re-run.
    """
    return _table(f"table1{part}", ("nll", "kl"), records)


def table2(records: list[Record]) -> pd.DataFrame:
    """Table 2: clustering and classification of posterior means, accuracy in per cent."""
    columns = [
        f"{kind}_{size}"
        for kind, sizes in paper.tables()["table2"]["columns"].items()
        for size in sizes
    ]
    return _table("table2", columns, records)


def table3(records: list[Record]) -> pd.DataFrame:
    """Table 3: bits/dim on CIFAR-10, a column for each of our decoders."""
    _require_one_protocol(records)
    rows = paper.tables()["table3"]["rows"]
    return pd.DataFrame([_table3_row(row, records) for row in rows])


def _table3_row(printed: dict, records: list[Record]) -> dict:
    row = {"model": row_name(printed), "bpd paper": _printed(printed, "bpd")}
    for decoder in COLOUR_DECODERS:
        ours = [r for r in _runs_of("table3", printed, records) if r.config.decoder == decoder]
        values = [r.measurements["bpd"] for r in ours]
        row[f"bpd ours ({decoder})"] = _mean(values) if printed.get("reimpl") else QUOTED
    return row


def table4(records: list[Record]) -> pd.DataFrame:
    """Table 4: six measures of the MNIST models, in nats."""
    return _table("table4", MEASURES, records)


def collapse_table(records: list[Record]) -> pd.DataFrame:
    """Beyond the paper: how much of the code each run uses. Empty cells were not measured."""
    rows = [
        {"model": r.config.label(), "seed": r.config.seed}
        | {name: _mean([r.measurements[name]]) for name in COLLAPSE if name in r.measurements}
        for r in sorted(records, key=lambda r: (r.config.label(), r.config.seed))
    ]
    return pd.DataFrame(rows, columns=["model", "seed", *COLLAPSE]).fillna("")


def own_table(records: list[Record]) -> pd.DataFrame:
    """Our measurements alone, for a data set the paper has no table of; in nats."""
    rows = [
        {"model": r.config.label(), "seed": r.config.seed}
        | {name: f"{r.measurements[name]:.2f}" for name in MEASURES}
        for r in sorted(records, key=lambda r: (r.config.label(), r.config.seed))
    ]
    return pd.DataFrame(rows, columns=["model", "seed", *MEASURES])


def verdict_table(verdicts: list[Verdict]) -> pd.DataFrame:
    """The claims, one comparison a row, with the difference and its 95 % interval."""
    rows = [
        {
            "claim": v.claim,
            "comparison": v.comparison,
            "difference": "" if math.isnan(v.difference) else f"{v.difference:.2f}",
            "95 % interval": "" if not math.isfinite(v.low) else f"[{v.low:.2f}, {v.high:.2f}]",
            "pairs": v.pairs or "",
            "verdict": v.verdict,
        }
        for v in verdicts
    ]
    return pd.DataFrame(rows)


def compare(record: Record, table: str = "table4") -> pd.DataFrame:
    """One run beside the paper's row for it, in nats; the paper's is empty where it has none."""
    printed = paper.find_row(table, record.config) or {}
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
        f"{p['nll_k']} on {p['nll_images']} test images, other measures on {p['test_images']}"
        f"{binarised(p)}; commit {commits}."
    )


def collapse_note(records: list[Record]) -> str:
    """What ``collapse_table`` was measured on, which ``caption`` does not say."""
    sizes = sorted(
        {r.protocol["collapse_images"] for r in records if "collapse_images" in r.protocol}
    )
    return "".join(f" Measures of collapse: the first {n:,} test images." for n in sizes)


def table2_note(records: list[Record]) -> str:
    """What Table 2's ``all`` labels are."""
    sizes = {r.config.train_images for r in records}
    return "".join(
        f' "all": the labels of {f"the first {n:,}" if n else "all"} training images.'
        for n in sizes
    )


def verdict_note(records: list[Record]) -> str:
    """What the verdicts' pairs are."""
    sizes = sorted({r.protocol["nll_images"] for r in records})
    images = "".join(f" (the first {n})" for n in sizes)
    return (
        f" Pairs: test images{images} for RE, KL and NLL, batches of test images for MPD and STD, "
        "runs of k-means or draws of labels for accuracies. Each interval is of two trained models "
        "and says nothing about other seeds."
    )


def write(table: pd.DataFrame, text: str, stem: Path) -> None:
    """``stem``.md and ``stem``.tex with the caption, and ``stem``.csv."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in [table.columns, *table.values]]
    lines.insert(1, "|" + " --- |" * len(table.columns))
    stem.with_suffix(".md").write_text("\n".join([*lines, "", text, ""]))
    stem.with_suffix(".tex").write_text(latex(table, text))
    table.to_csv(stem.with_suffix(".csv"), index=False)


def latex(table: pd.DataFrame, text: str) -> str:
    """A LaTeX table environment with the caption."""
    head, *rows = [
        " & ".join(_escape(str(v)) for v in row) for row in [table.columns, *table.values]
    ]
    body = head + " \\\\ \\hline\n" + " \\\\\n".join(rows)
    columns = "l" + "r" * (len(table.columns) - 1)
    return (
        "\\begin{table}\n\\centering\n\\begin{tabular}{" + columns + "}\n" + body
        + " \\\\\n\\end{tabular}\n\\caption{" + _escape(text) + "}\n\\end{table}\n"
    )  # fmt: skip


def _table(name: str, measures: tuple[str, ...] | list[str], records: list[Record]) -> pd.DataFrame:
    """A column pair (paper, ours) a measure; ours is the mean over seeds.

    All ``records`` must share preset and data set; ValueError if they do not.
    """
    _require_one_protocol(records)
    rows = paper.tables()[name]["rows"]
    return pd.DataFrame([_row(name, row, measures, records) for row in rows])


def _row(table: str, printed: dict, measures, records: list[Record]) -> dict:
    ours = _runs_of(table, printed, records)
    row = {"model": row_name(printed)}
    for measure in measures:
        row[f"{measure} paper"] = _printed(printed, measure)
        values = [r.measurements[measure] for r in ours if measure in r.measurements]
        row[f"{measure} ours"] = _mean(values) if printed.get("reimpl") else QUOTED
    return row


def _runs_of(table: str, printed: dict, records: list[Record]) -> list[Record]:
    return [r for r in records if paper.find_row(table, r.config) is printed and _is_default(r)]


def row_name(printed: dict) -> str:
    """What a row of the paper is called, with its alpha and beta or its source."""
    if "alpha" in printed:
        return f"{printed['model']} (alpha = {printed['alpha']}, beta = {printed['beta']})"
    return printed["model"] + (f" ({printed['cite']})" if "cite" in printed else "")


def _printed(row: dict, measure: str) -> str:
    if measure in row:
        return f"{row[measure]:.2f}"
    kind, _, size = measure.partition("_")
    if kind not in row:
        return ""
    sizes = [str(s) for s in paper.tables()["table2"]["columns"][kind]]
    return f"{row[kind][sizes.index(size)]:.1f}"


def _is_default(record: Record) -> bool:
    """Whether the run differs from its preset in nothing that the table's row does not name."""
    c = record.config
    named = {"alpha": c.alpha, "beta": c.beta, "decoder": c.decoder, "free_bits": c.free_bits}
    usual = resolve(c.preset, c.dataset, c.objective, seed=c.seed, **named)
    may_be_free = c.objective == "vlae" and c.dataset not in COLOUR
    return c == usual and (c.free_bits == 0 or may_be_free)


def _mean(values: list[float]) -> str:
    if not values:
        return NOT_RUN
    mean = f"{sum(values) / len(values):.2f}"
    return mean if len(values) == 1 else f"{mean} ± {pd.Series(values).std():.2f}"


def _escape(text: str) -> str:
    for mark in "_%&#":
        text = text.replace(mark, "\\" + mark)
    return text.replace("±", "$\\pm$")


def _require_one_protocol(records: list[Record]) -> None:
    kinds = {(r.config.preset, r.config.dataset) for r in records}
    if len(kinds) > 1:
        raise ValueError(f"a table must not mix presets or data sets, but got {sorted(kinds)}.")
