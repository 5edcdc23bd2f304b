"""The folders of the project, its data and its runs, found from any working directory."""

import os
from pathlib import Path

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"  # the pretrained models


def project_root() -> Path:
    """The nearest folder at or above the current one that holds the project; else the current."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "pyproject.toml").is_file() and (folder / "maelib").is_dir():
            return folder
    return here


def resolved(path: str | Path) -> Path:
    """A path as a person wrote it: ``~`` is home, and a relative path starts at the project."""
    return project_root() / os.path.expanduser(path)


def data_roots() -> list[Path]:
    """The folders that are searched for data sets: $MAELIB_DATA, then data/ and ../shared/data."""
    named = [resolved(os.environ["MAELIB_DATA"])] if os.environ.get("MAELIB_DATA") else []
    bases = (project_root(), Path.cwd())
    near = [base / tail for base in bases for tail in ("data", "../shared/data")]
    return list(dict.fromkeys([*named, *near]))


def default_out_dir() -> Path:
    """The folder that holds the runs: $MAELIB_RUNS, else runs/ in the project."""
    return resolved(os.environ.get("MAELIB_RUNS") or "runs")
