"""Random numbers as a pure function of a seed and a key, so that there is no state to save."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive(seed: int, *key: int | str) -> int:
    """A 63-bit seed that depends on every part of ``key``; equal keys give equal seeds."""
    text = "/".join(map(str, (seed, *key)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, *key: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator on ``device`` for this seed and key, e.g. ``generator(0, "step", 17)``."""
    return torch.Generator(device).manual_seed(derive(seed, *key))


@contextmanager
def own_generators(device: torch.device) -> Iterator[None]:
    """Context in which torch's own generators may be seeded; at its end they are as they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield
