"""The remedies against posterior collapse side by side, from the results of one preset."""

import math
from statistics import fmean

import matplotlib.pyplot as plt
import pandas as pd
from adjustText import adjust_text
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from maelib.config import PRESETS
from maelib.experiments import ZOO, Experiment
from maelib.report import COLOURS, tables
from maelib.report.claims import Claim, compare
from maelib.report.evidence import equal_elbo, sign
from maelib.runs.record import Record

MEASURES = (
    "nll", "re", "kl", "mutual_information", "active_units", "mpd", "swap_cost",
    "kmeans_10", "knn_1000", "linear_1000",
)  # fmt: skip
ENOUGH = 4  # remedies that make a table and a picture
NOTE = (
    "Of each remedy the try with the best validation ELBO, the mean over its seeds. "
    "mutual_information (I_q) cannot exceed log_n, the logarithm of the number of images that it "
    "is estimated from: {}. Within half a nat of it a value is a lower bound, marked by ≥, and "
    "such values cannot be ordered. The NLL of one run has a standard error of {:.2f} or less over "
    "the test images. NLL to swap_cost in nats, active_units of the dimensions of the code, "
    "the last three in per cent. nll_change: the NLL minus that of the plain VAE with the same "
    "prior (the VampPrior's minus that with N(0, I)), and its 95 % interval: over seeds where both "
    "have several, else over test images, and then of these two trained models alone."
)


def trained(records: list[Record]) -> int:
    """How many remedies have a run."""
    return sum(bool(best(tries, records)[1]) for tries in ZOO.values())


def fullest(records: list[Record]) -> list[Record]:
    """The MNIST records of the preset at which most remedies have a run.

    If two presets have as many, the larger is taken.
    """
    by_preset = [
        [r for r in records if (r.config.preset, r.config.data.name) == (preset, "mnist")]
        for preset in reversed(PRESETS)
    ]
    return max(by_preset, key=trained)


def best(tries: tuple[Experiment, ...], records: list[Record]) -> tuple[Experiment, list[Record]]:
    """The try with the lowest mean validation ELBO, and its runs.

    Without any run it is the first try, with no runs.
    """
    runs = {e: [r for r in records if e.matches(r.config)] for e in tries}
    finished = {e: of for e, of in runs.items() if of}
    chosen = min(finished, key=lambda e: fmean(_validation(r) for r in runs[e]), default=tries[0])
    return chosen, runs[chosen]


def table(records: list[Record]) -> pd.DataFrame:
    """One row for each remedy: its best try with what was measured of it, or "not run".

    All ``records`` must share preset and data set.
    """
    rows = []
    for name, tries in ZOO.items():
        chosen, runs = best(tries, records)
        finished = sum(any(e.matches(r.config) for r in records) for e in tries)
        measured = {m: tables.mean([r.measurements[m] for r in runs if m in r.measurements])
                    for m in MEASURES}  # fmt: skip
        if _saturated(runs):
            measured["mutual_information"] = f"≥ {measured['mutual_information']}"
        about = {"remedy": name, "try": chosen.label if runs else "", "seeds": len(runs)}
        change = {"nll": measured.pop("nll"), "nll_change": nll_change(chosen, records)}
        rows.append(about | {"tries": f"{finished} of {len(tries)}"} | change | measured)
    return pd.DataFrame(rows)


def nll_change(remedy: Experiment, records: list[Record]) -> str:
    """The remedy's NLL less the plain VAE's, paired by seed, and its 95 % interval.

    It is empty if the two cannot be compared.
    """
    with_flow = remedy.options.get("prior") is None
    plain = ZOO["plain VAE, flow prior" if with_flow else "plain VAE"][0]
    runs = {(e, r.config.seed): r for r in records for e in (remedy, plain) if e.matches(r.config)}
    found = compare(Claim("", "nll", remedy, plain), runs)
    if remedy is plain or math.isnan(found.difference):
        return ""
    return f"{found.difference:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def caption(records: list[Record]) -> str:
    """How the table's values were measured."""
    of = [r for r in records if any(e.matches(r.config) for tries in ZOO.values() for e in tries)]
    ceilings = sorted({f"{r.measurements['log_n']:.2f}" for r in of if "log_n" in r.measurements})
    error = max((r.measurements.get("nll_standard_error", 0.0) for r in of), default=0.0)
    return tables.caption(of, NOTE.format(" or ".join(ceilings) or "not measured", error))


