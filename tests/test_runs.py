import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from helpers import CPU, silent, smoke

from maelib import cli, config
from maelib.internal import paths
from maelib.objectives import OBJECTIVES
from maelib.objectives.mae import MAE
from maelib.runs import record as records
from maelib.runs.record import collect
from maelib.runs.run import pick_device, run
from maelib.training import checkpoints
from maelib.training.loop import Interrupted, Observer, train
from maelib.training.state import TrainingError, restore
from maelib.training.step import update_average


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": -1.0}, "alpha is -1.0"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"alpha": -1.0, "objective": "vlae"}, "alpha is -1.0"),
        ({"objective": "gan"}, "objective is 'gan'.*vlae, mae"),
        ({"preset": "huge"}, "preset is 'huge'.*smoke"),
        ({"dataset": "cifar"}, "dataset is 'cifar'"),
        ({"diverse": "x"}, "diverse is 'x'"),
        ({"decoder": "x"}, "decoder is 'x'"),
        ({"batch_size": 1}, "batch_size is 1.*at least 2"),
        ({"free_bits": -1.0}, "free_bits is -1.0"),
        ({"epochs": 0}, "epochs is 0"),
        ({"colour": 3}, "colour is not an option of a run"),
    ],
)
def test_bad_configuration_is_one_clear_sentence(changes, message):
    with pytest.raises(ValueError, match=message):
        config.resolve(**{"preset": "smoke", **changes})


def test_only_mae_has_alpha_and_only_vlae_free_bits_by_default():
    assert smoke(objective="vlae", alpha=2.0) == smoke(objective="vlae")
    assert smoke(objective="vlae").objective.free_bits == 7.84
    assert smoke().objective.free_bits == 0
    assert smoke(objective="vae").network.decoder == "resnet"


def test_a_small_data_set_is_repeated_up_to_min_steps(digits, tmp_path):
    _, progress = train(smoke(min_steps=8), digits, tmp_path / "a", CPU)
    assert progress.step == 8
    _, progress = train(smoke(epochs=1), digits, tmp_path / "b", CPU)
    assert progress.step == 5
    assert config.resolve("quick", "digits", epochs=1).training.min_steps == 0


