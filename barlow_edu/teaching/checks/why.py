"""Checkers for notebook 15, why it works."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from barlow_edu.teaching.checks.base import Shaped, attempt, checker, judge, tell
from barlow_edu.teaching.checks.worlds import centred, correlation, embedding, normal


def _related(d: int, seed: int) -> Tensor:
    """A correlation matrix (d, d), its entries off the diagonal small enough for the series."""
    r = torch.corrcoef((normal(60, d, seed=seed) @ normal(d, d, seed=seed + 1)).T)
    return 0.6 * r + 0.4 * torch.eye(d, dtype=r.dtype)


def _series(r, n, w=lambda k: (-1) ** (k + 1) / k, power=torch.linalg.matrix_power) -> Tensor:
    """Σ_k w(k) tr(E^k), for k from 1 to n."""
    e = r - torch.eye(len(r), dtype=r.dtype)
    return sum(w(k) * power(e, k).trace() for k in range(1, n + 1))


@checker
def log_det_series(function: Callable[[Tensor, int], Tensor]) -> None:
    """Check a function: correlation matrix (D, D), order -> Σ_{k ≤ order} (−1)^(k+1) tr(E^k) / k, E = R − I."""
    r, other = _related(4, seed=130), _related(6, seed=135)
    worlds = [(r, 3), (r, 5), (r, 2), (other, 4)]  # at 2 several mistakes look alike: tr E is 0
    judge(function, worlds, _series, {
        "This is still a matrix. The logarithm of a determinant is a number: trace.": lambda r, n: Shaped(r.shape),
        "E**k takes the power of each entry. The series needs the matrix product E @ E ... (on the "
        "diagonal of E stands 0, so your traces are all 0).": {"power": torch.pow},
        "These are sums of entries to the power k. Take the trace of the matrix power.":
            {"power": lambda e, k: (e**k).sum(0).diag()},
        "The sign does not alternate: + E, − E²/2, + E³/3, ...": {"w": lambda k: 1 / k},
        "The sign is turned: the logarithm of 1 + x begins with +x, and the second term is −x²/2.":
            lambda r, n: -_series(r, n),
        "The term of power k is divided by k. Yours are not.": {"w": lambda k: (-1) ** (k + 1)},
        "You divided by k!, as in the series of exp. The logarithm's has k: x − x²/2 + x³/3 ...":
            {"w": lambda k: (-1) ** (k + 1) / math.factorial(k)},
        "This is the series of exp, with 1/k! and no change of sign. The logarithm's is x − x²/2 + x³/3 ...":
            {"w": lambda k: 1 / math.factorial(k)},
        "You took powers of R. The series is in E = R − I, what is left of R beside the identity.":
            lambda r, n: _series(r + torch.eye(len(r), dtype=r.dtype), n),
        "One term is missing at the end: range(1, order) stops before order.": lambda r, n: _series(r, n - 1),
        "That is one term too many.": lambda r, n: _series(r, n + 1),
        "This is the exact log-determinant. The exercise asks for its series, up to the given order.":
            lambda r, n: torch.logdet(r),
    }, "Order {1}")  # fmt: skip


def _squares(x: Tensor) -> Tensor:
    return (x[:, None] - x).square()


def _both(k: Tensor) -> Tensor:
    """Centred in rows and columns."""
    return centred(centred(k), 1)


def _hsic(x, y, kernel=lambda z: torch.exp(-_squares(z) / 2), centre=_both) -> Tensor:
    return (centre(kernel(x)) * centre(kernel(y))).mean()


@checker
def kernel_hsic(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check a function (N,), (N,) -> the mean of K̃ L̃, with centred Gaussian kernels of width 1."""
    pairs = [normal(2, n, seed=seed) for n, seed in ((30, 132), (22, 136))]
    worlds = [(x, 0.7 * x**2 + noise + 0.5) for x, noise in pairs]
    judge(function, worlds, _hsic, {
        "This is still a matrix, one number a pair. Take the mean of all of them.": lambda x, y: Shaped([len(x)] * 2),
        "The kernels are not centred. Without that, two unrelated x and y would not give about 0.":
            {"centre": lambda k: k},
        "You took the sum over all pairs. Take the mean: divide by N².": lambda x, y: _hsic(x, y) * len(x) ** 2,
        "You divided by (N − 1)², as a common estimator does. Here it is the mean, N².":
            lambda x, y: _hsic(x, y) * len(x) ** 2 / (len(x) - 1) ** 2,
        "You divided by N, once. There are N² pairs.": lambda x, y: _hsic(x, y) * len(x),
        "This is the trace of the product of the kernels, with one sum too few: multiply entry by entry.":
            {"centre": lambda k: _both(k).diagonal()},
        "You centred the columns but not the rows: subtract both means, and add the mean of all.":
            {"centre": centred},
        "When you subtract both means, the mean of all is subtracted twice: add it once.":
            {"centre": lambda k: _both(k) - k.mean()},
        "The distance is not squared: take exp(−d²/2), not exp(−d/2).":
            {"kernel": lambda z: torch.exp(-_squares(z).sqrt() / 2)},
        "The 2 is missing: exp(−d²/2), not exp(−d²).": {"kernel": lambda z: torch.exp(-_squares(z))},
        "With the straight kernel x xᵀ this is the squared covariance. It sees what C sees, and no more.":
            {"kernel": lambda z: torch.outer(z, z)},
        "These are distances. (Centred, they give distance covariance, a relative of HSIC.) Put them "
        "through exp(−d²/2) first.": {"kernel": lambda z: _squares(z).sqrt()},
        "These are squared distances, not yet put through exp(−d²/2).": {"kernel": _squares},
    }, "HSIC", 1e-5)  # fmt: skip


@checker
def fools_c(function: Callable[[Tensor], Tensor], dims: int = 3) -> None:
    """Check an embedding of one number, normal (N,) -> (N, D): is C the identity, each dimension a curve over x?"""
    for seed in (138, 139):
        x = normal(20_000, seed=seed).sort().values
        wanted = "one row of numbers for each x: a tensor (N, D)"
        z = embedding(attempt(function, x), wanted, len(x))
        few = f"{z.shape[1]} dimensions are too few: {dims} or more are wanted."
        tell({few: z.shape[1] < dims})
        off = correlation(z, z) - torch.eye(z.shape[1], dtype=z.dtype)
        i, j = divmod(int(off.abs().argmax()), z.shape[1])
        again = embedding(attempt(function, x.flip(0)), wanted, len(x)).flip(0)
        rough = z.diff(dim=0).square().mean(0) / 2  # 1 for noise, about 0 for a curve
        tell({
            f"C sees it: dimensions {i} and {j} correlate by {off[i, j]:.2f}. Less than 0.1 is wanted.":
                off[i, j].abs() > 0.1,
            "The same x does not always get the same numbers. What is random does not depend on x.":
                bool(((z * again).mean(0).abs() < 0.999).any()),  # turned to its negative, it says the same
            f"Dimension {int(rough.argmax())} is no smooth curve over x: 20,000 points cannot tell it from noise.":
                rough.max() > 0.05,
        })  # fmt: skip
