"""The networks, and the settings from which ``model.build`` puts them together."""

from dataclasses import dataclass

from maelib.internal.options import Settings, checked, option

ENCODERS = ("resnet", "densenet", "constant")
POSTERIORS = ("gaussian", "bn", "du", "delta")
PRIORS = ("flow", "map-flow", "normal", "vamp")
BINARY_DECODERS = ("pixelcnn", "resnet")
COLOUR_DECODERS = ("pixelcnnpp-7x3", "pixelcnnpp")
WITH_MAPS = ("densenet", "map-flow", *COLOUR_DECODERS)  # their code is a stack of maps
BINARY_SIDE, COLOUR_SIDE = 28, 32  # of the paper's images
SIDES = (16, 64)  # the least and the greatest side of an image
PIXELCNN = ("z_path", "max_kernel", "input_dropout")  # options of this decoder alone
BATCH_NORM = ("bn", "du")  # posteriors that compare the images of a batch
ONLY_OF = {  # the options that some choices of a component have, and the others do not
    **dict.fromkeys(PIXELCNN, ("decoder", ("pixelcnn",))),
    "gamma": ("posterior", BATCH_NORM),
    "variance_dropout": ("posterior", ("du",)),
    "delta": ("posterior", ("delta",)),
    "pseudo_inputs": ("prior", ("vamp",)),
}
Z_PATHS = ("input", "skip", "none")


@dataclass(frozen=True)
class Network(Settings):
    """The components of a model by name, and their sizes; by default those of the paper's MNIST.

    The encoder of ``WITH_MAPS`` needs a decoder of ``COLOUR_DECODERS``, and the reverse.
    """

    encoder: str = option("resnet", "network of q(z|x)", choices=ENCODERS)
    posterior: str = option("gaussian", "form of q(z|x)", choices=POSTERIORS)
    prior: str = option("flow", "p(z)", choices=PRIORS)
    decoder: str = option("pixelcnn", "p(x|z)", choices=BINARY_DECODERS + COLOUR_DECODERS)
    latent: int = option(
        32, "dimensions of the code; of 32x32 colour images a multiple of 64", least=1, most=16_384
    )
    channels: int = option(64, "channels of the PixelCNN", least=2, most=1024)
    encoder_channels: tuple[int, int, int] = option(
        (32, 64, 64), "channels of the ResNet's blocks", least=1, most=1024
    )
    encoder_hidden: int = option(512, "features that the ResNet ends in", least=1, most=16_384)
    flow_pairs: int = option(4, "pairs of flow steps in the prior", least=0, most=128)
    flow_hidden: int = option(320, "hidden units of a flow step", least=1, most=4096)
    growth: tuple[int, int, int] = option(
        (15, 16, 16), "channels that a DenseNet layer adds, by block", least=1, most=512
    )
    dense_steps: tuple[int, int, int] = option(
        (3, 3, 6), "layers of a DenseNet block", least=1, most=64
    )
    blocks: int = option(4, "blocks of the PixelCNN++ on each level", least=0, most=64)
    mixtures: int = option(5, "logistics in the mixture of a colour pixel", least=1, most=128)
    gamma: float = option(0.6, "scale of the means of the posteriors bn and du", least=0)
    variance_dropout: float = option(
        0.1, "share of the posterior du's variances that is dropped in training", least=0, below=1
    )
    delta: float = option(
        0.15, "least KL of a dimension of the posterior delta, in nats", above=0, most=100
    )
    pseudo_inputs: int = option(500, "learned images of the prior vamp", least=1, most=16_384)
    z_path: str = option(
        "input", "where the code enters the PixelCNN; skip is also near its output", choices=Z_PATHS
    )
    max_kernel: int = option(7, "largest kernel of the PixelCNN, an odd number", least=1, most=63)
    input_dropout: float = option(
        0.0, "share of the pixels that training hides from the PixelCNN", least=0, below=1
    )
    own_side: int | None = None  # of own pictures; None is that of the paper's

    def __post_init__(self):
        super().__post_init__()
        checked("own_side", self.own_side, int | None, {"least": SIDES[0], "below": SIDES[1] + 1})
        if (self.encoder in WITH_MAPS) != self.is_colour:
            colour, binary = " or ".join(COLOUR_DECODERS), " or ".join(BINARY_DECODERS)
            raise ValueError(
                f"encoder is {self.encoder!r} and decoder is {self.decoder!r}; one of them is for "
                "binary images and the other for colour images; use densenet with "
                f"{colour}, or another encoder with {binary}."
            )
        if self.max_kernel % 2 == 0:
            raise ValueError(f"max_kernel is {self.max_kernel}; it must be an odd number.")
        for name, (component, kinds) in ONLY_OF.items():
            value, usual = getattr(self, name), getattr(Network, name)
            if value != usual and getattr(self, component) not in kinds:
                raise ValueError(
                    f"{name} is {value}, but only the {component} {' or '.join(kinds)} has this "
                    f"option; leave it at {usual}."
                )
        with_maps = [c for c in (self.encoder, self.prior, self.decoder) if c in WITH_MAPS]
        if with_maps and self.latent % (positions := self.map_side**2):
            raise ValueError(
                f"latent is {self.latent}; {with_maps[0]} needs a multiple of {positions}."
            )

    @property
    def is_colour(self) -> bool:
        """Whether the decoder is for colour images."""
        return self.decoder in COLOUR_DECODERS

    @property
    def side(self) -> int:
        """Height and width of the images."""
        return self.own_side or (COLOUR_SIDE if self.is_colour else BINARY_SIDE)

    @property
    def map_side(self) -> int:
        """Height and width of the latent maps that a component of ``WITH_MAPS`` has."""
        return map_side(self.own_side or COLOUR_SIDE)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of the images."""
        return (3 if self.is_colour else 1, self.side, self.side)

    @property
    def maps(self) -> int:
        """The number of maps in the code of a colour image."""
        return self.latent // self.map_side**2


def halved(side: int, times: int) -> int:
    """``side`` halved ``times`` times, and rounded up each time."""
    return -(-side // 2**times)


def map_side(side: int) -> int:
    """The side of a colour image's latent maps: a quarter of the image's."""
    return halved(side, 2)
