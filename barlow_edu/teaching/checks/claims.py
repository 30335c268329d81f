"""Checkers of notebook 12: differences between seeds, and what they allow one to say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
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


VARIANTS, BUDGET, WORLDS = 8, 40, 400
POINTS = 1.5  # standard deviation between variants, and between seeds of one, in points of kNN
AHEAD = 0.03  # of equal shares, in the share of worlds where the best variant is chosen


@checker
def choose_variant(learner) -> None:
    """f(train, variants, budget) -> the variant held best; train(variant) is kNN, in points, with one more seed.

    Played in invented worlds, and judged by how often the best variant is chosen, beside the same seeds for each.
    """
    right, left = _play(lambda *given: _chosen(attempt(learner, *given)))
    equal, chance = _play(_equal_shares)[0], 1 / VARIANTS
    tell({
        "You return a variant without a single training. Call train(variant).": left == BUDGET,
        f"You choose the best variant in {right:.0%} of the worlds, and a blind choice does in {chance:.0%}. Is a "
        "higher kNN better?": right < chance,
        f"You choose the best variant in {right:.0%} of the worlds, with {left:.0f} of {BUDGET} trainings unused. "
        "Spend them.": right < equal + AHEAD and left >= 1,
        f"You choose the best variant in {right:.1%} of the worlds. Equal shares do in {equal:.1%}: be ahead of them "
        f"by {100 * AHEAD:.0f} points. Which variants need no further seed?": right < equal + AHEAD,
    })  # fmt: skip


def _play(plan: Callable) -> tuple[float, float]:
    """Share of worlds where ``plan`` chooses the best variant, and how many trainings it leaves unused on average."""
    right, unused = 0, 0
    for seed in range(WORLDS):
        draw = np.random.default_rng(seed)
        truth, left = draw.normal(35, POINTS, VARIANTS), [BUDGET]

        def train(variant: int, draw=draw, truth=truth, left=left) -> float:
            if left[0] == 0:
                raise RuntimeError(f"All {BUDGET} trainings are spent.")
            left[0] -= 1
            return float(truth[_chosen(variant)] + draw.normal(0, POINTS))

        right += plan(train, VARIANTS, BUDGET) == truth.argmax()
        unused += left[0]
    return right / WORLDS, unused / WORLDS


def _equal_shares(train: Callable[[int], float], variants: int, budget: int) -> int:
    seeds = range(budget // variants)
    return int(np.argmax([np.mean([train(v) for _ in seeds]) for v in range(variants)]))


def _chosen(answer: object) -> int:
    """A variant's number. Raises NotRight for anything else."""
    try:
        variant = int(answer)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        variant = -1
    if not 0 <= variant < VARIANTS:
        raise NotRight(f"A variant is a number from 0 to {VARIANTS - 1}, not {answer!r:.60}.")
    return variant
