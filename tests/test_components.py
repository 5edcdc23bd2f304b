"""Remedies in the posterior, the prior, the decoder and the loop: what they promise, and do not."""

import copy
import math
from functools import partial

import pytest
import torch
from helpers import CPU, smoke

from maelib import model
from maelib.data import dataset
from maelib.divergences import standard_kl
from maelib.internal import rng
from maelib.measure import sampling
from maelib.nets.layers import Linear
from maelib.nets.pixelcnn import PixelCNN
from maelib.nets.posteriors import BatchNormPosterior, DeltaPosterior, DUPosterior
from maelib.training import loop
from maelib.training.state import start
from maelib.training.step import Step, encoder_steps, gradients, train_step

LATENT = 4


def bn(**more):
    return BatchNormPosterior(Linear(3, 2 * LATENT), latent=LATENT, **{"gamma": 0.6, **more})


def du(**more):
    settings = {"gamma": 0.6, "dropout": 0.25, **more}
    return DUPosterior(Linear(3, 2 * LATENT), latent=LATENT, **settings)


def delta(**more):
    return DeltaPosterior(Linear(3, 2 * LATENT), **{"delta": 0.15, **more})


# Posteriors


def test_batch_norm_keeps_the_kl_above_its_bound_and_every_unit_active_whatever_is_learned():
    posterior = bn()
    torch.nn.init.normal_(posterior.layer.gain, std=1e-2)  # an encoder that says next to nothing
    mu, logvar = posterior.constrain(1e-2 * torch.randn(500, LATENT) + 7, torch.zeros(500, LATENT))
    torch.testing.assert_close(mu.mean(0), torch.zeros(LATENT), atol=1e-4, rtol=0)
    assert standard_kl(mu, logvar).sum(1).mean() >= 0.99 * 0.9 * LATENT * 0.6**2 / 2
    assert (mu.var(0) > 0.01).all()


def test_batch_norm_normalises_one_image_outside_training_by_the_batches_before():
    posterior, mu = bn(), 3 + 2 * torch.randn(200, LATENT)
    for _ in range(100):
        trained, _ = posterior.constrain(mu, mu)
    one, _ = posterior.eval().constrain(mu[:1], mu[:1])
    torch.testing.assert_close(one, trained[:1], atol=0.02, rtol=0.02)


def test_the_scales_of_the_du_posterior_have_the_root_mean_square_gamma():
    posterior = du(gamma=0.5)
    torch.nn.init.uniform_(posterior.direction, -3, 3)
    assert posterior.scale().square().mean().sqrt().item() == pytest.approx(0.5)


def test_the_du_posterior_drops_variances_to_a_floor_of_entropy_0_in_training_alone():
    mu, logvar = torch.randn(4000, LATENT), torch.zeros(4000, LATENT)
    _, trained = du().constrain(mu, logvar)
    entropy = 0.5 * (math.log(2 * math.pi * math.e) + trained)
    at_floor = entropy.abs() < 1e-5
    assert at_floor.float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert entropy.min() > -1e-5
    _, later = du().eval().constrain(mu, logvar)
    assert later.exp().allclose(torch.tensor(1 + DUPosterior.floor))


def test_the_delta_posterior_has_its_kl_in_every_dimension_of_every_image():
    features = 10 * torch.randn(300, 3)
    posterior = delta()
    mu, logvar = posterior(features)
    assert standard_kl(mu, logvar).min() > 0.15 - 1e-4
    mu.sum().backward()
    assert all(p.grad.isfinite().all() for p in posterior.parameters())


def test_a_constant_delta_posterior_has_the_same_kl_and_no_information():
    net = model.build(smoke("constant").network)
    mu, logvar = net.encode(torch.rand(9, 1, 28, 28).round())
    assert standard_kl(mu, logvar).sum(1).min() > 0.15 * 32 - 1e-2
    assert mu.equal(mu[:1].expand_as(mu))
    assert logvar.equal(logvar[:1].expand_as(logvar))


# The VampPrior


def vamp(count=5):
    net = model.build(smoke("vamp", pseudo_inputs=count).network)
    model.initialise(net, torch.rand(20, 1, 28, 28).round(), torch.randn(20, 32))
    return net


@torch.no_grad()
def test_the_encoder_of_a_vamp_prior_is_initialised_on_the_images_alone():
    net, x = vamp(count=3), torch.rand(20, 1, 28, 28).round()
    model.initialise(net, x, torch.randn(20, 32))
    mu, _ = net.encode(x)
    torch.testing.assert_close(mu.mean(0), torch.zeros(32), atol=1e-4, rtol=0)
    torch.testing.assert_close(mu.std(0), torch.ones(32), atol=1e-3, rtol=0)


