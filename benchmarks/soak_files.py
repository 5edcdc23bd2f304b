"""Small files of every kind that maelib reads, and what is read from the intact ones.

Those of data sets have the formats of the real ones, whose published digests they are given.
"""

import gzip
import hashlib
import io
import json
import os
import pickle
import shutil
import socketserver
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import scipy.io
import torch
from PIL import Image
from torchvision.datasets import Omniglot

from maelib import config
from maelib.data import cifar10, download, mnist, omniglot, own
from maelib.data.dataset import Dataset, Split
from maelib.internal.files import sha256, write_bytes
from maelib.measure.evaluation import test_images
from maelib.report import claims, tables
from maelib.runs import monitor, pretrained
from maelib.runs import record as records
from maelib.runs.run import run
from maelib.runs.weights import load_model
from maelib.training.checkpoints import fingerprint
from maelib.training.state import restore

OK = b"HTTP/1.1 200 OK\r\n"
CPU = torch.device("cpu")
SETTINGS = {"preset": "smoke", "dataset": "digits"}


@dataclass(frozen=True)
class Reader:
    """A kind of file, and what is read from an intact one."""

    name: str
    path: Path
    read: Callable[[], object]
    good: tuple = ()  # all that may be read; empty where nothing tells what is right
    tries: int = 500


@contextmanager
def every_reader(folder: Path) -> Iterator[Iterator[Reader]]:
    """The readers of all kinds of files, in ``folder``, and a server for some of them."""
    with published(), server(folder) as address:
        kinds = (run_files, mnist_files, cifar_files, omniglot_files, own_files)
        parts = [*kinds, partial(replies, address)]
        yield (reader for kind in parts for reader in kind(folder, np.random.default_rng(0)))


@contextmanager
def published() -> Iterator[None]:
    """Bring back the published digests, and the environment, at the end."""
    digests = (mnist.FILES, mnist.STATIC_PARTS, cifar10.FILES, Omniglot.zips_md5, os.environ)
    with ExitStack() as stack:
        for changed in digests:
            stack.enter_context(patch.dict(changed))
        stack.enter_context(patch.object(omniglot, "LAKE_DIGEST", omniglot.LAKE_DIGEST))
        os.environ.pop("MAELIB_OFFLINE", None)
        yield


def run_files(folder: Path, _: np.random.Generator) -> list[Reader]:
    """The files of one finished run with two checkpoints, and of its exported model."""
    record, model, images = run(
        config.resolve(**SETTINGS), out_dir=folder / "runs", checkpoint_minutes=0.0, log=str
    )
    home = folder / "runs" / "smoke" / record.name
    bare = Path(shutil.copytree(home, folder / "bare" / "smoke" / record.name))
    shutil.rmtree(bare / "checkpoints")
    x = test_images(images.test.images[:20])
    kept = pretrained.export(model, record, x, folder / "checkpoints").path
    older = folder / "older" / f"{record.name}.json"
    older.parent.mkdir()
    content = json.loads((home / "result.json").read_text())
    older.write_text(json.dumps({k: content[k] for k in content if k not in ("sealed", "sha256")}))
    result, (_, last) = bare / "result.json", sorted((home / "checkpoints").iterdir())
    read_state = partial(restored, home / "checkpoints")
    newest, aside = read_state(), shutil.move(last, folder)
    states = (newest, read_state())
    shutil.move(aside, last)
    listed = partial(listing, home)
    both = (listed(), f"{'smoke':>7}  {record.name}  damaged")
    one = partial(weights, bare)
    exported = partial(from_export, kept)
    return [
        Reader("result.json", result, partial(records.read, result), (record,), 1500),
        Reader("results in tables", result, partial(reported, bare), (reported(bare), ""), 100),
        Reader("results without a digest", older, partial(reported, older.parent), (), 200),
        Reader("progress.json", home / "progress.json", listed, both, 600),
        Reader("state.json", last / "state.json", read_state, states, 300),
        Reader("checkpoint", last / "best.safetensors", read_state, states, 300),
        Reader("model.safetensors", bare / "model.safetensors", one, (one(),), 600),
        Reader("pretrained model", kept, exported, (exported(),), 700),
    ]


def restored(store: Path) -> tuple:
    """What training continues from."""
    state = restore(config.resolve(**SETTINGS), store, CPU)
    return state.progress, fingerprint(state.best.state_dict())


def listing(folder: Path) -> str:
    """The run's line in ``maelib runs``."""
    return monitor.status(folder).line()


def weights(folder: Path) -> str:
    """The digest of a run's model."""
    return fingerprint(load_model(folder).state_dict())


def from_export(path: Path) -> tuple:
    """A pretrained model's header and the digest of its weights."""
    found = pretrained.read_header(path)
    return found, fingerprint(found.load().state_dict())


def reported(folder: Path) -> str:
    """A table, the captions and the verdicts of the results in ``folder``; "" of none."""
    found = records.collect(folder)
    measured = tables.measured(found, [*tables.MEASURES, *tables.COLLAPSE]).to_csv()
    words = [tables.caption(found), *(r.caption() for r in found)]
    return measured + "".join(words) + str(claims.verdicts(found)) if found else ""


def known(name: str, path: Path, tries: int, read: Callable, *arguments: object) -> Reader:
    """A file of which nothing may be read but what is read of it now."""
    read = partial(unpacked, read, *arguments)
    return Reader(name, path, read, (read(),), tries)


def unpacked(read: Callable, *arguments: object) -> str:
    """The digest of the data set or of the tensors that ``read`` gives."""
    found = read(*arguments)
    if isinstance(found, Dataset):
        return found.digest
    parts = [(s.images, s.labels) if isinstance(s, Split) else (s,) for s in found[:2]]
    return fingerprint({f"{n}": tensor for n, tensor in enumerate(sum(parts, ()))})


