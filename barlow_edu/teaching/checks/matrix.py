"""Checkers for notebook 03, the cross-correlation matrix."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from barlow_edu.teaching.checks.base import NotRight, attempt, checker, compare

CHECKERS = ("cross_correlation", "expected_redundancy", "find_copies")

COPIES = {(0, 3): "shifted and scaled", (1, 4): "turned round", (0, 6): "scaled", (3, 6): "scaled"}
RELATED = (2, 5)  # correlation about 0.95: alike, but no copies


@checker
def cross_correlation(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check a function (N, D), (N, D) -> (D, D) that computes C from raw embeddings."""
    z_a, z_b = _raw_views(7, 4)
    answer = attempt(function, z_a, z_b)
    if getattr(answer, "shape", None) == (7, 7):
        raise NotRight(
            "This compares images with images, (N, N). C is (D, D): transpose the first table, a.T @ b."
        )
    compare(
        answer,
        _correlate(_centre(z_a), _centre(z_b)),
        _correlation_mistakes(z_a, z_b),
        what="C",
    )


@checker
def expected_redundancy(function: Callable[[int, int], float]) -> None:
    """Check a function (batch size, D) -> mean of Σ_{i≠j} C_ij² over unrelated dimensions."""
    for n, d in [(11, 5), (257, 64), (2048, 8192)]:
        mistakes = {
            "You divided by N. The mean of one square is 1 / (N − 1).": d * (d - 1) / n,
            "You counted all D² entries. The D on the diagonal do not belong to the sum.": d
            * d
            / (n - 1),
            "You counted half of the entries. C is not symmetric: (i, j) and (j, i) both count.": (
                d * (d - 1) / 2 / (n - 1)
            ),
            "You counted each dimension once. There are D (D − 1) places off the diagonal.": d
            / (n - 1),
            "This is the mean of a single square. Multiply by the number of places off the diagonal.": (
                1 / (n - 1)
            ),
            "You added magnitudes, 1 / √(N − 1) each. The sum is over squares, 1 / (N − 1) each.": (
                d * (d - 1) / (n - 1) ** 0.5
            ),
            "N and D have changed places: N is the batch size, the first argument.": (
                n * (n - 1) / (d - 1)
            ),
        }
        compare(
            attempt(function, n, d), d * (d - 1) / (n - 1), mistakes, f"At N = {n}, D = {d}, it"
        )


@checker
def find_copies(function: Callable[[Tensor], list[tuple[int, int]]]) -> None:
    """Check a function (N, D) -> pairs (i, j), i < j, of dimensions with correlation +1 or −1."""
    pairs = _to_pairs(attempt(function, _wasteful()))
    if any(i == j for i, j in pairs):
        raise NotRight(
            "Your list holds pairs (i, i). Every dimension is its own copy: leave out the diagonal."
        )
    if any(i > j for i, j in pairs):
        raise NotRight(
            "Your list holds a pair (i, j) with i > j. C of one view is symmetric: keep i < j only."
        )
    if len(set(pairs)) < len(pairs):
        raise NotRight("Your list holds a pair twice. Each pair belongs there once.")
    _explain_missing(set(COPIES) - set(pairs))
    _explain_extra(set(pairs) - set(COPIES))


def _explain_missing(missing: set[tuple[int, int]]) -> None:
    if not missing:
        return
    first = min(missing)
    if len(missing) == len(COPIES):
        raise NotRight(
            f"You found no copy, but dimensions {first} are one. Rounding leaves a correlation of "
            "0.9999..., never quite 1: compare with 0.999."
        )
    if {COPIES[pair] for pair in missing} == {"turned round"}:
        raise NotRight(
            f"You missed {first}: one is the other with a minus sign, correlation −1. Look at the magnitude."
        )
    raise NotRight(
        f"You missed {first}, which is {COPIES[first]}. Compare correlations, not raw numbers or "
        "covariances, and with 0.999: rounding may leave 0.9999..., not 1."
    )