def test_the_vamp_prior_is_the_mixture_of_its_posteriors_and_samples_from_it():
    net, z = vamp(), torch.randn(6, 32)
    mu, logvar = net.posterior(net.encoder(net.prior.pseudo_inputs))
    parts = torch.distributions.Normal(mu, (0.5 * logvar).exp()).log_prob(z[:, None]).sum(2)
    torch.testing.assert_close(net.prior.log_prob(z), parts.exp().mean(1).log())
    drawn = net.prior.sample(4000, rng.generator(0, "z"))
    torch.testing.assert_close(drawn.mean(0), mu.mean(0), atol=0.2, rtol=0)


def test_the_pseudo_inputs_begin_as_images_and_the_encoder_is_saved_once():
    net = vamp()
    assert (net.prior.pseudo_inputs - net.prior.pseudo_inputs.round()).abs().max() < 0.3
    assert sum("encoder" in name for name in net.state_dict()) == len(net.encoder.state_dict())
    copied = copy.deepcopy(net)
    assert copied.prior.encode[0] is copied.encoder
    assert copied.encoder is not net.encoder


# Decoders


def changes_with_z(decoder):
    x = torch.rand(2, 1, 28, 28).round()
    return not decoder(torch.randn(2, 8), x).equal(decoder(torch.randn(2, 8), x))


def test_a_decoder_without_a_path_for_the_code_is_deaf_to_it():
    assert changes_with_z(PixelCNN(8, 4))
    assert not changes_with_z(PixelCNN(8, 4, z_path="none"))


def test_a_skip_brings_the_code_to_the_output_where_the_rest_of_the_network_is_deaf():
    decoder = PixelCNN(8, 4, z_path="skip")
    decoder.first.mask[:, 1:] = 0
    assert changes_with_z(decoder)


@pytest.mark.parametrize(("kernel", "reach"), [(7, 15), (5, 12), (3, 7), (1, 0)])
def test_smaller_kernels_see_fewer_rows(kernel, reach):
    decoder = PixelCNN(8, 4, max_kernel=kernel).double()
    x = torch.rand(1, 1, 28, 28, dtype=torch.double, requires_grad=True)
    decoder(torch.zeros(1, 8, dtype=torch.double), x)[0, 0, 20, 14].backward()
    seen = (x.grad[0, 0] != 0).any(1).nonzero()
    assert (20 - int(seen.min()) if len(seen) else 0) == reach


def test_input_dropout_hides_pixels_in_training_alone():
    decoder, x, z = PixelCNN(8, 4, input_dropout=0.5), torch.rand(2, 1, 28, 28), torch.randn(2, 8)
    assert not decoder(z, x).equal(decoder(z, x))
    decoder.eval()
    assert decoder(z, x).equal(decoder(z, x))


@pytest.mark.parametrize("way", [{"z_path": "skip"}, {"z_path": "none"}, {"max_kernel": 3}])
def test_cached_sampling_of_other_decoders_agrees_with_whole_passes(way):
    decoder, z = PixelCNN(8, 4, size=10, **way).eval(), torch.randn(2, 8)
    uniform = torch.rand(2, 1, 10, 10)
    slow = sampling.decode_pixels_reference(decoder, z, uniform)
    assert sampling.decode_pixels(decoder, z, uniform).equal(slow)


def test_an_option_of_the_pixelcnn_is_refused_by_another_decoder():
    with pytest.raises(ValueError, match="z_path is skip, but only the decoder pixelcnn"):
        smoke("vae", z_path="skip")


# Training


def test_steps_of_the_encoder_alone_move_nothing_else_and_are_those_of_the_whole_gradient():
    c = smoke("lagging", encoder_steps=3)
    images = dataset.load("digits").train.first(100).images
    state = start(c, images, CPU)
    before = copy.deepcopy(state.model)
    step = Step(state.model, c.objective, c.training, total=40)
    encoder_steps(state, step, partial(loop.extra_batch, c, images, 0))
    moved = {
        name
        for name, p in state.model.named_parameters()
        if not p.equal(before.get_parameter(name))
    }
    assert {name.split(".")[0] for name in moved} == {"encoder", "posterior"}
    batch = loop.extra_batch(c, images, 0, 9)
    gradients(state, step, *batch)
    whole = [p.grad for p in state.model.encoder.parameters()]
    gradients(state, step, *batch, list(state.model.encoder.parameters()))
    assert all(
        p.grad.equal(g) for p, g in zip(state.model.encoder.parameters(), whole, strict=True)
    )
    assert all(p.grad is None for p in state.model.decoder.parameters())


@pytest.mark.parametrize("objective", ["bn", "du", "vamp", "input-dropout"])
def test_training_and_measuring_differ_where_a_remedy_says_so_and_repeat_exactly(objective):
    c = smoke(objective)
    images = dataset.load("digits").train.first(100).images
    losses = []
    for _ in range(2):
        state = start(c, images, CPU)
        step = Step(state.model, c.objective, c.training, total=4)
        batches = loop.batches(c, images, 0, 5)
        for number in range(2):
            torch.manual_seed(number)
            terms = train_step(state, step, *next(batches))
        losses.append(terms.loss.item())
        assert state.model.training
        assert not state.averaged.training
    assert losses[0] == losses[1]
