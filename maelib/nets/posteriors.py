"""The posteriors q(z|x): from an encoder's features to a mean and a log-variance."""

from jaxtyping import Float
from torch import Tensor, nn

from maelib.internal.shapes import Codes


class GaussianPosterior(nn.Module):
    """q(z|x) = N(mu, diag(exp logvar)) by ``layer``; ``logvar_range`` clamps logvar, if given."""

    def __init__(self, layer: nn.Module, logvar_range: tuple[float, float] | None = None):
        super().__init__()
        self.layer, self.logvar_range = layer, logvar_range

    def forward(self, features: Float[Tensor, "batch *shape"]) -> tuple[Codes, Codes]:
        mu, logvar = (part.flatten(1) for part in self.layer(features).chunk(2, 1))
        return mu, logvar if self.logvar_range is None else logvar.clamp(*self.logvar_range)
