"""The one loader of weights: a safetensors file into the model of its configuration."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from maelib.config import Config, from_json
from maelib.model import VAE, build
from maelib.nets import Network


def load_weights(path: Path, network: Network, device: torch.device | str, remedy: str) -> VAE:
    """The model in evaluation mode; ValueError with ``remedy`` if the weights are not its own."""
    model = build(network)
    try:
        model.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError, ValueError, OSError) as problem:
        where = f"{path.parent.name}/{path.name}"
        raise ValueError(
            f"{where} does not hold the weights of its configuration; {remedy}."
        ) from problem
    return model.to(device, memory_format=torch.channels_last).eval()


def load_model(folder: Path, device: torch.device | str = "cpu") -> VAE:
    """The model of a finished run; FileNotFoundError or ValueError if it has none."""
    path = folder / "model.safetensors"
    if not path.exists():
        raise FileNotFoundError(f"run {folder.name} has no model.safetensors: it is not finished.")
    remedy = "restore it or its config.json, or delete the folder and train again"
    return load_weights(path, load_config(folder).network, device, remedy)


def load_config(folder: Path) -> Config:
    """The configuration in a run's folder; FileNotFoundError or ValueError if there is none."""
    path = folder / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"{folder.name} is not a run: it has no config.json.")
    try:
        return from_json(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as problem:
        raise ValueError(
            f"{folder.name}/config.json is damaged: {problem}; delete the folder and train again."
        ) from problem
