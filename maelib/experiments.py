"""The list of runs behind the paper's tables and figures, shared by all that need it.

Tables, command line, notebooks and workflow take a run's settings from here, and only from here.
"""

from dataclasses import dataclass, field

from maelib.config import Config, resolve

ALPHAS = (0.5, 1.0, 2.0)
BETAS = (0.1, 0.5, 1.0)


@dataclass(frozen=True)
class Experiment:
    """A row of a table, or a point of a figure: what ``resolve`` needs besides the preset."""

    table: str  # "mnist", "omniglot", "cifar10" or "forms"
    settings: dict = field(default_factory=dict)

    def config(self, preset: str, dataset: str, seed: int = 0) -> Config:
        """The run's configuration at a preset, on a data set."""
        return resolve(preset, dataset, seed=seed, **self.settings)


def _mae(table: str, alpha: float, beta: float, **more: object) -> Experiment:
    return Experiment(table, {"objective": "mae", "alpha": alpha, "beta": beta, **more})


MNIST = (
    Experiment("mnist", {"objective": "vae"}),
    Experiment("mnist", {"objective": "vlae", "free_bits": 0.0}),
    Experiment("mnist", {"objective": "vlae"}),
    *(_mae("mnist", alpha, beta) for beta in BETAS for alpha in ALPHAS),
)
# Free bits for MAE: Section 4.1 and Appendix B.1.1 contradict each other.
FREE_BITS = (_mae("mnist", 0.5, 0.1, free_bits=7.84),)
# ``tempered`` is in the list above, and at alpha = 1 ``mean`` is the same.
FORMS = (
    *(_mae("forms", alpha, 0.5, diverse="mean") for alpha in ALPHAS if alpha != 1),
    *(_mae("forms", alpha, 0.5, diverse="pairwise") for alpha in ALPHAS),
)
OMNIGLOT = (
    Experiment("omniglot", {"objective": "vlae"}),
    _mae("omniglot", 0.5, 0.1),
    _mae("omniglot", 0.5, 0.5),
    _mae("omniglot", 1.0, 0.5),
)
# The paper's small window for all, the authors' three-level PixelCNN++ for two.
CIFAR10 = (
    Experiment("cifar10", {"objective": "vlae"}),
    *(_mae("cifar10", alpha, 1.0) for alpha in (0.25, 0.5, 1.0)),
    Experiment("cifar10", {"objective": "vlae", "decoder": "pixelcnnpp"}),
    _mae("cifar10", 0.5, 1.0, decoder="pixelcnnpp"),
)
EVERYTHING = (*MNIST, *FREE_BITS, *FORMS, *OMNIGLOT, *CIFAR10)
# A small part of the list with a row for every table and figure, for presets of minutes.
TELLING = (
    Experiment("mnist", {"objective": "vae"}),
    Experiment("mnist", {"objective": "vlae"}),
    _mae("mnist", 1.0, 0.5),
    _mae("omniglot", 0.5, 0.1),
    Experiment("cifar10", {"objective": "vlae"}),
    _mae("cifar10", 0.5, 1.0),
)


def choose(preset: str) -> tuple[Experiment, ...]:
    """The experiments that are run at a preset: a telling part below ``laptop``, else all."""
    return TELLING if preset in ("smoke", "quick") else EVERYTHING
