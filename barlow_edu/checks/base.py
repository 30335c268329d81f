"""What every checker is made of.

A checker runs the learner's function on hidden inputs and compares the answer with the right one and with the
answers that known mistakes give. It raises NotRight with a diagnosis, or prints that the answer is right. It
never says "wrong" and goes on. Only an exercise that was left open (it returns ``...``) is told so and passes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch


class NotRight(AssertionError):
    """The answer is not right; the message says what seems to have happened."""


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
    except NotImplementedError:
        raise
    except Exception as error:
        raise NotRight(f"Your function raised {type(error).__name__}: {error}") from error
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
