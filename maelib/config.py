"""What a run is: one flat, frozen record of every number that decides its result."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields

from maelib.data import DATASETS
from maelib.objectives import DIVERSE_FORMS

PROTOCOL = 1  # Raised by hand when the mathematics of training or evaluation changes.
OBJECTIVES = ("vae", "vlae", "mae")
DECODERS = ("pixelcnn", "resnet")
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
    latent: int = 32
    channels: int = 64  # of the PixelCNN
    encoder_channels: tuple[int, int, int] = (32, 64, 64)
    encoder_hidden: int = 512
    flow_pairs: int = 4
    flow_hidden: int = 320
    # Training
    batch_size: int = 100
    min_steps: int = 0  # a small data set is gone through more often than epochs, up to this
    lr: float = 1e-3
    lr_decay: float = 0.999998  # factor a step
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
        if self.decoder != default_decoder(self.objective):
            parts.append(self.decoder)
        return "-".join(parts)

    def name(self, data_digest: str) -> str:
        """The run's folder name, unique to its key."""
        return f"{self.dataset}-{self.label()}-s{self.seed}-{self.key(data_digest)}"

    def describe(self) -> str:
        """Every field in full, one ``name = value`` a line."""
        return "\n".join(f"{name:>16} = {value}" for name, value in asdict(self).items())


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


def default_decoder(objective: str) -> str:
    """The ResNet VAE is factorised; VLAE and MAE are autoregressive."""
    return "resnet" if objective == "vae" else "pixelcnn"


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

    ``free_bits`` defaults to 7.84 nats for ``vlae`` and 0 otherwise, ``decoder`` to the
    objective's own. Only ``mae`` has alpha and beta: the others get 0. A size that is None is the
    preset's; an explicit ``epochs`` holds whatever ``min_steps``.
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
    free_bits = (7.84 if objective == "vlae" else 0.0) if free_bits is None else free_bits
    config = Config(
        dataset=dataset,
        preset=preset,
        objective=objective,
        alpha=float(alpha) if is_mae else 0.0,
        beta=float(beta) if is_mae else 0.0,
        diverse=diverse if is_mae else "none",
        free_bits=float(free_bits),
        decoder=default_decoder(objective) if decoder is None else decoder,
        seed=seed,
        **{**PRESETS[preset], **{k: v for k, v in sizes.items() if v is not None}},
    )
    _validate(config)
    return config


def _validate(config: Config) -> None:
    _one_of("decoder", config.decoder, DECODERS)
    _one_of("schedule", config.schedule, SCHEDULES)
    _at_least("free_bits", config.free_bits, 0)
    _at_least("seed", config.seed, 0)
    for name in ("epochs", "latent", "channels", "batch_size", "nll_k", "init_images"):
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
