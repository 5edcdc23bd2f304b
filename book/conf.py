"""Settings of Sphinx for the book. ``build.py`` gathers its pages."""

import os
import re
import shutil
from importlib.resources import files
from itertools import groupby
from pathlib import Path

import sphinxcontrib.bibtex.plugin
from sphinxcontrib.bibtex.style.referencing import BracketStyle
from sphinxcontrib.bibtex.style.referencing.author_year import AuthorYearReferenceStyle

project, author, copyright = "maelib", "the maelib authors", "the maelib authors"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx_proof",
    "sphinx_exercise",
    "sphinx_design",
    "sphinxcontrib.bibtex",
]
include_patterns = ["index.md", "CONTRIBUTING.md"]
include_patterns += [f"{folder}/*" for folder in ("notebooks", "docs", "pages", "api")]

nb_execution_mode = "off"
nb_merge_streams = True
nb_render_image_options = {"alt": "what the code above draws"}
nb_ipywidgets_js = {}  # by default a page with a widget loads a script from another host
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "round"

autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
maximum_signature_line_length = 80

html_theme = "sphinx_book_theme"
html_title = "Mutual posterior divergence"
html_static_path = ["static"]
html_css_files = ["book.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "use_download_button": False,
    "use_fullscreen_button": False,
    "show_navbar_depth": 1,
    "navbar_start": [],
    "navbar_center": [],
    "navbar_end": [],
    "navbar_persistent": [],
}
html_context = {"default_mode": "auto"}
if repository := os.environ.get("MAELIB_REPOSITORY"):
    html_theme_options |= {"repository_url": repository, "use_repository_button": True}

# One file that needs no fonts: the SVG form of MathJax, from its Python package.
MATHJAX = files("mathjax") / "static" / "mathjax" / "es5"
mathjax_path = "mathjax/tex-svg.js"
mathjax3_config = {"options": {"enableMenu": False}}


def copy_mathjax(app, error):
    """Put MathJax, and the extensions that it loads on demand, beside the pages."""
    if error is None and app.builder.format == "html":
        out = Path(app.outdir) / "_static" / "mathjax"
        out.mkdir(parents=True, exist_ok=True)
        shutil.copy2(str(MATHJAX / "tex-svg.js"), out)
        tail = Path("input", "tex", "extensions")
        shutil.copytree(str(MATHJAX / tail), out / tail, dirs_exist_ok=True)


def escape(app, what, name, obj, options, lines):
    """Docstrings are plain text with ``code`` and lists: nothing else has a meaning."""
    paragraphs = [
        list(group) for blank, group in groupby(lines, lambda line: not line.strip()) if not blank
    ]
    lines[:] = [line for part in paragraphs for line in [*laid_out(part), ""]]
    for i, line in enumerate(lines):
        start, rest = re.match(r"(\| |- )?(.*)", line).groups(default="")
        pieces = re.split(r"(``.*?``)", rest)
        pieces[::2] = [re.sub(r"([\\*|`]|_\b)", r"\\\1", piece) for piece in pieces[::2]]
        lines[i] = re.sub(r"\bEq\. \((\d+)\)", r":ref:`Eq. (\1) <eq-\1>`", start + "".join(pieces))


def laid_out(paragraph):
    """A paragraph of a docstring; one with indented lines that is no list keeps its lines."""
    if all(line.startswith(("- ", " ")) for line in paragraph):
        return [line if line.startswith("- ") else f"  {line.strip()}" for line in paragraph]
    if any(line.startswith(("- ", " ")) for line in paragraph):
        return [f"| {line}" for line in paragraph]
    return paragraph


class Round(AuthorYearReferenceStyle):
    """(Author, year) in round brackets."""

    def __init__(self):
        brackets = BracketStyle(left="(", right=")")
        super().__init__(
            bracket_parenthetical=brackets, bracket_textual=brackets, bracket_year=brackets
        )


sphinxcontrib.bibtex.plugin.register_plugin(
    "sphinxcontrib.bibtex.style.referencing", "round", Round
)


def add_explorer(app, config):
    """The explorer's files, which ``build.py`` put beside the pages."""
    config.html_static_path.append(str(Path(app.srcdir) / "static"))


def setup(app):
    app.connect("config-inited", add_explorer)
    app.connect("autodoc-process-docstring", escape)
    app.connect("build-finished", copy_mathjax)
