"""Download of a file from one of several mirrors, checked and never left incomplete."""

import logging
import os
import sys
from pathlib import Path

import pooch

# Pooch announces each download and, where no digest is published, the one it found.
pooch.get_logger().setLevel(logging.WARNING)


class DownloadError(OSError):
    """No mirror gave the file; the message names the file and the remedy."""


def fetch(urls: list[str], target: Path, digest: str | None, timeout: float = 5.0) -> None:
    """Download ``target`` from the first of ``urls`` that gives the bytes with this digest.

    ``digest`` is a SHA-256 or ``md5:...``. None accepts any bytes; the reader must
    check them. ``timeout`` is the longest silence, in seconds. DownloadError if every mirror
    fails or MAELIB_OFFLINE is set.
    """
    problem = "MAELIB_OFFLINE is set"
    downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=timeout)
    for url in [] if os.environ.get("MAELIB_OFFLINE") else urls:
        try:
            pooch.retrieve(url, digest, target.name, target.parent, downloader=downloader)
            return
        except (ValueError, OSError) as failure:
            problem = f"{url}: {failure}"
    raise DownloadError(
        f"could not download {target.name} ({problem}); connect to the internet, or put the file "
        "in a data folder yourself and point MAELIB_DATA at that folder."
    )


def folder_for(name: str, what: str, roots: list[Path], download: bool) -> Path:
    """The data folder to download into; FileNotFoundError where nothing may be downloaded."""
    root = next((r for r in roots if _writable(r)), None)
    if not download or root is None or os.environ.get("MAELIB_OFFLINE"):
        raise FileNotFoundError(
            f"{name} was not found in any data folder; put {what} in data/, or set MAELIB_DATA "
            "to the folder that holds it."
        )
    return root


def _writable(root: Path) -> bool:
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    return os.access(existing, os.W_OK)
