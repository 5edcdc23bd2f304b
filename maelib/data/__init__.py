"""The data sets: their names, and how much of one a run uses."""

from dataclasses import dataclass

from maelib.internal.options import Settings, option

BINARY = ("mnist", "digits", "omniglot", "omniglot_lake")
COLOUR = ("cifar10", "photos")
DATASETS = (*BINARY, *COLOUR)
STAND_INS = {"mnist": "digits", "cifar10": "photos"}  # bundled with scikit-learn
AUTO = "auto"  # mnist where it is found or can be downloaded, else its stand-in


@dataclass(frozen=True)
class Data(Settings):
    """A data set and how many of its images are used; ``None`` is all of them."""

    name: str
    train_images: int | None = option(None, "use only the first so many training images", least=2)
    val_images: int | None = option(None, "use only the first so many validation images", least=2)
    test_images: int | None = option(None, "measure on the first so many test images", least=2)

    @property
    def is_colour(self) -> bool:
        """Whether its images are colour ones."""
        return self.name in COLOUR
