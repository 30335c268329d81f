"""Checkers of notebooks 00, start here, and 04, the cross-correlation matrix."""

from collections.abc import Callable

import torch
from sklearn.neighbors import KNeighborsRegressor
from torch import Tensor

from barlow_edu.teaching.checks.base import attempt, checker, judge, tell
from barlow_edu.teaching.checks.worlds import (
    CORRELATION,
    centred,
    correlation,
    cosines,
    drawn,
    embedding,
    matrix,
    normal,
    off_diagonal,
    views,
)


def _rms(c: Tensor, entries=off_diagonal, mean=torch.mean, root=torch.sqrt) -> Tensor:
    return root(mean(entries(c).square()))


@checker
def off_diagonal_rms(learner) -> None:
    """f(c) -> root mean square of the entries off the diagonal; c is (D, D)."""
    worlds = [(matrix(6, seed=3).float(),), (matrix(9, seed=4).float(),)]
    judge(learner, worlds, _rms, {
        "That is the root mean square of all of C. Leave the diagonal out.": {"entries": lambda c: c},
        "You divided by D². Without the diagonal only D² − D entries remain: divide by their number.":
            {"entries": lambda c: c - c.diagonal().diag()},
        "That is the mean square. Take its root.": {"root": lambda x: x},
        "That is the sum of squares. Take their mean, then its root.": {"mean": torch.sum, "root": lambda x: x},
        "That is the root of the sum of squares. Take their mean before you take the root.": {"mean": torch.sum},
        "That is the plain mean: positive and negative entries cancel. Square them first.":
            lambda c: off_diagonal(c).mean(),
        "That is the mean absolute value. Square the entries, take the mean, and then its root.":
            lambda c: off_diagonal(c).abs().mean(),
        "That is the standard deviation: it takes the mean away first. Square the entries as they are.":
            lambda c: off_diagonal(c).std(),
        "That is the diagonal. Look at everything else.": {"entries": torch.diagonal},
    }, "the off-diagonal size")  # fmt: skip


def _twins(n: int, d: int, seed: int) -> tuple[Tensor, Tensor]:
    """Embeddings (n, d), float32, and their twins in another order; the lengths vary."""
    z, noise = (normal(2, n, d, seed=seed) * torch.linspace(0.4, 2.5, d)).float()
    generator = drawn(seed)
    lengths = 0.2 + 3 * torch.rand(n, 1, generator=generator)
    return z, ((z + 0.3 * noise) * lengths)[torch.randperm(n, generator=generator)]


@checker
def find_twins(learner) -> None:
    """f(z_a, z_b) -> (N,) row numbers: for each row of z_a, the most similar (cosine) row of z_b."""
    worlds = [_twins(30, 8, seed=5), _twins(21, 6, seed=6)]
    judge(learner, worlds, lambda a, b: cosines(a, b).argmax(1), {
        "Return row numbers (argmax), not similarities.": lambda a, b: torch.float32,
        "You searched among the rows of z_a for those of z_b. Search the other way round.":
            lambda a, b: cosines(a, b).argmax(0),
        "You divided every column by its length (dim 0). An embedding is a row: normalise along dim 1.":
            lambda a, b: cosines(a, b, dim=0).argmax(1),
        "Long vectors win: divide by the lengths, so that only the direction counts.":
            lambda a, b: (a @ b.T).argmax(1),
        "You took the least similar row.": lambda a, b: cosines(a, b).argmin(1),
        "Every row found itself: compare z_a with z_b, not with z_a.": lambda a, b: torch.arange(len(a)),
        "You used the distance. The rows differ in length, so use the cosine.":
            lambda a, b: torch.cdist(a, b).argmin(1),
    }, "the row numbers")  # fmt: skip


@checker
def cross_correlation(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check a function (N, D), (N, D) -> (D, D) that computes C from raw embeddings."""
    worlds = [views(7, 4, seed=30), views(12, 5, seed=31)]
    judge(function, worlds, correlation, {
        "You mixed N − 1 and N: std() divides by N − 1 unless you say correction=0.":
            {"scale": lambda z: centred(z) / z.std(0)},
        "You mixed N and N − 1: the deviations divide by N, so the product must, too.":
            lambda a, b: correlation(a, b, n=len(a) - 1),
    } | CORRELATION, "C")  # fmt: skip


@checker
def expected_redundancy(function: Callable[[int, int], float]) -> None:
    """Check a function (batch size, D) -> mean of Σ_{i≠j} C_ij² over unrelated dimensions."""
    worlds = [(11, 5), (257, 64), (2048, 8192)]  # the last is too large to be tried out
    judge(function, worlds, lambda n, d: d * (d - 1) / (n - 1), {
        "You divided by N. The mean of one square is 1 / (N − 1).": lambda n, d: d * (d - 1) / n,
        "You counted all D² entries. The D on the diagonal do not belong to the sum.": lambda n, d: d * d / (n - 1),
        "You counted half of the entries. C is not symmetric: (i, j) and (j, i) both count.":
            lambda n, d: d * (d - 1) / 2 / (n - 1),
        "You counted each dimension once. There are D (D − 1) places off the diagonal.": lambda n, d: d / (n - 1),
        "This is the mean of a single square. Multiply by the number of places off the diagonal.":
            lambda n, d: 1 / (n - 1),
        "You added magnitudes, 1 / √(N − 1) each. The sum is over squares, 1 / (N − 1) each.":
            lambda n, d: d * (d - 1) / (n - 1) ** 0.5,
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
