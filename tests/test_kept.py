"""A measurement that is stopped goes on; a copy of the code without git names its commit."""

import subprocess

import pytest
import torch

from maelib import config
from maelib.data import dataset
from maelib.measure import evaluation
from maelib.measure.kept import Kept
from maelib.model import build
from maelib.runs import record
from maelib.runs.run import locate, run
from maelib.training.loop import Interrupted, train
from maelib.training.precision import matmul_precision

CPU = torch.device("cpu")


@pytest.fixture
def blocks(monkeypatch):
    """The index of the first image of every chunk that is measured."""
    seen = []

    def stream(model, x, first, k, honest=evaluation._stream):
        seen.append(first)
        return honest(model, x, first, k)

    monkeypatch.setattr(evaluation, "_stream", stream)
    return seen


def test_nlls_that_are_kept_are_not_computed_again(tmp_path, blocks):
    net = build(config.resolve("smoke", "digits").network)
    x = evaluation.test_images(dataset.load("digits").test.first(10).images)
    whole = evaluation.iw_nll(net, x, 8, rows=16)

    def stop(done, total):
        if done == 6:
            raise KeyboardInterrupt

    kept = Kept(tmp_path / "nll.json", {"model": "a"})
    with pytest.raises(KeyboardInterrupt):
        evaluation.iw_nll(net, x, 8, rows=16, observe=stop, kept=kept)
    assert len(kept.read(8)) == 6
    assert (kept.read(64), Kept(kept.path, {"model": "b"}).read(8)) == ([], [])
    del blocks[:]
    assert evaluation.iw_nll(net, x, 8, rows=16, kept=kept).equal(whole)
    assert blocks == [6, 8]
    kept.path.write_text("{")
    assert kept.read(8) == []


@pytest.mark.fault("Ctrl-C, SIGTERM, time is up")
def test_time_is_up_while_a_run_is_measured(tmp_path, blocks):
    c = config.resolve("smoke", "digits", nll_k=64)
    *_, folder = locate(c, tmp_path)
    train(c, dataset.load("digits"), folder, CPU)
    with pytest.raises(Interrupted, match="measured 4 of 10 images; the same command continues"):
        run(c, out_dir=tmp_path, log=lambda _: None, max_minutes=1e-9)
    ours, _, _ = run(c, out_dir=tmp_path, log=lambda _: None)
    assert blocks == [0, 4, 8]
    assert not (folder / "nll.json").exists()
    whole, _, _ = run(c, out_dir=tmp_path / "whole", log=lambda _: None)
    assert ours.per_image == whole.per_image


def test_a_run_is_measured_in_the_precision_that_is_asked_for(tmp_path):
    c = config.resolve("smoke", "digits")
    for precision in ("float32", "bf16"):
        out = tmp_path / precision
        ours, _, _ = run(c, out_dir=out, log=lambda _: None, precision=precision)
        assert ours.provenance["precision"] == ours.evaluation["precision"] == precision


def test_a_gpu_decodes_more_images_at_once_than_a_cpu():
    assert evaluation.rows_at_once(CPU, 784) == 256
    assert evaluation.rows_at_once(torch.device("cuda"), 784) >= 4096


def test_cudnn_tries_its_kernels_while_it_computes():
    before = torch.backends.cudnn.benchmark
    with matmul_precision("tf32"):
        assert torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.benchmark == before


def test_a_copy_of_the_code_without_git_names_its_commit(monkeypatch):
    def no_git(*_, **__):
        raise subprocess.CalledProcessError(128, "git")

    monkeypatch.setattr(subprocess, "check_output", no_git)
    monkeypatch.delenv("MAELIB_COMMIT", raising=False)
    assert record.commit() == "unknown"
    monkeypatch.setenv("MAELIB_COMMIT", "0123456789")
    assert record.commit() == "0123456789"
