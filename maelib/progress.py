"""One progress line, in a terminal or in a notebook; silent where nobody watches."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

Tick = Callable[[int, int], None]  # (done, total)


@contextmanager
def bar(label: str) -> Iterator[Tick]:
    """A function to call with what is done and how much there is.

    In a notebook the line is replaced in place, and what stays is a single line of text.
    """
    with _notebook_line(label) if _in_notebook() else _terminal_bar(label) as tick:
        yield tick


def _in_notebook() -> bool:
    if "IPython" not in sys.modules:
        return False
    shell = sys.modules["IPython"].get_ipython()
    return shell is not None and hasattr(shell, "kernel")


@contextmanager
def _terminal_bar(label: str) -> Iterator[Tick]:
    with tqdm(desc=label, disable=not sys.stderr.isatty(), mininterval=0.5) as line:

        def tick(done: int, total: int) -> None:
            line.total = total
            line.update(done - line.n)

        yield tick


@contextmanager
def _notebook_line(label: str) -> Iterator[Tick]:
    from IPython.display import display

    handle = display({"text/plain": f"{label} ..."}, raw=True, display_id=True)
    begun = shown = time.monotonic()
    last = ""

    def tick(done: int, total: int) -> None:
        nonlocal shown, last
        last = f"{label}: {done:,} of {total:,}"
        if time.monotonic() - shown > 1:
            shown = time.monotonic()
            left = (shown - begun) / done * (total - done)
            handle.update({"text/plain": f"{last}, {left:.0f} s left"}, raw=True)

    yield tick
    handle.update({"text/plain": last}, raw=True)
