import shutil

import pytest
import torch
from hypothesis import settings

settings.register_profile("steady", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("steady")

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


def pytest_collection_modifyitems(items):
    """A report (--junitxml) says what a test marked ``fault`` breaks."""
    for item in items:
        item.user_properties += [("fault", mark.args[0]) for mark in item.iter_markers("fault")]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def digits():
    """scikit-learn's digits, which need no download."""
    from maelib.data import dataset  # here, so that its shapes are checked

    return dataset.load("digits")


@pytest.fixture
def no_data(tmp_path, monkeypatch):
    """A machine without any data set and without a network."""
    monkeypatch.setenv("MAELIB_DATA", str(tmp_path / "nothing"))
    monkeypatch.setenv("MAELIB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def chromium():
    """A browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        own = driver.chromium.executable_path  # where "playwright install chromium" puts it
        path = next(filter(None, map(shutil.which, [*BROWSERS, own])), None)
        if not path:
            pytest.skip("no browser")
        browser = driver.chromium.launch(executable_path=path, args=QUIET)
        yield browser
        browser.close()
