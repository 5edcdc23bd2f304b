import math
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from helpers import silent
from matplotlib.figure import Figure
from PIL import Image

from maelib import config
from maelib.data import dataset
from maelib.experiments import CIFAR10_MAE, CIFAR10_VLAE, MAE, VLAE
from maelib.report import build, claims, figures, tables
from maelib.runs import pretrained
from maelib.runs import record as records
from maelib.runs.run import run

RESULTS = Path(__file__).parents[1] / "results"


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


def test_a_record_that_was_measured_in_an_older_way_is_not_published(finished, tmp_path):
    _, (made, _) = finished
    records.publish(made, tmp_path / "results")
    older = replace(made, measurements={**made.measurements, "nll": 0.0})
    older = replace(older, evaluation=made.evaluation | {"version": 2})
    (tmp_path / "runs" / "smoke" / made.name).mkdir(parents=True)
    records.write(older, tmp_path / "runs" / "smoke" / made.name / "result.json")
    build.write_all("smoke", "digits", tmp_path, tmp_path / "runs", drawn={})
    assert records.collect(tmp_path / "results") == [made]


@pytest.mark.parametrize("preset", sorted(path.name for path in RESULTS.iterdir()))
def test_committed_tables_are_what_the_committed_results_say(preset, tmp_path):
    root = Path(__file__).parents[1]
    shutil.copytree(root / "results", tmp_path / "results")
    written = build.write_all(preset, "mnist", tmp_path, tmp_path / "runs", drawn={})
    committed = root / written.relative_to(tmp_path)
    for path in written.glob("*.[cmt]*"):
        assert path.read_text() == (committed / path.name).read_text(), "run make reproduce"


def test_one_result_of_a_larger_preset_does_not_take_the_place_of_the_fullest_tables():
    real = records.collect(RESULTS)
    one = next(r for r in real if r.config.data.name == "mnist")
    lone = replace(one, config=MAE[1.0, 0.5].config("paper", "mnist"))
    place = {r.config.preset: build.folder_for(r.config.preset, "mnist", Path(), [*real, lone])
             for r in [*real, lone]}  # fmt: skip
    assert place["laptop"] == Path("figures")
    assert place["paper"] == Path("figures/paper")


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


def judged(records, claim_start, measure=""):
    found = claims.verdicts(records)
    return [v for v in found if v.claim.text.startswith(claim_start) and measure in v.claim.measure]


def run_of(record, experiment, seed, **values):
    """A record of the experiment with these measurements, or lists of them per image."""
    means = {name: v if isinstance(v, float) else sum(v) / len(v) for name, v in values.items()}
    lists = {name: v for name, v in values.items() if isinstance(v, list)}
    settings = experiment.config("smoke", record.config.data.name, seed)
    return replace(record, config=settings, measurements=means, per_image=lists)


def test_one_seed_shows_the_difference_of_two_models_but_gives_no_verdict(finished):
    record = finished[1][0]
    hard = [float(i) ** 2 for i in range(50)]
    better = [v - 0.5 + 0.01 * (-1) ** i for i, v in enumerate(hard)]
    pair = [run_of(record, VLAE, 0, nll=hard), run_of(record, MAE[1.0, 0.5], 0, nll=better)]
    (v,) = (v for v in judged(pair, "(iii)") if v.seeds)
    assert v.verdict == claims.ONE_SEED
    assert v.low < 0.5 < v.high
    assert v.high - v.low < 0.01  # what is common to both models cancels
    assert {v.verdict for v in claims.verdicts([])} == {claims.TOO_FEW}


def test_the_control_variate_of_two_models_is_the_difference_of_their_estimates(finished):
    record = finished[1][0]
    random = np.random.default_rng(0)
    lists = [random.normal(80, 20, 200) + shift for shift in (0.0, 3.0)]
    first, second = (
        run_of(record, VLAE, 0, nll=(v[:40] - 1).tolist(), nll_all=v.tolist()) for v in lists
    )
    found = claims.paired(second, first, "nll")
    assert found.mean == pytest.approx(float(np.mean(lists[1]) - np.mean(lists[0])))
    assert found.error == pytest.approx(np.std((lists[1] - lists[0])[:40], ddof=1) / 200**0.5)


def test_several_seeds_are_judged_by_student_over_seeds_and_by_holm(finished):
    record = finished[1][0]
    steady, noisy = (5.0, 5.1, 4.9), (0.3, -0.1, 0.4)
    records = [
        run
        for seed, (re, nll) in enumerate(zip(steady, noisy, strict=True))
        for run in (
            run_of(record, VLAE, seed, re=70.0 + seed + re, nll=80.0 + seed + nll),
            run_of(record, MAE[1.0, 0.5], seed, re=70.0 + seed, nll=80.0 + seed),
        )
    ]
    (fifth,), (third,) = ([v for v in judged(records, c) if v.seeds] for c in ("(v)", "(iii)"))
    low, high = scipy.stats.ttest_1samp(steady, 0).confidence_interval(0.95)
    assert (fifth.verdict, fifth.seeds) == (claims.HOLDS, 3)
    assert (fifth.low, fifth.high) == pytest.approx((low, high))
    assert third.verdict == claims.OPEN
    worse = [replace(r, measurements={"re": -r.measurements["re"]}) for r in records]
    (fifth,) = (v for v in judged(worse, "(v)") if v.seeds)
    assert fifth.verdict == claims.FAILS


