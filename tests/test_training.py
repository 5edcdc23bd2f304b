"""A training step's parts: order, precision, profile, TensorBoard, listing."""

import gzip
import json

import pytest
import torch

from maelib import config, data, model, precision, runs, training, watch

CPU = torch.device("cpu")


def smoke(**changes):
    return config.resolve("smoke", "digits", **changes)


@pytest.fixture(scope="module")
def images():
    return data.load("digits").train.first(110).images


def test_batches_are_the_same_wherever_they_begin_and_fill_an_epoch(images):
    c = smoke()
    whole = training.batches(c, images, 0, 5)
    first = [next(whole)[0] for _ in range(12)]
    late = training.batches(c, images, 7, 5)
    assert all(next(late)[0].equal(x) for x in first[7:])
    assert not first[0].equal(first[5])


def test_bf16_multiplies_in_bfloat16_and_sums_likelihoods_in_float32(images):
    c = config.resolve("quick", "digits")
    net = model.build(c)
    x, eps = training.draw_batch(c, images[:100], 0)
    exact = net(x, eps)
    with precision.autocast("bf16", CPU):
        re, kl, mu, logvar = net(x, eps)
    assert not mu.equal(exact[2])
    assert mu.equal(mu.bfloat16().float())
    assert re.dtype == kl.dtype == mu.dtype == logvar.dtype == torch.float32
    terms, expected = (training.loss_terms(t, c) for t in ((re, kl, mu, logvar), exact))
    assert terms.loss.dtype == torch.float32
    for name in ("re", "kl", "loss"):
        ours, theirs = getattr(terms, name).item(), getattr(expected, name).item()
        assert ours == pytest.approx(theirs, rel=1e-2)


def test_precision_is_restored_and_checked():
    before = torch.get_float32_matmul_precision()
    with precision.multiplying("tf32"):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before
    assert precision.choose("auto", CPU) == "float32"
    with pytest.raises(ValueError, match=r"precision is 'int8'; .*float32, tf32, bf16"):
        precision.choose("int8", CPU)


def test_profile_is_a_trace_that_opens(tmp_path):
    said = []
    record, _, _ = runs.run(smoke(), out_dir=tmp_path, say=said.append, profile=True)
    path = tmp_path / "smoke" / record.name / "trace.json.gz"
    assert any(str(path) in line for line in said)
    with gzip.open(path) as file:
        names = {event.get("name") for event in json.load(file)["traceEvents"]}
    assert any(name and "conv" in name for name in names)


def test_tensorboard_is_written_where_it_is_installed_and_silent_elsewhere(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    digits = data.load("digits")
    training.train(smoke(), digits, tmp_path / "with", CPU)
    assert list((tmp_path / "with" / "tensorboard").glob("events.*"))
    monkeypatch.setattr(watch.importlib.util, "find_spec", lambda _: None)
    training.train(smoke(), digits, tmp_path / "without", CPU)
    assert not (tmp_path / "without" / "tensorboard").exists()


def test_progress_says_how_long_is_left(tmp_path):
    write = watch.progress_writer(tmp_path)
    write(11, 20, 3.0, 90.0)
    seen = json.loads((tmp_path / "progress.json").read_text())
    assert (seen["step"], seen["total"], seen["best_elbo"]) == (11, 20, 90.0)
    assert seen["seconds_left"] >= 0
    (tmp_path / "config.json").write_text("{}")
    assert watch.status(tmp_path).state == "interrupted"
