"""Checkers of notebook 12: differences between seeds, and what they allow one to say."""

import numpy as np
import torch
from torch import Tensor

from barlow_edu.teaching.checks.base import NotRight, attempt, checker, judge, numbers, tell


def _ends(a: Tensor, b: Tensor, t: float, sd=lambda a, b: (a - b).std(), power=0.5) -> Tensor:
    half = t * sd(a, b) / len(a) ** power
    return (a - b).mean() + torch.stack((-half, half))


@checker
def paired_interval(learner) -> None:
    """f(a, b, t) -> (low, high) of mean ± t sd / √n, of the differences a − b seed by seed."""
    a = torch.tensor([0.412, 0.371, 0.455, 0.430], dtype=torch.float64)
    b = torch.tensor([0.395, 0.360, 0.421, 0.418], dtype=torch.float64)
    # t of four and of six seeds; in the second world a and b have other deviations
    worlds = [(a, b, 3.182), (b.repeat(2)[:6], a.square().repeat(2)[:6], 2.571)]
    pair = "two numbers: low, high"
    judge(learner, worlds, _ends, {
        "That is b − a. The question is how far a lies above b.": lambda a, b, t: _ends(b, a, t),
        "You took the deviations of a and of b apart. Subtract first, seed by seed: what a seed does to both "
        "then cancels.": {"sd": lambda a, b: (a.var() + b.var()).sqrt()},
        "Your deviation is divided by n. With few seeds, take n − 1.": {"sd": lambda a, b: (a - b).std(correction=0)},
        "√n is missing: the mean of n seeds wavers less than one seed.": {"power": 0},
        "You divided by n. The mean wavers like 1 / √n.": {"power": 1},
        "t is missing: that is the standard error. With few seeds it is much too narrow.": {"t": 1.0},
        "Low comes first, then high.": lambda a, b, t: _ends(a, b, -t),
    }, "the interval", look=lambda x, *_: numbers(x, pair))  # fmt: skip


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
    words = ("alike", "above", "below", "undecided")
    for low, high, right, why in cases:
        answer = attempt(learner, low, high, 0.03)
        tell({
            f"Return one of the four words, not {type(answer).__name__}.": not isinstance(answer, str),
            f"{answer!r} is none of the four words.": answer not in words,
            f"[{low}, {high}] with a margin of 0.03: you say {answer!r}, it is {right!r}. {why}": answer != right,
        })  # fmt: skip
    by_heart = attempt(learner, -0.02, 0.01, 0.015) == "alike"
    tell({"You did not use the margin that you are given: here it is 0.015.": by_heart})


VARIANTS, BUDGET, WORLDS = 8, 40, 400
POINTS = 1.5  # standard deviation between variants, and between seeds of one, in points of kNN
EQUAL, AHEAD = 0.705, 0.03  # share of the worlds that five seeds each get right; beyond it


@checker
def choose_variant(learner) -> None:
    """f(train, variants, budget) -> the variant held best; train(variant) is kNN, in points, with one more seed."""
    right = 0.0
    for seed in range(WORLDS):
        draw = np.random.default_rng(seed)
        truth, noise = draw.normal(35, POINTS, VARIANTS), [*draw.normal(0, POINTS, BUDGET)]

        def train(variant: int, truth=truth, noise=noise) -> float:
            if not noise:
                raise RuntimeError(f"All {BUDGET} trainings are spent.")
            return float(truth[_number(variant)] + noise.pop())

        right += (_number(attempt(learner, train, VARIANTS, BUDGET)) == truth.argmax()) / WORLDS
    you = f"You choose the best variant in {right:.1%} of the worlds"
    tell({
        f"{you}, a blind choice in {1 / VARIANTS:.1%}. Train, and take the highest kNN.": right < 1.5 / VARIANTS,
        f"{you}, five seeds each in {EQUAL:.1%}: be {100 * AHEAD:.0f} points ahead. Spend all {BUDGET} trainings. "
        "Which variants need no further seed?": right < EQUAL + AHEAD,
    })  # fmt: skip


def _number(answer: object) -> int:
    if str(getattr(answer, "item", lambda: answer)()) not in map(str, range(VARIANTS)):
        raise NotRight(f"A variant is a number from 0 to {VARIANTS - 1}, not {answer!r:.60}.")
    return int(answer)
