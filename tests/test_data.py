import gzip
import hashlib
import io
import pickle
import shutil
import signal
import socketserver
import tarfile
import threading
import time
import zipfile
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import MNIST, Omniglot

from maelib.data import cifar10, dataset, download, mnist, omniglot
from maelib.internal import paths, rng


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class Bad(socketserver.StreamRequestHandler):
    """Answers as the path says; if it says slow, with one byte more at a time, for 10 seconds."""

    said_all = False

    def handle(self):
        name = self.rfile.readline().split()[1].decode().strip("/").replace("%20", " ")
        while self.rfile.readline().strip():
            pass
        with suppress(OSError):
            self.wfile.write(ANSWERS[name])
            for _ in range(200 if name.startswith("slow") else 0):
                time.sleep(0.05)
                self.wfile.write(b"x")
            Bad.said_all = True


OK = b"HTTP/1.1 200 OK\r\n"
ANSWERS = {
    "nothing": b"",
    "garbage": b"\xff\0 what?\r\n\r\n",
    "no status": b"HTTP/1.1 two hundred\r\n\r\n",
    "length is text": OK + b"Content-Length: ten\r\n\r\ncontent",
    "length is negative": OK + b"Content-Length: -7\r\n\r\ncontent",
    "cut": OK + b"Content-Length: 1000\r\n\r\nhalf",
    "chunk cut": OK + b"Transfer-Encoding: chunked\r\n\r\n100\r\nhalf",
    "chunk is text": OK + b"Transfer-Encoding: chunked\r\n\r\nten\r\nhalf",
    "long header": OK + b"X: " + b"x" * 10**6 + b"\r\n\r\ncontent",
    "not gzip": OK + b"Content-Encoding: gzip\r\nContent-Length: 7\r\n\r\ncontent",
    "broken redirect": b"HTTP/1.1 302 Found\r\nLocation: http://[::1\r\n\r\n",
    "other redirect": b"HTTP/1.1 302 Found\r\nLocation: ftp://localhost/x\r\n\r\n",
    "endless redirect": b"HTTP/1.1 302 Found\r\nLocation: endless%20redirect\r\n\r\n",
    "error": b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
    "too many bytes": OK + b"Content-Length: 100\r\n\r\n" + b"x" * 100,
    "other bytes": OK + b"Content-Length: 5\r\n\r\nother",
    "slow body": OK + b"Content-Length: 1000000\r\n\r\n",
    "slow header": b"H",
}


