import math

import pytest
import torch

from maelib import config, model
from maelib.data import dataset
from maelib.measure import collapse, evaluation


def posteriors(n=40, latent=3, spread=1.0, seed=0):
    noise = torch.Generator().manual_seed(seed)
    mu = spread * torch.randn(n, latent, generator=noise)
    logvar = 0.3 * torch.randn(n, latent, generator=noise) - 1
    return mu, logvar, torch.randn(n, latent, generator=noise)


def mutual_information_reference(mu, logvar, eps):
    """I_q(x;z) of ``collapse.mutual_information``, by ``torch.distributions`` and loops."""
    each = [torch.distributions.Normal(m, (0.5 * v).exp()) for m, v in zip(mu, logvar, strict=True)]
    total = 0.0
    for q, e in zip(each, eps, strict=True):
        z = q.mean + q.stddev * e
        densities = torch.stack([other.log_prob(z).sum() for other in each])
        total += float(q.log_prob(z).sum() - densities.logsumexp(0) + math.log(len(mu)))
    return total / len(mu)


def test_mutual_information_against_loops():
    sample = posteriors()
    info, _ = collapse.mutual_information(*sample, elements=840)
    assert float(info) == pytest.approx(mutual_information_reference(*sample), abs=1e-4)


def test_mutual_information_is_zero_if_all_posteriors_are_one():
    mu, logvar, eps = posteriors()
    same = [t[:1].expand(40, 3) for t in (mu, logvar)]
    info, per_dimension = collapse.mutual_information(*same, eps)
    assert float(info) == pytest.approx(0, abs=1e-5)
    assert per_dimension.abs().max() < 1e-5


def test_mutual_information_saturates_at_log_n():
    info, _ = collapse.mutual_information(*posteriors(spread=1000.0))
    assert float(info) == pytest.approx(math.log(40), abs=1e-3)


def test_one_dimension_alone_is_the_whole():
    mu, logvar, eps = posteriors(latent=1)
    info, per_dimension = collapse.mutual_information(mu, logvar, eps)
    assert float(info) == pytest.approx(float(per_dimension.sum()), abs=1e-5)


def test_active_units_counts_dimensions_that_vary():
    mu = torch.zeros(50, 4)
    mu[:, 1] = torch.linspace(-1, 1, 50)
    mu[:, 3] = torch.linspace(-0.1, 0.1, 50)  # variance 0.0035
    assert collapse.active_units(mu) == 1


def test_swap_cost_is_zero_for_a_decoder_that_ignores_the_code():
    net = model.build(config.resolve("smoke", "digits").network)
    torch.nn.init.zeros_(net.decoder.code.gain)
    images = dataset.load("digits").test.images[:20]
    x = evaluation.test_images(images)
    z = torch.randn(20, 32, generator=torch.Generator().manual_seed(0))
    assert collapse.swap_cost(net, x, z) == pytest.approx(0, abs=1e-4)
