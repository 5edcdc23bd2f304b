"""A literate reproduction of mutual posterior-divergence regularisation for VAEs (ICLR 2019)."""


def load(name: str, device: str = "cpu"):
    """A trained model that comes with the project, by name: ``maelib.load("mnist-mae-a1-b0.5")``.

    ``model.VAE`` in evaluation mode. ValueError, naming those there are, for another name.
    """
    from maelib.pretrained import load  # torch takes a second to import, maelib need not

    return load(name, device)
