"""Files that are damaged, swapped or forged: nothing wrong is read from them."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import CPU, silent, smoke

from maelib import cli
from maelib.internal.files import contents, read_json, write_json, write_text
from maelib.runs import pretrained
from maelib.runs import record as records
from maelib.runs.run import run
from maelib.runs.weights import load_model
from maelib.training import checkpoints
from maelib.training.state import restore


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The records of a finished MAE and VLAE, and the folder of their folders."""
    out = tmp_path_factory.mktemp("two")
    settings = (smoke(), smoke(objective="vlae"))
    return [run(s, out_dir=out, log=silent)[0] for s in settings], out / "smoke"


@pytest.fixture
def folders(two, tmp_path):
    """The folders of both runs, to be damaged."""
    copied = Path(shutil.copytree(two[1], tmp_path / "smoke"))
    return [copied / record.name for record in two[0]]


def changed(path, change):
    """Change a record by hand, as if it had never been sealed."""
    content = json.loads(path.read_text())
    del content["sealed"], content["sha256"]
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("name", ["../../../outside", "/outside", "mnist-mae"])
def test_a_record_is_published_under_its_own_name_alone(folders, tmp_path, name):
    result = folders[0] / "result.json"
    changed(result, lambda content: content.update(name=name))
    with pytest.raises(ValueError, match=r"/result.json is not a maelib result \(its name or key"):
        records.read(result)


def test_a_forged_record_is_not_published(two, tmp_path):
    record = two[0][0]
    forged = record.config.on("../../outside")
    for wrong in (replace(record, name="../x"), replace(record, config=forged)):
        with pytest.raises(ValueError, match="its name or key"):
            records.publish(wrong, tmp_path / "results")
    digest = record.data["digest"]
    names = {"name": forged.name(digest), "key": forged.key(digest)}
    wrong = replace(record, config=forged, data=record.data | {"name": "../../outside"}, **names)
    # A data set of this name is a folder of pictures, whose runs are named without its path.
    assert records.publish(wrong, tmp_path / "results").parent == tmp_path / "results" / "smoke"
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_another_run_s_result_is_not_taken_for_this_one_s(two, folders):
    mae, vlae = folders
    (mae / "result.json").write_bytes((vlae / "result.json").read_bytes())
    with pytest.warns(UserWarning, match=f"it is the result of run {vlae.name}"):
        record, _, _ = run(smoke(), out_dir=mae.parents[1], log=silent)
    assert record.measurements == two[0][0].measurements
    assert (mae / "result.damaged").read_bytes() == (vlae / "result.json").read_bytes()


def test_another_run_s_weights_are_not_taken_for_this_one_s(folders, capsys):
    mae, vlae = folders
    (mae / "model.safetensors").write_bytes((vlae / "model.safetensors").read_bytes())
    shutil.rmtree(mae / "checkpoints")
    for command in (["evaluate"], ["sample"], ["export"]):
        assert cli.main([*command, str(mae)]) == 2
        assert "does not hold" not in (said := capsys.readouterr().err)
        assert f"{mae.name}/model.safetensors is not the weights" in said
    with pytest.raises(ValueError, match=r"SHA-256 .*; restore it, or delete"):
        run(smoke(), out_dir=mae.parents[1], log=silent)


@pytest.mark.parametrize("damage", ["missing", "truncated", "NaN"])
def test_a_damaged_model_is_restored_from_the_last_checkpoint(two, folders, damage):
    path = folders[0] / "model.safetensors"
    before = path.read_bytes()
    if damage == "NaN":
        weights = checkpoints.read_tensors(path)
        path.write_bytes(checkpoints.packed({k: v * float("nan") for k, v in weights.items()}))
    else:
        path.write_bytes(before[:100])
    if damage == "missing":
        path.unlink()
    with pytest.warns(UserWarning, match="restored from the last checkpoint"):
        record, _, _ = run(smoke(), out_dir=folders[0].parents[1], log=silent)
    assert record == two[0][0]
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(data={}),
        lambda content: content["measurements"].update(nll="x"),
        lambda content: content["measurements"].update(nll=float("nan")),
        lambda content: content["measurements"].pop("mpd"),
        lambda content: content["per_image"].update(nll=3),
        lambda content: content["evaluation"].update(nll_images="../../x"),
        lambda content: content.update(history={}),
        lambda content: content.update(history=[{"step": 1}]),
        lambda content: content["provenance"].update(commit=1),
        lambda content: content["provenance"].update(train_seconds="x"),
        lambda content: content.update(colour="red"),
        lambda content: content["config"].update(seed=-1),
    ],
)
def test_a_bad_field_of_a_record_is_named_with_its_file(folders, change):
    changed(folders[0] / "result.json", change)
    with pytest.warns(UserWarning, match=r"/result.json is not a maelib result \(.+\); delete it"):
        (left,) = records.collect(folders[0].parent)
    assert left.config.objective.name == "vlae"


