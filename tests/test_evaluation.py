import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from maelib import config, model
from maelib.data import dataset
from maelib.measure import evaluation
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
    assert first.settings["nll_k"] == 8
    assert first.settings["nll_images"] == 10
    means = first.means
    assert means["elbo"] == pytest.approx(means["re"] + means["kl"], abs=1e-3)
    assert means["nll"] == pytest.approx(sum(first.per_image["nll"]) / 10, abs=1e-3)
    assert all(math.isfinite(value) for value in means.values())
    assert sum(first.dimensions["mutual_kl"]) == pytest.approx(means["mpd"], rel=1e-4)
