import shutil
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import scipy.stats
from matplotlib.figure import Figure
from PIL import Image

from maelib import config
from maelib.data import dataset
from maelib.experiments import CIFAR10_MAE, CIFAR10_VLAE, MAE, VLAE
from maelib.report import build, claims, figures, tables
from maelib.runs import pretrained
from maelib.runs import record as records
from maelib.runs.run import run


def silent(_):
    pass


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    models = ({"objective": "vlae"}, {"objective": "mae"})
    made = [
        run(config.resolve("smoke", "digits", **m), device="cpu", out_dir=out, log=silent)[0]
        for m in models
    ]
    return out, made


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_figures_are_written_and_come_out_equal_again(finished, tmp_path):
    out, _ = finished
    folder = build.write_all("smoke", "digits", tmp_path, out)
    first = files(folder)
    assert folder == tmp_path / "figures" / "smoke" / "digits"
    for name in ("table4.md", "table4.csv", "table4.tex", "figure1.pdf", "figure2_digits.png"):
        assert name in first
    for path in folder.iterdir():
        path.unlink()
    build.write_all("smoke", "digits", tmp_path, out)
    assert files(folder) == first


@pytest.mark.parametrize("preset", ["quick", "laptop"])
def test_committed_tables_are_what_the_committed_results_say(preset, tmp_path):
    root = Path(__file__).parents[1]
    shutil.copytree(root / "results", tmp_path / "results")
    written = build.write_all(preset, "mnist", tmp_path, tmp_path / "runs", drawn={})
    committed = root / written.relative_to(tmp_path)
    for path in written.glob("*.[cmt]*"):
        assert path.read_text() == (committed / path.name).read_text(), "run make reproduce"


def test_a_deleted_result_is_not_run_and_nothing_else_changes(finished):
    _, made = finished
    whole, part = tables.table4(made), tables.table4(made[1:])
    changed = whole.ne(part).any(axis=1)
    assert whole[changed]["model"].tolist() == ["VLAE (w. free bits)"]
    assert set(part[changed].filter(like="ours").iloc[0]) == {tables.NOT_RUN}


def test_quoted_rows_are_never_ours(finished):
    table = tables.table1([], "a")
    assert (table["nll ours"].isin([tables.QUOTED, tables.NOT_RUN])).all()


def test_tables_do_not_mix_presets(finished):
    _, made = finished
    other = replace(made[0], config=replace(made[0].config, preset="quick"))
    with pytest.raises(ValueError, match="must not mix"):
        tables.table4([made[0], other])


def test_a_record_of_another_configuration_is_skipped_by_name(finished, tmp_path):
    _, made = finished
    records.write(replace(made[0], key="0000000000"), tmp_path / "old.json")
    with pytest.warns(UserWarning, match=r"old\.json is not .* key is not that of its config"):
        assert records.collect(tmp_path) == []


def test_a_caption_says_how_the_nll_was_measured_in_every_version():
    old = {"nll_k": 128, "nll_images": 500, "test_images": 10_000, "binarisations": 1}
    new = {**old, "nll_k_all": 8}
    said = [records.measured_how({**how, "version": v}) for how, v in ((old, 2), (new, 3))]
    assert said[0].startswith("NLL with k = 128 on the first 500 test images, other measures on 10")
    assert "k = 8 on all of them plus its mean change to k = 128 on 500 random ones" in said[1]
    full = records.measured_how({**new, "nll_images": 10_000, "version": 3})
    assert full.startswith("10,000 test images; NLL with k = 128 on all of them")


def test_paired_interval_ignores_what_is_common_to_both():
    common = [float(i) ** 2 for i in range(50)]
    noise = [0.01 * (-1) ** i for i in range(50)]
    first = [a + 0.5 + n for a, n in zip(common, noise, strict=True)]
    mean, low, high = claims.paired_interval(first, common)
    assert low < 0.5 < high
    assert high - low < 0.01
    assert mean == pytest.approx(0.5)


def test_verdicts_need_runs_and_follow_the_sign(finished):
    _, made = finished
    assert {v.verdict for v in claims.verdicts([])} == {claims.TOO_FEW}
    values = [1.0, 2.0, 3.1, 4.0]
    low, high = (replace(made[0], per_image={"nll": [v + s for v in values]}) for s in (0, 9))
    high.per_image["nll"][0] += 0.1
    found = {VLAE: high, MAE[1.0, 0.5]: low}
    assert claims.compare("", "nll", found, VLAE, MAE[1.0, 0.5]).verdict == claims.HOLDS
    assert claims.compare("", "nll", found, MAE[1.0, 0.5], VLAE).verdict == claims.FAILS
    missing = claims.compare("", "nll", found, VLAE, MAE[1.0, 1.0])
    assert (missing.verdict, missing.comparison) == (claims.TOO_FEW, "nll: vlae - mae-a1-b1")
    for record in found.values():
        record.per_image["mpd"] = [1.0]
    single = claims.compare("", "mpd", found, VLAE, MAE[1.0, 0.5])
    assert single.verdict == claims.TOO_FEW_PAIRS


