"""Models that come with the project: exported, found by name, and loaded."""

import shutil
from dataclasses import asdict, replace

import pytest
import torch
from helpers import silent, smoke
from safetensors.torch import load_file, save_file

import maelib
from maelib import cli
from maelib.internal.files import sealed
from maelib.measure import evaluation
from maelib.runs import pretrained
from maelib.runs import record as records
from maelib.runs.pretrained import find_pretrained
from maelib.runs.run import run
from maelib.training.checkpoints import packed


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out_dir = tmp_path_factory.mktemp("runs")
    record, model, images = run(smoke(), out_dir=out_dir, log=silent)
    return record, model, evaluation.test_images(images.test.images[:20])


@pytest.fixture
def exported(finished, tmp_path, monkeypatch):
    record, model, x = finished
    monkeypatch.setattr(pretrained, "TOLERANCE", 1.0)  # five steps leave an NLL of hundreds of nats
    return pretrained.export(model, record, x, tmp_path)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "digits-mae-a1-b0.5"),
        ({"diverse": "mean", "alpha": 2.0}, "digits-mae-a2-b0.5-mean"),
        ({"free_bits": 7.84}, "digits-mae-a1-b0.5-fb7.84"),
        ({"objective": "vlae"}, "digits-vlae"),
        ({"objective": "vlae", "free_bits": 0.0}, "digits-vlae-fb0"),
        ({"objective": "vlae", "prior": "normal"}, "digits-vlae-normal"),
        ({"objective": "vae", "seed": 2}, "digits-vae-s2"),
    ],
)
def test_short_names_leave_defaults_out(settings, name):
    assert smoke(**settings).short_name() == name


def test_an_exported_model_is_loaded_as_it_was_but_for_the_rounding(finished, exported):
    _, model, x = finished
    assert exported.dtype == "float16"
    loaded = pretrained.load("digits-mae-a1-b0.5", folder=exported.path.parent)
    assert not loaded.training
    for name, weight in loaded.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name].half().float())
    moved = evaluation.iw_nll(loaded, x, pretrained.ROUNDING_K) - evaluation.iw_nll(
        model, x, pretrained.ROUNDING_K
    )
    assert abs(float(moved.mean()) - exported.shift) < 1e-4
    assert 0 < abs(exported.shift) < pretrained.TOLERANCE


def test_weights_that_float16_would_spoil_stay_float32(finished, tmp_path, monkeypatch):
    record, model, x = finished
    monkeypatch.setattr(pretrained, "TOLERANCE", 0.0)
    kept = pretrained.export(model, record, x, tmp_path)
    assert (kept.dtype, kept.shift) == ("float32", 0.0)
    for name, weight in kept.load().state_dict().items():
        assert torch.equal(weight, model.state_dict()[name])


def test_the_run_s_own_name_finds_it_too(finished, exported):
    assert pretrained.find(finished[0].name, exported.path.parent) == exported


def test_an_unknown_name_lists_the_known_ones(exported):
    with pytest.raises(
        ValueError, match=r"'mnist' is not a pretrained model; .*digits-mae-a1-b0.5"
    ):
        pretrained.load("mnist", folder=exported.path.parent)


@pytest.mark.parametrize("damage", ["truncated", "foreign", "other weights"])
def test_a_damaged_file_is_named_with_the_remedy(exported, damage):
    path = exported.path
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:100])
    elif damage == "foreign":
        save_file({"weight": torch.zeros(3)}, path)
    else:
        half = dict(list(load_file(path).items())[:3])
        content = {k: v for k, v in asdict(exported).items() if k != "path"}
        path.write_bytes(packed(half, {"maelib": sealed(content)}))
    with pytest.raises(ValueError, match=r"digits-mae-a1-b0.5.safetensors .*git checkout"):
        pretrained.load("digits-mae-a1-b0.5", folder=path.parent)


def test_a_model_under_another_model_s_name_is_not_taken_for_it(exported):
    path = exported.path.rename(exported.path.with_stem("digits-vlae"))
    with pytest.raises(
        ValueError, match=r"digits-vlae.* \(it holds the model digits-mae-a1-b0\.5\)"
    ):
        pretrained.load("digits-vlae", folder=path.parent)


@pytest.mark.parametrize("header", [None, {}, {"maelib": "null"}, {"maelib": "{}"}])
def test_a_foreign_file_disables_no_other_model(exported, header):
    save_file({"weight": torch.zeros(3)}, exported.path.with_name("a.safetensors"), header)
    exported.path.with_name(".b.safetensors.1.part").write_bytes(b"cut off")
    with pytest.warns(UserWarning, match=r"skipped: .*/a\.safetensors is not a pretrained model"):
        assert pretrained.pretrained_models(exported.path.parent) == [exported]
    loaded = pretrained.load("digits-mae-a1-b0.5", folder=exported.path.parent)
    assert not loaded.training


