"""Two processes share a batch: the same loss and gradient as one; a whole torchrun run."""

import json
import os
import subprocess
import sys

import pytest
import torch
from helpers import silent

from maelib import config
from maelib.data import dataset
from maelib.model import build
from maelib.runs.run import run
from maelib.training import parallel
from maelib.training.loop import batches

CASES = [
    {"objective": "mae", "alpha": 1.0, "beta": 0.5, "free_bits": 0.0},
    {"objective": "mae", "alpha": 0.5, "beta": 0.1, "diverse": "pairwise", "free_bits": 1.0},
    {"objective": "mae", "alpha": 2.0, "beta": 1.0, "free_bits": 1e6},  # KL is far below
    {"objective": "vae"},
    {"objective": "bn"},  # normalises over the images of both
]


def one_step(changes):
    """Loss and gradients of a batch of 20 digits, on however many ranks there are.

    In float64, in which a wrong factor or order cannot hide behind round-off.
    """
    c = config.resolve("smoke", "digits", **changes)
    torch.manual_seed(1)
    model = build(c.network).double().train()
    network = parallel.parallel(model)
    x, eps = next(batches(c, dataset.load("digits").train.first(100).images, 3, 5))
    outputs = network(x.double(), eps.double())
    terms = c.objective(parallel.gather_outputs(outputs))
    terms.loss.backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.requires_grad]
    return terms.loss.item(), terms.kl.item(), gradients


def torchrun(*arguments, ranks=2, env=None):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.run(
        [*command, "--nproc-per-node", str(ranks), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip


def test_alone_there_is_nothing_to_gather_or_agree_on():
    own = torch.randn(4, 3)
    assert parallel.gather(own) is own
    assert parallel.local_shard(own).equal(own)
    assert (parallel.rank(), parallel.size(), parallel.all_reduce_max(1, 3)) == (0, 1, 1)


def test_two_ranks_give_the_loss_and_gradient_of_one(tmp_path):
    done = torchrun(__file__, str(tmp_path / "two.pt"))
    assert done.returncode == 0, done.stderr
    two = torch.load(tmp_path / "two.pt")
    for changes, (loss, kl, gradients) in zip(CASES, two, strict=True):
        expected, expected_kl, reference = one_step(changes)
        assert loss == pytest.approx(expected, rel=1e-12)
        assert kl == pytest.approx(expected_kl, rel=1e-12)
        norm = torch.stack([g.norm() for g in reference]).norm()
        assert norm > 1e-3
        for ours, theirs in zip(gradients, reference, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10 * norm.item())
    free_bits = [case.get("free_bits", 0) for case in CASES]
    assert [kl < free for (_, kl, _), free in zip(two, free_bits, strict=True)] == [
        False, False, True, False, False,
    ]  # fmt: skip


def train_arguments(out, *more):
    smoke = ["--preset", "smoke", "--dataset", "digits", "--objective", "vlae"]
    return ["train", *smoke, "--out-dir", str(out), *more]


def test_torchrun_trains_the_run_that_one_process_trains(tmp_path):
    arguments = train_arguments(tmp_path / "two", "--precision", "float32")
    done = torchrun("-m", "maelib", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("nll_k = 8") == 1
    two = json.loads(next((tmp_path / "two").glob("smoke/*/result.json")).read_text())
    assert two["provenance"]["processes"] == 2
    c = config.resolve("smoke", "digits", objective="vlae")
    one, _, _ = run(c, out_dir=tmp_path / "one", log=silent, precision="float32")
    assert two["name"] == one.name
    for name in ("re", "kl", "nll", "mpd"):
        assert two["measurements"][name] == pytest.approx(one.measurements[name], rel=1e-3)


def test_ranks_stop_together_and_go_on(tmp_path):
    arguments = train_arguments(tmp_path, "--epochs", "6", "--max-minutes")
    stopped = torchrun("-m", "maelib", *arguments, "1e-9")
    assert "stopped at step 10 of 30" in stopped.stderr
    checkpoints = next(tmp_path.glob("smoke/*/checkpoints"))
    assert [path.name for path in checkpoints.iterdir()] == ["step-00000010"]
    assert torchrun("-m", "maelib", *arguments, "10").returncode == 0


def test_a_batch_that_does_not_divide_is_a_clear_error(tmp_path):
    done = torchrun("-m", "maelib", *train_arguments(tmp_path, "--batch-size", "25"))
    assert done.returncode != 0
    assert "batch_size is 25; it must be divisible by the 2 processes" in done.stderr


if __name__ == "__main__":
    with parallel.group() as rank:
        results = [one_step(changes) for changes in CASES]
        if rank == 0:
            torch.save(results, sys.argv[1])
