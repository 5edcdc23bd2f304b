"""The site: it builds without a warning, and holds what a reader is promised."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
REPOSITORY = "https://github.com/someone/maelib"


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The folder of the built site."""
    out = tmp_path_factory.mktemp("book")
    built = subprocess.run(
        [sys.executable, "book/build.py", "--out", str(out), "--repository", REPOSITORY],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    return out / "site"


def read(path):
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("stem", NOTEBOOKS)
def test_notebook_page_says_where_it_runs_and_what_made_its_outputs(site, stem):
    page = read(site / "notebooks" / f"{stem}.html")
    assert f"lab/tree/{stem}.ipynb" in page
    assert f"colab.research.google.com/github/someone/maelib/blob/main/notebooks/{stem}" in page
    assert re.search(rf'href="\.\./_downloads/\w+/{stem}\.ipynb"', page)
    assert re.search(r"committed on \d{4}-\d\d-\d\d", page) or not (ROOT / ".git").exists()


@pytest.mark.parametrize("number", range(1, 11))
def test_equation_can_be_linked(site, number):
    pages = [read(site / "notebooks" / f"{stem}.html") for stem in NOTEBOOKS]
    assert sum(f'id="eq-{number}"' in page and f"\\tag{{{number}}}" in page for page in pages) == 1


def test_theorem_exercises_and_sources_are_those_of_a_book(site):
    lesson = read(site / "notebooks" / "02_mutual_posterior_divergence.html")
    assert "proof theorem" in lesson
    assert re.search(r'class="[^"]*dropdown[^"]*solution|class="solution[^"]*dropdown', lesson)
    networks = read(site / "notebooks" / "03_networks.html")
    assert "Germain <em>et al.</em>" in networks
    assert 'href="../notebooks/02' in read(site / "pages" / "exercises.html")


def test_every_public_module_has_its_page(site):
    modules = {path.relative_to(ROOT) for path in (ROOT / "maelib").rglob("[!_]*.py")}
    names = {".".join(path.with_suffix("").parts) for path in modules}
    names = {name for name in names if ".internal" not in name}
    assert names <= {page.stem for page in (site / "api").glob("*.html")}


def test_pages_load_nothing_from_another_host(site):
    loaded = re.compile(r'<(?:script|img|link|iframe|source)\b[^>]*\b(?:src|href)="(https?:[^"]+)')
    found = {page.name: loaded.findall(read(page)) for page in site.rglob("*.html")}
    assert {name: links for name, links in found.items() if links} == {}