@pytest.fixture(scope="module")
def bad_server():
    """The address of a server that misbehaves as the path says."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Bad) as server:
        server.daemon_threads, server.block_on_close = True, False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@pytest.fixture
def serve(tmp_path):
    servers = []

    def start(handler=Quiet):
        folder = tmp_path / "served"
        folder.mkdir(exist_ok=True)
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return folder, f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def digest(content):
    return hashlib.sha256(content).hexdigest()


def test_digits_need_nothing_and_have_a_fixed_split():
    digits = dataset.load("digits")
    assert [len(s) for s in (digits.train, digits.val, digits.test)] == [1297, 200, 300]
    assert digits.train.images.shape[1:] == (1, 28, 28)
    assert digits.train.images.dtype == torch.uint8
    assert digits.train.labels.unique().tolist() == list(range(10))
    assert digits.digest == dataset.load("digits").digest


def test_auto_without_mnist_is_digits_and_says_so(no_data):
    found = dataset.load("auto")
    assert found.name == "digits"
    assert "in place of MNIST: train-images" in found.source


def test_mnist_that_is_nowhere_is_a_clear_error(no_data):
    with pytest.raises(FileNotFoundError, match=r"train-images.* was not found.*MAELIB_DATA"):
        dataset.load("mnist")


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"dataset is 'cifar'.*mnist"):
        dataset.load("cifar")


@pytest.mark.fault("data file altered")
def test_truncated_mnist_is_an_error_even_for_auto(no_data):
    raw = no_data / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte").write_bytes(b"\0\0\b\3")
    with pytest.raises(
        ValueError, match=r"train-images-idx3-ubyte is not an intact file of MNIST .*altered"
    ):
        dataset.load("auto")


@pytest.mark.fault("data file altered")
@pytest.mark.parametrize("damage", ["cut off", "other bytes", "no gzip"])
def test_a_packed_file_is_read_and_checked(tmp_path, damage):
    packed, content = tmp_path / "labels.gz", bytes(8) + b"\1\2"
    compressed = gzip.compress(content)
    packed.write_bytes(compressed)
    assert mnist._read(packed, digest(content)).tolist() == [1, 2]
    other = {"cut off": compressed[:-9], "other bytes": gzip.compress(bytes(10)), "no gzip": b"?"}
    packed.write_bytes(other[damage])
    with pytest.raises(
        ValueError, match=r"labels\.gz is not an intact file of MNIST .*; delete it"
    ):
        mnist._read(packed, digest(content))


@pytest.mark.fault("data file altered")
def test_an_unpacked_file_is_read_before_a_packed_one_and_checked(tmp_path):
    path, content = tmp_path / "images", bytes(16) + bytes(i % 256 for i in range(2 * 784))
    path.write_bytes(content)
    path.with_name("images.gz").write_bytes(b"?")
    assert download.find([tmp_path], (), "images", "images.gz") == path
    images = mnist._read(path, digest(content))
    assert images.shape == (2, 1, 28, 28)
    assert images[1, 0, 0, :3].tolist() == [784 % 256, 785 % 256, 786 % 256]
    path.write_bytes(content[:-1])
    with pytest.raises(
        ValueError, match=r"images is not an intact file of MNIST .*truncated or altered"
    ):
        mnist._read(path, digest(content))


def test_real_mnist_if_it_is_here():
    try:
        found = mnist.load(paths.data_roots(), download=False)
    except FileNotFoundError:
        pytest.skip("MNIST is not on this machine")
    assert [len(s) for s in (found.train, found.val, found.test)] == [58_000, 2_000, 10_000]
    assert found.test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert found.train.labels.bincount().min() > 5_000


@pytest.fixture
def online(monkeypatch):
    monkeypatch.delenv("MAELIB_OFFLINE", raising=False)
    monkeypatch.setattr(download, "LIMIT", 50)


@pytest.mark.fault("download cut half-way")
@pytest.mark.parametrize("answer", [name for name in ANSWERS if "slow" not in name])
def test_after_whatever_a_mirror_answers_the_next_is_asked(
    answer, serve, bad_server, online, tmp_path
):
    folder, url = serve()
    (folder / "file").write_bytes(b"content")
    bad, store = f"{bad_server}{answer}".replace(" ", "%20"), tmp_path / "store"
    known = digest(b"content")
    with pytest.raises(download.DownloadError, match=r"file was not found.*MAELIB_DATA"):
        download.fetch([bad], [store], "x/file", known)
    assert list((store / "x").iterdir()) == []
    assert download.fetch([bad, url + "file"], [store], "x/file", known).read_bytes() == b"content"
    if answer != "other bytes":
        with pytest.raises(download.DownloadError, match=r"other was not found"):
            download.fetch([bad], [store], "x/other", None)
    assert [path.name for path in (store / "x").iterdir()] == ["file"]
    assert (store / "x" / "file").stat().st_mode & 0o044 == 0o044


@pytest.mark.fault("download cut half-way")
@pytest.mark.parametrize("answer", ["slow body", "slow header"])
def test_one_byte_at_a_time_uses_up_the_time_of_all_mirrors(
    answer, serve, bad_server, online, tmp_path
):
    folder, good = serve()
    (folder / "file").write_bytes(b"content")
    urls, store = [f"{bad_server}{answer}".replace(" ", "%20"), good + "file"], tmp_path / "store"
    with pytest.raises(download.DownloadError, match="file was not found"):
        download.fetch(urls, [store], "file", None, 0.5)
    assert list(store.iterdir()) == []


@pytest.mark.fault("Ctrl-C, SIGTERM, time is up")
def test_ctrl_c_ends_a_download_at_once(bad_server, online, tmp_path, monkeypatch):
    monkeypatch.setattr(Bad, "said_all", False)

    def interrupted():
        this = threading.get_ident()
        threading.Timer(0.5, signal.pthread_kill, (this, signal.SIGINT)).start()
        download.fetch([f"{bad_server}slow%20body"], [tmp_path], "file", None)

    # Where tests run in the background the signal is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    signal.signal(signal.SIGINT, before)
    assert not Bad.said_all
    assert list(tmp_path.iterdir()) == []


def test_a_mirror_with_https_is_asked_first(serve, online, tmp_path):
    _, url = serve()
    secure = "https://127.0.0.1:9/file"  # nothing listens there
    with pytest.raises(download.DownloadError, match=r"\(http://127"):  # the last of the round
        download.fetch([url + "absent", secure], [tmp_path], "file", None)


def small_mnist(monkeypatch, folder):
    """Files in MNIST's format, of 2,100 black images, that pass for the originals."""
    folder.mkdir(parents=True)
    for name in list(mnist.FILES):
        content = bytes(16) + bytes(2100 * 784) if "images" in name else bytes(8) + bytes(2100)
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        monkeypatch.setitem(mnist.FILES, name, digest(content))
        packed = hashlib.md5((folder / f"{name}.gz").read_bytes()).hexdigest()
        resources = [(n, packed if n == f"{name}.gz" else m) for n, m in MNIST.resources]
        monkeypatch.setattr(MNIST, "resources", resources)


