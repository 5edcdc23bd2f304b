import math

import pytest
import torch
from torch import nn

from maelib import config, model
from maelib.internal import rng
from maelib.measure import sampling
from maelib.nets import layers
from maelib.nets.flows import MADE, vector_steps
from maelib.nets.pixelcnn import PixelCNN
from maelib.nets.posteriors import GaussianPosterior
from maelib.nets.priors import FlowPrior, StandardNormal
from maelib.nets.resnet import ResNetDecoder, ResNetEncoder


def excite(module, strength=1.0):
    """Gains and biases that leave no connection at zero."""
    for layer in layers.layers(module):
        nn.init.uniform_(layer.gain, 0.5 * strength, 1.5 * strength)
        nn.init.normal_(layer.bias, std=0.1)
    return module


@pytest.mark.parametrize("reverse", [False, True])
def test_made_output_k_sees_exactly_the_inputs_before_it(reverse):
    made = excite(MADE(6, 60, reverse=reverse)).double()
    jacobian = torch.func.vmap(torch.func.jacrev(lambda z: made(z[None])[0]))
    seen = jacobian(torch.randn(20, 6, dtype=torch.float64)).abs().sum(0) > 0
    full = torch.ones(6, 6, dtype=torch.bool)
    assert (seen == (full.triu(1) if reverse else full.tril(-1))).all()


def test_flow_inverse_and_log_determinant_against_autograd():
    flow = excite(FlowPrior(5, vector_steps(5, 40, 2)), 0.3).double()
    z = 0.5 * torch.randn(4, 5, dtype=torch.float64)
    eps, log_det = flow(z)
    torch.testing.assert_close(flow.inverse(eps), z)
    for i in range(4):
        jacobian = torch.autograd.functional.jacobian(lambda v: flow(v[None])[0][0], z[i])
        torch.testing.assert_close(log_det[i], torch.linalg.slogdet(jacobian).logabsdet)


def test_flow_density_integrates_to_one():
    flow = excite(FlowPrior(1, vector_steps(1, 8, 1)), 0.3).double()
    z = torch.linspace(-60, 60, 200_001, dtype=torch.float64)[:, None]
    density = flow.log_prob(z).exp()
    assert torch.trapezoid(density, z[:, 0]).item() == pytest.approx(1, abs=1e-3)


def test_the_standard_normal_prior_is_torchs_and_that_of_a_flow_without_steps():
    z, priors = torch.randn(3, 4), (StandardNormal(4), FlowPrior(4, []))
    normal = torch.distributions.Normal(0, 1).log_prob(z).sum(1)
    for prior in priors:
        torch.testing.assert_close(prior.log_prob(z), normal)
    drawn = [prior.sample(2000, rng.generator(0, "z")) for prior in priors]
    assert drawn[0].equal(drawn[1])
    torch.testing.assert_close(drawn[0].mean(0), torch.zeros(4), atol=0.1, rtol=0)
    torch.testing.assert_close(drawn[0].std(0), torch.ones(4), atol=0.1, rtol=0)


def receptive_field(decoder, row, column):
    x = torch.rand(2, 1, 28, 28, dtype=torch.float64, requires_grad=True)
    z = torch.randn(2, 8, dtype=torch.float64)
    decoder(z, x)[:, :, row, column].sum().backward()
    return x.grad.abs().sum((0, 1)) > 0


@pytest.mark.parametrize(("row", "column"), [(0, 0), (3, 27), (14, 14), (27, 0)])
def test_pixelcnn_sees_no_pixel_at_or_after_its_own(row, column):
    seen = receptive_field(excite(PixelCNN(8, 8)).double(), row, column).flatten()
    assert not seen[row * 28 + column :].any()
    if row * 28 + column:
        assert seen[row * 28 + column - 1] or column == 0


def test_pixelcnn_sees_the_whole_code_everywhere():
    decoder = excite(PixelCNN(8, 8)).double()
    z = torch.randn(1, 8, dtype=torch.float64, requires_grad=True)
    decoder(z, torch.zeros(1, 1, 28, 28, dtype=torch.float64))[0, 0, 20, 3].backward()
    assert (z.grad.abs() > 0).all()


