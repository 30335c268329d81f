"""Checkers for notebook 01, redundancy reduction."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from barlow_edu.teaching.checks.base import Shaped, attempt, checker, judge, tell
from barlow_edu.teaching.checks.worlds import centred, normal, standard

KINDS = ("constant", "dimensional", "none")


@checker
def zca_matrix(function: Callable[[Tensor], Tensor]) -> None:
    """Check a function: covariance Σ (D, D) -> Σ^(-1/2), the symmetric whitening matrix (D, D)."""
    worlds = [
        (_covariance(_shifted_views(n, d, seed)[0]),) for n, d, seed in ((400, 5, 12), (300, 4, 13))
    ]
    judge(function, worlds, _root, _ZCA, "W", look=_explain_whitening)


def _root(covariance: Tensor) -> Tensor:
    return _power(covariance, -0.5)


_ZCA = {
    "This is Σ to the power −1: the eigenvalues want the root too, λ^(−1/2).": lambda c: _power(c, -1),
    "This is Σ^(+1/2): it would make the pixels more redundant. Divide by the roots.": lambda c: _power(c, 0.5),
    "This only divides every pixel by its own deviation. The correlations stay as they are.":
        lambda c: c.diagonal().rsqrt().diag(),
    "You gave back the eigenvectors U alone: they turn the pixels, and nothing gets variance 1.":
        lambda c: torch.linalg.eigh(c)[1],
    "You turned with Uᵀ but did not scale: λ^(−1/2) is missing.": lambda c: torch.linalg.eigh(c)[1].T,
    "These are the scales λ^(−1/2) alone. Turn before with Uᵀ, and back after with U.":
        lambda c: torch.linalg.eigvalsh(c).rsqrt().diag(),
}  # fmt: skip


def _explain_whitening(answer: object, covariance: Tensor) -> object:
    """Tell whitening matrices that are not ZCA, and U in the wrong place, whatever the signs in U."""
    tell({"Return one matrix W, (D, D), not a tuple.": isinstance(answer, tuple)})
    right, eye = _root(covariance), torch.eye(len(covariance), dtype=covariance.dtype)
    if getattr(answer, "shape", None) != eye.shape or not torch.is_tensor(answer):
        return answer
    w = answer.detach().double()
    if _near(w, right) or not torch.isfinite(w).all():
        return answer
    tell({
        "This whitens: W Σ Wᵀ = I. But so does any rotation of it, and ZCA is the one that turns "
        "back, with U on the left: U diag(λ^(−1/2)) Uᵀ.": _near(w @ covariance @ w.T, eye),
        "Yours is a transposed whitening matrix: Wᵀ Σ W = I, but W Σ Wᵀ is not. For ZCA turn "
        "(Uᵀ), scale, and turn back (U).": _near(w.T @ covariance @ w, eye),
        "The scales are right, but the directions are not. eigh returns the eigenvectors as "
        "columns of U, so it is U diag(λ^(−1/2)) Uᵀ, not Uᵀ diag(λ^(−1/2)) U.":
            _near(w, w.T) and _near(torch.linalg.eigvalsh(w), torch.linalg.eigvalsh(right)),
    })  # fmt: skip
    return answer


@checker
def kind_of_collapse(function: Callable[[Tensor], str]) -> None:
    """Check a function: embeddings (N, D) -> "constant", "dimensional" or "none"."""
    for z, right, hints in _patients():
        answer = attempt(function, z)
        kinds = ", ".join(map(repr, KINDS))
        tell({f"Return one of {kinds}; your function returned {answer!r}.": answer not in KINDS})
        tell({f"You said {answer!r}, but it is {right!r}: {hints[answer]}": answer != right})


def _patients() -> Iterator[tuple[Tensor, str, dict[str, str]]]:
    """Embeddings (200, 8), the kind of their collapse, and for each wrong answer what went wrong."""
    z = torch.randn(200, 8, generator=torch.Generator().manual_seed(10))
    turned = torch.tensor([1.0, -2, 3, 1, -1, 2, 0.5, 1])
    slow = "a small spread is not a collapse before it falls below 0.01."
    other_units = (
        "the dimensions are unrelated, and only their units differ. Standardise each before you "
        "look at the effective rank."
    )

    def patient(z: Tensor, kind: str, told: str, **hints: str) -> tuple:
        return z, kind, dict.fromkeys(KINDS, told) | hints

    yield patient(z, "none", "these are eight unrelated dimensions.")
    noise = (
        "only rounding noise is left, a spread below 0.01. The effective rank cannot see that, since "
        "it ignores the scale: look at the standard deviations first."
    )
    yield patient(3 + 1e-5 * z, "constant", noise)
    rows = (
        "every image gets the same numbers, and the numbers differ between dimensions. Take the "
        "standard deviation over the images, dim 0."
    )
    yield patient(torch.linspace(-2, 2, 8) + 1e-6 * z, "constant", rows)
    copies = (
        "all dimensions are one and the same up to scale and sign, so the standardised effective rank "
        "is 1. Each one varies, so standard deviations do not show it."
    )
    yield patient(z[:, 8 * [0]] * turned + 0.01 * z, "dimensional", copies)
    pairs = (
        "there are only two different dimensions, each four times: effective rank 2, below D/2 = 4."
    )
    yield patient(z[:, [0, 1, 0, 1, 1, 0, 1, 0]] * turned + 0.01 * z, "dimensional", pairs)
    centre = (
        "the mean is 50, and the spread around it is healthy. Subtract the mean of each dimension."
    )
    yield patient(z + 50, "none", centre)
    yield patient(z * torch.logspace(-1, 3, 8), "none", other_units, constant=slow)
    yield patient(0.05 * z, "none", slow)
    dead = "one dimension of eight is dead, the other seven are fine. Constant means: no dimension varies."
    one_dead = z.clone()
    one_dead[:, 3] = 1.0
    yield patient(one_dead, "none", dead)
    alive = (
        "one dimension of eight has a spread of 0.05. Constant means that no dimension varies: look at the "
        "largest of the standard deviations, not at their mean."
    )
    alone = z * torch.tensor([0.05] + 7 * [0.001])
    yield patient(alone, "none", other_units, constant=alive)
    twelve = (
        "there are only five different dimensions among twelve: effective rank 5, below D/2 = 6."
    )
    repeated = z[:, [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]] + 0.01 * normal(200, 12, seed=11).float()
    yield patient(repeated, "dimensional", twelve)


@checker
def canonical_correlations(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check a function (N, D), (N, D) -> (D,): canonical correlations, largest first."""
    worlds = [_shifted_views(300, 4, seed=12), _shifted_views(250, 3, seed=14)]
    judge(function, worlds, _canonical, _CANONICAL, "the list of correlations", look=_vector)


