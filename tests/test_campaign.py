"""A campaign fits into its slot, and the next slot goes on from whatever it left."""

import os
import random
import subprocess
import sys

import pytest
import torch

from maelib import cli, config
from maelib.experiments import FORMS, MAE, VAE, VLAE
from maelib.internal.files import read_json
from maelib.runs import record as records
from maelib.runs.run import run
from maelib.training import Training, checkpoints
from maelib.workflow import campaign as campaigns
from maelib.workflow import checks
from maelib.workflow.campaign import affordable, campaign, named, shortened

CPU = torch.device("cpu")
PACE = {"way": "captured", "step": 0.003, "epoch": 1.65, "nll": 60.0}
NAMES = "mnist-vlae,mnist-mae-a1-b0.5,mnist-mae-a2-b0.5-mean,mnist-mae-a2-b0.5-pairwise,mnist-vae"


@pytest.fixture
def quick_checks(monkeypatch):
    """Two checks, the second of which fails."""
    found = {"pace": lambda: PACE | {"way": "eager"}, "rates": lambda: 1 / 0}
    monkeypatch.setattr(campaigns, "checks", lambda *_: found)


def test_a_campaign_leaves_results_that_tables_read(tmp_path, quick_checks):
    said = []
    how = {"preset": "smoke", "dataset": "digits", "device": "cpu", "log": said.append}
    found = campaign(10.0, tmp_path, (VLAE,), **how)
    record = found["digits-vlae"]
    assert records.collect(tmp_path) == [record]
    assert record.config == VLAE.config("smoke", "digits")  # make reproduce's own run
    assert "digits-vlae" in said[-1]
    assert f"{record.measurements['nll']:.2f}" in said[-1]
    report = read_json(tmp_path / "campaign.json")
    assert report["rates"]["failed"] == "division by zero"
    assert report["pace"]["step"] == PACE["step"]
    again = campaign(10.0, tmp_path, (VLAE,), **how)
    assert again == found
    assert any("finished run found" in line for line in said)


def test_checks_are_made_again_in_another_precision(tmp_path, monkeypatch):
    made = []
    once = {"pace": lambda: made.append("pace") or PACE | {"way": "eager"}}
    monkeypatch.setattr(
        campaigns, "checks", lambda *_: once | {"nll": lambda: made.append("nll") or {}}
    )
    how = {"preset": "smoke", "dataset": "digits", "device": "cpu", "log": lambda _: None}
    for precision in ("float32", "float32", "bf16"):
        campaign(0.05, tmp_path, (VLAE,), precision=precision, **how)
    assert made.count("nll") == 2


def test_when_time_is_up_the_rows_that_are_left_are_named(tmp_path, quick_checks):
    said = []
    how = {"preset": "smoke", "dataset": "digits", "device": "cpu", "log": said.append}
    assert campaign(0.05, tmp_path, (VLAE, VAE), **how) == {"digits-vlae": None, "digits-vae": None}
    assert said[-1].count("not finished; the same command continues") == 2


def test_one_row_that_fails_does_not_cost_the_others(tmp_path, quick_checks, monkeypatch):
    def fail_first(config, honest=campaigns.run, **how):
        if config.objective.name == "vlae":
            raise RuntimeError("a driver's error")
        return honest(config, **how)

    monkeypatch.setattr(campaigns, "run", fail_first)
    said = []
    how = {"preset": "smoke", "dataset": "digits", "device": "cpu", "log": said.append}
    found = campaign(10.0, tmp_path, (VLAE, VAE), **how)
    assert [record is None for record in found.values()] == [True, False]
    assert "digits-vlae is left out: a driver's error" in said


