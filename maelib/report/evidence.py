"""Pictures of what all records of a data set say: the claims, and where the models lie."""

import math
from itertools import groupby

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from maelib.report import COLOURS, paper
from maelib.report.claims import FAILS, HOLDS, ONE_SEED, OPEN, Verdict
from maelib.runs.record import Record

STYLES = {
    HOLDS: {"color": "#029E73", "marker": "o"},
    FAILS: {"color": "#D55E00", "marker": "s"},
    OPEN: {"color": "#949494", "marker": "D"},
    ONE_SEED: {"color": "#0173B2", "marker": "o", "mfc": "white"},
}
PRINTED = {"color": "black", "marker": "x"}
OTHER = "#CC78BC"
NAMES = {"vae": "ResNet VAE", "vlae": "VLAE", "mae": "MAE"}  # as the paper has them
MARKERS = "osD^vP"  # of the presets


def forest(verdicts: list[Verdict]) -> Figure:
    """Every comparison that has runs: its difference and 95 % interval, a panel for each claim.

    A difference to the right of zero is in favour of the claim. The paper's own difference is a
    cross.
    """
    drawn = [v for v in verdicts if not math.isnan(v.difference)]
    panels = [(text, list(rows)) for text, rows in groupby(drawn, lambda v: v.claim.text)]
    heights = [len(rows) + 1.5 for _, rows in panels] or [1]
    figure, axes = plt.subplots(
        len(heights), squeeze=False, layout="constrained", height_ratios=heights,
        figsize=(9, 0.8 + 0.24 * sum(heights)),
    )  # fmt: skip
    for ax, (text, rows) in zip(axes[:, 0], panels, strict=False):
        _panel(ax, text, rows)
    styles = STYLES | {"the paper's values": PRINTED}
    handles = [sign(name, **style) for name, style in styles.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), fontsize=8)
    return figure


def _panel(ax: Axes, text: str, rows: list[Verdict]) -> None:
    ax.axvline(0, color="black", lw=0.8)
    for place, v in enumerate(rows):
        style = STYLES[v.verdict]
        if math.isfinite(v.low):
            ax.plot([v.low, v.high], [place, place], color=style["color"], lw=1.5)
        ax.plot(v.difference, place, ls="", ms=6, **style)
        if v.claim.printed is not None:
            ax.plot(v.claim.printed, place, ls="", ms=5, **PRINTED)
    labels = [
        f"{v.claim.comparison}  ({'1 seed' if v.seeds == 1 else f'{v.seeds} seeds'})" for v in rows
    ]
    ax.set_yticks(range(len(rows)), labels, fontsize=8)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    points = [p for v in rows for p in (v.difference, v.claim.printed) if p is not None]
    largest = max(map(abs, points)) or 1.0
    ends = [end for v in rows for end in (v.low, v.high) if math.isfinite(end)]
    seen = np.clip([*ends, *points], -3 * largest, 3 * largest)
    reach = 1.15 * np.abs(seen).max() or 1.0
    ax.set_xlim(-reach if seen.min() < 0 else -0.25 * reach, reach)
    unit = "per cent" if "_" in rows[0].claim.measure else "nats"  # Table 2's have a number
    ax.set_title(f"{text} ({unit}; preset {rows[0].preset})", fontsize=9, loc="left")
    ax.tick_params(axis="x", labelsize=8)


