"""Checkers for notebook 01, redundancy reduction."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from barlow_edu.teaching.checks.base import NotRight, attempt, checker, compare

CHECKERS = ("zca_matrix", "kind_of_collapse", "canonical_correlations")

KINDS = ("constant", "dimensional", "none")


@checker
def zca_matrix(function: Callable[[Tensor], Tensor]) -> None:
    """Check a function: covariance Σ (D, D) -> Σ^(-1/2), the symmetric whitening matrix (D, D)."""
    x, _ = _shifted_views(400, 5)
    covariance = x.T.cov(correction=0)
    values, u = torch.linalg.eigh(covariance)
    right = _power(covariance, -0.5)
    answer = attempt(function, covariance)
    if isinstance(answer, tuple):
        raise NotRight("Return one matrix W, (D, D), not a tuple.")
    if _is_matrix(answer, 5):
        _explain_whitening(answer.detach().double(), covariance, right)
    mistakes = {
        "This is Σ to the power −1: the eigenvalues want the root too, λ^(−1/2).": (
            _power(covariance, -1)
        ),
        "This is Σ^(+1/2): it would make the pixels more redundant. Divide by the roots.": (
            _power(covariance, 0.5)
        ),
        "This only divides every pixel by its own deviation. The correlations stay as they are.": (
            covariance.diagonal().rsqrt().diag()
        ),
        "You gave back the eigenvectors U alone: they turn the pixels, and nothing gets variance 1.": u,
        "You turned with Uᵀ but did not scale: λ^(−1/2) is missing.": u.T,
        "These are the scales λ^(−1/2) alone. Turn before with Uᵀ, and back after with U.": (
            values.rsqrt().diag()
        ),
    }
    compare(answer, right, mistakes, "W")


def _explain_whitening(w: Tensor, covariance: Tensor, right: Tensor) -> None:
    """Tell whitening matrices that are not ZCA, and U in the wrong place, whatever the signs in U."""
    eye = torch.eye(len(w), dtype=w.dtype)
    if _near(w, right):
        return
    if _near(w @ covariance @ w.T, eye):
        raise NotRight(
            "This whitens: W Σ Wᵀ = I. But so does any rotation of it, and ZCA is the one that turns "
            "back, with U on the left: U diag(λ^(−1/2)) Uᵀ."
        )
    if _near(w.T @ covariance @ w, eye):
        raise NotRight(
            "Yours is a transposed whitening matrix: Wᵀ Σ W = I, but W Σ Wᵀ is not. For ZCA turn "
            "(Uᵀ), scale, and turn back (U)."
        )
    if _near(w, w.T) and _near(torch.linalg.eigvalsh(w), torch.linalg.eigvalsh(right)):
        raise NotRight(
            "The scales are right, but the directions are not. eigh returns the eigenvectors as "
            "columns of U, so it is U diag(λ^(−1/2)) Uᵀ, not Uᵀ diag(λ^(−1/2)) U."
        )


@checker
def kind_of_collapse(function: Callable[[Tensor], str]) -> None:
    """Check a function: embeddings (N, D) -> "constant", "dimensional" or "none"."""
    for z, right, hints in _patients():
        answer = attempt(function, z)
        if answer not in KINDS:
            raise NotRight(
                f"Return one of {', '.join(map(repr, KINDS))}; your function returned {answer!r}."
            )
        if answer != right:
            raise NotRight(f"You said {answer!r}, but it is {right!r}: {hints[answer]}")


def _patients() -> Iterator[tuple[Tensor, str, dict[str, str]]]:
    """Embeddings (200, 8), the kind of their collapse, and for each wrong answer what went wrong."""
    z = torch.randn(200, 8, generator=torch.Generator().manual_seed(10))
    sources = z[:, [0, 0, 0, 0, 0, 0, 0, 0]], z[:, [0, 1, 0, 1, 1, 0, 1, 0]]
    turned = torch.tensor([1.0, -2, 3, 1, -1, 2, 0.5, 1])
    slow = "a small spread is not a collapse before it falls below 0.01."
    yield z, "none", dict.fromkeys(KINDS, "these are eight unrelated dimensions.")
    noise = (
        "only rounding noise is left, a spread below 0.01. The effective rank cannot see that, since "
        "it ignores the scale: look at the standard deviations first."
    )
    yield 3 + 1e-5 * z, "constant", {"none": noise, "dimensional": noise}
    rows = (
        "every image gets the same numbers, and the numbers differ between dimensions. Take the "
        "standard deviation over the images, dim 0."
    )
    yield torch.linspace(-2, 2, 8) + 1e-6 * z, "constant", {"none": rows, "dimensional": rows}
    copies = (
        "all dimensions are one and the same up to scale and sign, so the standardised effective rank "
        "is 1. Each one varies, so standard deviations do not show it."
    )
    yield sources[0] * turned + 0.01 * z, "dimensional", {"none": copies, "constant": copies}
    pairs = (
        "there are only two different dimensions, each four times: effective rank 2, below D/2 = 4."
    )
    yield sources[1] * turned + 0.01 * z, "dimensional", {"none": pairs, "constant": pairs}
    centre = (
        "the mean is 50, and the spread around it is healthy. Subtract the mean of each dimension."
    )
    yield z + 50, "none", {"dimensional": centre, "constant": centre}
    scales = (
        "the dimensions are unrelated, and only their units differ. Standardise each before you "
        "look at the effective rank."
    )
    units = z * torch.logspace(-1, 3, 8)
    yield units, "none", {"dimensional": scales, "constant": slow}
    yield 0.05 * z, "none", {"dimensional": slow, "constant": slow}
    dead = "one dimension of eight is dead, the other seven are fine. Constant means: no dimension varies."
    one_dead = z.clone()
    one_dead[:, 3] = 1.0
    yield one_dead, "none", {"constant": dead, "dimensional": dead}


@checker
def canonical_correlations(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check a function (N, D), (N, D) -> (D,): canonical correlations, largest first."""
    x_a, x_b = _shifted_views(300, 4)
    answer = attempt(function, x_a, x_b)
    if isinstance(answer, tuple):
        raise NotRight("Return the singular values alone: torch.linalg.svdvals gives just them.")
    white_a, white_b = _whiten(x_a), _whiten(x_b)
    c = white_a.T @ white_b / len(x_a)
    if getattr(answer, "shape", None) == c.shape:
        raise NotRight(
            "This is a matrix, (D, D). The canonical correlations are its D singular values, if both "
            "views are white."
        )
    right = torch.linalg.svdvals(c)
    compare(answer, right, _canonical_mistakes(x_a, x_b, right, c), "the list of correlations")


