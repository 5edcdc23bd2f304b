"""What breaks while a run trains, and what is left of it.

A flipped byte in a data file and a download cut half-way are in test_data.py, damaged files of
runs in test_files.py. benchmarks/soak.py damages and strikes at random, and counts the tests
marked ``fault`` by what their mark says.
"""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from helpers import CPU, silent, smoke

from maelib import cli, commands, config
from maelib.internal.files import write_bytes, write_json
from maelib.model import build
from maelib.objectives.mae import MAE
from maelib.runs import monitor
from maelib.runs import record as records
from maelib.runs import run as running
from maelib.runs.run import run
from maelib.training import checkpoints, loop
from maelib.training.loop import Interrupted, Observer, batches, train
from maelib.training.state import (
    Progress,
    RunningTotals,
    State,
    TrainingError,
    adam,
    curves,
    moments,
    save,
    start,
)
from maelib.training.step import Step, train_step


def prepared(out_dir):
    """The empty folder of the smoke run."""
    *_, folder = running.locate(smoke(), out_dir)
    with monitor.exclusive_lock(folder):
        write_json(folder / "config.json", asdict(smoke()))
    return folder


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.fault("disk full")
def test_disk_full_at_a_checkpoint_leaves_the_one_before(digits, tmp_path, monkeypatch):
    def fill_up(progress, _):
        if progress.step == 3:
            monkeypatch.setattr(checkpoints, "write_bytes", full)

    sentence = r"checkpoint of step 3 cannot be written \(No space left on device\); the one before"
    with pytest.raises(OSError, match=sentence):
        train(smoke(), digits, tmp_path, CPU, checkpoint_minutes=0.0, observer=Observer(fill_up))
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == [
        "step-00000001", "step-00000002",
    ]  # fmt: skip
    monkeypatch.undo()
    assert train(smoke(), digits, tmp_path, CPU)[1].step == 5


