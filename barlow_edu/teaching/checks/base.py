"""What every checker is made of.

A checker runs the learner's function on hidden inputs and compares the answer with the right one and with the
answers that known mistakes give. It raises NotRight with a diagnosis, or prints that the answer is right. It
never says "wrong" and goes on. Only an exercise that was left open (it returns ``...``) is told so and passes.
"""

import contextlib
import functools
import inspect
import io
import os
import random
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from torch import Tensor

BY_HEART = " Your function was right on other inputs: does it hold a number that it should take from its arguments?"

# Added to every seed while answers are graded: those who read the checkers know the inputs of 0 alone.
GRADING: ContextVar[int] = ContextVar("GRADING", default=0)


class NotRight(AssertionError):
    """The answer is not right; the message says what seems to have happened."""

    def _render_traceback_(self) -> list[str]:
        """What Jupyter shows: the message alone. The frames of a checker would tell a learner nothing."""
        return [f"\x1b[1;31m{type(self).__name__}:\x1b[0m {self}"]


CHECKERS: dict[str, Callable[..., None]] = {}  # name -> checker, of all modules that were imported


class _Open(Exception):
    """The learner has not written anything yet."""


class Shaped(tuple):
    """Among mistakes: any answer of this shape."""


# What a learner's code may set for the whole page: how it is read, how it is set back.
SWITCHES = (
    (torch.get_default_device, lambda d: torch.set_default_device(d if d.type != "cpu" else None)),
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    (lambda: torch.is_autocast_enabled("cpu"), lambda on: torch.set_autocast_enabled("cpu", on)),
    (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (torch.get_num_threads, torch.set_num_threads),
    (torch._tensor_str.get_printoptions, lambda o: torch.set_printoptions(**o)),
    (np.get_printoptions, lambda options: np.set_printoptions(**options)),
    (np.geterr, lambda errors: np.seterr(**errors)),
    (os.getcwd, os.chdir),
)


@contextlib.contextmanager
def untouched() -> Iterator[None]:
    """Undo what a learner's code does behind the page: random numbers drawn, and ``SWITCHES``."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    before = [read() for read, _ in SWITCHES]
    try:
        yield
    finally:
        for (read, set_back), value in zip(SWITCHES, before, strict=True):
            if read() != value:
                set_back(value)
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


def checker(check: Callable[..., None]) -> Callable[..., None]:
    """Make a checker of a function that raises NotRight when an answer is wrong and returns when it is right.

    The check runs with float32 and gradients, whatever is set on the page, and changes nothing there.
    """
    name = check.__name__

    @functools.wraps(check)
    def run(*answers: Any, **options: Any) -> None:
        try:
            if any(a is ... for a in answers):
                raise _Open
            with untouched(), torch.enable_grad():
                torch.set_default_dtype(torch.float32)
                check(*answers, **options)
        except _Open:
            dots = f"{name}: still open. Replace the three dots, then run this cell again."
            if GRADING.get():
                raise NotRight(dots) from None
            print(dots)
            return
        except NotRight:
            raise
        except Exception as error:
            if not _is_stub(error):
                problem = f"{type(error).__name__}: {error}"
                raise NotRight(f"Your answer cannot be used here. {problem}") from error
            error._render_traceback_ = functools.partial(NotRight._render_traceback_, error)
            raise
        print(f"{name}: right.")

    CHECKERS[name] = run
    return run


@contextlib.contextmanager
def graded(seed: int) -> Iterator[None]:
    """Let the checkers called within grade instead of teach.

    Their hidden inputs are drawn from ``seed`` (at least 1), an exercise that was left open is not right, and nothing
    is printed: graders read an output as points, or as an error.
    """
    grading = GRADING.set(seed)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        GRADING.reset(grading)


def attempt(function: Callable, *inputs: Any, **options: Any) -> Any:
    """The learner's answer; what it raises, and a change of an input in place, becomes a diagnosis.

    Generators and ``SWITCHES`` are as before when it returns. One attempt may call another: the inner one is heard.
    """
    itself = f"Give the function itself, not {type(function).__name__}: check(my_function)."
    tell({itself: not callable(function)})
    before = [x.detach().clone() for x in _tensors(inputs)]
    try:
        with untouched():
            answer = function(*inputs, **options)
    except (NotRight, _Open):
        raise
    except Exception as error:
        if _is_stub(error):
            raise
        raised = f"Your function raised {type(error).__name__}: {error}"
        raise NotRight(raised + _place(function, error)) from error
    if answer is ...:
        raise _Open
    tell({
        "Your function returned nothing. Is the return statement missing?": answer is None,
        "Your function changed its input in place. Work on a copy, or without x -= ...":
            not equal(before, [x.detach() for x in _tensors(inputs)]),
    })  # fmt: skip
    return answer


def features(function: Callable, inputs: Tensor, what: str) -> Tensor:
    """The learner's features of ``inputs``, (N, k), in float32. Raises NotRight where they are none."""
    wanted = f"one row of features for each of the {len(inputs):,} {what}, (N, k)"
    rows = numbers(attempt(function, inputs), wanted, len(inputs), None)
    collapsed = f"All {what} have the same features: the network has collapsed."
    tell({collapsed: (rows - rows[:1]).abs().max() < 1e-6})
    return rows.float()


def judge(function, worlds, right, mistakes, what="the answer", tolerance=1e-4, look=None) -> None:
    """Try the learner's function on each of ``worlds``, tuples of inputs; raise NotRight at a wrong answer.

    ``right`` takes the same inputs. mistakes: diagnosis -> a function of these inputs, or the options with which
    ``right`` makes the mistake. ``what`` may name inputs by their place, "at N = {0}". ``look(answer, *inputs)``
    returns the answer to be compared; it may raise NotRight for what no table of numbers can tell, such as a list
    where a tensor is wanted.
    """
    for place, inputs in enumerate(worlds):
        answer = attempt(function, *inputs)
        answer = look(answer, *inputs) if look else answer
        # lazily: most mistakes are never computed, and some have no answer for some inputs
        wrong = {d: functools.partial(mistaken, right, m, inputs) for d, m in mistakes.items()}
        # who fails in a later world only has used a number of the first one
        by_heart = BY_HEART if place else ""
        compare(answer, right(*inputs), wrong, what.format(*inputs), tolerance, by_heart)


def mistaken(right: Callable, mistake: Callable | Mapping[str, Any], inputs: tuple) -> Any:
    """The answer that a mistake gives to these inputs."""
    if not isinstance(mistake, Mapping):
        return mistake(*inputs)
    # by name, so that a mistake can also put a value in the place of an input: {"lambd": 1} forgets λ
    return right(**(inspect.signature(right).bind(*inputs).arguments | mistake))


def tell(signs: Mapping[str, bool]) -> None:
    """Raise NotRight with the first diagnosis whose sign is seen."""
    for diagnosis, seen in signs.items():
        if seen:
            raise NotRight(diagnosis)


def follow(function: Callable, inputs: tuple, right: Callable, hint: str = "") -> None:
    """Raise NotRight unless autograd follows the answer through every term, back to each tensor among the inputs.

    hint: what to add where it follows only some of them.
    """
    inputs = [x.clone().requires_grad_() if torch.is_tensor(x) else x for x in inputs]
    answer = attempt(function, *inputs)
    plain = ".item(), float(), .detach() and numpy"
    lost = f"The value is right, but autograd lost its way: leave out {plain}."
    tell({lost: not (torch.is_tensor(answer) and answer.requires_grad)})
    leaves = [x for x in inputs if torch.is_tensor(x)]
    gradients = [
        torch.cat([g.flatten() for g in torch.autograd.grad(value, leaves, materialize_grads=True)])
        for value in (answer, right(*inputs))
    ]
    tell({
        "The value is right, but its gradient is not: a part of it is a plain number for autograd. Leave out "
        f"{plain} in every term.{hint}": not close(*gradients, 1e-4),
    })  # fmt: skip


def _tensors(inputs: Iterable) -> list[Tensor]:
    """The tensors among the inputs, and those in lists among them."""
    every = [y for x in inputs for y in (x if isinstance(x, (list, tuple)) else [x])]
    return [x for x in every if torch.is_tensor(x)]


def _is_stub(error: Exception) -> bool:
    """Raised by the open exercise of a student notebook (nbgrader's own says nothing), not by torch."""
    stub = str(error).startswith("Exercise") or not str(error)
    return isinstance(error, NotImplementedError) and stub


def _place(function: Callable, error: Exception) -> str:
    """Where in the file or cell of ``function`` the error was raised, or nothing if it was not there."""
    here = getattr(getattr(function, "__code__", None), "co_filename", __file__)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == here]
    # a line of a checker, which may wrap the learner's function, would tell nothing
    if os.path.dirname(here) == os.path.dirname(__file__) or not frames or not frames[-1].line:
        return ""
    return f"\n  in line {frames[-1].lineno}:  {frames[-1].line}"


