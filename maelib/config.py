"""The configuration of a run: all settings that decide its result, grouped by the code they set.

It imports no torch, so that the command line can derive its options and their help from it.
"""

import tomllib
from dataclasses import asdict, dataclass, fields, replace
from numbers import Real
from pathlib import Path

from maelib.data import AUTO, COLOUR_DATASETS, DATASETS, Data
from maelib.internal.files import digest, typed
from maelib.internal.options import Settings, checked, options
from maelib.measure import Evaluation
from maelib.nets import (
    BATCH_NORM,
    BINARY_DECODERS,
    COLOUR_DECODERS,
    COLOUR_SIDE,
    PIXELCNN,
    Network,
    map_side,
)
from maelib.objectives import OBJECTIVES, SETS, Objective
from maelib.origin import Origin
from maelib.origin import find as find_origin
from maelib.training import TRAINING_VERSION, Training


@dataclass(frozen=True)
class Config:
    """A run's configuration. ``resolve`` makes one."""

    preset: str
    data: Data
    network: Network
    objective: Objective
    training: Training
    evaluation: Evaluation
    seed: int = 0

    def key(self, data_digest: str) -> str:
        """Identifies the run's result: configuration, data and version of the training.

        An option at its default is left out, so that finished runs stay valid when one is added.
        """
        parts = {name: _chosen(getattr(self, name)) for name in PARTS}
        parts["data"]["name"] = self.data.label
        parts["training"].pop("init_from", None)  # the key has the weights themselves
        chosen = {"preset": self.preset, "seed": self.seed, **parts}
        return digest([chosen, data_digest, TRAINING_VERSION])[:10]

    def label(self) -> str:
        """The model's name for people and files: ``mae-a1-b0.5``, ``vlae-normal``."""
        usual = usual_objective(self.objective.name, self.network.is_colour)
        ordinary = vars(Network()) | vars(Training())
        ordinary |= components(self.objective.name, self.network.is_colour)
        chosen = vars(self.network) | vars(self.training)
        names = [chosen[name] for name in COMPONENTS if chosen[name] != ordinary[name]]
        tuned = [name for name in TUNED if chosen[name] != ordinary[name]]
        return "-".join([self.objective.label(usual), *names, *(f"{n}{chosen[n]}" for n in tuned)])

    def short_name(self) -> str:
        """Data set, model and seed if it is not 0: ``mnist-mae-a1-b0.5``."""
        return f"{self.data.label}-{self.label()}" + (f"-s{self.seed}" if self.seed else "")

    def name(self, data_digest: str) -> str:
        """The run's folder name, unique to its key."""
        return f"{self.data.label}-{self.label()}-s{self.seed}-{self.key(data_digest)}"

    def on(self, dataset: str) -> "Config":
        """The same with another data set's name."""
        return replace(self, data=replace(self.data, name=dataset))

    def describe(self) -> str:
        """Every option in full, one ``name = value`` a line."""
        lines = [("preset", self.preset), ("seed", self.seed)]
        for name in PARTS:
            for option, value in asdict(getattr(self, name)).items():
                lines.append((name if option == "name" else option, value))
        return "\n".join(f"{name:>16} = {value}" for name, value in lines)


PARTS = {f.name: f.type for f in fields(Config) if issubclass(f.type, Settings)}
COMPONENTS = ("encoder", "posterior", "prior", "decoder")
# Other options of network and training that a label shows, unless the objective's name sets them
TUNED = ("gamma", "variance_dropout", "delta", "pseudo_inputs", *PIXELCNN, "encoder_steps")
BINARY_ONLY = {"encoder", "decoder", *PIXELCNN}  # an objective that sets one is for binary images

# Sizes by preset, then by option; colour images have their own. The smallest preset is the first.
_SIZES = tomllib.loads(Path(__file__).with_name("presets.toml").read_text(encoding="utf-8"))
PRESETS, COLOUR_PRESETS = _SIZES["binary"], _SIZES["colour"]


