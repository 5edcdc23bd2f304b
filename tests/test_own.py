"""A user's own pictures: what is read, what is refused, and that the networks fit them."""

import copy
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import silent
from PIL import Image

import maelib
from maelib import cli, config, model
from maelib.data import dataset, own
from maelib.experiments import images_of
from maelib.internal import rng
from maelib.measure import evaluation, sampling
from maelib.report import tables
from maelib.runs.run import run
from maelib.runs.weights import load_model
from maelib.training import state


def discs(count, side, colour=False):
    """Pictures of discs, [count, side, side] or [count, side, side, 3], uint8."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:side, :side]
    centres, radii = random.uniform(0.3, 0.7, (2, count, 1, 1)), random.uniform(0.1, 0.3, count)
    far = np.hypot(rows / side - centres[0], columns / side - centres[1])
    grey = (255 * (far < radii[:, None, None])).astype(np.uint8)
    return grey[..., None] * random.random((count, 1, 1, 3)) // 1 if colour else grey


def write_folder(folder, pictures):
    folder.mkdir(parents=True)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture.astype(np.uint8)).save(folder / f"{number:03}.png")
    return folder


@pytest.mark.parametrize("kind", ["folder", "npz", "npy", "fractions", "channels first"])
@pytest.mark.parametrize("colour", [False, True])
def test_a_folder_and_an_array_of_the_same_pictures_are_one_data_set(kind, colour, tmp_path):
    pictures = discs(40, 20, colour).astype(np.uint8)
    path = tmp_path / "my pictures (1)" / f"x.{kind}"
    path.parent.mkdir()
    if kind == "folder":
        write_folder(path, pictures)
    elif kind == "npz":
        np.savez(path, images=pictures)
    elif kind == "npy":
        np.save(path, pictures)
    else:
        path = path.with_suffix(".npz")
        first = pictures.reshape(40, 20, 20, -1).transpose(0, 3, 1, 2)
        np.savez(path, images=pictures / 255 if kind == "fractions" else first)
    found = dataset.load(str(path))
    assert [len(part) for part in (found.train, found.val, found.test)] == [32, 4, 4]
    assert found.train.images.shape[1:] == (3 if colour else 1, 20, 20)
    c = config.resolve("smoke", str(path))
    assert (c.network.is_colour, c.network.side) == (colour, 20)
    write_folder(tmp_path / "again", pictures)
    assert found.digest == dataset.load(tmp_path / "again").digest


def test_subfolders_and_an_array_of_labels_are_labels(tmp_path):
    pictures = discs(20, 16)
    write_folder(tmp_path / "all" / "a", pictures[:5])
    write_folder(tmp_path / "all" / "b", pictures[5:])
    np.savez(tmp_path / "all.npz", images=pictures, labels=np.array(["x"] * 5 + ["y"] * 15))
    for path in (tmp_path / "all", tmp_path / "all.npz"):
        _, labels, names = own.read(path)
        assert labels.bincount().tolist() == [5, 15]
        assert len(names) == 20


def test_hidden_folders_are_not_read(tmp_path):
    write_folder(tmp_path / "all", discs(20, 16))
    write_folder(tmp_path / "all" / ".thumbnails", discs(2, 16))
    assert len(own.read(tmp_path / "all")[0]) == 20


def test_the_content_of_a_file_tells_npz_from_npy(tmp_path):
    pictures = discs(20, 16).astype(np.uint8)
    np.savez(tmp_path / "a.npz", images=pictures)
    renamed = (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    assert own.look(renamed) == (False, 16)
    assert np.array_equal(own.read(renamed)[0][:, 0], pictures)


def test_a_path_is_found_from_home_and_from_the_project(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_folder(tmp_path / "pictures", discs(20, 16))
    monkeypatch.chdir(tmp_path)
    for path in ("~/pictures", "pictures", "./pictures"):
        assert config.resolve("smoke", path).data.name == str(tmp_path / "pictures")


def test_the_key_is_of_the_pictures_and_not_of_their_place(tmp_path):
    first = config.resolve("smoke", str(write_folder(tmp_path / "a" / "x", discs(20, 16))))
    other = config.resolve("smoke", str(write_folder(tmp_path / "b" / "x", discs(20, 16))))
    assert first.name("digest") == other.name("digest")
    assert first.name("digest").startswith("own-x-mae-a1-b0.5-s0-")
    assert first.key("digest") != first.key("other pictures")


def damaged(folder, damage):
    pictures = discs(20, 20)
    if damage == "empty":
        folder.mkdir()
        return
    write_folder(folder, pictures[:10] if damage == "few" else pictures)
    if damage == "other size":
        Image.new("L", (21, 21)).save(folder / "999.png")
    elif damage == "not square":
        Image.new("L", (20, 30)).save(folder / "000.png")
    elif damage == "large":
        Image.new("L", (65, 65)).save(folder / "000.png")
    elif damage == "one in colour":
        Image.new("RGB", (20, 20)).save(folder / "999.png")
    elif damage == "transparent":
        Image.new("RGBA", (20, 20)).save(folder / "000.png")
    elif damage == "unreadable":
        (folder / "010.png").write_bytes((folder / "010.png").read_bytes()[:60])


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("empty", "the folder x holds no pictures"),
        ("few", "x holds 10 pictures; at least 20"),
        ("other size", r"999\.png is grey, 21x21, but 000\.png is grey, 20x20; all"),
        ("one in colour", r"999\.png is RGB, 20x20, but 000\.png is grey, 20x20; all"),
        ("not square", r"000\.png has pictures of 30x20 pixels; they must be square"),
        ("large", r"000\.png has pictures of 65x65 pixels; .* a side of 16 to 64"),
        ("transparent", r"000\.png has the mode RGBA; save it as grey \(L\) or as RGB"),
        ("unreadable", r"010\.png is not a readable picture"),
    ],
)
def test_a_folder_of_unfit_pictures_is_one_sentence(damage, sentence, tmp_path, capsys):
    damaged(tmp_path / "x", damage)
    with pytest.raises(ValueError, match=sentence):
        dataset.load(str(tmp_path / "x"))
    assert cli.main(["train", "--preset", "smoke", "--dataset", str(tmp_path / "x")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def asking_for(count):
    """A .npz file whose header announces ``count`` pictures, of which none is there."""
    header, packed = io.BytesIO(), io.BytesIO()
    about = {"descr": "|u1", "fortran_order": False, "shape": (count, 20, 20)}
    np.lib.format.write_array_header_1_0(header, about)
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("images.npy", header.getvalue())
    return packed.getvalue()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"images": np.zeros((20, 20), np.uint8)}, r"images of shape \(20, 20\)"),
        ({"images": np.zeros((20, 20, 20, 4), np.uint8)}, r"images of shape \(20, 20, 20, 4\)"),
        ({"images": np.full((20, 20, 20), 300)}, "outside their range"),
        ({"images": np.full((20, 20, 20), 2.0)}, "outside their range"),
        ({"images": np.full((20, 20, 20), np.nan)}, "outside their range"),
        ({"images": np.zeros((20, 20, 20)) + 1j}, "outside their range"),
        ({"images": np.zeros((0, 20, 20))}, "holds no pictures"),
        ({"images": np.eye(20, dtype=int)[None]}, "whole numbers 0 and 1; save them as booleans"),
        ({"images": np.array([None] * 20)}, "is not a readable array"),
        ({"pixels": np.zeros((20, 20, 20))}, "calls it 'images'"),
        ({"images": np.zeros((20, 20, 20)), "labels": np.zeros(3)}, r"labels of shape \(3,\)"),
        ({"images": np.zeros((20, 8, 8))}, "8x8 pixels"),
        (b"PK\3\4 cut off", "is not a readable array"),
        (b"", "is not a readable array"),
        (asking_for(10**12), r"is not a readable array .*Unable to allocate"),
    ],
)
def test_an_array_of_unfit_pictures_is_one_sentence(content, sentence, tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, **content) if isinstance(content, dict) else path.write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        dataset.load(str(path))
    with pytest.raises(ValueError, match=sentence):
        config.resolve("smoke", str(path))


def test_a_path_that_holds_no_pictures_lists_what_there_is(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "loop").symlink_to("loop")
    np.save(tmp_path / os.fsdecode(b"\xff.npy"), np.zeros((20, 16, 16), np.uint8))
    for path in ("nowhere", *sorted(tmp_path.iterdir()), "~nobody-of-this-name/x"):
        with pytest.raises(ValueError, match=r"one of auto, mnist.*or the path of your own"):
            config.resolve("smoke", str(path))


@pytest.mark.parametrize("side", [16, 17, 23, 30, 64])
@pytest.mark.parametrize("decoder", ["resnet", "pixelcnn", "pixelcnnpp-7x3", "pixelcnnpp"])
def test_networks_fit_images_of_every_size(side, decoder, tmp_path):
    colour = decoder.startswith("pixelcnnpp")
    np.save(tmp_path / "x.npy", discs(20, side, colour).astype(np.uint8))
    c = config.resolve("smoke", str(tmp_path / "x.npy"), decoder=decoder)
    net = model.build(c.network)
    x = dataset.as_input(dataset.load(c.data.name).val.images)
    outputs = net(x, torch.randn(2, c.network.latent))
    assert all(part.isfinite().all() for part in outputs)
    assert net.decoder.shape == x.shape[1:]
    if side == 17:
        assert sampling.sample(net, 2, rng.generator(0)).shape == x.shape


def causal(net, x, z):
    """Whether no pixel's output changes with the pixels from it on."""
    x = x.clone().requires_grad_()
    row, column = x.shape[2] // 2, x.shape[3] - 1
    net.decoder(z, x)[:, :, row, column].sum().backward()
    seen = x.grad.abs().sum((0, 1))
    return float(seen[row, column:].sum() + seen[row + 1 :].sum()) == 0 and float(seen.sum()) > 0


