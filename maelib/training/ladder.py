"""Ways to take a training step, from the fastest to the plainest, and which of them works here.

Compiling joins the many small operations of the loss into few kernels. Capturing records a whole
step in one CUDA graph, which the host then starts by a single call. Both can fail, and neither is
needed: ``choose`` takes the first way whose steps give what plain steps give.
"""

import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from maelib.internal.options import checked
from maelib.internal.shapes import Codes, Images
from maelib.objectives.base import Terms
from maelib.training import WAYS, parallel
from maelib.training.state import State, moments
from maelib.training.step import Step, announce, device_step, loss_terms, train_step

COMPARED = 5  # steps by which a way is compared with plain steps
WARM_UP = 3  # steps before a capture, in which kernels are chosen and Adam's moments are made
SECONDS = {"cuda": 240.0, "cpu": 600.0}  # within which a way must be ready; a CPU may be shared
COMPILING_MIN_STEPS = {"cuda": 10_000, "cpu": 1_500}  # steps that repay the minute of compiling
TOLERANCE = {"float32": 1e-3, "tf32": 1e-2, "bf16": 1e-2}  # relative, of the loss
# Largest relative difference of two changes of the weights. Adam's first changes are signs, and
# rounding turns those of small gradients.
FARTHEST = 0.5
# Factor on the learning rate of the steps that are compared. The first whole steps of a run are
# chaotic: at MAE's second step STD can be 10,000 times what it was, and rounding alone changes the
# next losses.
GENTLE = 0.01
Batch = tuple[Images, Codes]
Take = Callable[[State, Step, Images, Codes], Terms]


def ways(way: str, state: State, step: Step) -> tuple[str, ...]:
    """The ways to be tried: ``way`` and those after it, or for ``auto`` what suits the run.

    Steps whose loss changes with time or that have extra updates are eager, and so are those of
    several processes and those on an Apple GPU. What suits a run does not depend on how far it
    is, so that a run that was stopped goes on in the same way.
    """
    way = checked("way", way, str, {"choices": ("auto", *WAYS)})
    device = state.totals.sums.device.type
    is_fixed = not step.objective.varies and not step.settings.encoder_steps
    if not is_fixed or parallel.size() > 1 or device not in SECONDS:
        return ("eager",)
    if way != "auto":
        return WAYS[WAYS.index(way) :]
    is_long = step.total >= COMPILING_MIN_STEPS[device]
    if device != "cuda":
        return WAYS[WAYS.index("compiled" if is_long else "eager") :]
    return WAYS if is_long else WAYS[WAYS.index("captured") :]


def choose(
    state: State, step: Step, batches: Iterable[Batch], tried: Sequence[str] = WAYS
) -> tuple[str, Take]:
    """The first of the ways ``tried`` that works, and the function that takes a step in it.

    A way works if ``COMPARED`` steps on ``batches`` give the losses and weights of plain steps. It
    is named in a warning if not. ``state`` is afterwards as it was before.
    """
    if tried[0] == "eager":
        return "eager", train_step
    batches = list(batches)
    before = {name: tensor.clone() for name, tensor in tensors(state).items()}
    begun = state.progress.step
    plain = results(state, step, train_step, batches)
    for way in tried:
        put_back(state, before, begun)
        if way == "eager":
            break
        try:
            with time_limit(SECONDS[state.totals.sums.device.type]):
                take = MAKERS[way](state, step, *batches[0])
            put_back(state, before, begun)
            found = results(state, step, take, batches)
            require_like(found, plain, before, TOLERANCE[step.precision])
        except Exception as problem:  # a compiler's and a driver's errors have no common class
            why = (str(problem).strip() or type(problem).__name__).splitlines()[0]
            warnings.warn(f"steps are not {way} here: {why:.200}", stacklevel=2)
            continue
        put_back(state, before, begun)
        return way, take
    return "eager", train_step


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Context in which TimeoutError is raised after ``seconds``. In a thread there is no limit.

    The compiler may report the alarm that reaches it in words of its own; the error is this one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    late = TimeoutError(f"it is not ready after {seconds:g} seconds")
    has_rung = False

    def ring(*_: object) -> None:
        nonlocal has_rung
        has_rung = True
        raise late

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except Exception as problem:
        if has_rung and problem is not late:
            raise late from problem
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def compiled_loss() -> Callable[..., Terms]:
    """``loss_terms``, compiled; its dropout draws the numbers that it draws in plain steps."""
    return torch.compile(loss_terms, options={"fallback_random": True})