def components(objective: str, colour: bool) -> dict[str, object]:
    """What an objective comes with, networks for colour images included, beside the defaults."""
    networks = {"encoder": "densenet", "prior": "map-flow", "decoder": COLOUR_DECODERS[0]}
    return (networks if colour else {}) | SETS.get(objective, {})


def is_for_binary(objective: str) -> bool:
    """Whether an objective comes with networks that colour images do not have."""
    return not BINARY_ONLY.isdisjoint(SETS.get(objective, {}))


def usual_objective(name: str, colour: bool) -> Objective:
    """An objective with its usual hyper-parameters; on colour images the VLAE has no free bits."""
    usual = OBJECTIVES[name]
    return replace(usual, free_bits=0.0) if colour and not usual.needs_free_bits else usual


def resolve(
    preset: str = "quick",
    dataset: str | Path = "auto",
    objective: str = "mae",
    *,
    seed: Real = 0,
    **given: object,
) -> Config:
    """The complete configuration of a run: a preset's sizes with what the caller overrides.

    ``given`` are options of ``Data``, ``Network``, ``Training``, ``Evaluation`` and of all
    objectives by name; None keeps the value of the preset or the objective. Options of
    objectives other than the chosen one are checked and have no effect. An explicit ``epochs``
    sets ``min_steps`` to 0. ``dataset`` may be the path of own pictures (``data.own``), which
    decide the networks' sizes. The networks are those of the model that ``init_from`` names, if
    it is given. ValueError, one sentence, for the first bad value.
    """
    checked("preset", preset, str, {"choices": tuple(PRESETS)})
    checked("objective", objective, str, {"choices": tuple(OBJECTIVES)})
    name, colour, side = _images(str(dataset))
    if colour and is_for_binary(objective):
        raise ValueError(
            f"objective is {objective!r}, which has no networks for colour images; use vlae or mae."
        )
    given = _known(given)
    if "epochs" in given:
        given = {"min_steps": 0, **given}
    sizes = _sized((COLOUR_PRESETS if colour else PRESETS)[preset], colour, side)
    begin = checked("init_from", given.get("init_from"), str | None, {})
    origin = None if begin is None else find_origin(begin)
    theirs = vars(origin.network) if origin else {}
    _check_origin(objective, theirs, given)
    chosen = components(objective, colour) | sizes | theirs | given
    config = Config(
        preset=preset,
        data=Data(name=name, **options_of(Data, chosen)),
        network=Network(**options_of(Network, chosen), own_side=side),
        objective=_objective(objective, colour, given),
        training=Training(**options_of(Training, chosen)),
        evaluation=Evaluation(**options_of(Evaluation, chosen)),
        seed=checked("seed", seed, int, {"least": 0}),
    )
    _check_together(config, colour)
    return config if origin is None else _begun(config, origin)


def from_json(content: dict) -> Config:
    """The configuration that a JSON object holds; ValueError if it holds none."""
    try:
        usual = OBJECTIVES[content["objective"]["name"]]
        objective = typed(type(usual), asdict(usual) | content["objective"])
        others = {name: typed(PARTS[name], content[name]) for name in PARTS if name != "objective"}
        preset = checked("preset", content["preset"], str, {"choices": tuple(PRESETS)})
        seed = checked("seed", content["seed"], int, {"least": 0})
    except (KeyError, TypeError, ValueError) as problem:
        raise ValueError(f"it holds no configuration of this version ({problem!r})") from problem
    config = Config(preset=preset, objective=objective, seed=seed, **others)
    data, network = config.data, config.network
    _check_together(config, network.is_colour if data.is_own else data.name in COLOUR_DATASETS)
    return config


def objective_classes() -> list[type[Objective]]:
    """The class of every objective, each once."""
    return list(dict.fromkeys(type(objective) for objective in OBJECTIVES.values()))


