"""bfloat16 biases neither what is measured nor where training goes; a CPU can emulate it.

``benchmarks/bench.py --rows curve`` compares whole training runs.
"""

import pytest
import torch

from maelib import config
from maelib.data import dataset
from maelib.divergences import mpd
from maelib.measure import evaluation
from maelib.training import precision
from maelib.training.loop import draw_batch, train
from maelib.training.state import restore

CPU = torch.device("cpu")
CONFIGS = {name: config.resolve("smoke", name, epochs=8, lr=5e-3) for name in ("digits", "photos")}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The state of each data set's model after some training in float32."""

    def state(name, c):
        folder = tmp_path_factory.mktemp(name)
        train(c, dataset.load(name), folder, CPU)
        return restore(c, folder / "checkpoints", CPU)

    return {name: state(name, c) for name, c in CONFIGS.items()}


def measured(net, name, multiply):
    """Mean NLL, RE and KL of 100 test images, and their MPD, in nats."""
    x = evaluation.test_images(dataset.load(name).test.first(100).images)
    re, kl, mu, logvar = evaluation.elbo_terms(net, x, precision=multiply)
    assert mu.dtype == kl.dtype == torch.float32
    nll = evaluation.iw_nll(net, x, 8, precision=multiply)
    return torch.stack([nll.mean(), re.mean(), kl.mean(), mpd(mu, logvar)])


@pytest.mark.parametrize("name", CONFIGS)
def test_measuring_in_bf16_is_not_biased(trained, name):
    """Rounding the weights moves all images alike, so there is a bound, and it is not zero."""
    net = trained[name].best.eval()
    exact, rough = (measured(net, name, p) for p in ("float32", "bf16"))
    assert (rough != exact).all()  # it did multiply in bfloat16
    torch.testing.assert_close(rough, exact, atol=0.1, rtol=2e-3)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_gradient_in_bf16_points_where_that_in_float32_does(trained, name):
    c, net = CONFIGS[name], trained[name].model
    images = dataset.load(name).train.first(100).images

    def gradient(step, multiply):
        with precision.autocast(multiply, CPU):
            outputs = net(*draw_batch(c, images[20 * step :][:20], step))
        loss = c.objective(outputs).loss
        found = torch.autograd.grad(loss, list(net.parameters()), allow_unused=True)
        return torch.cat([g.flatten() for g in found if g is not None])

    # Adam divides by the gradient's own size, so its direction is what training depends on. The
    # processor decides how products are rounded, and with them the length of a small network's.
    for step in range(5):
        exact, rough = (gradient(step, p) for p in ("float32", "bf16"))
        assert torch.cosine_similarity(exact, rough, dim=0) > 0.98
        torch.testing.assert_close(rough.norm(), exact.norm(), atol=0, rtol=0.25)


def test_auto_asks_the_processor(monkeypatch):
    for has_bf16, chosen in ((True, "bf16"), (False, "float32")):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda has=has_bf16: has)
        assert precision.choose("auto", CPU) == chosen
    assert precision.choose("auto", torch.device("cuda")) == "tf32"


@pytest.mark.parametrize("name", CONFIGS)
def test_the_prior_and_the_logits_are_float32_under_autocast(trained, name):
    net, x = trained[name].best, evaluation.test_images(dataset.load(name).test.first(4).images)
    z = torch.randn(4, net.prior.latent, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), precision.autocast("bf16", CPU):
        assert net.decoder(z, x).dtype == torch.float32
        low = net.prior.log_prob(z)
    assert low.equal(net.prior.log_prob(z))
