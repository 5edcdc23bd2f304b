"""The numbers the paper prints, as data (``paper_tables.yaml``)."""

from functools import cache
from pathlib import Path


@cache
def tables() -> dict:
    """Tables 1 to 4: for each a ``rows`` list of the values printed."""
    import yaml

    path = Path(__file__).with_name("paper_tables.yaml")
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def row(table: str, identifier: str | None) -> dict | None:
    """The row of ``table`` with an ``id``; None if there is none."""
    rows = tables()[table]["rows"]
    return next((r for r in rows if identifier and r.get("id") == identifier), None)


def value(row: dict, measure: str) -> float | None:
    """What a row prints of a measure (``kmeans_10``: of k-means with K = 10); None if nothing."""
    kind, _, size = measure.partition("_")
    if not size:
        return row.get(measure)
    if kind not in row:
        return None
    sizes = [str(s) for s in tables()["table2"]["columns"][kind]]
    return row[kind][sizes.index(size)]
