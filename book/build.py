"""The site: ``python book/build.py`` writes build/book/site from notebooks/, docs/ and this folder.

The pages are first gathered in build/book/source, in the layout of the repository, so that links
between them stay as they are. What Jupyter shows in one way and a book in another (citations,
theorems, exercises) is rewritten there. A warning of Sphinx is an error.
"""

import argparse
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import rewrite
from sphinx.cmd.build import main as sphinx

import maelib
from maelib.data import dataset
from maelib.report import explorer
from maelib.runs import pretrained

HERE = Path(__file__).parent
ROOT = HERE.parent
# The order of the contents; a page stands under the first pattern that fits it.
PARTS = {
    "The course": ["notebooks/00_*", "docs/teaching", "pages/explorer"],
    "Lessons": ["notebooks/*", "pages/exercises"],
    "Results": ["docs/reproduction", "docs/zoo*", "docs/benchmarks"],
    "Guides": ["docs/data", "docs/clusters", "docs/reliability", "CONTRIBUTING", "docs/*"],
    "Reference": ["api/index", "pages/glossary", "pages/bibliography"],
}
EXPLORED = {"MAE": "mnist-mae-a1-b0.5", "VLAE": "mnist-vlae", "ResNet VAE": "mnist-vae"}


def main() -> int:
    """Build the site; the exit status of Sphinx."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "book")
    parser.add_argument("--repository", default=origin(), help="its address; default: origin's")
    parser.add_argument("--builder", default="html", help="html, or linkcheck for links elsewhere")
    given = parser.parse_args()
    source, site, trees = (given.out / part for part in ("source", "site", "doctrees"))
    stage(source, given.repository)
    found = {name: pretrained.find(stem) for name, stem in EXPLORED.items()}
    models = {name: (each.config, each.load()) for name, each in found.items()}
    explorer.write(source / "static" / "explorer", models, dataset.load("auto", download=False))
    os.environ["MAELIB_REPOSITORY"] = given.repository  # for conf.py
    how = ["-q", "-W", "--keep-going", "-b", given.builder, "-c", str(HERE), "-d", str(trees)]
    status = sphinx([*how, str(source), str(site)])
    if status:
        shutil.rmtree(trees)  # the next build is to warn again, also of pages that did not change
    return status


def stage(source: Path, repository: str) -> None:
    """Fill ``source`` with the pages, and with the files that they show or link to."""
    pages: dict[str, str] = {}
    books = {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        book = books[path.stem] = nbformat.read(path, 4)
        rewrite.notebook(book, path.stem, run_line(path, book, repository))
        pages[f"notebooks/{path.name}"] = nbformat.writes(book)
        copy(path, source / "download" / path.name)
    for path in [ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        pages[str(path.relative_to(ROOT))] = rewrite.prose(path.read_text(encoding="utf-8"))
    for path in (HERE / "pages").glob("*.md"):
        pages[f"pages/{path.name}"] = path.read_text(encoding="utf-8")
    pages["pages/exercises.md"] = rewrite.exercises_page(books)
    pages |= api_pages()
    contents = table_of_contents([name.rsplit(".", 1)[0] for name in pages])
    pages["index.md"] = (HERE / "index.md").read_text(encoding="utf-8") + contents
    for stale in source.rglob("*"):
        name = str(stale.relative_to(source))
        if (
            stale.suffix in (".md", ".rst", ".ipynb")
            and name not in pages
            and "download" not in name
        ):
            stale.unlink()
    for name, text in pages.items():
        write(source / name, with_downloads(name, text, pages, source))
    write(source / "README.md", rewrite.prose((ROOT / "README.md").read_text(encoding="utf-8")))
    copy(HERE / "references.bib", source / "references.bib")


def run_line(path: Path, book: nbformat.NotebookNode, repository: str) -> str:
    """Where a notebook can be run, and when, with what and by which commit it was."""
    ways = [f"{{download}}`Download <../download/{path.name}>`"]
    ways.append(
        f"[open in JupyterLab](http://localhost:8888/lab/tree/{path.name}) (after `make lab`)"
    )
    if owner := re.fullmatch(r"https://github\.com/(.+)", repository):
        colab = (
            f"https://colab.research.google.com/github/{owner[1]}/blob/main/notebooks/{path.name}"
        )
        install = f'`!pip install "maelib[notebooks] @ git+{repository}"`'
        ways.append(f"[open in Colab]({colab}) (begin with {install})")
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    marks = [each.metadata.maelib for each in outputs if "maelib" in each.get("metadata", {})]
    how = "made on {date} with Python {python} and PyTorch {torch} on {hardware}"  # docs/outputs.py
    made = [how.format(**marks[0])] if marks else []
    if commit := git("log", "-1", "--format=%h %cs", "--", str(path)):
        name, date = commit.split()
        name = f"[{name}]({repository}/commit/{name})" if repository else f"`{name}`"
        made.append(f"committed on {date} as {name}")
    origin = f"The outputs were {', and '.join(made)}." if made else ""
    return f":::{{div}} run-line\n{', '.join(ways)}.\n\n{origin}\n:::\n"


def api_pages() -> dict[str, str]:
    """A page for each module of public names, and their list."""
    found = pkgutil.walk_packages(maelib.__path__, "maelib.")
    private = ("._", "maelib.internal")
    names = [module.name for module in found if not any(part in module.name for part in private)]
    members = "   :members:\n   :undoc-members:\n"
    pages = {
        f"api/{name}.rst": f"{name}\n{'=' * len(name)}\n\n.. automodule:: {name}\n{members}"
        for name in ["maelib", *names]
    }
    listing = "\n".join(["maelib", *(f"{n.removeprefix('maelib.')} <{n}>" for n in names)])
    head = "# API\n\nThe public names of each module. Shapes stand in the signatures.\n\n"
    pages["api/index.md"] = f"{head}```{{toctree}}\n:maxdepth: 1\n\n{listing}\n```\n"
    return pages


def table_of_contents(names: list[str]) -> str:
    """A toctree for each part, of the pages that there are."""
    rest, trees = sorted(set(names) - {"index"}), []
    for caption, patterns in PARTS.items():
        here = []
        for pattern in patterns:
            here += [name for name in rest if Path(name).match(pattern) and name not in here]
            rest = [name for name in rest if name not in here]
        lines = "\n".join(here)
        trees.append(f"```{{toctree}}\n:caption: {caption}\n:hidden:\n\n{lines}\n```\n")
    return "\n" + "\n".join(trees)


def with_downloads(name: str, text: str, pages: dict[str, str], source: Path) -> str:
    """A page whose links to files of the repository that are no pages are downloads."""

    def download(found: re.Match) -> str:
        target = (ROOT / name).parent.joinpath(found[2]).resolve()
        if not target.is_file() or str(target.relative_to(ROOT)) in pages:
            return found[0]
        copy(target, source / target.relative_to(ROOT))
        if found[1].startswith("!"):
            return found[0]
        label = found[1][1:-1].replace("`", "")  # a role ends at the first backtick
        return f"{{download}}`{label} <{found[2]}>`"

    return re.sub(r"(!?\[[^\]\n]*\])\(([^)#:\s]+)\)", download, text)


def write(path: Path, text: str) -> None:
    """Write a file unless it has this content, so that Sphinx reads again only what changed."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def copy(path: Path, target: Path) -> None:
    """Copy a file with its time, by which Sphinx sees whether it changed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, target)


def origin() -> str:
    """The address of the repository that this one was cloned from, if it is on GitHub."""
    found = re.search(r"github\.com[:/](.+?)(\.git)?$", git("remote", "get-url", "origin"))
    return f"https://github.com/{found[1]}" if found else ""


def git(*words: str) -> str:
    """What git prints; nothing outside a repository."""
    try:
        plain = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        done = subprocess.run(["git", *words], cwd=ROOT, env=plain, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


if __name__ == "__main__":
    sys.exit(main())