def compare(answer, right, mistakes=None, what="the answer", tolerance=1e-4, hint="") -> None:
    """Raise NotRight unless ``answer`` equals ``right`` within ``tolerance`` (relative to its largest value).

    mistakes: diagnosis -> the answer that this mistake gives, or a kind of answer (Shaped, a dtype), or a function
    that computes either. The first that fits is the message. hint: what to add where none fits.
    """
    expected = torch.as_tensor(right).detach().double()
    try:
        answer = torch.as_tensor(answer).detach()
        values = answer.real.double()
    except (TypeError, ValueError, RuntimeError) as error:
        kind = f"{what} must be a tensor or a number, got {type(answer).__name__}."
        raise NotRight(kind) from error
    if close(values, expected, tolerance) and not answer.is_complex():
        return
    for diagnosis, wrong in (mistakes or {}).items():
        with contextlib.suppress(ArithmeticError):  # a mistake that has no answer here
            wrong = wrong() if callable(wrong) else wrong
            if isinstance(wrong, torch.dtype):
                fits = answer.dtype == wrong
            elif isinstance(wrong, Shaped):
                fits = values.shape == wrong
            else:
                fits = close(values, torch.as_tensor(wrong).detach().double(), tolerance)
            tell({diagnosis: fits})
    shapes = f"{tuple(values.shape)}; it should be {tuple(expected.shape)}."
    tell({
        f"{what} has shape {shapes}": values.shape != expected.shape,
        f"{what} holds NaN. Is something divided by zero?": values.isnan().any(),
    })  # fmt: skip
    worst = (values - expected).abs().max().item()
    raise NotRight(f"{what} has the right shape, but the values differ by up to {worst:.3g}.{hint}")


