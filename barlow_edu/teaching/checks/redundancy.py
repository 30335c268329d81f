"""Checkers of notebooks 01, redundancy reduction, and 02, collapse and its cure."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from barlow_edu.teaching.checks.base import GRADING, Shaped, attempt, checker, close, judge, tell
from barlow_edu.teaching.checks.worlds import normal, views
from barlow_edu.teaching.live import LiveProblem

KINDS = ("constant", "dimensional", "none")


def _covariances() -> list[tuple[Tensor]]:
    """Two covariances of channels that are correlated, none nearly singular."""
    sizes = (400, 5, 12), (300, 4, 13)
    # the same mixing whenever graded: some others are nearly singular
    mixed = [normal(n, d, seed=k) @ normal(d, d, seed=k + 100 - GRADING.get()) for n, d, k in sizes]
    return [(x.T.cov(correction=0),) for x in mixed]


def _filter(covariance: Tensor, sigma=0.0, by=lambda v, s: v.sqrt() / (v + s**2)) -> Tensor:
    """U by(Λ, σ) Uᵀ: without noise it whitens, Σ^(−1/2)."""
    values, u = torch.linalg.eigh(covariance)
    return (u * by(values, sigma)) @ u.T


@checker
def zca_matrix(function: Callable[[Tensor], Tensor]) -> None:
    """Check a function: covariance Σ (D, D) -> Σ^(-1/2), the symmetric whitening matrix (D, D)."""
    judge(function, _covariances(), _filter, {
        "This is Σ to the power −1: the eigenvalues want the root too, λ^(−1/2).": {"by": lambda v, s: 1 / v},
        "This is Σ^(+1/2). It would make the pixels more redundant: divide by the roots, do not multiply.":
            {"by": lambda v, s: v.sqrt()},
        "This only divides every pixel by its own deviation. The correlations stay as they are.":
            lambda c: c.diagonal().rsqrt().diag(),
        "You returned the eigenvectors U alone: they turn the pixels, and nothing gets variance 1.":
            lambda c: torch.linalg.eigh(c)[1],
        "You turned with Uᵀ but did not scale: λ^(−1/2) is missing.": lambda c: torch.linalg.eigh(c)[1].T,
        "These are the scales λ^(−1/2) alone. Turn with Uᵀ before them, and back with U after them.":
            lambda c: torch.linalg.eigvalsh(c).rsqrt().diag(),
    }, "W", look=_explain_whitening)  # fmt: skip


def _explain_whitening(answer: object, covariance: Tensor) -> object:
    """Tell whitening matrices that are not ZCA, and U in the wrong place, whatever the signs in U."""
    tell({"Return one matrix W, (D, D), not a tuple.": isinstance(answer, tuple)})
    right, eye = _filter(covariance), torch.eye(len(covariance), dtype=covariance.dtype)
    if not torch.is_tensor(answer) or answer.shape != eye.shape or not answer.isfinite().all():
        return answer
    w = answer.detach().double()
    if close(w, right, 1e-3):
        return answer
    tell({
        "This whitens: W Σ Wᵀ = I. But so does any rotation of it, and ZCA is the one that turns "
        "back, with U on the left: U diag(λ^(−1/2)) Uᵀ.": close(w @ covariance @ w.T, eye, 1e-3),
        "Yours is a transposed whitening matrix: Wᵀ Σ W = I, but W Σ Wᵀ is not. For ZCA turn "
        "(Uᵀ), scale, and turn back (U).": close(w.T @ covariance @ w, eye, 1e-3),
        "The scales are right, but the directions are not. eigh returns the eigenvectors as columns of U, so it is "
        "U diag(λ^(−1/2)) Uᵀ, not Uᵀ diag(λ^(−1/2)) U.":
            close(w, w.T, 1e-3) and close(torch.linalg.eigvalsh(w), torch.linalg.eigvalsh(right), 1e-3),
    })  # fmt: skip
    return answer


@checker
def kind_of_collapse(function: Callable[[Tensor], str]) -> None:
    """Check a function: embeddings (N, D) -> "constant", "dimensional" or "none"."""
    kinds = ", ".join(map(repr, KINDS))
    for z, right, *missed in _patients():
        answer = attempt(function, z)
        why = missed[-1 if answer == "constant" else 0]
        tell({
            f"Return one of {kinds}; your function returned {answer!r}.": answer not in KINDS,
            f"You said {answer!r}, but it is {right!r}: {why}": answer != right,
        })  # fmt: skip


def _patients() -> list[tuple]:
    """Embeddings (200, D), the kind of their collapse, why it is no other one, and why it is not "constant"."""
    z = torch.randn(200, 8, generator=torch.Generator().manual_seed(10))
    turned = torch.tensor([1.0, -2, 3, 1, -1, 2, 0.5, 1])
    five = z[:, [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]] + 0.01 * normal(200, 12, seed=11).float()
    slow = "a small spread is not a collapse before it falls below 0.01."
    units = "the dimensions are unrelated, and only their units differ. "
    units += "Standardise each before you look at the effective rank."
    return [
        (z, "none", "these are eight unrelated dimensions."),
        (3 + 1e-5 * z, "constant",
         "only rounding noise is left, a spread below 0.01. The effective rank cannot see that, since it ignores the "
         "scale: look at the standard deviations first."),
        (torch.linspace(-2, 2, 8) + 1e-6 * z, "constant",
         "every image gets the same numbers, and the numbers differ between dimensions. Take the standard deviation "
         "over the images, dim 0."),
        (z[:, 8 * [0]] * turned + 0.01 * z, "dimensional",
         "all dimensions are one and the same up to scale and sign, so the standardised effective rank is 1. Each "
         "one varies, so standard deviations do not show it."),
        (z[:, [0, 1, 0, 1, 1, 0, 1, 0]] * turned + 0.01 * z, "dimensional",
         "there are only two different dimensions, each four times: effective rank 2, below D/2 = 4."),
        (z + 50, "none", "the mean is 50, and the spread around it is healthy. Subtract the mean of each dimension."),
        (z * torch.logspace(-1, 3, 8), "none", units, slow),
        (0.05 * z, "none", slow),
        (torch.where(torch.arange(8) == 3, 1.0, z), "none",
         "one dimension of eight is dead, the other seven are fine. Constant means: no dimension varies."),
        (z * torch.tensor([0.05] + 7 * [0.001]), "none", units,
         "one dimension of eight has a spread of 0.05. Constant means that no dimension varies: look at the largest "
         "of the standard deviations, not at their mean."),
        (five, "dimensional",
         "there are only five different dimensions among twelve: effective rank 5, below D/2 = 6."),
    ]  # fmt: skip


@checker
def agreement(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check a function: two embeddings (N, D) -> the mean squared difference, a scalar."""
    worlds = [views(20, 4, seed=15), views(9, 3, seed=16)]
    judge(function, worlds, lambda a, b: (a - b).square().mean(), {
        "That is the sum. Take the mean over images and dimensions.": lambda a, b: (a - b).square().sum(),
        "Positive and negative differences cancel: square them before you take the mean.":
            lambda a, b: (a - b).mean(),
        "That is the mean absolute difference. Square in place of abs.": lambda a, b: (a - b).abs().mean(),
        "You took a root. The mean of the squares is all that is asked for.":
            lambda a, b: (a - b).square().mean().sqrt(),
        "You summed over the dimensions: take the mean over them, too.": lambda a, b: (a - b).square().sum(1).mean(),
        "Return one number: the mean over images and dimensions.": lambda a, b: Shaped([len(a)]),
    }, "the disagreement")  # fmt: skip


