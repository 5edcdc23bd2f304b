import math

import pytest
import torch
from torch import nn

from maelib import config, data, evaluation, model
from maelib.flows import FlowPrior


class Encoder(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.register_buffer("inverse", torch.linalg.pinv(w))

    def forward(self, x):
        mu = 0.8 * x.flatten(1) @ self.inverse.T
        return mu, torch.full_like(mu, -0.5)


class LinearGaussian(model.VAE):
    """p(z) = N(0, I), p(x|z) = N(W z, I), and a posterior that is not the exact one."""

    def __init__(self, pixels=4, latent=2):
        w = torch.randn(pixels, latent, dtype=torch.float64)
        super().__init__(Encoder(w), FlowPrior(latent, 4, 0), nn.Identity())
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
    slow = evaluation.iw_nll_reference(net, x, k)
    for rows in (1, 64, 10_000):
        torch.testing.assert_close(evaluation.iw_nll(net, x, k, rows), slow, atol=1e-9, rtol=0)


def test_measure_states_its_protocol_and_is_repeatable():
    c = config.resolve("smoke", "digits")
    net, digits = model.build(c), data.load("digits")
    first, second = (evaluation.measure(net, digits, c) for _ in range(2))
    assert first == second
    assert first.protocol["nll_k"] == 8
    assert first.protocol["nll_images"] == 10
    means = first.means
    assert means["elbo"] == pytest.approx(means["re"] + means["kl"], abs=1e-3)
    assert means["nll"] == pytest.approx(sum(first.samples["nll"]) / 10, abs=1e-3)
    assert all(math.isfinite(value) for value in means.values())
    assert sum(first.dimensions["mutual_kl"]) == pytest.approx(means["mpd"], rel=1e-4)
