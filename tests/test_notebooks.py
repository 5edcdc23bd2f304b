import json
import platform
import re
import runpy
from pathlib import Path

import jupytext
import nbformat
import papermill
import pytest
import torch
from click.testing import CliRunner
from papermill.cli import papermill as papermill_command
from papermill.exceptions import PapermillExecutionError

from maelib import config
from maelib.experiments import EVERYTHING
from maelib.experiments import NOTEBOOKS as TRAINED_BY
from maelib.runs.record import collect
from maelib.workflow import plan

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.md"))
TRAINING = [path for path in NOTEBOOKS if path.stem[:2] in ("04", "05")]
READING = [path for path in NOTEBOOKS if path.stem[:2] in ("06", "08")]
TUTORIALS = [path for path in NOTEBOOKS if path.stem in plan.TUTORIALS]
COURSE = runpy.run_path(str(Path(__file__).parents[1] / "docs" / "course.py"))
EXERCISED = [path for path in NOTEBOOKS if COURSE["SOLUTION"] in path.read_text()]
# A wrong answer to each exercise that is filled in: what it has in place of what.
WRONG = {
    "kl": ("p[seen] / q[seen]", "q[seen] / p[seen]"),
    "iw_bound": ("math.log(len(log_w)) -", "-math.log(len(log_w)) -"),
    "kl_to_prior": ("- 1 - logvar", "- 1 + logvar"),
    "mpd_of_one_dimension": (" * n / (n - 1)", ""),
    "theorem_1": ("-(product", "(product"),
    "my_mask": ('mask_type == "B"', 'mask_type == "A"'),
    "invert": ("exp() + step", "exp() - step"),
    "water_level": ("0.5 * (eig", "1.0 * (eig"),
    "slope_at_zero": ("- eigenvalue", "+ eigenvalue"),
    "control_variate": ("(costly - cheap[part])", "costly"),
    "mean_swap_cost": ("own - swapped", "swapped - own"),
    "coin_flips": (".sum(1).mean()", ".mean()"),
    "majority_labels": ("argmax()", "argmin()"),
    "charged_kl": ("target / kl.shape[1]", "target"),
    "saved_by_couplings": ("7 * output.shape[1] // 10 :", "4 * output.shape[1] // 10 :"),
}
# Where the test of a tutorial stops: nbval runs the rest, which trains or reads results.
LONG = {
    "01_elbo": "## Why an expressive decoder ignores z",
    "02_mutual_posterior_divergence": "## Closing the loop",
    "09_linear_vaes": "## The same quantities on the MNIST models",
}
# Faults planted in formulas that a tutorial teaches: what stands there, and the fault.
FAULTS = {
    "01_elbo": [
        ("(x @ W @ covariance,", "(-x @ W @ covariance,"),
        (".sum(1) + (logvar.exp()", ".sum(1) - (logvar.exp()"),
        ("-(groups.logsumexp(0) - math", "-(groups.logsumexp(0) + math"),
        ("2 * exact_posterior.log_prob(at) - q", "2 * exact_posterior.log_prob(at) + q"),
        ("(mean_error + torch.trace", "(mean_error - torch.trace"),
        ("own) - torch.logdet(own))\n", "own) + torch.logdet(own))\n"),
    ],
    "02_mutual_posterior_divergence": [
        ("(logvar2 - logvar1", "(logvar1 - logvar2"),
        ("cross = cross + (", "cross = cross - ("),
        ("torch.exp(-kl)", "torch.exp(kl)"),
        ("11.0 + eq8", "11.0 - eq8"),
        ("F.softplus(-kl.mean(0) / alpha)", "F.softplus(kl.mean(0) / alpha)"),
        ("math.exp(min(m * x", "math.exp(min(-m * x"),
        ("form) - alpha * math.log(2)", "form) + alpha * math.log(2)"),
        ("(own - log_q).mean()", "(log_q - own).mean()"),
        ("(2 * s**2 - math.log", "(2 * s**2 + math.log"),
        ("(1 - epsilon) / epsilon", "(1 + epsilon) / epsilon"),
    ],
    "03_networks": [
        ("(self.gain / self.length())", "(self.gain * self.length())"),
        ("(middle[:, None] >= order)", "(middle[:, None] > order)"),
        (", -log_scale.sum(1)", ", log_scale.sum(1)"),
        (".sum(1) + log_det", ".sum(1) - log_det"),
        ('(mask_type == "B")', '(mask_type == "A")'),
    ],
    "09_linear_vaes": [
        ("(eigenvalues - weight).relu()", "(eigenvalues + weight).relu()"),
        ("0.5 * (eigenvalues / weight).log()", "-0.5 * (eigenvalues / weight).log()"),
        ("eigenvalues.clamp(max=level)", "eigenvalues.clamp(min=level)"),
        ("model = vae.W @ vae.W.T + noise", "model = vae.W @ vae.W.T - noise"),
        ("(1 + m)) + 0.5 * m.log1p()", "(1 + m)) - 0.5 * m.log1p()"),
        ("mpd / (1 + mpd)", "mpd / (1 - mpd)"),
        ("(1 / (1 + average) - 2", "(1 / (1 + average) + 2"),
        ("log1p().sum() - 0.5 * torch.logdet", "log1p().sum() + 0.5 * torch.logdet"),
        ("(errors.mean() - errors.diag", "(errors.mean() + errors.diag"),
    ],
}
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*Passed unknown parameter.*"),
]


