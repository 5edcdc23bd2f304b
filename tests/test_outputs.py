from dataclasses import replace

import pytest
import scipy.stats

from maelib import claims, config, data, experiments, outputs, pretrained, results, runs, tables


def silent(_):
    pass


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    models = ({"objective": "vlae"}, {"objective": "mae"})
    made = [
        runs.run(config.resolve("smoke", "digits", **m), device="cpu", out_dir=out, say=silent)[0]
        for m in models
    ]
    return out, made


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_figures_are_written_and_come_out_equal_again(finished, tmp_path):
    out, _ = finished
    folder = outputs.write_all("smoke", "digits", tmp_path, out)
    first = files(folder)
    assert folder == tmp_path / "figures" / "smoke" / "digits"
    for name in ("table4.md", "table4.csv", "table4.tex", "figure1.pdf", "figure2_digits.png"):
        assert name in first
    for path in folder.iterdir():
        path.unlink()
    outputs.write_all("smoke", "digits", tmp_path, out)
    assert files(folder) == first


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


def test_a_record_of_an_older_protocol_is_skipped_by_name(finished, tmp_path):
    _, made = finished
    results.write(replace(made[0], key="0000000000"), tmp_path / "old.json")
    with pytest.warns(UserWarning, match=r"old\.json is of an older protocol"):
        assert results.collect(tmp_path) == []


def test_every_row_of_the_paper_has_an_experiment():
    for table, chosen in (("table4", experiments.MNIST), ("table1b", experiments.OMNIGLOT)):
        from maelib import paper

        configs = [e.config("paper", "mnist") for e in chosen]
        found = [paper.find_row(table, c) for c in configs]
        trained = [row for row in paper.tables()[table]["rows"] if row.get("reimpl")]
        assert all(any(row is other for other in found) for row in trained)


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
    samples = {"nll": [1.0, 2.0, 3.1, 4.0]}
    low, high = (replace(made[0], samples={"nll": [v + s for v in samples["nll"]]}) for s in (0, 9))
    high.samples["nll"][0] += 0.1
    found = {"high": high, "low": low}
    assert claims.compare("", "nll", found, "high", "low").verdict == claims.HOLDS
    assert claims.compare("", "nll", found, "low", "high").verdict == claims.FAILS
    missing = claims.compare("", "nll", found, "high", "mae-a1-b1-tempered")
    assert (missing.verdict, missing.comparison) == (claims.TOO_FEW, "nll: high - mae-a1-b1")
    for run in found.values():
        run.samples["mpd"] = [1.0]
    assert claims.compare("", "mpd", found, "high", "low").verdict == claims.TOO_FEW_PAIRS


def test_accuracies_are_judged_by_welch_and_a_single_run_not_at_all(finished):
    vlae, mae = finished[1]
    better = {"knn_100": 80.0, "knn_100_sd": 1.0, "knn_all": 90.0}
    worse = {"knn_100": 70.0, "knn_100_sd": 2.0, "knn_all": 80.0}
    made = [replace(mae, measurements=better), replace(vlae, measurements=worse)]
    found = {v.comparison: v for v in claims.representation_verdicts(made)}
    judged = found["knn_100: mae-a1-b0.5 - vlae-fb7.84"]
    half = scipy.stats.t.ppf(0.975, 25 / 4.25) * 1.0  # variances 1/5 and 4/5, four degrees each
    assert judged.verdict == claims.HOLDS
    assert judged.high - judged.difference == pytest.approx(half)
    assert found["knn_all: mae-a1-b0.5 - vlae-fb7.84"].verdict == claims.TOO_FEW_PAIRS
    assert found["knn_all: mae-a1-b0.5 - vae"].verdict == claims.TOO_FEW


def test_a_run_that_differs_from_its_preset_is_in_no_row_and_no_verdict(finished):
    _, made = finished
    other = replace(made[1], config=replace(made[1].config, epochs=7))
    assert tables.table4([other]).equals(tables.table4([]))
    c = config.resolve("smoke", "photos", alpha=0.5, beta=1.0)
    vlae, mae, pairwise, freed = (
        replace(made[0], config=c, samples={"nll": [1.0, 2.0, 3.0 + i]})
        for i, c in enumerate(
            (
                config.resolve("smoke", "photos", "vlae"),
                c,
                replace(c, diverse="pairwise"),
                config.resolve("smoke", "photos", "vlae", free_bits=7.84),
            )
        )
    )
    judged = [v for v in claims.colour_verdicts([vlae, mae]) if v.verdict != claims.TOO_FEW]
    assert len(judged) == 1
    verdicts = claims.colour_verdicts([freed, pairwise])
    assert {v.verdict for v in verdicts} == {claims.TOO_FEW}


def test_pictures_need_the_images_as_well_as_the_weights(tmp_path, monkeypatch):
    quick = results.collect(pretrained.FOLDER.parent / "results" / "quick")
    colours = [r for r in quick if r.config.dataset == "cifar10"]
    assert any(pretrained.shipped_model(r) for r in colours)
    monkeypatch.setenv("MAELIB_DATA", str(tmp_path))
    monkeypatch.setattr(data, "data_roots", lambda: [tmp_path])
    assert outputs.draw(colours, "digits", tmp_path) == {}
    assert outputs.draw(colours, "mnist", tmp_path) == {}
