"""The numbers the paper prints, as data (``paper_tables.yaml``)."""

from functools import cache
from pathlib import Path

from maelib.config import Config


@cache
def tables() -> dict:
    """Tables 1 to 4: for each a ``rows`` list of the values printed."""
    import yaml

    return yaml.safe_load(Path(__file__).with_name("paper_tables.yaml").read_text())


def table4_row(config: Config) -> dict | None:
    """The row of Table 4 with this objective, alpha and beta; None if the paper has none."""
    for row in tables()["table4"]["rows"]:
        if _describes(row, config):
            return row
    return None


def _describes(row: dict, config: Config) -> bool:
    if config.objective == "mae":
        return (row.get("alpha"), row.get("beta")) == (config.alpha, config.beta)
    if config.objective == "vae":
        return row["model"].startswith("ResNet")
    return row["model"].startswith("VLAE") and ("w. " in row["model"]) == (config.free_bits > 0)
