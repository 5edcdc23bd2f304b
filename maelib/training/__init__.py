"""Training: the loop, one step of it, and the settings of both."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from maelib.data import Data
from maelib.internal.options import Settings, option
from maelib.nets import Network
from maelib.objectives import Objective

TRAINING_VERSION = 1  # raised by hand when the mathematics of training changes
SCHEDULES = ("plateau", "cosine", "cooldown")
PRECISIONS = ("auto", "float32", "tf32", "bf16")
WAYS = ("compiled-captured", "captured", "compiled", "eager")  # ``training.ladder``
DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass(frozen=True)
class Training(Settings):
    """How a model is trained; by default as in the paper."""

    epochs: int = option(500, "passes over the training images", least=1)
    min_steps: int = option(0, "least number of steps; small data gets more passes", least=0)
    batch_size: int = option(100, "images in a step", least=2)
    lr: float = option(1e-3, "Adam's learning rate", above=0)
    lr_decay: float = option(0.999998, "plateau: factor on the learning rate at each step", above=0)
    adam_betas: tuple[float, float] = option(
        (0.9, 0.999), "Adam's two decay rates", least=0, below=1
    )
    clip: float = option(5.0, "largest norm of the gradient", above=0)
    ema: float = option(0.999, "decay of the averaged weights", least=0, below=1)
    schedule: str = option("plateau", "schedule of the learning rate", choices=SCHEDULES)
    patience: int = option(
        20, "plateau: validations without a better ELBO before the rate is halved", least=1
    )
    halvings: int = option(3, "plateau: halvings of the rate before training ends", least=0)
    init_images: int = option(500, "images of the data-dependent initialisation", least=2)
    encoder_steps: int = option(
        0, "most updates of the encoder alone before each step, while I_q rises", least=0
    )
    validate_steps: int | None = option(
        None, "steps between validations (default: an epoch)", least=1
    )
    init_from: str | None = option(None, "start from this run's folder or pretrained model")
    init_weights: str = ""  # their fingerprint, which is part of the run's key


@runtime_checkable
class Job(Protocol):
    """What training reads of a run's configuration, ``config.Config``."""

    data: Data
    network: Network
    objective: Objective
    training: Training
    seed: int
