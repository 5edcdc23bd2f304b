import itertools

import pytest
import torch
from helpers import silent
from test_networks import excite

from maelib import config, model
from maelib.data import cifar10, dataset, photos
from maelib.measure import sampling
from maelib.nets import COLOUR_DECODERS, layers, likelihoods
from maelib.nets.flows import map_steps
from maelib.nets.pixelcnnpp import FullPixelCNN, SmallPixelCNN
from maelib.nets.priors import FlowPrior
from maelib.runs.run import run
from maelib.training.state import adam

LEVELS = torch.arange(256, dtype=torch.float64) / 127.5 - 1
MAPS = 2


def smoke(**changes):
    return config.resolve("smoke", "photos", alpha=0.5, beta=1.0, **changes)


def decoder(kind, blocks=1, channels=4):
    return excite(kind(MAPS, channels, blocks, 2)).double()


def code(count=1):
    return torch.randn(count, MAPS * 64, dtype=torch.float64)


# The mixture of logistics


@pytest.mark.parametrize("mean", [-3.0, -1.0, -0.2, 0.0, 0.99, 5.0])
@pytest.mark.parametrize("log_scale", [-7.0, -3.0, 0.0, 7.0])
def test_the_256_bins_of_a_logistic_sum_to_one(mean, log_scale):
    where = [torch.tensor(v, dtype=torch.float64) for v in (mean, log_scale)]
    total = likelihoods.logistic_log_prob(LEVELS, *where).exp().sum()
    assert total.item() == pytest.approx(1, abs=1e-9)


def test_a_bin_is_the_difference_of_the_distribution_function():
    mean, log_scale = torch.tensor(0.1).double(), torch.tensor(-2.0).double()
    edges = ((LEVELS - mean)[:-1] + 1 / 255) / log_scale.exp()
    cdf = torch.cat([torch.zeros(1), edges.sigmoid(), torch.ones(1)])
    torch.testing.assert_close(
        likelihoods.logistic_log_prob(LEVELS, mean, log_scale).exp(), cdf.diff()
    )


def test_a_pixels_blue_given_red_and_green_sums_to_one_over_its_256_values():
    output = torch.randn(1, 20, 1, 1, dtype=torch.float64).expand(256, -1, -1, -1)
    x = torch.stack([LEVELS[40].expand(256), LEVELS[200].expand(256), LEVELS], 1)[..., None, None]
    joint = likelihoods.mixture_log_prob(output, x).logsumexp(0)
    mixture = likelihoods.LogisticMixture.split(output[:1])
    first = x[:1]
    two = likelihoods.logistic_log_prob(
        first[:, None], mixture.means_given(first), mixture.log_scale
    )[:, :, :2].sum(2)
    expected = (mixture.logits.log_softmax(1) + two).logsumexp(1).flatten()[0]
    torch.testing.assert_close(joint, expected)


@pytest.mark.parametrize("value", [-1.0, 1.0, 0.0])
def test_saturated_inputs_have_finite_likelihood_and_gradient(value):
    output = (100 * torch.randn(2, 20, 4, 4)).requires_grad_()
    likelihoods.mixture_log_prob(output, torch.full((2, 3, 4, 4), value)).sum().backward()
    assert output.grad.isfinite().all()


def test_drawn_pixels_follow_the_likelihood():
    output = torch.randn(1, 20, 1, 1, dtype=torch.float64)
    uniform = torch.rand(40_000, 4, 1, 1, dtype=torch.float64)
    red = likelihoods.draw_from_mixture(output.expand(40_000, -1, -1, -1), uniform)[:, 0].flatten()
    mixture = likelihoods.LogisticMixture.split(output)
    weights, mean, scale = (
        part.flatten()[:, None]
        for part in (mixture.logits.softmax(1), mixture.mean[:, :, 0], mixture.log_scale[:, :, 0])
    )
    for level in (60, 128, 190):
        below = likelihoods.logistic_log_prob(LEVELS[:level], mean, scale).exp()
        drawn = (red < LEVELS[level] - 1e-6).double().mean().item()
        assert drawn == pytest.approx((weights * below).sum().item(), abs=0.01)


