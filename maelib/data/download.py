"""Files of data sets: found in the data folders, or downloaded, whole and in bounded time."""

import asyncio
import hashlib
import os
import time
from pathlib import Path

from maelib.internal.files import whole

LIMIT = 2**28  # bytes of the largest file that is accepted
SILENCE = 5.0  # seconds without a byte after which a mirror is given up
REMEDY = "delete it, so that it is downloaded again"  # of a damaged file
ROUNDS = 2  # how often each mirror is tried


class DownloadError(FileNotFoundError):
    """No mirror gave the file, or none may be asked; the message names file and remedy."""


def find(roots: list[Path], folders: tuple[str, ...], *names: str) -> Path | None:
    """The first file of these names in the folders of each root, or in a root itself."""
    places = (root / folder for root in roots for folder in (*folders, ""))
    return next((p for place in places for n in names if (p := place / n).is_file()), None)


def intact(content: bytes, digest: str) -> bytes:
    """The content; ValueError if it does not have the digest, a SHA-256 or an MD5."""
    kind = "MD5" if len(digest) == 32 else "SHA-256"
    if hashlib.new(kind.replace("-", ""), content).hexdigest() != digest:
        raise ValueError(f"it is truncated or altered: its {kind} is not the published one")
    return content


def fetch(
    urls: list[str], roots: list[Path], name: str, digest: str | None, seconds: float = 300.0
) -> Path:
    """Download the file ``name`` into the first of ``roots`` that is writable.

    It comes from the first of ``urls``, https before http, that gives the bytes of ``digest``, a
    SHA-256 or MD5. None accepts any bytes; the reader must check them. ``seconds`` are for all
    mirrors together. DownloadError if every one fails, whatever it answers, or MAELIB_OFFLINE is
    set.
    """
    from anyio.from_thread import start_blocking_portal

    root = next((root for root in roots if _writable(root)), None)
    problem = "downloads are off" if root else "no data folder is writable"
    offline = os.environ.get("MAELIB_OFFLINE") or root is None
    end = time.monotonic() + seconds
    for url in [] if offline else sorted(urls, key=lambda u: not u.startswith("https:")) * ROUNDS:
        try:
            # In a thread of its own, since a notebook's runs an event loop already.
            with whole(root / name) as part, start_blocking_portal() as thread:
                thread.call(_receive, url, part, digest, end)
            return root / name
        except Exception as failure:  # a bad server makes the client raise what it likes
            said = str(failure) or type(failure).__name__
            problem = f"{url}: {said.splitlines()[0]}"
    raise DownloadError(
        f"{Path(name).name} was not found in any data folder, and could not be downloaded "
        f"({problem}); put {name} in data/, or set MAELIB_DATA to the folder that holds it."
    )


async def _receive(url: str, part: Path, digest: str | None, end: float) -> None:
    """Write what ``url`` answers into ``part``; an exception if it is late or not the file."""
    import httpx
    from tqdm import tqdm

    async with (
        asyncio.timeout(end - time.monotonic()),
        httpx.AsyncClient(timeout=SILENCE, follow_redirects=True) as client,
        client.stream("GET", url) as answer,
    ):
        answer.raise_for_status()
        size = answer.headers.get("Content-Length")
        bar = tqdm(total=size and int(size), unit="B", unit_scale=True, disable=None)
        with part.open("wb") as file, bar:
            async for piece in answer.aiter_bytes():
                if file.tell() + len(piece) > LIMIT:
                    raise ValueError(f"more than {LIMIT:,} bytes")
                file.write(piece)
                bar.update(len(piece))
    if digest is not None:
        intact(part.read_bytes(), digest)


def _writable(root: Path) -> bool:
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    return os.access(existing, os.W_OK)