def put(path: Path, content: bytes) -> Path:
    """Write a file and give its path."""
    write_bytes(path, content)
    return path


def png(pixels: np.ndarray) -> bytes:
    """A grey picture as a PNG file."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "png")
    return content.getvalue()


def mnist_files(folder: Path, draw: np.random.Generator) -> Iterator[Reader]:
    """MNIST's IDX files, plain and packed, and its fixed binarisation."""
    raw, packed = folder / "idx", folder / "gz"
    for name in mnist.FILES:
        shape = (5, 28, 28) if "images" in name else (5,)
        head = b"".join(n.to_bytes(4, "big") for n in (0x800 + len(shape), *shape))
        content = head + draw.integers(0, 10, shape, np.uint8).tobytes()
        mnist.FILES[name] = sha256(put(raw / name, content))
        last = put(packed / f"{name}.gz", gzip.compress(content))
    for part in mnist.STATIC_PARTS:
        lines = put(folder / f"binarized_mnist_{part}.amat", b"0 1 " * 391 + b"0 1\n")
        mnist.STATIC_PARTS[part] = sha256(lines)
    yield known("IDX file of images", raw / min(mnist.FILES), 100, mnist.load, [raw])
    yield known("IDX file of labels", raw / max(mnist.FILES), 100, mnist.load, [raw])
    yield known("IDX file in .gz", last, 200, mnist.load, [packed])
    yield known("binarised MNIST", lines, 100, mnist.load_static, [folder])


def cifar_files(folder: Path, draw: np.random.Generator) -> Iterator[Reader]:
    """A batch of CIFAR-10, and the archive of all."""
    for name in cifar10.FILES:
        batch = {"data": draw.integers(0, 256, (1, 3072), np.uint8), "labels": [3]}
        old = pickle.dumps(batch, 3).replace(b"numpy._core", b"numpy.core")
        cifar10.FILES[name] = sha256(put(path := folder / cifar10.FOLDER / name, old))
    packed = put(folder / "tar" / Path(cifar10.URL).name, b"")
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(path.parent, path.parent.name)
    yield known("batch of CIFAR-10", path, 200, cifar10.load, [folder])
    yield known(".tar.gz of CIFAR-10", packed, 200, cifar10.load, [packed.parent])


def omniglot_files(folder: Path, draw: np.random.Generator) -> Iterator[Reader]:
    """The three forms of OMNIGLOT; no digest of chardata.mat is published."""
    for name in Omniglot.zips_md5:
        packed = put(folder / f"{name}.zip", b"")
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr(f"{name}/latin/a/1.png", png(draw.integers(0, 256, (105, 105), "u1")))
        Omniglot.zips_md5[name] = hashlib.md5(packed.read_bytes()).hexdigest()
    lake, mat = folder / "omniglot_105.npz", folder / "chardata.mat"
    np.savez(lake, images=draw.integers(0, 256, (10, 1379), np.uint8), alphabet=np.arange(10))
    omniglot.LAKE_DIGEST = sha256(lake)
    shapes = {"data": (784, 30), "target": (50, 30), "testdata": (784, 10), "testtarget": (50, 10)}
    scipy.io.savemat(mat, {name: draw.random(shape) for name, shape in shapes.items()})
    yield known(".zip of OMNIGLOT", packed, 200, omniglot.read_archives, [folder], False)
    yield known("omniglot_105.npz", lake, 500, omniglot.read_lake, lake)
    yield Reader(
        "chardata.mat", mat, partial(unpacked, omniglot.read_burda, mat, (30, 10)), (), 150
    )


def own_files(folder: Path, draw: np.random.Generator) -> Iterator[Reader]:
    """A user's own pictures, of which nothing is known."""
    pictures = draw.integers(0, 256, (20, 16, 16), np.uint8)
    for number, picture in enumerate(pictures):
        put(folder / "own" / f"{number}.png", png(picture))
    np.savez(folder / "own.npz", images=pictures, labels=np.arange(20))
    np.save(folder / "own.npy", pictures)
    for name in ("own/0.png", "own.npz", "own.npy"):
        source = folder / name.removesuffix("/0.png")
        yield Reader(
            f"picture: {name}", folder / name, partial(unpacked, own.read, source), (), 200
        )


def replies(address: str, folder: Path, draw: np.random.Generator) -> Iterator[Reader]:
    """What a server answers, after which another one is asked: the file arrives in any case."""
    body = draw.bytes(200)
    good = put(folder / "good", OK + b"Content-Length: 200\r\n\r\n" + body)
    chunks = OK + b"Transfer-Encoding: chunked\r\n\r\nc8\r\n" + body + b"\r\n0\r\n\r\n"
    digest, store = hashlib.sha256(body).hexdigest(), [folder / "store"]
    for name, content in {"whole": good.read_bytes(), "chunks": chunks}.items():
        urls = [address + name, address + good.name]
        read = partial(download.fetch, urls, store, "file", digest)
        path = put(folder / name, content)
        yield Reader(f"reply in {name}", path, lambda get=read: get().read_bytes(), (body,), 150)


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """The address of a server whose answers are, byte for byte, the files in ``folder``."""

    class Answer(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with suppress(Exception):
                name = self.rfile.readline().split()[1].decode()
                while self.rfile.readline().strip():
                    pass
                self.wfile.write((folder / name[1:]).read_bytes())

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answer) as loopback:
        threading.Thread(target=loopback.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{loopback.server_address[1]}/"
        loopback.shutdown()
