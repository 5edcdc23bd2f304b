import pytest
import torch
from hypothesis import settings

settings.register_profile("steady", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("steady")


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def no_data(tmp_path, monkeypatch):
    """A machine without any data set and without a network."""
    monkeypatch.setenv("MAELIB_DATA", str(tmp_path / "nothing"))
    monkeypatch.setenv("MAELIB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path
