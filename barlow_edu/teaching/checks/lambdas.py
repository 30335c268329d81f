"""Checkers of notebook 08: what λ weighs, and how to read a sweep."""

import torch
from torch import Tensor

from barlow_edu.teaching.checks.base import NotRight, attempt, checker, judge, numbers, tell
from barlow_edu.teaching.live import LiveProblem

THINGS, DIAGONAL = 7.5, 0.84  # what a schedule is to reach


@checker
def same_balance(learner) -> None:
    """f(lambd, dim, new_dim) -> the λ that gives redundancy the same weight beside invariance at new_dim."""
    worlds = [(0.02, 5, 19), (0.3, 33, 9)]
    judge(learner, worlds, lambda w, d, n: w * (d - 1) / (n - 1), {
        "That is the other way round: more dimensions bring more off-diagonal terms for each "
        "diagonal one, so λ must shrink.": lambda w, d, n: w * (n - 1) / (d - 1),
        "Close: but a row of C has D − 1 entries off the diagonal, not D.": lambda w, d, n: w * d / n,
        "You counted all off-diagonal terms, D (D − 1). The diagonal grows too: how many are there "
        "for each diagonal one?": lambda w, d, n: w * d * (d - 1) / (n * (n - 1)),
        "You divided by D². Count the terms for each diagonal one: about D.": lambda w, d, n: w * d**2 / n**2,
        "The root is too weak: the loss is linear in λ and terms.": lambda w, d, n: w * ((d - 1) / (n - 1)) ** 0.5,
        "You returned the same λ. Then the balance moves, because the number of terms changes.": lambda w, d, n: w,
        "That is the weight λ (D − 1) itself. Which λ gives the same weight at new_dim?": lambda w, d, n: w * (d - 1),
    }, "λ at the new width")  # fmt: skip


def _places(knn: Tensor, margin: float, strict: bool = False, further: int = 0) -> list[int]:
    """Places of the best, and of both ends of the unbroken stretch of kNN around it."""
    least = knn.max() - margin
    good = (knn > least if strict else knn >= least).tolist()
    best = low = high = int(knn.argmax())
    while low > 0 and good[low - 1]:
        low -= 1
    while high < len(good) - 1 and good[high + 1]:
        high += 1
    return [best, max(low - further, 0), min(high + further, len(good) - 1)]


def _chosen(lambdas: Tensor, knn: Tensor, margin: float, **slip: int) -> Tensor:
    return lambdas[_places(knn, margin, **slip)]


@checker
def plateau(learner) -> None:
    """f(lambdas, knn, margin) -> (best λ, lowest λ, highest λ) of the unbroken stretch around the best."""
    lambdas = torch.tensor([1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3], dtype=torch.float64)
    knn = torch.tensor([0.50, 0.30, 0.49, 0.52, 0.505, 0.47, 0.46, 0.2], dtype=torch.float64)
    # exactly at the margin of 1/8
    eighths = torch.tensor([3, 2, 4, 5, 4.25, 3], dtype=torch.float64) / 8
    worlds = [(lambdas, knn, 0.04), (lambdas[:6] * 2, eighths, 0.125), (lambdas, knn.flip(0), 0.1)]
    three = "three numbers: best λ, lowest λ, highest λ"
    judge(learner, worlds, _chosen, {
        "These are places in the list. Look the λ values up: lambdas[i].": lambda x, y, m: _places(y, m),
        "These are accuracies. Return the λ values that belong to them.": lambda x, y, m: y[_places(y, m)],
        "The stretch must be unbroken: the first λ is good by accident, with a bad one in between.":
            lambda x, y, m: torch.stack([x[y.argmax()], *x[y >= y.max() - m].aminmax()]),
        "You went one step too far on each side: those λ are outside the margin.": {"further": 1},
        "You stopped at the best. Go both ways, within the margin of kNN.": lambda x, y, m: x[[int(y.argmax())] * 3],
        "The order is: best λ, lowest λ, highest λ.": lambda x, y, m: _chosen(x, y, m).sort().values,
        "You took the worst λ for the best.": lambda x, y, m: x[[int(y.argmin())] * 3],
        "Your margin is relative. Take kNN of at least best − margin.": lambda x, y, m: _chosen(x, y, m * y.max()),
        "A λ whose kNN is exactly best − margin belongs to the plateau: at least, so >= and not >.": {"strict": True},
    }, "the plateau", look=lambda x, *_: numbers(x, three))  # fmt: skip


@checker
def schedule(learner) -> None:
    """f(t) -> λ at the moment t of the training, 0 to 1: trains the live world with 24 dimensions by it."""
    world, steps = LiveProblem(dim=24), 400
    for step in range(steps):
        lambd = attempt(learner, step / steps)
        if isinstance(lambd, bool) or not isinstance(lambd, (int, float)) or not 0 <= lambd < 1e6:
            raise NotRight(f"λ at t = {step / steps:g} is {lambd!r}: return a number, 0 or more.")
        world.lambd = lambd
        world.step()
    said, diagonal = world.distinct(), float(world.c.diagonal().mean())
    tell({
        f"All dimensions are copies: they say {said:.1f} different things. Raise λ.": said < 2,
        f"They say {said:.1f} different things, {THINGS:g} are wanted. A higher λ forbids copies.": said < THINGS,
        f"The mean diagonal is {diagonal:.2f}, {DIAGONAL:g} is wanted: twins disagree. Lower λ.": diagonal < DIAGONAL,
    })  # fmt: skip