def numbers(answer: Any, names: str, *shape: int | None) -> Tensor:
    """A tensor, or a list of numbers or of tensors of one shape, as finite numbers in float64.

    Anything else is NotRight, with their ``names``; ``shape``: the one they must have, None where any length will do.
    """
    try:
        if not torch.is_tensor(answer) or not answer.ndim:
            answer = torch.stack([torch.as_tensor(x).detach().double() for x in answer])
    except (TypeError, ValueError, RuntimeError) as error:
        raise NotRight(f"Return {names}.") from error
    values, given = answer.detach().double(), tuple(answer.shape)
    fits = len(given) == len(shape) and all(
        n in (None, m) for n, m in zip(shape, given, strict=False)
    )
    tell({
        f"Return {names}. Yours has the shape {given}.": shape and not fits,
        "Your answer holds NaN or infinity. Is something divided by zero?": not values.isfinite().all(),
    })  # fmt: skip
    return values


def equal(a: Any, b: Any) -> bool:
    """Bit for bit, through nested mappings and lists; NaN equals NaN."""
    try:
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
    except (AssertionError, TypeError, ValueError):
        return False
    return True


def close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    """Equal in shape, and in value within ``tolerance`` of the largest of ``b``."""
    scale = max(1e-12, b.abs().max().item()) if b.numel() else 1.0
    return a.shape == b.shape and bool(((a - b).abs() <= tolerance * scale).all())
