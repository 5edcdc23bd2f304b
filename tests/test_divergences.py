import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from maelib import divergences as d
from maelib.nets.flows import vector_steps
from maelib.nets.priors import FlowPrior
from maelib.objectives.mae import DIVERSE_FORMS

sizes = st.tuples(st.integers(2, 9), st.integers(1, 5), st.integers(0, 10_000))


def posteriors(batch, latent, seed=0):
    noise = torch.Generator().manual_seed(seed)
    shape = (2, batch, latent)
    mu, logvar = torch.randn(shape, generator=noise, dtype=torch.float64)
    return 2 * mu, logvar


def loop(mu, logvar):
    q = [Normal(m, (0.5 * v).exp()) for m, v in zip(mu, logvar, strict=True)]
    pairs = [(a, b) for a in q for b in q if a is not b]
    return torch.stack([kl_divergence(a, b) for a, b in pairs])


@given(sizes)
def test_pairwise_kl_is_the_loop_over_torch_distributions(size):
    mu, logvar = posteriors(*size)
    torch.testing.assert_close(d.pairwise_kl(mu, logvar), loop(mu, logvar))


@given(sizes)
def test_fast_forms_are_the_sums_and_means_of_the_slow_one(size):
    mu, logvar = posteriors(*size)
    slow = d.pairwise_kl(mu, logvar)
    torch.testing.assert_close(d.mean_kl_per_dimension(mu, logvar), slow.mean(0))
    torch.testing.assert_close(d.pairwise_total_kl(mu, logvar), slow.sum(1))
    torch.testing.assert_close(d.mpd(mu, logvar), slow.sum(1).mean())
    torch.testing.assert_close(d.std(mu, logvar), slow.sum(1).std(correction=0))


def test_fast_forms_hold_in_float32_for_sharp_far_posteriors():
    mu, logvar = posteriors(64, 32)
    mu, logvar = 5 * mu + 100, logvar - 4
    exact = d.pairwise_total_kl(mu, logvar)
    single = d.pairwise_total_kl(mu.float(), logvar.float())
    torch.testing.assert_close(single.double(), exact, rtol=1e-4, atol=1e-2)


@given(sizes)
def test_mpd_ignores_order_and_a_common_shift_and_scale(size):
    mu, logvar = posteriors(*size)
    shuffled = torch.randperm(len(mu))
    torch.testing.assert_close(d.mpd(mu[shuffled], logvar[shuffled]), d.mpd(mu, logvar))
    moved = d.mpd(3 * mu + 1, logvar + 2 * torch.tensor(3.0).double().log())
    torch.testing.assert_close(moved, d.mpd(mu, logvar))


def test_standard_kl_is_kl_to_the_standard_normal():
    mu, logvar = posteriors(4, 3)
    zero = torch.zeros_like(mu)
    torch.testing.assert_close(d.standard_kl(mu, logvar), d.gaussian_kl(mu, logvar, zero, zero))


def test_equal_posteriors_have_no_divergence_and_a_finite_gradient():
    mu = torch.ones(5, 3, requires_grad=True)
    logvar = torch.zeros(5, 3, requires_grad=True)
    value = d.std(mu, logvar) + d.mpd(mu, logvar)
    assert value.item() == 0
    value.backward()
    assert torch.isfinite(mu.grad).all()
    assert torch.isfinite(logvar.grad).all()


def test_one_image_has_no_pair():
    one = torch.zeros(1, 2)
    for function in (d.pairwise_kl, d.mpd, d.std):
        with pytest.raises(ValueError, match="at least 2"):
            function(one, one)


def test_theorem_1_on_a_mixture_of_gaussians():
    # MPD over all pairs, the equal ones included, is E[KL(q(z|x)||q(z)) + KL(q(z)||q(z|x))].
    mu, logvar = posteriors(6, 2, seed=3)
    n, draws = len(mu), 40_000
    q = Normal(mu, (0.5 * logvar).exp())
    z = q.sample((draws,))  # [draws, n, latent], z[:, i] from q(z|x_i)
    log_each = Normal(mu, (0.5 * logvar).exp()).log_prob(z[:, :, None]).sum(-1)
    log_q = log_each.logsumexp(2) - torch.tensor(n).log()  # q(z) at every draw
    own = log_each.diagonal(dim1=1, dim2=2)
    to_marginal = (own - log_q).mean()
    from_marginal = (log_q[:, :, None] - log_each).mean()
    all_pairs = d.mpd(mu, logvar) * (n - 1) / n
    assert (to_marginal + from_marginal).item() == pytest.approx(all_pairs.item(), rel=0.02)


