"""What a run is: one flat, frozen record of every number that decides its result."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields

from maelib.data import COLOUR, DATASETS
from maelib.objectives import DIVERSE_FORMS

PROTOCOL = 1  # Raised by hand when the mathematics of training or evaluation changes.
OBJECTIVES = ("vae", "vlae", "mae")
DECODERS = ("pixelcnn", "resnet")  # of binary images
COLOUR_DECODERS = ("pixelcnnpp-7x3", "pixelcnnpp")
POSITIONS = 64  # of a colour image's latent maps, 8x8
SCHEDULES = ("plateau", "cosine")


@dataclass(frozen=True)
class Config:
    """A run's configuration; ``None`` limits mean "all". Made by ``resolve``."""

    dataset: str
    preset: str
    objective: str
    alpha: float
    beta: float
    diverse: str
    free_bits: float  # nats per image
    decoder: str
    seed: int
    epochs: int
    # Networks
    latent: int = 32  # colour images: maps * 64
    channels: int = 64  # of the PixelCNN
    encoder_channels: tuple[int, int, int] = (32, 64, 64)
    encoder_hidden: int = 512
    flow_pairs: int = 4
    flow_hidden: int = 320
    # Networks for colour images only
    growth: tuple[int, int, int] = (15, 16, 16)  # of the dense blocks
    dense_steps: tuple[int, int, int] = (3, 3, 6)
    blocks: int = 4  # of the PixelCNN++, a level
    mixtures: int = 5
    # Training
    batch_size: int = 100
    min_steps: int = 0  # a small data set is gone through more often than epochs, up to this
    lr: float = 1e-3
    lr_decay: float = 0.999998  # factor a step
    adam_betas: tuple[float, float] = (0.9, 0.999)
    clip: float = 5.0  # gradient norm
    ema: float = 0.999
    schedule: str = "plateau"
    patience: int = 20  # validations without a better validation ELBO before lr is halved
    halvings: int = 3
    init_images: int = 500
    train_images: int | None = None
    val_images: int | None = None
    validate_steps: int | None = None  # None: after every epoch
    # Evaluation
    test_images: int | None = None
    nll_images: int | None = None
    nll_k: int = 4096

    def key(self, data_digest: str) -> str:
        """Identifies the run's result: configuration, data and protocol version.

        A field at its default is left out, so that a new field does not disown finished runs.
        """
        defaults = {field.name: field.default for field in fields(self)}
        chosen = {k: v for k, v in asdict(self).items() if v != defaults[k]}
        content = json.dumps([chosen, data_digest, PROTOCOL], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:10]

    def label(self) -> str:
        """What the model is, for people and file names, e.g. ``mae-a1-b0.5-tempered``."""
        parts = [self.objective]
        if self.objective == "mae":
            parts += [f"a{self.alpha:g}", f"b{self.beta:g}", self.diverse]
        if self.free_bits:
            parts.append(f"fb{self.free_bits:g}")
        if self.decoder != default_decoder(self.objective, self.dataset):
            parts.append(self.decoder)
        return "-".join(parts)

    def name(self, data_digest: str) -> str:
        """The run's folder name, unique to its key."""
        return f"{self.dataset}-{self.label()}-s{self.seed}-{self.key(data_digest)}"

    def describe(self) -> str:
        """Every field in full, one ``name = value`` a line."""
        return "\n".join(f"{name:>16} = {value}" for name, value in asdict(self).items())


def from_json(content: dict) -> Config:
    """A configuration as JSON holds it, its tuples turned to lists, back again."""
    return Config(**{k: tuple(v) if isinstance(v, list) else v for k, v in content.items()})


PRESETS: dict[str, dict] = {
    "smoke": dict(
        epochs=1, channels=4, encoder_channels=(4, 4, 8), encoder_hidden=16, flow_pairs=1,
        flow_hidden=32, batch_size=20, ema=0.99, schedule="cosine", init_images=40,
        train_images=100, val_images=40, test_images=40, nll_images=10, nll_k=8,
    ),
    "quick": dict(
        epochs=2, min_steps=240, channels=16, encoder_channels=(16, 32, 32),
        encoder_hidden=128, flow_pairs=2, flow_hidden=128, lr=2e-3,
        ema=0.99, schedule="cosine", train_images=12_000,
        val_images=500, validate_steps=20, test_images=1_000, nll_images=100, nll_k=64,
    ),
    "laptop": dict(
        epochs=3, min_steps=1740, channels=16, encoder_channels=(16, 32, 32),
        encoder_hidden=256, flow_pairs=2, flow_hidden=128, lr=2e-3,
        ema=0.995, schedule="cosine", val_images=1_000,
        validate_steps=145, nll_images=500, nll_k=128,
    ),
    "paper": dict(epochs=500),
}  # fmt: skip
_CIFAR = dict(
    latent=16 * POSITIONS, flow_hidden=128, batch_size=64, lr_decay=0.999995,
)  # fmt: skip
COLOUR_PRESETS: dict[str, dict] = {
    "smoke": dict(
        epochs=1, latent=2 * POSITIONS, channels=4, growth=(2, 2, 2), dense_steps=(1, 1, 1),
        flow_pairs=1, flow_hidden=8, blocks=1, mixtures=2, batch_size=20, ema=0.99,
        schedule="cosine", init_images=40, train_images=100, val_images=40, test_images=40,
        nll_images=10, nll_k=4,
    ),
    "quick": _CIFAR | dict(
        epochs=3, latent=4 * POSITIONS, channels=16, growth=(6, 8, 8), dense_steps=(2, 2, 3),
        flow_pairs=1, flow_hidden=32, blocks=1, mixtures=3, batch_size=32, lr=2e-3, ema=0.98,
        schedule="cosine", init_images=128, train_images=8_000, val_images=200,
        validate_steps=50, test_images=500, nll_images=50, nll_k=16,
    ),
    "laptop": _CIFAR | dict(
        epochs=2, latent=8 * POSITIONS, channels=32, growth=(8, 12, 12), dense_steps=(2, 2, 4),
        flow_pairs=2, flow_hidden=64, blocks=2, lr=2e-3, ema=0.995, schedule="cosine",
        init_images=256, val_images=500, validate_steps=150, test_images=2_000, nll_images=100,
        nll_k=32,
    ),
    "paper": _CIFAR | dict(
        epochs=500, adam_betas=(0.95, 0.9995), ema=0.9995, patience=50, init_images=256, nll_k=512,
    ),
}  # fmt: skip


