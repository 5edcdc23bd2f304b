"""The nodes of the Snakefile: which notebooks run at a preset, and with which parameters."""

import json
import shlex
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from maelib.config import PRESETS
from maelib.data import AUTO, STAND_INS
from maelib.data import dataset as datasets
from maelib.experiments import MAE, VAE, VLAE, Experiment, choose, seeds
from maelib.internal.paths import default_out_dir
from maelib.runs.pretrained import find_pretrained

TUTORIALS = (
    "00_start_here",
    "01_elbo",
    "02_mutual_posterior_divergence",
    "03_networks",
    "09_linear_vaes",
    "10_remedies",
)
CHOICES = (AUTO, "mnist", STAND_INS["mnist"])  # what the paper's MNIST may be
MODELS_OF_06 = (VAE, VLAE, MAE[1.0, 0.5])


@dataclass(frozen=True)
class NotebookJob:
    """A notebook to execute headless, and the parameters it is given."""

    notebook: str
    parameters: dict = field(default_factory=dict)

    @property
    def options(self) -> str:
        """The parameters as papermill's command line takes them, quoted for a shell."""
        return " ".join(
            f"-y {shlex.quote(json.dumps({name: value}))}"
            if isinstance(value, dict)
            else f"-p {name} {shlex.quote(str(value))}"
            for name, value in self.parameters.items()
        )


def dataset_of(experiment: Experiment, dataset: str) -> str:
    """The data set of a run, where ``dataset`` is mnist or the stand-in of a machine without it."""
    names = {"mnist": dataset, "omniglot": "omniglot_lake", "cifar10": "cifar10"}
    if dataset == STAND_INS["mnist"]:
        names["cifar10"] = STAND_INS["cifar10"]
    return names.get(experiment.images, experiment.images)


def runs(preset: str, dataset: str, group: str = "paper") -> dict[str, NotebookJob]:
    """Every run of a preset by its name, which holds its key; runs without data are left out.

    ValueError for a preset or data set that is not known.
    """
    named = {
        run_name(e, preset, dataset, seed): run_job(e, preset, dataset, seed)
        for e in choose(preset, group)
        for seed in seeds(e, preset)
    }
    return {name: job for name, job in named.items() if name is not None}


def run_job(experiment: Experiment, preset: str, dataset: str, seed: int = 0) -> NotebookJob:
    """The notebook that trains and measures a run."""
    parameters = {"preset": preset, "dataset": dataset_of(experiment, dataset)}
    parameters |= {"seed": seed} if seed else {}
    return NotebookJob(experiment.notebook, parameters | experiment.parameters)


def run_name(experiment: Experiment, preset: str, dataset: str, seed: int = 0) -> str | None:
    """The run's name; None if its data set is not available."""
    chosen = dataset_of(experiment, dataset)
    config = experiment.config(preset, chosen, seed)
    digest, _ = _read(chosen)
    return None if digest is None else config.name(digest)


def available(dataset: str) -> str:
    """The data set behind ``auto``, even if it is damaged; any other name stays."""
    try:
        return datasets.load(dataset).name
    except (OSError, ValueError):
        return "mnist" if dataset == AUTO else dataset


def damaged_data(preset: str, dataset: str, group: str = "paper") -> list[str]:
    """The data sets of a preset's runs that are there and cannot be read."""
    names = {dataset_of(experiment, dataset) for experiment in choose(preset, group)}
    return sorted(name for name in names if _read(name)[1])


@cache
def _read(dataset: str) -> tuple[str | None, bool]:
    """A data set's digest, None if it cannot be read, and whether that is because of damage."""
    try:
        return datasets.load(dataset).digest, False
    except (OSError, ValueError) as problem:
        print(f"{dataset}'s runs are left out: {problem}", file=sys.stderr, flush=True)
        return None, not isinstance(problem, FileNotFoundError)


def representations(preset: str, dataset: str, root: Path) -> tuple[NotebookJob, list[str]]:
    """Notebook 06 and the runs it waits for.

    It needs weights, of which few are committed: where results came without them, it trains three
    models of its own, no larger than ``quick``, beside the executed notebooks.
    """
    names = [run_name(experiment, preset, dataset) for experiment in MODELS_OF_06]
    published, trained = root / "results" / preset, default_out_dir() / preset
    at_hand = None not in names and all(
        (trained / name / "model.safetensors").exists()
        or not (published / f"{name}.json").exists()
        or find_pretrained(name, preset, root) is not None
        for name in names
    )
    parameters = {"preset": preset, "dataset": dataset}
    if not at_hand:
        smaller = min(preset, "quick", key=list(PRESETS).index)
        parameters |= {"preset": smaller, "out_dir": "build/runs"}
    return NotebookJob("06_representations", parameters), names if at_hand else []


def targets(preset: str, dataset: str, group: str = "paper") -> list[str]:
    """The files that exist when everything has run. Snakemake makes those that are missing.

    A run has its result, and a tutorial an empty file beside its executed copy. A damaged data set
    has one that is never made, so that the command fails after all else is done.
    """
    return [
        *(f"build/data/{name}.intact" for name in damaged_data(preset, dataset, group)),
        *(f"build/tutorials/{name}.done" for name in TUTORIALS),
        *(f"results/{preset}/{name}.json" for name in runs(preset, dataset, group)),
        f"build/{preset}/{dataset}-06_representations.done",
    ]
