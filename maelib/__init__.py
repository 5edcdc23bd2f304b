"""A literate reproduction of mutual posterior-divergence regularisation for VAEs (ICLR 2019)."""


def load(name: str, device: str = "cpu"):
    """A pretrained model by name: ``maelib.load("mnist-mae-a1-b0.5")``.

    ``model.VAE`` in evaluation mode. ValueError, naming those there are, for another name.
    """
    from maelib.runs.pretrained import load  # which imports torch, and takes a second

    return load(name, device)


def encode(model, images, nll_k: int | None = None):
    """Codes of pictures, by name, as arrays: ``measure.pictures.encode``."""
    from maelib.measure.pictures import encode

    return encode(model, images, nll_k)


def reconstruct(model, images, seed: int = 0, greedy: bool = True):
    """Pictures as a model decodes their codes, uint8: ``measure.pictures.reconstruct``."""
    from maelib.measure.pictures import reconstruct

    return reconstruct(model, images, seed, greedy)
