"""Where a run's first weights come from, if it begins with those of another model."""

from dataclasses import dataclass
from pathlib import Path

from maelib.internal.files import read_json, reading, typed, unsealed
from maelib.internal.paths import CHECKPOINTS, resolved
from maelib.nets import Network


@dataclass(frozen=True)
class Origin:
    """A finished run's or a pretrained model's weights: file, fingerprint and networks."""

    path: Path
    weights: str
    network: Network

    def require(self, network: Network) -> None:
        """ValueError, naming the option, if a network could not hold the weights."""
        theirs = vars(self.network) | {"own_side": self.network.side}
        for name, value in (vars(network) | {"own_side": network.side}).items():
            if value != theirs[name]:
                what = "the side of the images" if name == "own_side" else name
                raise ValueError(
                    f"{what} is {value}, but {theirs[name]} in the model that init_from names; "
                    "images and networks must be like those of that model."
                )


def find(name: str) -> Origin:
    """The model of a run's folder or of a pretrained model's name; ValueError if it is neither."""
    folder, packed = resolved(name), CHECKPOINTS / f"{name}.safetensors"
    record = folder / "result.json"
    if record.is_file():
        with reading(record, "a maelib result", "train that run again"):
            content = read_json(record)
            return _origin(folder / "model.safetensors", content["model"], content)
    if packed.is_file():
        from safetensors import safe_open

        with reading(packed, "a pretrained model", "restore it"), safe_open(packed, "np") as file:
            content = unsealed(file.metadata()["maelib"].encode())
            return _origin(packed, content["weights"], content)
    raise ValueError(
        f"init_from is {name!r}; it must be the folder of a finished run or the name of a "
        "pretrained model."
    )


def _origin(path: Path, weights: str, content: dict) -> Origin:
    if not weights:
        raise ValueError("it is of an older version and holds no digest of its weights")
    return Origin(path.resolve(), weights, typed(Network, content["config"]["network"]))
