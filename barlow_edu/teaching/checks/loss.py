"""Checkers for notebook 05, the loss from scratch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from barlow_edu.teaching.checks.base import NotRight, attempt, checker, follow, judge
from barlow_edu.teaching.checks.worlds import (
    correlation,
    invariance,
    matrix,
    off_diagonal,
    redundancy,
    standard,
    views,
)

CHECKERS = ("loss_from_c", "gradient_of_c", "gram_redundancy")


def _worlds() -> list[tuple[Tensor, float]]:
    """A C and a λ: a second λ, and a second size, for who holds one by heart."""
    return [(matrix(5, seed=40), 0.07), (matrix(7, seed=41), 0.3)]


@checker
def loss_from_c(function: Callable[[Tensor, float], Tensor]) -> None:
    """Check a function (D, D), lambd -> loss that autograd can follow."""
    judge(function, _worlds(), _loss, _LOSS, "The loss")
    follow(function, _worlds()[0], _loss)


def _loss(c: Tensor, lambd: float) -> Tensor:
    return invariance(c) + lambd * redundancy(c)


def _upper(c: Tensor) -> Tensor:
    return torch.triu(c, 1).square().sum()


_LOSS = {
    "This is the invariance alone: the redundancy is missing.": lambda c, w: invariance(c),
    "This is the redundancy alone, times λ: the invariance is missing.": lambda c, w: w * redundancy(c),
    "λ is missing: the redundancy counts λ times.": lambda c, w: _loss(c, 1),
    "λ belongs to the redundancy, not to the invariance.": lambda c, w: w * invariance(c) + redundancy(c),
    "You multiplied the whole loss by λ. It belongs to the redundancy only.": lambda c, w: w * _loss(c, 1),
    "λ was squared with the entries: it stands before the square, not inside it.": lambda c, w: _loss(c, w**2),
    "The redundancy holds the diagonal too. Leave out the entries with i = j.":
        lambda c, w: invariance(c) + w * c.square().sum(),
    "You counted one side of the diagonal only. C is not symmetric: both sides count.":
        lambda c, w: invariance(c) + w * _upper(c),
    "You doubled the upper side of the diagonal. C is not symmetric: add both sides themselves.":
        lambda c, w: invariance(c) + 2 * w * _upper(c),
    "The target on the diagonal is 1, not 0: (1 − C_ii)².":
        lambda c, w: c.diagonal().square().sum() + w * redundancy(c),
    "You added magnitudes. The loss adds squares.":
        lambda c, w: (1 - c.diagonal()).abs().sum() + w * off_diagonal(c).abs().sum(),
    "The squares are missing on the diagonal: (1 − C_ii)².":
        lambda c, w: (1 - c.diagonal()).sum() + w * redundancy(c),
    "The squares are missing off the diagonal: C_ij².": lambda c, w: invariance(c) + w * off_diagonal(c).sum(),
    "You took the trace before you squared. Square 1 − C_ii for each i, then add.":
        lambda c, w: (1 - c.trace()) ** 2 + w * redundancy(c),
    "You added up 1 − C_ii before you squared. Square each, then add.":
        lambda c, w: (1 - c.diagonal()).sum() ** 2 + w * redundancy(c),
    "You added up the entries off the diagonal before you squared. Square each, then add.":
        lambda c, w: invariance(c) + w * off_diagonal(c).sum() ** 2,
    "You took means. The paper's loss is made of sums.":
        lambda c, w: (1 - c.diagonal()).square().mean() + w * off_diagonal(c).square().mean(),
    "You took means over all D² entries. The paper's loss is made of sums.": lambda c, w: _loss(c, w) / c.numel(),
    "You took the mean on the diagonal. The paper's loss is made of sums.":
        lambda c, w: invariance(c) / len(c) + w * redundancy(c),
    "You took the mean off the diagonal. The paper's loss is made of sums.":
        lambda c, w: invariance(c) + w * off_diagonal(c).square().mean(),
}  # fmt: skip


@checker
def gradient_of_c(function: Callable[[Tensor, float], Tensor]) -> None:
    """Check a function (D, D), lambd -> dL/dC (D, D)."""
    judge(function, _worlds(), _gradient, _GRADIENT, "dL/dC")


def _on(c: Tensor) -> Tensor:
    return (c.diagonal() - 1).diag()


def _off(c: Tensor) -> Tensor:
    return c - c.diagonal().diag()


def _gradient(c: Tensor, lambd: float) -> Tensor:
    return 2 * _on(c) + 2 * lambd * _off(c)


_GRADIENT = {
    "The factor 2 is missing: the derivative of a square is twice what is squared.": lambda c, w: _gradient(c, w) / 2,
    "The sign is turned round: this is the step that lowers the loss, minus the gradient.":
        lambda c, w: -_gradient(c, w),
    "Off the diagonal the sign is right, on it not: d(1 − C)²/dC = −2 (1 − C).":
        lambda c, w: 2 * w * _off(c) - 2 * _on(c),
    "λ is missing: entries off the diagonal weigh λ.": lambda c, w: _gradient(c, 1),
    "λ belongs to the entries off the diagonal only. On the diagonal the weight is 1.":
        lambda c, w: w * _gradient(c, 1),
    "λ was squared: it stands before the square of the loss, not inside it.": lambda c, w: _gradient(c, w**2),
    "The weights have changed places: 1 belongs on the diagonal, λ off it.":
        lambda c, w: 2 * w * _on(c) + 2 * _off(c),
    "The entries off the diagonal are missing: redundancy has a gradient too.": lambda c, w: 2 * _on(c),
    "The diagonal is missing: invariance has a gradient too.": lambda c, w: 2 * w * _off(c),
    "On the diagonal the target is 1, not 0: differentiate (1 − C_ii)².":
        lambda c, w: 2 * c.diagonal().diag() + 2 * w * _off(c),
    "This is the transpose of the gradient: C is not symmetric.": lambda c, w: _gradient(c, w).T,
    "This is the gradient of means. The paper's loss is made of sums.":
        lambda c, w: 2 * _on(c) / len(c) + 2 * w * _off(c) / (c.numel() - len(c)),
}  # fmt: skip


@checker
def gram_redundancy(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check a function (N, D), (N, D) -> Σ_{i≠j} C_ij² that never holds a (D, D) tensor."""
    worlds = [views(6, 23, seed=42), views(9, 31, seed=43)]
    judge(function, worlds, lambda a, b: redundancy(correlation(a, b)), _GRAM, "The redundancy")
    with _ShapeWatch((23, 23)) as watch:
        attempt(function, *worlds[0])
    if watch.seen:
        raise NotRight(
            "The value is right, but a D x D matrix was built on the way. Use a @ a.T and b @ b.T, (N, N) each."
        )