def test_epochs_are_those_that_fit_and_the_key_tells():
    paper, short = (VLAE.config(preset, "mnist") for preset in ("paper", "short"))
    assert affordable(paper.training, 300.0, PACE) == int(240 / 1.65)
    assert affordable(paper.training, 10.0, PACE) == campaigns.LEAST
    assert affordable(paper.training, 1e6, PACE) == campaigns.MOST
    assert affordable(short.training, 10.0, PACE) == 40
    assert affordable(Training(), 300.0, {"failed": "no"}) == 500
    assert shortened(short, 40) == short
    less = shortened(paper, 145)
    assert (less.training.epochs, less.training.schedule) == (145, "cooldown")
    assert less.key("") != paper.key("")


def test_rows_are_named_and_a_wrong_name_is_refused(capsys):
    five = (VLAE, MAE[1.0, 0.5], FORMS["mean"][2.0], FORMS["pairwise"][2.0], VAE)
    assert named(NAMES) == five
    assert named("") == campaigns.ROWS
    assert campaigns.ROWS[:2] == (MAE[1.0, 0.5], VLAE)
    assert cli.main(["campaign", "--rows", "mnist-vea"]) == 2
    assert "rows has 'mnist-vea'; it must be of: mnist-vae" in capsys.readouterr().err


def test_the_checks_find_that_a_cpu_computes_like_itself():
    c = config.resolve("smoke", "digits")
    for name, check in checks.checks(c, CPU, "float32").items():
        if name != "nll":  # needs MNIST
            assert "failed" not in checks.attempt(check), name
    found = checks.like_on_cpu(c, CPU, "float32")
    assert found["losses"] == found["on the CPU"]


def test_a_device_that_computes_something_else_is_found(monkeypatch):
    def astray(state, *rest, honest=checks.moved):
        there = honest(state, *rest)
        there.model.posterior.layer.bias.data += 1
        return there

    monkeypatch.setattr(checks, "moved", astray)
    found = checks.attempt(
        lambda: checks.like_on_cpu(config.resolve("smoke", "digits"), CPU, "float32")
    )
    assert "by plain steps" in found["failed"]


def whole(out):
    """Read every file that has its final name; the number of them."""
    files = [p for p in out.rglob("*") if p.is_file() and "tensorboard" not in p.parts]
    files = [p for p in files if ".part" not in str(p) and p.name != "lock"]
    for path in files:
        if path.name == "result.json":
            records.read(path)
        elif path.suffix == ".json":
            read_json(path)
        elif path.suffix == ".safetensors":
            checkpoints.read_tensors(path)
        else:
            assert path.read_text().endswith("\n")
    for folder in out.glob("*/*/checkpoints/step-*"):
        checkpoints._load(folder)
    return len(files)


@pytest.mark.slow
@pytest.mark.fault("SIGKILL in a campaign")
def test_a_campaign_survives_ten_kills_with_every_file_whole(tmp_path):
    out, moments = tmp_path / "out", random.Random(0)
    command = [sys.executable, "-u", "-m", "maelib", "campaign", "--device", "cpu"]
    command += ["--preset", "smoke", "--minutes", "1", "--dataset", "digits", "--rows", NAMES]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    seen = []
    for _ in range(10):
        with subprocess.Popen(
            [*command, "--out", str(out)], env=environment, stdout=subprocess.PIPE, text=True
        ) as slot:
            slot.stdout.readline()  # Python has started
            try:
                slot.wait(moments.uniform(0, 8))
            except subprocess.TimeoutExpired:
                slot.kill()
        seen.append(whole(out))
    for _ in range(20):
        done = subprocess.run([*command, "--out", str(out)], env=environment, capture_output=True)
        assert done.returncode == 0, done.stderr
        if len(list(out.glob("smoke/*/result.json"))) == 5:
            break
    assert whole(out) > seen[0]
    struck = {record.name: record for record in records.collect(out)}
    assert len(struck) == 5
    fresh, _, _ = run(VLAE.config("smoke", "digits"), out_dir=tmp_path / "fresh", device="cpu")
    assert struck[fresh.name].measurements == fresh.measurements
