"""Table 2: what clustering and simple classifiers find in the posterior means.

Every model's means come from the same seeded binarisation of the images. The fits are
scikit-learn's.
"""

import statistics
import warnings

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import normalized_mutual_info_score, pairwise_distances_argmin
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from maelib.data.dataset import Split, binarise
from maelib.internal import rng
from maelib.internal.shapes import Codes, Labels
from maelib.model import VAE

CLUSTERS = (10, 20, 30)
LABELS = (100, 1000)
NEIGHBOURS = 10
SomeCodes = Float[np.ndarray, "test latent"]
SomeLabels = Int64[np.ndarray, " test"]


@torch.no_grad()
def codes(model: VAE, images: UInt8[Tensor, "batch 1 h w"], part: str, batch: int = 1000) -> Codes:
    """Posterior means of images binarised once; ``part`` ("train" or "test") keys the draw."""
    drawn = binarise(images.cpu(), rng.generator(0, "representation", part))
    means = [model.encode(chunk.to(model.device))[0].cpu() for chunk in drawn.split(batch)]
    return torch.cat(means).numpy()


def measure_model(model: VAE, train: Split, test: Split, runs: int = 5) -> dict[str, float]:
    """``measure`` on the posterior means of a model."""
    known, other = codes(model, train.images, "train"), codes(model, test.images, "test")
    return measure(known, train.labels.numpy(), other, test.labels.numpy(), runs)


def measure(
    train: Codes, train_labels: Labels, test: SomeCodes, test_labels: SomeLabels, runs: int = 5
) -> dict[str, float]:
    """Clustering and classification accuracy on the test codes, in per cent; NMI in 0 to 1.

    Means over ``runs`` seeds of k-means or of the draw of labels, and their standard deviations
    (``_sd``): ``kmeans_K`` with ``_majority``, ``_hungarian`` and ``_nmi``; ``knn_L`` and
    ``linear_L`` from L labels. ``knn_all`` and ``linear_all`` are one fit and have no ``_sd``. A K
    or L that exceeds the training set is left out.
    """
    result: dict[str, float] = {}
    for k in (k for k in CLUSTERS if k <= len(train)):
        scores = [cluster(train, train_labels, test, test_labels, k, seed) for seed in range(runs)]
        for end in scores[0]:
            result |= _summary(f"kmeans_{k}{end}", [score[end] for score in scores])
    for kind, fit in (("knn", knn), ("linear", linear)):
        for count in (count for count in LABELS if count <= len(train)):
            drawn = [draw(train, train_labels, count, seed) for seed in range(runs)]
            scores = [_accuracy(fit(*sample), test, test_labels) for sample in drawn]
            result |= _summary(f"{kind}_{count}", scores)
        result[f"{kind}_all"] = _accuracy(fit(train, train_labels), test, test_labels)
    return result


def cluster(
    train: Codes, train_labels: Labels, test: SomeCodes, test_labels: SomeLabels, k: int, seed: int
) -> dict[str, float]:
    """One k-means of the training codes, scored on the test codes: NMI, and accuracy in three ways.

    "" takes each cluster's label from the training sample nearest to its centre (the paper's
    way); ``_majority`` from most of its training samples; ``_hungarian`` matches clusters and
    classes one to one on the training samples, surplus clusters going unmatched.
    """
    with warnings.catch_warnings():
        # Codes that are all the same, as a collapsed encoder's, have fewer clusters than asked.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = KMeans(k, n_init=1, random_state=seed).fit(train)
    nearest = train_labels[pairwise_distances_argmin(fitted.cluster_centers_, train)]
    counts = np.zeros((k, int(train_labels.max()) + 1), dtype=int)  # [clusters, classes]
    np.add.at(counts, (fitted.labels_, train_labels), 1)
    matched = np.full(k, -1)
    rows, columns = linear_sum_assignment(counts, maximize=True)
    matched[rows] = columns
    found = fitted.predict(test)
    ways = {"": nearest, "_majority": counts.argmax(1), "_hungarian": matched}
    scores = {end: 100 * float((label[found] == test_labels).mean()) for end, label in ways.items()}
    return scores | {"_nmi": float(normalized_mutual_info_score(test_labels, found))}


def draw(train: Codes, labels: Labels, count: int, seed: int) -> tuple[SomeCodes, SomeLabels]:
    """``count`` training samples, as evenly from the classes as possible, without replacement."""
    order = np.random.default_rng(seed).permutation(len(labels))
    # Within each class the shuffled samples take ranks 0, 1, ...; the lowest ranks are chosen.
    rank = np.empty(len(labels), dtype=int)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        rank[members] = np.arange(len(members))
    chosen = order[np.argsort(rank[order], kind="stable")][:count]
    return train[chosen], labels[chosen]


def knn(codes: Codes, labels: Labels) -> KNeighborsClassifier:
    """10 nearest neighbours, fewer if there are fewer samples."""
    return KNeighborsClassifier(min(NEIGHBOURS, len(codes))).fit(codes, labels)


def linear(codes: Codes, labels: Labels) -> Pipeline:
    """Logistic regression on standardised codes, C = 1."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(codes, labels)


def _accuracy(fitted: KNeighborsClassifier | Pipeline, test: SomeCodes, truth: SomeLabels) -> float:
    return 100 * float((fitted.predict(test) == truth).mean())


def _summary(name: str, values: list[float]) -> dict[str, float]:
    deviation = {f"{name}_sd": statistics.stdev(values)} if len(values) > 1 else {}
    return {name: statistics.fmean(values), **deviation}
