"""The paper's claims as computed verdicts: paired differences with a 95 % interval."""

import itertools
import math
import statistics
from dataclasses import dataclass

from scipy import stats

from maelib import experiments
from maelib.experiments import ALPHAS, BETAS, MAE, VAE, VLAE, Experiment, experiment_of
from maelib.runs.record import Record

HOLDS, FAILS, OPEN = "holds", "fails", "undecided"
TOO_FEW, TOO_FEW_PAIRS = "not enough runs", "one value: no interval"
BEST = MAE[1.0, 0.5]  # the paper's main model, which it compares with the VLAE
Runs = dict[Experiment, Record]


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


def compare(
    claim: str, measure: str, found: Runs, larger: Experiment, smaller: Experiment
) -> Verdict:
    """Whether the run of ``larger`` has the larger ``measure``, on the same test images."""
    what = _comparison(measure, larger, smaller)
    both = [found[e].per_image.get(measure, []) for e in (larger, smaller) if e in found]
    if len(both) < 2 or not both[0] or len(both[0]) != len(both[1]):
        return Verdict(claim, what, TOO_FEW)
    mean, low, high = paired_interval(*both)
    pairs = len(both[0])
    verdict = _judge(low, high) if pairs > 1 else TOO_FEW_PAIRS
    return Verdict(claim, what, verdict, mean, low, high, pairs)


def verdicts(records: list[Record]) -> list[Verdict]:
    """Claims (i), (ii), (iii) and (v) on the runs of one preset, data set and seed.

    (i) larger alpha gives larger KL and MPD; (ii) larger beta gives smaller STD; (iii) MAE beats
    VLAE in NLL; (v) MAE's code keeps more of the image than VLAE's: a smaller RE. (iv) and (vii)
    have no per-image pairs: ``representation_verdicts``.
    """
    found, rises = by_experiment(records), "(i) larger alpha, larger"
    first = [
        compare(f"{rises} {m.upper()}", m, found, MAE[high, beta], MAE[low, beta])
        for m in ("kl", "mpd") for beta in BETAS for low, high in itertools.pairwise(ALPHAS)
    ]  # fmt: skip
    second = [
        compare("(ii) larger beta, smaller STD", "std", found, MAE[alpha, low], MAE[alpha, high])
        for alpha in ALPHAS for low, high in itertools.pairwise(BETAS)
    ]  # fmt: skip
    third = [
        compare("(iii) MAE beats VLAE in NLL", "nll", found, VLAE, MAE[alpha, beta])
        for beta in BETAS for alpha in ALPHAS
    ]  # fmt: skip
    fifth = [compare("(v) MAE keeps more than VLAE: smaller RE", "re", found, VLAE, BEST)]
    return first + second + third + fifth


def colour_verdicts(records: list[Record]) -> list[Verdict]:
    """Claim (vi): on CIFAR-10 every MAE has a lower NLL (nats per image) than our VLAE.

    Models with the same decoder are compared, on the runs of one preset, data set and seed.
    """
    claim, found = "(vi) MAE improves on our VLAE (Table 3)", by_experiment(records)
    pairs = [(experiments.CIFAR10_VLAE, mae) for mae in experiments.CIFAR10_MAE.values()]
    pairs.append((experiments.CIFAR10_FULL_VLAE, experiments.CIFAR10_FULL_MAE))
    return [compare(claim, "nll", found, vlae, mae) for vlae, mae in pairs]


def representation_verdicts(records: list[Record]) -> list[Verdict]:
    """Claims (iv) and (vii): MAE(1, 0.5) clusters and classifies better than both baselines.

    (iv) is k-means with K = 10 and 20, (vii) Table 2's classifiers from 100 and 1,000 labels and
    from all. The interval is Welch's, over the runs of each; from all labels there is only one.
    """
    found = by_experiment(records)
    clusters = [f"kmeans_{k}" for k in (10, 20)]
    classes = [f"{kind}_{count}" for kind in ("knn", "linear") for count in (100, 1000, "all")]
    fourth = "(iv) MAE beats ResNet VAE and VLAE in clustering"
    seventh = "(vii) MAE beats ResNet VAE and VLAE in classification"
    return [
        _accuracy_verdict(claim, measure, found, other)
        for claim, measures in ((fourth, clusters), (seventh, classes))
        for measure in measures
        for other in (VAE, VLAE)
    ]


def by_experiment(records: list[Record]) -> Runs:
    """The runs by their experiment; a run that is of none is left out."""
    return {e: r for r in records if (e := experiment_of(r.config)) is not None}


def _judge(low: float, high: float) -> str:
    return HOLDS if low > 0 else FAILS if high < 0 else OPEN


def _comparison(measure: str, first: Experiment, second: Experiment) -> str:
    return f"{measure}: {first.label} - {second.label}"


def _accuracy_verdict(claim: str, measure: str, found: Runs, other: Experiment) -> Verdict:
    what = _comparison(measure, BEST, other)
    both = [found[e] for e in (BEST, other) if e in found]
    if len(both) < 2 or not all(measure in r.measurements for r in both):
        return Verdict(claim, what, TOO_FEW)
    difference = both[0].measurements[measure] - both[1].measurements[measure]
    runs = 1 if measure.endswith("_all") else both[0].evaluation.get("clustering_runs", 5)
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