def compiled(state: State, step: Step, x: Images, eps: Codes) -> Take:
    """A step whose loss is compiled, forward and backward."""
    loss = compiled_loss()

    def take(state: State, step: Step, x: Images, eps: Codes) -> Terms:
        return train_step(state, replace(step, loss=loss), x, eps)

    take(state, step, x, eps)
    return take


def captured(state: State, step: Step, x: Images, eps: Codes) -> Take:
    """A step that is recorded once, on buffers into which each batch is copied, and replayed."""
    graph, buffers = torch.cuda.CUDAGraph(), (x.clone(), eps.clone())
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            device_step(state, step, *buffers)
    torch.cuda.current_stream().wait_stream(side)
    state.optimizer.zero_grad(set_to_none=True)
    with torch.cuda.graph(graph):
        terms = device_step(state, step, *buffers)

    def take(state: State, step: Step, x: Images, eps: Codes) -> Terms:
        announce(state, step)
        for buffer, new in zip(buffers, (x, eps), strict=True):
            buffer.copy_(new)
        graph.replay()
        state.progress.step += 1
        return terms

    return take


def compiled_captured(state: State, step: Step, x: Images, eps: Codes) -> Take:
    """``captured``, of a step whose loss is compiled."""
    return captured(state, replace(step, loss=compiled_loss()), x, eps)


MAKERS = {"compiled-captured": compiled_captured, "captured": captured, "compiled": compiled}


def tensors(state: State) -> dict[str, Tensor]:
    """All that a step changes on the device, by name; with Adam's moments after the first step."""
    parts = {"weights": state.model.state_dict(), "averaged": state.averaged.state_dict()}
    parts |= moments(state.optimizer)
    named = {f"{part}/{name}": t for part, all_ in parts.items() for name, t in all_.items()}
    return named | {"sums": state.totals.sums, "first_bad": state.totals.first_bad}


@torch.no_grad()
def put_back(state: State, before: dict[str, Tensor], step: int) -> None:
    """Set the tensors, where they lie, and the step's number to what they were.

    Adam's moments that were not there yet become zero, as they begin.
    """
    for name, tensor in tensors(state).items():
        tensor.copy_(before[name]) if name in before else tensor.zero_()
    state.progress.step = step


def results(
    state: State, step: Step, take: Take, batches: Sequence[Batch]
) -> tuple[list[float], dict[str, Tensor]]:
    """The losses of a ``GENTLE`` step on each batch, and the weights and averages after them."""
    step = replace(step, settings=replace(step.settings, lr=GENTLE * step.settings.lr))
    losses = []
    for number, batch in enumerate(batches):
        torch.manual_seed(number)  # of dropout
        losses.append(take(state, step, *batch).loss.detach().clone())
    after = {n: t.clone() for n, t in tensors(state).items() if n.startswith(("weights", "aver"))}
    return [float(loss) for loss in losses], after


def require_like(found: tuple, plain: tuple, before: dict[str, Tensor], tolerance: float) -> None:
    """RuntimeError if losses, or changes of weights or averages, differ from plain steps'."""
    for ours, theirs in zip(found[0], plain[0], strict=True):
        if not abs(ours - theirs) <= tolerance * abs(theirs):
            raise RuntimeError(f"the loss is {ours:.6g}, and {theirs:.6g} by plain steps")
    for part in ("weights", "averaged"):
        names = [name for name in plain[1] if name.startswith(part)]
        ours, theirs = (
            torch.cat([(after[name] - before[name]).flatten() for name in names])
            for after in (found[1], plain[1])
        )
        if not (ours - theirs).norm() <= FARTHEST * theirs.norm():
            raise RuntimeError(f"the {part} change differently than in plain steps")
