"""Checkers for notebook 04, the loss from scratch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from barlow_edu.teaching.checks.base import NotRight, attempt, checker, compare

CHECKERS = ("loss_from_c", "gradient_of_c", "gram_redundancy")

LAMBD = 0.05


@checker
def loss_from_c(function: Callable[[Tensor, float], Tensor]) -> None:
    """Check a function (D, D), lambd -> loss that autograd can follow."""
    c = _correlations()
    on, off = (1 - c.diagonal()).square().sum(), _off_diagonal(c).square().sum()
    right = on + LAMBD * off
    compare(attempt(function, c, LAMBD), right, _loss_mistakes(c, on, off), what="The loss")
    tracked = c.clone().requires_grad_()
    loss = attempt(function, tracked, LAMBD)
    if not (torch.is_tensor(loss) and loss.requires_grad):
        raise NotRight(
            "The value is right, but autograd lost the way: leave out .item(), float(), .detach() and numpy."
        )


@checker
def gradient_of_c(function: Callable[[Tensor, float], Tensor]) -> None:
    """Check a function (D, D), lambd -> dL/dC (D, D)."""
    c = _correlations()
    identity = torch.eye(len(c), dtype=c.dtype)
    off = c * (1 - identity)
    on = (c - identity) * identity
    right = 2 * on + 2 * LAMBD * off
    mistakes = {
        "The factor 2 is missing: the derivative of a square is twice what is squared.": right / 2,
        "The sign is turned round: this is the step that lowers the loss, minus the gradient.": -right,
        "Off the diagonal the sign is right, on it not: d(1 − C)²/dC = −2 (1 − C).": (
            2 * LAMBD * off - 2 * on
        ),
        "λ is missing: entries off the diagonal weigh λ.": 2 * on + 2 * off,
        "λ belongs to the entries off the diagonal only. On the diagonal the weight is 1.": LAMBD
        * 2
        * (on + off),
        "The weights have changed places: 1 belongs on the diagonal, λ off it.": (
            2 * LAMBD * on + 2 * off
        ),
        "The entries off the diagonal are missing: redundancy has a gradient too.": 2 * on,
        "The diagonal is missing: invariance has a gradient too.": 2 * LAMBD * off,
        "On the diagonal the target is 1, not 0: differentiate (1 − C_ii)².": (
            2 * c * identity + 2 * LAMBD * off
        ),
        "This is the transpose of the gradient: C is not symmetric.": right.T,
    }
    compare(attempt(function, c, LAMBD), right, mistakes, what="dL/dC")


@checker
def gram_redundancy(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check a function (N, D), (N, D) -> Σ_{i≠j} C_ij² that never holds a (D, D) tensor."""
    z_a, z_b = _raw_views(6, 23)
    with _ShapeWatch((23, 23)) as watch:
        answer = attempt(function, z_a, z_b)
    a, b = _standardised(z_a), _standardised(z_b)
    c = a.T @ b / len(a)
    right = _off_diagonal(c).square().sum()
    compare(answer, right, _gram_mistakes(a, b, c), what="The redundancy")
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


def _loss_mistakes(c: Tensor, on: Tensor, off: Tensor) -> dict[str, Tensor]:
    d = len(c)
    diagonal = c.diagonal().square().sum()
    upper = torch.triu(c, 1).square().sum()
    return {
        "This is the invariance alone: the redundancy is missing.": on,
        "This is the redundancy alone, times λ: the invariance is missing.": LAMBD * off,
        "λ is missing: the redundancy counts λ times.": on + off,
        "λ belongs to the redundancy, not to the invariance.": LAMBD * on + off,
        "You multiplied the whole loss by λ. It belongs to the redundancy only.": LAMBD
        * (on + off),
        "The redundancy holds the diagonal too. Leave out the entries with i = j.": (
            on + LAMBD * (off + diagonal)
        ),
        "You counted one side of the diagonal only. C is not symmetric: both sides count.": (
            on + LAMBD * upper
        ),
        "You doubled the upper side of the diagonal. C is not symmetric: add both sides themselves.": (
            on + 2 * LAMBD * upper
        ),
        "The target on the diagonal is 1, not 0: (1 − C_ii)².": diagonal + LAMBD * off,
        "You added magnitudes. The loss adds squares.": (
            (1 - c.diagonal()).abs().sum() + LAMBD * _off_diagonal(c).abs().sum()
        ),
        "The squares are missing on the diagonal: (1 − C_ii)².": (
            (1 - c.diagonal()).sum() + LAMBD * off
        ),
        "You took means. The paper's loss is made of sums.": on / d + LAMBD * off / (d * (d - 1)),
        "You took means over all D² entries. The paper's loss is made of sums.": (
            (on + LAMBD * off) / d**2
        ),
    }


def _gram_mistakes(a: Tensor, b: Tensor, c: Tensor) -> dict[str, Tensor]:
    n, d = a.shape
    everything, diagonal = c.square().sum(), c.diagonal().square().sum()
    off = everything - diagonal
    return {
        "This is the sum of all squares. Take away those on the diagonal.": everything,
        "This is the sum of all squares of AᵀB. Divide by N², and take away the diagonal's.": (
            everything * n**2
        ),
        "The product was divided by N. Squared it is N²: C = AᵀB / N.": everything * n - diagonal,
        "You forgot to divide the Gram part by N²: C = AᵀB / N.": everything * n**2 - diagonal,
        "You divided by D². The sum in C runs over images: C = AᵀB / N.": (
            everything * n**2 / d**2 - diagonal
        ),
        "The diagonal was not squared before you took it away.": everything - c.diagonal().sum(),
        "You took away D, as if every C_ii were 1. Take away the sum of C_ii².": everything - d,
        "You used view A twice. The identity pairs the Gram matrix of A with that of B.": (
            (a @ a.T / n).square().sum() - diagonal
        ),
        "You multiplied the Gram matrices as matrices. Multiply them entry by entry, then add.": (
            ((a @ a.T) @ (b @ b.T)).sum() / n**2 - diagonal
        ),
        "This is the redundancy times λ. The plain sum is asked for, without λ.": 0.005 * off,
    }


def _off_diagonal(c: Tensor) -> Tensor:
    return c[~torch.eye(len(c), dtype=torch.bool)]


def _standardised(z: Tensor) -> Tensor:
    return (z - z.mean(0)) / z.std(0, correction=0)


def _correlations() -> Tensor:
    """A (5, 5) C, not symmetric, of two related views."""
    z_a, z_b = _raw_views(12, 5)
    return _standardised(z_a).T @ _standardised(z_b) / len(z_a)


def _raw_views(n: int, d: int) -> tuple[Tensor, Tensor]:
    """Two related views (n, d), neither centred nor scaled."""
    generator = torch.Generator().manual_seed(40)
    z_a, noise = torch.randn(2, n, d, generator=generator, dtype=torch.float64)
    return 3 * z_a + 1, z_a + 0.8 * noise - 2
