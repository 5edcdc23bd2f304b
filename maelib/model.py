"""The variational autoencoder: q(z|x), p(z) and p(x|z) put together, and the terms of Eq. (3)."""

import math

from jaxtyping import Float
from torch import Tensor, nn

from maelib.internal.shapes import Codes, Images, PerImage
from maelib.nets import MAP_SIZE, Network
from maelib.nets.densenet import LOGVAR_RANGE, DenseNetEncoder
from maelib.nets.flows import map_steps, vector_steps
from maelib.nets.layers import Conv2d, Linear, initialise_from_data
from maelib.nets.pixelcnn import PixelCNN
from maelib.nets.pixelcnnpp import FullPixelCNN, SmallPixelCNN
from maelib.nets.posteriors import GaussianPosterior
from maelib.nets.priors import FlowPrior, StandardNormal
from maelib.nets.resnet import ResNetDecoder, ResNetEncoder
from maelib.objectives.base import Outputs


class VAE(nn.Module):
    """A VAE of any encoder, posterior, prior and decoder of the package's kinds; z is a vector."""

    def __init__(
        self, encoder: nn.Module, posterior: nn.Module, prior: nn.Module, decoder: nn.Module
    ):
        super().__init__()
        self.encoder, self.posterior = encoder, posterior
        self.prior, self.decoder = prior, decoder

    def forward(self, x: Images, eps: Codes) -> Outputs:
        """RE and KL of Eq. (3) in nats for each image by one posterior sample; mu and logvar.

        ``eps`` is the standard normal noise of the sample.
        """
        mu, logvar = self.encode(x)
        z = reparameterise(mu, logvar, eps)
        kl = log_normal(eps, logvar) - self.prior.log_prob(z)
        re = -self.log_likelihood(x, z)
        return Outputs(re, kl, mu, logvar)

    def encode(self, x: Images) -> tuple[Codes, Codes]:
        """mu and logvar of q(z|x), in the precision of ``x`` whatever the encoder multiplies in."""
        mu, logvar = self.posterior(self.encoder(x))
        return mu.to(x.dtype), logvar.to(x.dtype)

    def log_likelihood(self, x: Images, z: Codes) -> PerImage:
        """log p(x|z) in nats for each image."""
        return self.decoder.log_prob(self.decoder(z, x).to(x.dtype), x)


def reparameterise(
    mu: Float[Tensor, "*#batch latent"],
    logvar: Float[Tensor, "*#batch latent"],
    eps: Float[Tensor, "*#batch latent"],
) -> Float[Tensor, "*#batch latent"]:
    """The posterior sample z = mu + exp(logvar / 2) eps; shapes broadcast."""
    return mu + (0.5 * logvar).exp() * eps


def log_normal(
    eps: Float[Tensor, "*batch latent"], logvar: Float[Tensor, "*batch latent"]
) -> Float[Tensor, "*batch"]:
    """log q(z|x) in nats at z = mu + exp(logvar / 2) eps."""
    return -0.5 * (eps.square() + logvar + math.log(2 * math.pi)).sum(-1)


def build(network: Network) -> VAE:
    """The model of a network's settings, with its layers' plain initial values."""
    encoder = _encoder(network)
    return VAE(encoder, _posterior(network, encoder), _prior(network), _decoder(network))


def initialise(model: VAE, x: Images, eps: Codes) -> None:
    """Data-dependent initialisation of the whole model on one batch of images."""
    initialise_from_data(model, lambda: model(x, eps))


def _encoder(n: Network) -> nn.Module:
    if n.encoder == "densenet":
        return DenseNetEncoder(n.growth, n.dense_steps)
    return ResNetEncoder(n.encoder_channels, n.encoder_hidden)


def _posterior(n: Network, encoder: nn.Module) -> nn.Module:
    if n.encoder == "densenet":
        return GaussianPosterior(Conv2d(encoder.outputs, 2 * n.maps, 1), LOGVAR_RANGE)
    return GaussianPosterior(Linear(encoder.outputs, 2 * n.latent))


def _prior(n: Network) -> nn.Module:
    if n.prior == "normal":
        return StandardNormal(n.latent)
    if n.prior == "map-flow":
        return FlowPrior(n.latent, map_steps(n.maps, MAP_SIZE, n.flow_hidden, 2 * n.flow_pairs))
    return FlowPrior(n.latent, vector_steps(n.latent, n.flow_hidden, n.flow_pairs))


def _decoder(n: Network) -> nn.Module:
    if n.decoder == "resnet":
        return ResNetDecoder(n.latent, n.encoder_channels, n.encoder_hidden)
    if n.decoder == "pixelcnn":
        return PixelCNN(n.latent, n.channels)
    kind = {"pixelcnnpp-7x3": SmallPixelCNN, "pixelcnnpp": FullPixelCNN}[n.decoder]
    return kind(n.maps, n.channels, n.blocks, n.mixtures)
