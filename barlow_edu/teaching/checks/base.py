"""What every checker is made of.

A checker runs the learner's function on hidden inputs and compares the answer with the right one and with the
answers that known mistakes give. It raises NotRight with a diagnosis, or prints that the answer is right. It
never says "wrong" and goes on. Only an exercise that was left open (it returns ``...``) is told so and passes.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import torch


class NotRight(AssertionError):
    """The answer is not right; the message says what seems to have happened."""

    def _render_traceback_(self) -> list[str]:
        return _rendered(self)


class _Open(Exception):
    """The learner has not written anything yet."""


def checker(check: Callable[..., None]) -> Callable[..., None]:
    """Make a checker of a function that raises NotRight when an answer is wrong and returns when it is right."""

    @functools.wraps(check)
    def run(*answers: Any, **options: Any) -> None:
        if any(a is ... for a in answers):
            print(
                f"{check.__name__}: still open. Replace the three dots, then run this cell again."
            )
            return
        try:
            check(*answers, **options)
        except _Open:
            print(
                f"{check.__name__}: still open. Replace the three dots, then run this cell again."
            )
            return
        except NotRight:
            raise
        except Exception as error:
            if not _is_stub(error):
                problem = f"{type(error).__name__}: {error}"
                raise NotRight(f"Your answer cannot be used here. {problem}") from error
            error._render_traceback_ = functools.partial(_rendered, error)
            raise
        print(f"{check.__name__}: right.")

    return run


def attempt(function: Callable, *inputs: Any, **options: Any) -> Any:
    """The learner's answer; what it raises, and a change of an input in place, becomes a diagnosis."""
    if not callable(function):
        raise NotRight(
            f"Give the function itself, not {type(function).__name__}: check(my_function)."
        )
    before = [x.clone() if torch.is_tensor(x) else x for x in inputs]
    try:
        answer = function(*inputs, **options)
    except Exception as error:
        if _is_stub(error):
            raise
        raise NotRight(
            f"Your function raised {type(error).__name__}: {error}{_place(function, error)}"
        ) from error
    if answer is ...:
        raise _Open
    if answer is None:
        raise NotRight("Your function returned nothing. Is the return statement missing?")
    for old, new in zip(before, inputs, strict=True):
        if torch.is_tensor(old) and not _same(old, new):
            raise NotRight(
                "Your function changed its input in place. Work on a copy, or without x -= ..."
            )
    return answer


def _is_stub(error: Exception) -> bool:
    """Raised by the open exercise of a student notebook, not by torch, where an operation lacks a type."""
    return isinstance(error, NotImplementedError) and str(error).startswith("Exercise")


def _place(function: Callable, error: Exception) -> str:
    """Where in the file or cell of ``function`` the error was raised, or nothing if it was not there."""
    here = getattr(getattr(function, "__code__", None), "co_filename", None)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == here]
    if not frames or not frames[-1].line:
        return ""
    return f"\n  in line {frames[-1].lineno}:  {frames[-1].line}"


def _rendered(error: Exception) -> list[str]:
    """What Jupyter shows: the message alone. The frames of a checker would tell a learner nothing."""
    return [f"\x1b[1;31m{type(error).__name__}:\x1b[0m {error}"]


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal, where NaN equals NaN."""
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())


def compare(
    answer: Any,
    right: torch.Tensor | float,
    mistakes: Mapping[str, Any] | None = None,
    what: str = "the answer",
    tolerance: float = 1e-4,
) -> None:
    """Raise NotRight unless ``answer`` equals ``right`` within ``tolerance`` (relative to its largest value).

    mistakes: diagnosis -> the answer that this mistake gives. The first that fits is told.
    """
    expected = torch.as_tensor(right, dtype=torch.float64)
    try:
        found = torch.as_tensor(answer).detach().double()
    except (TypeError, ValueError, RuntimeError) as error:
        raise NotRight(
            f"{what} must be a tensor or a number, got {type(answer).__name__}."
        ) from error
    if found.shape == expected.shape and _close(found, expected, tolerance):
        return
    for diagnosis, wrong in (mistakes or {}).items():
        wrong = torch.as_tensor(wrong, dtype=torch.float64)
        if found.shape == wrong.shape and _close(found, wrong, tolerance):
            raise NotRight(diagnosis)
    if found.shape != expected.shape:
        raise NotRight(
            f"{what} has shape {tuple(found.shape)}; it should be {tuple(expected.shape)}."
        )
    if torch.isnan(found).any():
        raise NotRight(f"{what} holds NaN. Is something divided by zero?")
    worst = (found - expected).abs().max().item()
    raise NotRight(f"{what} has the right shape, but the values differ by up to {worst:.3g}.")


def _close(a: torch.Tensor, b: torch.Tensor, tolerance: float) -> bool:
    scale = max(1e-12, b.abs().max().item()) if b.numel() else 1.0
    return bool(((a - b).abs() <= tolerance * scale).all())
