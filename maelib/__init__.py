"""A literate reproduction of mutual posterior-divergence regularisation for VAEs (ICLR 2019)."""


def load(name: str, device: str = "cpu"):
    """A pretrained model by name: ``maelib.load("mnist-mae-a1-b0.5")``.

    ``model.VAE`` in evaluation mode. ValueError, naming those there are, for another name.
    """
    from maelib.runs.pretrained import load  # which imports torch, and takes a second

    return load(name, device)
