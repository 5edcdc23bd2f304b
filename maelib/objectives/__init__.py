"""The objectives that can be minimised, by name, with their usual hyper-parameters.

``vae`` and ``vlae`` minimise the same bound and differ in their decoders (``config.components``).
"""

from maelib.objectives.base import Objective
from maelib.objectives.elbo import ELBO
from maelib.objectives.mae import MAE

OBJECTIVES: dict[str, Objective] = {
    "vae": ELBO(name="vae"),
    "vlae": ELBO(name="vlae", free_bits=7.84),  # 0.01 nats a pixel
    "mae": MAE(name="mae"),
    "beta-vae": ELBO(name="beta-vae", kl_weight=0.5),
}
