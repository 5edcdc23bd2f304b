"""What is measured on a trained model, and by which settings."""

from dataclasses import dataclass

from maelib.internal.options import Settings, option

EVALUATION_VERSION = 2  # raised when what is measured changes; finished runs are measured again


@dataclass(frozen=True)
class Evaluation(Settings):
    """How the NLL is estimated; ``None`` is all test images that the run uses."""

    nll_images: int | None = option(None, "test images of the NLL", least=2)
    nll_k: int = option(4096, "importance samples of the NLL", least=1)
