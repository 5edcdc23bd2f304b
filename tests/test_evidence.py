"""The law beside which docs/reproduction.md draws KL and MPD."""

import pytest
import torch

from maelib.divergences import mpd, standard_kl
from maelib.report.evidence import linear_kl


def test_law_of_the_linear_case_from_its_posteriors():
    """Equal dimensions whose averaged posterior is N(0, I), as in notebook 09."""
    variance, latent = 0.2, 8
    draws = torch.Generator().manual_seed(0)
    mu = (1 - variance) ** 0.5 * torch.randn(4000, latent, generator=draws, dtype=torch.float64)
    logvar = torch.full_like(mu, variance).log()
    kl = standard_kl(mu, logvar).sum(1).mean().item()
    assert kl == pytest.approx(linear_kl(mpd(mu, logvar).item(), latent), rel=0.01)
