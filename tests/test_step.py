"""A training step is one function of tensors: it can be captured, compiled, or neither."""

import shutil
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from maelib import config
from maelib.data import dataset
from maelib.objectives import OBJECTIVES
from maelib.objectives.base import Outputs
from maelib.training import WAYS, ladder
from maelib.training.loop import batches, train
from maelib.training.state import start
from maelib.training.step import Step, announce, device_step, learning_rate, loss_terms, train_step

CPU = torch.device("cpu")
WAITS = ("_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "equal", "item")


def begun(objective="mae", **changes):
    """A fresh state, its step, and the first eight batches."""
    c = config.resolve("smoke", "digits", objective, **changes)
    images = dataset.load("digits").train.first(100).images
    state = start(c, images, CPU)
    step = Step(state.model, c.objective, c.training, total=40)
    return state, step, list(islice(batches(c, images, 0, 5), 8))


def apart(function):
    """Call a function of this module in a process whose shapes are not checked: it can compile."""
    code = f"import test_step; test_step.{function}()"
    how = {"cwd": Path(__file__).parent, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "-c", code], **how)
    assert done.returncode == 0, done.stderr


def like(state, other):
    """Whether two states hold the same numbers, bit for bit."""
    ours, theirs = ladder.tensors(state), ladder.tensors(other)
    return ours.keys() == theirs.keys() and all(ours[n].equal(theirs[n]) for n in ours)


class NoWaits(TorchDispatchMode):
    """Refuses the operations for which a host waits for its GPU."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        mask = name == "index" and any(t is not None and t.dtype == torch.bool for t in args[1])
        if mask or name in WAITS:
            raise AssertionError(f"{name} reads from the device")
        return function(*args, **(kwargs or {}))


class Recording(TorchDispatchMode):
    """A CUDA graph's work, on a CPU: records operations, and repeats them on the same tensors."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, made))
        return made

    def replay(self):
        for function, args, kwargs, made in self.calls:
            given = {t.untyped_storage().data_ptr() for t in _tensors((args, kwargs))}
            for old, new in zip(_tensors(made), _tensors(function(*args, **kwargs)), strict=True):
                if old.untyped_storage().data_ptr() not in given:
                    old.copy_(new)


def _tensors(tree):
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def recorded(state, step, x, eps):
    """``ladder.captured`` by a ``Recording``."""
    buffers = x.clone(), eps.clone()
    device_step(state, step, *buffers)
    with Recording() as recording:
        terms = device_step(state, step, *buffers)

    def take(state, step, x, eps):
        announce(state, step)
        with torch.no_grad():
            buffers[0].copy_(x)
            buffers[1].copy_(eps)
            recording.replay()
        state.progress.step += 1
        return terms

    return take


@pytest.mark.parametrize(
    "options",
    [{"objective": name} for name in ("vae", "vlae", "bn", "vamp", "mmd")]
    + [{"diverse": form} for form in ("tempered", "mean", "pairwise")],
    ids=lambda options: "-".join(options.values()),
)
def test_no_step_makes_the_host_wait(options):
    state, step, (batch, *_) = begun(**options)
    with NoWaits():
        train_step(state, step, *batch)


@pytest.mark.parametrize("options", [{}, {"objective": "vlae"}, {"objective": "bn"}])
def test_a_captured_step_repeats_a_plain_one_bit_for_bit(options):
    """Nothing that changes from step to step is a number of the host's, baked into the capture."""
    plain, step, first = begun(**options, schedule="cosine", epochs=8)
    replayed, again, _ = begun(**options, schedule="cosine", epochs=8)
    before = {name: tensor.clone() for name, tensor in ladder.tensors(replayed).items()}
    take = recorded(replayed, again, *first[0])
    ladder.put_back(replayed, before, 0)
    for batch in first:
        assert train_step(plain, step, *batch).loss.equal(take(replayed, again, *batch).loss)
    assert like(plain, replayed)


def test_the_rate_of_the_optimiser_is_the_schedule_s_to_the_last_bit():
    state, step, first = begun(schedule="cosine", epochs=8)
    for number, batch in enumerate(first[:3]):
        train_step(state, step, *batch)
        rate = learning_rate(step.settings, number, step.total, 0)
        assert state.optimizer.param_groups[0]["lr"].item() == rate


def test_an_objective_says_whether_it_varies():
    """Those that do not are the ones whose steps may be captured."""
    for name, objective in OBJECTIVES.items():
        torch.manual_seed(0)
        out = Outputs(100 + torch.rand(6), 5 + torch.rand(6), *torch.randn(2, 6, 4))
        early, late = (objective(out, progress).loss for progress in (0.01, 0.5))
        assert early.equal(late) != objective.varies, name


@pytest.mark.slow
def test_the_loss_is_compiled_as_one_graph_that_serves_every_step():
    apart("step_compiled_and_plainly")


def step_compiled_and_plainly():
    """Three steps of each; an error if the two differ, or if the loss is not one graph."""
    plain, step, first = begun()
    traced, again, _ = begun()
    compiled = replace(again, loss=torch.compile(loss_terms, backend="aot_eager", fullgraph=True))
    for batch in first[:3]:
        ours = train_step(traced, compiled, *batch).loss
        torch.testing.assert_close(ours, train_step(plain, step, *batch).loss, rtol=1e-5, atol=0)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="no C++ compiler")
def test_compiled_dropout_draws_what_plain_dropout_draws():
    apart("drop_compiled_and_plainly")


