"""The paper's claims as computed verdicts: differences of two models, over training seeds."""

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from maelib import experiments
from maelib.experiments import ALPHAS, BETAS, MAE, VAE, VLAE, Experiment, experiment_of
from maelib.measure.estimate import Estimate, estimate
from maelib.report import paper
from maelib.runs.record import Record

HOLDS, FAILS, OPEN = "holds", "fails", "undecided"
ONE_SEED = "one seed: no verdict about the method"
TOO_FEW, MIXED = "not enough runs", "measured in two ways"
LEVEL = 0.05  # of all comparisons together, by Holm's method; intervals are of 95 % each
BEST = MAE[1.0, 0.5]  # the paper's main model, which it compares with the VLAE
HOW = (
    "version",
    "test_images",
    "nll_images",
    "nll_k",
    "nll_k_all",
)  # two runs are compared if these agree
Runs = dict[tuple[Experiment, int], Record]


@dataclass(frozen=True)
class Claim:
    """That ``larger`` has a larger ``measure`` than ``smaller``."""

    text: str
    measure: str
    larger: Experiment
    smaller: Experiment

    @property
    def comparison(self) -> str:
        """What is subtracted from what."""
        return f"{self.measure}: {self.larger.label} minus {self.smaller.label}"

    @property
    def printed(self) -> float | None:
        """The difference of the two values that the paper prints; None where it has not both.

        Bits/dim are turned into nats per image. Table 3 is of the paper's small window alone.
        """
        if "decoder" in self.larger.options:
            return None
        table, name, unit = "table2" if "_" in self.measure else "table4", self.measure, 1.0
        if self.larger.images == "cifar10":
            table, name, unit = "table3", "bpd", 3 * 32 * 32 * math.log(2)
        rows = [paper.row(table, e.row) or {} for e in (self.larger, self.smaller)]
        values = [paper.value(row, name) for row in rows]
        return None if None in values else unit * (values[0] - values[1])


@dataclass(frozen=True)
class Verdict:
    """A claim's difference in the units of its measure, its interval, and what follows.

    Over two seeds or more ``difference`` is the mean over seeds of the difference within each
    seed, with Student's t interval over seeds, which holds the variance of training. Of one seed
    it is the mean over images, with the interval of these two trained models (``paired``).
    """

    claim: Claim
    verdict: str
    difference: float = math.nan
    low: float = -math.inf
    high: float = math.inf
    seeds: int = 0
    p: float = math.nan  # of no difference, over seeds
    preset: str = ""


# Where the paper makes each claim.
SOURCES = {
    "(i)": "Appendix B.1.2, Table 4",
    "(ii)": "Section 3.2, Table 4",
    "(iii)": "Section 4.1.1, Tables 1a and 4",
    "(iv)": "Section 4.1.2, Table 2",
    "(v)": "Section 4.1.2, Figure 2, Table 4",
    "(vi)": "Section 4.3, Table 3",
    "(vii)": "Section 4.1.2, Table 2",
    "(viii)": "Appendix B.1.2, Table 4",
}
# (iv), (v) and (vii) are about ``BEST`` alone: every further comparison makes it harder for all of
# them to be significant.
CLUSTER_MEASURES = ("kmeans_10", "kmeans_20", "kmeans_30")
CLASSES = [f"{kind}_{count}" for kind in ("knn", "linear") for count in (100, 1000, "all")]
CLAIMS = (
    *(Claim(f"(i) larger alpha, larger {m.upper()}", m, MAE[high, beta], MAE[low, beta])
      for m in ("kl", "mpd") for beta in BETAS for low, high in itertools.pairwise(ALPHAS)),
    *(Claim("(ii) larger beta, smaller STD", "std", MAE[alpha, low], MAE[alpha, high])
      for alpha in ALPHAS for low, high in itertools.pairwise(BETAS)),
    *(Claim("(iii) MAE beats VLAE in NLL", "nll", VLAE, MAE[alpha, beta])
      for beta in BETAS for alpha in ALPHAS),
    *(Claim("(iv) MAE beats ResNet VAE and VLAE in clustering", m, BEST, other)
      for m in CLUSTER_MEASURES for other in (VAE, VLAE)),
    Claim("(v) MAE keeps more than VLAE: smaller RE", "re", VLAE, BEST),
    *(Claim("(vi) MAE beats VLAE on CIFAR-10", "nll", experiments.CIFAR10_VLAE, mae)
      for mae in experiments.CIFAR10_MAE.values()),
    Claim("(vi) MAE beats VLAE on CIFAR-10", "nll", experiments.CIFAR10_FULL_VLAE,
          experiments.CIFAR10_FULL_MAE),
    *(Claim("(vii) MAE beats ResNet VAE and VLAE in classification", m, BEST, other)
      for m in CLASSES for other in (VAE, VLAE)),
    *(Claim("(viii) beta 0.1 to 0.5: larger KL", "kl", MAE[alpha, 0.5], MAE[alpha, 0.1])
      for alpha in ALPHAS),
    *(Claim("(viii) beta 0.1 to 0.5: better NLL", "nll", MAE[alpha, 0.1], MAE[alpha, 0.5])
      for alpha in ALPHAS),
    *(Claim("(viii) beta 0.5 to 1: smaller KL", "kl", MAE[alpha, 0.5], MAE[alpha, 1.0])
      for alpha in ALPHAS),
    *(Claim("(viii) beta 0.5 to 1: worse NLL", "nll", MAE[alpha, 1.0], MAE[alpha, 0.5])
      for alpha in ALPHAS),
)  # fmt: skip


