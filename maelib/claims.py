"""The paper's claims as computed verdicts: paired differences with a 95 % interval."""

import itertools
import math
import statistics
from dataclasses import dataclass

from scipy import stats

from maelib.experiments import ALPHAS, BETAS, CIFAR10, MNIST, Experiment
from maelib.results import Record

HOLDS, FAILS, OPEN = "holds", "fails", "undecided"
TOO_FEW, TOO_FEW_PAIRS = "not enough runs", "one value: no interval"
VLAE, BEST = "vlae-fb7.84", "mae-a1-b0.5-tempered"  # the labels of the paper's main comparison
Runs = dict[str, Record]  # by label


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


def compare(claim: str, measure: str, found: Runs, larger: str, smaller: str) -> Verdict:
    """Whether the run labelled ``larger`` has the larger ``measure``, on the same test images."""
    what = _comparison(measure, larger, smaller)
    if larger not in found or smaller not in found:
        return Verdict(claim, what, TOO_FEW)
    samples = [found[label].samples.get(measure, []) for label in (larger, smaller)]
    if not samples[0] or len(samples[0]) != len(samples[1]):
        return Verdict(claim, what, TOO_FEW)
    mean, low, high = paired_interval(*samples)
    pairs = len(samples[0])
    verdict = _judge(low, high) if pairs > 1 else TOO_FEW_PAIRS
    return Verdict(claim, what, verdict, mean, low, high, pairs)


def verdicts(records: list[Record]) -> list[Verdict]:
    """Claims (i), (ii), (iii) and (v) on the runs of one preset, data set and seed.

    (i) larger alpha gives larger KL and MPD; (ii) larger beta gives smaller STD; (iii) MAE beats
    VLAE in NLL; (v) MAE's code keeps more of the image than VLAE's: a smaller RE. (iv) and (vii)
    have no per-image pairs: ``representation_verdicts``.
    """
    found, rises = by_label(records, MNIST), "(i) larger alpha, larger"
    first = [
        compare(f"{rises} {m.upper()}", m, found, _mae(high, beta), _mae(low, beta))
        for m in ("kl", "mpd") for beta in BETAS for low, high in itertools.pairwise(ALPHAS)
    ]  # fmt: skip
    second = [
        compare("(ii) larger beta, smaller STD", "std", found, _mae(alpha, low), _mae(alpha, high))
        for alpha in ALPHAS for low, high in itertools.pairwise(BETAS)
    ]  # fmt: skip
    third = [
        compare("(iii) MAE beats VLAE in NLL", "nll", found, VLAE, _mae(alpha, beta))
        for beta in BETAS for alpha in ALPHAS
    ]  # fmt: skip
    fifth = [compare("(v) MAE keeps more than VLAE: smaller RE", "re", found, VLAE, BEST)]
    return first + second + third + fifth


def colour_verdicts(records: list[Record]) -> list[Verdict]:
    """Claim (vi): on CIFAR-10 every MAE has a lower NLL (nats per image) than our VLAE.

    Models with the same decoder are compared, on the runs of one preset, data set and seed.
    """
    claim, found = "(vi) MAE improves on our VLAE (Table 3)", by_label(records, CIFAR10)
    labels = [experiment.config("paper", "cifar10").label() for experiment in CIFAR10]
    vlaes = [label for label in labels if label.startswith("vlae")]
    return [
        compare(claim, "nll", found, vlae, mae)
        for mae in labels if mae.startswith("mae")
        for vlae in vlaes if _decoder(vlae) == _decoder(mae)
    ]  # fmt: skip


def representation_verdicts(records: list[Record]) -> list[Verdict]:
    """Claims (iv) and (vii): MAE(1, 0.5) clusters and classifies better than both baselines.

    (iv) is k-means with K = 10 and 20, (vii) Table 2's classifiers from 100 and 1,000 labels and
    from all. The interval is Welch's, over the runs of each; from all labels there is only one.
    """
    found = by_label(records, MNIST)
    clusters = [f"kmeans_{k}" for k in (10, 20)]
    classes = [f"{kind}_{count}" for kind in ("knn", "linear") for count in (100, 1000, "all")]
    fourth = "(iv) MAE beats ResNet VAE and VLAE in clustering"
    seventh = "(vii) MAE beats ResNet VAE and VLAE in classification"
    return [
        _accuracy_verdict(claim, measure, found, other)
        for claim, measures in ((fourth, clusters), (seventh, classes))
        for measure in measures
        for other in ("vae", VLAE)
    ]


def by_label(records: list[Record], experiments: tuple[Experiment, ...]) -> Runs:
    """The runs by label that differ from their preset in nothing but what an experiment says."""
    return {
        r.config.label(): r
        for r in records
        for e in experiments
        if r.config == e.config(r.config.preset, r.config.dataset, r.config.seed)
    }


def _mae(alpha: float, beta: float) -> str:
    return f"mae-a{alpha:g}-b{beta:g}-tempered"


def _decoder(label: str) -> str:
    return label.partition("pixelcnnpp")[1]


def _judge(low: float, high: float) -> str:
    return HOLDS if low > 0 else FAILS if high < 0 else OPEN


def _comparison(measure: str, first: str, second: str) -> str:
    short = (label.replace("-tempered", "") for label in (first, second))
    return f"{measure}: {' - '.join(short)}"


def _accuracy_verdict(claim: str, measure: str, found: Runs, other: str) -> Verdict:
    what = _comparison(measure, BEST, other)
    both = [found[label] for label in (BEST, other) if label in found]
    if len(both) < 2 or not all(measure in r.measurements for r in both):
        return Verdict(claim, what, TOO_FEW)
    difference = both[0].measurements[measure] - both[1].measurements[measure]
    runs = 1 if measure.endswith("_all") else both[0].protocol.get("clustering_runs", 5)
    if runs < 2:
        return Verdict(claim, what, TOO_FEW_PAIRS, difference, -math.inf, math.inf, runs)
    half = _welch([r.measurements[f"{measure}_sd"] for r in both], runs)
    low, high = difference - half, difference + half
    return Verdict(claim, what, _judge(low, high), difference, low, high, runs)


def _welch(spreads: list[float], runs: int) -> float:
    """Half the 95 % interval of a difference of two means of ``runs`` each (Welch, 1947)."""
    variances = [spread**2 / runs for spread in spreads]
    total = sum(variances)
    if total == 0:
        return 0.0
    freedom = total**2 / sum(v**2 / (runs - 1) for v in variances)
    return float(stats.t.ppf(0.975, freedom)) * math.sqrt(total)