def test_accuracies_are_judged_by_welch_and_a_single_run_not_at_all(finished):
    vlae, mae = finished[1]
    better = {"knn_100": 80.0, "knn_100_sd": 1.0, "knn_all": 90.0}
    worse = {"knn_100": 70.0, "knn_100_sd": 2.0, "knn_all": 80.0}
    made = [replace(mae, measurements=better), replace(vlae, measurements=worse)]
    found = {v.comparison: v for v in claims.representation_verdicts(made)}
    judged = found["knn_100: mae-a1-b0.5 - vlae"]
    half = scipy.stats.t.ppf(0.975, 25 / 4.25) * 1.0  # variances 1/5 and 4/5, four degrees each
    assert judged.verdict == claims.HOLDS
    assert judged.high - judged.difference == pytest.approx(half)
    assert found["knn_all: mae-a1-b0.5 - vlae"].verdict == claims.TOO_FEW_PAIRS
    assert found["knn_all: mae-a1-b0.5 - vae"].verdict == claims.TOO_FEW


def test_a_run_that_differs_from_its_preset_is_in_no_row_and_no_verdict(finished):
    _, made = finished
    c = made[1].config
    other = replace(made[1], config=replace(c, training=replace(c.training, epochs=7)))
    assert tables.table4([other]).equals(tables.table4([]))
    settings = (
        CIFAR10_VLAE.config("smoke", "photos"),
        CIFAR10_MAE[0.5].config("smoke", "photos"),
        config.resolve("smoke", "photos", alpha=0.5, beta=1.0, diverse="pairwise"),
        config.resolve("smoke", "photos", "vlae", free_bits=7.84),
    )
    vlae, mae, pairwise, freed = (
        replace(made[0], config=c, per_image={"nll": [1.0, 2.0, 3.0 + i]})
        for i, c in enumerate(settings)
    )
    judged = [v for v in claims.colour_verdicts([vlae, mae]) if v.verdict != claims.TOO_FEW]
    assert len(judged) == 1
    verdicts = claims.colour_verdicts([freed, pairwise])
    assert {v.verdict for v in verdicts} == {claims.TOO_FEW}


def test_pictures_need_the_images_as_well_as_the_weights(tmp_path, monkeypatch):
    quick = records.collect(pretrained.FOLDER.parent / "results" / "quick")
    colours = [r for r in quick if r.config.data.name == "cifar10"]
    assert any(pretrained.model_of(r) for r in colours)
    monkeypatch.setenv("MAELIB_DATA", str(tmp_path))
    monkeypatch.setattr(dataset, "data_roots", lambda: [tmp_path])
    assert build.draw(colours, "digits", tmp_path) == {}
    assert build.draw(colours, "mnist", tmp_path) == {}


def drawn(height):
    figure, ax = plt.subplots(figsize=(2, 2))
    ax.plot([0.0, height])
    return figure


def test_a_picture_is_replaced_only_if_it_is_made_from_something_else(tmp_path):
    figures.save(drawn(1.0), tmp_path / "picture", "a run", 78.1)
    first = files(tmp_path)
    figures.save(drawn(2.0), tmp_path / "picture", "a run", 78.1)  # as by another matplotlib
    assert files(tmp_path) == first
    figures.save(drawn(2.0), tmp_path / "picture", "a run", 78.2)
    second = files(tmp_path)
    assert set(second) == set(first) == {"picture.png", "picture.pdf"}
    assert all(second[name] != first[name] for name in first)


def test_a_picture_of_which_one_file_is_missing_is_drawn_again(tmp_path):
    for missing in (".png", ".pdf"):
        figures.save(drawn(1.0), tmp_path / "picture", "a run")
        (tmp_path / "picture").with_suffix(missing).unlink()
        figures.save(drawn(1.0), tmp_path / "picture", "a run")
        assert set(files(tmp_path)) == {"picture.png", "picture.pdf"}


def test_a_picture_that_was_cut_off_is_drawn_again(tmp_path, monkeypatch):
    def cut_off(figure, path, honest=Figure.savefig, **how):
        honest(figure, path, **how)
        if path.suffix == ".png":
            path.write_bytes(path.read_bytes()[:-1000])
            raise OSError("No space left on device")

    monkeypatch.setattr(Figure, "savefig", cut_off)
    with pytest.raises(OSError, match="No space left"):
        figures.save(drawn(1.0), tmp_path / "picture", "a run")
    monkeypatch.undo()
    figures.save(drawn(1.0), tmp_path / "picture", "a run")
    Image.open(tmp_path / "picture.png").load()  # an error if it is not whole


def test_a_picture_is_made_from_the_models_that_it_shows(finished, monkeypatch):
    out, (vlae, mae) = finished
    for name in ("figure2", "figure3"):
        monkeypatch.setattr(figures, name, lambda *_, **__: plt.figure())
    retrained = replace(vlae, measurements=vlae.measurements | {"nll": 1.0})
    before, after = (build.draw([other, mae], "digits", out) for other in (vlae, retrained))
    plt.close("all")
    assert set(before) == {"figure2_digits", "figure2_digits_sampled", "figure3_digits"}
    same = {name for name in before if before[name].made_from == after[name].made_from}
    assert same == {"figure3_digits"}
