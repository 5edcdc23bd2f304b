"""What options accept and refuse, what a configuration is as JSON, and that all of it is light."""

import itertools
import json
import subprocess
import sys
import types
import typing
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import smoke

from maelib import cli, config, model
from maelib.config import PARTS, PRESETS, from_json, objective_classes, resolve
from maelib.data import AUTO, COLOUR_DATASETS, DATASETS, STAND_INS, dataset
from maelib.internal.options import checked, options
from maelib.nets import BINARY_DECODERS, COLOUR_DECODERS, ENCODERS, POSTERIORS, PRIORS, Network
from maelib.objectives import OBJECTIVES
from maelib.objectives.base import Outputs
from maelib.runs.record import read

RESULTS = Path(__file__).parents[1] / "results"
NAN, INFINITE = float("nan"), float("inf")
CLASSES = [*(kind for name, kind in PARTS.items() if name != "objective"), *objective_classes()]


def declared():
    """The name and the type of every option there is."""
    return {f.name: f.type for kind in CLASSES for f in fields(kind) if "help" in f.metadata}


OPTIONS = declared()


def of_type(kind):
    """The names of the options of a type, ``X | None`` included."""
    return [name for name, hint in OPTIONS.items() if _base(hint) is kind]


def _base(hint):
    if isinstance(hint, types.UnionType):
        return typing.get_args(hint)[0]
    return typing.get_origin(hint) or hint


def resolvable(objective, name):
    """Whether an objective is one for this data set: some come with a decoder of binary images."""
    return not (name in COLOUR_DATASETS and config.is_for_binary(objective))


# Options


@pytest.mark.parametrize("name", of_type(int))
def test_what_is_no_whole_number_is_refused_by_the_option_s_name(name):
    for value in (1.5, True, "3", NAN, INFINITE, [3]):
        with pytest.raises(ValueError, match=f"^{name} is .*whole number"):
            smoke(**{name: value})


@pytest.mark.parametrize("name", of_type(float))
def test_what_is_no_finite_number_is_refused_by_the_option_s_name(name):
    for value in ("1e-3", True, NAN, INFINITE, -INFINITE, [1.0]):
        with pytest.raises(ValueError, match=f"^{name} is .*finite number"):
            smoke(**{name: value})


@pytest.mark.parametrize("name", of_type(tuple))
def test_a_tuple_of_another_length_or_not_of_numbers_is_refused_by_the_option_s_name(name):
    usual = typing.get_args(OPTIONS[name])  # as many types as numbers
    usual = tuple(kind(1) for kind in usual)
    text = "1" * len(usual)
    for value in (usual[1:], (*usual, 1), (), usual[0], text, tuple(text), (*usual[1:], NAN)):
        with pytest.raises(ValueError, match=f"^{name} is .*number"):
            smoke(**{name: value})


@pytest.mark.parametrize("name", of_type(str))
def test_what_is_no_choice_is_refused_by_the_option_s_name(name):
    for value in ("of no such kind", "", 3):
        with pytest.raises(ValueError, match=f"^{name} is {value!r}"):
            smoke(**{name: value})


def test_an_option_that_is_none_stays_as_the_preset_has_it():
    assert smoke(**dict.fromkeys(OPTIONS)) == smoke()


def test_a_whole_number_may_come_as_a_float_or_from_numpy_and_is_kept_as_int():
    for value in (4, 4.0, np.int64(4), np.int32(4), np.float64(4)):
        c = smoke(epochs=value, nll_k=value, test_images=value, seed=value)
        found = c.training.epochs, c.evaluation.nll_k, c.data.test_images, c.seed
        assert found == (4, 4, 4, 4)
        assert [type(each) for each in found] == [int] * 4


def test_a_number_may_come_as_an_int_or_from_numpy_and_is_kept_as_float():
    for value in (2, 2.0, np.int64(2), np.float32(2)):
        c = smoke(alpha=value, clip=value)
        assert (c.objective.alpha, c.training.clip) == (2.0, 2.0)
        assert type(c.objective.alpha) is type(c.training.clip) is float


def test_a_tuple_may_come_as_a_list_of_floats_and_is_kept_as_ints():
    c = smoke(encoder_channels=[4.0, np.int64(4), 8])
    assert c.network.encoder_channels == (4, 4, 8)
    assert [type(each) for each in c.network.encoder_channels] == [int] * 3


def test_a_large_seed_of_the_command_line_is_not_rounded():
    given = cli.parser("train").parse_args(["train", "--seed", str(2**53 + 1), "--epochs", "4e0"])
    assert (given.seed, given.epochs) == (2**53 + 1, 4.0)


