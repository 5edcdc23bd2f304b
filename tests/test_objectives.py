import pytest
import torch
from test_divergences import posteriors

from maelib.divergences import diverse_loss, mpd, std
from maelib.objectives import OBJECTIVES
from maelib.objectives.annealing import Annealing
from maelib.objectives.base import Outputs, with_free_bits
from maelib.objectives.capacity import Capacity
from maelib.objectives.elbo import ELBO
from maelib.objectives.mae import MAE
from maelib.objectives.mmd import MMD, mmd
from maelib.training.state import curves


def outputs(kl=2.0, batch=5, latent=3):
    """RE is 0, 1, ...; KL is the same for every image."""
    return Outputs(torch.arange(float(batch)), torch.full((batch,), kl), *posteriors(batch, latent))


def test_mae_loss_adds_its_terms():
    given = outputs()
    t = MAE(alpha=2.0, beta=0.5)(given)
    diverse = diverse_loss(given.mu, given.logvar, 2.0)
    torch.testing.assert_close(t.loss, 2.0 + 2.0 + diverse + 0.5 * t.std)
    torch.testing.assert_close(t.penalties, {"diverse": diverse, "smooth": 0.5 * t.std})
    assert t.elbo.item() == 4.0


def test_an_unknown_form_of_mae_is_named_with_those_there_are():
    with pytest.raises(ValueError, match=r"diverse is 'sum'; .*tempered, mean, pairwise"):
        MAE(diverse="sum")


def test_elbo_is_the_mean_of_re_and_kl():
    t = ELBO()(outputs())
    assert t.loss.item() == t.elbo.item() == 4.0
    assert t.penalties == {}


@pytest.mark.parametrize("weight", [0.0, 0.5, 4.0])
def test_the_kl_weight_makes_the_elbo_the_loss_of_a_beta_vae(weight):
    re, kl = torch.rand(7), 5 * torch.rand(7)
    t = ELBO(kl_weight=weight)(Outputs(re, kl, *posteriors(7, 3)))
    torch.testing.assert_close(
        t.loss, torch.stack([re[i] + weight * kl[i] for i in range(7)]).mean()
    )
    torch.testing.assert_close(t.elbo, (re + kl).mean())  # what is recorded has no weight


def test_the_beta_vae_among_the_objectives_has_a_weight_and_no_free_bits():
    objective = OBJECTIVES["beta-vae"]
    assert objective.kl_weight != 1
    assert objective(outputs(0.5)).loss.item() == 2.0 + 0.5 * objective.kl_weight


def test_the_kl_weight_weighs_what_the_free_bits_leave():
    objective = ELBO(kl_weight=0.5, free_bits=3.0)
    assert [objective(outputs(kl)).loss.item() for kl in (2.0, 4.0)] == [2.0 + 1.5, 2.0 + 2.0]


def test_free_bits_make_a_mean_kl_below_them_cost_what_they_do():
    for kl, cost, slope in ((1.0, 2.0, 0.0), (3.0, 3.0, 1.0)):
        value = torch.tensor(kl, requires_grad=True)
        found = with_free_bits(value, 2.0)
        found.backward()
        assert (found.item(), value.grad.item()) == (cost, slope)


@pytest.mark.parametrize(
    "objective", [ELBO(free_bits=7.84), MAE(alpha=0.0, beta=0.0, free_bits=7.84)]
)
def test_free_bits_make_a_small_kl_free(objective):
    kl = torch.full((3,), 2.0, requires_grad=True)
    t = objective(Outputs(torch.ones(3), kl, *posteriors(3, 2)))
    assert t.loss.item() == pytest.approx(8.84)
    assert t.kl.item() == 2.0
    t.loss.backward()
    assert kl.grad.abs().sum() == 0


def test_the_elbo_measures_the_posteriors_and_leaves_them_alone():
    mu, logvar = (part.requires_grad_() for part in posteriors(5, 3))
    t = ELBO()(Outputs(torch.zeros(5), torch.zeros(5), mu, logvar))
    torch.testing.assert_close((t.mpd, t.std), (mpd(mu, logvar).detach(), std(mu, logvar).detach()))
    assert not t.loss.requires_grad


# Remedies: the mathematics of each, and its pitfall


