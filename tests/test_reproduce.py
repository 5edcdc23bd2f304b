import shutil
from pathlib import Path

import pytest

from maelib import experiments, reproduce

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*unknown parameter.*"),
]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of its own, so that nothing is written into this one."""
    shutil.copytree(Path(__file__).parents[1] / "notebooks", tmp_path / "notebooks")
    (tmp_path / "maelib").mkdir()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAELIB_OFFLINE", "1")
    monkeypatch.setattr(reproduce, "LESSONS", ())
    return tmp_path


def test_reproduce_ends_with_tables_and_figures_that_say_what_they_are_of(project, capsys):
    assert reproduce.main(["--preset", "smoke", "--dataset", "digits"]) == 0
    said = capsys.readouterr().out
    assert "[6/6] 08_tables_and_figures done" in said
    folder = project / "figures" / "smoke" / "digits"
    table = (folder / "table4.md").read_text()
    assert "Data: digits; preset: smoke" in table
    assert "not run" in table
    assert len(list((project / "results" / "smoke").glob("digits-*.json"))) >= 3
    assert (folder / "figure2_digits.png").exists()


def test_a_failed_notebook_stops_nothing_else(project, capsys):
    broken = project / "notebooks" / "06_representations.ipynb"
    broken.write_text(broken.read_text().replace("KMeans(10", "KMeans(-10"))
    assert reproduce.main(["--preset", "smoke", "--dataset", "digits"]) == 1
    assert "failed: 06_representations" in capsys.readouterr().out
    assert (project / "figures" / "smoke" / "digits" / "table4.md").exists()


def test_small_presets_run_a_part_of_the_list_and_large_ones_all_of_it():
    assert experiments.choose("quick") == experiments.TELLING
    labels = [label for label, _, _ in reproduce.plan("paper", "mnist")]
    assert len(labels) == len(set(labels))
    assert "mnist-mae-a2-b1-tempered" in labels
