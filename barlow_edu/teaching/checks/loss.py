"""Checkers for notebook 05, the loss from scratch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from barlow_edu.teaching.checks.base import attempt, checker, follow, judge, tell
from barlow_edu.teaching.checks.mistakes import ALONG_FEATURES, LOSS
from barlow_edu.teaching.checks.worlds import (
    correlation,
    loss,
    matrix,
    off_diagonal,
    redundancy,
    standard,
    views,
)


def _worlds() -> list[tuple[Tensor, float]]:
    """A C and a λ: a second λ, and a second size, for who holds one by heart."""
    return [(matrix(5, seed=40), 0.07), (matrix(7, seed=41), 0.3)]


@checker
def loss_from_c(function: Callable[[Tensor, float], Tensor]) -> None:
    """Check a function (D, D), lambd -> loss that autograd can follow."""
    judge(function, _worlds(), loss, LOSS, "The loss")
    follow(function, _worlds()[0], loss)


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
def gradient_of_z(function: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """Check a function (N, D), (N, D), lambd -> dL/dz_a (N, D), through the standardisation."""
    worlds = [(*views(9, 4, seed=44), 0.07), (*views(6, 5, seed=45), 0.3)]
    judge(function, worlds, _through, _THROUGH, "dL/dz_a")


def _through(
    z_a: Tensor, z_b: Tensor, lambd: float, cut=True, deviation=None, n=None, turned=False
) -> Tensor:
    a, b = standard(z_a), standard(z_b)
    c = a.T @ b / len(a)
    g = _gradient(c, lambd)
    pulled = b @ (g if turned else g.T) - cut * a * (g * c).sum(1)
    return pulled / ((n or len(a)) * (z_a.std(0, correction=0) if deviation is None else deviation))


_THROUGH = {
    "This is dL/dA, step 2. Go on through the standardisation.": lambda a, b, w: _through(a, b, w, False, 1),
    "The part along A_i is still in: subtract A_i times the sum of G_ij C_ij over j.":
        lambda a, b, w: _through(a, b, w, False),
    "σ is missing: divide each column by its standard deviation.": lambda a, b, w: _through(a, b, w, deviation=1),
    "You divided by the deviations of view B. The gradient of z_a has those of view A.":
        lambda a, b, w: _through(a, b, w, deviation=b.std(0, correction=0)),
    "This σ divides by N − 1. Use correction=0, as in C.": lambda a, b, w: _through(a, b, w, deviation=a.std(0)),
    "N is missing: C is an average over the batch.": lambda a, b, w: _through(a, b, w, n=1),
    "G has to be transposed: row i of G belongs to dimension i of view A.":
        lambda a, b, w: _through(a, b, w, turned=True),
    "The sign is turned round: this is the step that lowers the loss, minus the gradient.":
        lambda a, b, w: -_through(a, b, w),
    "λ is missing: entries of G off the diagonal weigh λ.": lambda a, b, w: _through(a, b, 1),
    "This is the gradient of view B. The one of view A is asked for.": lambda a, b, w: _through(b, a, w),
}  # fmt: skip


@checker
def gram_redundancy(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check a function (N, D), (N, D) -> Σ_{i≠j} C_ij² that never holds a (D, D) tensor."""
    worlds = [views(6, 23, seed=42), views(9, 31, seed=43)]
    judge(function, worlds, lambda a, b: redundancy(correlation(a, b)), _GRAM, "The redundancy")
    with _ShapeWatch((23, 23)) as watch:
        attempt(function, *worlds[0])
    built = "The value is right, but a D x D matrix was built on the way. Use a @ a.T and b @ b.T, (N, N) each."
    tell({built: watch.seen})


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
    ALONG_FEATURES: lambda a, b: (
        torch.mul(*_grams(a, b, 1)).sum() - (standard(a, 1) * standard(b, 1)).mean(0).square().sum()),
    "This is the redundancy times λ. The plain sum is asked for, without λ.":
        lambda a, b: 0.005 * redundancy(correlation(a, b)),
}  # fmt: skip
