"""Checkers for notebook 04, the cross-correlation matrix."""

from collections.abc import Callable

import torch
from sklearn.neighbors import KNeighborsRegressor
from torch import Tensor

from barlow_edu.teaching.checks.base import attempt, checker, judge, tell
from barlow_edu.teaching.checks.worlds import (
    CORRELATION,
    centred,
    correlation,
    embedding,
    off_diagonal,
    views,
)


@checker
def cross_correlation(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check a function (N, D), (N, D) -> (D, D) that computes C from raw embeddings."""
    worlds = [views(7, 4, seed=30), views(12, 5, seed=31)]
    judge(function, worlds, correlation, {
        "You mixed N − 1 and N: std() takes N − 1. Set correction=0.": {"scale": lambda z: centred(z) / z.std(0)},
        "You mixed N and N − 1: the deviations divide by N. So must C.": lambda a, b: correlation(a, b, n=len(a) - 1),
    } | CORRELATION, "C")  # fmt: skip


@checker
def expected_redundancy(function: Callable[[int, int], float]) -> None:
    """Check a function (batch size, D) -> mean of Σ_{i≠j} C_ij² over unrelated dimensions."""
    worlds = [(11, 5), (257, 64), (2048, 8192)]  # the last is too large to be tried out
    judge(function, worlds, lambda n, d: d * (d - 1) / (n - 1), {
        "You divided by N. The mean of one square is 1 / (N − 1).": lambda n, d: d * (d - 1) / n,
        "You counted all D² entries. The D on the diagonal do not belong to the sum.": lambda n, d: d * d / (n - 1),
        "You counted half of the entries. Both (i, j) and (j, i) count.": lambda n, d: d * (d - 1) / 2 / (n - 1),
        "You counted each dimension once. There are D (D − 1) places off the diagonal.": lambda n, d: d / (n - 1),
        "This is the mean of a single square. Multiply by the places off the diagonal.": lambda n, d: 1 / (n - 1),
        "You added magnitudes, 1 / √(N − 1) each. Add their squares.": lambda n, d: d * (d - 1) / (n - 1) ** 0.5,
        "N and D have changed places: N is the batch size, the first argument.": lambda n, d: n * (n - 1) / (d - 1),
    }, "At N = {0}, D = {1}, it")  # fmt: skip


@checker
def fool_c(function: Callable[[int], Tensor]) -> None:
    """Check a function: N -> an embedding (N, D) whose C is the identity, and which repeats itself all the same.

    C with itself may differ from I by chance; some dimension must be guessed from the others, by neighbours.
    """
    z = embedding(attempt(function, 3000), "N rows and 2 to 8 columns, for N = 3000", 3000)
    tell({f"Return N rows and 2 to 8 columns, not {z.shape[1]}.": not 2 <= z.shape[1] <= 8})
    seen = off_diagonal(correlation(z, z)).abs().max().item()
    sees = f"C sees it: an entry off the diagonal is {seen:.2f} in size. Up to 0.1 may be chance."
    tell({sees: seen > 0.1})
    best = 0.0
    for j in range(z.shape[1]):
        # by neighbours, who see a bent relation that no correlation shows
        others = torch.cat([z[:, :j], z[:, j + 1 :]], 1)
        guess = KNeighborsRegressor(5).fit(others[:2000], z[:2000, j])
        best = max(best, guess.score(others[2000:], z[2000:, j]))
    tell({
        f"C is fooled, but no dimension can be read off the others: the best guess explains {best:.0%} of one, "
        "80 % is asked for. Make one from the others, with something bent in between.": best < 0.8,
    })  # fmt: skip