def test_the_missing_files_of_a_cut_download_are_fetched(serve, online, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "LIMIT", 2**20)
    folder, url = serve()
    small_mnist(monkeypatch, folder / "mnist")
    monkeypatch.setattr(MNIST, "mirrors", [url + "absent/", url + "mnist/"])
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    first = "train-images-idx3-ubyte.gz"
    (raw / first).write_bytes((folder / "mnist" / first).read_bytes())
    monkeypatch.setenv("MAELIB_OFFLINE", "1")
    found = dataset.load("auto", [tmp_path / "data"])
    assert found.name == "digits"
    assert "in place of MNIST: train-labels-idx1-ubyte.gz was not found" in found.source
    monkeypatch.delenv("MAELIB_OFFLINE")
    assert dataset.load("auto", [tmp_path / "data"]).name == "mnist"
    assert len(list(raw.iterdir())) == 4
    for root in (tmp_path / "data" / "MNIST", raw):  # MAELIB_DATA may point at either
        assert dataset.load("mnist", [root], download=False).name == "mnist"


def test_processed_files_of_torchvision_are_not_read(tmp_path, monkeypatch):
    small_mnist(monkeypatch, tmp_path / "MNIST" / "raw")
    processed = tmp_path / "MNIST" / "processed"
    processed.mkdir()
    for name in ("training.pt", "test.pt"):
        torch.save((torch.full((2, 28, 28), 9), torch.zeros(2)), processed / name)
    assert dataset.load("mnist", [tmp_path]).train.images.max() == 0


def test_a_packed_file_is_unpacked_only_so_far(tmp_path, monkeypatch):
    small_mnist(monkeypatch, tmp_path / "raw")
    monkeypatch.setattr(mnist, "LIMIT", 1000)  # as if it held terabytes
    with pytest.raises(
        ValueError, match=r"idx3-ubyte\.gz is not an intact file of MNIST .*truncated or altered"
    ):
        dataset.load("mnist", [tmp_path / "raw"])


