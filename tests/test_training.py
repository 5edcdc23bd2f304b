"""A training step's parts: order, precision, profile, TensorBoard, listing."""

import gzip
import json

import pytest
import torch
from helpers import CPU, silent, smoke

from maelib import config, model
from maelib.data import dataset
from maelib.internal import rng
from maelib.measure import evaluation
from maelib.nets.priors import FlowPrior
from maelib.runs import monitor
from maelib.runs.run import run
from maelib.training import loop, precision
from maelib.training.state import Progress, start
from maelib.training.step import Step, train_step


@pytest.fixture(scope="module")
def images():
    return dataset.load("digits").train.first(110).images


def test_batches_are_the_same_wherever_they_begin_and_fill_an_epoch(images):
    c = smoke()
    whole = loop.batches(c, images, 0, 5)
    first = [next(whole)[0] for _ in range(12)]
    late = loop.batches(c, images, 7, 5)
    assert all(next(late)[0].equal(x) for x in first[7:])
    assert not first[0].equal(first[5])


def test_bf16_multiplies_in_bfloat16_and_sums_likelihoods_in_float32(images):
    c = config.resolve("quick", "digits")
    net = model.build(c.network)
    x, eps = loop.draw_batch(c, images[:100], 0)
    exact = net(x, eps)
    with precision.autocast("bf16", CPU):
        rough = net(x, eps)
    assert not rough.mu.equal(exact.mu)
    assert rough.mu.equal(rough.mu.bfloat16().float())
    assert all(part.dtype == torch.float32 for part in rough)
    terms, expected = c.objective(rough), c.objective(exact)
    assert terms.loss.dtype == torch.float32
    for name in ("re", "kl", "loss"):
        ours, theirs = getattr(terms, name).item(), getattr(expected, name).item()
        assert ours == pytest.approx(theirs, rel=1e-2)


@pytest.mark.parametrize("name", ["digits", "photos"])
def test_a_model_with_a_standard_normal_prior_is_trained_and_measured_without_a_flow(name):
    c = config.resolve("smoke", name, prior="normal", objective="vlae")
    found = dataset.load(name).train.first(60).images
    state = start(c, found, CPU)
    assert not isinstance(state.model.prior, FlowPrior)
    assert not any(key.startswith("prior.") for key in state.model.state_dict())
    before = [p.clone() for p in state.model.parameters()]
    step = Step(state.model, c.objective, c.training, total=3)
    terms = train_step(state, step, *loop.draw_batch(c, found[:20], 0))
    assert terms.loss.isfinite()
    state.totals.require_finite()
    changed = [not a.equal(b) for a, b in zip(before, state.model.parameters(), strict=True)]
    assert all(changed)
    x = evaluation.test_images(found[40:44])
    assert evaluation.iw_nll(state.averaged, x, 4).isfinite().all()
    z = state.model.prior.sample(2, rng.generator(0, "z"))
    assert z.shape == (2, c.network.latent)


def test_precision_is_restored_and_checked():
    before = torch.get_float32_matmul_precision()
    with precision.matmul_precision("tf32"):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before
    with pytest.raises(ValueError, match=r"precision is 'int8'; .*float32, tf32, bf16"):
        precision.choose("int8", CPU)


def test_profile_is_a_trace_that_opens(tmp_path):
    said = []
    record, _, _ = run(smoke(), out_dir=tmp_path, log=said.append, profile=True)
    path = tmp_path / "smoke" / record.name / "trace.json.gz"
    assert any(str(path) in line for line in said)
    with gzip.open(path) as file:
        names = {event.get("name") for event in json.load(file)["traceEvents"]}
    assert any(name and "conv" in name for name in names)


def test_tensorboard_is_written_where_it_is_installed_and_silent_elsewhere(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    record, _, _ = run(smoke(), out_dir=tmp_path, log=silent)
    assert list((tmp_path / "smoke" / record.name / "tensorboard").glob("events.*"))
    monkeypatch.setattr(monitor.importlib.util, "find_spec", lambda _: None)
    with monitor.tensorboard(tmp_path / "without") as validated:
        validated(record.history[-1], lambda: torch.zeros(2, 1, 28, 28))
    assert not (tmp_path / "without").exists()


def test_progress_says_how_long_is_left(tmp_path):
    write = monitor.progress_writer(tmp_path)
    write(Progress(step=11, seconds=3.0, best_elbo=90.0), 20)
    seen = json.loads((tmp_path / "progress.json").read_text())
    assert (seen["step"], seen["total"], seen["best_elbo"]) == (11, 20, 90.0)
    assert seen["seconds_left"] >= 0
    (tmp_path / "config.json").write_text("{}")
    assert monitor.status(tmp_path).state == "interrupted"
