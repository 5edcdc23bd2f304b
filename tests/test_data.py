import gzip
import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch

from maelib.data import dataset, download, mnist, omniglot
from maelib.internal import paths, rng


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class CutShort(Quiet):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"half")


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
    assert "MNIST not found" in found.source


def test_mnist_that_is_nowhere_is_a_clear_error(no_data):
    with pytest.raises(FileNotFoundError, match=r"MNIST was not found.*MAELIB_DATA"):
        dataset.load("mnist")


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"dataset is 'cifar'.*mnist"):
        dataset.load("cifar")


@pytest.mark.fault("data file altered")
def test_truncated_mnist_is_an_error_even_for_auto(no_data):
    raw = no_data / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte").write_bytes(b"\0\0\b\3")
    with pytest.raises(OSError, match=r"train-images-idx3-ubyte is truncated or altered"):
        dataset.load("auto")


def test_missing_sibling_is_named(no_data, monkeypatch):
    name = "t10k-images-idx3-ubyte"
    raw = no_data / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / f"{name}.gz").write_bytes(b"x")
    with pytest.raises(OSError, match=r"train-images-idx3-ubyte.gz is missing"):
        dataset.load("mnist")


@pytest.mark.fault("data file altered")
@pytest.mark.parametrize("damage", ["cut off", "other bytes", "no gzip"])
def test_a_packed_file_is_read_and_checked(tmp_path, damage):
    path, content = tmp_path / "labels", bytes(8) + b"\1\2"
    packed, compressed = tmp_path / "labels.gz", gzip.compress(content)
    packed.write_bytes(compressed)
    assert mnist._read(path, digest(content)).tolist() == [1, 2]
    other = {"cut off": compressed[:-9], "other bytes": gzip.compress(bytes(10)), "no gzip": b"?"}
    packed.write_bytes(other[damage])
    with pytest.raises(OSError, match=r"labels\.gz is truncated or altered"):
        mnist._read(path, digest(content))


@pytest.mark.fault("data file altered")
def test_an_unpacked_file_is_read_before_a_packed_one_and_checked(tmp_path):
    path, content = tmp_path / "images", bytes(16) + bytes(i % 256 for i in range(2 * 784))
    path.write_bytes(content)
    path.with_name("images.gz").write_bytes(b"?")
    images = mnist._read(path, digest(content))
    assert images.shape == (2, 1, 28, 28)
    assert images[1, 0, 0, :3].tolist() == [784 % 256, 785 % 256, 786 % 256]
    path.write_bytes(content[:-1])
    with pytest.raises(OSError, match="images is truncated or altered"):
        mnist._read(path, digest(content))


def test_real_mnist_if_it_is_here():
    try:
        found = mnist.load(paths.data_roots(), download=False)
    except FileNotFoundError:
        pytest.skip("MNIST is not on this machine")
    assert [len(s) for s in (found.train, found.val, found.test)] == [58_000, 2_000, 10_000]
    assert found.test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert found.train.labels.bincount().min() > 5_000


@pytest.mark.fault("download cut half-way")
def test_download_arrives_whole_or_not_at_all(serve, tmp_path, monkeypatch):
    monkeypatch.delenv("MAELIB_OFFLINE", raising=False)
    folder, url = serve()
    (folder / "file").write_bytes(b"content")
    target = tmp_path / "store" / "file"
    with pytest.raises(download.DownloadError, match=r"could not download file .*known hash"):
        download.fetch([url + "file"], target, digest(b"other"))
    assert list(target.parent.iterdir()) == []
    download.fetch([url + "absent", url + "file"], target, digest(b"content"))
    assert target.read_bytes() == b"content"


@pytest.mark.fault("download cut half-way")
@pytest.mark.parametrize("published", [digest(b"whole"), None], ids=["digest", "no digest"])
def test_download_cut_half_way_leaves_nothing(serve, tmp_path, monkeypatch, published):
    monkeypatch.delenv("MAELIB_OFFLINE", raising=False)
    _, url = serve(CutShort)
    with pytest.raises(download.DownloadError, match="could not download file"):
        download.fetch([url + "file"], tmp_path / "store" / "file", published)
    assert list((tmp_path / "store").iterdir()) == []


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
    train, alphabets, test, _ = omniglot.read_burda(tmp_path / "chardata.mat", (30, 10))
    assert train.shape == (30, 1, 28, 28)
    assert test.shape == (10, 1, 28, 28)
    first = np.rint(images[:, 0].reshape(28, 28, order="F") * 255)
    assert np.array_equal(train[0, 0].numpy(), first)
    assert alphabets[3] == target[:, 3].argmax()


@pytest.mark.parametrize(
    "changes", [{"data": np.zeros((783, 30))}, {"testdata": np.full((784, 10), 2.0)}]
)
def test_a_foreign_chardata_is_named(changes, tmp_path):
    write_chardata(tmp_path / "chardata.mat", **changes)
    with pytest.raises(OSError, match=r"chardata\.mat does not hold"):
        omniglot.read_burda(tmp_path / "chardata.mat", (30, 10))


def test_a_truncated_chardata_is_named(tmp_path):
    path = tmp_path / "chardata.mat"
    write_chardata(path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(OSError, match=r"chardata\.mat is truncated"):
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
    with pytest.raises(FileNotFoundError, match=r"OMNIGLOT was not found.*MAELIB_DATA"):
        dataset.load(name, [tmp_path])


def test_omniglot_lake_is_complete():
    try:
        lake = dataset.load("omniglot_lake", download=False)
    except FileNotFoundError:
        pytest.skip("OMNIGLOT's drawings are not in a data folder")
    assert [len(part) for part in (lake.train, lake.val, lake.test)] == [22_000, 2_345, 8_070]
    assert 0.05 < lake.train.images.float().mean() / 255 < 0.12
