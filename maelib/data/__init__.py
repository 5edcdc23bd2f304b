"""The data sets: their names, and how much of one a run uses."""

import re
from dataclasses import dataclass
from pathlib import Path

from maelib.internal.options import Settings, option

BINARY_DATASETS = ("mnist", "mnist_static", "digits", "omniglot", "omniglot_lake")
COLOUR_DATASETS = ("cifar10", "photos")
DATASETS = (*BINARY_DATASETS, *COLOUR_DATASETS)
STAND_INS = {"mnist": "digits", "cifar10": "photos"}  # bundled with scikit-learn
AUTO = "auto"  # mnist where it is found or can be downloaded, else its stand-in


@dataclass(frozen=True)
class Data(Settings):
    """A data set and how many of its images are used; ``None`` is all of them.

    ``name`` is one of ``DATASETS``, ``AUTO``, or the path of own pictures.
    """

    name: str
    train_images: int | None = option(None, "use only the first so many training images", least=2)
    val_images: int | None = option(None, "use only the first so many validation images", least=2)
    test_images: int | None = option(None, "measure on so many random test images", least=2)

    @property
    def is_own(self) -> bool:
        """Whether the images are own pictures."""
        return self.name not in (AUTO, *DATASETS)

    @property
    def label(self) -> str:
        """The name for people and files; that of own pictures never equals a data set's."""
        stem = re.sub("[^0-9A-Za-z]+", "-", Path(self.name).stem)
        return f"own-{stem}" if self.is_own else self.name