def _canonical_mistakes(x_a: Tensor, x_b: Tensor, right: Tensor, c: Tensor) -> dict[str, Tensor]:
    n, svdvals = len(x_a), torch.linalg.svdvals
    a, b = x_a - x_a.mean(0), x_b - x_b.mean(0)
    white_a, white_b = _whiten(x_a), _whiten(x_b)
    scaled = [x / x.std(0, correction=0) for x in (a, b)]
    return {
        "The values are right, the order is not: largest first.": right.flip(0),
        "These are the squares. Take singular values of C, or the roots of the eigenvalues of C Cᵀ.": (
            right**2
        ),
        "Divide the product by N: the sum over the batch is not yet an average.": right * n,
        "You mixed N and N − 1: use the same in the covariances and in the product.": (
            right * n / (n - 1)
        ),
        "You mixed N − 1 and N: use the same in the covariances and in the product.": (
            right * (n - 1) / n
        ),
        "These are singular values of the raw covariance. Whiten each view first.": svdvals(
            a.T @ b / n
        ),
        "You standardised each channel, but the channels of a view are still correlated: whiten it.": (
            svdvals(scaled[0].T @ scaled[1] / n)
        ),
        "You did not subtract the means: they look like one more thing that both views share.": (
            svdvals(_whiten(x_a, 0).T @ _whiten(x_b, 0) / n)
        ),
        "View B is not white yet. Whiten both, each with its own covariance.": svdvals(
            white_a.T @ b / n
        ),
        "View A is not white yet. Whiten both, each with its own covariance.": svdvals(
            a.T @ white_b / n
        ),
        "You whitened with C^(−1), not with its root C^(−1/2).": svdvals(
            _power(a.T @ a / n, -1) @ (a.T @ b / n) @ _power(b.T @ b / n, -1)
        ),
        "This is the diagonal of the whitened C. Its singular values find the best directions.": (
            c.diagonal()
        ),
        "All are 1: you compared a view with itself.": torch.ones(len(right)),
    }


def _shifted_views(n: int, d: int) -> tuple[Tensor, Tensor]:
    """Two views (n, d) that share two directions, with correlated channels and means that are not 0."""
    generator = torch.Generator().manual_seed(12)
    shared, own_a, own_b = torch.randn(3, n, d, generator=generator, dtype=torch.float64)
    mix_a, mix_b = torch.randn(2, d, d, generator=generator, dtype=torch.float64)
    strength = torch.linspace(2, 0.1, d, dtype=torch.float64)
    return (shared * strength + own_a) @ mix_a + 3, (shared * strength + own_b) @ mix_b - 2


def _power(matrix: Tensor, exponent: float) -> Tensor:
    values, u = torch.linalg.eigh(matrix)
    return (u * values**exponent) @ u.T


def _whiten(x: Tensor, centre: bool = True) -> Tensor:
    x = x - x.mean(0) if centre else x
    return x @ _power(x.T @ x / len(x), -0.5)


def _is_matrix(x: object, d: int) -> bool:
    return torch.is_tensor(x) and x.shape == (d, d) and bool(torch.isfinite(x).all())


def _near(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b.to(a.dtype), rtol=1e-3, atol=1e-4 * b.abs().max().item())