def plane(records: list[Record]) -> Figure:
    """Every trained model of one data set as a point, and the paper's.

    Left: the rate-distortion plane, RE against KL, with lines of equal L_elbo. Right: KL against
    MPD, and ``linear_kl``.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
    rows = paper.tables()["table4"]["rows"] if records[0].config.data.name == "mnist" else []
    points = [(r["kl"], r["re"], r["mpd"]) for r in rows]
    presets = list(dict.fromkeys(r.config.preset for r in records))
    for preset, marker in zip(presets, MARKERS, strict=False):
        for r in (r for r in records if r.config.preset == preset):
            m, colour = r.measurements, COLOURS.get(r.config.objective.name, OTHER)
            points.append((m["kl"], m["re"], m["mpd"]))
            for ax, x, y in ((left, m["kl"], m["re"]), (right, m["mpd"], m["kl"])):
                ax.plot(x, y, marker, color=colour, ms=5, alpha=0.8)
    kl, re, mpds = (np.array(values) for values in zip(*points, strict=True))
    if rows:
        left.plot(kl[: len(rows)], re[: len(rows)], "kx", ms=6, zorder=3)
        right.plot(mpds[: len(rows)], kl[: len(rows)], "kx", ms=6, zorder=3)
    equal_elbo(left, kl, re)
    latent = records[0].config.network.latent
    curve = np.geomspace(1, mpds.max() * 1.5, 100)
    law = f"{latent / 2:g} log(1 + MPD / {latent})"
    right.plot(curve, linear_kl(curve, latent), "k-", lw=1, label=law)
    # A model that ignores its code has an MPD near zero, which would stretch a logarithmic axis.
    right.set(xscale="log", xlabel="MPD in nats (log scale)", ylabel="KL in nats", xlim=(1, None))
    far = [(m, k) for m, k in zip(mpds[len(rows) :], kl[len(rows) :], strict=True) if m >= 1]
    above = sum(k > linear_kl(m, latent) for m, k in far)
    title = f"{above} of {len(far)} runs with an MPD of 1 nat or more lie above the linear case"
    right.set_title(title, fontsize=10)
    right.legend(fontsize=8)
    handles = _key({r.config.objective.name for r in records}, presets)
    handles += [sign("paper, Table 4", **PRINTED)] if rows else []
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8)
    left.set_title(f"Rate and distortion on {records[0].config.data.name}", fontsize=10)
    return figure


def _key(objectives: set[str], presets: list[str]) -> list[Line2D]:
    """What the colours and the markers of ``plane`` stand for."""
    colours = {name: colour for name, colour in COLOURS.items() if name in objectives}
    colours |= {"other remedies": OTHER} if objectives - set(COLOURS) else {}
    handles = [sign(NAMES.get(n, n), marker="o", color=colour) for n, colour in colours.items()]
    marks = zip(presets, MARKERS, strict=False)
    return handles + [sign(f"preset {p}", marker=mark, color="grey") for p, mark in marks]


def sign(label: str, **style: object) -> Line2D:
    """A marker and its meaning, for a legend."""
    return Line2D([], [], ls="", label=label, **style)


def linear_kl(mpd: np.ndarray | float, latent: int) -> np.ndarray | float:
    """KL, in nats, at an MPD in nats in a linear model whose ``latent`` dimensions are alike.

    K/2 log(1 + MPD / K): the most that KL can be in a linear model whose codes together follow
    the prior (notebook 09).
    """
    return latent / 2 * np.log1p(mpd / latent)


def equal_elbo(ax: Axes, kl: np.ndarray, re: np.ndarray) -> None:
    """Lines of equal L_elbo = RE + KL across the points, each with its value in nats."""
    width, height = np.ptp(kl) + 2, np.ptp(re) + 4
    ax.set_xlim(kl.min() - 0.08 * width, kl.max() + 0.12 * width)
    ax.set_ylim(re.min() - 0.12 * height, re.max() + 0.08 * height)
    ends = np.array(ax.get_xlim())
    for elbo in np.arange(5 * np.floor((re + kl).min() / 5), (re + kl).max() + 5, 5):
        ax.plot(ends, elbo - ends, color="#BBBBBB", lw=0.8, zorder=0)
        y = max(elbo - ends[1] + 0.02 * width, ax.get_ylim()[0] + 0.02 * height)
        if y < ax.get_ylim()[1] and elbo - y > ends[0] + 0.05 * width:
            ax.text(elbo - y, y, f"{elbo:g}", fontsize=8, color="#777777", ha="right")
    ax.set(xlabel="KL in nats (rate)", ylabel="RE in nats (distortion); grey: equal L_elbo")
