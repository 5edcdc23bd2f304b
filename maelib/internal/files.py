"""All files are written and read here: written whole, read once, checked, and named in errors."""

import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, TextIO

LARGEST = 2**30  # bytes of a file that is read whole
STALE = 3600.0  # seconds after which a temporary file is taken for one of a killed process


def silence(output: TextIO) -> None:
    """Discard what is still to be written to ``output``, because its reader has ended."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def contents(path: Path) -> bytes:
    """A file's bytes; OSError if it is a pipe, for example, and ValueError if it is too large."""
    with open(path, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as file:
        about = os.fstat(file.fileno())  # of the file that is read, whatever takes its place
        if not stat.S_ISREG(about.st_mode):
            raise OSError("it is no regular file")
        if about.st_size > LARGEST:
            raise ValueError(f"it has more than {LARGEST:,} bytes")
        return file.read(about.st_size)


@contextmanager
def reading(path: Path, what: str, remedy: str) -> Iterator[None]:
    """Turn any failure inside into a ValueError of one sentence that names the file and a remedy.

    Only running out of memory is not: that error passes.
    """
    try:
        yield
    except Exception as problem:
        if out_of_memory(problem):
            raise
        missing = f"it has no {problem}" if isinstance(problem, KeyError) else str(problem)
        why = (missing or type(problem).__name__).splitlines()[0].rstrip(".")
        where = f"{path.parent.name}/{path.name}"
        raise ValueError(f"{where} is not {what} ({why}); {remedy}.") from problem


def out_of_memory(problem: Exception) -> bool:
    """Whether an error, of Python or of PyTorch on any device, says that memory is used up."""
    said = ("out of memory", "can't allocate memory")
    return isinstance(problem, MemoryError) or any(words in str(problem) for words in said)


def sealed(content: dict[str, Any]) -> str:
    """The content as JSON with its SHA-256; ValueError if a number is not finite.

    The mark stands first and the digest last, so that a file which lost one end still shows that
    it was sealed.
    """
    whole = {"sealed": True, **content, "sha256": digest(content)}
    return json.dumps(whole, indent=1, allow_nan=False, ensure_ascii=False)


def unsealed(text: bytes) -> dict[str, Any]:
    """What ``sealed`` was given, or JSON without a seal; ValueError if it was altered."""
    import msgspec  # here, since the command line's help reads no file

    content = msgspec.json.decode(text, type=dict[str, Any])
    is_sealed, seal = content.pop("sealed", False), content.pop("sha256", None)
    if (is_sealed or seal) and seal != digest(content):
        raise ValueError("its SHA-256 is not the recorded one")
    return content


def read_json(path: Path) -> dict[str, Any]:
    """The content that ``write_json`` wrote; ValueError if it was altered."""
    return unsealed(contents(path))


def typed(kind: type, content: dict[str, Any]) -> Any:
    """A dataclass from its fields by name; ValueError if one is unknown or of another type."""
    import msgspec

    if unknown := content.keys() - {field.name for field in fields(kind)}:
        raise ValueError(f"it has an unknown field {min(unknown)!r}")
    return msgspec.convert(content, kind)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a temporary path, which is renamed to ``path`` at the end or deleted after an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_partials(path.parent, STALE)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    except OSError as problem:
        if problem.errno:  # else it is no error of a file
            problem.filename = str(path)
        raise
    finally:
        part.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, make its folder if there is none, and wait until it is on the disk."""
    with whole(path) as part, part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whatever the locale is."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON with its SHA-256; ValueError if a number is not finite or a text not UTF-8."""
    try:
        write_text(path, sealed(content) + "\n")
    except ValueError as problem:
        raise ValueError(f"{path.name} would hold what JSON cannot ({problem}).") from problem


def remove_partials(folder: Path, age: float = 0.0) -> None:
    """Delete temporary files that are older than ``age`` seconds: their processes were killed."""
    for part in folder.glob(".*.part"):
        with suppress(OSError):  # another process may delete it first
            if time.time() - part.stat().st_mtime >= age:
                part.unlink()


def digest(content: Any) -> str:
    """Hex SHA-256 of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
