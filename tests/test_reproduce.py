"""What ``make reproduce`` has to do, and what it says while it is done."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from maelib import experiments
from maelib.workflow import plan, reproduce


def test_large_presets_run_all_of_the_list_for_which_there_is_data(no_data):
    runs = plan.runs("paper", "digits")
    expected = [e for e in experiments.PAPER if e.images != "omniglot"]
    assert len(runs) == len(expected)
    assert any("mae-a2-b1-s0" in name for name in runs)


@pytest.mark.parametrize("preset", ["laptop", "short"])
def test_rows_that_claims_are_about_are_trained_from_three_seeds(no_data, preset):
    names = [name for name in plan.runs(preset, "digits") if "-mae-a1-b0.5-s" in name]
    assert [name.split("-")[4] for name in names] == ["s0", "s1", "s2"]
    job = plan.run_job(experiments.MAE[1.0, 0.5], preset, "digits", seed=2)
    assert "-p seed 2 " in job.options


def test_the_zoo_is_run_on_request_with_three_seeds(no_data):
    jobs = plan.runs("laptop", "digits", "zoo")
    chosen = experiments.choose("laptop", "zoo")
    assert len(jobs) == 3 * len(chosen) > 3 * len(experiments.ZOO)
    assert {job.parameters.get("seed", 0) for job in jobs.values()} == {0, 1, 2}
    assert not set(jobs) & set(plan.runs("laptop", "digits"))


def test_runs_without_data_are_left_out_and_named(no_data, capsys):
    plan._read.cache_clear()
    stand_ins = {name.split("-")[0] for name in plan.runs("smoke", "digits")}
    assert stand_ins == {"digits", "photos"}
    assert "omniglot_lake's runs are left out" in capsys.readouterr().err


def test_a_job_is_written_as_papermill_options():
    job = plan.run_job(experiments.MAE[1.0, 0.5], "smoke", "digits")
    assert job.notebook == "04_mnist_mae"
    assert job.options == (
        "-p preset smoke -p dataset digits -p objective mae -p alpha 1.0 -p beta 0.5"
    )


def test_an_option_that_no_notebook_has_goes_through_more_and_data_sets_keep_their_own():
    options = {"alpha": 2.0, "kl_weight": 0.3}
    job = plan.run_job(experiments.Experiment("mnist", "beta-vae", options), "smoke", "digits")
    more = json.dumps({"more": {"kl_weight": 0.3}})
    assert shlex.split(job.options)[-4:] == ["-p", "alpha", "2.0", "-y", more][-4:]
    other = experiments.Experiment("fashion", "mae")
    assert plan.dataset_of(other, "mnist") == plan.dataset_of(other, "digits") == "fashion"


def test_notebook_06_waits_for_runs_but_trains_its_own_where_only_results_are(no_data, tmp_path):
    compared = [plan.run_name(e, "smoke", "digits") for e in plan.MODELS_OF_06]
    job, first = plan.representations("smoke", "digits", tmp_path)
    assert first == compared
    assert "out_dir" not in job.parameters
    name = plan.run_name(plan.MODELS_OF_06[0], "paper", "digits")
    result = tmp_path / "results" / "paper" / f"{name}.json"
    result.parent.mkdir(parents=True)
    result.touch()
    with pytest.warns(UserWarning, match="skipped"):
        job, first = plan.representations("paper", "digits", tmp_path)
    assert first == []
    assert job.parameters["preset"] == "quick"
    assert job.parameters["out_dir"] == "build/runs"


def test_a_second_make_reproduce_is_refused_in_one_sentence(tmp_path, monkeypatch, capsys):
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "maelib").mkdir()
    monkeypatch.chdir(tmp_path)
    with reproduce.workflow_lock(tmp_path):
        assert reproduce.main([]) == 2
    error = capsys.readouterr().err
    assert "another make reproduce is at work" in error
    assert len(error.splitlines()) == 1


def test_the_lock_lasts_as_long_as_a_process_that_was_given_it(tmp_path):
    waiting = [sys.executable, "-c", "input()"]
    with reproduce.workflow_lock(tmp_path) as handle:
        process = subprocess.Popen(waiting, stdin=subprocess.PIPE, pass_fds=(handle,))
    with process:
        with pytest.raises(OSError, match="another make"), reproduce.workflow_lock(tmp_path):
            pass
        process.kill()
    with reproduce.workflow_lock(tmp_path):
        pass


def test_the_log_of_what_failed_is_still_there_after_the_report(tmp_path, monkeypatch):
    fails = tmp_path / "python"
    fails.write_text('#!/bin/sh\necho "$@"\nexit 1\n')
    fails.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fails))
    assert reproduce._reproduce("smoke", "digits", "paper", [], tmp_path) == 1
    made, reported = (tmp_path / "build" / "reproduce.log").read_text().splitlines()
    assert made.startswith("-m snakemake --cores all")
    assert reported.startswith("-m snakemake report")


def test_a_damaged_result_that_no_run_makes_again_is_named_and_the_status_says_so(
    tmp_path, monkeypatch, capsys
):
    (noise := tmp_path / "results" / "smoke" / "noise.json").parent.mkdir(parents=True)
    monkeypatch.setattr(sys, "executable", "true")
    assert reproduce._reproduce("smoke", "digits", "paper", [], tmp_path) == 0
    noise.write_text("{")
    for preset in ("smoke", "quick"):  # whose tables show the results of smaller presets as well
        assert reproduce._reproduce(preset, "digits", "paper", [], tmp_path) == 1
        said = capsys.readouterr()
        assert said.err.count("missing: smoke/noise.json is not a maelib result") == 2
        assert f"preset {preset} is not complete" in said.out


def with_workflow(folder, script, stdout=subprocess.DEVNULL):
    """The command with a shell script in place of Snakemake, and the numbers that it wrote."""
    workflow = folder / "python"
    workflow.write_text(f"#!/bin/sh\n{script}")
    workflow.chmod(0o755)
    code = (
        "import sys, pathlib; from maelib.workflow import reproduce; sys.executable = sys.argv[1]\n"
        "sys.exit(reproduce._reproduce('smoke', 'digits', 'paper', [], pathlib.Path(sys.argv[2])))"
    )
    command = [sys.executable, "-c", code, str(workflow), str(folder)]
    process = subprocess.Popen(command, stdout=stdout)
    while not (folder / "numbers").exists() or not (folder / "numbers").read_text().strip():
        time.sleep(0.05)
    return process, map(int, (folder / "numbers").read_text().split())


@pytest.mark.fault("signals to make reproduce")
def test_a_second_signal_kills_what_the_first_one_did_not_end(tmp_path):
    stubborn = "trap '' TERM\nsleep 60 &\necho $! >numbers\nwhile :; do sleep 0.1; done"
    process, (job,) = with_workflow(tmp_path, stubborn)
    process.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    process.terminate()
    assert process.wait(30) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(job, 0)


@pytest.mark.fault("signals to make reproduce")
def test_a_closed_terminal_ends_all_jobs_and_nohup_none(tmp_path):
    script = "sleep 60 &\necho $! >numbers\nwait"
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the child inherits it
    process, (job,) = with_workflow(tmp_path, script)
    process.send_signal(signal.SIGHUP)
    assert process.wait(30) == 128 + signal.SIGHUP
    with pytest.raises(ProcessLookupError):
        os.kill(job, 0)
    (tmp_path / "numbers").unlink()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    process, (job,) = with_workflow(tmp_path, script)
    signal.signal(signal.SIGHUP, before)
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    process.terminate()
    assert process.wait(30) == 128 + signal.SIGTERM


@pytest.mark.fault("signals to make reproduce")
def test_no_job_outlives_a_reader_that_has_gone(tmp_path):
    script = "sleep 60 &\necho $! >numbers\necho 'Job 1: run x'\nwait"
    read, write = os.pipe()
    os.close(read)
    process, (job,) = with_workflow(tmp_path, script, stdout=write)
    assert process.wait(60) != 0
    with pytest.raises(ProcessLookupError):
        os.kill(job, 0)


@pytest.mark.fault("signals to make reproduce")
def test_no_job_outlives_a_workflow_that_is_killed(tmp_path):
    process, (workflow, job) = with_workflow(tmp_path, "sleep 60 &\necho $$ $! >numbers\nwait")
    os.kill(workflow, signal.SIGKILL)
    assert process.wait(30) == 128 + signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        os.kill(job, 0)


def test_a_damaged_data_set_fails_alone(monkeypatch, capsys):
    honest = plan.datasets.load

    def load(name, *rest):
        if name in ("auto", "mnist"):
            raise OSError("train-images is altered")
        return honest("digits", *rest) if name != "photos" else honest(name)

    monkeypatch.setattr(plan.datasets, "load", load)
    plan._read.cache_clear()
    assert plan.available("auto") == "mnist"
    targets = plan.targets("smoke", "mnist")
    assert "build/data/mnist.intact" in targets
    assert any(target.startswith("results/smoke/omniglot_lake") for target in targets)
    assert not any(target.startswith("results/smoke/mnist") for target in targets)
    assert "mnist's runs are left out: train-images is altered" in capsys.readouterr().err
    plan._read.cache_clear()


def test_caches_go_to_the_build_folder_where_home_cannot_be_written(tmp_path):
    command = ["make", "-f", Path(__file__).parents[1] / "Makefile", "-p", "help"]
    environment = os.environ | {"HOME": "/proc/none"}
    said = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert f"HOME := {tmp_path}/build/home" in said.stdout
    assert (tmp_path / "build" / "home").is_dir()


BEGUN = """\
Assuming unrestricted shared filesystem usage.
Job stats:
job          count
run              3
reproduce        1
total            4

