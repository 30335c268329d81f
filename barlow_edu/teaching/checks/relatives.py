"""Checkers for notebook 11, the relatives of Barlow Twins."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from barlow_edu.methods.relatives import simclr_loss, vicreg_loss
from barlow_edu.teaching.checks.base import NotRight, attempt, checker, compare

CHECKERS = ("contrastive_loss", "vicreg_terms", "redundancy_from_contrast")


@checker
def contrastive_loss(function: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """Check a function (z_a, z_b, temperature) -> SimCLR's loss, which autograd can follow."""
    z_a, z_b = _two_views(7, 5)
    for temperature in (0.5, 1.5):
        right = simclr_loss(z_a, z_b, temperature)
        answer = attempt(function, z_a, z_b, temperature)
        compare(answer, right, _contrastive_mistakes(z_a, z_b, temperature), "The loss", 1e-6)
    loss = attempt(function, z_a.clone().requires_grad_(), z_b.clone(), 0.5)
    if not (torch.is_tensor(loss) and loss.requires_grad):
        raise NotRight(
            "The value is right, but autograd lost the way: leave out .item(), float(), .detach() and numpy."
        )


@checker
def vicreg_terms(function: Callable[[Tensor, Tensor], tuple]) -> None:
    """Check a function (z_a, z_b) -> invariance, variance and covariance term of VICReg."""
    z_a, z_b = _two_views(9, 4)
    z_a, z_b = 0.3 * z_a, 0.6 * z_b
    z_b[:, 0] *= 4  # one dimension whose deviation is above 1
    answer = attempt(function, z_a, z_b)
    try:
        answers = [torch.as_tensor(x) for x in answer]
    except (TypeError, ValueError, RuntimeError) as error:
        raise NotRight("Return three numbers: invariance, variance, covariance.") from error
    if len(answers) != 3:
        raise NotRight(
            f"Return three numbers, not {len(answers)}: invariance, variance, covariance."
        )
    right = vicreg_loss(z_a, z_b)[1:]
    _told_if_weighted(answers, right)
    mistakes = (
        _invariance_mistakes(z_a, z_b),
        _variance_mistakes(z_a, z_b),
        _covariance_mistakes(z_a, z_b),
    )
    names = ("The invariance", "The variance term", "The covariance term")
    for found, value, wrong, name in zip(answers, right, mistakes, names, strict=True):
        compare(found, value, wrong, name, 1e-3)  # with 0.0001 under the root, or without it


