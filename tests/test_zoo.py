"""Every objective there is trains, continues where it stopped, is measured and draws an image.

The zoo's table shows of each remedy the best try, and says what has not been run.
"""

from dataclasses import replace

import pytest
from helpers import CPU, silent

from maelib import config
from maelib.cli import parser
from maelib.data import dataset
from maelib.experiments import ZOO
from maelib.internal import rng
from maelib.measure import evaluation, sampling
from maelib.objectives import OBJECTIVES
from maelib.report import build, tables, zoo
from maelib.runs import record as records
from maelib.runs.run import run
from maelib.training.loop import Interrupted, train


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_remedy_trains_resumes_exactly_and_is_measured(name, tmp_path):
    fewer = {"lagging": {"encoder_steps": 5}, "vamp": {"pseudo_inputs": 20}}
    c = config.resolve("smoke", "digits", name, epochs=2, **fewer.get(name, {}))
    digits = dataset.load("digits")
    model, progress = train(c, digits, tmp_path / "whole", CPU)
    with pytest.raises(Interrupted):
        train(c, digits, tmp_path / "stopped", CPU, max_minutes=0.0)
    continued, _ = train(c, digits, tmp_path / "stopped", CPU)
    weights = model.state_dict()
    assert all(value.equal(weights[key]) for key, value in continued.state_dict().items())
    assert all(isinstance(value, (int, float)) for value in progress.history[-1].values())
    assert not model.training
    x = evaluation.test_images(digits.test.first(8).images)
    assert evaluation.iw_nll(model, x, 8).isfinite().all()
    assert evaluation.elbo_terms(model, x).kl.isfinite().all()
    if name in ("bn", "skip", "small-kernel", "vamp"):
        assert sampling.sample(model, 1, rng.generator(0, "z")).shape == (1, 1, 28, 28)


def test_the_table_has_the_best_try_of_each_remedy(tmp_path):
    tries = ZOO["BN-VAE"]
    config_of = tries[0].config("smoke", "digits")
    made, _, _ = run(config_of, device="cpu", out_dir=tmp_path, log=silent)

    def record(e, seed, elbo, nll):
        history = [{"val_elbo": elbo + 1.0}, {"val_elbo": float(elbo)}]
        config = e.config("smoke", "digits", seed)
        measured = made.measurements | {"nll": nll}
        return replace(made, config=config, history=history, measurements=measured)

    runs = [
        record(tries[0], 0, 90, 5.0),
        record(tries[1], 0, 80, 1.0),
        record(tries[1], 1, 82, 3.0),
    ]
    table = zoo.table(runs).set_index("remedy")
    row = table.loc["BN-VAE"]
    assert (row["try"], row["seeds"], row["tries"]) == (tries[1].label, 2, "2 of 3")
    assert row["nll"] == "2.00 ± 1.41"
    assert (table.drop(index="BN-VAE")[list(zoo.MEASURES)] == tables.NOT_RUN).all(axis=None)
    assert list(table.index) == list(ZOO)


def test_the_table_has_each_remedy_s_change_of_the_nll(tmp_path):
    plain, annealing = ZOO["plain VAE"][0], ZOO["KL annealing"][0]
    made, _, _ = run(plain.config("smoke", "digits"), device="cpu", out_dir=tmp_path, log=silent)

    def record(e, seed, nll):
        measured = made.measurements | {"nll": nll}
        return replace(made, config=e.config("smoke", "digits", seed), measurements=measured)

    def changes(runs):
        return zoo.table(runs).set_index("remedy")["nll_change"]

    pairs = [record(plain, 0, 10.0), record(annealing, 0, 8.0), record(plain, 1, 10.0)]
    pairs.append(record(annealing, 1, 9.0))
    assert changes(pairs)["KL annealing"] == "-1.50 [-7.85, +4.85]"  # t of one degree is 12.71
    assert (changes(pairs).drop("KL annealing") == "").all()
    lower = [value - 2 for value in made.per_image["nll"]]
    every = {name: lower if name == "nll" else made.per_image[name] for name in made.per_image}
    every |= {"nll_all": [v - 2 for v in made.per_image["nll_all"]]} if "nll_all" in every else {}
    one = replace(record(annealing, 0, 0.0), per_image=every)
    assert changes([made, one])["KL annealing"] == "-2.00 [-2.00, -2.00]"
    other = replace(one, evaluation=one.evaluation | {"nll_k": 1})
    assert changes([made, other])["KL annealing"] == ""


def test_the_picture_is_drawn_again_if_a_measure_in_it_changes(tmp_path):
    made, _, _ = run(config.resolve("smoke", "digits"), device="cpu", out_dir=tmp_path, log=silent)
    picture = tmp_path / "figures" / "smoke" / "digits" / "zoo_plane.png"

    def drawn(nll):
        for place, tries in enumerate(list(ZOO.values())[:4]):
            c = tries[0].config("smoke", "digits")
            named = {"name": c.name(made.data["digest"]), "key": c.key(made.data["digest"])}
            apart = {"nll": nll + place, "kl": 5.0 + place, "re": 80.0 - 2 * place}
            apart |= {"mutual_information": 1.0 + place, "saturated": 0.0}
            measured = made.measurements | apart
            record = replace(made, config=c, **named, measurements=measured)
            records.publish(record, tmp_path / "results")
        build.write_all("smoke", "digits", tmp_path, tmp_path / "runs", {})
        return picture.stat().st_mtime_ns

    first = drawn(80.0)
    assert drawn(80.0) == first
    assert drawn(85.0) > first


def test_a_mean_is_of_the_measures_that_all_runs_have(tmp_path):
    """With few labels there is no ``knn_1000``."""
    made, _, _ = run(config.resolve("smoke", "digits"), device="cpu", out_dir=tmp_path, log=silent)
    fewer = {name: value for name, value in made.measurements.items() if name != "knn_1000"}
    found = zoo.means({"MAE": [made, replace(made, measurements=fewer)]})
    assert found.loc["MAE", "nll"] == made.measurements["nll"]
    assert "knn_1000" not in found


def test_help_names_the_options_of_every_remedy(capsys):
    with pytest.raises(SystemExit):
        parser("train").parse_args(["train", "--help"])
    said = capsys.readouterr().out.partition("the options that tune each:")[2]
    rows = {line.split()[0]: line.split()[1:] for line in said.strip().splitlines()}
    assert rows.keys() == OBJECTIVES.keys() - {"vae"}  # which is no remedy
    assert rows["bn"] == ["--gamma"]
    assert rows["mae"] == ["--alpha", "--beta", "--diverse"]
