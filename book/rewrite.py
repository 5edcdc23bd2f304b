"""What the notebooks and docs write for Jupyter and GitHub, rewritten as a book writes it.

- ``<a id="x"></a>`` becomes a target that pages link to.
- A formula with a ``\\tag`` becomes an equation, of several lines if need be.
- "Eq. (4)" becomes a link to that equation, and "(Germain et al., 2015)" a citation.
- The equation under a heading with "Theorem 1" becomes that theorem, a paragraph "**Result.** ..."
  a proposition, and "*Proof.* ... $\\square$" its proof.
- A link to book/pages/ becomes one to pages/, where the book has them.
- Exercises have folded solutions. They are either a numbered list under "Exercises" with another in
  "<details><summary>Solutions", or "**1 · Kind.** ..." with "<details><summary>Solution 1". A cell
  of code with a solution is folded, too.
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
DIRECTIVE = re.compile(
    r"^:+\{exercise\} ([^\n]+)\n:label: (\S+)\n:nonumber:\n\n(.+?)\n::::$", re.MULTILINE | re.DOTALL
)
TASK = re.compile(r"^\*\*(\d+) · ([^*]+?)\.?\*\*(.*?)(?=^\*\*\d+ · |\Z)", re.MULTILINE | re.DOTALL)
SOLUTION = re.compile(r"<details><summary>Solution (\d+)</summary>\n(.*?)</details>", re.DOTALL)
TAGGED = re.compile(r"^\$\$((?:(?!\$\$).)*\\tag\{\d+\})\$\$$", re.MULTILINE | re.DOTALL)
THEOREM = re.compile(r"^## .*\bTheorem (\d+)\b", re.MULTILINE)
RESULT = re.compile(r"^\*\*Result\.\*\* (.*?)(?=\n\n|\Z)", re.MULTILINE | re.DOTALL)
PROOF = re.compile(r"^\*Proof\.\* ((?:(?!\*Proof).)*?)\s*\$\\square\$", re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    """Markdown with its equations linked and its sources cited."""
    pieces = KEPT.split(text)
    pieces[::2] = [cited(linked(unbroken(piece))) for piece in pieces[::2]]
    return "".join(pieces).replace("](../book/pages/", "](../pages/")


def unbroken(text: str) -> str:
    """ "78.08 / 82.17 ± 0.11" breaks before "82.17" at most."""
    return re.sub(r"(?<=\d) ± (?=\d)", "\xa0±\xa0", re.sub(r"(?<=\d) / (?=\d)", "\xa0/ ", text))


def linked(text: str) -> str:
    """ "Eq. (4)" and "Theorem 1" as links, and so each number of "Eqs. (5) and (8)"."""
    text = re.sub(r"\bTheorem (\d+)\b", r"[Theorem \1](#theorem-\1)", text)
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
    """Rewrite a notebook in place, with ``run_line`` under its title."""
    texts = [cell for cell in book.cells if cell.cell_type == "markdown"]
    for cell in texts:
        text = re.sub(r'^<a id="([^"]+)"></a>$', r"(\1)=", cell.source, flags=re.MULTILINE)
        text = prose(exercises(theorems(text), stem[:2]))
        cell.source = TAGGED.sub(r"\\begin{equation*}\n\1\n\\end{equation*}", text)
    title, _, rest = texts[0].source.partition("\n")
    texts[0].source = f"{title}\n\n{run_line}\n{rest}"
    for cell in book.cells:
        if cell.cell_type == "code" and "### BEGIN SOLUTION" in cell.source:
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-input"]
            cell.metadata["mystnb"] = {"code_prompt_show": "Show the solution"}


def theorems(text: str) -> str:
    """A cell's theorem, proposition and proof as directives."""
    if found := THEOREM.search(text):
        wrap = rf":::{{prf:theorem}}\n:label: the-theorem-{found[1]}\n\n\g<0>\n:::"
        text = TAGGED.sub(wrap, text, count=1)
    text = RESULT.sub(r":::{prf:proposition}\n\1\n:::", text)
    return PROOF.sub(r":::{prf:proof}\n\1 $\\square$\n:::", text)


def exercises(text: str, number: str) -> str:
    """A cell's exercises and solutions as directives; ``number`` is the notebook's."""

    def of_lists(found: re.Match) -> str:
        solutions = dict(ITEM.findall(found["solutions"]))
        parts = ["## Exercises", found["before"].strip()]
        for n, task in ITEM.findall(found["tasks"]):
            parts.append(exercise(n, "", task))
            parts += [solution(n, solutions[n])] if n in solutions else []
        return "\n\n".join(part for part in parts if part)

    def exercise(n: str, kind: str, task: str) -> str:
        title = f"{int(number)}.{n}" + (f" · {kind}" if kind else "")
        head = f"::::{{exercise}} {title}\n:label: exercise-{number}-{n}\n:nonumber:"
        return f"{head}\n\n{_dedent(task)}\n::::\n"

    def solution(n: str, answer: str) -> str:
        head = f"::::{{solution}} exercise-{number}-{n}\n:class: dropdown"
        return f"{head}\n\n{_dedent(answer)}\n::::\n"

    text = EXERCISES.sub(of_lists, text)
    text = SOLUTION.sub(lambda found: solution(*found.groups()), text)
    return TASK.sub(lambda found: exercise(*found.groups()), text)


def exercises_page(books: dict[str, nbformat.NotebookNode]) -> str:
    """The exercises of all notebooks in one list; each leads to its place."""
    lines = ["# All exercises", "", "The solutions are in the notebooks, folded.", ""]
    for stem, book in books.items():
        text = "\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")
        if found := DIRECTIVE.findall(text):
            lines += [f"## [](../notebooks/{stem}.ipynb)", ""]
            lines += [
                f"[**{title}**](#{label})\n: {_indent(task)}\n" for title, label, task in found
            ]
    return "\n".join(lines)


def _indent(text: str) -> str:
    """Text of a notebook as an item of a list on another page."""
    return re.sub(r"\]\((?=\d\d_)", "](../notebooks/", text.replace("\n", "\n  "))


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
