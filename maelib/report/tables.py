"""The paper's tables with our measurements beside its own, or "not run"."""

import html
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import pandas as pd

from maelib.config import Config
from maelib.experiments import experiment_of, images_of
from maelib.internal.files import write_text
from maelib.nets import COLOUR_DECODERS
from maelib.report import paper
from maelib.report.claims import SOURCES, Verdict
from maelib.runs.record import Record, measured_how

MEASURES = ("re", "kl", "mpd", "std", "elbo", "nll")
COLLAPSE = (
    "active_units", "mutual_information", "log_n", "saturated", "marginal_kl", "swap_cost",
)  # fmt: skip
NOT_RUN = "not run"
LATEX = str.maketrans(
    {sign: f"\\{sign}" for sign in "_%&#${}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)
QUOTED = "quoted"
# How a cluster gets its label, and how its measure's name ends. NMI needs no labels.
LABELLED = {"nearest": "", "majority": "_majority", "hungarian": "_hungarian", "NMI": "_nmi"}


def table1(records: list[Record], part: str) -> pd.DataFrame:
    """Table 1a (``part`` "a", MNIST) or 1b ("b", OMNIGLOT): NLL and KL in nats.

    Rows that the paper quotes from earlier work are printed as quoted, never re-run.
    """
    return _table(f"table1{part}", ("nll", "kl"), records)


def table2(records: list[Record]) -> pd.DataFrame:
    """Table 2: clustering and classification of posterior means, accuracy in per cent."""
    kinds = paper.tables()["table2"]["columns"].items()
    return _table("table2", [f"{kind}_{size}" for kind, sizes in kinds for size in sizes], records)


def clustering(records: list[Record]) -> pd.DataFrame:
    """The clusters of Table 2's models: accuracy in per cent by each way of labelling, and NMI."""
    printed = paper.tables()["table2"]
    rows = []
    for row, k in product(printed["rows"], printed["columns"]["kmeans"]):
        ways = {way: _ours(row, f"kmeans_{k}{end}", records) for way, end in LABELLED.items()}
        rows.append({"model": row_name(row), "clusters": k} | ways)
    return pd.DataFrame(rows)


def table3(records: list[Record]) -> pd.DataFrame:
    """Table 3: bits/dim on CIFAR-10, a column for each of our decoders."""
    columns = {"bpd paper": lambda row: _printed(row, "bpd")}
    for decoder in COLOUR_DECODERS:
        ours = [r for r in records if r.config.network.decoder == decoder]
        columns[f"bpd ours ({decoder})"] = lambda row, ours=ours: _ours(row, "bpd", ours)
    return _paper_table("table3", columns, records)


def table4(records: list[Record]) -> pd.DataFrame:
    """Table 4: six measures of the MNIST models, in nats."""
    return _table("table4", MEASURES, records)


def measured(records: list[Record], measures: Sequence[str]) -> pd.DataFrame:
    """Our measurements alone as means over seeds; an empty cell has none.

    Runs share a row if their configurations differ in the seed alone.
    """
    models: dict[Config, list[Record]] = {}
    for record in sorted(records, key=lambda r: r.config.label()):
        models.setdefault(replace(record.config, seed=0), []).append(record)
    rows = []
    for config, runs in models.items():
        cells = {name: [r.measurements.get(name) for r in runs] for name in measures}
        means = {name: mean(values) for name, values in cells.items() if None not in values}
        rows.append({"model": config.label(), "seeds": len(runs)} | means)
    return pd.DataFrame(rows, columns=["model", "seeds", *measures]).astype(object).fillna("")


def claim_table(verdicts: list[Verdict]) -> pd.DataFrame:
    """One claim a row: where it is made, and how many of its comparisons have which verdict.

    Two columns count the comparisons whose difference has the claim's sign: of those that the
    paper's values have, and of those that were run.
    """
    rows = []
    for text in dict.fromkeys(v.claim.text for v in verdicts):
        of = [v for v in verdicts if v.claim.text == text]
        theirs = [v.claim.printed for v in of if v.claim.printed is not None]
        ours = [v.difference for v in of if not math.isnan(v.difference)]
        about = {"claim": text, "made in": SOURCES[text.split()[0]]}
        for name, values in (("sign in the paper", theirs), ("sign in ours", ours)):
            about[name] = f"{sum(value > 0 for value in values)} of {len(values)}"
        rows.append(about | Counter(v.verdict for v in of))
    table = pd.DataFrame(rows)
    counts = table.columns[4:]
    table[counts] = table[counts].fillna(0).astype(int)
    return table


def verdict_table(verdicts: list[Verdict]) -> pd.DataFrame:
    """The claims, one comparison a row, with the difference and its 95 % interval."""
    rows = [
        {
            "claim": v.claim.text,
            "comparison": v.claim.comparison,
            "difference": "" if math.isnan(v.difference) else f"{v.difference:.2f}",
            "95 % interval": f"[{v.low:.2f}, {v.high:.2f}]" if math.isfinite(v.low) else "",
            "seeds": v.seeds or "",
            "verdict": v.verdict,
            "paper": "" if v.claim.printed is None else f"{v.claim.printed:.2f}",
        }
        for v in verdicts
    ]
    return pd.DataFrame(rows)


def verdict_note(verdicts: list[Verdict]) -> str:
    """What the intervals and verdicts of a table or figure of claims are."""
    count = sum(not math.isnan(v.p) for v in verdicts)
    return (
        "Difference: the mean over seeds of the difference within each seed, with Student's t "
        "interval over seeds. Holds or fails: significant at 5 % by Holm's method over the "
        f"{count} comparisons that have two seeds or more. The intervals are not corrected, so "
        "one can exclude 0 although the verdict is undecided. With one seed the interval is over "
        "images (batches of images for MPD and STD) and is of these two trained models alone; an "
        "accuracy then has none. No interval over seeds holds the choice of the test images, "
        "which all seeds share. Paper: the same difference of the values that the paper prints; "
        "on CIFAR-10 its last digit is 21 nats."
    )


def compare(record: Record, table: str = "table4") -> pd.DataFrame:
    """One run beside the paper's row for it, in nats; the paper's is empty where it has none.

    A run on images that the paper does not have stands alone.
    """
    experiment, config = experiment_of(record.config), record.config
    printed = paper.row(table, experiment and experiment.row) or {}
    images = images_of(config.data.name)
    columns = {f"paper ({images})": printed} if images else {}
    columns |= {f"ours ({config.data.label}, {config.preset})": record.measurements}
    return pd.DataFrame(columns, index=list(MEASURES), dtype=float).round(2)


def caption(records: list[Record], *notes: str, how: Callable[[dict], str] = measured_how) -> str:
    """Preset, data set, evaluation settings and commits of ``records``, then the notes.

    ``how`` says in words what a record's evaluation settings are.
    """
    if not records:
        return " ".join(["No run of this preset and data set has been made.", *notes])
    first, ways = records[0].config, sorted({how(r.evaluation) for r in records})
    commits = ", ".join(sorted({r.provenance["commit"] for r in records}))
    seeds = ", ".join(str(s) for s in sorted({r.config.seed for r in records}))
    text = (
        f"Data: {first.data.name}; preset: {first.preset}; seed{'s' * (',' in seeds)}: {seeds}; "
        f"{'; or '.join(ways)}; commit {commits}."
    )
    return " ".join([text, *notes])


def codes_how(evaluation: dict) -> str:
    """What Table 2's measures are made from, for its caption."""
    runs = evaluation.get("clustering_runs", "several")
    return (
        f"fitted to posterior means of training images, scored on {evaluation['test_images']:,} "
        f"test images, 1 seeded binarisation of each; k-means: the mean over {runs} random starts; "
        f"100 and 1,000 labels: the mean over {runs} draws of the labels; knn: 10 neighbours; "
        "linear: logistic regression"
    )


def row_name(printed: dict) -> str:
    """What a row of the paper is called, with its alpha and beta or its source."""
    if "alpha" in printed:
        return f"{printed['model']} (alpha = {printed['alpha']}, beta = {printed['beta']})"
    return printed["model"] + (f" ({printed['cite']})" if "cite" in printed else "")


def write(table: pd.DataFrame, text: str, stem: Path) -> None:
    """``stem``.md and ``stem``.tex with the caption ``text``, and ``stem``.csv.

    Whatever stands in the cells and the caption is shown as it is, never as markup.
    """
    cells, text = table.astype(str), " ".join(text.split())
    escaped = cells.map(in_markdown).rename(columns=in_markdown)
    markdown = escaped.to_markdown(index=False, disable_numparse=True)
    write_text(stem.with_suffix(".md"), f"{markdown}\n\n{in_markdown(text)}\n")
    styled = cells.style.hide(axis="index").format(escape="latex")
    styled = styled.format_index(escape="latex", axis=1)
    columns = "l" + "r" * (len(table.columns) - 1)
    latex = styled.to_latex(column_format=columns, caption=text.translate(LATEX), hrules=True)
    write_text(stem.with_suffix(".tex"), latex)
    write_text(stem.with_suffix(".csv"), table.to_csv(index=False))


def in_markdown(text: str) -> str:
    """Text that Markdown shows as it is, also in the cell of a table."""
    plain = html.escape(text, quote=False).replace("](", "]\\(")
    return plain.replace("|", "\\|").replace("`", "\\`")


def _table(name: str, measures: Sequence[str], records: list[Record]) -> pd.DataFrame:
    """Two columns for each measure: the paper's value, and our mean over seeds."""
    columns = {}
    for measure in measures:
        columns[f"{measure} paper"] = lambda row, m=measure: _printed(row, m)
        columns[f"{measure} ours"] = lambda row, m=measure: _ours(row, m, records)
    return _paper_table(name, columns, records)


def _paper_table(name: str, columns: dict, records: list[Record]) -> pd.DataFrame:
    """The paper's rows with what each of ``columns`` makes of them.

    All ``records`` must share preset and data set; ValueError if they do not.
    """
    kinds = {(r.config.preset, r.config.data.name) for r in records}
    if len(kinds) > 1:
        raise ValueError(f"a table must not mix presets or data sets, but got {sorted(kinds)}.")
    rows = paper.tables()[name]["rows"]
    columns = {"model": row_name, **columns}
    return pd.DataFrame([{head: cell(row) for head, cell in columns.items()} for row in rows])


def _ours(printed: dict, measure: str, records: list[Record]) -> str:
    """Our mean of a measure for a row of the paper: of the runs of that row's experiment alone."""
    if "id" not in printed:
        return QUOTED
    ours = [r for r in records if (e := experiment_of(r.config)) and e.row == printed["id"]]
    return mean([r.measurements[measure] for r in ours if measure in r.measurements])


def _printed(row: dict, measure: str) -> str:
    value = paper.value(row, measure)
    return "" if value is None else f"{value:.{1 if '_' in measure else 2}f}"


def mean(values: list[float]) -> str:
    """The mean of a measure over seeds, with their standard deviation if there are several."""
    if not values:
        return NOT_RUN
    found = f"{sum(values) / len(values):.2f}"
    return found if len(values) == 1 else f"{found} ± {pd.Series(values).std():.2f}"