def verdicts(records: list[Record]) -> list[Verdict]:
    """Every claim on the runs of one preset; ``records`` hold one data set for each claim.

    ``holds`` and ``fails`` are differences that Holm's method accepts at ``LEVEL``, over all
    comparisons that have two seeds.
    """
    found = {(e, r.config.seed): r for r in records if (e := experiment_of(r.config)) is not None}
    judged = [compare(claim, found) for claim in CLAIMS]
    accepted = holm([v.p for v in judged])
    return [
        replace(v, verdict=HOLDS if v.difference > 0 else FAILS) if sure else v
        for v, sure in zip(judged, accepted, strict=True)
    ]


def compare(claim: Claim, found: Runs) -> Verdict:
    """The difference of a claim over the seeds that have both runs, before Holm's correction."""
    seeds = {s for e, s in found if e is claim.larger} & {s for e, s in found if e is claim.smaller}
    pairs = [(found[claim.larger, s], found[claim.smaller, s]) for s in sorted(seeds)]
    pairs = [pair for pair in pairs if all(claim.measure in r.measurements for r in pair)]
    if not pairs:
        return Verdict(claim, TOO_FEW)
    preset = pairs[0][0].config.preset
    if len({tuple(r.evaluation.get(name) for name in HOW) for pair in pairs for r in pair}) > 1:
        return Verdict(claim, MIXED, seeds=len(pairs), preset=preset)
    if len(pairs) == 1:
        one = paired(*pairs[0], claim.measure)
        half = float(stats.t.ppf(0.975, one.count - 1)) * one.error if one.count > 1 else math.inf
        ends = one.mean - half, one.mean + half
        return Verdict(claim, ONE_SEED, one.mean, *ends, 1, preset=preset)
    differences = [a.measurements[claim.measure] - b.measurements[claim.measure] for a, b in pairs]
    test = stats.ttest_1samp(differences, 0)
    ends = (float(end) for end in test.confidence_interval(0.95))
    mean = float(np.mean(differences))
    return Verdict(claim, OPEN, mean, *ends, len(pairs), float(test.pvalue), preset)


def paired(first: Record, second: Record, measure: str) -> Estimate:
    """The mean difference of two trained models and its error, over pairs of one sample each.

    A pair shares image, binarisation and noise (nll, re, kl) or the batch of images (mpd, std). An
    accuracy has no pairs, and so an infinite error.
    """

    def differences(name: str) -> list[float] | None:
        both = [r.per_image.get(name) for r in (first, second)]
        return [a - b for a, b in zip(*both, strict=True)] if all(both) else None

    if (costly := differences(measure)) is None:
        return estimate([first.measurements[measure] - second.measurements[measure]])
    return estimate(costly, differences("nll_all") if measure == "nll" else None)


def holm(p_values: list[float]) -> list[bool]:
    """Which are significant at ``LEVEL`` together (Holm, 1979); NaN is no comparison."""
    order = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    small = [p <= LEVEL / (len(order) - rank) for rank, (p, _) in enumerate(order)]
    sure = {i for _, i in order[: [*small, False].index(False)]}
    return [i in sure for i in range(len(p_values))]


def by_experiment(records: list[Record]) -> dict[Experiment, Record]:
    """The runs of the smallest seed by their experiment; a run that is of none is left out."""
    order = sorted(records, key=lambda r: -r.config.seed)
    return {e: r for r in order if (e := experiment_of(r.config)) is not None}
