import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_divergences import posteriors

from maelib import objectives as o
from maelib.divergences import pairwise_kl


def by_hand(mu, logvar, alpha, form):
    kl = pairwise_kl(mu, logvar)
    if form == "pairwise":
        return alpha * torch.log1p(torch.exp(-kl)).sum(1).mean()
    scale = alpha if form == "tempered" else 1
    return alpha * torch.log1p(torch.exp(-kl.mean(0) / scale)).sum()


@pytest.mark.parametrize("form", o.DIVERSE_FORMS)
@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_diverse_forms_are_their_formulas(form, alpha):
    mu, logvar = posteriors(7, 4)
    expected = by_hand(mu, logvar, alpha, form)
    torch.testing.assert_close(o.diverse_loss(mu, logvar, alpha, form), expected)


@given(st.integers(0, 1000))
def test_mean_is_never_above_pairwise(seed):
    mu, logvar = posteriors(6, 3, seed)
    mean = o.diverse_loss(mu, logvar, 1.0, "mean")
    assert mean <= o.diverse_loss(mu, logvar, 1.0, "pairwise") + 1e-12


def test_tempered_is_mean_at_alpha_one():
    mu, logvar = posteriors(6, 3)
    forms = [o.diverse_loss(mu, logvar, 1.0, form) for form in ("mean", "tempered")]
    torch.testing.assert_close(*forms)


@pytest.mark.parametrize("form", o.DIVERSE_FORMS)
def test_diversity_falls_from_log_2_to_0_as_posteriors_part(form):
    logvar = torch.zeros(2, 3)
    together, apart = torch.zeros(2, 3), torch.tensor([[0.0], [50.0]]).expand(2, 3)
    assert o.diverse_loss(together, logvar, 1.0, form).item() == pytest.approx(3 * math.log(2))
    assert o.diverse_loss(apart, logvar, 1.0, form).item() < 1e-6


def test_an_unknown_form_is_named():
    with pytest.raises(ValueError, match=r"diverse is 'sum'.*tempered"):
        o.diverse_loss(*posteriors(2, 2), 1.0, "sum")


def test_mae_loss_adds_its_terms():
    mu, logvar = posteriors(5, 3)
    re, kl = torch.arange(5.0), torch.full((5,), 2.0)
    t = o.mae_loss(re, kl, mu, logvar, alpha=2.0, beta=0.5)
    total = 2.0 + 2.0 + o.diverse_loss(mu, logvar, 2.0) + 0.5 * t.std
    torch.testing.assert_close(t.loss, total)
    assert t.elbo.item() == 4.0


def test_free_bits_make_a_small_kl_free():
    mu, logvar = posteriors(3, 2)
    kl = torch.full((3,), 2.0, requires_grad=True)
    t = o.mae_loss(torch.ones(3), kl, mu, logvar, free_bits=7.84)
    assert t.loss.item() == pytest.approx(8.84)
    assert t.kl.item() == 2.0
    t.loss.backward()
    assert kl.grad.abs().sum() == 0


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=30).filter(lambda v: len(v) % 2 == 0))
def test_all_samples_bound_at_least_as_well_as_their_halves(values):
    weights = torch.tensor(values, dtype=torch.float64)[:, None]
    halves = [o.importance_weighted_bound(half) for half in weights.chunk(2)]
    assert o.importance_weighted_bound(weights) >= sum(halves) / 2 - 1e-9


@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.1), (1.0, 0.5), (2.0, 0.5)])
@pytest.mark.parametrize("form", ["tempered", "mean"])
def test_closed_form_mpd_is_where_the_two_forces_balance(alpha, beta, form):
    # Equal dimensions at KL m each, STD = ratio * latent * m: minimise over m by brute force.
    ratio, latent = 0.16, 32
    m = torch.linspace(0, 20, 200_001, dtype=torch.float64)
    scale = alpha if form == "tempered" else 1.0
    loss = alpha * torch.nn.functional.softplus(-m / scale) + beta * ratio * m
    expected = latent * m[loss.argmin()].item()
    found = o.closed_form_mpd(alpha, beta, ratio, latent, form)
    assert found == pytest.approx(expected, rel=1e-2)
