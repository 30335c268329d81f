"""Checkers of notebook 12: differences between seeds, and what they allow one to say."""

from __future__ import annotations

import torch
from torch import Tensor

from barlow_edu.teaching.checks.base import NotRight, attempt, checker, judge, numbers, tell


@checker
def paired_interval(learner) -> None:
    """f(a, b, t) -> (low, high) of mean ± t sd / √n, of the differences a − b seed by seed."""
    a = torch.tensor([0.412, 0.371, 0.455, 0.430], dtype=torch.float64)
    b = torch.tensor([0.395, 0.360, 0.421, 0.418], dtype=torch.float64)
    worlds = [(a, b, 3.182), (b.repeat(2)[:6], a.square().repeat(2)[:6], 2.571)]
    judge(learner, worlds, _ends, _INTERVALS, "the interval", look=_pair)


def _pair(answer, *_):
    return answer if torch.is_tensor(answer) else numbers(answer, "two numbers: low, high")


def _half(a: Tensor, b: Tensor, t: float) -> Tensor:
    return t * (a - b).std() / len(a) ** 0.5


def _ends(a: Tensor, b: Tensor, t: float, half: Tensor | None = None) -> Tensor:
    half = _half(a, b, t) if half is None else half
    return (a - b).mean() + torch.stack((-half, half))


_INTERVALS = {
    "That is b − a. We ask how much a is above b.": lambda a, b, t: _ends(b, a, t),
    "You took the deviations of a and of b apart. Subtract first, seed by seed: what a seed does to both "
    "then cancels.": lambda a, b, t: _ends(a, b, t, t * ((a.var() + b.var()) / len(a)).sqrt()),
    "Your deviation is divided by n. With few seeds take n − 1, as torch's std does.":
        lambda a, b, t: _ends(a, b, t, t * (a - b).std(correction=0) / len(a) ** 0.5),
    "√n is missing: the mean of n seeds wavers less than one seed.":
        lambda a, b, t: _ends(a, b, t, t * (a - b).std()),
    "You divided by n. The mean wavers like 1 / √n.": lambda a, b, t: _ends(a, b, t, t * (a - b).std() / len(a)),
    "t is missing: that is the standard error. With few seeds it is much too narrow.":
        lambda a, b, t: _ends(a, b, 1.0),
    "Low comes first, then high.": lambda a, b, t: _ends(a, b, -t),
}  # fmt: skip


@checker
def reading(learner) -> None:
    """f(low, high, margin) -> "alike", "above", "below" or "undecided"."""
    cases = (
        (0.01, 0.08, "above", "It lies above 0, and it is not all within the margin."),
        (-0.08, -0.01, "below", "It lies below 0, and it is not all within the margin."),
        (-0.02, 0.01, "alike", "It lies within ± the margin: too little to care about."),
        (-0.07, 0.06, "undecided", "0 is inside, and so are differences that matter."),
        (-0.05, 0.09, "undecided", "0 is inside, and so are differences that matter."),
        (0.004, 0.02, "alike", "It lies above 0, but within the margin. Ask for the margin first."),
        (-0.02, -0.004, "alike", "It lies below 0, but within the margin. Ask for the margin first."),
        (-0.02, 0.05, "undecided", "Only one end is within the margin. Both must be."),
        (-0.05, 0.02, "undecided", "Only one end is within the margin. Both must be."),
    )  # fmt: skip
    for low, high, right, why in cases:
        answer = attempt(learner, low, high, 0.03)
        words = ("alike", "above", "below", "undecided")
        tell({
            f"Return one of the four words, not {type(answer).__name__}.": not isinstance(answer, str),
            f"{answer!r} is none of the four words.": answer not in words,
            f"[{low}, {high}] with a margin of 0.03: you say {answer!r}, it is {right!r}. {why}": answer != right,
        })  # fmt: skip
    if attempt(learner, -0.02, 0.01, 0.015) == "alike":
        raise NotRight("You did not use the margin that you are given: here it is 0.015.")


@checker
def false_alarms(learner) -> None:
    """f(tests, level) -> the chance that at least one of so many tests cries without cause."""
    worlds = [(7, 0.1), (30, 0.02)]
    judge(learner, worlds, lambda n, p: 1 - (1 - p) ** n, _ALARMS, "the chance")


_ALARMS = {
    "You added the chances up: with many tests that passes 1. Two alarms at once were counted twice.":
        lambda n, p: n * p,
    "That is the chance that all of them are quiet. Take it from 1.": lambda n, p: (1 - p) ** n,
    "That is the chance that every single one cries. One is enough.": lambda n, p: p**n,
    "That is 1 minus the chance that all cry. Which is the opposite of 'at least one'?": lambda n, p: 1 - p**n,
    "That is the chance that exactly one cries. Two or more count as well.": lambda n, p: n * p * (1 - p) ** (n - 1),
    "That is in percent. Give a number between 0 and 1.": lambda n, p: 100 * (1 - (1 - p) ** n),
}  # fmt: skip