def _images(dataset: str) -> tuple[str, bool, int | None]:
    """A data set's name or path, whether it is of colour images, and the side of own pictures."""
    if dataset in (AUTO, *DATASETS):
        return dataset, dataset in COLOUR_DATASETS, None
    from maelib.data import own  # imports torch

    path = own.find(dataset)
    return str(path), *own.look(path)


def _sized(sizes: dict, colour: bool, side: int | None) -> dict:
    """A preset's sizes; own colour pictures have as many latent maps, whatever their side is."""
    if not colour or side is None:
        return sizes
    maps = sizes["latent"] // map_side(COLOUR_SIDE) ** 2
    return sizes | {"latent": maps * map_side(side) ** 2}


def _known(given: dict) -> dict:
    """The options that have a value; ValueError if one is not an option of a run."""
    kinds = [Data, Network, Training, Evaluation, *objective_classes()]
    given = {name: value for name, value in given.items() if value is not None}
    if unknown := set(given).difference(*(options(kind) for kind in kinds)):
        raise ValueError(
            f"{min(unknown)} is not an option of a run; maelib train --help lists all of them."
        )
    return given


def _begun(config: Config, origin: Origin) -> Config:
    """The configuration with the weights that the run begins with."""
    origin.require(config.network)
    begun = {"init_from": str(origin.path), "init_weights": origin.weights}
    return replace(config, training=replace(config.training, **begun))


def _objective(name: str, colour: bool, given: dict) -> Objective:
    for kind in objective_classes():
        options_of(kind, given)  # checks the values of the others too
    usual = usual_objective(name, colour)
    return replace(usual, **options_of(type(usual), given))


def _check_origin(objective: str, theirs: dict, given: dict) -> None:
    """ValueError if an objective comes with another network than the model to begin from has.

    Options of that network, such as ``gamma``, may have any value: those of the model are kept.
    """
    for name, value in SETS.get(objective, {}).items():
        is_defining = name in (*COMPONENTS, "z_path")
        if is_defining and name not in given and theirs.get(name, value) != value:
            raise ValueError(
                f"objective is {objective!r}, which needs the {name} {value}, but the model that "
                f"init_from names has {theirs[name]}; begin with another model, or use vlae or mae."
            )


def _check_together(config: Config, colour: bool) -> None:
    """Checks that concern several parts."""
    if colour != config.network.is_colour:
        kind, able = ("colour", COLOUR_DECODERS) if colour else ("binary", BINARY_DECODERS)
        raise ValueError(
            f"decoder is {config.network.decoder!r}, which cannot draw the {kind} images of "
            f"{config.data.label}; use {' or '.join(able)}."
        )
    if config.objective.needs_normal and config.network.prior != "normal":
        raise ValueError(
            f"prior is {config.network.prior!r}; the loss of {config.objective.name} is defined "
            "for N(0, I) and needs normal."
        )
    if config.objective.free_bits and not config.objective.has_free_bits:
        raise ValueError(
            f"free_bits is {config.objective.free_bits:g}; the loss of {config.objective.name} has "
            "no free bits and needs 0."
        )
    if config.objective.needs_free_bits and not config.objective.free_bits:
        raise ValueError(
            f"free_bits is 0, which makes {config.objective.name} the plain VAE; give more than 0, "
            "or use vlae."
        )
    network = config.network
    if network.prior == "vamp" and network.posterior in BATCH_NORM:
        raise ValueError(
            f"posterior is {network.posterior!r}, which normalises over a batch of images, and "
            "the pseudo-inputs of the prior vamp are not such a batch; use gaussian or delta."
        )


def options_of(kind: type[Settings], given: dict) -> dict:
    """Those of the given values that are options of a settings class, checked and converted."""
    there = {name: how for name, how in options(kind).items() if given.get(name) is not None}
    return {name: checked(name, given[name], *how) for name, how in there.items()}


def _chosen(part: Settings) -> dict:
    given = asdict(part).items()
    return {name: v for name, v in given if name == "name" or v != getattr(type(part), name)}