def test_deep_nesting_is_one_sentence(folders):
    (folders[0] / "result.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="is not a maelib result"):
        records.read(folders[0] / "result.json")


def test_no_flipped_bit_changes_what_a_record_says(two, folders):
    path = folders[0] / "result.json"
    whole = path.read_bytes()
    for place in range(0, len(whole), 97):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with suppress(ValueError):
            assert records.read(path) == two[0][0]


@pytest.mark.parametrize("content", ["[]", "{}", '{"digests": {}, "numbers": {"stop": 1}}', "{"])
def test_a_damaged_state_falls_back_to_the_older_checkpoint(tmp_path, content):
    run(smoke(epochs=2), out_dir=tmp_path, checkpoint_minutes=0.0, log=silent)
    (store,) = tmp_path.glob("smoke/*/checkpoints")
    (store / "step-00000010" / "state.json").write_text(content)
    with pytest.warns(UserWarning, match="step-00000010 is not an intact checkpoint"):
        assert restore(smoke(epochs=2), store, CPU).progress.step == 9


def test_another_run_s_checkpoints_are_not_continued(folders):
    store = folders[0] / "checkpoints"
    shutil.rmtree(store)
    shutil.copytree(folders[1] / "checkpoints", store)
    with (
        pytest.warns(UserWarning, match=f"it is of run {folders[1].name}"),
        pytest.raises(ValueError, match="delete its folder 'checkpoints' to train it from"),
    ):
        restore(smoke(), store, CPU)


def test_a_copy_beside_the_checkpoints_is_none(folders):
    (newest,) = (folders[0] / "checkpoints").iterdir()
    shutil.copytree(newest, newest.with_name("step-backup"))
    newest.with_name("step-99999999").touch()
    assert checkpoints._newest_first(newest.parent) == [newest]


def test_nobody_waits_for_a_pipe_in_place_of_a_file(folders, tmp_path):
    state = next(folders[0].glob("checkpoints/*/state.json"))
    pipes = [folders[0] / "result.json", state, tmp_path / "x.safetensors"]
    for path in pipes:
        path.unlink(missing_ok=True)
        os.mkfifo(path)
    with pytest.raises(ValueError, match=r"not a maelib result \(it is no regular file\)"):
        records.read(pipes[0])
    with pytest.warns(UserWarning, match="no regular file"), pytest.raises(ValueError):
        restore(smoke(), state.parents[1], CPU)
    with pytest.raises(ValueError, match=r"x\.safetensors is not a pretrained model \(it is no"):
        pretrained.read_header(pipes[2])


def test_a_file_of_any_size_is_not_read_into_memory(tmp_path):
    path = tmp_path / "progress.json"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ValueError, match=r"more than 1,073,741,824 bytes"):
        read_json(path)


def test_a_file_that_grows_is_read_as_long_as_it_was(tmp_path, monkeypatch):
    def grow(_):
        with path.open("ab") as file:
            return file.write(b"more")

    (path := tmp_path / "x").write_bytes(b"some")
    monkeypatch.setattr("stat.S_ISREG", grow)
    assert contents(path) == b"some"


def test_a_name_that_no_file_can_hold_is_refused_before_training(tmp_path):
    with pytest.raises(ValueError, match=r"config\.json would hold what JSON cannot \(.*utf-8"):
        write_json(tmp_path / "config.json", {"name": os.fsdecode(b"\xff")})
    assert not list(tmp_path.iterdir())


