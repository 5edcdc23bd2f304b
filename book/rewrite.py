"""What the notebooks and docs write for Jupyter and GitHub, rewritten as a book writes it.

- ``<a id="x"></a>`` becomes a target that pages link to.
- "Eq. (4)" becomes a link to that equation, and "(Germain et al., 2015)" a citation.
- A displayed equation that "*Proof.*" follows becomes a theorem with its proof.
- A numbered list under "Exercises" and the one in "<details><summary>Solutions" become exercises
  with folded solutions.
"""

import re
from pathlib import Path

import nbformat
from pybtex.database import parse_file

BIBLIOGRAPHY = Path(__file__).parent / "references.bib"
# Where nothing is rewritten: code, links, formulas, headings and HTML tags.
KEPT = re.compile(
    r"""(
    ^```.*?^``` | ^\#+\ .*?$ | <!--.*?--> | <[^>\n]*> | `+[^`]+`+
    | \[[^\]\n]*\]\([^)]*\) | \$\$.*?\$\$ | \$[^$\n]+\$
    )""",
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)
ITEM = re.compile(r"^(\d+)\. (.*?)(?=^\d+\. |\Z)", re.MULTILINE | re.DOTALL)
EXERCISES = re.compile(
    r"^## Exercises\n(?P<before>.*?)(?P<tasks>^1\. .*?)"
    r"<details><summary>Solutions</summary>\n(?P<solutions>.*?)</details>",
    re.MULTILINE | re.DOTALL,
)
THEOREM = re.compile(
    r"(?P<claim>\$\$(?:(?!\$\$).)+\$\$)\n\n\*Proof\.\* (?P<proof>.*?)\s*\$\\square\$", re.DOTALL
)


def prose(text: str) -> str:
    """Markdown with its equations linked and its sources cited."""
    pieces = KEPT.split(text)
    pieces[::2] = [cited(linked(piece)) for piece in pieces[::2]]
    return "".join(pieces)


def linked(text: str) -> str:
    """ "Eq. (4)" as a link, and so each number of "Eqs. (5) and (8)"."""
    text = re.sub(r"\bEq\. \((\d+)\)", r"[Eq. (\1)](#eq-\1)", text)
    numbers = r"\bEqs\. (\(\d+\)(?:(?:, | and | to |-)\(\d+\))+)"
    return re.sub(numbers, lambda m: "Eqs. " + re.sub(r"\((\d+)\)", r"[(\1)](#eq-\1)", m[1]), text)


def cited(text: str) -> str:
    """Sources named by author and year as citations of the bibliography."""
    for key, names, year in SOURCES:
        text = re.sub(rf"\({names}, {year}\)", f"{{cite:p}}`{key}`", text)
        text = re.sub(rf"\b{names} \({year}\)", f"{{cite:t}}`{key}`", text)
    return text


def notebook(book: nbformat.NotebookNode, stem: str, run_line: str) -> None:
    """Rewrite a notebook's text in place, with ``run_line`` under its title."""
    texts = [cell for cell in book.cells if cell.cell_type == "markdown"]
    for cell in texts:
        text = re.sub(r'^<a id="([^"]+)"></a>$', r"(\1)=", cell.source, flags=re.MULTILINE)
        text = THEOREM.sub(_theorem, text)
        cell.source = prose(EXERCISES.sub(lambda found: _exercises(found, stem[:2]), text))
    title, _, rest = texts[0].source.partition("\n")
    texts[0].source = f"{title}\n\n{run_line}\n{rest}"


def exercises_page(books: dict[str, nbformat.NotebookNode]) -> str:
    """The exercises of all notebooks in one list."""
    lines = ["# All exercises", "", "Each leads to its notebook, where its solution is folded.", ""]
    for stem, book in books.items():
        text = "\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")
        labels = re.findall(r"^:label: (exercise-[\d-]+)$", text, re.MULTILINE)
        if labels:
            lines += [f"## [](../notebooks/{stem}.ipynb)", ""]
            lines += [f"- {{ref}}`{label}`" for label in labels] + [""]
    return "\n".join(lines)


def _theorem(found: re.Match) -> str:
    theorem = f":::{{prf:theorem}}\n:label: theorem\n\n{found['claim']}\n:::\n"
    return f"{theorem}\n:::{{prf:proof}}\n{found['proof']} $\\square$\n:::"


def _exercises(found: re.Match, number: str) -> str:
    solutions = dict(ITEM.findall(found["solutions"]))
    parts = ["## Exercises", found["before"].strip()]
    for n, task in ITEM.findall(found["tasks"]):
        label = f"exercise-{number}-{n}"
        head = f"::::{{exercise}} {int(number)}.{n}\n:label: {label}\n:nonumber:"
        parts.append(f"{head}\n\n{_dedent(task)}\n::::")
        if n in solutions:
            head = f"::::{{solution}} {label}\n:class: dropdown"
            parts.append(f"{head}\n\n{_dedent(solutions[n])}\n::::")
    return "\n\n".join(part for part in parts if part)


def _dedent(item: str) -> str:
    return re.sub(r"^ {3}", "", item.strip(), flags=re.MULTILINE)


def _sources() -> list[tuple[str, str, str]]:
    """Key, pattern of the authors' names, and year of each entry in the bibliography."""
    found = []
    for key, entry in parse_file(BIBLIOGRAPHY).entries.items():
        people = entry.persons["author"]
        names = [" ".join([*person.prelast_names, *person.last_names]) for person in people]
        pattern = {1: names[0], 2: rf"{names[0]} (?:&|and) {names[-1]}"}
        pattern = pattern.get(len(names), rf"{names[0]} et al\.")
        found.append((key, pattern, entry.fields["year"]))
    return found


SOURCES = _sources()
