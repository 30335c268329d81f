"""Checkers for notebook 04, the cross-correlation matrix."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from barlow_edu.teaching.checks.base import NotRight, attempt, checker, judge, tell
from barlow_edu.teaching.checks.mistakes import CORRELATION
from barlow_edu.teaching.checks.worlds import correlation, normal, views

COPIES = {(0, 3): "shifted and scaled", (1, 4): "turned round", (0, 6): "scaled", (3, 6): "scaled"}
RELATED = (2, 5)  # correlation about 0.95: alike, but no copies


@checker
def cross_correlation(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check a function (N, D), (N, D) -> (D, D) that computes C from raw embeddings."""
    worlds = [views(7, 4, seed=30), views(12, 5, seed=31)]
    judge(function, worlds, correlation, _CORRELATION, "C")


_CORRELATION = {
    "You mixed N − 1 and N: std() divides by N − 1 unless you say correction=0.":
        lambda a, b: correlation(a, b) * (len(a) - 1) / len(a),
    "You mixed N and N − 1: the deviations divide by N, so the product must too.":
        lambda a, b: correlation(a, b) * len(a) / (len(a) - 1),
} | CORRELATION  # fmt: skip


@checker
def expected_redundancy(function: Callable[[int, int], float]) -> None:
    """Check a function (batch size, D) -> mean of Σ_{i≠j} C_ij² over unrelated dimensions."""
    worlds = [(11, 5), (257, 64), (2048, 8192)]
    right = "At N = {0}, D = {1}, it"
    judge(function, worlds, lambda n, d: d * (d - 1) / (n - 1), _EXPECTED, right)


_EXPECTED = {
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
}  # fmt: skip


@checker
def find_copies(function: Callable[[Tensor], list[tuple[int, int]]]) -> None:
    """Check a function (N, D) -> pairs (i, j), i < j, of dimensions with correlation +1 or −1."""
    z = _wasteful()
    pairs = _to_pairs(attempt(function, z))
    tell({
        "Your list holds pairs (i, i). Every dimension is its own copy: leave out the diagonal.":
            any(i == j for i, j in pairs),
        "Your list holds a pair (i, j) with i > j. C of one view is symmetric: keep i < j only.":
            any(i > j for i, j in pairs),
        "Your list holds a pair twice. Each pair belongs there once.": len(set(pairs)) < len(pairs),
    })  # fmt: skip
    _explain_missing(set(COPIES) - set(pairs))
    _explain_extra(set(pairs) - set(COPIES))
    order = [7, 1, 2, 5, 4, 0, 3]  # a second embedding: other places, and one dimension less
    expected = {(5, 6), (1, 4)}
    pairs = _to_pairs(attempt(function, z[:, order]))
    by_heart = (
        "Right for one embedding, wrong for another. Look the copies up in what you are given."
    )
    tell({by_heart: sorted(pairs) != sorted(expected)})


def _explain_missing(missing: set[tuple[int, int]]) -> None:
    if not missing:
        return
    first = min(missing)
    tell({
        f"You found no copy, but dimensions {first} are one. Rounding leaves a correlation of "
        "0.9999..., never quite 1: compare with 0.999.": len(missing) == len(COPIES),
        f"You missed {first}: one is the other with a minus sign, correlation −1. Look at the magnitude.":
            {COPIES[pair] for pair in missing} == {"turned round"},
        f"You missed {first}, which is {COPIES[first]}. Compare correlations, not raw numbers or "
        "covariances, and with 0.999: rounding may leave 0.9999..., not 1.": True,
    })  # fmt: skip


def _explain_extra(extra: set[tuple[int, int]]) -> None:
    tell({
        f"{RELATED} is strongly related (0.95), but no copy: a copy is 0.999 or more in magnitude.":
            extra == {RELATED},
        f"{min(extra, default=())} is no copy. Your threshold is too low: chance alone gives entries up to 0.3 here.":
            bool(extra),
    })  # fmt: skip


def _to_pairs(answer: object) -> list[tuple[int, int]]:
    try:
        return [(int(i), int(j)) for i, j in answer]
    except (TypeError, ValueError) as error:
        raise NotRight(
            f"Return a list of pairs (i, j), such as [(0, 3)], not {type(answer).__name__}."
        ) from error


def _wasteful() -> Tensor:
    """An embedding (60, 8), float32, with the pairs of COPIES, and RELATED that only look like one."""
    z = normal(60, 8, seed=31).float()
    z[:, 3] = 40 * z[:, 0] + 7
    z[:, 4] = -z[:, 1]
    z[:, 6] = 0.2 * z[:, 0]
    z[:, 5] = z[:, 2] + 0.3 * z[:, 5]
    return z
