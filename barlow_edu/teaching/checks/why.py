"""Checkers for notebook 13, why it works."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from barlow_edu.teaching.checks.base import NotRight, attempt, checker, compare

CHECKERS = ("log_det_series", "kernel_hsic", "slice_gap")


@checker
def log_det_series(function: Callable[[Tensor, int], Tensor]) -> None:
    """Check a function: correlation matrix (D, D), order -> Σ_{k ≤ order} (−1)^(k+1) tr(E^k) / k, E = R − I."""
    x = _normal(60, 4, seed=130) @ _normal(4, 4, seed=131)
    r = torch.corrcoef(x.T)
    r = torch.eye(4, dtype=r.dtype) + 0.6 * (r - torch.eye(4, dtype=r.dtype))
    e = r - torch.eye(4, dtype=r.dtype)
    for order in (3, 5, 2):  # at order 2 several mistakes look alike: tr E is 0
        answer = attempt(function, r, order)
        if getattr(answer, "shape", None) == r.shape:
            raise NotRight(
                "This is still a matrix. The logarithm of a determinant is a number: trace."
            )
        compare(answer, _series(e, order), _series_mistakes(r, e, order), f"Order {order}")


def _series(e: Tensor, order: int, sign: float = -1, first: int = 1, power: int = 1) -> Tensor:
    """Σ_k (sign)^(k+1) tr(E^k) / k^power, for k from ``first`` to ``order``."""
    terms = [
        sign ** (k + 1) * torch.linalg.matrix_power(e, k).trace() / k**power
        for k in range(first, order + 1)
    ]
    return sum(terms, torch.zeros((), dtype=e.dtype))


def _series_mistakes(r: Tensor, e: Tensor, order: int) -> dict[str, Tensor]:
    entrywise = sum((-1) ** (k + 1) * (e**k).trace() / k for k in range(1, order + 1))
    sums = sum((-1) ** (k + 1) * (e**k).sum() / k for k in range(1, order + 1))
    return {
        "E**k takes the power of each entry. The series needs the matrix product E @ E ... (on the "
        "diagonal of E stands 0, so your traces are all 0).": entrywise,
        "These are sums of entries to the power k. Take the trace of the matrix power.": sums,
        "The sign does not alternate: + E, − E²/2, + E³/3, ...": _series(e, order, sign=1),
        "The sign is turned: the logarithm of 1 + x begins with +x, and the second term is −x²/2.": (
            -_series(e, order)
        ),
        "The term of power k is divided by k. Yours are not.": _series(e, order, power=0),
        "You took powers of R. The series is in E = R − I, what is left of R beside the identity.": (
            _series(r, order)
        ),
        "One term is missing at the end: range(1, order) stops before order.": _series(
            e, order - 1
        ),
        "That is one term too many.": _series(e, order + 1),
        "This is the exact log-determinant. The exercise asks for its series, up to the given order.": (
            torch.logdet(r)
        ),
    }


@checker
def kernel_hsic(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check a function (N,), (N,) -> the mean of K̃ L̃, with centred Gaussian kernels of width 1."""
    x = _normal(30, seed=132)
    y = 0.7 * x**2 + _normal(30, seed=133) + 0.5
    answer = attempt(function, x, y)
    if torch.is_tensor(answer) and answer.shape == (30, 30):
        raise NotRight("This is still a matrix, one number a pair. Take the mean of all of them.")
    right = (_centred(_gauss(x)) * _centred(_gauss(y))).mean()
    compare(answer, right, _hsic_mistakes(x, y, right), "HSIC", tolerance=1e-5)