class _ShapeWatch(TorchFunctionMode):
    """Notes whether any torch function returns a tensor of the forbidden shape."""

    def __init__(self, forbidden: tuple[int, ...]) -> None:
        super().__init__()
        self.forbidden, self.seen = forbidden, False

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if torch.is_tensor(result) and tuple(result.shape[-2:]) == self.forbidden:
            self.seen = True
        return result


def _squares(a: Tensor, b: Tensor) -> Tensor:
    """Σ C_ij², diagonal and all."""
    return correlation(a, b).square().sum()


def _diagonal(a: Tensor, b: Tensor) -> Tensor:
    return correlation(a, b).diagonal().square().sum()


def _grams(a: Tensor, b: Tensor, dim: int = 0) -> tuple[Tensor, Tensor]:
    a, b = standard(a, dim), standard(b, dim)
    return a @ a.T / len(a), b @ b.T / len(b)


_GRAM = {
    "This is the sum of all squares. Take away those on the diagonal.": _squares,
    "This is the sum of all squares of AᵀB. Divide by N², and take away the diagonal's.":
        lambda a, b: _squares(a, b) * len(a) ** 2,
    "The product was divided by N. Squared it is N²: C = AᵀB / N.":
        lambda a, b: _squares(a, b) * len(a) - _diagonal(a, b),
    "You forgot to divide the Gram part by N²: C = AᵀB / N.":
        lambda a, b: _squares(a, b) * len(a) ** 2 - _diagonal(a, b),
    "You divided by D². The sum in C runs over images: C = AᵀB / N.":
        lambda a, b: _squares(a, b) * len(a) ** 2 / a.shape[1] ** 2 - _diagonal(a, b),
    "The diagonal was not squared before you took it away.": lambda a, b: _squares(a, b) - correlation(a, b).trace(),
    "You squared the trace. Square each C_ii, then add.":
        lambda a, b: _squares(a, b) - correlation(a, b).trace() ** 2,
    "You took away D, as if every C_ii were 1. Take away the sum of C_ii².": lambda a, b: _squares(a, b) - a.shape[1],
    "You took the mean over the D (D − 1) entries. The redundancy is their sum.":
        lambda a, b: off_diagonal(correlation(a, b)).square().mean(),
    "You used view A twice. The identity pairs the Gram matrix of A with that of B.":
        lambda a, b: _grams(a, a)[0].square().sum() - _diagonal(a, b),
    "You multiplied the Gram matrices as matrices. Multiply them entry by entry, then add.":
        lambda a, b: (_grams(a, b)[0] @ _grams(a, b)[1]).sum() - _diagonal(a, b),
    "You standardised along the features (dim 1). Take mean and std over the batch: dim 0.":
        lambda a, b: (
            torch.mul(*_grams(a, b, 1)).sum() - (standard(a, 1) * standard(b, 1)).mean(0).square().sum()
        ),
    "This is the redundancy times λ. The plain sum is asked for, without λ.":
        lambda a, b: 0.005 * redundancy(correlation(a, b)),
}  # fmt: skip
