"""The SLURM profile on a real SLURM of one node: ``make test-cluster``, as root, on Debian.

It needs the packages slurm-wlm and munge. The runs are those of ``test_workflow``, slowed down.
"""

import os
import shutil
import signal
import subprocess
import time

import nbformat
import pytest
from test_workflow import ROOT, copied, finished, start, tables, without

__all__ = ["copied", "finished"]  # fixtures
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(shutil.which("slurmctld") is None, reason="no SLURM on this machine"),
]
SCRIPT = ROOT / "profiles" / "slurm" / "one_node.sh"
PROFILE = (
    "--profile", "profiles/slurm",
    "--slurm-init-seconds-before-status-checks", "2", "--seconds-between-status-checks", "2",
    "--set-threads", "run=1", "representations=2",  # as without a cluster
)  # fmt: skip


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The folder of a running cluster."""
    folder = tmp_path_factory.mktemp("slurm")
    subprocess.run([SCRIPT, "start", folder], check=True)
    yield folder
    subprocess.run([SCRIPT, "stop", folder], check=True)


def asked(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def wait_for(condition, seconds=180):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.5)


def steps(project):
    path = project / "steps"
    return path.read_text().splitlines() if path.exists() else []


def slow_down(project, seconds):
    """Every training step takes so many seconds longer."""
    path = project / "notebooks" / "04_mnist_mae.ipynb"
    book = nbformat.read(path, 4)
    pause = f"    __import__('time').sleep({seconds})\n    return honest"
    book.cells[1].source = book.cells[1].source.replace("    return honest", pause)
    nbformat.write(book, path)


def run_again(project, seconds):
    """Start the sweep with one run missing, slowed down, and wait for its second step."""
    shutil.rmtree(project / "runs" / "smoke" / without(project, "digits-vlae"))
    (project / "steps").unlink(missing_ok=True)
    slow_down(project, seconds)
    return lambda *more: start(project, *PROFILE, *more)


def check(project, process, before):
    """The sweep has ended well, no step but the one cut short was done twice, same tables."""
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    assert 3 < len(set(steps(project))) >= len(steps(project)) - 1
    assert tables(project) == before


def test_a_sweep_through_slurm_has_the_tables_of_a_local_one(cluster, copied):
    before = tables(copied)
    for folder in ("runs", "results"):
        shutil.rmtree(copied / folder / "smoke")
    said, _ = (process := start(copied, *PROFILE)).communicate(timeout=600)
    assert process.returncode == 0, said
    assert "submitted with SLURM jobid" in said
    assert tables(copied) == before


def test_a_cancelled_run_continues_in_its_retry(cluster, copied):
    before, begin = tables(copied), run_again(copied, 2)
    process = begin()
    wait_for(lambda: len(steps(copied)) >= 2)
    asked("scancel", asked("squeue", "-h", "-t", "running", "-o", "%A"))
    check(copied, process, before)


def test_a_run_out_of_time_continues_in_its_retry(cluster, copied):
    before, begin = tables(copied), run_again(copied, 20)
    check(copied, begin("--set-resources", "run:runtime=1"), before)


def test_a_run_continues_after_its_node_was_down(cluster, copied):
    before, begin = tables(copied), run_again(copied, 2)
    process = begin()
    wait_for(lambda: len(steps(copied)) >= 2)
    job = asked("squeue", "-h", "-t", "running", "-o", "%A")
    slurmd = int((cluster / "slurmd.pid").read_text())
    listed = [line.split()[0] for line in asked("scontrol", "listpids", job).splitlines()]
    for pid in [slurmd, *map(int, filter(str.isdigit, listed))]:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: asked("sinfo", "-h", "-o", "%T").startswith("down"))
    asked("slurmd")
    check(copied, process, before)
