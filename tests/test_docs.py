"""README.md and docs/: what is generated in them is what results/ and benchmarks/ say today."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

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
