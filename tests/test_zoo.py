"""Every objective there is trains, continues where it stopped, is measured and draws an image."""

import pytest
import torch

from maelib import config
from maelib.data import dataset
from maelib.internal import rng
from maelib.measure import evaluation, sampling
from maelib.objectives import OBJECTIVES
from maelib.training.loop import Interrupted, train

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_remedy_trains_resumes_exactly_and_is_measured(name, tmp_path):
    more = {"encoder_steps": 5} if name == "lagging" else {}
    c = config.resolve("smoke", "digits", name, epochs=2, pseudo_inputs=20, **more)
    digits = dataset.load("digits")
    model, progress = train(c, digits, tmp_path / "whole", CPU)
    with pytest.raises(Interrupted):
        train(c, digits, tmp_path / "stopped", CPU, max_minutes=0.0)
    continued, _ = train(c, digits, tmp_path / "stopped", CPU)
    weights = model.state_dict()
    assert all(value.equal(weights[key]) for key, value in continued.state_dict().items())
    assert all(isinstance(value, (int, float)) for value in progress.history[-1].values())
    assert not model.training
    x = evaluation.test_images(digits.test.first(8).images)
    assert evaluation.iw_nll(model, x, 8).isfinite().all()
    assert evaluation.elbo_terms(model, x).kl.isfinite().all()
    if name in ("bn", "skip", "small-kernel", "vamp"):
        assert sampling.sample(model, 1, rng.generator(0, "z")).shape == (1, 1, 28, 28)
