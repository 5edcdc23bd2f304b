import pytest
import torch
from test_divergences import posteriors

from maelib.divergences import diverse_loss, mpd, std
from maelib.objectives import OBJECTIVES
from maelib.objectives.base import Outputs, with_free_bits
from maelib.objectives.elbo import ELBO
from maelib.objectives.mae import MAE
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


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_gives_finite_terms_and_names_them_all(name):
    objective = OBJECTIVES[name]
    t = objective(outputs())
    assert objective.name == name
    assert tuple(t.penalties) == objective.penalties
    assert tuple(t.named()) == curves(objective)
    assert all(value.shape == () and value.isfinite() for value in t.named().values())
