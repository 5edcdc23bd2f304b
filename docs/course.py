"""The student edition and the slides of the course, made from the notebooks.

python docs/course.py student   # build/student: notebooks without solutions and outputs
python docs/course.py slides    # build/slides: one HTML file a lecture, and all that it loads

A cell tagged ``solution`` is left out of the student edition, and what stands between BEGIN
SOLUTION and END SOLUTION in a code cell becomes an error. A cell tagged ``slide`` is a slide; of
a code cell it shows the outputs only.
"""

import shutil
import sys
from importlib.resources import files
from pathlib import Path

import nbformat
from nbconvert import NotebookExporter, SlidesExporter
from nbconvert.preprocessors import (
    ClearMetadataPreprocessor,
    ClearOutputPreprocessor,
    TagRemovePreprocessor,
)
from nbformat import NotebookNode
from nbgrader.preprocessors import ClearSolutions

from maelib.workflow.plan import TUTORIALS

HERE = Path(__file__).parent
SOLUTION = "### BEGIN SOLUTION"
LECTURES = TUTORIALS[1:5]  # one for each week of docs/teaching.md


def student_edition(notebook: NotebookNode) -> NotebookNode:
    """A copy without solutions and outputs; the checks stay."""
    exporter = NotebookExporter(
        preprocessors=[
            TagRemovePreprocessor(remove_cell_tags={"solution"}, enabled=True),
            ClearSolutions(enforce_metadata=False),
            ClearOutputPreprocessor(enabled=True),
            ClearMetadataPreprocessor(enabled=True, preserve_cell_metadata_mask=["tags"],
                                      preserve_nb_metadata_mask=["kernelspec"]),
        ]
    )  # fmt: skip
    return nbformat.reads(exporter.from_notebook_node(notebook)[0], 4)


def slides(notebook: NotebookNode) -> str:
    """The tagged cells as a page of slides; it loads reveal.js and MathJax from its own folder."""
    tagged = [cell for cell in notebook.cells if "slide" in cell.metadata.get("tags", [])]
    for cell in tagged:
        cell.metadata["slideshow"] = {"slide_type": "slide"}
    exporter = SlidesExporter(
        template_file=str(HERE / "slides.html.j2"),
        reveal_url_prefix="reveal.js",
        reveal_number="c/t",
        reveal_height="760",
        reveal_transition="none",
        exclude_input=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
    )
    chosen = nbformat.v4.new_notebook(cells=tagged, metadata=notebook.metadata)
    chosen.metadata["title"] = tagged[0].source.splitlines()[0].lstrip("# ")
    return exporter.from_notebook_node(chosen)[0]


def with_exercises(folder: Path) -> list[str]:
    """The notebooks that have a cell to fill in."""
    return [path.stem for path in sorted(folder.glob("*.ipynb")) if SOLUTION in path.read_text()]


def main(what: str, root: Path = HERE.parent) -> None:
    """Write build/``what``."""
    out = root / "build" / what
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    folder = root / "notebooks"
    for name in with_exercises(folder) if what == "student" else LECTURES:
        notebook = nbformat.read(folder / f"{name}.ipynb", 4)
        if what == "student":
            nbformat.write(student_edition(notebook), out / f"{name}.ipynb")
        else:
            (out / f"{name}.html").write_text(slides(notebook), encoding="utf-8")
    if what == "slides":
        shutil.copytree(files("sphinx_revealjs") / "_static/revealjs", out / "reveal.js")
        shutil.copy(files("mathjax") / "static/mathjax/es5/tex-svg-full.js", out)
    print(f"written: {out.relative_to(root)}")


if __name__ == "__main__":
    if sys.argv[1:] not in (["student"], ["slides"]):
        sys.exit("say what to make: student or slides")
    main(sys.argv[1])
