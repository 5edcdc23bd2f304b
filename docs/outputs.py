"""The committed outputs of the notebooks, made anew.

python docs/outputs.py notebooks/06_representations.ipynb

The kernel that ran a notebook says when, with which versions and on what. Each picture and table
carries this in its metadata, and the site prints it. A cell that is run again by other means loses
it, so what stands there is never that of an older run.
"""

import json
import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ASK = """
import datetime, json
from maelib.runs import record, run
made = record.provenance(run.pick_device(), 0)
made = {name: made[name] for name in ("python", "torch", "hardware")}
print(json.dumps({"date": str(datetime.date.today()), **made}))
"""


def make(path: Path) -> None:
    """Execute a notebook in its folder, and write it with its outputs; an error writes nothing."""
    book = nbformat.read(path, 4)
    book.cells.append(nbformat.v4.new_code_cell(ASK))
    place = {"metadata": {"path": str(path.parent)}}
    how = {"kernel_name": "python3", "store_widget_state": False, "record_timing": False}
    NotebookClient(book, resources=place, **how).execute()
    made = json.loads(book.cells.pop().outputs[0].text)
    for output in [o for cell in book.cells for o in cell.get("outputs", []) if "metadata" in o]:
        output.metadata["maelib"] = made
    nbformat.write(book, path)


if __name__ == "__main__":
    os.environ.setdefault("TQDM_DISABLE", "1")  # a progress bar is no result
    for name in sys.argv[1:] or sys.exit("name the notebooks to run"):
        make(Path(name))
