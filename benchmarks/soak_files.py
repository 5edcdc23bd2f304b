"""Small files of every kind that maelib reads, and how each is read.

Those of data sets have the formats of the real ones, in place of whose digests theirs are put.
"""

import gzip
import hashlib
import io
import json
import pickle
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image
from torchvision.datasets import Omniglot

from maelib import config, origin
from maelib.data import cifar10, download, mnist, omniglot, own
from maelib.data.dataset import Dataset
from maelib.internal.files import read_json, sha256, write_bytes, write_json
from maelib.measure.evaluation import test_images
from maelib.measure.kept import Kept
from maelib.report import claims, tables
from maelib.runs import monitor, pretrained
from maelib.runs import record as records
from maelib.runs.run import run
from maelib.runs.weights import load_model
from maelib.training.checkpoints import fingerprint
from maelib.training.state import restore
from maelib.workflow import campaign

OK = b"HTTP/1.1 200 OK\r\n"
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Reader:
    """A kind of file, and what is read of it."""

    name: str
    path: Path
    read: Callable[[], object]
    tries: int = 200
    has_digest: bool = True  # else nothing tells whether what is read is right


def run_files(folder: Path, _: pytest.MonkeyPatch) -> list[Reader]:
    """The files of one finished run with two checkpoints, and of its exported model."""
    settings = config.resolve("smoke", "digits")
    record, model, images = run(settings, out_dir=folder, checkpoint_minutes=0.0, log=str)
    home, bare = (folder / preset / record.name for preset in ("smoke", "bare"))
    shutil.copytree(home, bare, ignore=shutil.ignore_patterns("checkpoints"))
    result, last = bare / "result.json", max((home / "checkpoints").iterdir())
    exported = pretrained.export(model, record, test_images(images.test.images[:20]), folder).path
    unsealed = json.dumps(read_json(result)).encode()
    older = put(folder / "older" / f"{record.name}.json", unsealed)
    kept = Kept(folder / "nll.json", {"model": record.model})
    kept.write(8, torch.ones(3))

    def state() -> tuple:
        found = restore(settings, last.parent, CPU)
        return found.progress, fingerprint(found.best.state_dict())

    def weights() -> tuple:
        found = pretrained.read_header(exported)
        return found, fingerprint(found.load().state_dict())

    slots = partial(campaign._earlier, folder / "campaign.json", CPU, "smoke", "float32")
    write_json(folder / "campaign.json", slots() | {"epochs": 3, "pace": {"way": "eager"}})
    return [
        Reader("result.json", result, lambda: records.read(result), 1500),
        Reader("results in tables", result, lambda: reported(bare)),
        Reader("results to begin with", result, lambda: origin.find(str(bare)), 400),
        Reader("results without a digest", older, lambda: reported(older.parent), has_digest=False),
        Reader("progress.json", home / "progress.json", lambda: monitor.status(home), 600),
        Reader("nll.json", kept.path, lambda: kept.read(8)),
        Reader("campaign.json", folder / "campaign.json", slots, 60),
        Reader("state.json", last / "state.json", state, 100),
        Reader("checkpoint", last / "best.safetensors", state, 60),
        Reader("model.safetensors", bare / "model.safetensors",
               lambda: fingerprint(load_model(bare).state_dict()), 400),
        Reader("pretrained model", exported, weights, 400),
    ]  # fmt: skip


def reported(folder: Path) -> str:
    """A table, the captions and the verdicts of the results in ``folder``; "" of none."""
    found = records.collect(folder)
    measured = tables.measured(found, [*tables.MEASURES, *tables.COLLAPSE]).to_csv()
    words = [tables.caption(found), *(r.caption() for r in found)]
    return measured + "".join(words) + str(claims.verdicts(found)) if found else ""


def mnist_files(folder: Path, change: pytest.MonkeyPatch) -> Iterator[Reader]:
    """MNIST's IDX files, plain and packed, and its fixed binarisation."""
    for name in mnist.FILES:
        shape = (5, 28, 28) if "images" in name else (5,)
        head = np.array([0x800 + len(shape), *shape], ">u4").tobytes()
        plain = put(folder / "idx" / name, head + noise(*shape).tobytes())
        packed = put(folder / "gz" / f"{name}.gz", gzip.compress(plain.read_bytes()))
        change.setitem(mnist.FILES, name, sha256(plain))
    for part in mnist.STATIC_PARTS:
        lines = put(folder / f"binarized_mnist_{part}.amat", b"0 1 " * 391 + b"0 1\n")
        change.setitem(mnist.STATIC_PARTS, part, sha256(lines))
    yield data_set("IDX file of images", plain.with_name(min(mnist.FILES)), mnist.load)
    yield data_set("IDX file of labels", plain.with_name(max(mnist.FILES)), mnist.load)
    yield data_set("IDX file in .gz", packed, mnist.load)
    yield data_set("binarised MNIST", lines, mnist.load_static)


