"""A mean over all test images of a number that is known of a part of them only.

Let b_i be a costly number of image i (its NLL with K samples) and a_i a cheap one (its NLL with
k < K samples). All N images have a_i, and a random n of them, the subset S, have b_i. The
control-variate estimate is

    mean of a over all N  +  mean of (b - a) over S.

Given the N images its expectation over S is the mean of b over all N, and its variance is that of
a mean of n of N numbers without replacement, (1 - n/N) var(b - a) / n. The N images are a sample
themselves, which adds var(b) / N by the law of total variance. With n = N, or a = b, the estimate
is the plain mean, and its error the usual one.

Two models are compared by the same formulas, with the difference of the models in place of a and
of b. What is common to both models, such as how hard an image is, cancels image by image.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64


@dataclass(frozen=True)
class Estimate:
    """A mean over images, its standard error, and the ``count`` of images that decides it."""

    mean: float
    error: float
    count: int


def estimate(costly: Sequence[float], cheap: Sequence[float] | None = None) -> Estimate:
    """The control-variate estimate; ``costly`` are b of the first images of ``cheap``.

    Without ``cheap`` it is the plain mean. The error of a single image is infinite. If S has the
    share of each class that all images have, the error is stated slightly too large.
    """
    b = np.asarray(costly, dtype=float)
    a = b if cheap is None else np.asarray(cheap, dtype=float)
    n, total = len(b), len(a)
    gap = b - a[:n]
    if n < 2:
        return Estimate(float(a.mean() + gap.mean()), math.inf, n)
    variance = b.var(ddof=1) / total + (1 - n / total) * gap.var(ddof=1) / n
    return Estimate(float(a.mean() + gap.mean()), math.sqrt(variance), n)


def balanced_order(labels: Int64[np.ndarray, " images"], seed: int) -> Int64[np.ndarray, " images"]:
    """A random order of the images in whose every beginning each class has its share of all.

    The j-th of the c images of a class, in random order, stands at (j + u) / c of the way, with one
    random u in 0 ... 1 for each class. With one class it is a random permutation.
    """
    random = np.random.default_rng(seed)
    shuffled = random.permutation(len(labels))
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        place[members] = (np.arange(len(members)) + random.random()) / len(members)
    return np.argsort(place, kind="stable")
