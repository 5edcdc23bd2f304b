"""Fetching a file: from one of several mirrors, checked, and never half there."""

import hashlib
import os
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

ATTEMPTS = 2


class DownloadError(OSError):
    """No mirror gave the file; the message names the file and the remedy."""


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(urls: list[str], target: Path, digest: str | None, timeout: float = 5.0) -> None:
    """Download ``target`` from the first of ``urls`` that gives the bytes with this SHA-256.

    A ``digest`` of None (none is published) accepts what comes; the reader must check it.
    The bytes arrive under a temporary name and are renamed once checked. With MAELIB_OFFLINE set
    nothing is asked for. Raises DownloadError when every mirror fails; ``timeout`` in seconds.
    """
    problems = []
    if os.environ.get("MAELIB_OFFLINE"):
        problems, urls = ["MAELIB_OFFLINE is set"], []
    for url in urls:
        for _ in range(ATTEMPTS):
            try:
                return _fetch_once(url, target, digest, timeout)
            except OSError as error:
                problems.append(f"{url}: {error}")
                if _unreachable(error):
                    break
    raise DownloadError(
        f"could not download {target.name} ({problems[-1]}); connect to the internet, or put the "
        "file in a data folder yourself and point MAELIB_DATA at that folder."
    )


def _unreachable(error: OSError) -> bool:
    """Whether asking the same host again is pointless: it could not be reached at all."""
    return isinstance(error, urllib.error.URLError) and not isinstance(
        error, urllib.error.HTTPError
    )


def _fetch_once(url: str, target: Path, digest: str | None, timeout: float) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".download-")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            _copy(url, file, target.name, timeout)
        if digest is not None and sha256(part) != digest:
            raise OSError("the bytes received are cut off or altered (SHA-256 differs)")
        part.chmod(0o644)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _copy(url: str, file, label: str, timeout: float) -> None:
    with urllib.request.urlopen(url, timeout=timeout) as response:
        total = int(response.headers.get("Content-Length") or 0)
        quiet = not sys.stderr.isatty()
        with tqdm(total=total, unit="B", unit_scale=True, desc=label, disable=quiet) as bar:
            while chunk := response.read(1 << 16):
                file.write(chunk)
                bar.update(len(chunk))
