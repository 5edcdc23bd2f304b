import subprocess
import sys

import pytest

from maelib import experiments, reproduce, workflow


def test_small_presets_run_a_part_of_the_list_and_large_ones_all_of_it(no_data):
    assert experiments.choose("quick") == experiments.TELLING
    runs = workflow.plan("paper", "digits")
    expected = [e for e in experiments.EVERYTHING if e.table != "omniglot"]
    assert len(runs) == len(expected)
    assert any("mae-a2-b1-tempered" in name for name in runs)


def test_runs_without_data_are_left_out_and_named(no_data, capsys):
    workflow._digest.cache_clear()
    stand_ins = {name.split("-")[0] for name in workflow.plan("smoke", "digits")}
    assert stand_ins == {"digits", "photos"}
    assert "omniglot_lake's runs are left out" in capsys.readouterr().err


def test_a_job_is_written_as_papermill_options():
    job = workflow.run_job(experiments.TELLING[2], "smoke", "digits")
    assert job.notebook == "04_mnist_mae"
    assert job.options.startswith("-p preset smoke -p dataset digits -p objective mae -p alpha 1.0")


def test_notebook_06_waits_for_runs_but_trains_its_own_where_only_results_are(no_data, tmp_path):
    job, first = workflow.representations("smoke", "digits", tmp_path)
    assert first == workflow.examples("smoke", "digits")
    assert "out_dir" not in job.parameters
    result = tmp_path / "results" / "paper" / f"{workflow.examples('paper', 'digits')[0]}.json"
    result.parent.mkdir(parents=True)
    result.touch()
    job, first = workflow.representations("paper", "digits", tmp_path)
    assert first == []
    assert job.parameters["preset"] == "quick"
    assert job.parameters["out_dir"] == "../build/runs"


@pytest.fixture
def locked(tmp_path):
    lock = tmp_path / ".snakemake" / "locks" / "0.output.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    return lock


def test_a_dead_snakemake_s_lock_is_removed(locked, tmp_path):
    reproduce.unlock(tmp_path)
    assert not locked.exists()


def test_a_living_snakemake_s_lock_stays(locked, tmp_path):
    waiting = [sys.executable, "-c", "import time; time.sleep(60)", "snakemake"]
    with subprocess.Popen(waiting, cwd=tmp_path) as process:
        reproduce.unlock(tmp_path)
        process.kill()
    assert locked.exists()


def test_a_second_make_reproduce_is_refused_in_one_sentence(tmp_path, monkeypatch, capsys):
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "maelib").mkdir()
    monkeypatch.chdir(tmp_path)
    with reproduce.sole(tmp_path):
        assert reproduce.main([]) == 2
    assert "another make reproduce is at work" in capsys.readouterr().err
