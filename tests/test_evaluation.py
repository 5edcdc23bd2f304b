import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from maelib import config, model
from maelib.data import Data, dataset
from maelib.measure import evaluation
from maelib.measure.estimate import balanced_order, estimate
from maelib.nets.priors import StandardNormal


def iw_nll_reference(net, x, k):
    """``evaluation.iw_nll``, the slow and obvious way: one image and one sample at a time."""
    rows = []
    for i, image in enumerate(x):
        blocks = range(-(-k // evaluation.BLOCK))
        eps = torch.cat([evaluation.noise_block(i, b, net.prior.latent) for b in blocks])[:k].to(x)
        weights = [evaluation.log_weights(net, image[None], e[None, None])[0] for e in eps]
        rows.append(-evaluation.importance_weighted_bound(torch.stack(weights)))
    return torch.cat(rows)


class Posterior(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.register_buffer("inverse", torch.linalg.pinv(w))

    def forward(self, pixels):
        mu = 0.8 * pixels @ self.inverse.T
        return mu, torch.full_like(mu, -0.5)


class LinearGaussian(model.VAE):
    """p(z) = N(0, I), p(x|z) = N(W z, I), and a posterior that is not the exact one."""

    def __init__(self, pixels=4, latent=2):
        w = torch.randn(pixels, latent, dtype=torch.float64)
        super().__init__(nn.Flatten(), Posterior(w), StandardNormal(latent), nn.Identity())
        self.w = w

    def log_likelihood(self, x, z):
        return torch.distributions.Normal(z @ self.w.T, 1.0).log_prob(x.flatten(1)).sum(1)

    def log_marginal(self, x):
        covariance = self.w @ self.w.T + torch.eye(len(self.w))
        mean = torch.zeros(len(self.w), dtype=torch.float64)
        return torch.distributions.MultivariateNormal(mean, covariance).log_prob(x.flatten(1))


@pytest.fixture
def linear():
    net = LinearGaussian()
    return net, torch.randn(8, 1, 2, 2, dtype=torch.float64)


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=30).filter(lambda v: len(v) % 2 == 0))
def test_all_samples_bound_at_least_as_well_as_their_halves(values):
    weights = torch.tensor(values, dtype=torch.float64)[:, None]
    halves = [evaluation.importance_weighted_bound(half) for half in weights.chunk(2)]
    assert evaluation.importance_weighted_bound(weights) >= sum(halves) / 2 - 1e-9


def test_iw_nll_reaches_the_exact_likelihood(linear):
    net, x = linear
    exact = -net.log_marginal(x)
    one = evaluation.iw_nll(net, x, 1)
    many = evaluation.iw_nll(net, x, 8192)
    torch.testing.assert_close(many, exact, atol=0.05, rtol=0)
    assert (one - exact).mean() > 5 * (many - exact).abs().mean()


@pytest.mark.parametrize("k", [1, 10, 64, 100, 200])
def test_iw_nll_does_not_depend_on_batching_and_is_the_plain_loop(linear, k):
    net, x = linear
    slow = iw_nll_reference(net, x, k)
    for rows in (1, 64, 10_000):
        torch.testing.assert_close(evaluation.iw_nll(net, x, k, rows), slow, atol=1e-9, rtol=0)


def test_measure_states_its_settings_and_is_repeatable():
    c = config.resolve("smoke", "digits")
    net, digits = model.build(c.network), dataset.load("digits")
    first, second = (evaluation.measure(net, digits, c.data, c.evaluation) for _ in range(2))
    assert first == second
    how, each, means = first.evaluation, first.per_image, first.measurements
    assert (how["test_images"], how["nll_images"]) == (40, 10)
    assert (how["nll_k"], how["nll_k_all"]) == (8, 1)
    assert means["elbo"] == pytest.approx(means["re"] + means["kl"], abs=1e-3)
    gap = np.subtract(each["nll"], each["nll_all"][:10])
    assert means["nll"] == pytest.approx(np.mean(each["nll_all"]) + gap.mean(), abs=2e-3)
    assert all(math.isfinite(value) for value in means.values())
    assert sum(first.dimensions["mutual_kl"]) == pytest.approx(means["mpd"], rel=1e-4)


class Darkness(model.VAE):
    """A model whose NLL is the number of black pixels, so that it is known of every image."""

    def __init__(self):
        still = Posterior(torch.zeros(784, 2, dtype=torch.float32))
        super().__init__(nn.Flatten(), still, StandardNormal(2), nn.Identity())
        self.weight = nn.Parameter(torch.ones(()))

    def log_likelihood(self, x, z):
        return self.weight * -x.flatten(1).sum(1) + z.sum(1)


def planted(easy, hard):
    """A data set that begins with all its easy images: white ones before black ones."""
    images = torch.zeros(easy + hard, 1, 28, 28, dtype=torch.uint8)
    images[easy:] = 255
    part = dataset.Split(images, (torch.arange(easy + hard) >= easy).long())
    return dataset.Dataset("digits", part, part, part, "planted")


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
@pytest.mark.parametrize("used", [None, 200])
@pytest.mark.parametrize("k_all", [1, 4])
def test_a_file_whose_first_images_are_easy_does_not_flatter_the_model(used, k_all):
    """NLL and ELBO are of the same images, and all of the file is drawn from."""
    share = 300 / 400  # of hard images, each of 784 nats
    settings = evaluation.Evaluation(nll_images=40, nll_k=64, nll_k_all=k_all)
    measured = evaluation.measure(
        Darkness(), planted(100, 300), Data("digits", 400, None, used), settings
    )
    means, indices = measured.measurements, measured.evaluation["nll_indices"]
    assert sum(i >= 100 for i in indices) / len(indices) == pytest.approx(share, abs=0.03)
    assert means["re"] == pytest.approx(784 * share, abs=15)
    assert means["elbo"] - means["nll"] == pytest.approx(1.1, abs=0.6)


@pytest.mark.parametrize("k_all", [1, 16])
def test_control_variate_is_the_full_estimate_within_its_error(linear, k_all):
    net, x = linear[0], torch.randn(60, 1, 2, 2, dtype=torch.float64)
    costly, cheap = (evaluation.iw_nll(net, x, k) for k in (256, k_all))
    full = estimate(costly.tolist())
    draws = [torch.randperm(len(x)) for _ in range(400)]
    made = [estimate(costly[o][:20].tolist(), cheap[o].tolist()) for o in draws]
    means = np.array([each.mean for each in made])
    assert abs(means.mean() - full.mean) < 4 * means.std() / 400**0.5  # no bias
    # The stated error is that of the images themselves and that of drawing 20 of them.
    stated = np.mean([each.error**2 for each in made])
    assert stated == pytest.approx(full.error**2 + means.var(), rel=0.1)
    if k_all > 1:
        alone = np.std([costly[o][:20].mean() for o in draws])
        assert means.std() < 0.7 * alone  # better than the 20 images without the others


def test_without_a_cheap_number_the_error_is_the_usual_one():
    values = np.random.default_rng(0).normal(size=50)
    plain, all_dear = estimate(values.tolist()), estimate(values.tolist(), values.tolist())
    assert plain == all_dear
    assert plain.error == pytest.approx(values.std(ddof=1) / 50**0.5)
    assert estimate([1.0]).error == math.inf


@given(st.lists(st.integers(0, 4), min_size=1, max_size=200))
def test_every_beginning_of_the_order_has_the_share_of_each_class(labels):
    labels = np.array(labels)
    order = balanced_order(labels, 0)
    assert sorted(order) == list(range(len(labels)))
    for label in set(labels):
        seen = np.cumsum(labels[order] == label)
        share = np.arange(1, len(labels) + 1) * (labels == label).mean()
        assert np.abs(seen - share).max() <= 5  # at most one image for each class