def test_the_fixed_binarisation_of_mnist_has_its_own_split_and_no_labels(tmp_path, monkeypatch):
    folder = tmp_path / "binarized_mnist"
    folder.mkdir()
    for count, part in enumerate(list(mnist.STATIC_PARTS), 2):
        content = (b" ".join([b"0 1"] * 392) + b"\n") * count
        (folder / f"binarized_mnist_{part}.amat").write_bytes(content)
        monkeypatch.setitem(mnist.STATIC_PARTS, part, digest(content))
    found = dataset.load("mnist_static", [tmp_path])
    assert [len(part) for part in (found.train, found.val, found.test)] == [2, 3, 4]
    assert found.test.images[3, 0, 27, -2:].tolist() == [0, 255]
    assert torch.equal(dataset.as_input(found.test.images), found.test.images / 255)
    assert found.train.labels.tolist() == [0, 0]
    other = b" 0" * 784
    (folder / "binarized_mnist_test.amat").write_bytes(other)
    monkeypatch.setitem(mnist.STATIC_PARTS, "test", digest(other))
    with pytest.raises(ValueError, match="other characters than 0 and 1"):
        dataset.load("mnist_static", [tmp_path])
    (folder / "binarized_mnist_test.amat").write_bytes(b"0 1\n")
    with pytest.raises(ValueError, match=r"test\.amat is not the fixed binarisation.*SHA-256"):
        dataset.load("mnist_static", [tmp_path])


class Evil:
    def __reduce__(self):
        return print, ("code of the file ran",)


def test_a_batch_of_cifar_10_may_hold_arrays_and_nothing_that_runs(capsys):
    content = cifar_batch(1)
    images, labels = cifar10._batch(content, digest(content))
    assert images.flatten()[:3].tolist() == [0, 1, 2]
    assert labels.tolist() == [3]
    evil = pickle.dumps(Evil(), 2)
    with pytest.raises(pickle.UnpicklingError, match="asks for __builtin__"):
        cifar10._batch(evil, digest(evil))
    with pytest.raises(ValueError, match="SHA-256"):
        cifar10._batch(content, digest(evil))
    assert capsys.readouterr().out == ""


def cifar_batch(count):
    """A batch of ``count`` images, its array named as NumPy was when CIFAR-10 was made."""
    pixels = np.arange(3072 * count, dtype=np.uint32).astype(np.uint8).reshape(count, 3072)
    content = pickle.dumps({"data": pixels, "labels": [3] * count}, 3)
    return content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


@pytest.mark.parametrize("packed", [False, True])
def test_cifar_10_comes_from_its_files_or_from_its_archive(packed, tmp_path, monkeypatch):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in list(cifar10.FILES):
        content = cifar_batch(500)
        (folder / name).write_bytes(content)
        monkeypatch.setitem(cifar10.FILES, name, digest(content))
    if packed:
        with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as archive:
            archive.add(folder, folder.name)
        shutil.rmtree(folder)
    found = dataset.load("cifar10", [tmp_path])
    assert [len(part) for part in (found.train, found.val, found.test)] == [500, 2000, 500]
    path = next(tmp_path.glob("*.tar.gz"), folder / "data_batch_3")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(
        ValueError, match=f"{path.name} is not an intact file of CIFAR-10 .*delete it"
    ):
        dataset.load("cifar10", [tmp_path])


def test_omniglot_is_read_from_checked_archives_only(tmp_path, monkeypatch):
    for number, name in enumerate(list(Omniglot.zips_md5)):
        path = tmp_path / "omniglot-py" / f"{name}.zip"
        path.parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(path, "w") as archive:
            png = io.BytesIO()
            Image.new("1", (105, 105), 1).save(png, "png")
            archive.writestr(f"{name}/alphabet{number}/character01/0001_01.png", png.getvalue())
        md5 = hashlib.md5(path.read_bytes()).hexdigest()
        monkeypatch.setitem(Omniglot.zips_md5, name, md5)
    drawings, labels = omniglot.read_archives([tmp_path], download=False)
    assert drawings.shape == (2, 105, 105)
    assert drawings.max() == 0
    assert labels.tolist() == [0, 1]
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ValueError, match=r"images_evaluation\.zip is not an archive of OMNIGLOT"):
        omniglot.read_archives([tmp_path], download=False)