def test_drawn_colours_lie_on_the_means_that_the_likelihood_gives_them():
    output = 0.3 * torch.randn(50, 10, 2, 2)
    output[:, 4:7] = -7
    drawn = likelihoods.draw_from_mixture(output, torch.full((50, 4, 2, 2), 0.5))
    means = likelihoods.LogisticMixture.split(output).means_given(drawn)[:, 0].clamp(-1, 1)
    assert (drawn - means).abs().max() < 1 / 255 + 1e-5


def test_the_expected_colour_follows_the_component_that_explains_the_colours_before():
    output = torch.zeros(1, 20, 1, 1)
    output[:, 2:5], output[:, 5:8], output[:, 8:14] = -0.8, 0.8, -4.0
    x = torch.full((1, 3, 1, 1), 0.8)
    red, green, blue = likelihoods.mixture_mean(output, x).flatten().tolist()
    assert red == pytest.approx(0, abs=1e-6)  # nothing is known yet
    assert (green, blue) == pytest.approx((0.8, 0.8), abs=1e-3)


def test_taking_the_most_probable_component_draws_from_another_distribution():
    output = torch.zeros(1, 20, 1, 1).expand(1000, -1, -1, -1).clone()
    output[:, 0] = 0.1  # the two components are nearly as probable as each other
    output[:, 2:5], output[:, 5:8] = -0.8, 0.8  # and far apart
    output[:, 8:14] = -4.0
    uniform = torch.rand(1000, 4, 1, 1)
    fair = likelihoods.draw_from_mixture(output, uniform)[:, 0]
    argmax = likelihoods.draw_from_mixture(output, uniform, argmax=True)[:, 0]
    assert 0.4 < (fair > 0).float().mean() < 0.55
    assert (argmax < 0).all()


# Receptive fields


def seen_from(net, row, column):
    x = torch.rand(1, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    net(code(), x)[:, :, row, column].sum().backward()
    return x.grad.abs().sum((0, 1)) > 0


@pytest.mark.parametrize(("row", "column"), [(0, 0), (10, 10), (17, 31), (31, 0)])
def test_the_small_window_is_7_columns_by_3_rows_without_the_pixel_and_what_follows(row, column):
    expected = torch.zeros(32, 32, dtype=torch.bool)
    expected[max(0, row - 2) : row, max(0, column - 3) : column + 4] = True
    expected[row, max(0, column - 3) : column] = True
    assert (seen_from(decoder(SmallPixelCNN), row, column) == expected).all()


@pytest.mark.parametrize(("row", "column"), [(0, 0), (9, 20), (16, 16), (31, 0), (31, 31)])
def test_the_full_pixelcnn_sees_nearly_all_before_its_pixel_and_nothing_else(row, column):
    seen = seen_from(decoder(FullPixelCNN, blocks=4), row, column)
    assert seen[: max(0, row - 3)].all()
    assert seen[:row, max(0, column - 18) : column + 19].all()
    assert seen[row, max(0, column - 18) : column].all()
    assert not seen.flatten()[row * 32 + column :].any()


@pytest.mark.parametrize("kind", [SmallPixelCNN, FullPixelCNN])
def test_every_pixel_sees_the_code(kind):
    z = code().requires_grad_()
    decoder(kind)(z, torch.zeros(1, 3, 32, 32).double())[0, :, 20, 3].sum().backward()
    assert z.grad.abs().sum() > 0


# The flow prior and the encoder


@pytest.fixture
def flow():
    prior = excite(FlowPrior(MAPS * 16, map_steps(MAPS, 4, 8, 3)), 0.3).double()
    return prior, 0.5 * torch.randn(3, MAPS * 16, dtype=torch.float64)


def test_convolutional_flow_inverse_and_log_determinant_against_autograd(flow):
    prior, z = flow
    eps, log_det = prior(z)
    torch.testing.assert_close(prior.inverse(eps), z)
    for i in range(len(z)):
        jacobian = torch.autograd.functional.jacobian(lambda v: prior(v[None])[0][0], z[i])
        torch.testing.assert_close(log_det[i], torch.linalg.slogdet(jacobian).logabsdet)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_convolutional_step_depends_only_on_positions_before(flow, reverse):
    prior, z = flow
    step = prior.steps[int(reverse)]
    assert step.reverse == reverse
    jacobian = torch.autograd.functional.jacobian(lambda v: step(v[None])[0][0], z[0])
    blocks = jacobian.view(MAPS, 16, MAPS, 16).abs().amax((0, 2))  # from position to position
    later = torch.triu(blocks, 1) if not reverse else torch.tril(blocks, -1)
    assert (later == 0).all()


def test_dense_encoder_has_the_published_widths_and_bounded_logvar():
    net = model.build(config.resolve("paper", "cifar10", channels=4).network)
    assert [block.outputs for block in net.encoder.blocks] == [48, 96, 192]
    mu, logvar = net.posterior(net.encoder(1000 * torch.randn(2, 3, 32, 32)))
    assert mu.shape == logvar.shape == (2, 1024)
    assert logvar.abs().max() <= 7


# Drawing


@pytest.mark.parametrize("argmax", [False, True])
def test_pixels_from_their_windows_are_the_full_forward_pixels(argmax):
    net, z = decoder(SmallPixelCNN), code(2)
    uniform = torch.rand(2, 4, 32, 32, dtype=torch.float64)
    rows = 5  # by full passes the others would take a minute
    slow = sampling.decode_colour_reference(net, z, uniform, argmax, pixels=32 * rows)[:, :, :rows]
    assert (sampling.decode(net, z, uniform, argmax)[:, :, :rows] == slow).all()
    assert slow.std() > 0.1


def test_fixed_weights_are_the_layers_own_and_are_let_go():
    net, x = decoder(SmallPixelCNN), torch.rand(1, 3, 32, 32).double()
    z = code()
    free = net(z, x)
    with layers.fixed_weights(net):
        torch.testing.assert_close(net(z, x), free)
    assert all(layer.fixed is None for layer in layers.layers(net))


# Data


def test_photos_share_no_pixel_between_splits_and_come_out_equal_again():
    first, again = (dataset.load("photos") for _ in range(2))
    assert first.digest == again.digest
    assert first.train.images.shape == (8000, 3, 32, 32)
    parts = sorted(columns for _, *columns in photos.PARTS.values())
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(parts))
    x = dataset.as_input(first.test.images)
    assert x.abs().max() <= 1
    torch.testing.assert_close(((dataset.unit_range(x) * 255).round()).byte(), first.test.images)


