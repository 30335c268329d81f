"""Checkers of notebook 00."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from barlow_edu.loss import barlow_twins_loss, cross_correlation
from barlow_edu.teaching.checks.base import NotRight, attempt, checker, compare

CHECKERS = ("off_diagonal_rms", "loss_from_matrix", "find_twins")


@checker
def off_diagonal_rms(learner) -> None:
    """f(c) -> root mean square of the entries off the diagonal; c is (D, D)."""
    torch.manual_seed(3)
    c = cross_correlation(torch.randn(50, 6), torch.randn(50, 6)) + 0.5 * torch.eye(6)
    off = c[~torch.eye(6, dtype=torch.bool)]
    compare(
        attempt(learner, c),
        off.square().mean().sqrt(),
        {
            "That is the root mean square of all of C. Leave the diagonal out.": c.square()
            .mean()
            .sqrt(),
            "You divided by D², but the diagonal is left out: D (D − 1) entries remain.": (
                off.square().sum() / 36
            ).sqrt(),
            "That is the mean square. Take its root.": off.square().mean(),
            "That is the sum of squares. Divide by how many entries there are, then take the root.": (
                off.square().sum()
            ),
            "That is the plain mean: positive and negative entries cancel. Square them first.": off.mean(),
            "That is the mean absolute value. Square, take the mean, take the root.": off.abs().mean(),
            "That is the diagonal. Look at everything else.": c.diagonal().square().mean().sqrt(),
        },
        "the off-diagonal size",
    )


@checker
def loss_from_matrix(learner) -> None:
    """f(c, lambd) -> the Barlow Twins loss of a cross-correlation matrix (D, D)."""
    torch.manual_seed(4)
    a = torch.randn(40, 5)
    b = a + 0.7 * torch.randn(40, 5)
    c, lambd = cross_correlation(a, b), 0.1
    right = barlow_twins_loss(a, b, lambd)
    diagonal, everything = c.diagonal(), c.square().sum()
    compare(
        attempt(learner, c, lambd),
        right.loss,
        {
            "The second sum runs over i ≠ j only: take the diagonal out of it.": right.invariance
            + lambd * everything,
            "λ is missing before the second sum.": right.invariance + right.redundancy,
            "λ belongs before the second sum, not the first.": lambd * right.invariance
            + right.redundancy,
            "The diagonal should become 1, not 0: the first sum is of (1 − C_ii)².": diagonal.square().sum()
            + lambd * right.redundancy,
            "Square 1 − C_ii before you add up.": (1 - diagonal).sum() + lambd * right.redundancy,
            "Square the off-diagonal entries before you add up.": right.invariance
            + lambd * (c.sum() - diagonal.sum()),
            "The loss is a sum, not a mean.": right.invariance / 5 + lambd * right.redundancy / 20,
        },
        "the loss",
    )


@checker
def find_twins(learner) -> None:
    """f(z_a, z_b) -> (N,) row numbers: for each row of z_a, the most similar (cosine) row of z_b."""
    torch.manual_seed(5)
    z_a = torch.randn(30, 8)
    order = torch.randperm(30)
    sizes = 0.2 + 3 * torch.rand(30, 1)
    z_b = ((z_a + 0.3 * torch.randn(30, 8)) * sizes)[order]
    similarity = F.normalize(z_a, dim=1) @ F.normalize(z_b, dim=1).T
    right = similarity.argmax(1)
    answer = attempt(learner, z_a, z_b)
    if torch.is_tensor(answer) and answer.dtype.is_floating_point:
        raise NotRight("Return row numbers (argmax), not similarities.")
    compare(
        answer,
        right,
        {
            "You searched among the rows of z_a for those of z_b: the other way round.": similarity.argmax(
                0
            ),
            "Long vectors win: divide by the lengths, so that only the direction counts.": (
                z_a @ z_b.T
            ).argmax(1),
            "You took the least similar row.": similarity.argmin(1),
            "Every row found itself: compare z_a with z_b, not with z_a.": torch.arange(30),
            "You used the distance. With rows of different length use the cosine.": torch.cdist(
                z_a, z_b
            ).argmin(1),
        },
        "the row numbers",
    )
