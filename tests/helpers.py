"""What several files of tests use."""

import torch

from maelib.config import Config, resolve

CPU = torch.device("cpu")


def smoke(objective: str = "mae", **options: object) -> Config:
    """The smallest run, which trains in a second."""
    return resolve("smoke", "digits", objective, **options)


def silent(_: str) -> None:
    """A log that nobody reads."""
