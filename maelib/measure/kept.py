"""The NLLs of a measurement under way, kept on disk so that one that is stopped goes on."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from maelib.internal.files import read_json, write_json

SECONDS = 20.0  # between two writes


@dataclass
class Kept:
    """A file of the NLLs of the first images, for each number of samples k.

    ``about`` is what they depend on, such as the model's digest. A file about anything else, or a
    damaged one, is ignored.
    """

    path: Path
    about: dict[str, str | int]
    written: float = field(default_factory=time.monotonic)

    def read(self, k: int) -> list[float]:
        """What there is so far with ``k`` samples, in nats."""
        return self._content().get(str(k), [])

    def write(self, k: int, nlls: Float[Tensor, " images"]) -> None:
        """Replace what there is with ``k`` samples."""
        write_json(self.path, {**self._content(), str(k): nlls.tolist(), "about": self.about})
        self.written = time.monotonic()

    def note(self, k: int, nlls: Float[Tensor, " images"]) -> None:
        """``write``, if the last time is ``SECONDS`` ago."""
        if time.monotonic() - self.written > SECONDS:
            self.write(k, nlls)

    def _content(self) -> dict:
        try:
            content = read_json(self.path)
        except (OSError, ValueError):
            return {}
        return content if content.get("about") == self.about else {}
