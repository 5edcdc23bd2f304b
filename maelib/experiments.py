"""The list of runs behind the paper's tables and figures, and what each of them is for.

Tables, figures, verdicts, notebooks and workflow take a run's settings, its row of the paper and
its notebook from here, and only from here.
"""

from dataclasses import dataclass, field
from functools import cache

from maelib.config import Config, resolve
from maelib.objectives import FREE_BITS
from maelib.objectives.mae import DIVERSE_FORMS

ALPHAS = (0.5, 1.0, 2.0)
BETAS = (0.1, 0.5, 1.0)
# The data sets that an experiment's images may be: the paper's, then what stands in for them.
IMAGES = {
    "mnist": ("mnist", "digits"),
    "omniglot": ("omniglot", "omniglot_lake"),
    "cifar10": ("cifar10", "photos"),
}
PARAMETERS = ("alpha", "beta", "diverse", "free_bits", "decoder", "epochs")  # of these notebooks
NOTEBOOKS = {"mnist": "04_mnist_mae", "omniglot": "05_omniglot_mae", "cifar10": "07_cifar10_mae"}


@dataclass(frozen=True, eq=False)
class Experiment:
    """A model to be trained: what ``resolve`` needs beside preset, data set and seed.

    ``row`` identifies the paper's row for it in every table (``report/paper_tables.yaml``); None
    if the paper has none. ``group`` is "paper", or "zoo" for the remedies that are compared.
    """

    images: str  # a key of ``IMAGES``
    objective: str
    options: dict = field(default_factory=dict)
    row: str | None = None
    group: str = "paper"

    @property
    def notebook(self) -> str:
        """The notebook that trains and shows it."""
        return NOTEBOOKS[self.images]

    @property
    def parameters(self) -> dict:
        """The parameters of the notebook that are the experiment's own.

        An option that the notebooks have no parameter for is one of ``more``.
        """
        more = {name: value for name, value in self.options.items() if name not in PARAMETERS}
        own = {name: value for name, value in self.options.items() if name in PARAMETERS}
        return {"objective": self.objective, **own} | ({"more": more} if more else {})

    @property
    def label(self) -> str:
        """The model's name for people: ``mae-a1-b0.5``."""
        return self.config("paper", self.images).label()

    def config(self, preset: str, dataset: str, seed: int = 0) -> Config:
        """The run's configuration at a preset, on a data set."""
        return _resolved(self, preset, dataset, seed)

    def matches(self, config: Config) -> bool:
        """Whether a configuration is this experiment's, at whatever preset and seed."""
        preset, name, seed = config.preset, config.data.name, config.seed
        return name in IMAGES[self.images] and config == self.config(preset, name, seed)


@cache  # a record is compared with every experiment, and a table with every record
def _resolved(e: Experiment, preset: str, dataset: str, seed: int) -> Config:
    return resolve(preset, dataset, e.objective, seed=seed, **e.options)


def _mae(images: str, alpha: float, beta: float, row: bool = True, **more: object) -> Experiment:
    options = {"alpha": alpha, "beta": beta, **more}
    return Experiment(images, "mae", options, f"mae-{alpha:g}-{beta:g}" if row else None)


# Tables 1a, 2 and 4. Tables 1a and 2 print the VLAE with free bits.
VAE = Experiment("mnist", "vae", row="vae")
VLAE = Experiment("mnist", "vlae", row="vlae")
VLAE_NO_FREE_BITS = Experiment("mnist", "vlae", {"free_bits": 0.0}, row="vlae-no-free-bits")
MAE = {(alpha, beta): _mae("mnist", alpha, beta) for beta in BETAS for alpha in ALPHAS}
MNIST = (VAE, VLAE_NO_FREE_BITS, VLAE, *MAE.values())
# Free bits for MAE: Section 4.1 and Appendix B.1.1 contradict each other.
MAE_FREE_BITS = _mae("mnist", 0.5, 0.1, row=False, free_bits=FREE_BITS)
# The forms of L_diverse at beta = 0.5, by alpha. At alpha = 1 ``mean`` is ``tempered``.
FORMS = {
    form: {
        alpha: MAE[alpha, 0.5]
        if form == "tempered" or (form == "mean" and alpha == 1)
        else _mae("mnist", alpha, 0.5, row=False, diverse=form)
        for alpha in ALPHAS
    }
    for form in DIVERSE_FORMS
}
# Table 1b
OMNIGLOT_VLAE = Experiment("omniglot", "vlae", row="vlae")
OMNIGLOT_MAE = {ab: _mae("omniglot", *ab) for ab in ((0.5, 0.1), (0.5, 0.5), (1.0, 0.5))}
OMNIGLOT = (OMNIGLOT_VLAE, *OMNIGLOT_MAE.values())
# Table 3: the paper's small window for all, the authors' three-level PixelCNN++ for two.
CIFAR10_VLAE = Experiment("cifar10", "vlae", row="vlae")
CIFAR10_MAE = {alpha: _mae("cifar10", alpha, 1.0) for alpha in (0.25, 0.5, 1.0)}
CIFAR10_FULL_VLAE = Experiment("cifar10", "vlae", {"decoder": "pixelcnnpp"}, row="vlae")
CIFAR10_FULL_MAE = _mae("cifar10", 0.5, 1.0, decoder="pixelcnnpp")
CIFAR10 = (CIFAR10_VLAE, *CIFAR10_MAE.values(), CIFAR10_FULL_VLAE, CIFAR10_FULL_MAE)


def _zoo(objective: str, tried: str = "", values: tuple = (), **options) -> tuple[Experiment, ...]:
    """An experiment for each value of the option that is ``tried``, with N(0, I) unless given."""
    each = [options | {tried: value} for value in values] or [options]
    return tuple(Experiment("mnist", objective, {"prior": "normal"} | o, group="zoo") for o in each)