@pytest.fixture
def small_disk():
    """A limit of the operating system on the size of files, as good as a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.fault("disk full")
def test_a_file_that_cannot_be_written_whole_is_named_and_not_written(tmp_path, small_disk):
    with pytest.raises(OSError, match=r"written \(File too large\); make room"):
        checkpoints.save(tmp_path, 1, {"w": {"a": torch.zeros(10_000)}}, {})
    with pytest.raises(OSError, match=r"File too large: '.*codes\.npz'"):
        write_bytes(tmp_path / "codes.npz", bytes(20_000))
    assert names(tmp_path) == []


@pytest.mark.fault("disk full")
def test_a_run_does_not_need_the_files_of_tensorboard(tmp_path, small_disk, capsys):
    pytest.importorskip("tensorboard")
    pictures = torch.rand(40, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with monitor.tensorboard(tmp_path) as validated:
        for step in range(3):
            with pytest.warns(UserWarning, match=r"TensorBoard's .* \(File too large\)"):
                validated({"step": step}, lambda: pictures)
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.fault("disk full")
def test_disk_full_at_the_result_loses_no_training(tmp_path, monkeypatch):
    honest = records.write
    monkeypatch.setattr(records, "write", full)
    with pytest.raises(OSError, match="No space left"):
        run(smoke(), out_dir=tmp_path, log=silent)
    assert not [name for name in names(tmp_path) if ".part" in name or "result.json" in name]
    monkeypatch.setattr(records, "write", honest)
    monkeypatch.setattr(loop, "train_step", None)  # the trained model is found, not trained
    record, _, _ = run(smoke(), out_dir=tmp_path, log=silent)
    assert record.history[-1]["step"] == 5


def test_what_a_killed_process_left_is_swept(tmp_path):
    folder = prepared(tmp_path)
    (folder / ".model.safetensors.1.part").write_bytes(b"half")
    (folder / "checkpoints" / ".part").mkdir(parents=True)
    run(smoke(), out_dir=tmp_path, log=silent)
    assert not [name for name in names(tmp_path) if ".part" in name]


@pytest.mark.fault("read-only output")
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_output_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match=r"out_dir is .* cannot be written"):
        prepared(tmp_path)


@pytest.mark.fault("read-only output")
def test_output_on_a_read_only_file_system_is_named(capsys):
    arguments = ["train", "--preset", "smoke", "--dataset", "digits", "--out-dir", "/proc/runs"]
    assert cli.main(arguments) == 2
    assert "out_dir is '/proc/runs', which cannot be written" in capsys.readouterr().err


@pytest.mark.fault("two processes, one run")
def test_a_second_process_is_refused_until_the_first_is_dead(tmp_path):
    folder = prepared(tmp_path)
    code = (
        "import sys, time, pathlib; from maelib.runs.monitor import exclusive_lock\n"
        "with exclusive_lock(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True
    )
    with first:
        assert first.stdout.readline() == "held\n"
        assert monitor.status(folder).state == "running"
        with pytest.raises(OSError, match="is being trained by another process; wait"):
            run(smoke(), out_dir=tmp_path, log=silent)
        first.send_signal(signal.SIGKILL)
    assert monitor.status(folder).state == "interrupted"
    run(smoke(), out_dir=tmp_path, log=silent)
    assert monitor.status(folder).state == "finished"


@pytest.mark.fault("garbage among results")
def test_garbage_among_the_results_is_named_and_skipped(tmp_path):
    record, _, _ = run(smoke(), out_dir=tmp_path, log=silent)
    folder = tmp_path / "smoke"
    (folder / "noise.json").write_bytes(bytes(range(256)))
    (folder / "list.json").write_text("[1, 2]")
    (folder / "folder.json").mkdir()
    (folder / "half.json").write_text((folder / record.name / "result.json").read_text()[:500])
    with pytest.warns(UserWarning, match="skipped") as said:
        assert records.collect(tmp_path) == [record]
    text = " ".join(str(warning.message) for warning in said)
    assert all(name in text for name in ("noise.json", "list.json", "half.json"))


@pytest.mark.fault("garbage among results")
@pytest.mark.parametrize(
    "content", ["[]", '{"best_elbo": Infinity}', '{"step": 1' + "0" * 5000 + "}"]
)
def test_a_damaged_progress_is_listed_as_such(tmp_path, content):
    (prepared(tmp_path) / "progress.json").write_text(content)
    (status,) = monitor.list_runs(tmp_path)
    assert status.line().endswith("damaged")
    (tmp_path / status.preset / status.name / "result.json").touch()
    (status,) = monitor.list_runs(tmp_path)
    assert status.line().endswith("finished")  # the result tells, whatever became of the progress


@pytest.mark.fault("NaN at step n")
@pytest.mark.parametrize("term", ["re", "kl", "diverse", "smooth"])
def test_nan_at_step_n_changes_nothing_and_is_named(digits, tmp_path, monkeypatch, term):
    honest, calls = MAE.__call__, []

    def poisoned(self, outputs, progress):
        terms = honest(self, outputs, progress)
        calls.append(1)
        if len(calls) != 3:
            return terms
        bad = terms.named()[term] * float("nan")
        parts = terms.penalties
        changed = {"penalties": {**parts, term: bad}} if term in parts else {term: bad}
        return replace(terms, **changed, loss=terms.loss + bad)

    monkeypatch.setattr(MAE, "__call__", poisoned)
    with pytest.raises(TrainingError, match=f"the term {term} is NaN .* at step 2; .*lower lr"):
        train(smoke(), digits, tmp_path, CPU)
    assert len(calls) == 5  # it was seen at the end of the epoch


@pytest.mark.fault("NaN at step n")
def test_a_bad_step_leaves_weights_average_and_moments_as_they_were(digits):
    c, images = smoke(), digits.train.first(100).images
    state = start(c, images, CPU)
    step = Step(state.model, c.objective, c.training, total=5)
    stream = batches(c, images, 0, 5)

    def everything():
        parts = [state.model.state_dict(), *moments(state.optimizer).values()]
        return [value.clone() for part in parts for value in part.values()]

    train_step(state, step, *next(stream))
    before = everything()
    x, eps = next(stream)
    train_step(state, step, x * float("inf"), eps)
    assert all(a.equal(b) for a, b in zip(before, everything(), strict=True))
    assert all(p.isfinite().all() for p in state.averaged.parameters())
    with pytest.raises(TrainingError, match="at step 1"):
        state.totals.require_finite()


@pytest.mark.fault("NaN at step n")
def test_nothing_is_saved_after_a_bad_step(digits, tmp_path):
    state = start(smoke(), digits.train.first(100).images, CPU)
    state.totals.first_bad[-1] = 4.0
    with pytest.raises(TrainingError, match="the gradient is NaN or infinite at step 4"):
        save(state, tmp_path)
    assert names(tmp_path) == []


@pytest.mark.fault("out of memory")
@pytest.mark.parametrize(
    "problem",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 1 byte"),
        MemoryError(),
    ],
)
@pytest.mark.parametrize("target", [(loop, "train_step"), (running, "measure")])
def test_out_of_memory_proposes_what_to_lower(tmp_path, monkeypatch, problem, target):
    def fail(*_, **__):
        raise problem

    monkeypatch.setattr(*target, fail)
    with pytest.raises(TrainingError, match=r"out of memory.*batch_size \(20\).*device cpu"):
        run(smoke(), out_dir=tmp_path, log=silent)


@pytest.mark.fault("out of memory")
def test_out_of_memory_in_a_command_is_one_sentence(monkeypatch, capsys):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(commands, "run", fail)
    assert cli.main(["data", "digits"]) == 2
    said = capsys.readouterr().err
    assert said == "maelib: error: out of memory; use --device cpu, or give fewer images.\n"


@pytest.mark.fault("out of memory")
def test_other_errors_are_not_called_out_of_memory():
    with pytest.raises(RuntimeError, match="shapes differ"), running.explain_oom(smoke()):
        raise RuntimeError("shapes differ")


@pytest.mark.fault("Ctrl-C, SIGTERM, time is up")
def test_interrupting_a_notebook_saves_and_keeps_what_is_finished(tmp_path, monkeypatch):
    finished, _, _ = run(smoke(seed=1), out_dir=tmp_path, log=silent)

    def interrupt(state, *rest, honest=loop.train_step):
        if state.progress.step == 2:
            signal.raise_signal(signal.SIGINT)
        return honest(state, *rest)

    monkeypatch.setattr(loop, "train_step", interrupt)
    with pytest.raises(Interrupted, match="stopped at step 3 of 5"):
        run(smoke(), out_dir=tmp_path, log=silent)
    monkeypatch.undo()
    assert records.collect(tmp_path) == [finished]
    record, _, _ = run(smoke(), out_dir=tmp_path, log=silent)
    fresh, _, _ = run(smoke(), out_dir=tmp_path / "fresh", log=silent)
    assert record.measurements == fresh.measurements


def test_no_state_file_of_the_published_model_exceeds_16_mib(tmp_path):
    c = config.resolve("paper", "mnist")
    model = build(c.network)
    optimizer = adam(model, c.training)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    totals = RunningTotals.on(CPU, curves(c.objective), [])
    save(State(model, model, model, optimizer, Progress(), totals), tmp_path)
    sizes = {path.name: path.stat().st_size for path in tmp_path.rglob("*.safetensors")}
    assert set(sizes) == {
        f"{name}.safetensors"
        for name in ("weights", "averaged", "best", "adam-step", "adam-exp_avg", "adam-exp_avg_sq")
    }
    assert max(sizes.values()) < 16 * 2**20


def test_checkpoints_of_another_version_are_named(digits, tmp_path):
    checkpoints.save(tmp_path / "checkpoints", 1, {"weights": {}}, {"steps": 1})
    said = pytest.warns(UserWarning, match="step-00000001 is not an intact checkpoint")
    with said, pytest.raises(ValueError, match="of another version of maelib; delete"):
        train(smoke(), digits, tmp_path, CPU)


def test_runs_lists_progress_and_validation(tmp_path, capsys):
    record, _, _ = run(smoke(), out_dir=tmp_path, log=silent)
    folder = tmp_path / "smoke" / record.name
    assert json.loads((folder / "progress.json").read_text())["step"] == 5
    assert cli.main(["runs", "--out-dir", str(tmp_path)]) == 0
    line = capsys.readouterr().out
    best = min(row["val_elbo"] for row in record.history)
    assert f"{record.name}  finished  5 of 5 steps  best L_elbo {best:.2f}" in line


@pytest.mark.parametrize("part", ["mutants", "strikes"])
def test_no_damaged_file_and_no_strike_is_taken_for_something_else(part):
    script = Path(__file__).parents[1] / "benchmarks" / "soak.py"
    command = [sys.executable, script, "--scale", "0.02", "--only", part]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
