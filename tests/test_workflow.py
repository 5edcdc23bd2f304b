"""The Snakefile, with real runs at ``smoke`` in notebooks cut down to what trains."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from maelib.workflow.plan import TUTORIALS

ROOT = Path(__file__).parents[1]
SMOKE = ["--preset", "smoke", "--dataset", "digits"]
REPRODUCE = [".venv/bin/python", "-m", "maelib.workflow.reproduce", *SMOKE]
TRAIN = """
import os
from maelib.config import resolve
from maelib.runs.run import run
from maelib.training import loop

def logged(state, *rest, honest=loop.train_step):
    with open("../steps", "a") as file:
        print(objective, state.progress.step, file=file)
    return honest(state, *rest)
loop.train_step = logged
assert not os.path.exists("../broken-" + objective)
chosen = resolve(preset, dataset, objective, alpha=alpha, beta=beta)
_ = run(chosen, checkpoint_minutes=0.0)
"""
WRITE = """
from maelib.internal.paths import default_out_dir, project_root
from maelib.report.build import write_all

_ = write_all(preset, dataset, project_root(), default_out_dir())
"""


def write_notebook(path, code=""):
    parameters = "preset = dataset = objective = out_dir = write = None; alpha, beta = 1.0, 0.5"
    cells = [nbformat.v4.new_code_cell(text) for text in (parameters, code)]
    cells[0].metadata.tags = ["parameters"]
    book = nbformat.v4.new_notebook(cells=cells)
    book.metadata.kernelspec = {"name": "python3", "display_name": "", "language": "python"}
    nbformat.write(book, path)


def make_project(folder):
    """A project whose tutorials have run, and which has this one's code and Snakefile."""
    (folder / "notebooks").mkdir(parents=True)
    for name in ("maelib", "Snakefile", "profiles", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").symlink_to(sys.prefix)
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        code = {"04": TRAIN, "07": TRAIN, "08": WRITE}.get(path.name[:2], "")
        write_notebook(folder / "notebooks" / path.name, code)
    for name in TUTORIALS:
        done = folder / "build" / "tutorials" / f"{name}.done"
        done.parent.mkdir(parents=True, exist_ok=True)
        done.touch()
    return folder


def environment():
    """That of a machine without data sets and network."""
    return os.environ | {
        "PYTHONPATH": str(ROOT), "MAELIB_OFFLINE": "1", "MAELIB_DATA": "/nowhere",
        "OMP_WAIT_POLICY": "passive",
    }  # fmt: skip


def start(folder, *more, **options):
    return subprocess.Popen(
        [*REPRODUCE, *(more or ("--cores", "2"))], cwd=folder, env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options,
    )  # fmt: skip


def reproduce(folder, *more):
    """The command's output and exit status."""
    with start(folder, *more) as process:
        try:
            said, _ = process.communicate(timeout=600)
        finally:
            process.terminate()  # it may be late
    return said, process.returncode


def tables(folder):
    """The rows of every table; captions name commits, and one may be made while tests run."""
    written = (folder / "figures" / "smoke" / "digits").glob("*.csv")
    return {path.name: path.read_text() for path in written}


def names(folder):
    return {path.stem for path in (folder / "results" / "smoke").glob("*.json")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = make_project(tmp_path_factory.mktemp("with space (1) & it's") / "project")
    said, status = reproduce(folder)
    assert status == 0, said
    assert "omniglot_lake's runs are left out: images_background.zip was not found" in said
    assert len(re.findall(r"\d+%  done +run (?:digits|photos)-", said)) == 5
    assert re.search(r"100%  done +tables and figures of preset smoke", said)
    assert len(names(folder)) == 5
    for weights in folder.glob("runs/smoke/photos-*/model.safetensors"):
        weights.unlink()  # Figure 4 is drawn once; pixel by pixel it takes its time
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "project", symlinks=True))


def without(folder, word):
    """Delete the result of the run with ``word`` in its name, and name that run."""
    path = next((folder / "results" / "smoke").glob(f"*{word}*.json"))
    path.unlink()
    return path.stem