def test_key_depends_on_configuration_and_data():
    keys = {smoke().key("a"), smoke().key("b"), smoke(seed=1).key("a"), smoke(alpha=2.0).key("a")}
    assert len(keys) == 4
    assert smoke().key("a") == smoke().key("a")


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_run_is_measured_recorded_and_found_again(objective, tmp_path, capsys):
    said = []
    first, net, _ = run(smoke(objective=objective), out_dir=tmp_path, log=said.append)
    again, loaded, _ = run(smoke(objective=objective), out_dir=tmp_path, log=said.append)
    assert again == first
    assert any("finished run found" in line for line in said)
    for a, b in zip(net.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(a, b)
    folder = tmp_path / "smoke" / first.name
    assert {"config.json", "metrics.csv", "model.safetensors", "result.json"} <= {
        path.name for path in folder.iterdir()
    }
    assert collect(tmp_path) == [first]


def test_same_seed_same_numbers_other_seed_others(tmp_path):
    measured = [
        run(smoke(seed=seed), out_dir=tmp_path / str(i), log=silent)[0].measurements
        for i, seed in enumerate((0, 0, 1))
    ]
    assert measured[0] == measured[1]
    assert measured[0] != measured[2]


def test_training_lowers_the_elbo(digits, tmp_path):
    c = smoke(objective="vae", epochs=30, lr=3e-3)
    _, progress = train(c, digits, tmp_path, CPU)
    elbo = [row["val_elbo"] for row in progress.history]
    assert elbo[-1] < 0.8 * elbo[0]


@pytest.mark.fault("Ctrl-C, SIGTERM, time is up")
def test_stopped_and_continued_is_bit_for_bit_uninterrupted(digits, tmp_path):
    c = smoke(epochs=3)
    whole, expected = train(c, digits, tmp_path / "whole", CPU)

    def stop_at_7(progress, _):
        if progress.step == 7:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted, match="step 7 of 15"):
        train(c, digits, tmp_path / "cut", CPU, observer=Observer(stop_at_7))
    resumed, progress = train(c, digits, tmp_path / "cut", CPU)
    assert progress.history == expected.history
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_killed_process_continues_to_the_same_result(tmp_path):
    code = (
        "from maelib import cli; cli.main(['train', '--checkpoint-minutes', '0.001', "
        "'--preset', 'smoke', '--dataset', 'digits', '--epochs', '15', "
        f"'--out-dir', {str(tmp_path)!r}])"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    while not list(tmp_path.glob("smoke/*/checkpoints/step-*")) and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    record, _, _ = run(smoke(epochs=15), out_dir=tmp_path, log=silent)
    fresh, _, _ = run(smoke(epochs=15), out_dir=tmp_path / "fresh", log=silent)
    assert record.measurements == fresh.measurements


@pytest.mark.fault("Ctrl-C, SIGTERM, time is up")
def test_max_minutes_stops_and_saves(digits, tmp_path):
    with pytest.raises(Interrupted, match="the same command continues"):
        train(smoke(), digits, tmp_path, CPU, max_minutes=0.0)
    assert restore(smoke(), tmp_path / "checkpoints", CPU).progress.step == 1


@pytest.mark.fault("NaN at step n")
def test_nan_stops_with_step_and_term(digits, tmp_path, monkeypatch):
    def poisoned(self, outputs, progress, honest=MAE.__call__):
        terms = honest(self, outputs, progress)
        bad = terms.kl * float("nan")
        return replace(terms, kl=bad, loss=terms.loss + bad)

    monkeypatch.setattr(MAE, "__call__", poisoned)
    with pytest.raises(TrainingError, match="the term kl is NaN or infinite at step 0"):
        train(smoke(), digits, tmp_path, CPU)


@pytest.mark.fault("checkpoint truncated or corrupted")
def test_damaged_checkpoint_falls_back_and_all_damaged_is_an_error(tmp_path):
    for step in (1, 2):
        checkpoints.save(tmp_path, step, {"w": {"a": torch.ones(step)}}, {"step": step})
    newest = tmp_path / "step-00000002" / "w.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="step-00000002 is not an intact checkpoint"):
        _, numbers = checkpoints.load_latest(tmp_path, lambda *found: found)
    assert numbers["step"] == 1
    (tmp_path / "step-00000001" / "state.json").write_text("{")
    said = pytest.warns(UserWarning, match="not an intact checkpoint")
    with said, pytest.raises(ValueError, match="every checkpoint"):
        checkpoints.load_latest(tmp_path, lambda *found: found)


def test_plateau_halves_then_stops(digits, tmp_path):
    c = smoke(schedule="plateau", patience=1, halvings=1, epochs=50, lr=1e-12, ema=0.0)
    _, progress = train(c, digits, tmp_path, CPU)
    assert progress.halvings == 2
    assert len(progress.history) < 50


def test_average_warms_up_and_then_decays(digits):
    model, mean = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    torch.nn.init.constant_(model.weight, 1.0)
    torch.nn.init.constant_(mean.weight, 0.0)
    update_average(mean, model, 0.999, step=0)
    assert mean.weight.item() == pytest.approx(0.9)
    update_average(mean, model, 0.5, step=10_000)
    assert mean.weight.item() == pytest.approx(0.95)


@pytest.mark.fault("garbage among results")
def test_foreign_results_are_named_and_skipped(tmp_path):
    (tmp_path / "notes.json").write_text('{"a": 1}')
    with pytest.warns(UserWarning, match=r"notes.json is not a maelib result"):
        assert collect(tmp_path) == []


@pytest.mark.fault("read-only output")
def test_unwritable_out_dir_is_named(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(OSError, match="out_dir is"):
        run(smoke(), out_dir=blocked, log=silent)


def test_unknown_device_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"device is 'tpu'.*auto, cpu, cuda, mps"):
        pick_device("tpu")


def test_command_line_trains_lists_evaluates_and_samples(tmp_path, capsys):
    common = ["--preset", "smoke", "--dataset", "digits", "--out-dir", str(tmp_path)]
    assert cli.main(["runs", "--out-dir", str(tmp_path)]) == 0
    assert f"there is no run in {tmp_path}" in capsys.readouterr().out
    assert cli.main(["train", *common]) == 0
    out = capsys.readouterr().out
    assert "nll_k = 8" in out
    assert "digits" in out
    folder = next(tmp_path.glob("smoke/*"))
    assert cli.main(["runs", "--out-dir", str(tmp_path)]) == 0
    assert folder.name in capsys.readouterr().out
    assert cli.main(["evaluate", str(folder), "--nll-k", "4"]) == 0
    assert "nll_k: 4" in capsys.readouterr().out
    png = tmp_path / "s.png"
    assert cli.main(["sample", str(folder), "--count", "4", "--out", str(png)]) == 0
    assert png.read_bytes().startswith(b"\x89PNG")
    assert cli.main(["data", "digits"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--alpha", "-1"], "alpha is -1.0"),
        (["train", "--preset", "smoke", "--batch-size", "1"], "batch_size is 1"),
        (["train", "--device", "abacus", "--preset", "smoke"], "device is 'abacus'"),
        (["evaluate", "nowhere"], "nowhere"),
        (["encode", "digits"], "model is not given"),
    ],
)
def test_command_line_errors_are_one_line_and_status_2(arguments, message, capsys):
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_a_link_to_itself_is_no_run(tmp_path, capsys):
    (loop := tmp_path / "loop").symlink_to(loop)
    assert cli.main(["evaluate", str(loop)]) == cli.main(["export", str(loop)]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_home_and_relative_paths_mean_the_same_from_every_folder(tmp_path, monkeypatch):
    project = tmp_path / "project"
    (project / "maelib").mkdir(parents=True)
    (project / "notebooks").mkdir()
    (project / "pyproject.toml").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for here in (project, project / "notebooks"):
        monkeypatch.chdir(here)
        monkeypatch.setenv("MAELIB_RUNS", "mine")
        monkeypatch.setenv("MAELIB_DATA", "~/data")
        assert paths.default_out_dir() == paths.resolved("mine") == project / "mine"
        assert paths.data_roots()[0] == tmp_path / "home" / "data"
        monkeypatch.setenv("MAELIB_RUNS", str(tmp_path / "elsewhere"))
        assert paths.default_out_dir() == tmp_path / "elsewhere"


def test_a_finished_run_of_an_older_evaluation_is_measured_again_and_not_trained(tmp_path):
    first, _, _ = run(smoke(), out_dir=tmp_path, log=silent)
    path = tmp_path / "smoke" / first.name / "result.json"
    old = replace(
        first,
        evaluation=first.evaluation | {"version": 2},
        measurements=first.measurements | {"nll": 0.0},
    )
    records.write(old, path)
    again, _, _ = run(smoke(), out_dir=tmp_path, log=silent)
    assert again == first == records.read(path)