def default_decoder(objective: str, dataset: str) -> str:
    """The ResNet VAE is factorised; VLAE and MAE are autoregressive."""
    if dataset in COLOUR:
        return COLOUR_DECODERS[0]
    return "resnet" if objective == "vae" else "pixelcnn"


def default_free_bits(objective: str, dataset: str) -> float:
    """0.01 nats a pixel for VLAE on binary images, else none."""
    return 7.84 if objective == "vlae" and dataset not in COLOUR else 0.0


def resolve(
    preset: str = "quick",
    dataset: str = "auto",
    objective: str = "mae",
    *,
    alpha: float = 1.0,
    beta: float = 0.5,
    diverse: str = "tempered",
    free_bits: float | None = None,
    decoder: str | None = None,
    seed: int = 0,
    **sizes: object,
) -> Config:
    """The complete configuration of a run: a preset's sizes with what the caller overrides.

    ``free_bits`` defaults to 7.84 nats for ``vlae`` on binary images and 0 otherwise, ``decoder``
    to the objective's and data set's own; colour images have no ``vae``. Only ``mae`` has alpha
    and beta: the others get 0. A size that is None is the preset's; an explicit ``epochs`` holds
    whatever ``min_steps``.
    Raises ValueError, one sentence, for the first value that is not acceptable.
    """
    _one_of("preset", preset, tuple(PRESETS))
    _one_of("dataset", dataset, DATASETS)
    _one_of("objective", objective, OBJECTIVES)
    _one_of("diverse", diverse, DIVERSE_FORMS)
    unknown = set(sizes) - {field.name for field in fields(Config)}
    if unknown:
        raise ValueError(f"{unknown.pop()} is not a parameter of a run.")
    if sizes.get("epochs") is not None:
        sizes = {"min_steps": 0, **sizes}
    is_mae = objective == "mae"
    for name, value in {"alpha": alpha, "beta": beta}.items():
        _at_least(name, value, 0)
    presets = COLOUR_PRESETS if dataset in COLOUR else PRESETS
    free_bits = default_free_bits(objective, dataset) if free_bits is None else free_bits
    config = Config(
        dataset=dataset,
        preset=preset,
        objective=objective,
        alpha=float(alpha) if is_mae else 0.0,
        beta=float(beta) if is_mae else 0.0,
        diverse=diverse if is_mae else "none",
        free_bits=float(free_bits),
        decoder=default_decoder(objective, dataset) if decoder is None else decoder,
        seed=seed,
        **{**presets[preset], **{k: v for k, v in sizes.items() if v is not None}},
    )
    _validate(config)
    return config


def _validate(config: Config) -> None:
    is_colour = config.dataset in COLOUR
    _one_of("objective", config.objective, OBJECTIVES[1:] if is_colour else OBJECTIVES)
    _one_of("decoder", config.decoder, COLOUR_DECODERS if is_colour else DECODERS)
    if is_colour and config.latent % POSITIONS:
        raise ValueError(
            f"latent is {config.latent}; colour images need a multiple of {POSITIONS}."
        )
    _one_of("schedule", config.schedule, SCHEDULES)
    _at_least("free_bits", config.free_bits, 0)
    _at_least("seed", config.seed, 0)
    for name in ("epochs", "latent", "channels", "batch_size", "nll_k", "init_images", "mixtures"):
        _at_least(name, getattr(config, name), 1)
    for name in ("train_images", "val_images", "test_images", "nll_images"):
        _at_least(name, 2 if getattr(config, name) is None else getattr(config, name), 2)
    if config.objective == "mae" and config.batch_size < 2:
        raise ValueError("batch_size is 1; mae compares pairs of images and needs at least 2.")
    if not (math.isfinite(config.lr) and config.lr > 0):
        raise ValueError(f"lr is {config.lr}; it must be a positive number.")


def _one_of(name: str, value: object, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(accepted)}.")


def _at_least(name: str, value: int | float, least: int | float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= least:
        raise ValueError(f"{name} is {value!r}; it must be a number that is at least {least}.")
    if math.isinf(value):
        raise ValueError(f"{name} is {value!r}; it must be finite.")