def execute(path, folder, cwd=None, **parameters):
    """The notebook after it has run in ``cwd``, by default ``folder``, made anew from its text.

    Before each solution its check is tried on two more answers: it must tell right from wrong.
    ``FAULTS`` are planted before the cells that teach the formulas, and must be noticed.
    """
    source, out = folder / f"{path.stem}.ipynb", folder / f"out-{path.stem}.ipynb"
    book = with_faults(jupytext.read(path), FAULTS.get(path.stem, []), LONG.get(path.stem))
    nbformat.write(with_wrong_answers(book), source)
    papermill.execute_notebook(
        source, out, parameters, cwd=cwd or folder, progress_bar=False, kernel_name="python3"
    )
    return nbformat.read(out, 4)


def tagged(book, tag):
    return [cell for cell in book.cells if tag in cell.metadata.get("tags", [])]


def outputs(notebook):
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [output for cell in cells for output in cell.outputs]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_pair_has_the_same_content(path):
    text, book = jupytext.read(path), nbformat.read(path.with_suffix(".ipynb"), 4)
    cells = [[(cell.cell_type, cell.source) for cell in part.cells] for part in (text, book)]
    assert cells[0] == cells[1]
    tags = [[cell.metadata.get("tags", []) for cell in part.cells] for part in (text, book)]
    assert tags[0] == tags[1]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_outputs_are_complete_and_clean(path):
    book = nbformat.read(path.with_suffix(".ipynb"), 4)
    code = [cell for cell in book.cells if cell.cell_type == "code" and cell.source]
    assert all(cell.execution_count for cell in code)
    assert "widgets" not in book.metadata  # the explorer's weights
    for output in outputs(book):
        assert output.output_type != "error"
        assert output.get("name") != "stderr"
        assert "/home/" not in str(output)
        assert str(path.parents[1]) not in str(output)


def test_a_run_that_a_notebook_finds_twice_counts_once():
    count = runpy.run_path(str(NOTEBOOKS[0].parents[1] / "docs" / "outputs.py"))["training_seconds"]
    name = next((NOTEBOOKS[0].parents[1] / "results" / "laptop").glob("*.json")).stem
    once = [{"text": f"finished run found: {name}\n"}]
    assert count(once) == count(once * 2) > 0
    with pytest.raises(ValueError, match="mnist-unknown-s0 is not in results/; publish"):
        count([{"text": "finished run found: mnist-unknown-s0\n"}])


def test_outputs_say_what_made_them_and_how_long_it_took(tmp_path):
    path, times = tmp_path / "some.ipynb", tmp_path / "times.json"
    record = collect(NOTEBOOKS[0].parents[1] / "results")[0]
    say = f"import ipywidgets\nprint('finished run found: {record.name}')\nipywidgets.HTML('some')"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(say)]), path)
    runpy.run_path(str(NOTEBOOKS[0].parents[1] / "docs" / "outputs.py"))["make"](path, times)
    book = nbformat.read(path, 4)
    made = outputs(book)[1].metadata.maelib
    assert (made.python, made.torch) == (platform.python_version(), torch.__version__)
    assert made.keys() == {"date", "python", "torch", "hardware"}
    assert len(book.cells) == 1
    assert "widgets" not in book.metadata
    took = json.loads(times.read_text())["some"]
    assert took["training"] == record.provenance["train_seconds"]
    assert took["running"] > 0