def _hsic_mistakes(x: Tensor, y: Tensor, right: Tensor) -> dict[str, Tensor]:
    n = len(x)
    k, m = _gauss(x), _gauss(y)
    squares = [(z[:, None] - z).square() for z in (x, y)]
    roots = [torch.exp(-s.sqrt() / 2) for s in squares]
    wide = [torch.exp(-s) for s in squares]
    straight = [z[:, None] * z for z in (x, y)]
    return {
        "The kernels are not centred: without that, two unrelated x and y would not give about 0.": (
            (k * m).mean()
        ),
        "You took the sum over all pairs. Take the mean: divide by N².": right * n**2,
        "You divided by (N − 1)², as a common estimator does. Here it is the mean, N².": (
            right * n**2 / (n - 1) ** 2
        ),
        "You divided by N, once. There are N² pairs.": right * n,
        "You centred the columns but not the rows: subtract both means, and add the mean of all.": (
            ((k - k.mean(0)) * (m - m.mean(0))).mean()
        ),
        "After subtracting both means the mean of all is subtracted twice: add it once.": (
            (
                (k - k.mean(0) - k.mean(1, keepdim=True))
                * (m - m.mean(0) - m.mean(1, keepdim=True))
            ).mean()
        ),
        "The distance is not squared: exp(−d²/2), not exp(−d/2).": _product(roots),
        "The 2 is missing: exp(−d²/2), not exp(−d²).": _product(wide),
        "With the straight kernel x xᵀ this is the squared covariance. It sees what C sees, no more.": (
            _product(straight)
        ),
        "These are distances. (Centred, they give distance covariance, a relative of HSIC.) Put them "
        "through exp(−d²/2) first.": _product([s.sqrt() for s in squares]),
        "These are squared distances, not yet put through exp(−d²/2).": _product(squares),
    }


@checker
def slice_gap(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check a function: one slice x (N,), frequencies t (T,) -> mean over t of |φ̂(t) − exp(−t²/2)|²."""
    x = _normal(25, seed=134).exp() - 1.2  # not symmetric: the sine matters
    t = torch.linspace(-3, 4, 9, dtype=torch.float64)
    answer = attempt(function, x, t)
    angle, target = x[:, None] * t, torch.exp(-t.square() / 2)
    right = _gap(angle.cos().mean(0), angle.sin().mean(0), target).mean()
    if torch.is_tensor(answer) and answer.is_complex():
        raise NotRight("Your answer is a complex number. Take |...|², its squared length.")
    if getattr(answer, "shape", None) == t.shape:
        raise NotRight("One number for each t is not the end: take the mean over t.")
    compare(answer, right, _gap_mistakes(angle, t, right), "The gap")


def _gap_mistakes(angle: Tensor, t: Tensor, right: Tensor) -> dict[str, Tensor]:
    target = torch.exp(-t.square() / 2)
    cos, sin = angle.cos().mean(0), angle.sin().mean(0)
    return {
        "Only the cosine: the imaginary part is missing. Without it, a skewed slice may pass.": (
            (cos - target).square().mean()
        ),
        "Not squared: |...|² is wanted, the square of the length.": (
            _gap(cos, sin, target).sqrt().mean()
        ),
        "You took the mean over the samples last. First average e^{itx} over x, then subtract and square.": (
            _gap(angle.cos(), angle.sin(), target).mean()
        ),
        "You summed over the samples. φ̂ is their mean.": (
            _gap(angle.cos().sum(0), angle.sin().sum(0), target).mean()
        ),
        "You summed over t. Take the mean.": right * len(t),
        "The target is exp(−t²/2), with the 2: the standard normal's.": (
            _gap(cos, sin, torch.exp(-t.square())).mean()
        ),
        "The target is missing: this measures the distance from 0.": _gap(
            cos, sin, 0 * target
        ).mean(),
        "This is the density of the normal, with 1/√(2π). Wanted is its characteristic function.": (
            _gap(cos, sin, target / (2 * torch.pi) ** 0.5).mean()
        ),
        "You subtracted the target from the sine, too. The normal's φ is real: its sine part is 0.": (
            ((cos - target).square() + (sin - target).square()).mean()
        ),
    }


def _gap(cos: Tensor, sin: Tensor, target: Tensor) -> Tensor:
    return (cos - target).square() + sin.square()


def _gauss(x: Tensor) -> Tensor:
    return torch.exp(-(x[:, None] - x).square() / 2)


def _centred(k: Tensor) -> Tensor:
    return k - k.mean(0) - k.mean(1, keepdim=True) + k.mean()


def _product(kernels: list[Tensor]) -> Tensor:
    k, m = kernels
    return (_centred(k) * _centred(m)).mean()


def _normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
