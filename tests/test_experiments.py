"""The list of runs, and its joins: to the paper's rows, to configurations, to pictures."""

from dataclasses import replace
from functools import partial

import pytest

from maelib import config
from maelib.experiments import (
    CIFAR10_FULL_MAE,
    CIFAR10_FULL_VLAE,
    EVERYTHING,
    IMAGES,
    PAPER,
    PICTURED,
    REPRESENTATIVE,
    ZOO,
    choose,
    experiment_of,
)
from maelib.objectives import OBJECTIVES
from maelib.objectives.elbo import ELBO
from maelib.report import claims, paper, tables
from maelib.runs.record import Record

TABLES = {
    "mnist": ("table1a", "table2", "table4"),
    "omniglot": ("table1b",),
    "cifar10": ("table3",),
}
WRITERS = {
    "table1a": partial(tables.table1, part="a"),
    "table1b": partial(tables.table1, part="b"),
    "table2": tables.table2,
    "table3": tables.table3,
    "table4": tables.table4,
}
KINDS = paper.tables()["table2"]["columns"].items()
MEASURES = [*tables.MEASURES, "bpd", *(f"{kind}_{size}" for kind, sizes in KINDS for size in sizes)]


def record(settings, value):
    """A run's record in which every measure is ``value``."""
    measured = dict.fromkeys(MEASURES, value)
    return Record(settings.name("data"), settings.key("data"), settings, {}, measured, {}, [], {})


@pytest.mark.parametrize("images", TABLES)
@pytest.mark.parametrize(
    "options",
    [
        {"objective": "vlae", "kl_weight": 4.0},
        {"objective": "vlae", "kl_weight": 4.0, "free_bits": 0.0},
        {"objective": "beta-vae"},
        {"objective": "beta-vae", "free_bits": 7.84},
        {"objective": "new"},
        *({"objective": name} for name in OBJECTIVES if name not in ("vae", "vlae", "mae")),
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_an_objective_that_is_not_the_paper_s_is_in_no_table(images, options, monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "new", ELBO(name="new", free_bits=7.84))
    if images == "cifar10" and config.is_for_binary(options["objective"]):
        pytest.skip("it is for binary images")
    other = config.resolve("quick", images, **options)
    stranger = record(other, 1.0)
    vlaes = [e for e in EVERYTHING if e.images == images and e.objective == "vlae"]
    ours = [record(e.config("quick", images), 5.0) for e in vlaes]
    for name in TABLES[images]:
        write = WRITERS[name]
        assert "5.00" in write(ours).to_csv()
        assert write([stranger]).equals(write([]))
        assert write([*ours, stranger]).equals(write(ours))
    assert all(e.row is None for e in claims.by_experiment([stranger]))


@pytest.mark.parametrize("images", TABLES)
def test_an_experiment_s_row_is_in_a_table_of_its_images_with_its_own_settings(images):
    for experiment in (e for e in EVERYTHING if e.images == images and e.row):
        rows = [row for t in TABLES[images] if (row := paper.row(t, experiment.row))]
        assert rows, experiment
        chosen = experiment.config("paper", images).objective
        for row in rows:
            is_mae = chosen.name == "mae"
            weights = (chosen.alpha, chosen.beta) if is_mae else (None, None)
            assert (row.get("alpha"), row.get("beta")) == weights
            assert row["model"].split()[0] == {"vae": "ResNet"}.get(
                chosen.name, chosen.name.upper()
            )
            assert ("w.o" in row["model"]) == (experiment.row == "vlae-no-free-bits")


@pytest.mark.parametrize("table", WRITERS)
def test_every_row_that_the_authors_trained_has_one_experiment(table):
    (images,) = (name for name, its_own in TABLES.items() if table in its_own)
    for row in paper.tables()[table]["rows"]:
        found = [e for e in EVERYTHING if e.images == images and e.row == row.get("id")]
        if "id" not in row:
            assert "cite" in row
            continue
        # Table 3 has a column for each of two decoders, and two of its rows are run with both.
        twice = {CIFAR10_FULL_VLAE, CIFAR10_FULL_MAE} & set(found)
        assert len(found) == (2 if twice else 1), row
        decoders = {e.config("paper", images).network.decoder for e in found}
        assert len(decoders) == len(found)


def test_the_table_of_clusters_has_each_way_to_label_them():
    made = record(EVERYTHING[0].config("quick", "mnist"), 1.0)
    values = {"kmeans_20": 2.0, "kmeans_20_majority": 3.0, "kmeans_20_hungarian": 4.0}
    found = tables.clustering([replace(made, measurements=values | {"kmeans_20_nmi": 0.5})])
    rows = found.set_index(["model", "clusters"])
    ours = rows.loc["ResNet VAE w. AF", 20].to_dict()
    assert ours == {"nearest": "2.00", "majority": "3.00", "hungarian": "4.00", "NMI": "0.50"}
    assert (rows.drop(index=("ResNet VAE w. AF", 20)) == tables.NOT_RUN).all(axis=None)


@pytest.mark.parametrize("preset", config.PRESETS)
def test_a_configuration_leads_back_to_its_experiment(preset):
    for experiment in EVERYTHING:
        for dataset in IMAGES[experiment.images]:
            for seed in (0, 3):
                settings = experiment.config(preset, dataset, seed)
                assert experiment_of(settings) is experiment, settings.name("data")


def test_no_two_experiments_share_a_name():
    for images in IMAGES:
        labels = [e.label for e in EVERYTHING if e.images == images]
        assert len(set(labels)) == len(labels)


@pytest.mark.parametrize("images", IMAGES)
def test_pictures_show_an_mae_and_a_vlae_of_their_own_images(images):
    mae, vlae = PICTURED[images]
    assert {(e.images, e.objective) for e in mae} == {(images, "mae")}
    assert {(e.images, e.objective) for e in vlae} == {(images, "vlae")}
    assert set(mae + vlae) <= set(EVERYTHING)
    assert set(mae) & set(REPRESENTATIVE)  # some picture is drawn at every preset


def test_small_presets_run_a_part_of_the_list_and_large_ones_all_of_it():
    assert choose("smoke") == choose("quick") == REPRESENTATIVE
    assert choose("laptop") == choose("paper") == PAPER
    assert set(REPRESENTATIVE) < set(PAPER)


def test_every_remedy_has_as_many_tries_as_the_others_or_nothing_to_try():
    assert {len(tries) for tries in ZOO.values()} == {1, 3}
    assert len(choose("quick", "zoo")) == len(set(choose("quick", "zoo")))
    tried = {e.objective for tries in ZOO.values() for e in tries}
    assert set(OBJECTIVES) - tried == {"vae"}