@pytest.mark.parametrize("decoder", ["pixelcnnpp-7x3", "pixelcnnpp"])
def test_colour_decoders_of_odd_sizes_see_only_the_pixels_before(decoder, tmp_path):
    np.save(tmp_path / "x.npy", discs(20, 19, True).astype(np.uint8))
    c = config.resolve("smoke", str(tmp_path / "x.npy"), decoder=decoder)
    net = model.build(c.network)
    x = dataset.as_input(dataset.load(c.data.name).val.images)
    model.initialise(net, x, torch.randn(2, c.network.latent))
    assert causal(copy.deepcopy(net), x, torch.randn(2, c.network.latent))


@pytest.mark.parametrize(("side", "colour"), [(20, False), (48, True)])
def test_a_run_on_own_pictures_is_never_beside_the_paper(side, colour, tmp_path, capsys):
    path = write_folder(tmp_path / "my pictures", discs(60, side, colour))
    how = ["--preset", "smoke", "--dataset", str(path), "--out-dir", str(tmp_path / "runs")]
    assert cli.main(["train", *how]) == 0
    assert "mae-a1-b0.5 on own-my-pictures, preset smoke" in capsys.readouterr().out
    assert cli.main(["train", *how]) == 0
    c = config.resolve("smoke", str(path))
    record, _, _ = run(c, out_dir=tmp_path / "runs", log=silent)
    assert ("bpd" in record.measurements) == colour
    assert images_of(c.data.name) is None
    assert list(tables.compare(record)) == ["ours (own-my-pictures, smoke)"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folders of grey pictures and of the run that was trained on them."""
    folder = tmp_path_factory.mktemp("own")
    path = write_folder(folder / "pictures", discs(40, 16))
    c = config.resolve("smoke", path)
    record, _, _ = run(c, out_dir=folder / "runs", log=silent)
    return str(path), str(folder / "runs" / "smoke" / record.name)


def test_codes_of_pictures_are_those_of_the_model_whatever_holds_them(finished, tmp_path):
    path, folder = finished
    out = tmp_path / "codes.npz"
    assert cli.main(["encode", path, "--model", folder, "--nll-k", "3", "--out", str(out)]) == 0
    codes, net = np.load(out), load_model(Path(folder))
    x = evaluation.test_images(own.read(Path(path))[0])
    _, kl, mu, logvar = evaluation.elbo_terms(net, x)
    assert codes["names"][:2].tolist() == ["000.png", "001.png"]
    for name, value in {"kl": kl, "mu": mu, "logvar": logvar}.items():
        np.testing.assert_allclose(codes[name], value, atol=1e-5)
    assert codes["nll"].shape == (40,)
    again = maelib.encode(net, own.read(Path(path))[0])
    assert np.array_equal(again["mu"], codes["mu"])


def test_reconstructions_and_samples_are_written_as_asked(finished, tmp_path):
    path, folder = finished
    for command in (["reconstruct", path, "--model", folder], ["sample", folder, "--count", "40"]):
        for name in ("grid.png", "all.npz", "single"):
            assert cli.main([*command, "--out", str(tmp_path / command[0] / name)]) == 0
        found = np.load(tmp_path / command[0] / "all.npz")["images"]
        files = sorted((tmp_path / command[0] / "single").iterdir())
        assert found.shape == (40, 16, 16)
        assert np.array_equal(np.stack([np.asarray(Image.open(f)) for f in files]), found)
        with Image.open(tmp_path / command[0] / "grid.png") as grid:
            assert grid.width > 6 * 16
    reconstructed = maelib.reconstruct(load_model(Path(folder)), path)
    assert np.array_equal(reconstructed, np.load(tmp_path / "reconstruct" / "all.npz")["images"])


def test_temperature_scales_the_noise_of_the_prior():
    net = model.build(config.resolve("smoke", "digits", prior="normal").network)
    whole, half = (net.prior.sample(5, rng.generator(0), t) for t in (1.0, 0.5))
    assert torch.equal(half, whole / 2)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["sample", "RUN", "--count", "0"], "count is 0"),
        (["sample", "RUN", "--seed", "-1"], "seed is -1"),
        (["sample", "RUN", "--temperature", "nan"], "temperature is nan"),
        (["sample", "RUN", "--out", "x.gif"], "out is 'x.gif'; it must end in .png, .npz"),
        (["sample", "RUN", "--out", "/proc/no/x.png"], "which cannot be written"),
        (["sample", "RUN", "--out", "used"], "a folder that is in use"),
        (["sample", "RUN", "--out", "~/used"], "used', a folder that is in use"),
        (["evaluate", "RUN", "--nll-k", "-5"], "nll_k is -5"),
        (["evaluate", "RUN", "--nll-k", "0"], "nll_k is 0"),
        (["evaluate", "RUN", "--nll-images", "-3"], "nll_images is -3"),
        (["encode", "digits", "--model", "RUN", "--nll-k", "0"], "nll_k is 0"),
        (["encode", "digits", "--model", "RUN", "--out", "x.png"], "it must end in .npz"),
        (["train", "--max-minutes", "-1"], "max_minutes is -1.0"),
        (["train", "--checkpoint-minutes", "nan"], "checkpoint_minutes is nan"),
    ],
)
def test_every_number_and_path_is_checked_before_anything_is_opened(
    arguments, sentence, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    assert cli.main(arguments) == 2  # and not that there is no RUN
    assert sentence in capsys.readouterr().err


def test_an_array_of_pictures_may_be_of_bytes_or_of_fractions_and_of_nothing_else(finished):
    path, folder = finished
    net, pixels = load_model(Path(folder)), own.read(Path(path))[0]
    right = maelib.encode(net, pixels)["mu"]
    for like in (pixels[:, 0], pixels.numpy(), pixels[:, 0].numpy() / 255):
        assert np.array_equal(maelib.encode(net, like)["mu"], right)
    for unlike in (pixels.float(), pixels / 127.5 - 1, pixels.long() + 1):
        with pytest.raises(ValueError, match="the pixels of images are outside their range"):
            maelib.encode(net, unlike)
    with pytest.raises(ValueError, match=r"images holds images of shape \(16, 16\)"):
        maelib.reconstruct(net, pixels[0, 0])
    with pytest.raises(ValueError, match="nll_k is 0"):
        maelib.encode(net, pixels, nll_k=0)


@pytest.mark.parametrize("change", [lambda x: x[..., :15], lambda x: 255 * x, lambda x: 2 * x - 1])
def test_a_model_refuses_images_of_another_shape_or_range(finished, change):
    net = load_model(Path(finished[1]))
    x = evaluation.test_images(own.read(Path(finished[0]))[0])
    for call in (net.encode, lambda x: net(x, torch.zeros(len(x), 32))):
        with pytest.raises(ValueError, match=r"the model takes \(1, 16, 16\), floats from 0 to 1"):
            call(change(x))


def test_a_closed_output_is_no_error():
    command = f"{shlex.quote(sys.executable)} -m maelib data digits | head -c 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("d", "")
    command = command.replace("| head -c 1", ">&-")
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_run_may_begin_with_another_model_s_weights_and_its_key_says_so(finished, tmp_path):
    path, folder = finished
    other = write_folder(tmp_path / "others", 255 - discs(40, 16))
    c = config.resolve("smoke", other, init_from=folder, epochs=2)
    assert c.network == config.resolve("smoke", path).network
    assert c.key("d") != config.resolve("smoke", other, epochs=2).key("d")
    images = dataset.load(other).train.images
    begun, before = state.start(c, images, torch.device("cpu")), load_model(Path(folder))
    for ours, theirs in zip(begun.model.parameters(), before.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    record, net, _ = run(c, out_dir=tmp_path / "runs", log=silent)
    assert record.config.training.init_weights
    assert not torch.equal(net.encoder.features.bias, before.encoder.features.bias)
    moved = Path(shutil.copytree(folder, tmp_path / "moved" / Path(folder).name))
    assert config.resolve("smoke", other, init_from=str(moved), epochs=2).key("d") == c.key("d")
    (moved / "model.safetensors").write_bytes(b"cut off")
    damaged = config.resolve("smoke", other, init_from=str(moved), epochs=3)
    with pytest.raises(ValueError, match=r"model\.safetensors is not the model that this run"):
        run(damaged, out_dir=tmp_path / "runs", log=silent)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"init_from": "nonesuch"}, "init_from is 'nonesuch'; it must be the folder of a finished"),
        ({"latent": 8}, "latent is 8, but 32 in the model that init_from names"),
        ({"dataset": "digits"}, "the side of the images is 28, but 16 in the model"),
        ({"dataset": "photos"}, "is for binary images|encoder is|cannot draw"),
        ({"objective": "bn"}, "which needs the posterior bn, but the model .* has gaussian"),
        ({"objective": "vae"}, "which needs the decoder resnet, but the model .* has pixelcnn"),
    ],
)
def test_a_model_that_does_not_fit_is_no_beginning(finished, changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        config.resolve(
            **{"preset": "smoke", "dataset": finished[0], "init_from": finished[1]} | changes
        )


def test_a_run_is_not_measured_on_data_that_have_changed(tmp_path, capsys):
    np.save(tmp_path / "x.npy", discs(40, 16).astype(np.uint8))
    c = config.resolve("smoke", str(tmp_path / "x.npy"))
    record, _, _ = run(c, out_dir=tmp_path / "runs", log=silent)
    folder = str(tmp_path / "runs" / "smoke" / record.name)
    assert cli.main(["evaluate", folder]) == 0
    np.save(tmp_path / "x.npy", discs(60, 16).astype(np.uint8))
    assert cli.main(["evaluate", folder]) == 2
    assert "own-x is not the data that" in capsys.readouterr().err


def test_a_pretrained_model_may_be_trained_further_at_any_preset():
    c = config.resolve("smoke", "digits", init_from="mnist-vlae")
    assert c.network.encoder_hidden == 256
    begun = state.start(c, dataset.load("digits").train.images, torch.device("cpu"))
    assert torch.equal(
        begun.model.encoder.features.bias, maelib.load("mnist-vlae").encoder.features.bias
    )


def test_a_remedy_goes_on_from_a_model_with_another_hyper_parameter():
    c = config.resolve("smoke", "digits", "du", init_from="mnist-du-gamma0.4")
    assert (c.network.posterior, c.network.gamma) == ("du", 0.4)


def test_the_example_of_the_documentation_runs_as_it_stands(tmp_path):
    page = (Path(__file__).parents[1] / "docs" / "own_pictures.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(python|bash)\n(.*?)```", page, re.DOTALL)
    make, *commands, use = [text for _, text in blocks]
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    (bin_dir / "maelib").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m maelib "$@"\n')
    (bin_dir / "maelib").chmod(0o755)
    path = {**os.environ, "PATH": f"{bin_dir}:{os.environ['PATH']}"}
    path["PYTHONPATH"] = str(Path(__file__).parents[1])
    script = "set -e\n" + "".join(commands)
    for command in ([sys.executable, "-c", make], ["bash", "-c", script]):
        done = subprocess.run(command, cwd=tmp_path, env=path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [sys.executable, "-c", use], cwd=tmp_path, env=path, capture_output=True, text=True
    )
    assert done.stdout == "(200, 32)\n", done.stderr
    assert len(list((tmp_path / "samples").iterdir())) == 16
    assert len(list((tmp_path / "runs" / "smoke").iterdir())) == 2
