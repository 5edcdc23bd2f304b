"""JupyterLab in a browser, as ``make lab`` opens it: notebooks run there to the end.

It takes minutes, so ``make test`` leaves it out; ``pytest -m slow`` runs it.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
SMALL = {"preset": '"smoke"', "dataset": '"digits"', "out_dir": '"runs"', "shipped": "False"}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab's address, and the folder of notebooks that it shows."""
    folder = tmp_path_factory.mktemp("lab")
    make = (ROOT / "Makefile").read_text()
    command = re.search(r"^lab:.*\n\t\$\(BIN\)/jupyter lab (.*)$", make, re.MULTILINE)[1]
    assert command == "--notebook-dir=notebooks"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [f"--notebook-dir={folder}", f"--port={port}", "--no-browser", "--allow-root"]
    options += ["--IdentityProvider.token=", "--LabApp.news_url="]
    environment = {key: value for key, value in os.environ.items() if key != "TQDM_DISABLE"}
    address = f"http://127.0.0.1:{port}"
    with (folder.parent / "lab.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options], env=environment, stdout=log, stderr=log
        )
        try:
            wait_until(lambda: answers(f"{address}/api/status"), 60)
            yield address, folder
        finally:
            server.terminate()
            server.wait(20)


def answers(address):
    """What the server answers to a GET; None while it does not."""
    try:
        with urllib.request.urlopen(address, timeout=10) as reply:
            return json.load(reply)
    except OSError:
        return None


def wait_until(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain"
        time.sleep(0.5)


def is_idle(address, name):
    """Whether the kernel of a notebook waits for a cell."""
    sessions = {session["name"]: session for session in answers(f"{address}/api/sessions")}
    return name in sessions and sessions[name]["kernel"]["execution_state"] == "idle"


def code_cells(path):
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


def without_outputs(stem, folder):
    """A copy of the notebook without outputs, at the smallest preset if it trains."""
    book = nbformat.read(ROOT / "notebooks" / f"{stem}.ipynb", 4)
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if "parameters" in cell.metadata.get("tags", []):
            for name, value in SMALL.items():
                cell.source = re.sub(
                    rf"^({name}\b.*=) .*$", rf"\1 {value}", cell.source, flags=re.M
                )
    nbformat.write(book, folder / f"{stem}.ipynb")


@pytest.mark.parametrize(
    "stem", ["00_start_here", "02_mutual_posterior_divergence", "04_mnist_mae"]
)
def test_notebook_runs_to_its_end_in_jupyterlab(stem, lab, chromium):
    address, folder = lab
    without_outputs(stem, folder)
    # JupyterLab draws only what is in view: the window holds the whole notebook.
    context = chromium.new_context(viewport={"width": 1280, "height": 12_000})
    page = context.new_page()
    page.goto(f"{address}/lab/tree/{stem}.ipynb?reset", timeout=120_000)
    page.wait_for_selector(".jp-NotebookPanel .jp-CodeCell", timeout=120_000)
    wait_until(lambda: is_idle(address, f"{stem}.ipynb"), 120)
    page.click("li.lm-MenuBar-item:has-text('Run')")
    page.click("li[data-command='runmenu:run-all']")
    if stem.startswith("04"):
        page.wait_for_selector(".jupyter-widgets .progress-bar, .widget-hprogress", timeout=300_000)
    code = code_cells(folder / f"{stem}.ipynb")
    done = "() => [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].filter"
    done += f"((p) => /\\[\\d+\\]/.test(p.textContent)).length >= {len(code)}"
    page.wait_for_function(done, timeout=600_000)
    page.keyboard.press("Control+s")
    path = folder / f"{stem}.ipynb"
    wait_until(lambda: all(cell.execution_count for cell in code_cells(path)), 60)
    outputs = [output for cell in code_cells(path) for output in cell.outputs]
    assert "error" not in {output.output_type for output in outputs}
    context.close()