def parameters(book):
    """The values of a notebook's parameters, and its code cells; the first holds them."""
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    assert cells[0].metadata.tags == ["parameters"]
    chosen = {}
    exec(cells[0].source, chosen)
    return {name: value for name, value in chosen.items() if name[0] != "_"}, cells


def test_a_notebook_shows_its_pictures_whatever_the_environment_says_of_matplotlib():
    for path in NOTEBOOKS:
        before, imported, _ = path.read_text().partition("import matplotlib.pyplot")
        assert not imported or "%matplotlib inline\n" in before, path.name


@pytest.mark.parametrize("stem", TRAINED_BY.values())
def test_committed_configuration_is_the_one_that_would_run_today(stem):
    chosen, cells = parameters(nbformat.read(NOTEBOOKS[0].with_name(f"{stem}.ipynb"), 4))
    own = set(chosen) - {"device", "out_dir", "shipped", "more"}
    today = config.resolve(**{name: chosen[name] for name in own})
    assert cells[1].outputs[0].text.rstrip() == today.describe().rstrip()


@pytest.mark.parametrize("experiment", EVERYTHING, ids=lambda e: f"{e.images}-{e.label}")
def test_an_experiment_s_options_are_parameters_of_its_notebook(experiment):
    chosen, _ = parameters(jupytext.read(NOTEBOOKS[0].with_name(f"{experiment.notebook}.md")))
    assert set(experiment.parameters) | {"preset", "dataset"} <= set(chosen)


def given(stem, folder, *options):
    """The values of a notebook's parameters, and its first cells, after papermill's command line.

    The first cell after the parameters checks them.
    """
    path, out = next(p for p in NOTEBOOKS if p.stem.startswith(stem)), str(folder / "out.ipynb")
    command = [str(path.with_suffix(".ipynb")), out, "--prepare-only", *options]
    done = CliRunner().invoke(papermill_command, command)
    assert done.exit_code == 0, done.output
    cells = [cell for cell in nbformat.read(out, 4).cells if cell.cell_type == "code"][:3]
    values = {}
    for cell in cells[:2]:
        exec(cell.source, values)
    return values, cells[2].source.replace("%matplotlib inline", "")


def test_a_seed_of_papermill_s_command_line_is_the_whole_number_that_it_says(tmp_path):
    values, check = given("04", tmp_path, "-p", "seed", "1e3", "-p", "dataset", "digits")
    exec(check, values)
    assert values["config"] == config.resolve("quick", "digits", seed=1000)
    assert type(values["config"].seed) is int
    values, check = given("04", tmp_path, "-p", "epochs", "1.5", "-p", "dataset", "digits")
    with pytest.raises(ValueError, match=r"^epochs is 1\.5; it must be a whole number"):
        exec(check, values)


def test_papermill_s_command_line_makes_notebook_08_write_only_if_it_says_true(tmp_path):
    values, check = given("08", tmp_path, "-p", "write", "false")
    with pytest.raises(ValueError, match=r"^write is 'false'; it must be True or False"):
        exec(check, values)
    assert given("08", tmp_path, "-p", "write", "False")[0]["write"] is False
    assert given("08", tmp_path, "-p", "write", "True")[0]["write"] is True


def must_fail(check, error):
    """A cell that runs ``check`` and fails unless it raises ``error``."""
    failed = f"except {error}:\n    pass\nelse:\n    raise RuntimeError('the check passes')"
    return nbformat.v4.new_code_cell(f"try:\n    exec({check.source!r})\n{failed}")


def with_wrong_answers(book):
    """The notebook with two more answers before each solution: none, and a wrong one."""
    stubs = iter(tagged(COURSE["student_edition"](book), "exercise"))
    checks = iter(tagged(book, "check"))
    cells = []
    for cell in book.cells:
        if "exercise" in cell.metadata.get("tags", []):
            check, right, wrong = next(checks), *WRONG[re.search(r"def (\w+)", cell.source)[1]]
            assert right in cell.source
            answers = {"NotImplementedError": next(stubs).source}
            answers |= {"AssertionError": cell.source.replace(right, wrong)}
            for error, answer in answers.items():
                cells += [nbformat.v4.new_code_cell(answer), must_fail(check, error)]
        cells.append(cell)
    return nbformat.v4.new_notebook(cells=cells, metadata=book.metadata)


