"""Checkers for notebook 15, why it works."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from barlow_edu.teaching.checks.base import Shaped, checker, judge
from barlow_edu.teaching.checks.worlds import centred, normal


@checker
def log_det_series(function: Callable[[Tensor, int], Tensor]) -> None:
    """Check a function: correlation matrix (D, D), order -> Σ_{k ≤ order} (−1)^(k+1) tr(E^k) / k, E = R − I."""
    r, other = _related(4, seed=130), _related(6, seed=135)
    worlds = [(r, 3), (r, 5), (r, 2), (other, 4)]  # at 2 several mistakes look alike: tr E is 0
    judge(function, worlds, _series, _SERIES, "Order {1}")


def _related(d: int, seed: int) -> Tensor:
    """A correlation matrix (d, d), its entries off the diagonal small enough for the series."""
    r = torch.corrcoef((normal(60, d, seed=seed) @ normal(d, d, seed=seed + 1)).T)
    return 0.6 * r + 0.4 * torch.eye(d, dtype=r.dtype)


def _alternating(k: int) -> float:
    return (-1) ** (k + 1) / k


def _series(
    r: Tensor, order: int, weight: Callable = _alternating, power=torch.linalg.matrix_power
) -> Tensor:
    """Σ_k weight(k) tr(E^k), for k from 1 to ``order``."""
    e = r - torch.eye(len(r), dtype=r.dtype)
    zero = torch.zeros((), dtype=r.dtype)
    return sum((weight(k) * power(e, k).trace() for k in range(1, order + 1)), zero)


_SERIES = {
    "This is still a matrix. The logarithm of a determinant is a number: trace.": lambda r, n: Shaped(r.shape),
    "E**k takes the power of each entry. The series needs the matrix product E @ E ... (on the "
    "diagonal of E stands 0, so your traces are all 0).": lambda r, n: _series(r, n, power=torch.pow),
    "These are sums of entries to the power k. Take the trace of the matrix power.":
        lambda r, n: _series(r, n, power=lambda e, k: (e**k).sum(0).diag()),
    "The sign does not alternate: + E, − E²/2, + E³/3, ...": lambda r, n: _series(r, n, lambda k: 1 / k),
    "The sign is turned: the logarithm of 1 + x begins with +x, and the second term is −x²/2.":
        lambda r, n: -_series(r, n),
    "The term of power k is divided by k. Yours are not.": lambda r, n: _series(r, n, lambda k: (-1) ** (k + 1)),
    "You divided by k!, as in the series of exp. The logarithm's has k: x − x²/2 + x³/3 ...":
        lambda r, n: _series(r, n, lambda k: (-1) ** (k + 1) / math.factorial(k)),
    "This is the series of exp, with 1/k! and no change of sign. The logarithm's is x − x²/2 + x³/3 ...":
        lambda r, n: _series(r, n, lambda k: 1 / math.factorial(k)),
    "You took powers of R. The series is in E = R − I, what is left of R beside the identity.":
        lambda r, n: _series(r + torch.eye(len(r), dtype=r.dtype), n),
    "One term is missing at the end: range(1, order) stops before order.": lambda r, n: _series(r, n - 1),
    "That is one term too many.": lambda r, n: _series(r, n + 1),
    "This is the exact log-determinant. The exercise asks for its series, up to the given order.":
        lambda r, n: torch.logdet(r),
}  # fmt: skip


@checker
def kernel_hsic(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check a function (N,), (N,) -> the mean of K̃ L̃, with centred Gaussian kernels of width 1."""
    worlds = []
    for n, seed in ((30, 132), (22, 136)):
        x, noise = normal(2, n, seed=seed)
        worlds.append((x, 0.7 * x**2 + noise + 0.5))
    judge(function, worlds, _hsic, _HSIC, "HSIC", 1e-5)


def _squares(x: Tensor) -> Tensor:
    return (x[:, None] - x).square()


def _gauss(x: Tensor) -> Tensor:
    return torch.exp(-_squares(x) / 2)


def _both(k: Tensor) -> Tensor:
    """Centred in rows and columns."""
    return centred(centred(k), 1)


def _hsic(x: Tensor, y: Tensor, kernel: Callable = _gauss, centre: Callable = _both) -> Tensor:
    return (centre(kernel(x)) * centre(kernel(y))).mean()