def test_equal_values_make_equal_keys_however_they_are_written():
    ours = smoke(epochs=4, alpha=2.0, encoder_channels=(4, 4, 4))
    theirs = smoke(epochs=np.float64(4), alpha=2, encoder_channels=[4, 4.0, 4])
    assert ours == theirs
    assert ours.key("d") == theirs.key("d")


@pytest.mark.parametrize("value", ["false", "True", 0, 1.0, None])
def test_only_a_truth_value_says_yes_or_no(value):
    with pytest.raises(ValueError, match=f"^write is {value!r}; it must be True or False"):
        checked("write", value, bool, {})
    assert checked("write", False, bool, {}) is False


@pytest.mark.parametrize("value", [True, -1])
def test_the_seed_is_checked_like_an_option(value):
    with pytest.raises(ValueError, match=r"^seed is "):
        smoke(seed=value)


@pytest.mark.parametrize(
    ("objective", "options"),
    [
        ("vlae", {"alpha": 2.0, "beta": 0.1, "diverse": "mean"}),
        ("vae", {"alpha": 0.25}),
        ("mae", {"kl_weight": 3.0}),
    ],
)
def test_an_option_of_another_objective_has_no_effect_and_is_checked_all_the_same(
    objective, options
):
    plain = smoke(objective=objective)
    assert smoke(objective=objective, **options) == plain
    assert smoke(objective=objective, **options).key("d") == plain.key("d")
    name = next(iter(options))
    with pytest.raises(ValueError, match=f"^{name} is -1"):
        smoke(objective=objective, **{name: -1.0})


@pytest.mark.parametrize("name", sorted(set(OBJECTIVES) - {"capacity"}))
def test_free_bits_act_in_every_objective_but_one(name):
    objective = smoke(objective=name, free_bits=1e4, epochs=1).objective
    out = Outputs(torch.ones(4), torch.ones(4, requires_grad=True), *torch.randn(2, 4, 3))
    assert objective(out).loss > 1e3
    with pytest.raises(ValueError, match="free_bits is 3; the loss of capacity has no free bits"):
        smoke(objective="capacity", free_bits=3)