@checker
def my_cure(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check a loss (N, D), (N, D) -> scalar by what it trains: six numbers of a small world with eight signals.

    They are to vary, agree across the views, and say more than four different things. How is up to the loss.
    """
    problem = LiveProblem(dim=6, batch_size=128)
    for _ in range(400):
        loss = attempt(function, *problem.embed())
        scalar = torch.is_tensor(loss) and loss.ndim == 0 and loss.requires_grad
        tell({"Return a scalar tensor that autograd can follow back to z_a and z_b.": not scalar})
        problem.optimizer.zero_grad()
        loss.backward()
        problem.optimizer.step()
    problem.look()
    spread, agree = problem.embed()[0].std(0).max().item(), problem.c.diagonal().mean().item()
    tell({  # "not above", because NaN is not below either
        f"Constant collapse: the embeddings' standard deviation fell from 1 to {spread:.1g}.": not spread > 0.2,
        f"The views do not agree: the diagonal of C is {agree:.2f} on average, 0.5 is asked for.": not agree > 0.5,
    })  # fmt: skip
    distinct = problem.distinct()
    tell({
        f"The six numbers say {distinct:.1f} different things, more than 4 are asked for: what in your loss grows "
        "when one number repeats another?": not distinct > 4,
    })  # fmt: skip


@checker
def dim_light_filter(function: Callable[[Tensor, float], Tensor]) -> None:
    """Check a function: covariance Σ (D, D), noise σ -> U Λ^(−1/2) Λ / (Λ + σ²) Uᵀ, (D, D)."""
    worlds = [(*c, sigma) for c, sigma in zip(_covariances(), (0.7, 1.3), strict=True)]
    judge(function, worlds, _filter, {
        "This is plain whitening: the fraction λ / (λ + σ²), which holds noise back, is missing.":
            lambda c, _: _filter(c),
        "This removes the noise and does not whiten: λ^(−1/2) is missing.": {"by": lambda v, s: v / (v + s**2)},
        "σ is a standard deviation. The eigenvalues are variances: add σ² to them.":
            {"by": lambda v, s: v.sqrt() / (v + s)},
        "This whitens the noisy patches, (λ + σ²)^(−1/2). It does not hold back the directions in which noise rules.":
            {"by": lambda v, s: (v + s**2).rsqrt()},
        "The fraction is upside down. Strong directions must pass: λ / (λ + σ²).":
            {"by": lambda v, s: v.rsqrt() * s**2 / (v + s**2)},
    }, "W")  # fmt: skip


@checker
def my_retina(function: Callable[[], Tensor]) -> None:
    """Check a filter (k, k) by what it makes of a picture whose power falls like 1/f², as in photographs."""
    kernel = torch.as_tensor(attempt(function)).detach().double()
    size = len(kernel) if kernel.ndim == 2 else 0
    count = int((kernel != 0).sum())
    tell({
        f"Return a square filter with an odd side of up to 15, not {tuple(kernel.shape)}.":
            kernel.shape != (size, size) or size % 2 == 0 or size > 15,
        f"Your filter has {count} weights. A cell of this retina has room for 25.": count > 25,
    })  # fmt: skip
    recoded = F.conv2d(_scene()[None, None], kernel[None, None])[0, 0]
    pairs = (recoded[:, 1:], recoded[:, :-1]), (recoded[1:], recoded[:-1])
    beside = [torch.corrcoef(torch.stack([x.flatten(), y.flatten()]))[0, 1] for x, y in pairs]
    worst = max(beside, key=abs).item()
    tell({
        "Nothing gets through: what it sends on is the same everywhere.": not recoded.std() > 1e-3,
        f"Neighbours in what it sends on still correlate by {worst:.2f}; ±0.3 is asked for.": not abs(worst) <= 0.3,
    })  # fmt: skip


def _scene() -> Tensor:
    """A picture (128, 128) of noise with an amplitude of 1/f, the same on every run."""
    f = torch.fft.fftfreq(128, dtype=torch.float64)
    amplitude = 1 / (f[:, None] ** 2 + f**2).sqrt().clamp(min=1 / 128)
    picture = torch.fft.ifft2(torch.fft.fft2(normal(128, 128, seed=17)) * amplitude).real
    return picture / picture.std()