def test_an_export_never_takes_the_place_of_another_run_s_model(finished, exported):
    record, model, x = finished
    other = replace(record, name="digits-mae-a1-b0.5-s0-other")
    before = exported.path.read_bytes()
    with pytest.raises(ValueError, match=r"digits-mae-a1-b0.5.safetensors holds the model of run"):
        pretrained.export(model, other, x, exported.path.parent)
    assert exported.path.read_bytes() == before


def test_models_of_two_presets_stand_side_by_side(finished, exported):
    record, model, x = finished
    config = replace(record.config, preset="quick")
    larger = replace(record, name="digits-mae-a1-b0.5-s0-larger", config=config)
    folder = exported.path.parent
    found = pretrained.export(model, larger, x, folder)
    assert found.path.stem == "digits-mae-a1-b0.5-quick"
    assert pretrained.find("digits-mae-a1-b0.5-quick", folder) == found
    assert pretrained.find("digits-mae-a1-b0.5", folder) == exported


def test_a_run_takes_the_pretrained_model_only_if_asked_and_never_over_its_own(
    finished, exported, tmp_path, monkeypatch
):
    record = finished[0]
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "checkpoints")
    pretrained.FOLDER.mkdir()
    shutil.copy(exported.path, pretrained.FOLDER)
    monkeypatch.chdir("/")  # what is committed is found from any folder
    said = []
    how = dict(out_dir=tmp_path / "runs", log=said.append)
    assert find_pretrained(record.name, "smoke") is None  # no record is committed yet
    records.publish(record, tmp_path / "results")
    found, model, images = run(smoke(), pretrained=True, **how)
    assert found == record
    assert (images.name, model.training) == ("digits", False)
    assert "float16" in said[-1]
    assert not (tmp_path / "runs").exists()
    other = replace(record, measurements=record.measurements | {"nll": 1.0})
    records.publish(other, tmp_path / "results")  # trained elsewhere: not the pretrained weights
    assert find_pretrained(record.name, "smoke") is None
    trained, _, _ = run(smoke(), **how)
    assert any("training on" in line for line in said)
    run(smoke(), pretrained=True, **how)
    assert said[-1].startswith("finished run found")
    assert trained.measurements == record.measurements


def test_commands_take_a_pretrained_name_and_export_a_run(finished, tmp_path, monkeypatch, capsys):
    record, _, _ = finished
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "checkpoints")
    arguments = ["--preset", "smoke", "--dataset", "digits", "--out-dir", str(tmp_path / "runs")]
    assert cli.main(["train", *arguments]) == 0
    export = ["export", str(tmp_path / "runs" / "smoke" / record.name)]
    (tmp_path / "maelib").mkdir()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path / "maelib")  # a relative path is then of the project
    drawing = ["--count", "1", "--out", str(tmp_path / "one.png")]
    assert cli.main(["sample", f"runs/smoke/{record.name}", *drawing]) == 0
    (tmp_path / "begun").mkdir()
    assert cli.main(["sample", str(tmp_path / "begun"), *drawing]) == 2
    assert "begun is not a finished run" in capsys.readouterr().err
    assert cli.main(["sample", "runs/none", *drawing]) == 2
    assert "there is no folder runs/none, and" in capsys.readouterr().err
    (tmp_path / "pyproject.toml").unlink()
    assert cli.main(export) == 2
    assert "this maelib is installed without it" in capsys.readouterr().err
    assert not pretrained.FOLDER.exists()
    (tmp_path / "pyproject.toml").touch()
    assert cli.main(export) == 0
    assert "digits-mae-a1-b0.5" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "runs")
    png = tmp_path / "some.png"
    assert cli.main(["sample", "digits-mae-a1-b0.5", "--count", "4", "--out", str(png)]) == 0
    assert png.exists()
    assert cli.main(["evaluate", "digits-mae-a1-b0.5", "--nll-k", "4"]) == 0
    assert cli.main(["sample", "digits-mae-a1-b9"]) == 2
    assert "is not a pretrained model; there are: digits-mae-a1-b0.5" in capsys.readouterr().err


def test_every_pretrained_model_loads_and_its_record_is_committed():
    root = pretrained.FOLDER.parent
    models = pretrained.pretrained_models()
    assert models
    for found in models:
        record = records.read(root / "results" / found.config.preset / f"{found.run}.json")
        assert pretrained.model_of(record) == found
        assert record.config == found.config
        assert found.path.stem in pretrained.names(found.config)
        model = maelib.load(found.path.stem)
        assert next(model.parameters()).dtype == torch.float32
    assert sum(found.path.stat().st_size for found in models) < 40 * 2**20
