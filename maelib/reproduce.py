"""``make reproduce``: run the notebooks headless, then write the tables and figures.

python -m maelib.reproduce --preset quick
"""

import argparse
import sys
import time
import warnings
from pathlib import Path

from maelib import data, results
from maelib.config import PRESETS, resolve
from maelib.paths import default_out_dir, project_root
from maelib.runs import load_model, pick_device

LESSONS = ("00_start_here", "01_elbo", "02_mutual_posterior_divergence", "03_networks")
MODELS = ({"objective": "vae"}, {"objective": "vlae"}, {"objective": "mae"})


def main(arguments: list[str] | None = None) -> int:
    """Run everything; 1 if a notebook failed (the others still ran), else 0."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--preset", default="quick", choices=tuple(PRESETS))
    options.add_argument("--dataset", default="auto", choices=data.DATASETS)
    chosen = options.parse_args(arguments)
    dataset = data.load(chosen.dataset)
    print(dataset.describe(), flush=True)
    shared = {"preset": chosen.preset, "dataset": dataset.name}
    jobs = [(name, {}) for name in LESSONS]
    jobs += [("04_mnist_mae", {**shared, **model}) for model in MODELS]
    out = project_root() / "build" / chosen.preset
    counters = [f"[{i}/{len(jobs)}]" for i in range(1, len(jobs) + 1)]
    ran = [execute(*job, out, counter) for job, counter in zip(jobs, counters, strict=True)]
    failed = [name for (name, _), fine in zip(jobs, ran, strict=True) if not fine]
    write_outputs(chosen.preset, dataset)
    for name in failed:
        print(f"failed: {name}; its output up to the error is in build/{chosen.preset}/")
    return int(bool(failed))


def execute(name: str, parameters: dict, out: Path, counter: str) -> bool:
    """Run one notebook; its executed copy goes to ``out``. Whether it ran through."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    label = "-".join([name, *([parameters["objective"]] if parameters else [])])
    print(f"{counter} {label} ...", flush=True)
    source = project_root() / "notebooks" / f"{name}.ipynb"
    out.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    try:
        with warnings.catch_warnings():
            # papermill warns that a notebook without parameters was given none.
            warnings.simplefilter("ignore")
            papermill.execute_notebook(
                source, out / f"{label}.ipynb", parameters, cwd=source.parent,
                progress_bar=sys.stderr.isatty(), kernel_name="python3",
            )  # fmt: skip
    except PapermillExecutionError as problem:
        print(f"{counter} {label} failed: {problem.ename}: {problem.evalue}", flush=True)
        return False
    print(f"{counter} {label} done in {time.monotonic() - begun:.0f} s", flush=True)
    return True


def write_outputs(preset: str, dataset: data.Dataset) -> None:
    """Table 4 and Figures 2 and 3 of one preset and data set, from the runs there are."""
    from maelib import figures, tables

    root = project_root()
    everything = results.collect(root / "results", default_out_dir())
    records = [
        r for r in everything if (r.config.preset, r.config.dataset) == (preset, dataset.name)
    ]
    folder = root / "figures" / preset / dataset.name
    tables.write(tables.table4(records), tables.caption(records), folder / "table4")
    configs = [resolve(preset, dataset.name, **model) for model in MODELS]
    names = {config.objective: config.name(dataset.digest) for config in configs}
    runs = {objective: default_out_dir() / preset / name for objective, name in names.items()}
    if all((run / "model.safetensors").exists() for run in runs.values()):
        models = {name: load_model(run, pick_device()) for name, run in runs.items()}
        triplets = figures.figure2(models["mae"], models["vlae"], dataset, preset)
        figures.save(triplets, folder / "figure2")
        figures.save(figures.figure3(models["mae"], dataset, preset), folder / "figure3")
    print(f"tables and figures are in {folder.relative_to(root)}/")


if __name__ == "__main__":
    sys.exit(main())
