"""The paper's claims as computed verdicts: paired differences with a 95 % interval."""

import itertools
import math
import statistics
from dataclasses import dataclass

from scipy import stats

from maelib.config import Config
from maelib.experiments import ALPHAS, BETAS, CIFAR10, Experiment
from maelib.results import Record

HOLDS, FAILS, OPEN = "holds", "fails", "undecided"
TOO_FEW = "not enough runs"


@dataclass(frozen=True)
class Verdict:
    """A claim about ``first`` minus ``second``: the mean paired difference, its 95 % interval.

    ``holds`` and ``fails`` need an interval on one side of zero; ``undecided`` is one across it.
    """

    claim: str
    comparison: str
    verdict: str
    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan
    pairs: int = 0


def paired_interval(first: list[float], second: list[float]) -> tuple[float, float, float]:
    """Mean of first - second and its 95 % interval by Student's t, over pairs of one sample each.

    The pairs share image, binarisation and noise (nll, re, kl) or the batch of images (mpd, std).
    It says how sure the difference of *these trained models* is, not that of other seeds.
    """
    differences = [a - b for a, b in zip(first, second, strict=True)]
    mean = statistics.fmean(differences)
    if len(differences) < 2:
        return mean, -math.inf, math.inf
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    half = float(stats.t.ppf(0.975, len(differences) - 1)) * error
    return mean, mean - half, mean + half


def compare(claim: str, measure: str, larger: Record | None, smaller: Record | None) -> Verdict:
    """Whether ``larger`` has the larger ``measure`` of two runs on the same test images."""
    if larger is None or smaller is None:
        return Verdict(claim, f"{measure}", TOO_FEW)
    what = f"{measure}: {larger.config.label()} - {smaller.config.label()}"
    samples = [r.samples.get(measure, []) for r in (larger, smaller)]
    if not samples[0] or len(samples[0]) != len(samples[1]):
        return Verdict(claim, what, TOO_FEW)
    mean, low, high = paired_interval(*samples)
    verdict = HOLDS if low > 0 else FAILS if high < 0 else OPEN
    return Verdict(claim, what, verdict, mean, low, high, len(samples[0]))


def verdicts(records: list[Record]) -> list[Verdict]:
    """Claims (i), (ii), (iii) and (v) on the runs of one preset, data set and seed.

    (i) larger alpha gives larger KL and MPD; (ii) larger beta gives smaller STD; (iii) MAE beats
    VLAE in NLL; (v) MAE's code keeps more of the image than VLAE's: a smaller RE. (iv), on
    clustering, has no per-image pairs: ``clustering_verdicts``.
    """
    found = {r.config.label(): r for r in records}

    def mae(alpha: float, beta: float) -> Record | None:
        return found.get(f"mae-a{alpha:g}-b{beta:g}-tempered")

    vlae, best = found.get("vlae-fb7.84"), mae(1.0, 0.5)
    first = [
        compare(f"(i) larger alpha, larger {m.upper()}", m, mae(high, beta), mae(low, beta))
        for m in ("kl", "mpd") for beta in BETAS for low, high in itertools.pairwise(ALPHAS)
    ]  # fmt: skip
    second = [
        compare("(ii) larger beta, smaller STD", "std", mae(alpha, low), mae(alpha, high))
        for alpha in ALPHAS for low, high in itertools.pairwise(BETAS)
    ]  # fmt: skip
    third = [
        compare("(iii) MAE beats VLAE in NLL", "nll", vlae, mae(alpha, beta))
        for beta in BETAS for alpha in ALPHAS
    ]  # fmt: skip
    fifth = [compare("(v) MAE keeps more than VLAE: smaller RE", "re", vlae, best)]
    return first + second + third + fifth


def colour_verdicts(records: list[Record]) -> list[Verdict]:
    """Claim (vi): on CIFAR-10 every MAE has a lower NLL (nats per image) than our VLAE.

    Models with the same decoder are compared, on the runs of one preset, data set and seed.
    """
    maes = [e for e in CIFAR10 if e.settings["objective"] == "mae"]
    return [
        compare(
            "(vi) MAE improves on our VLAE (Table 3)",
            "nll",
            _run_of(_vlae_like(experiment), records),
            _run_of(experiment, records),
        )
        for experiment in maes
    ]


def _vlae_like(experiment: Experiment) -> Experiment:
    same = {k: v for k, v in experiment.settings.items() if k == "decoder"}
    return Experiment(experiment.table, {"objective": "vlae", **same})


def _run_of(experiment: Experiment, records: list[Record]) -> Record | None:
    """The record whose whole configuration is the experiment's."""

    def is_it(c: Config) -> bool:
        return c == experiment.config(c.preset, c.dataset, c.seed)

    return next((r for r in records if is_it(r.config)), None)


def clustering_verdicts(records: list[Record]) -> list[Verdict]:
    """Claim (iv): MAE(1, 0.5) clusters better than ResNet VAE and VLAE at K = 10 and 20.

    The interval is Welch's, over the k-means runs of each model.
    """
    found = {r.config.label(): r for r in records}
    ours = found.get("mae-a1-b0.5-tempered")
    others = [(name, found.get(name)) for name in ("vae", "vlae-fb7.84")]
    return [
        _cluster_verdict(f"kmeans_{size}", ours, other)
        for size in (10, 20)
        for _, other in others
    ]  # fmt: skip


def _cluster_verdict(measure: str, ours: Record | None, other: Record | None) -> Verdict:
    claim = "(iv) MAE beats ResNet VAE and VLAE in clustering"
    both = [r for r in (ours, other) if r is not None and measure in r.measurements]
    if len(both) < 2:
        return Verdict(claim, measure, TOO_FEW)
    what = f"{measure}: {ours.config.label()} - {other.config.label()}"
    runs = ours.protocol.get("clustering_runs", 5)
    means = [r.measurements[measure] for r in both]
    spreads = [r.measurements[f"{measure}_sd"] / math.sqrt(runs) for r in both]
    half = 2.31 * math.hypot(*spreads)  # Student's t at about 8 degrees of freedom
    difference = means[0] - means[1]
    low, high = difference - half, difference + half
    verdict = HOLDS if low > 0 else FAILS if high < 0 else OPEN
    return Verdict(claim, what, verdict, difference, low, high, runs)