[Thu Nov 26 13:00:00 2026]
Job 1: run digits-vae
[Thu Nov 26 13:00:00 2026]
Job 2: run digits-vlae
[Thu Nov 26 13:00:01 2026]
Finished jobid: 1 (Rule: run)
1 of 4 steps (25%) done
"""
FAILED = """\
[Thu Nov 26 13:00:02 2026]
Error in rule run:
    message: run digits-vlae
    jobid: 2
    output: results/smoke/digits-vlae.json
"""


@pytest.fixture
def board(tmp_path):
    return reproduce.Board(tmp_path)


def heard(board, text):
    return [words for line in text.splitlines() if (words := board.hear(line))]


def test_each_job_has_a_line_when_it_begins_and_when_it_ends(board):
    said = [words.split()[:4] for words in heard(board, BEGUN)]
    assert said == [
        ["0%", "begins", "run", "digits-vae"],
        ["0%", "begins", "run", "digits-vlae"],
        ["25%", "done", "run", "digits-vae"],
    ]


def test_a_failed_job_is_named_when_it_fails_and_at_the_end(board):
    heard(board, BEGUN)
    assert any("failed" in words and "digits-vlae" in words for words in heard(board, FAILED))
    heard(board, "Job 3: run digits-mae")
    assert board.unfinished() == ["digits-vlae", "digits-mae"]


def test_a_run_that_trains_counts_by_its_steps(board, tmp_path):
    folder = tmp_path / "digits-vlae"
    folder.mkdir()
    seen = {"step": 30, "total": 60, "best_elbo": 100.0, "seconds_left": 5.0}
    (folder / "progress.json").write_text(json.dumps(seen))
    heard(board, BEGUN)
    assert board.share() == pytest.approx((1 + 0.5) / 4)
    (line,) = board.trainings()
    assert "digits-vlae: step 30 of 60" in line
