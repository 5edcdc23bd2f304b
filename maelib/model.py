"""The variational autoencoder: q(z|x), p(z), p(x|z) put together."""

import math

from jaxtyping import Float
from torch import Tensor, nn

from maelib.config import COLOUR_DECODERS, POSITIONS, Config
from maelib.decoders import PixelCNN, ResNetDecoder
from maelib.encoders import DenseNetEncoder, ResNetEncoder
from maelib.flows import ConvFlowPrior, FlowPrior
from maelib.layers import initialise_from_data
from maelib.pixelcnnpp import CODE_SIZE, FullPixelCNN, SmallPixelCNN


class VAE(nn.Module):
    """A VAE with any encoder, prior and decoder of the package's kind; z is a vector for each."""

    def __init__(self, encoder: nn.Module, prior: FlowPrior, decoder: nn.Module):
        super().__init__()
        self.encoder, self.prior, self.decoder = encoder, prior, decoder

    def forward(
        self, x: Float[Tensor, "batch c h w"], eps: Float[Tensor, "batch latent"]
    ) -> tuple[
        Float[Tensor, " batch"],
        Float[Tensor, " batch"],
        Float[Tensor, "batch latent"],
        Float[Tensor, "batch latent"],
    ]:
        """RE and KL of Eq. (3) in nats for each image, by one posterior sample; mu and logvar.

        ``eps`` is the standard normal noise of the sample z = mu + exp(logvar / 2) eps.
        """
        mu, logvar = self.posterior(x)
        z = mu + (0.5 * logvar).exp() * eps
        kl = log_normal(eps, logvar) - self.prior.log_prob(z)
        return -self.log_likelihood(x, z), kl, mu, logvar

    def posterior(
        self, x: Float[Tensor, "batch c h w"]
    ) -> tuple[Float[Tensor, "batch latent"], Float[Tensor, "batch latent"]]:
        """mu and logvar of q(z|x), in the precision of ``x`` whatever the encoder multiplies in."""
        mu, logvar = self.encoder(x)
        return mu.to(x.dtype), logvar.to(x.dtype)

    def log_likelihood(
        self, x: Float[Tensor, "batch c h w"], z: Float[Tensor, "batch latent"]
    ) -> Float[Tensor, " batch"]:
        """log p(x|z) in nats for each image."""
        return self.decoder.log_prob(self.decoder(z, x).to(x.dtype), x)


def log_normal(
    eps: Float[Tensor, "*batch latent"], logvar: Float[Tensor, "*batch latent"]
) -> Float[Tensor, "*batch"]:
    """log q(z|x) in nats at z = mu + exp(logvar / 2) eps."""
    return -0.5 * (eps.square() + logvar + math.log(2 * math.pi)).sum(-1)


def build(config: Config) -> VAE:
    """The model of a configuration, with its layers' plain initial values."""
    if config.decoder in COLOUR_DECODERS:
        return _build_colour(config)
    encoder = ResNetEncoder(config.latent, config.encoder_channels, config.encoder_hidden)
    prior = FlowPrior(config.latent, config.flow_hidden, config.flow_pairs)
    if config.decoder == "pixelcnn":
        decoder = PixelCNN(config.latent, config.channels)
    else:
        decoder = ResNetDecoder(config.latent, config.encoder_channels, config.encoder_hidden)
    return VAE(encoder, prior, decoder)


def _build_colour(config: Config) -> VAE:
    maps = config.latent // POSITIONS
    encoder = DenseNetEncoder(maps, config.growth, config.dense_steps)
    prior = ConvFlowPrior(maps, CODE_SIZE, config.flow_hidden, 2 * config.flow_pairs)
    kind = SmallPixelCNN if config.decoder == COLOUR_DECODERS[0] else FullPixelCNN
    return VAE(encoder, prior, kind(maps, config.channels, config.blocks, config.mixtures))


def initialise(model: VAE, x: Float[Tensor, "batch c h w"], eps: Tensor) -> None:
    """Data-dependent initialisation of the whole model on one batch of images."""
    initialise_from_data(model, lambda: model(x, eps))
