"""The committed outputs of the notebooks, made anew, and how long that took.

python docs/outputs.py notebooks/06_representations.ipynb

The kernel that ran a notebook says when, with which versions and on what. Each picture and table
carries this in its metadata, and the site prints it. A cell that is run again by other means loses
it, so what stands there is never that of an older run.

benchmarks/notebooks.json keeps the seconds of each notebook: ``running`` is what its cells took,
and ``training`` what the runs had taken that it found finished.
"""

import datetime
import json
import os
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from maelib.runs.record import collect

ROOT = Path(__file__).parents[1]
TIMES = ROOT / "benchmarks" / "notebooks.json"
ASK = """
import json, torch
from maelib.runs import record, run
made = record.provenance(run.pick_device(), 0)
made = {name: made[name] for name in ("python", "torch", "hardware")}
print(json.dumps(made | {"threads": torch.get_num_threads()}))
"""


def make(path: Path, times: Path = TIMES) -> None:
    """Execute a notebook in its folder, and write it with its outputs; an error writes nothing."""
    book, begun = nbformat.read(path, 4), time.monotonic()
    book.cells.append(nbformat.v4.new_code_cell(ASK))
    place = {"metadata": {"path": str(path.parent)}}
    how = {"kernel_name": "python3", "store_widget_state": False, "record_timing": False}
    NotebookClient(book, resources=place, **how).execute()
    running = round(time.monotonic() - begun, 1)
    made = json.loads(book.cells.pop().outputs[0].text)
    threads = made.pop("threads")
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    for output in outputs:
        if "metadata" in output:
            output.metadata["maelib"] = {"date": str(datetime.date.today()), **made}
    took = {"running": running, "training": training_seconds(outputs)}
    nbformat.write(book, path)
    kept = json.loads(times.read_text(encoding="utf-8")) if times.exists() else {}
    kept[path.stem] = took | {"threads": threads} | made
    times.write_text(json.dumps(dict(sorted(kept.items())), indent=1) + "\n", encoding="utf-8")


def training_seconds(outputs: list[dict]) -> float:
    """What the published runs took that a notebook says it found finished."""
    found = re.findall(r"finished run found: (\S+)", "".join(o.get("text", "") for o in outputs))
    seconds = {r.name: r.provenance["train_seconds"] for r in collect(ROOT / "results")}
    if missing := set(found) - seconds.keys():
        raise ValueError(f"{', '.join(sorted(missing))} is not in results/; publish it first.")
    return sum(seconds[name] for name in dict.fromkeys(found))


if __name__ == "__main__":
    os.environ.setdefault("TQDM_DISABLE", "1")  # a progress bar is no result
    for name in sys.argv[1:] or sys.exit("name the notebooks to run"):
        make(Path(name))