@pytest.mark.parametrize(
    ("objective", "weights"),
    [
        (Annealing(ramp=0.5), {0.0: 0, 0.25: 0.5, 0.5: 1, 0.9: 1, 1.0: 1}),
        (Annealing(cycles=4, ramp=0.5), {0.0: 0, 0.0625: 0.5, 0.2: 1, 0.25: 0, 0.5: 0, 1.0: 1}),
    ],
)
def test_annealing_weighs_the_kl_by_the_share_of_training_that_is_done(objective, weights):
    for progress, weight in weights.items():
        assert objective(outputs(), progress).loss.item() == pytest.approx(2 + 2 * weight)


def test_at_the_end_annealing_is_the_elbo_and_so_has_its_optimum():
    given = outputs()
    for cycles in (1, 4):
        assert Annealing(cycles=cycles)(given).loss == ELBO()(given).loss


def uneven(kl):
    """Outputs whose KLs to N(0, I) are ``kl`` [batch, latent], by their means alone."""
    kl = torch.tensor(kl, requires_grad=True)
    mu = (2 * kl).sqrt()
    return kl, Outputs(torch.zeros(len(kl)), kl.sum(1), mu, torch.zeros_like(mu))


@pytest.mark.parametrize(
    ("per", "cost", "free"),
    [
        ("batch", 5.0, [[False, False], [False, False]]),  # mean 5, above 4
        ("image", 6.0, [[True, True], [False, False]]),  # 4 for 2, and 8
        ("dimension", 5.5, [[False, True], [False, True]]),  # means 3.5 and 1.5; 2 for 1.5
    ],
)
def test_three_losses_bear_the_name_of_free_bits(per, cost, free):
    kl, given = uneven([[1.0, 1.0], [6.0, 2.0]])
    t = ELBO(free_bits=4.0, free_bits_per=per)(given)
    assert t.loss.item() == pytest.approx(cost)
    t.loss.backward()
    assert (kl.grad == 0).tolist() == free


def test_capacity_draws_each_image_s_kl_from_both_sides_to_a_value_that_rises():
    kl, given = uneven([[1.0, 1.0], [6.0, 2.0]])
    t = Capacity(capacity=5.0, pull=10.0, ramp=0.5)(given)
    assert t.loss.item() == pytest.approx(10 * (3 + 3) / 2)
    t.loss.backward()
    torch.testing.assert_close(kl.grad, torch.tensor([[-5.0, -5.0], [5.0, 5.0]]))
    assert Capacity(capacity=5.0, ramp=0.5)(given, 0.0).loss.item() == pytest.approx(50)


def test_a_capacity_beyond_what_the_code_can_hold_only_buys_kl():
    assert Capacity(capacity=50.0)(outputs()).loss > 10 * Capacity()(outputs()).loss


def test_mmd_is_the_mean_over_samples_and_zero_for_the_prior():
    mu, logvar = (part.double() for part in posteriors(6, 3))
    z = (mu + (0.5 * logvar).exp() * torch.randn(4000, *mu.shape)).transpose(0, 1)
    other = torch.randn(6, 4000, 3, dtype=torch.double)

    def kernel(a, b):
        return (-(a - b).square().sum(-1) / (2 * 3)).exp().mean()

    pairs = torch.stack([kernel(z[i], z[j]) for i in range(6) for j in range(6) if i != j])
    expected = pairs.mean() - 2 * kernel(z, other) + kernel(other, other.roll(1, 0))
    assert mmd(mu, logvar).item() == pytest.approx(expected.item(), abs=0.01)
    assert mmd(torch.zeros(4, 3), torch.zeros(4, 3)).abs() < 1e-6


def test_the_mmd_is_blind_to_what_single_posteriors_say_and_its_weight_is_never_negative():
    spread = torch.randn(400, 2)
    informative = mmd(spread, torch.full_like(spread, -8.0))
    assert informative.abs() < 0.01 > mmd(torch.zeros(400, 2), torch.zeros(400, 2)).abs()
    with pytest.raises(ValueError, match=r"mmd_weight is -0\.999"):
        MMD(mmd_weight=-0.999)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_gives_finite_terms_and_names_them_all(name):
    objective = OBJECTIVES[name]
    t = objective(outputs())
    assert objective.name == name
    assert tuple(t.penalties) == objective.penalties
    assert tuple(t.named()) == curves(objective)
    assert all(value.shape == () and value.isfinite() for value in t.named().values())