def test_binarise_is_a_fresh_draw_with_the_pixels_mean():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).repeat(20_000, 1)
    noise = rng.generator(0, "test")
    first, second = dataset.binarise(images, noise), dataset.binarise(images, noise)
    assert set(first.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(first, second)
    torch.testing.assert_close(first.mean(0), torch.tensor([0.0, 0.2, 1.0]), atol=0.02, rtol=0)


def write_chardata(path, train=30, test=10, **changes):
    from scipy.io import savemat

    random = np.random.default_rng(0)
    images = random.random((784, train + test))
    target = np.eye(50)[:, random.integers(0, 50, train + test)]
    content = {
        "data": images[:, :train], "target": target[:, :train],
        "testdata": images[:, train:], "testtarget": target[:, train:],
    }  # fmt: skip
    savemat(path, content | changes)
    return images, target


def test_chardata_columns_are_images_in_fortran_order(tmp_path):
    images, target = write_chardata(tmp_path / "chardata.mat")
    train, test, _ = omniglot.read_burda(tmp_path / "chardata.mat", (30, 10))
    assert train.images.shape == (30, 1, 28, 28)
    assert test.images.shape == (10, 1, 28, 28)
    first = np.rint(images[:, 0].reshape(28, 28, order="F") * 255)
    assert np.array_equal(train.images[0, 0].numpy(), first)
    assert train.labels[3] == target[:, 3].argmax()


@pytest.mark.parametrize(
    "changes", [{"data": np.zeros((783, 30))}, {"testdata": np.full((784, 10), 2.0)}]
)
def test_a_foreign_chardata_is_named(changes, tmp_path):
    write_chardata(tmp_path / "chardata.mat", **changes)
    with pytest.raises(ValueError, match=r"chardata\.mat is not Burda.*does not hold"):
        omniglot.read_burda(tmp_path / "chardata.mat", (30, 10))


@pytest.mark.parametrize("seed", range(3))
def test_an_altered_chardata_is_one_sentence_or_still_ten_images(seed, tmp_path):
    path = tmp_path / "chardata.mat"
    write_chardata(path)
    random, content = np.random.default_rng(seed), bytearray(path.read_bytes())
    for position in random.integers(0, 400, 8):
        content[position] = random.integers(256)
    path.write_bytes(content)
    said, test = "", []
    try:
        _, test, _ = omniglot.read_burda(path, (30, 10))
    except ValueError as sentence:
        said = str(sentence)
    assert len(test) == 10 or "chardata.mat is not Burda et al.'s OMNIGLOT" in said


def test_a_truncated_chardata_is_named(tmp_path):
    path = tmp_path / "chardata.mat"
    write_chardata(path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"chardata\.mat is not Burda"):
        omniglot.read_burda(path, (30, 10))


def test_shrinking_keeps_the_share_of_ink():
    drawing = torch.zeros(1, 105, 105, dtype=torch.uint8)
    drawing[:, :, :15] = 1  # the left seventh
    small = omniglot.shrink(drawing)
    assert small.shape == (1, 1, 28, 28)
    assert (small[..., :4] == 255).all()
    assert (small[..., 4:] == 0).all()


@pytest.mark.parametrize("name", ["omniglot", "omniglot_lake"])
def test_missing_omniglot_is_one_sentence(name, tmp_path, monkeypatch):
    monkeypatch.setenv("MAELIB_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match=r"was not found.*omniglot.*MAELIB_DATA"):
        dataset.load(name, [tmp_path])


def test_omniglot_lake_is_complete():
    try:
        lake = dataset.load("omniglot_lake", download=False)
    except FileNotFoundError:
        pytest.skip("OMNIGLOT's drawings are not in a data folder")
    assert [len(part) for part in (lake.train, lake.val, lake.test)] == [22_000, 2_345, 8_070]
    assert 0.05 < lake.train.images.float().mean() / 255 < 0.12