# A control beside the remedies: with so many free bits the VLAE has about the KL of MAE(1, 0.5).
VLAE_OF_MAE_KL = Experiment("mnist", "vlae", {"free_bits": 12.0}, group="zoo")
# At alpha = 1 the form ``mean`` is ``tempered``.
_NORMAL = {form: _zoo("mae", "alpha", ALPHAS, beta=0.5, diverse=form) for form in DIVERSE_FORMS}
_NORMAL["mean"] = (_NORMAL["mean"][0], _NORMAL["tempered"][1], _NORMAL["mean"][2])
# The remedies against collapse. One with an option has three tries, and the best validation ELBO
# chooses between them.
ZOO: dict[str, tuple[Experiment, ...]] = {
    "plain VAE": _zoo("vlae", free_bits=0.0),
    "KL annealing": _zoo("annealing", "ramp", (0.1, 0.25, 0.5)),
    "cyclical annealing": _zoo("cyclical", "cycles", (2, 4, 8)),
    "beta-VAE": _zoo("beta-vae", "kl_weight", (0.2, 0.5, 0.8)),
    "free bits, batch": _zoo("vlae", "free_bits", (4.0, FREE_BITS, 12.0)),
    "free bits, dimension": _zoo("free-bits-dimension", "free_bits", (4.0, FREE_BITS, 12.0)),
    "free bits, image": _zoo("free-bits-image", "free_bits", (4.0, FREE_BITS, 12.0)),
    "capacity": _zoo("capacity", "capacity", (5.0, 10.0, 15.0)),
    "delta-VAE": _zoo("delta", "delta", (0.1, 0.15, 0.3)),
    "BN-VAE": _zoo("bn", "gamma", (0.5, 0.6, 0.7)),
    "DU-VAE": _zoo("du", "gamma", (0.4, 0.5, 0.6)),
    "MMD-VAE": _zoo("mmd", "kl_weight", (0.2, 0.5, 0.8)),
    "lagging encoder": _zoo("lagging", "encoder_steps", (2, 5, 10)),  # each costs about a step
    "skip-VAE": _zoo("skip"),
    "input dropout": _zoo("input-dropout", "input_dropout", (0.1, 0.2, 0.4)),
    "smaller kernels": _zoo("small-kernel", "max_kernel", (1, 3, 5)),
    "VampPrior": _zoo("vamp", "pseudo_inputs", (100, 250, 500), prior="vamp"),
    **{f"MAE, {form}": tries for form, tries in _NORMAL.items()},
    "plain VAE, flow prior": (VLAE_NO_FREE_BITS,),
    "free bits, batch, flow prior": (VLAE,),
    "lagging encoder, flow prior": (Experiment("mnist", "lagging", group="zoo"),),
    **{f"MAE, {form}, flow prior": tuple(FORMS[form].values()) for form in DIVERSE_FORMS},
    "decoder without z": _zoo("no-code"),
    "constant encoder": _zoo("constant", "delta", (0.1, 0.15, 0.3)),
}

_FORMS = tuple(e for runs in FORMS.values() for e in runs.values() if e not in MNIST)
PAPER = (*MNIST, MAE_FREE_BITS, *_FORMS, *OMNIGLOT, *CIFAR10)
_TRIES = (e for tries in ZOO.values() for e in tries)
EVERYTHING = tuple(dict.fromkeys([*PAPER, *_TRIES, VLAE_OF_MAE_KL]))
# A small part of the list with a row for every table and figure, for presets of minutes.
REPRESENTATIVE = (VAE, VLAE, MAE[1.0, 0.5], OMNIGLOT_MAE[0.5, 0.1], CIFAR10_VLAE, CIFAR10_MAE[0.5])
# The models of Figures 2 to 4, the first that is trained of each list.
PICTURED = {
    "mnist": ([MAE[1.0, 0.5]], [VLAE]),
    "omniglot": ([OMNIGLOT_MAE[0.5, 0.5], OMNIGLOT_MAE[0.5, 0.1]], [OMNIGLOT_VLAE]),
    "cifar10": ([CIFAR10_MAE[0.5]], [CIFAR10_VLAE]),
}


# The rows that the paper's claims are about; at ``laptop`` they are trained from three seeds.
CLAIMED = (
    *(VAE, VLAE_NO_FREE_BITS, VLAE, MAE_FREE_BITS),
    *(MAE[ab] for ab in ((1.0, 0.1), (1.0, 0.5), (2.0, 0.5))),
)


# Of those at ``laptop``, the rows that are trained from three seeds at ``short`` as well.
HEADLINE = (VAE, VLAE, MAE[1.0, 0.5])


def seeds(experiment: Experiment, preset: str) -> tuple[int, ...]:
    """The seeds that an experiment is trained from at a preset."""
    claimed = {"laptop": CLAIMED, "short": HEADLINE}.get(preset, ())
    return (0, 1, 2) if experiment in claimed or experiment.group == "zoo" else (0,)


def choose(preset: str, group: str = "paper") -> tuple[Experiment, ...]:
    """The experiments of a group at a preset: below ``laptop`` a part of the paper's."""
    if group == "zoo":
        return tuple(e for e in EVERYTHING if e.group == "zoo")
    return REPRESENTATIVE if preset in ("smoke", "quick") else PAPER


@cache
def experiment_of(config: Config) -> Experiment | None:
    """The experiment that a configuration is of; None if it is not of the list."""
    return next((e for e in EVERYTHING if e.matches(config)), None)


def images_of(dataset: str) -> str | None:
    """The paper's data set that ``dataset`` is, or stands in for; None for own pictures."""
    return next((images for images, names in IMAGES.items() if dataset in names), None)