def test_kl_survives_an_invertible_map():
    flow = FlowPrior(2, vector_steps(2, 8, 1)).double()
    mu, logvar = posteriors(2, 2, seed=1)
    q1, q2 = (Normal(m, (0.5 * v).exp()) for m, v in zip(mu, logvar, strict=True))
    z = q1.sample((1000,))
    image, log_det = flow(z)
    back = flow.inverse(image)
    density = [q.log_prob(back).sum(1) - log_det for q in (q1, q2)]
    before = (q1.log_prob(z) - q2.log_prob(z)).sum(1).mean()
    torch.testing.assert_close((density[0] - density[1]).mean(), before)


def by_hand(mu, logvar, alpha, form):
    kl = d.pairwise_kl(mu, logvar)
    if form == "pairwise":
        return alpha * torch.log1p(torch.exp(-kl)).sum(1).mean()
    scale = alpha if form == "tempered" else 1
    return alpha * torch.log1p(torch.exp(-kl.mean(0) / scale)).sum()


@pytest.mark.parametrize("form", DIVERSE_FORMS)
@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_diverse_forms_are_their_formulas(form, alpha):
    mu, logvar = posteriors(7, 4)
    expected = by_hand(mu, logvar, alpha, form)
    torch.testing.assert_close(d.diverse_loss(mu, logvar, alpha, form), expected)


@given(st.integers(0, 1000))
def test_mean_is_never_above_pairwise(seed):
    mu, logvar = posteriors(6, 3, seed)
    mean = d.diverse_loss(mu, logvar, 1.0, "mean")
    assert mean <= d.diverse_loss(mu, logvar, 1.0, "pairwise") + 1e-12


def test_tempered_is_mean_at_alpha_one():
    mu, logvar = posteriors(6, 3)
    forms = [d.diverse_loss(mu, logvar, 1.0, form) for form in ("mean", "tempered")]
    torch.testing.assert_close(*forms)


@pytest.mark.parametrize("form", DIVERSE_FORMS)
def test_diversity_falls_from_log_2_to_0_as_posteriors_part(form):
    logvar = torch.zeros(2, 3)
    together, apart = torch.zeros(2, 3), torch.tensor([[0.0], [50.0]]).expand(2, 3)
    assert d.diverse_loss(together, logvar, 1.0, form).item() == pytest.approx(3 * math.log(2))
    assert d.diverse_loss(apart, logvar, 1.0, form).item() < 1e-6


def test_an_unknown_form_is_named_with_those_there_are():
    with pytest.raises(ValueError, match=f"form is 'sum'.*{', '.join(DIVERSE_FORMS)}"):
        d.diverse_loss(*posteriors(2, 2), 1.0, "sum")


def test_pairwise_diversity_in_parts_has_the_value_and_gradient_of_the_whole():
    mu, logvar = (torch.randn(9, 5, dtype=torch.float64).requires_grad_() for _ in range(2))
    whole = d.mean_pairwise_softplus(mu, logvar)
    parts = d.mean_pairwise_softplus(mu, logvar, elements=100)
    torch.testing.assert_close(parts, whole)
    gradients = [torch.autograd.grad(v, (mu, logvar)) for v in (whole, parts)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.1), (1.0, 0.5), (2.0, 0.5)])
@pytest.mark.parametrize("form", ["tempered", "mean"])
def test_closed_form_mpd_is_where_the_two_forces_balance(alpha, beta, form):
    # Equal dimensions at KL m each, STD = ratio * latent * m: minimise over m by brute force.
    ratio, latent = 0.16, 32
    m = torch.linspace(0, 20, 200_001, dtype=torch.float64)
    scale = alpha if form == "tempered" else 1.0
    loss = alpha * torch.nn.functional.softplus(-m / scale) + beta * ratio * m
    expected = latent * m[loss.argmin()].item()
    found = d.closed_form_mpd(alpha, beta, ratio, latent, form)
    assert found == pytest.approx(expected, rel=1e-2)
    assert d.closed_form_mpd(alpha, 0.0, ratio, latent, form) == float("inf")
