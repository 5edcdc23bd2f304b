"""Files that are whole or absent: they are written under a temporary name, then renamed."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a temporary path, which is renamed to ``path`` at the end or deleted after an error."""
    part = path.with_name(f".part-{os.getpid()}-{path.name}")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, and make its folder if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, content: object) -> None:
    """Write JSON and wait until it is on the disk."""
    with whole(path) as part, part.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, allow_nan=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def remove_partials(folder: Path) -> None:
    """Delete temporary files of killed processes. No process may be writing in ``folder``."""
    for part in folder.glob(".part-*"):
        part.unlink()