@checker
def redundancy_from_contrast(function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """Check a function (contrast, rows, columns) -> Σ_{i≠j} (ZᵀZ)_ij².

    contrast: Σ_{s≠t} (ZZᵀ)_st². rows (N,), columns (D,): squared lengths of the rows and columns of Z.
    """
    for n, d in ((4, 6), (7, 3)):
        z = _two_views(n, d)[0]
        rows, columns = z.square().sum(1), z.square().sum(0)
        contrast = _off_diagonal(z @ z.T).square().sum()
        right = _off_diagonal(z.T @ z).square().sum()
        answer = attempt(function, contrast, rows, columns)
        compare(answer, right, _duality_mistakes(contrast, rows, columns), "The redundancy", 1e-9)


def _contrastive_mistakes(z_a: Tensor, z_b: Tensor, temperature: float) -> dict[str, Tensor]:
    right = simclr_loss(z_a, z_b, temperature)
    n = len(z_a)
    a, b = F.normalize(z_a, dim=1), F.normalize(z_b, dim=1)
    everything = torch.cat((a, b)) @ torch.cat((a, b)).T / temperature
    twins = (a * b).sum(1).repeat(2) / temperature
    itself = torch.eye(2 * n, dtype=torch.bool)
    others = everything.masked_fill(itself, -math.inf)
    twin = torch.arange(2 * n).roll(n)
    between = a @ b.T / temperature
    pairs = torch.arange(n)
    raw = torch.cat((z_a, z_b)) @ torch.cat((z_a, z_b)).T / temperature
    across = [F.cross_entropy(x, pairs) for x in (between, between.T)]
    negatives = others.masked_fill(F.one_hot(twin).bool(), -math.inf)
    return {
        "An embedding may choose itself: take the 2 N cosines with itself out (−inf before the softmax).": (
            F.cross_entropy(everything, twin)
        ),
        "Only the other view's images are candidates. Those of its own view are negatives too.": (
            sum(across) / 2
        ),
        "Only view A looks for its twins, among the images of B. All 2 N embeddings look, among all others.": (
            across[0]
        ),
        "Only view A looks for its twins. The mean runs over all 2 N embeddings.": (
            F.cross_entropy(others[:n], twin[:n])
        ),
        "Scale every embedding to length 1 first: cosines, not products.": F.cross_entropy(
            raw.masked_fill(itself, -math.inf), twin
        ),
        "The temperature is missing.": simclr_loss(z_a, z_b, 1.0),
        "You multiplied by the temperature. Divide: a low temperature makes the softmax sharp.": (
            simclr_loss(z_a, z_b, 1 / temperature)
        ),
        "This is the sum over all 2 N. Take the mean.": right * 2 * n,
        "You divided by N. There are 2 N embeddings that look for their twin.": right * 2,
        "The sign is turned round: the loss is −log p.": -right,
        "The twin itself is missing among the candidates: it belongs below the fraction bar too.": (
            negatives.logsumexp(1) - twins
        ).mean(),
        "Only the numerator is there: the cosine of the twins. What pushes the others away?": (
            -twins.mean()
        ),
    }


def _told_if_weighted(answers: list[Tensor], right: tuple[Tensor, ...]) -> None:
    found = torch.stack([x.detach().double() for x in answers if x.ndim == 0])
    expected = torch.stack(tuple(right))
    weighted = expected * torch.tensor([25.0, 25.0, 1.0])
    if found.shape == weighted.shape and torch.allclose(found, weighted, rtol=1e-3):
        raise NotRight("These are the terms times 25, 25 and 1. Return them without their weights.")
    if found.shape == expected.shape and torch.allclose(found, expected.flip(0), rtol=1e-3):
        raise NotRight("The order is turned round: invariance, variance, covariance.")


def _invariance_mistakes(z_a: Tensor, z_b: Tensor) -> dict[str, Tensor]:
    squares = (z_a - z_b).square()
    return {
        "The invariance is summed over the dimensions, as in the paper. Take the mean of all N D entries.": (
            squares.sum(1).mean()
        ),
        "The invariance is a sum. Take the mean of all N D entries.": squares.sum(),
        "The invariance takes magnitudes. Take squares.": (z_a - z_b).abs().mean(),
        "The invariance is the root of what is asked for. Leave the root out.": squares.mean().sqrt(),
        "The embeddings of the invariance were centred. VICReg compares them as they are.": (
            (z_a - z_a.mean(0) - z_b + z_b.mean(0)).square().mean()
        ),
    }


def _variance_mistakes(z_a: Tensor, z_b: Tensor) -> dict[str, Tensor]:
    def both(term: Callable[[Tensor], Tensor]) -> Tensor:
        return (term(z_a) + term(z_b)) / 2

    def hinge(z: Tensor) -> Tensor:
        return (1 - z.std(0)).relu().mean()

    return {
        "The variance term adds the views (so it stands in the paper). Take their mean.": 2
        * both(hinge),
        "The variance term looks at view A only. Take the mean of both views.": hinge(z_a),
        "The variance term looks at view B only. Take the mean of both views.": hinge(z_b),
        "The hinge is missing: a deviation above 1 is good enough, it must not earn a bonus.": both(
            lambda z: (1 - z.std(0)).mean()
        ),
        "A deviation above 1 is no fault: max(0, 1 − σ), not the magnitude.": both(
            lambda z: (1 - z.std(0)).abs().mean()
        ),
        "The hinge is on the variance. It belongs on its root, the standard deviation.": both(
            lambda z: (1 - z.var(0)).relu().mean()
        ),
        "The variance was divided by N. VICReg divides by N − 1 (torch's default).": both(
            lambda z: (1 - z.std(0, correction=0)).relu().mean()
        ),
        "The variance term is a sum over dimensions. Take the mean.": both(
            lambda z: (1 - z.std(0)).relu().sum()
        ),
        "The variance was taken along the features. It runs over the batch, dimension by dimension.": (
            both(lambda z: (1 - z.std(1)).relu().mean())
        ),
    }


def _covariance_mistakes(z_a: Tensor, z_b: Tensor) -> dict[str, Tensor]:
    n, d = z_a.shape

    def off(z: Tensor) -> Tensor:
        return _off_diagonal(torch.cov(z.T)).square().sum() / d

    def everything(z: Tensor) -> Tensor:
        return torch.cov(z.T).square().sum() / d

    a, b = z_a - z_a.mean(0), z_b - z_b.mean(0)
    right = off(z_a) + off(z_b)
    return {
        "The covariance term holds the diagonal too, the variances. Leave them out.": (
            everything(z_a) + everything(z_b)
        ),
        "The covariance term is not divided by D.": right * d,
        "The covariance term is divided by D² or by the number of pairs. Divide by D.": right / d,
        "The covariance term is divided by the number of pairs, D (D − 1). Divide by D.": right
        / (d - 1),
        "The covariance was divided by N. VICReg divides by N − 1.": right * ((n - 1) / n) ** 2,
        "The covariance term looks at view A only. Add both views.": off(z_a),
        "The covariance term looks at view B only. Add both views.": off(z_b),
        "The covariance term takes the mean of the views. Here they are added.": right / 2,
        "This is the covariance between the views, as in Barlow Twins. VICReg looks at each view by itself.": (
            _off_diagonal(a.T @ b / (n - 1)).square().sum() / d
        ),
        "The embeddings were not centred before the products.": sum(
            _off_diagonal(z.T @ z / (n - 1)).square().sum() / d for z in (z_a, z_b)
        ),
        "These are correlations. VICReg takes covariances, without dividing by the deviations.": sum(
            _off_diagonal(torch.corrcoef(z.T)).square().sum() / d for z in (z_a, z_b)
        ),
    }


def _duality_mistakes(contrast: Tensor, rows: Tensor, columns: Tensor) -> dict[str, Tensor]:
    by_rows, by_columns = rows.square().sum(), columns.square().sum()
    return {
        "This is ‖ZᵀZ‖², diagonal and all. Take away Σ_j (squared length of column j)².": (
            contrast + by_rows
        ),
        "The diagonal of ZZᵀ is missing: add Σ_s (squared length of row s)² to get ‖ZZᵀ‖².": (
            contrast - by_columns
        ),
        "Rows and columns have changed places.": contrast + by_columns - by_rows,
        "This is the contrast itself. Correct it by both diagonals. (If you did: square each length first, then add. "
        "The plain sums of rows and columns are equal and cancel.)": contrast,
        "Both diagonals were added. One of them is taken away.": contrast + by_rows + by_columns,
    }


def _off_diagonal(square: Tensor) -> Tensor:
    return square[~torch.eye(len(square), dtype=torch.bool)]


def _two_views(n: int, d: int) -> tuple[Tensor, Tensor]:
    """Two related views (n, d), neither centred nor scaled."""
    generator = torch.Generator().manual_seed(110)
    z_a, noise = torch.randn(2, n, d, generator=generator, dtype=torch.float64)
    return 1.5 * z_a + 0.4, z_a + 0.7 * noise - 0.2