def with_faults(book, faults, until=None):
    """The notebook up to the heading ``until``, then its exercises, with a trial of each fault."""
    end = next((i for i, cell in enumerate(book.cells) if until and until in cell.source), None)
    exercises = tagged(book, "exercise") + tagged(book, "check")
    cells = book.cells[:end] + (exercises if end else [])
    trials = {}
    for right, wrong in faults:
        place = next(i for i, cell in enumerate(cells) if right in cell.source)
        near = [cell for cell in cells[place : place + 8] if cell not in exercises]
        sources = [cell.source for cell in near if cell.cell_type == "code"]
        sources[0] = sources[0].replace(right, wrong)
        trials.setdefault(place, []).append(must_notice(sources, wrong))
    cells = [each for i, cell in enumerate(cells) for each in [*trials.get(i, []), cell]]
    return nbformat.v4.new_notebook(cells=cells, metadata=book.metadata)


def must_notice(sources, fault):
    """A cell that fails unless one of the ``sources``, the first of which has a fault, does."""
    return nbformat.v4.new_code_cell(
        f"""scope = dict(globals())
with __import__("torch").random.fork_rng():
    try:
        for source in {sources!r}:
            exec(source, scope)
    except AssertionError:
        pass
    else:
        raise RuntimeError({f"not noticed: {fault}"!r})"""
    )


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_tutorial_notices_wrong_answers_and_planted_faults(path, tmp_path):
    execute(path, tmp_path, cwd=path.parent)  # beside the results that it reads


@pytest.mark.parametrize("path", EXERCISED, ids=lambda path: path.stem)
def test_student_edition_has_exercises_but_no_answers(path):
    book = nbformat.read(path.with_suffix(".ipynb"), 4)
    edition = COURSE["student_edition"](book)
    assert len(tagged(edition, "exercise")) == len(tagged(edition, "check")) >= 1
    assert tagged(book, "solution")
    assert not tagged(edition, "solution")
    assert not outputs(edition)
    assert "SOLUTION" not in str(edition)


def test_slides_load_nothing_from_the_network():
    for name in COURSE["LECTURES"]:
        page = COURSE["slides"](nbformat.read(NOTEBOOKS[0].with_name(f"{name}.ipynb"), 4))
        loaded = re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"([^\"]+)", page)
        assert page.count("<section") > 10
        assert not [address for address in loaded if address.startswith(("http", "//"))]


@pytest.mark.parametrize("path", TRAINING, ids=lambda path: path.stem)
@pytest.mark.parametrize("objective", ["mae", "vlae", "vae", "bn"])
def test_training_notebook_runs_at_smoke(path, objective, tmp_path):
    common = dict(preset="smoke", dataset="digits", out_dir="runs", more={"latent": 16})
    book = execute(path, tmp_path, objective=objective, **common)
    assert (tmp_path / "runs" / "smoke").is_dir()
    assert "latent = 16" in str(outputs(book))
    assert "preset smoke" in str(outputs(book))
    assert all(output.get("name") != "stderr" for output in outputs(book))


def test_colour_notebook_goes_on_without_cifar_and_says_so(no_data):
    path = next(path for path in NOTEBOOKS if path.stem.startswith("07"))
    book = execute(path, no_data, preset="smoke", out_dir="runs")
    assert "Going on with photos" in str(outputs(book))
    assert list((no_data / "runs" / "smoke").glob("photos-*/result.json"))
    assert all(output.get("name") != "stderr" for output in outputs(book))


@pytest.mark.parametrize("path", READING, ids=lambda path: path.stem)
def test_reading_notebook_runs_at_smoke(path, tmp_path):
    book = execute(path, tmp_path, preset="smoke", dataset="digits", out_dir="runs")
    assert all(output.get("name") != "stderr" for output in outputs(book))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"alpha": -1.0}, "alpha is -1.0"),
        ({"dataset": "cifar"}, "dataset is 'cifar'"),
        ({"preset": "huge"}, "preset is 'huge'"),
    ],
)
def test_bad_parameter_stops_before_training(parameters, message, tmp_path):
    with pytest.raises(PapermillExecutionError, match=message):
        execute(TRAINING[0], tmp_path, **{"preset": "smoke", "out_dir": "runs", **parameters})
    assert not (tmp_path / "runs").exists()


def test_papermill_finds_a_finished_run_again(tmp_path):
    common = {"preset": "smoke", "dataset": "digits", "out_dir": "runs"}
    execute(TRAINING[0], tmp_path, **common)
    again = execute(TRAINING[0], tmp_path, **common)
    assert "finished run found" in str(outputs(again))