def test_a_claim_has_the_difference_of_the_paper_s_own_values():
    found = {(c.text.split()[0], c.comparison): c.printed for c in claims.CLAIMS}
    assert found["(iii)", "nll: vlae minus mae-a1-b0.5"] == pytest.approx(78.32 - 78.08)
    assert found["(iv)", "kmeans_20: mae-a1-b0.5 minus vlae"] == pytest.approx(93.3 - 67.9)
    bits = found["(vi)", "nll: vlae minus mae-a0.5-b1"]
    assert bits == pytest.approx((2.97 - 2.96) * 3072 * math.log(2))
    assert found["(vi)", "nll: vlae-pixelcnnpp minus mae-a0.5-b1-pixelcnnpp"] is None
    counted = tables.claim_table(claims.verdicts([])).set_index("claim")["sign in the paper"]
    assert counted["(viii) beta 0.1 to 0.5: better NLL"] == "2 of 3"  # 78.24 became 78.28
    assert counted["(ii) larger beta, smaller STD"] == "6 of 6"


def test_holm_stops_at_the_first_difference_that_is_not_certain():
    assert claims.holm([0.01, 0.04, math.nan, 0.02]) == [True, True, False, True]
    assert claims.holm([0.01, 0.04, 0.03]) == [True, False, False]
    assert claims.holm([0.03, 0.03]) == [False, False]
    assert claims.holm([]) == []


def test_runs_that_were_measured_in_two_ways_are_not_compared(finished):
    record = finished[1][0]
    pair = [run_of(record, VLAE, 0, nll=1.0), run_of(record, MAE[1.0, 0.5], 0, nll=2.0)]
    pair[0] = replace(pair[0], evaluation=record.evaluation | {"version": 2})
    assert {v.verdict for v in judged(pair, "(iii)") if v.seeds} == {claims.MIXED}


def test_accuracies_of_one_seed_have_no_interval(finished):
    vlae, mae = (run_of(r, e, 0, knn_all=90.0) for r, e in
                 zip(finished[1], (VLAE, MAE[1.0, 0.5]), strict=True))  # fmt: skip
    (v,) = (v for v in judged([vlae, mae], "(vii)", "knn_all") if v.seeds)
    assert (v.verdict, v.difference, v.high) == (claims.ONE_SEED, 0.0, math.inf)


NASTY = r"\input{x} <script>alert(1)</script> | 5 % & `x` $y$ #1 a_b ~^{}"


def test_text_from_files_is_shown_and_never_run(tmp_path):
    tables.write(pd.DataFrame({"model": [NASTY], NASTY: ["1"]}), NASTY, tmp_path / "t")
    markdown, latex = ((tmp_path / f"t.{end}").read_text() for end in ("md", "tex"))
    assert "<script>" not in markdown
    assert all(line.replace("\\|", "").count("|") == 3 for line in markdown.splitlines()[:3])
    assert r"\input" not in latex
    assert latex.count(r"\textbackslash") == 3
    caption = next(line for line in latex.splitlines() if line.startswith(r"\caption"))
    plain = re.sub(r"\\(text[a-z]+\{\}|text[a-z]+ |[_%&#${}])", "", caption[len(r"\caption{") : -1])
    assert not set(plain) & set("\\%&#$_{}~^")


def test_a_caption_is_one_paragraph_without_links(tmp_path):
    tables.write(pd.DataFrame({"model": ["x"]}), "commit a\n\n# [b](c)", tmp_path / "t")
    markdown, latex = ((tmp_path / f"t.{end}").read_text() for end in ("md", "tex"))
    assert markdown.endswith("\n\ncommit a # [b]\\(c)\n")
    assert r"\caption{commit a \# [b](c)}" in latex


def test_tables_are_utf_8_whatever_the_locale(tmp_path):
    code = (
        "import sys, pandas; from pathlib import Path; from maelib.report import tables\n"
        "tables.write(pandas.DataFrame({'model': ['1 \\xb1 2']}), '\\xfc', Path(sys.argv[1]))"
    )
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", code, str(tmp_path / "t")]
    subprocess.run(command, env=os.environ | ascii_only, check=True)
    assert all("1 ± 2" in path.read_bytes().decode() for path in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == 3


def test_a_run_that_differs_from_its_preset_is_in_no_row_and_no_verdict(finished):
    _, made = finished
    c = made[1].config
    other = replace(made[1], config=replace(c, training=replace(c.training, epochs=7)))
    assert tables.table4([other]).equals(tables.table4([]))
    assert tables.measured([made[0], other], ["kl"])["seeds"].tolist() == [1, 1]
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
    assert sum(v.seeds for v in claims.verdicts([vlae, mae])) == 1
    assert {v.verdict for v in claims.verdicts([freed, pairwise])} == {claims.TOO_FEW}


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
        if how["format"] == "png":
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