@pytest.mark.parametrize("mask_type", ["A", "B"])
@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_masked_convolution_is_the_full_one_with_a_masked_kernel(kernel, mask_type):
    layer = layers.MaskedConv2d(3, 4, kernel, mask_type=mask_type)
    x = torch.randn(2, 3, 9, 8)
    full = torch.zeros(4, 3, kernel, kernel)
    full[:, :, : kernel // 2 + 1] = layer.weight
    assert (full * layers.causal_mask(kernel, mask_type) == full).all()
    slow = nn.functional.conv2d(x, full, layer.bias, padding=kernel // 2)
    torch.testing.assert_close(layer(x), slow)


@pytest.mark.parametrize("greedy", [False, True])
def test_cached_pixels_are_the_full_forward_pixels(greedy):
    decoder = excite(PixelCNN(8, 6, size=11)).double()
    z = torch.randn(2, 8, dtype=torch.float64)
    shape = (2, 1, 11, 11)
    uniform = torch.full(shape, 0.5) if greedy else torch.rand(shape)
    uniform = uniform.double()
    slow = sampling.decode_pixels_reference(decoder, z, uniform)
    assert (sampling.decode_pixels(decoder, z, uniform) == slow).all()
    assert 0 < slow.mean() < 1


def test_an_expected_image_is_the_mean_of_images_that_all_codes_draw_with_the_same_numbers():
    net = model.build(config.resolve("smoke", "digits").network)
    z = torch.randn(2, net.prior.latent)
    found = sampling.expected(net, z, torch.Generator().manual_seed(3), samples=5)
    uniform = torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(3))
    for code, image in zip(z, found, strict=True):
        drawn = sampling.decode(net.decoder, code.expand(5, -1), uniform)
        assert image.equal(drawn.mean(0))


def test_an_unknown_mask_is_named():
    with pytest.raises(ValueError, match="mask_type is 'C'; it must be A or B"):
        layers.MaskedConv2d(3, 4, 3, mask_type="C")


def test_elu_by_exp_is_pytorch_s_in_value_and_gradient():
    ends = torch.tensor([0.0, -0.0, 1e-9, -1e-9, -1e-4, 30.0, -30.0, 1e30, -1e30])
    x = torch.cat([ends, 3 * torch.randn(10_000)])
    ours, theirs = (x.clone().requires_grad_() for _ in "12")
    assert layers.elu(ours).grad_fn.name().startswith("EluByExp")
    weight = torch.randn(len(x))
    (layers.elu(ours) * weight).sum().backward()
    (nn.functional.elu(theirs) * weight).sum().backward()
    torch.testing.assert_close(layers.elu(x), nn.functional.elu(x), atol=1e-7, rtol=0)
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=0)
    odd = torch.tensor([float("nan"), float("inf"), -float("inf")])
    torch.testing.assert_close(layers.elu(odd), nn.functional.elu(odd), equal_nan=True)
    assert layers.elu(x.double()).equal(nn.functional.elu(x.double()))
    assert layers.elu(x.bfloat16()).equal(nn.functional.elu(x.bfloat16()))


@pytest.mark.parametrize("compiler", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_elu_of_large_maps_is_rounded_once(monkeypatch, compiler, dtype):
    """With a compiler, and where there is none."""

    def refuse(*_, **__):
        raise RuntimeError("no compiler")

    if not compiler:
        monkeypatch.setattr(torch, "compile", lambda *_, **__: refuse)
    layers._elu_kernel.cache_clear()
    x = torch.linspace(-90, 90, layers.KERNEL_MIN_ELEMENTS).to(dtype)
    x[0] = math.nan
    exact = nn.functional.elu(x.float())
    rtol = torch.finfo(dtype).eps / 2
    torch.testing.assert_close(layers.elu(x).float(), exact, atol=1e-7, rtol=rtol, equal_nan=True)
    layers._elu_kernel.cache_clear()


@pytest.mark.parametrize("kind", [layers.Conv2d, layers.ConvTranspose2d])
def test_data_dependent_initialisation_standardises_outputs(kind):
    layer = kind(3, 5, 3, padding=1)
    x = 4 * torch.randn(20, 3, 8, 8) + 2
    layers.initialise_from_data(layer, lambda: layer(x))
    y = layer(x)
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(5), atol=1e-4, rtol=0)
    torch.testing.assert_close(y.std((0, 2, 3)), torch.ones(5), atol=1e-3, rtol=0)


