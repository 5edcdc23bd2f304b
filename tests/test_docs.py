"""README.md and docs/: what is generated in them is what results/ and benchmarks/ say today."""

import importlib
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from maelib import config
from maelib.experiments import EVERYTHING
from maelib.measure import collapse
from maelib.report import paper
from maelib.runs import pretrained

ROOT = Path(__file__).parents[1]
GENERATED = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [ROOT / "CONTRIBUTING.md", *GENERATED]


def test_generated_tables_are_up_to_date():
    command = [sys.executable, "-m", "cogapp", "--check", "-I", "docs", "--verbosity=1"]
    checked = subprocess.run(
        [*command, *map(str, GENERATED)], cwd=ROOT, capture_output=True, text=True
    )
    assert checked.returncode == 0, f"{checked.stdout}{checked.stderr} run make docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_that_exist(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_readme_is_short_enough_to_be_read():
    assert len((ROOT / "README.md").read_text().split()) <= 1200


NUMBER = r"(?<![\w.,])-?\d[\d,]*(?:\.\d+|(?= (?:nats|%|per cent|bits|seconds|minutes|hours)))"
GENERATED_BLOCK = r"<!-- \[\[\[cog.*?\[\[\[end\]\]\] -->"
CODE = r"```.*?```|`[^`]*`|\]\([^)]*\)|Python [\d.]+ to [\d.]+"


def spoken(text):
    """The measured-looking numbers of a text outside code: decimals, and integers with a unit."""
    return re.findall(NUMBER, re.sub(CODE, " ", text, flags=re.S))


def written(content):
    """Every number in nested lists, dictionaries and texts, as text."""
    if isinstance(content, dict):
        content = list(content.values())
    if isinstance(content, (list, tuple)):
        return {n for part in content for n in written(part)}
    return set(re.findall(r"-?\d+(?:\.\d+)?", str(content).replace(",", "")))


def sources():
    """The numbers that need no measurement: the paper's, every option's, and two limits."""
    chosen = [
        config.resolve(preset, images, objective).describe()
        for preset in config.PRESETS
        for images, objectives in (("mnist", config.OBJECTIVES), ("cifar10", ("mae", "vlae")))
        for objective in objectives
    ]
    options = [experiment.options for experiment in EVERYTHING]
    return written([chosen, options, paper.tables(), collapse.ACTIVE, pretrained.TOLERANCE])


def unfounded(text, known):
    """The numbers of a text that none of the ``known`` gives, rounded as in the text."""
    values = {float(n) for n in known}
    return [
        n
        for n in spoken(text)
        if not any(round(v, len(n.partition(".")[2])) == float(n.replace(",", "")) for v in values)
    ]


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs" / "reproduction.md"])
def test_every_number_in_prose_is_in_a_generated_block_or_is_a_setting(page):
    text = page.read_text()
    blocks = re.findall(GENERATED_BLOCK, text, flags=re.S)
    prose = re.sub(GENERATED_BLOCK, "", text, flags=re.S)
    assert blocks
    assert unfounded(prose, sources() | written(blocks)) == []


@pytest.mark.parametrize("number", ["04", "05", "06", "07", "08"])
def test_every_number_in_a_notebook_s_prose_is_printed_by_it_or_is_a_setting(number):
    book = nbformat.read(next((ROOT / "notebooks").glob(f"{number}*.ipynb")), 4)
    prose = "\n".join(c.source for c in book.cells if c.cell_type == "markdown")
    prose, _, _ = prose.partition("## Exercises")  # whose numbers are made up
    outputs = [o for c in book.cells if c.cell_type == "code" for o in c.outputs]
    shown = [o.get("text") or o.get("data", {}).get("text/plain", "") for o in outputs]
    assert unfounded(prose, sources() | written(shown)) == []


def test_a_number_without_a_source_is_found():
    known = {"78.081", "0.5"}
    assert unfounded("NLL 78.08 at 0.5, `code 1.23`", known) == []
    assert unfounded("NLL 78.09, 14 nats, 1,234.5 and 3 images", known) == [
        "78.09",
        "14",
        "1,234.5",
    ]


def test_tables_are_of_the_fullest_preset_and_larger_ones_with_seeds_come_beside(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    reproduction = importlib.import_module("reproduction")

    def record(preset, label, seed):
        data = SimpleNamespace(name="mnist")
        config = SimpleNamespace(preset=preset, data=data, seed=seed, label=lambda: label)
        return SimpleNamespace(config=config)

    few = [record("laptop", name, 0) for name in "abc"] + [record("short", "a", 0)]
    more = [record("laptop", "a", 1), record("short", "a", 1), record("paper", "a", 0)]
    for found, base, larger in ((few, "laptop", []), (few + more, "laptop", ["short"])):
        monkeypatch.setattr(reproduction, "records", lambda found=found: found)
        assert (reproduction.chosen("mnist"), reproduction.larger("mnist")) == (base, larger)
    monkeypatch.setattr(reproduction, "records", list)
    assert (reproduction.chosen("mnist"), reproduction.larger("mnist")) == (None, [])


def test_the_published_networks_section_has_only_what_was_run():
    page = (ROOT / "docs" / "reproduction.md").read_text(encoding="utf-8")
    section = page.split("## The published networks")[1].split("\n## ")[0]
    assert "| holds" in section
    assert "not run" not in section
    assert "not enough runs" not in section
