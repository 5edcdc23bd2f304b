import numpy as np
import pytest

from maelib import config, model
from maelib.data import dataset
from maelib.measure import representations


def clumps(n=600, classes=10, latent=4, seed=0):
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(1).normal(size=(classes, latent)) * 30
    labels = random.integers(0, classes, n)
    points = centres[labels] + random.normal(size=(n, latent))
    return points.astype(np.float32), labels


def test_well_separated_clumps_are_found():
    result = representations.measure(*clumps(), *clumps(seed=2), runs=2)
    for name in ("kmeans_20", "kmeans_20_majority", "knn_100", "knn_all", "linear_all"):
        assert result[name] > 97
    assert "knn_1000" not in result  # there are only 600 samples
    assert "knn_100_sd" in result
    assert "knn_all_sd" not in result  # one fit has no spread


def test_labels_without_relation_to_the_codes_give_chance():
    (train, labels), (test, truth) = clumps(), clumps(seed=2)
    random = np.random.default_rng(3)
    result = representations.measure(
        train, random.permutation(labels), test, random.permutation(truth), runs=1
    )
    assert result["knn_all"] < 25
    assert result["kmeans_10_nmi"] < 0.1


def test_cluster_takes_the_label_of_its_nearest_sample():
    (train, labels), (test, truth) = clumps(), clumps(seed=2)
    from sklearn.cluster import KMeans

    fitted = KMeans(10, n_init=1, random_state=0).fit(train)
    right = 0
    for point, label in zip(test, truth, strict=True):
        centre = min(fitted.cluster_centers_, key=lambda c: float(((point - c) ** 2).sum()))
        nearest = min(range(len(train)), key=lambda i: float(((train[i] - centre) ** 2).sum()))
        right += labels[nearest] == label
    score = representations.cluster(train, labels, test, truth, 10, 0)
    assert score[""] == pytest.approx(100 * right / len(test))


def test_draws_are_balanced_and_repeatable():
    train, labels = clumps()
    first = representations.draw(train, labels, 100, 0)
    assert np.bincount(first[1]).tolist() == [10] * 10
    assert np.array_equal(first[0], representations.draw(train, labels, 100, 0)[0])
    assert not np.array_equal(first[0], representations.draw(train, labels, 100, 1)[0])


def test_a_model_is_measured_on_small_data():
    net = model.build(config.resolve("smoke", "digits").network)
    digits = dataset.load("digits")
    result = representations.measure_model(net, digits.train.first(60), digits.test.first(40), 2)
    assert 0 <= result["kmeans_10"] <= 100
    assert "knn_100" not in result
