"""bfloat16 biases neither what is measured nor where training goes; a CPU can emulate it.

``benchmarks/bench.py --rows curve`` compares whole training runs.
"""

import pytest
import torch

from maelib import config, data, evaluation, precision, training
from maelib.divergences import mpd

CPU = torch.device("cpu")
CONFIGS = {name: config.resolve("smoke", name, epochs=8, lr=5e-3) for name in ("digits", "photos")}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The state of each data set's model after some training in float32."""

    def train(c):
        folder = tmp_path_factory.mktemp(c.dataset)
        training.train(c, data.load(c.dataset), folder, CPU)
        return training.restore(c, folder / "checkpoints", CPU)

    return {name: train(c) for name, c in CONFIGS.items()}


def measured(net, dataset, precise):
    """Mean NLL, RE and KL of 100 test images, and their MPD, in nats."""
    x = evaluation.test_images(data.load(dataset).test.first(100).images)
    re, kl, mu, logvar = evaluation.elbo_terms(net, x, precise=precise)
    assert mu.dtype == kl.dtype == torch.float32
    nll = evaluation.iw_nll(net, x, 8, precise=precise)
    return torch.stack([nll.mean(), re.mean(), kl.mean(), mpd(mu, logvar)])


@pytest.mark.parametrize("dataset", CONFIGS)
def test_measuring_in_bf16_is_not_biased(trained, dataset):
    """Rounding the weights moves all images alike, so there is a bound, and it is not zero."""
    net = trained[dataset].best.eval()
    exact, rough = (measured(net, dataset, p) for p in ("float32", "bf16"))
    assert (rough != exact).all()  # it did multiply in bfloat16
    torch.testing.assert_close(rough, exact, atol=0.1, rtol=2e-3)


@pytest.mark.parametrize("dataset", CONFIGS)
def test_the_gradient_in_bf16_points_where_that_in_float32_does(trained, dataset):
    c, net = CONFIGS[dataset], trained[dataset].model
    images = data.load(dataset).train.first(100).images

    def gradient(step, precise):
        with precision.autocast(precise, CPU):
            outputs = net(*training.draw_batch(c, images[20 * step :][:20], step))
        loss = training.loss_terms(outputs, c).loss
        found = torch.autograd.grad(loss, list(net.parameters()), allow_unused=True)
        return torch.cat([g.flatten() for g in found if g is not None])

    for step in range(5):
        exact, rough = (gradient(step, p) for p in ("float32", "bf16"))
        assert torch.cosine_similarity(exact, rough, dim=0) > 0.98
        torch.testing.assert_close(rough.norm(), exact.norm(), atol=0, rtol=0.1)
