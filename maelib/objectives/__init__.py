"""The names of ``--objective``: the loss of each, with its usual hyper-parameters.

``SETS`` are the options that a name comes with beside its loss: components of the network, and
how it is trained. ``vae`` and ``vlae``, for one, minimise the same bound.
"""

from maelib.objectives.annealing import Annealing
from maelib.objectives.base import Objective
from maelib.objectives.capacity import Capacity
from maelib.objectives.elbo import ELBO
from maelib.objectives.mae import MAE
from maelib.objectives.mmd import MMD

FREE_BITS = 7.84  # nats an image: 0.01 a pixel
SETS: dict[str, dict] = {
    "vae": {"decoder": "resnet"},
    "free-bits-dimension": {"prior": "normal"},
    "free-bits-image": {"prior": "normal"},
    "capacity": {"prior": "normal"},
    "mmd": {"prior": "normal"},
}
OBJECTIVES: dict[str, Objective] = {
    "vae": ELBO(name="vae"),
    "vlae": ELBO(name="vlae", free_bits=FREE_BITS),
    "mae": MAE(),
    "beta-vae": ELBO(name="beta-vae", kl_weight=0.5),
    "annealing": Annealing(),
    "cyclical": Annealing(name="cyclical", cycles=4, ramp=0.5),
    "free-bits-dimension": ELBO(
        name="free-bits-dimension", free_bits=FREE_BITS, free_bits_per="dimension"
    ),
    "free-bits-image": ELBO(name="free-bits-image", free_bits=FREE_BITS, free_bits_per="image"),
    "capacity": Capacity(),
    "mmd": MMD(),
}
