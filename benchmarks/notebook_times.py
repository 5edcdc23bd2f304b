"""How long the notebooks take, from copies that papermill has executed, to notebooks.json.

papermill notebooks/01_elbo.ipynb build/executed/01_elbo.ipynb
python benchmarks/notebook_times.py --threads 1 build/executed/*.ipynb

Notebooks that are not named keep their times. ``running`` is what papermill's run took, and
``training`` what the runs took that the notebook found finished; both are in seconds.
"""

import argparse
import json
import re
from pathlib import Path

import nbformat
import torch

from maelib.runs.record import collect, provenance

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "benchmarks" / "notebooks.json"


def times(book: nbformat.NotebookNode) -> dict[str, float]:
    """Seconds of an executed notebook; ValueError if it is no copy that papermill has executed."""
    if (running := book.metadata.get("papermill", {}).get("duration")) is None:
        raise ValueError("the notebook has no duration; name copies that papermill has executed.")
    outputs = [o for cell in book.cells for o in cell.get("outputs", [])]
    found = re.findall(r"finished run found: (\S+)", "".join(o.get("text", "") for o in outputs))
    seconds = {r.name: r.provenance["train_seconds"] for r in collect(ROOT / "results")}
    return {"running": round(running, 1), "training": sum(seconds[name] for name in found)}


def main() -> None:
    """Add the times of the notebooks of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, required=True, help="threads of each notebook")
    parser.add_argument("notebooks", nargs="+", type=Path, help="executed copies")
    chosen = parser.parse_args()
    about = provenance(torch.device("cpu"), 0.0)
    about = {"threads": chosen.threads, "hardware": about["hardware"], "torch": about["torch"]}
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    new = {path.stem: times(nbformat.read(path, 4)) | about for path in chosen.notebooks}
    KEPT.write_text(json.dumps(dict(sorted((kept | new).items())), indent=1) + "\n")


if __name__ == "__main__":
    main()
