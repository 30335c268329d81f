"""Checkers of notebook 06: what λ weighs, and how to read a sweep."""

from __future__ import annotations

import torch

from barlow_edu.loss import barlow_twins_loss, cross_correlation
from barlow_edu.teaching.checks.base import NotRight, attempt, checker, compare

CHECKERS = ("same_balance", "redundancy_share", "plateau")


@checker
def same_balance(learner) -> None:
    """f(lambd, dim, new_dim) -> the λ that gives redundancy the same weight beside invariance at new_dim."""
    for lambd, dim, new in ((0.02, 5, 19), (0.3, 33, 9)):
        compare(
            attempt(learner, lambd, dim, new),
            lambd * (dim - 1) / (new - 1),
            {
                "That is the other way round: more dimensions bring more off-diagonal terms for each "
                "diagonal one, so λ must shrink.": lambd * (new - 1) / (dim - 1),
                "Close: but a row of C has D − 1 entries off the diagonal, not D.": lambd
                * dim
                / new,
                "You counted all off-diagonal terms, D (D − 1). The diagonal grows too: how many are there "
                "for each diagonal one?": lambd * dim * (dim - 1) / (new * (new - 1)),
                "You divided by D². Count the terms for each diagonal one: they grow like D.": lambd
                * dim**2
                / new**2,
                "The root is too weak: the loss is linear in λ and in the number of terms.": lambd
                * (dim - 1) ** 0.5
                / (new - 1) ** 0.5,
                "You gave back the same λ. Then the balance moves, because the number of terms changes.": (
                    lambd
                ),
                "That is the weight λ (D − 1) itself. Which λ gives the same weight at new_dim?": lambd
                * (dim - 1),
            },
            "λ at the new width",
        )


@checker
def redundancy_share(learner) -> None:
    """f(c, lambd) -> the share of the loss, 0 to 1, that λ times the redundancy term makes up."""
    torch.manual_seed(6)
    a = torch.randn(60, 7, dtype=torch.float64)
    b = a + torch.randn(60, 7, dtype=torch.float64)
    c, lambd = cross_correlation(a, b), 0.35
    terms = barlow_twins_loss(a, b, lambd)
    weighted, everything = lambd * terms.redundancy, c.square().sum()
    right = weighted / terms.loss
    compare(
        attempt(learner, c, lambd),
        right,
        {
            "λ is missing: the loss holds λ times the redundancy.": terms.redundancy
            / (terms.invariance + terms.redundancy),
            "λ is missing above the fraction line, but not below.": terms.redundancy / terms.loss,
            "That is the share of the invariance term. We want the other one.": 1 - right,
            "That is the ratio of the two parts. Divide by the whole loss instead.": weighted
            / terms.invariance,
            "You counted the diagonal as redundancy. Leave it out.": lambd
            * everything
            / (terms.invariance + lambd * everything),
            "That is in percent. Give a number between 0 and 1.": 100 * right,
            "That is λ times the redundancy itself. Divide it by the loss.": weighted,
            "Both terms are sums, not means: only then is λ the λ of the paper.": lambd
            * terms.redundancy
            / 42
            / (terms.invariance / 7 + lambd * terms.redundancy / 42),
        },
        "the share",
    )


@checker
def plateau(learner) -> None:
    """f(lambdas, knn, margin) -> (best λ, lowest λ, highest λ) of the unbroken stretch around the best."""
    lambdas = torch.tensor([1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3], dtype=torch.float64)
    knn = torch.tensor([0.50, 0.30, 0.49, 0.52, 0.505, 0.47, 0.46, 0.2], dtype=torch.float64)
    margin = 0.04
    answer = attempt(learner, lambdas, knn, margin)
    if not isinstance(answer, torch.Tensor):
        try:
            answer = torch.tensor([float(x) for x in answer], dtype=torch.float64)
        except (TypeError, ValueError) as error:
            raise NotRight("Return three numbers: best λ, lowest λ, highest λ.") from error
    compare(
        answer,
        lambdas[[3, 2, 4]],
        {
            "These are places in the list. Look the λ values up: lambdas[i].": [3, 2, 4],
            "These are accuracies. Return the λ values that belong to them.": knn[[3, 2, 4]],
            "The stretch must be unbroken: the first λ is good by accident, with a bad one in between.": (
                lambdas[[3, 0, 4]]
            ),
            "You went one step too far on each side: those λ are outside the margin.": lambdas[
                [3, 1, 5]
            ],
            "You stopped at the best. Walk to both sides while kNN stays within the margin.": lambdas[
                [3, 3, 3]
            ],
            "The order is: best λ, lowest λ, highest λ.": lambdas[[2, 3, 4]],
            "You took the worst λ for the best.": lambdas[[7, 7, 7]],
            "Your margin is relative. Take kNN of at least best − margin.": lambdas[[3, 3, 4]],
        },
        "the plateau",
    )
