"""The names of ``--objective``: the loss of each, with its usual hyper-parameters.

``SETS`` are the options that a name comes with beside its loss: components of the network, or
how it is trained. A name that stands only there minimises the ELBO.
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
    "delta": {"posterior": "delta", "prior": "normal"},
    "bn": {"posterior": "bn", "prior": "normal"},
    "du": {"posterior": "du", "prior": "normal", "gamma": 0.5},
    "vamp": {"prior": "vamp"},
    "lagging": {"encoder_steps": 10},
    "skip": {"z_path": "skip"},
    "input-dropout": {"input_dropout": 0.2},
    "small-kernel": {"max_kernel": 3},
    "no-code": {"z_path": "none"},  # a control: the decoder alone
    "constant": {"encoder": "constant", "posterior": "delta", "prior": "normal"},  # another
}
OBJECTIVES: dict[str, Objective] = {name: ELBO(name=name) for name in SETS} | {
    "vlae": ELBO(free_bits=FREE_BITS),
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
