"""The variational autoencoder: q(z|x), p(z) and p(x|z) put together, and the terms of Eq. (3)."""

from functools import partial

import torch
from torch.nn import Module

from maelib.divergences import log_density, reparameterise
from maelib.internal.shapes import Codes, Images, PerImage
from maelib.nets import PIXELCNN, Network, posteriors
from maelib.nets.densenet import LOGVAR_RANGE, DenseNetEncoder
from maelib.nets.flows import map_steps, vector_steps
from maelib.nets.layers import Conv2d, Linear, initialise_from_data
from maelib.nets.pixelcnn import PixelCNN
from maelib.nets.pixelcnnpp import FullPixelCNN, SmallPixelCNN
from maelib.nets.priors import FlowPrior, StandardNormal, VampPrior
from maelib.nets.resnet import ConstantEncoder, ResNetDecoder, ResNetEncoder
from maelib.objectives.base import Outputs


class VAE(Module):
    """A VAE of any encoder, posterior, prior and decoder of ``nets``; z is a vector."""

    def __init__(self, encoder: Module, posterior: Module, prior: Module, decoder: Module):
        super().__init__()
        self.encoder, self.posterior = encoder, posterior
        self.prior, self.decoder = prior, decoder

    @property
    def device(self) -> torch.device:
        """Where the weights lie, and where images must be."""
        return next(self.parameters()).device

    def forward(self, x: Images, eps: Codes) -> Outputs:
        """RE and KL of Eq. (3) in nats of each image, at its posterior sample of noise ``eps``."""
        mu, logvar = self.encode(x)
        z = reparameterise(mu, logvar, eps)
        kl = log_density(eps, logvar).sum(1) - self.prior.log_prob(z)
        return Outputs(-self.log_likelihood(x, z), kl, mu, logvar)

    def encode(self, x: Images) -> tuple[Codes, Codes]:
        """mu and logvar of q(z|x), in the precision of ``x`` even under autocast.

        In evaluation mode, images of another shape or range than the model's are a ValueError.
        """
        if not self.training:  # a check waits for the device, so training makes none
            self._check(x)
        mu, logvar = self.posterior(self.encoder(x))
        return mu.to(x.dtype), logvar.to(x.dtype)

    def log_likelihood(self, x: Images, z: Codes) -> PerImage:
        """log p(x|z) in nats for each image."""
        return self.decoder.log_prob(self.decoder(z, x).to(x.dtype), x)

    def _check(self, x: Images) -> None:
        shape = self.decoder.shape
        low = 0 if shape[0] == 1 else -1
        if x.shape[1:] != shape or not (x.is_floating_point() and low <= x.min() and x.max() <= 1):
            raise ValueError(
                f"images have the shape {tuple(x.shape[1:])} and values from {float(x.min()):g} to "
                f"{float(x.max()):g}; the model takes {shape}, floats from {low} to 1."
            )


def build(network: Network) -> VAE:
    """The model of a network's settings, with weights drawn from torch's generator.

    It is in torch's evaluation mode: its dropout is off, and batch statistics are those learned.
    """
    inference = _inference(network)
    return VAE(*inference, build_prior(network, inference), _decoder(network)).eval()


def initialise(model: VAE, x: Images, eps: Codes) -> None:
    """Data-dependent initialisation of the whole model on one batch of images."""
    if isinstance(model.prior, VampPrior):
        model.prior.start(x)
    initialise_from_data(model, lambda: model(x, eps))


def _inference(n: Network) -> tuple[Module, Module]:
    """The encoder and the posterior."""
    if n.encoder == "densenet":
        encoder = DenseNetEncoder(n.growth, n.dense_steps)
        return encoder, build_posterior(n, Conv2d(encoder.outputs, 2 * n.maps, 1), LOGVAR_RANGE)
    if n.encoder == "constant":
        encoder = ConstantEncoder(n.encoder_hidden)
    else:
        encoder = ResNetEncoder(n.encoder_channels, n.encoder_hidden, n.side)
    return encoder, build_posterior(n, Linear(encoder.outputs, 2 * n.latent))


def build_posterior(n: Network, *layer_and_range) -> posteriors.GaussianPosterior:
    """The posterior that ``n`` names, on the last layer of the encoder."""
    batch_norm = {"latent": n.latent, "gamma": n.gamma}
    kind = {
        "gaussian": posteriors.GaussianPosterior,
        "bn": partial(posteriors.BatchNormPosterior, **batch_norm),
        "du": partial(posteriors.DUPosterior, **batch_norm, dropout=n.variance_dropout),
        "delta": partial(posteriors.DeltaPosterior, delta=n.delta),
    }
    return kind[n.posterior](*layer_and_range)


def build_prior(n: Network, inference: tuple[Module, Module]) -> Module:
    """The prior that ``n`` names; only the VampPrior needs the encoder and the posterior."""
    if n.prior == "normal":
        return StandardNormal(n.latent)
    if n.prior == "vamp":
        return VampPrior(n.latent, inference, n.pseudo_inputs, n.image_shape)
    if n.prior == "map-flow":
        return FlowPrior(n.latent, map_steps(n.maps, n.map_side, n.flow_hidden, 2 * n.flow_pairs))
    return FlowPrior(n.latent, vector_steps(n.latent, n.flow_hidden, n.flow_pairs))


def _decoder(n: Network) -> Module:
    if n.decoder == "resnet":
        return ResNetDecoder(n.latent, n.encoder_channels, n.encoder_hidden, n.side)
    if n.decoder == "pixelcnn":
        ways = {name: getattr(n, name) for name in PIXELCNN}
        return PixelCNN(n.latent, n.channels, size=n.side, **ways)
    kind = {"pixelcnnpp-7x3": SmallPixelCNN, "pixelcnnpp": FullPixelCNN}[n.decoder]
    return kind(n.maps, n.channels, n.blocks, n.mixtures, n.side)