def _vector(answer, *_):
    alone = "Return the singular values alone: torch.linalg.svdvals gives just them."
    tell({alone: isinstance(answer, tuple)})
    return answer


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Singular values of the mean product of two views."""
    return torch.linalg.svdvals(a.T @ b / len(a))


def _canonical(a: Tensor, b: Tensor) -> Tensor:
    return _product(_whiten(a), _whiten(b))


_CANONICAL = {
    "This is a matrix, (D, D). The canonical correlations are its D singular values, if both "
    "views are white.": lambda a, b: Shaped([a.shape[1]] * 2),
    "The values are right, the order is not: largest first.": lambda a, b: _canonical(a, b).flip(0),
    "These are the squares. Take singular values of C, or the roots of the eigenvalues of C Cᵀ.":
        lambda a, b: _canonical(a, b) ** 2,
    "Divide the product by N: the sum over the batch is not yet an average.": lambda a, b: _canonical(a, b) * len(a),
    "You mixed N and N − 1: use the same in the covariances and in the product.":
        lambda a, b: _canonical(a, b) * len(a) / (len(a) - 1),
    "You mixed N − 1 and N: use the same in the covariances and in the product.":
        lambda a, b: _canonical(a, b) * (len(a) - 1) / len(a),
    "These are singular values of the raw covariance. Whiten each view first.":
        lambda a, b: _product(centred(a), centred(b)),
    "You standardised each channel, but the channels of a view are still correlated: whiten it.":
        lambda a, b: _product(standard(a), standard(b)),
    "You did not subtract the means: they look like one more thing that both views share.":
        lambda a, b: _product(_whiten(a, 0), _whiten(b, 0)),
    "View B is not white yet. Whiten both, each with its own covariance.":
        lambda a, b: _product(_whiten(a), centred(b)),
    "View A is not white yet. Whiten both, each with its own covariance.":
        lambda a, b: _product(centred(a), _whiten(b)),
    "You whitened view B with the covariance of view A. Each view has its own.":
        lambda a, b: _product(_whiten(a), centred(b) @ _root(_covariance(a))),
    "You whitened with C^(−1), not with its root C^(−1/2).": lambda a, b: _product(
        centred(a) @ _power(_covariance(a), -1), centred(b) @ _power(_covariance(b), -1)),
    "This is the diagonal of the whitened C. Its singular values find the best directions.":
        lambda a, b: (_whiten(a) * _whiten(b)).mean(0),
    "All are 1: you compared a view with itself.": lambda a, b: torch.ones(a.shape[1]),
}  # fmt: skip


def _shifted_views(n: int, d: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two views (n, d) that share two directions, with correlated channels and means that are not 0."""
    generator = torch.Generator().manual_seed(seed)
    shared, own_a, own_b = torch.randn(3, n, d, generator=generator, dtype=torch.float64)
    mix_a, mix_b = torch.randn(2, d, d, generator=generator, dtype=torch.float64)
    strength = torch.linspace(2, 0.1, d, dtype=torch.float64)
    return (shared * strength + own_a) @ mix_a + 3, (shared * strength + own_b) @ mix_b - 2


def _covariance(x: Tensor) -> Tensor:
    return x.T.cov(correction=0)


def _power(matrix: Tensor, exponent: float) -> Tensor:
    values, u = torch.linalg.eigh(matrix)
    return (u * values**exponent) @ u.T


def _whiten(x: Tensor, centre: bool = True) -> Tensor:
    x = centred(x) if centre else x
    return x @ _root(x.T @ x / len(x))


def _near(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b.to(a.dtype), rtol=1e-3, atol=1e-4 * b.abs().max().item())