# JSON


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_configuration_comes_back_from_json_as_it_was(objective, name):
    if not resolvable(objective, name):
        with pytest.raises(ValueError, match=f"^objective is '{objective}'"):
            resolve("paper", name, objective)
        return
    for preset in PRESETS:
        c = resolve(preset, name, objective, seed=3, val_images=50, lr=1e-4)
        back = from_json(json.loads(json.dumps(asdict(c))))
        assert back == c
        assert back.key("d") == c.key("d")
        assert back.name("d") == c.name("d")


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: c.pop("network"),
        lambda c: c.pop("seed"),
        lambda c: c["objective"].update(name="gan"),
        lambda c: c["training"].update(colour=3),
        lambda c: c["training"].update(lr=-1.0),
        lambda c: c.update(data=3),
    ],
)
def test_json_of_another_version_is_refused(damage):
    content = asdict(smoke())
    damage(content)
    with pytest.raises(ValueError, match=r"no configuration of this version|lr is -1\.0"):
        from_json(content)


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*/*.json")), ids=lambda path: path.stem)
def test_a_committed_result_keeps_its_key(path):
    record = read(path)
    assert record.config.key(record.data["digest"]) == record.key
    assert record.name == path.stem


@pytest.mark.parametrize(
    "path", sorted(RESULTS.glob("laptop/mnist-*.json")), ids=lambda path: path.stem
)
def test_a_preset_still_gives_the_configuration_of_a_committed_result(path):
    settings = read(path).config
    shown = {**asdict(settings.objective), "objective": settings.objective.name}
    del shown["name"]
    components = asdict(settings.network) | asdict(settings.training)
    shown |= {name: components[name] for name in (*config.COMPONENTS, *config.TUNED)}
    assert resolve("laptop", "mnist", **shown, seed=settings.seed) == settings


# Choices


def test_data_sets_that_may_be_chosen_are_those_that_load_accepts(no_data):
    for name in (AUTO, *DATASETS):
        try:
            found = dataset.load(name, [no_data], download=False)
        except FileNotFoundError:
            assert name not in (AUTO, *STAND_INS.values())
        else:
            assert found.name == (STAND_INS["mnist"] if name == AUTO else name)
            assert (found.train.images.shape[1] == 3) == (found.name in COLOUR_DATASETS)
    with pytest.raises(ValueError, match=f"dataset is 'x'.*{', '.join((AUTO, *DATASETS))}"):
        dataset.load("x", [no_data], download=False)


def test_every_combination_of_components_for_one_kind_of_image_is_a_model_of_its_own():
    sizes = config.options_of(Network, config.COLOUR_PRESETS["smoke"] | PRESETS["smoke"])
    sizes |= {"latent": 64}
    kinds = {"resnet": (BINARY_DECODERS, (1, 28, 28)), "densenet": (COLOUR_DECODERS, (3, 32, 32))}
    kinds["constant"] = kinds["resnet"]
    seen = []
    for encoder, (decoders, shape) in kinds.items():
        for names in itertools.product([encoder], POSTERIORS, PRIORS, decoders):
            parts = dict(zip(config.COMPONENTS, names, strict=True))
            net = model.build(Network(**parts, **sizes))
            shapes = tuple((key, value.shape) for key, value in net.state_dict().items())
            seen.append((type(net.posterior), type(net.prior), shapes))
            outputs = net(torch.zeros(2, *shape), torch.randn(2, 64))
            assert all(part.isfinite().all() for part in outputs)
    assert set(kinds) == set(ENCODERS)
    assert len(set(seen)) == len(seen) == 96


@pytest.mark.parametrize(
    ("dataset", "parts", "message"),
    [
        ("digits", {"encoder": "densenet"}, "encoder is 'densenet' and decoder is 'pixelcnn'"),
        ("photos", {"encoder": "resnet"}, "encoder is 'resnet' and decoder is 'pixelcnnpp-7x3'"),
        ("photos", {"encoder": "resnet", "decoder": "pixelcnn"}, "cannot draw the colour images"),
        ("digits", {"prior": "map-flow"}, "latent is 32; map-flow needs a multiple of 64"),
        (
            "digits",
            {"gamma": 0.5},
            "gamma is 0.5, but only the posterior bn or du has this option; leave",
        ),
        (
            "digits",
            {"posterior": "bn", "variance_dropout": 0.2},
            "but only the posterior du has this option; leave it at 0.1",
        ),
        ("digits", {"delta": 0.3}, "delta is 0.3, but only the posterior delta"),
        ("digits", {"pseudo_inputs": 9}, "pseudo_inputs is 9, but only the prior vamp"),
        ("digits", {"posterior": "bn", "prior": "vamp"}, "normalises over a batch of images"),
        ("digits", {"objective": "free-bits-image", "free_bits": 0.0}, "give more than 0"),
        ("digits", {"objective": "annealing", "ramp": 5}, "ramp is 5.0; it must be .* at most 1"),
    ],
)
def test_components_that_do_not_go_together_are_refused(dataset, parts, message):
    with pytest.raises(ValueError, match=message):
        config.resolve("smoke", dataset, **parts)


@pytest.mark.parametrize("option", [{"ema": 1.0}, {"adam_betas": (0.9, 1.0)}, {"lr": 10**400}])
def test_numbers_beyond_their_range_are_refused(option):
    with pytest.raises(ValueError, match=next(iter(option))):
        smoke(**option)


SIZES = [name for name in options(Network) if name in (*of_type(int), *of_type(tuple))]


@pytest.mark.parametrize("name", SIZES)
def test_a_size_that_no_memory_holds_is_refused_before_anything_is_allocated(name):
    most = options(Network)[name][1]["most"]
    many = len(typing.get_args(OPTIONS[name])) if name in of_type(tuple) else 0
    with pytest.raises(ValueError, match=f"^{name} is 100000001; .*at most {most}"):
        smoke(**{name: [100_000_001] * many if many else 100_000_001})
    for preset in (*PRESETS.values(), *config.COLOUR_PRESETS.values()):
        assert np.max(preset.get(name, 0)) <= most


# What is imported


@pytest.mark.parametrize(
    "code",
    [
        "import maelib",
        "import maelib.config; maelib.config.resolve('paper', 'cifar10').key('d')",
        "import maelib.experiments",
        "from maelib import cli; cli.main(['--help'])",
        "from maelib import cli; cli.main(['train', '--help'])",
    ],
)
def test_configurations_and_help_need_no_torch(code):
    code = f"""
import sys
try:
    {code}
except SystemExit as end:
    assert end.code == 0
assert 'maelib' in sys.modules
heavy = {{'torch', 'torchvision', 'sklearn', 'scipy'}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if "train" in code:
        flags = {f"--{name.replace('_', '-')}" for name in OPTIONS}
        assert [flag for flag in flags if flag not in done.stdout] == []
