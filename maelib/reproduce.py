"""``make reproduce``: run the notebooks headless, then write the tables and figures.

python -m maelib.reproduce --preset quick
"""

import argparse
import sys
import time
import warnings
from pathlib import Path

from maelib import data
from maelib.config import PRESETS
from maelib.experiments import Experiment, choose
from maelib.outputs import write_all
from maelib.paths import default_out_dir, project_root

LESSONS = ("00_start_here", "01_elbo", "02_mutual_posterior_divergence", "03_networks")
NOTEBOOKS = {"mnist": "04_mnist_mae", "forms": "04_mnist_mae", "omniglot": "05_omniglot_mae"}


def main(arguments: list[str] | None = None) -> int:
    """Run everything; 1 if a notebook failed (the others still ran), else 0."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--preset", default="quick", choices=tuple(PRESETS))
    options.add_argument("--dataset", default="auto", help="auto, mnist or digits")
    chosen = options.parse_args(arguments)
    dataset = data.load(chosen.dataset)
    print(dataset.describe(), flush=True)
    jobs = plan(chosen.preset, dataset.name)
    out = project_root() / "build" / chosen.preset
    counters = [f"[{i}/{len(jobs)}]" for i in range(1, len(jobs) + 1)]
    ran = [execute(*job, out, counter) for job, counter in zip(jobs, counters, strict=True)]
    failed = [label for (label, *_), fine in zip(jobs, ran, strict=True) if not fine]
    folder = write_all(chosen.preset, dataset.name, project_root(), default_out_dir())
    print(f"tables and figures are in {folder.relative_to(project_root())}/")
    for label in failed:
        print(f"failed: {label}; its output up to the error is in build/{chosen.preset}/")
    return int(bool(failed))


def plan(preset: str, dataset: str) -> list[tuple[str, str, dict]]:
    """What is run, in order: label, notebook, parameters."""
    shared = {"preset": preset, "dataset": dataset}
    lessons = [(name, name, {}) for name in LESSONS]
    models = [_job(experiment, preset, dataset) for experiment in choose(preset)]
    last = [(name, name, shared) for name in ("06_representations", "08_tables_and_figures")]
    return [*lessons, *models, *last]


def _job(experiment: Experiment, preset: str, dataset: str) -> tuple[str, str, dict]:
    name = "omniglot_lake" if experiment.table == "omniglot" else dataset
    label = experiment.config(preset, name).label()
    parameters = {"preset": preset, "dataset": name, **experiment.settings}
    return f"{name}-{label}", NOTEBOOKS[experiment.table], parameters


def execute(label: str, notebook: str, parameters: dict, out: Path, counter: str) -> bool:
    """Run one notebook; its executed copy goes to ``out``. Whether it ran through."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    print(f"{counter} {label} ...", flush=True)
    source = project_root() / "notebooks" / f"{notebook}.ipynb"
    out.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    try:
        with warnings.catch_warnings():
            # papermill warns that a notebook without parameters was given none.
            warnings.simplefilter("ignore")
            papermill.execute_notebook(
                source, out / f"{label}.ipynb", parameters, cwd=source.parent,
                progress_bar=sys.stderr.isatty(), kernel_name="python3",
                extra_arguments=["--log-level=40"],
            )  # fmt: skip
    except PapermillExecutionError as problem:
        print(f"{counter} {label} failed: {problem.ename}: {problem.evalue}", flush=True)
        return False
    print(f"{counter} {label} done in {time.monotonic() - begun:.0f} s", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