def cifar_files(folder: Path, change: pytest.MonkeyPatch) -> Iterator[Reader]:
    """A batch of CIFAR-10, and the archive of all."""
    for name in cifar10.FILES:
        batch = pickle.dumps({"data": noise(1, 3072), "labels": [3]}, 3)
        path = put(folder / cifar10.FOLDER / name, batch.replace(b"numpy._core", b"numpy.core"))
        change.setitem(cifar10.FILES, name, sha256(path))
    packed = put(folder / Path(cifar10.URL).name, b"")
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(path.parent, cifar10.FOLDER)
    yield data_set("batch of CIFAR-10", path, cifar10.load)
    path.unlink()
    yield data_set(".tar.gz of CIFAR-10", packed, cifar10.load)


def omniglot_files(folder: Path, change: pytest.MonkeyPatch) -> Iterator[Reader]:
    """The three forms of OMNIGLOT; no digest of chardata.mat is published."""
    for name in Omniglot.zips_md5:
        packed = put(folder / "zip" / f"{name}.zip", b"")
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr(f"{name}/latin/a/1.png", png(noise(105, 105)))
        change.setitem(Omniglot.zips_md5, name, hashlib.md5(packed.read_bytes()).hexdigest())
    lake, mat = folder / "omniglot_105.npz", folder / "chardata.mat"
    np.savez(lake, images=noise(2, 1379), alphabet=np.arange(2))
    shapes = {"data": (784, 30), "target": (50, 30), "testdata": (784, 10), "testtarget": (50, 10)}
    scipy.io.savemat(mat, {name: noise(*shape) / 255 for name, shape in shapes.items()})
    change.setattr(omniglot, "LAKE_DIGEST", sha256(lake))
    change.setattr(omniglot, "LAKE_COUNTS", (1, 1, 0))
    yield data_set(".zip of OMNIGLOT", packed, omniglot.load_lake)
    yield data_set("omniglot_105.npz", lake, omniglot.load_lake, 300)
    read = partial(omniglot.read_burda, mat, (30, 10))
    yield Reader("chardata.mat", mat, read, 30, has_digest=False)


def own_files(folder: Path, _: pytest.MonkeyPatch) -> Iterator[Reader]:
    """A user's own pictures, of which nothing is known."""
    pictures = noise(20, 16, 16)
    for number, picture in enumerate(pictures):
        file = put(folder / "own" / f"{number}.png", png(picture))
    np.savez(folder / "own.npz", images=pictures, labels=np.arange(20))
    np.save(folder / "own.npy", pictures)
    for path in (file, folder / "own.npz", folder / "own.npy"):
        read = partial(own.read, path.parent if path == file else path)
        yield Reader(f"own pictures in {path.suffix}", path, read, has_digest=False)


def replies(folder: Path, change: pytest.MonkeyPatch) -> Iterator[Reader]:
    """What a server answers, after which another one is asked: the file arrives in any case."""
    change.delenv("MAELIB_OFFLINE", raising=False)
    body = noise(200).tobytes()
    good = put(folder / "good", OK + b"Content-Length: 200\r\n\r\n" + body)
    chunks = OK + b"Transfer-Encoding: chunked\r\n\r\nc8\r\n" + body + b"\r\n0\r\n\r\n"

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # byte for byte the file of that name
            with suppress(OSError):
                self.wfile.write((folder / self.path[1:]).read_bytes())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        urls = f"http://127.0.0.1:{server.server_port}/{{}}".format

        def read(bad: Path) -> bytes:
            sources, digest = [urls(bad.name), urls(good.name)], hashlib.sha256(body).hexdigest()
            return download.fetch(sources, [folder], "file", digest).read_bytes()

        for name, answer in (("of known length", good.read_bytes()), ("in chunks", chunks)):
            bad = put(folder / "bad", answer)
            yield Reader(f"reply {name}", bad, partial(read, bad), 60)
        server.shutdown()


def data_set(name: str, path: Path, load: Callable[..., Dataset], tries: int = 200) -> Reader:
    """A file of a data set that ``load`` finds in the file's folder."""
    return Reader(name, path, lambda: load([path.parent], False).digest, tries)


def put(path: Path, content: bytes) -> Path:
    """Write a file, and give its path."""
    write_bytes(path, content)
    return path


def noise(*shape: int) -> np.ndarray:
    """Random bytes, always the same."""
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def png(pixels: np.ndarray) -> bytes:
    """A grey picture as a PNG file."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "png")
    return content.getvalue()


# Each makes the readers of some kinds of files, which it writes into a folder.
KINDS = (run_files, mnist_files, cifar_files, omniglot_files, own_files, replies)