def drop_compiled_and_plainly():
    """Dropout alone in the place of the loss, three times each; an error if the two differ."""
    x, found = torch.rand(50, 32), []
    ladder.loss_terms = partial(torch.nn.functional.dropout, p=0.5)
    for drop in (ladder.loss_terms, ladder.compiled_loss()):
        torch.manual_seed(0)
        found.append([drop(x) for _ in range(3)])
    assert all(plain.equal(compiled) for plain, compiled in zip(*found, strict=True))


@pytest.mark.parametrize("working", WAYS)
def test_every_way_that_fails_is_named_and_the_next_one_is_taken(monkeypatch, working):
    state, step, first = begun()
    untouched, _, _ = begun()

    def broken(*_):
        raise RuntimeError("no such thing\non this machine")

    for way in ladder.MAKERS:
        monkeypatch.setitem(ladder.MAKERS, way, recorded if way == working else broken)
    failing = WAYS[: WAYS.index(working)]
    if failing:
        with pytest.warns(UserWarning, match="steps are not .* here: no such thing") as said:
            way, take = ladder.choose(state, step, first[:5])
        assert [str(warning.message).split()[3] for warning in said] == list(failing)
    else:
        way, take = ladder.choose(state, step, first[:5])
    assert way == working
    for batch in first:
        loss = train_step(untouched, step_of(untouched, step), *batch).loss
        assert take(state, step, *batch).loss.equal(loss)
    assert like(state, untouched)


def step_of(state, step):
    return Step(state.model, step.objective, step.settings, step.total)


@pytest.mark.parametrize("wrong", ["loss", "weights", "averaged"])
def test_a_way_that_computes_something_else_is_refused(monkeypatch, wrong):
    state, step, first = begun()

    def astray(*_):
        def take(state, step, x, eps):
            terms = train_step(state, step, *((1 - x, eps) if wrong == "loss" else (x, eps)))
            nets = {"weights": state.model, "averaged": state.averaged}
            for parameter in nets[wrong].parameters() if wrong in nets else ():
                parameter.data += 0.002 * torch.randn_like(parameter)
            return terms

        return take

    monkeypatch.setitem(ladder.MAKERS, "compiled", astray)
    reason = "the loss is" if wrong == "loss" else f"the {wrong} change|the loss is"
    with pytest.warns(UserWarning, match=f"not compiled here: ({reason})"):
        way, take = ladder.choose(state, step, first[:5], ("compiled", "eager"))
    assert (way, take) == ("eager", train_step)


def test_a_way_that_only_rounds_otherwise_is_taken_although_first_steps_are_chaotic(monkeypatch):
    state, step, first = begun()
    step = replace(step, settings=replace(step.settings, lr=0.1))

    def rounded(*_):
        return lambda state, step, x, eps: train_step(state, step, x, eps * 1.0001)

    monkeypatch.setitem(ladder.MAKERS, "compiled", rounded)
    tried = ("compiled", "eager")
    assert ladder.choose(state, step, first[:5], tried)[0] == "compiled"
    monkeypatch.setattr(ladder, "GENTLE", 1.0)
    with pytest.warns(UserWarning, match="not compiled here"):
        assert ladder.choose(state, step, first[:5], tried) == ("eager", train_step)


@pytest.mark.parametrize("reported", [False, True])
def test_a_way_that_takes_too_long_is_given_up(monkeypatch, reported):
    """Also if the compiler, which the alarm interrupts, reports it in words of its own."""
    state, step, first = begun()

    def slow(*_):
        try:
            time.sleep(60)
        except TimeoutError:
            if reported:
                raise RuntimeError("did not complete within Nones") from None
            raise

    monkeypatch.setitem(ladder.SECONDS, "cpu", 0.05)
    monkeypatch.setitem(ladder.MAKERS, "compiled", slow)
    with pytest.warns(UserWarning, match="it is not ready after 0.05 seconds"):
        assert ladder.choose(state, step, first[:5], ("compiled", "eager")) == ("eager", train_step)


@pytest.mark.parametrize("objective", ["annealing", "capacity", "lagging"])
def test_a_loss_that_changes_with_time_is_stepped_plainly(objective):
    state, step, _ = begun(objective)
    assert ladder.ways("compiled-captured", state, step) == ("eager",)


def test_a_way_that_there_is_not_is_refused():
    state, step, _ = begun()
    with pytest.raises(ValueError, match=r"way is 'fast'; it must be one of auto, .*eager"):
        ladder.ways("fast", state, step)


@pytest.mark.parametrize("done", [0, 1_499])
def test_a_long_run_on_a_cpu_is_compiled_and_stays_so_when_it_is_continued(done):
    state, step, _ = begun()
    state.progress.step = done
    assert ladder.ways("auto", state, step) == ("eager",)
    assert ladder.ways("auto", state, replace(step, total=1_500)) == ("compiled", "eager")


def test_training_goes_on_without_a_compiler_and_without_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(_refuse, "no compiler"))
    c, images = config.resolve("smoke", "digits"), dataset.load("digits")
    with pytest.warns(UserWarning, match="steps are not") as said:
        model, progress = train(c, images, tmp_path / "asked", CPU, way="compiled-captured")
    assert len(said) == 3
    assert progress.way == "eager"
    plain, _ = train(c, images, tmp_path / "plain", CPU)
    ours, theirs = (net.state_dict().values() for net in (model, plain))
    assert all(a.equal(b) for a, b in zip(ours, theirs, strict=True))


def _refuse(sentence, *_, **__):
    raise RuntimeError(sentence)