def test_missing_cifar_is_one_clear_sentence(no_data):
    with pytest.raises(FileNotFoundError, match=r"cifar-10-python.* was not found.*MAELIB_DATA"):
        dataset.load("cifar10")


def test_an_altered_batch_is_named_and_never_unpickled(tmp_path):
    folder = tmp_path / cifar10.FOLDER
    folder.mkdir()
    for name in cifar10.FILES:
        (folder / name).write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(
        ValueError, match=r"data_batch_1 is not an intact file of CIFAR-10 .*altered"
    ):
        dataset.load("cifar10", [tmp_path])


def test_an_archive_that_is_no_archive_is_named(tmp_path):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"half an archive")
    with pytest.raises(
        ValueError, match=r"cifar-10-python\.tar\.gz is not an intact file of CIFAR-10"
    ):
        dataset.load("cifar10", [tmp_path])


# Configurations and whole runs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "vae"}, "objective is 'vae'.*colour images.*vlae"),
        ({"decoder": "pixelcnn"}, "decoder is 'pixelcnn'.*colour images"),
        ({"latent": 100}, "latent is 100.*multiple of 64"),
    ],
)
def test_what_colour_images_cannot_have_is_one_clear_sentence(changes, message):
    with pytest.raises(ValueError, match=message):
        smoke(**changes)


def test_adam_has_the_configured_betas():
    c = config.resolve("paper", "cifar10", channels=4)
    assert adam(model.build(c.network), c.training).defaults["betas"] == (0.95, 0.9995)


@pytest.mark.parametrize("kind", COLOUR_DECODERS)
def test_a_colour_run_is_trained_measured_and_found_again(kind, tmp_path):
    c = smoke(decoder=kind)
    record, net, _ = run(c, out_dir=tmp_path, log=silent)
    again, _, _ = run(c, out_dir=tmp_path, log=silent)
    assert again == record
    bits = record.measurements["nll"] / (3072 * torch.tensor(2.0).log().item())
    assert record.measurements["bpd"] == pytest.approx(bits)
    assert "binarisation" not in record.caption()
    assert isinstance(net, model.VAE)