def _explain_extra(extra: set[tuple[int, int]]) -> None:
    if extra == {RELATED}:
        raise NotRight(
            f"{RELATED} is strongly related (0.95), but no copy: a copy is 0.999 or more in magnitude."
        )
    if extra:
        raise NotRight(
            f"{min(extra)} is no copy. Your threshold is too low: chance alone gives entries up to 0.3 here."
        )


def _to_pairs(answer: object) -> list[tuple[int, int]]:
    try:
        return [(int(i), int(j)) for i, j in answer]
    except (TypeError, ValueError) as error:
        raise NotRight(
            f"Return a list of pairs (i, j), such as [(0, 3)], not {type(answer).__name__}."
        ) from error


def _wasteful() -> Tensor:
    """An embedding (60, 8) with the pairs of COPIES, and RELATED that only look like one."""
    generator = torch.Generator().manual_seed(31)
    z = torch.randn(60, 8, generator=generator)
    z[:, 3] = 40 * z[:, 0] + 7
    z[:, 4] = -z[:, 1]
    z[:, 6] = 0.2 * z[:, 0]
    z[:, 5] = z[:, 2] + 0.3 * z[:, 5]
    return z


def _raw_views(n: int, d: int) -> tuple[Tensor, Tensor]:
    """Two related views (n, d), neither centred nor scaled, no two dimensions alike."""
    generator = torch.Generator().manual_seed(30)
    z_a, noise = torch.randn(2, n, d, generator=generator, dtype=torch.float64)
    scale, shift = torch.linspace(0.5, 3, d), torch.linspace(2, -1, d)
    return z_a * scale + shift, (z_a + 0.7 * noise) / scale - 2 * shift


def _centre(z: Tensor, dim: int = 0) -> Tensor:
    return z - z.mean(dim, keepdim=True)


def _correlate(a: Tensor, b: Tensor) -> Tensor:
    """Cosines of the columns of ``a`` with those of ``b``: correlations if both are centred."""
    return (a / a.norm(dim=0)).T @ (b / b.norm(dim=0))


def _correlation_mistakes(z_a: Tensor, z_b: Tensor) -> dict[str, Tensor]:
    n, d = z_a.shape
    a, b = _centre(z_a), _centre(z_b)
    c = _correlate(a, b)
    rows = [x / x.std(1, keepdim=True, correction=0) for x in (_centre(z_a, 1), _centre(z_b, 1))]
    return {
        "This is the covariance: you centred, but did not divide by the standard deviations.": a.T
        @ b
        / n,
        "This is the covariance with N − 1: divide by the standard deviations too.": a.T
        @ b
        / (n - 1),
        "This is the cosine: you scaled, but did not subtract the mean of each dimension.": (
            _correlate(z_a, z_b)
        ),
        "You did not subtract the means before you divided by the standard deviations.": (
            (z_a / z_a.std(0, correction=0)).T @ (z_b / z_b.std(0, correction=0)) / n
        ),
        "You mixed N − 1 and N: std() divides by N − 1 unless you say correction=0.": c
        * (n - 1)
        / n,
        "You mixed N and N − 1: the deviations divide by N, so the product must too.": c
        * n
        / (n - 1),
        "The sum over the batch is right. Divide it by N, the number of images.": c * n,
        "You divided by D. C is an average over the images: divide by N, len(z_a).": c * n / d,
        "You standardised along the features (dim 1). Take mean and std over the batch: dim 0.": (
            rows[0].T @ rows[1] / n
        ),
        "This is the transpose of C: row i belongs to view A, column j to view B.": c.T,
        "You made C symmetric, but C is symmetric only when the views are equal: C_ij and C_ji compare "
        "different columns.": (c + c.T) / 2,
        "This correlates view A with itself. The second table must be view B.": _correlate(a, a),
        "This correlates view B with itself. The first table must be view A.": _correlate(b, b),
    }
