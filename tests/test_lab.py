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
# Every cell is drawn, in view or not.
SETTINGS = {"@jupyterlab/notebook-extension/tracker.jupyterlab-settings": {"windowingMode": "none"}}
SECONDS = 3600  # a busy machine is slow, not wrong
# What the menu's "Run All Cells" does, then "Save"; the number of progress bars that were seen.
RUN_ALL = """async (seconds) => {
  const panel = jupyterapp.shell.currentWidget;
  await panel.context.ready;
  await panel.sessionContext.ready;
  const bars = new Set();
  const look = () => document.querySelectorAll(".widget-hprogress").forEach((bar) => bars.add(bar));
  new MutationObserver(look).observe(document.body, { childList: true, subtree: true });
  await Promise.race([
    jupyterapp.commands.execute("notebook:run-all-cells"),
    new Promise((done) => setTimeout(done, 1000 * seconds)),
  ]);
  await panel.context.save();
  return bars.size;
}"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab's address, and the folder of notebooks that it shows."""
    folder, settings = tmp_path_factory.mktemp("lab"), tmp_path_factory.mktemp("settings")
    make = (ROOT / "Makefile").read_text()
    assert "$(BIN)/jupyter lab --notebook-dir=notebooks\n" in make
    for name, values in SETTINGS.items():
        (settings / name).parent.mkdir(parents=True)
        (settings / name).write_text(json.dumps(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [f"--notebook-dir={folder}", f"--port={port}", "--no-browser", "--allow-root"]
    options += ["--IdentityProvider.token=", "--LabApp.news_url="]
    options += ["--LabApp.expose_app_in_browser=True"]
    environment = {key: value for key, value in os.environ.items() if key != "TQDM_DISABLE"}
    environment |= {
        f"JUPYTER{part}_DIR": str(settings)
        for part in ("_CONFIG", "LAB_SETTINGS", "LAB_WORKSPACES")
    }
    address = f"http://127.0.0.1:{port}"
    with (folder.parent / "lab.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options], env=environment, stdout=log, stderr=log
        )
        try:
            wait_until_it_answers(f"{address}/api/status", SECONDS)
            yield address, folder
        finally:
            server.terminate()
            server.wait(120)


def wait_until_it_answers(address, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            return urllib.request.urlopen(address, timeout=10).close()
        except OSError:
            time.sleep(0.5)
    raise TimeoutError(f"{address} did not answer for {seconds} s")


def without_outputs(stem):
    """The notebook without outputs, at the smallest preset if it trains."""
    book = nbformat.read(ROOT / "notebooks" / f"{stem}.ipynb", 4)
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if "parameters" in cell.metadata.get("tags", []):
            for name, value in SMALL.items():
                cell.source = re.sub(
                    rf"^({name}\b.*=) .*$", rf"\1 {value}", cell.source, flags=re.M
                )
    return book


def run_to_the_end(book, stem, lab, chromium):
    """The page of JupyterLab in which a notebook has run, and the progress bars that it showed."""
    address, folder = lab
    path = folder / f"{stem}.ipynb"
    nbformat.write(book, path)
    page = chromium.new_page()
    page.set_default_timeout(1000 * SECONDS)
    page.goto(f"{address}/lab/tree/{stem}.ipynb?reset")
    page.wait_for_function("Boolean(window.jupyterapp?.shell.currentWidget?.context)")
    bars = page.evaluate(RUN_ALL, SECONDS)
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    assert [output for output in outputs if output.output_type == "error"] == []
    assert all(cell.execution_count for cell in cells)
    return page, bars


@pytest.mark.parametrize(
    "stem", ["00_start_here", "02_mutual_posterior_divergence", "04_mnist_mae"]
)
def test_notebook_runs_to_its_end_in_jupyterlab(stem, lab, chromium):
    page, bars = run_to_the_end(without_outputs(stem), stem, lab, chromium)
    page.close()
    assert bars or not stem.startswith("04")


def test_explorer_works_in_jupyterlab(lab, chromium):
    book = without_outputs("06_representations")
    needed = ("dataset: str", "found = {", "explorer.widget({")
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    book.cells = [cell for cell in code if any(text in cell.source for text in needed)]
    page, _ = run_to_the_end(book, "explorer", lab, chromium)
    frame = page.wait_for_selector("iframe[title=Explorer]").content_frame()
    frame.wait_for_function("Boolean(window.explorer)")
    frame.evaluate("explorer.ready")
    assert frame.text_content("#explorer-status") == "Ready."
    frame.click("#ex-swap")
    frame.wait_for_function("document.querySelector('.ex-changes').textContent !== '–'")
    page.close()