def test_weight_norm_gain_is_the_length_of_each_unit():
    layer = excite(layers.Conv2d(3, 5, 3))
    torch.testing.assert_close(layer.weight.flatten(1).norm(dim=1), layer.gain.abs())


def test_shapes_of_encoder_posterior_and_factorised_decoder():
    encoder = ResNetEncoder((4, 6, 8), 16)
    features = encoder(torch.rand(3, 1, 28, 28))
    assert features.shape == (3, encoder.outputs) == (3, 16)
    mu, logvar = GaussianPosterior(layers.Linear(16, 16))(features)
    assert mu.shape == logvar.shape == (3, 8)
    decoder = ResNetDecoder(8, (4, 6, 8), 16)
    assert decoder(mu).shape == (3, 1, 28, 28)


def test_paper_preset_has_the_published_size():
    # Kernel rows that a mask hides entirely are not stored; with them it is 1.57 million.
    net = model.build(config.resolve("paper", "mnist").network)
    hidden = [
        layer.direction[0, :, 0].numel() * (layer.kernel // 2) * layer.direction.shape[0]
        for layer in layers.layers(net.decoder)
        if isinstance(layer, layers.MaskedConv2d) and layer is not net.decoder.first
    ]
    total = sum(p.numel() for p in net.parameters()) + sum(hidden)
    assert total == pytest.approx(1.57e6, rel=0.01)


def test_model_terms_are_likelihood_and_log_ratio():
    net = model.build(config.resolve("smoke", "digits").network).double()
    x = torch.rand(3, 1, 28, 28).round().double()
    eps = torch.randn(3, 32, dtype=torch.float64)
    re, kl, mu, logvar = net(x, eps)
    torch.testing.assert_close((mu, logvar), net.encode(x))
    z = mu + (0.5 * logvar).exp() * eps
    torch.testing.assert_close(model.reparameterise(mu, logvar, eps), z)
    q = torch.distributions.Normal(mu, (0.5 * logvar).exp()).log_prob(z).sum(1)
    torch.testing.assert_close(kl, q - net.prior.log_prob(z))
    pixels = torch.distributions.Bernoulli(logits=net.decoder(z, x)).log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(re, -pixels)
    assert math.isfinite(re.sum().item())


@pytest.mark.parametrize("channels", [1, 4, 16])
@pytest.mark.parametrize("down", [True, False])
def test_strided_1x1_layers_are_torchs_convolutions(channels, down):
    # In float64, where no fast kernel is chosen, torch's own is the reference.
    pair, more = (channels, 4), {} if down else {"output_padding": 1}
    layer = excite((layers.Conv2d if down else layers.ConvTranspose2d)(*pair, 1, stride=2, **more))
    plain = torch.nn.functional.conv2d if down else torch.nn.functional.conv_transpose2d
    x = torch.randn(20, channels, 14, 14).to(memory_format=torch.channels_last)
    weight = (layer.weight if down else layer.weight.transpose(0, 1)).detach().double()
    weight.requires_grad_()
    ours = layer.double()(x.double())
    theirs = plain(x.double(), weight, layer.bias, 2, **more)
    torch.testing.assert_close(ours, theirs)
    layer.float().requires_grad_()
    layer.zero_grad()
    layer(x).square().mean().backward()
    theirs.square().mean().backward()
    gradient = (weight.grad if down else weight.grad.transpose(0, 1)).flatten(1)
    direction = layer.direction.detach().double().flatten(1)
    along = (gradient * direction).sum(1) / direction.norm(dim=1)
    torch.testing.assert_close(layer.gain.grad.double(), along, rtol=1e-4, atol=1e-6)
