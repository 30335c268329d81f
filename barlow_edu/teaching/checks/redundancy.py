"""Checkers of notebooks 01, redundancy reduction, and 02, collapse and its cure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from barlow_edu.teaching.checks.base import NotRight, Shaped, attempt, checker, judge, tell
from barlow_edu.teaching.checks.worlds import GRADING, normal, views
from barlow_edu.teaching.live import LiveProblem

KINDS = ("constant", "dimensional", "none")


@checker
def zca_matrix(function: Callable[[Tensor], Tensor]) -> None:
    """Check a function: covariance Σ (D, D) -> Σ^(-1/2), the symmetric whitening matrix (D, D)."""
    judge(function, _covariances(), _root, _ZCA, "W", look=_explain_whitening)


def _covariances() -> list[tuple[Tensor]]:
    """Two covariances of channels that are correlated, none nearly singular."""
    sizes = (400, 5, 12), (300, 4, 13)
    return [
        ((normal(n, d, seed=k) @ _mixing(d, k + 100)).T.cov(correction=0),) for n, d, k in sizes
    ]


def _mixing(d: int, seed: int) -> Tensor:
    """A matrix (d, d), the same whenever graded: some others are nearly singular."""
    return normal(d, d, seed=seed - GRADING.get())


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
def agreement(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check a function: two embeddings (N, D) -> the mean squared difference, a scalar."""
    worlds = [views(20, 4, seed=15), views(9, 3, seed=16)]
    judge(function, worlds, lambda a, b: (a - b).square().mean(), _AGREEMENT, "the disagreement")


_AGREEMENT = {
    "That is the sum. Take the mean over images and dimensions.": lambda a, b: (a - b).square().sum(),
    "Positive and negative differences cancel: square them before you take the mean.": lambda a, b: (a - b).mean(),
    "That is the mean absolute difference. Square in place of abs.": lambda a, b: (a - b).abs().mean(),
    "You took a root: the mean of the squares is all that is asked for.": lambda a, b: (a - b).square().mean().sqrt(),
    "You summed over the dimensions: take the mean over them, too.": lambda a, b: (a - b).square().sum(1).mean(),
    "Return one number: the mean over images and dimensions.": lambda a, b: Shaped([len(a)]),
}  # fmt: skip


@checker
def my_cure(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check a loss (N, D), (N, D) -> scalar by what it trains: six numbers of a small world with eight signals.

    Asked is that they vary, agree across the views, and say at least four different things. How is not asked.
    """
    problem = LiveProblem(dim=6, batch_size=128)
    for _ in range(400):
        loss = attempt(function, *problem.embed())
        if not (torch.is_tensor(loss) and loss.ndim == 0 and loss.requires_grad):
            raise NotRight("Return a scalar tensor that autograd can follow back to z_a and z_b.")
        problem.optimizer.zero_grad()
        loss.backward()
        problem.optimizer.step()
    problem.look()
    spread, agree = problem.embed()[0].std(0).max().item(), problem.c.diagonal().mean().item()
    if not spread > 0.2:
        raise NotRight(
            f"Constant collapse: the embeddings' standard deviation fell from 1 to {spread:.1g}."
        )
    if not agree > 0.5:
        raise NotRight(
            f"The views do not agree: the diagonal of C is {agree:.2f} on average, 0.5 is asked for."
        )
    if not problem.distinct() > 4:
        raise NotRight(
            f"The six numbers say {problem.distinct():.1f} different things, more than 4 are asked for: "
            "what in your loss grows when one number repeats another?"
        )


@checker
def dim_light_filter(function: Callable[[Tensor, float], Tensor]) -> None:
    """Check a function: covariance Σ (D, D), noise σ -> U Λ^(−1/2) Λ / (Λ + σ²) Uᵀ, (D, D)."""
    worlds = [
        (*zca_world, sigma) for zca_world, sigma in zip(_covariances(), (0.7, 1.3), strict=True)
    ]
    judge(function, worlds, _careful, _CAREFUL, "W")


def _careful(covariance: Tensor, sigma: float) -> Tensor:
    return _spectral(covariance, lambda v: v.sqrt() / (v + sigma**2))


_CAREFUL = {
    "This is plain whitening: the fraction λ / (λ + σ²), which holds noise back, is missing.": lambda c, _: _root(c),
    "This removes the noise and does not whiten: λ^(−1/2) is missing.":
        lambda c, s: _spectral(c, lambda v: v / (v + s**2)),
    "σ is a standard deviation. The eigenvalues are variances: add σ² to them.":
        lambda c, s: _spectral(c, lambda v: v.sqrt() / (v + s)),
    "This whitens the noisy patches, (λ + σ²)^(−1/2). It does not hold back the directions in which noise rules.":
        lambda c, s: _spectral(c, lambda v: (v + s**2).rsqrt()),
    "The fraction is upside down: strong directions pass, λ / (λ + σ²).":
        lambda c, s: _spectral(c, lambda v: v.rsqrt() * s**2 / (v + s**2)),
}  # fmt: skip


@checker
def my_retina(function: Callable[[], Tensor]) -> None:
    """Check a filter (k, k) by what it makes of a picture whose power falls like 1/f², as in photographs."""
    kernel = torch.as_tensor(attempt(function)).detach().double()
    size = len(kernel) if kernel.ndim == 2 else 0
    if kernel.shape != (size, size) or size % 2 == 0 or size > 15:
        raise NotRight(
            f"Return a square filter with an odd side of up to 15, not {tuple(kernel.shape)}."
        )
    if (count := int((kernel != 0).sum())) > 25:
        raise NotRight(f"Your filter has {count} weights. A cell of this retina has room for 25.")
    recoded = F.conv2d(_scene()[None, None], kernel[None, None])[0, 0]
    if not recoded.std() > 1e-3:
        raise NotRight("Nothing gets through: what it sends on is the same everywhere.")
    pairs = (recoded[:, 1:], recoded[:, :-1]), (recoded[1:], recoded[:-1])
    worst = max(
        (torch.corrcoef(torch.stack([x.flatten(), y.flatten()]))[0, 1].item() for x, y in pairs),
        key=abs,
    )
    if not abs(worst) <= 0.3:
        raise NotRight(
            f"Neighbours in what it sends on still correlate by {worst:.2f}; ±0.3 is asked for."
        )


def _scene() -> Tensor:
    """A picture (128, 128) of noise with an amplitude of 1/f, the same on every run."""
    f = torch.fft.fftfreq(128, dtype=torch.float64)
    amplitude = 1 / (f[:, None] ** 2 + f**2).sqrt().clamp(min=1 / 128)
    picture = torch.fft.ifft2(torch.fft.fft2(normal(128, 128, seed=17)) * amplitude).real
    return picture / picture.std()


def _spectral(matrix: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    values, u = torch.linalg.eigh(matrix)
    return (u * change(values)) @ u.T


def _power(matrix: Tensor, exponent: float) -> Tensor:
    return _spectral(matrix, lambda values: values**exponent)


def _near(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b.to(a.dtype), rtol=1e-3, atol=1e-4 * b.abs().max().item())