_HSIC = {
    "This is still a matrix, one number a pair. Take the mean of all of them.": lambda x, y: Shaped([len(x)] * 2),
    "The kernels are not centred: without that, two unrelated x and y would not give about 0.":
        lambda x, y: _hsic(x, y, centre=lambda k: k),
    "You took the sum over all pairs. Take the mean: divide by N².": lambda x, y: _hsic(x, y) * len(x) ** 2,
    "You divided by (N − 1)², as a common estimator does. Here it is the mean, N².":
        lambda x, y: _hsic(x, y) * len(x) ** 2 / (len(x) - 1) ** 2,
    "You divided by N, once. There are N² pairs.": lambda x, y: _hsic(x, y) * len(x),
    "This is the trace of the product of the kernels, with one sum too few: multiply entry by entry.":
        lambda x, y: _hsic(x, y, centre=lambda k: _both(k).diagonal()),
    "You centred the columns but not the rows: subtract both means, and add the mean of all.":
        lambda x, y: _hsic(x, y, centre=centred),
    "After subtracting both means the mean of all is subtracted twice: add it once.":
        lambda x, y: _hsic(x, y, centre=lambda k: _both(k) - k.mean()),
    "The distance is not squared: exp(−d²/2), not exp(−d/2).":
        lambda x, y: _hsic(x, y, lambda z: torch.exp(-_squares(z).sqrt() / 2)),
    "The 2 is missing: exp(−d²/2), not exp(−d²).": lambda x, y: _hsic(x, y, lambda z: torch.exp(-_squares(z))),
    "With the straight kernel x xᵀ this is the squared covariance. It sees what C sees, no more.":
        lambda x, y: _hsic(x, y, lambda z: torch.outer(z, z)),
    "These are distances. (Centred, they give distance covariance, a relative of HSIC.) Put them "
    "through exp(−d²/2) first.": lambda x, y: _hsic(x, y, lambda z: _squares(z).sqrt()),
    "These are squared distances, not yet put through exp(−d²/2).": lambda x, y: _hsic(x, y, _squares),
}  # fmt: skip


@checker
def slice_gap(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check a function: one slice x (N,), frequencies t (T,) -> mean over t of |φ̂(t) − exp(−t²/2)|²."""
    # not symmetric: the sine matters
    worlds = [
        (normal(25, seed=134).exp() - 1.2, torch.linspace(-3, 4, 9, dtype=torch.float64)),
        (normal(18, seed=137).square() - 0.7, torch.linspace(-1, 5, 13, dtype=torch.float64)),
    ]
    judge(function, worlds, _gap, _GAPS, "The gap")


def _target(t: Tensor) -> Tensor:
    return torch.exp(-t.square() / 2)


def _waves(x: Tensor, t: Tensor) -> Tensor:
    return torch.exp(1j * x[:, None] * t)


def _gap(
    x: Tensor, t: Tensor, target: Callable = _target, mean: Callable = lambda waves: waves.mean(0)
) -> Tensor:
    return (mean(_waves(x, t)) - target(t)).abs().square().mean()


_GAPS = {
    "Your answer is a complex number. Take |...|², its squared length.": lambda x, t: torch.complex128,
    "One number for each t is not the end: take the mean over t.": lambda x, t: Shaped(t.shape),
    "Only the cosine: the imaginary part is missing. Without it, a skewed slice may pass.":
        lambda x, t: _gap(x, t, mean=lambda waves: waves.real.mean(0)),
    "Not squared: |...|² is wanted, the square of the length.":
        lambda x, t: (_waves(x, t).mean(0) - _target(t)).abs().mean(),
    "You took the mean over the samples last. First average e^{itx} over x, then subtract and square.":
        lambda x, t: _gap(x, t, mean=lambda waves: waves),
    "You summed over the samples. φ̂ is their mean.": lambda x, t: _gap(x, t, mean=lambda waves: waves.sum(0)),
    "You summed over t. Take the mean.": lambda x, t: _gap(x, t) * len(t),
    "The target is exp(−t²/2), with the 2: the standard normal's.":
        lambda x, t: _gap(x, t, lambda t: torch.exp(-t.square())),
    "The target is missing: this measures the distance from 0.": lambda x, t: _gap(x, t, lambda t: 0 * t),
    "This is the density of the normal, with 1/√(2π). Wanted is its characteristic function.":
        lambda x, t: _gap(x, t, lambda t: _target(t) / (2 * torch.pi) ** 0.5),
    "You subtracted the target from the sine, too. The normal's φ is real: its sine part is 0.":
        lambda x, t: _gap(x, t, lambda t: (1 + 1j) * _target(t)),
}  # fmt: skip