@pytest.mark.parametrize("profile", ["", "slurm", "kubernetes"])
def test_fresh_clone_misses_the_deleted_result_alone_whatever_its_time_stamps(copied, profile):
    if profile:
        pytest.importorskip(f"snakemake_executor_plugin_{profile}")
    if profile == "kubernetes":
        pytest.importorskip("snakemake_storage_plugin_fs")
    for left in ("runs", "build", ".snakemake"):
        shutil.rmtree(copied / left)
    stamps = random.Random(0)
    for path in copied.rglob("*.*"):
        if not path.is_symlink():
            stamp = stamps.randrange(10**9, 10**9 + 10**8)
            os.utime(path, (stamp, stamp))
    deleted = without(copied, "digits-vlae")
    options = ["--profile", f"profiles/{profile}"] if profile else []
    if profile == "kubernetes":
        options += ["--default-storage-prefix", str(copied)]
    said, status = reproduce(copied, "-n", *options)
    assert status == 0, said
    assert re.findall(r"Job \d+: run (\S+)", said) == [deleted]
    assert len(re.findall(r"Job \d+: notebook", said)) == len([*TUTORIALS, "06"])


@pytest.mark.fault("garbage among results")
def test_a_truncated_result_is_named_and_made_again(copied):
    path = next((copied / "results" / "smoke").glob("*digits-vlae*"))
    path.write_text(path.read_text()[:1000])
    said, status = reproduce(copied, "-n")
    assert status == 0, said
    assert f"missing: smoke/{path.name} is not a maelib result" in said
    assert re.findall(r"Job \d+: run (\S+)", said) == [path.stem]
    assert path.exists()  # so far nothing is made


def to_command(process, number):
    process.send_signal(number)


def to_group(process, number):
    os.killpg(process.pid, number)


@pytest.mark.fault("signals to make reproduce")
@pytest.mark.parametrize(
    ("send", "number"), [(to_command, signal.SIGTERM), (to_group, signal.SIGINT)]
)
def test_a_signal_ends_all_and_the_next_command_continues(copied, finished, send, number):
    run = copied / "runs" / "smoke" / without(copied, "digits-vlae")
    other = copied / "runs" / "smoke" / without(copied, "digits-vae")
    for left in (run, other, copied / "figures"):
        shutil.rmtree(left)
    process = start(copied, "--cores", "1", start_new_session=True)
    while len(list(copied.glob("runs/smoke/digits-v*/lock"))) < 1:
        time.sleep(0.02)
    send(process, number)
    process.communicate(timeout=120)
    assert process.returncode == 128 + number
    # The run may have just ended, and another begun. That one is not trained to its end.
    assert len(list(copied.glob("runs/smoke/digits-v*/result.json"))) <= 1
    said, status = reproduce(copied)
    assert status == 0, said
    assert tables(copied) == tables(finished)


@pytest.mark.fault("signals to make reproduce")
def test_killed_and_started_again_gives_the_same_tables(copied, finished):
    run = copied / "runs" / "smoke" / without(copied, "digits-vlae")
    for left in (run, copied / "figures"):
        shutil.rmtree(left)
    (copied / "steps").unlink()
    process = start(copied, start_new_session=True)
    while not list(run.glob("checkpoints/step-*")) and process.poll() is None:
        time.sleep(0.02)
    time.sleep(random.uniform(0, 0.5))
    # The workflow is a group of its own, and so is each kernel: all of them die.
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in family:
        member.kill()
    process.communicate()
    psutil.wait_procs(family[1:], timeout=30)
    said, status = reproduce(copied)
    assert status == 0, said
    assert tables(copied) == tables(finished)
    trained = (copied / "steps").read_text().splitlines()
    assert len(trained) in (5, 6)  # of five steps at most one was cut and done again


def test_a_failed_run_stops_nothing_else_and_is_named_at_the_end(copied):
    broken, whole = without(copied, "digits-vae"), without(copied, "digits-vlae")
    (copied / "broken-vae").touch()
    shutil.rmtree(copied / "runs" / "smoke" / broken)
    shutil.rmtree(copied / "figures")
    said, status = reproduce(copied)
    assert status == 1
    assert whole in names(copied)
    assert f"not finished: {broken}" in said[-500:]
    assert (copied / "build" / "smoke" / f"{broken}.ipynb").exists()
    rows = tables(copied)["table4.csv"].splitlines()
    assert "not run" in next(row for row in rows if row.startswith("ResNet VAE"))
    assert "not run" not in next(row for row in rows if row.startswith("VLAE (w. free bits)"))


def test_a_cluster_executor_runs_the_same_file(copied):
    pytest.importorskip("snakemake_executor_plugin_cluster_generic")
    before = tables(copied)
    shutil.rmtree(copied / "runs" / "smoke" / without(copied, "digits-vlae"))
    said, status = reproduce(copied, "--profile", "profiles/local-submit")
    assert status == 0, said
    assert "Submitted job" in said
    assert tables(copied) == before
