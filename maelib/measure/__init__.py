"""What is measured on a trained model, and by which settings."""

from dataclasses import dataclass

from maelib.internal.options import Settings, option

EVALUATION_VERSION = 3  # raised when what is measured changes; finished runs are measured again


@dataclass(frozen=True)
class Evaluation(Settings):
    """How the NLL of all test images that the run uses is estimated.

    ``nll_images`` of them, drawn at random, have ``nll_k`` importance samples, and all have
    ``nll_k_all``. If that is 1, it is the ELBO's sample. ``measure/estimate.py`` joins the two. By
    default every image has ``nll_k`` samples.
    """

    nll_images: int | None = option(None, "test images with nll_k importance samples", least=2)
    nll_k: int = option(4096, "importance samples of the NLL", least=1)
    nll_k_all: int = option(1, "importance samples of every test image", least=1)