def test_no_flipped_bit_of_a_state_changes_the_curves(two, folders):
    path = next((folders[0] / "checkpoints").glob("*/state.json"))
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 2]) + whole[place + 1 :])
        try:
            checkpoints._load(path.parent)
        except Exception:
            continue
        assert json.loads(path.read_bytes()) == json.loads(whole)


def test_weights_of_a_pretrained_model_are_those_that_were_exported(two, folders, tmp_path):
    record, images = two[0][0], torch.rand(20, 1, 28, 28).round()
    model = load_model(folders[0])
    kept = pretrained.export(model, record, images, tmp_path / "checkpoints")
    whole = kept.path.read_bytes()
    for place in (len(whole) - 5, whole.index(b"decoder"), whole.index(b"nll") + 7):
        kept.path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=r"restore it with git checkout"):
            pretrained.read_header(kept.path).load()


def test_what_a_killed_export_leaves_is_no_model_and_is_swept(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from maelib.internal.files import whole\n"
        "with whole(Path(sys.argv[1])) as part: part.write_bytes(b'half'); os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "mnist-vae.safetensors")])
    (partial,) = tmp_path.iterdir()
    assert not pretrained.pretrained_models(tmp_path)  # and no warning
    os.utime(partial, (0, 0))
    write_text(tmp_path / "other", "")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_weights_that_are_not_finite_are_not_exported(two, folders, tmp_path):
    model = load_model(folders[0])
    images = torch.zeros(20, 1, 28, 28)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="has no finite NLL"):
        pretrained.export(model, two[0][0], images, tmp_path / "checkpoints")
    assert not (tmp_path / "checkpoints").exists()


def test_the_commit_is_that_of_this_code_whatever_the_environment_says(tmp_path, monkeypatch):
    expected = records.commit()
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "other"]):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *who, *command], cwd=tmp_path, check=True)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    assert records.commit() == expected


def test_git_may_answer_in_any_encoding(tmp_path, monkeypatch):
    (git := tmp_path / "git").write_text("#!/bin/sh\nprintf '\\377'")
    git.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert records.commit().endswith("-dirty")


def test_a_package_in_another_s_ignored_folder_has_no_commit(tmp_path):
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / ".gitignore").write_text("inside")
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "other"]):
        subprocess.run(["git", *who, *command], cwd=tmp_path, check=True)
    shutil.copytree(Path(records.__file__).parents[1], tmp_path / "inside" / "maelib")
    code = "from maelib.runs.record import commit; print(commit())"
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "inside", capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "inside")},
    )  # fmt: skip
    assert said.stdout == "unknown\n", said.stderr


@pytest.mark.fault("two processes, one run")
def test_runs_started_at_once_end_alike_or_are_refused_in_a_sentence(tmp_path):
    command = [sys.executable, "-m", "maelib", "train", "--preset", "smoke", "--dataset", "digits"]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    started = [subprocess.Popen([*command, "--out-dir", str(tmp_path)], **pipes) for _ in range(4)]
    for process in started:
        _, said = process.communicate()
        refused = "is being trained by another process" in said and len(said.splitlines()) == 1
        assert process.returncode == 0 or refused, said
    assert len(records.collect(tmp_path)) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_finished_run_is_read_where_nothing_may_be_written(two, folders, tmp_path):
    for path in (*tmp_path.rglob("*"), tmp_path):
        path.chmod(path.stat().st_mode & ~0o222)
    assert run(smoke(), out_dir=tmp_path, log=silent)[0] == two[0][0]


def test_a_finished_run_is_read_without_a_write(two, folders, monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    for name in ("mkdir", "replace", "unlink", "write_bytes", "write_text"):
        monkeypatch.setattr(Path, name, refuse)
    assert run(smoke(), out_dir=tmp_path, log=silent)[0] == two[0][0]
    assert cli.main(["evaluate", str(folders[0]), "--nll-k", "2"]) == 0


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, capsys):
    def no_locks(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    arguments = ["train", "--preset", "smoke", "--dataset", "digits", "--out-dir", str(tmp_path)]
    assert cli.main(arguments) == 2
    assert "cannot be written or has no locks (No locks available)" in capsys.readouterr().err