def options() -> pd.DataFrame:
    """A remedy with an option a row: the option and the values that are tried."""
    rows = []
    for name, tries in ZOO.items():
        for option in tries[0].options:
            values = [e.options.get(option) for e in tries]
            if 1 < len(values) == len(set(values)):
                rows.append((name, option, ", ".join(map(str, values))))
    return pd.DataFrame(rows, columns=["remedy", "option", "values"])


def plane(records: list[Record]) -> Figure:
    """Left: RE against KL. Right: NLL against I_q. The best try of each remedy, and in grey all.

    The axes end where the best tries do: some other tries lie outside. An arrow is a lower bound.
    """
    figure, axes = plt.subplots(1, 2, figsize=(14, 6.5), layout="constrained")
    chosen = {name: best(tries, records)[1] for name, tries in ZOO.items()}
    found = means(chosen)
    each = {e.label: [r for r in records if e.matches(r.config)] for es in ZOO.values() for e in es}
    outline = withStroke(linewidth=2, foreground="white")
    for ax, x, y in zip(axes, ("kl", "mutual_information"), ("re", "nll"), strict=True):
        ax.plot(*(means(each)[m] for m in (x, y)), "o", color="#949494", alpha=0.4, ms=4)
        for name, (at, height) in found[[x, y]].iterrows():
            is_bound = x == "mutual_information" and _saturated(chosen[name])
            ax.plot(at, height, ">" if is_bound else "o", color=_colour(name), ms=7)
        places = found[[x, y]].drop_duplicates()
        numbers = [
            ax.text(*place, f"{found.index.get_loc(name) + 1}", fontsize=9, path_effects=[outline])
            for name, place in places.iterrows()
        ]
        for limits, values in ((ax.set_xlim, found[x]), (ax.set_ylim, found[y])):
            margin = 0.06 * (values.max() - values.min())
            limits(values.min() - margin, values.max() + margin)
        line = {"arrowstyle": "-", "color": "grey", "lw": 0.6}
        adjust_text(
            numbers, found[x], found[y], ax=ax, iter_lim=200, expand=(1.4, 1.7), arrowprops=line
        )
    left, right = axes
    equal_elbo(left, found["kl"].to_numpy(), found["re"].to_numpy())
    left.set_title("Rate and distortion of each remedy", fontsize=10)
    right.set(xlabel="I_q(x; z) in nats", ylabel="NLL in nats")
    right.set_title("What the code says, and the likelihood that was paid", fontsize=10)
    handles = [
        sign(f"{number}  {name}", marker="o", color=_colour(name))
        for number, name in enumerate(found.index, 1)
    ]
    figure.legend(handles=handles, loc="outside right upper", fontsize=9)
    return figure


def _saturated(runs: list[Record]) -> bool:
    """Whether I_q of a run is so near to its ceiling that it is only a lower bound."""
    return any(r.measurements.get("saturated") for r in runs)


def _colour(remedy: str) -> str:
    """MAE's and the plain VAE's are those of the course; the other remedies are black."""
    kind = "mae" if remedy.startswith("MAE") else "vlae" if "plain VAE" in remedy else ""
    return COLOURS.get(kind, "black")


def means(runs: dict[str, list[Record]]) -> pd.DataFrame:
    """A row for each name that has runs: the means over them of each measure that they all have."""
    rows = {
        name: pd.DataFrame([r.measurements for r in of], columns=MEASURES).dropna(axis=1).mean()
        for name, of in runs.items()
        if of
    }
    return pd.DataFrame(rows).T


def _validation(record: Record) -> float:
    return min(row["val_elbo"] for row in record.history)
