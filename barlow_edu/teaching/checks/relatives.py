"""Checkers for notebook 13, the relatives of Barlow Twins."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from barlow_edu.methods.relatives import simclr_loss, vicreg_loss
from barlow_edu.teaching.checks.base import checker, follow, judge, judge_parts, tell
from barlow_edu.teaching.checks.worlds import centred, off_diagonal, redundancy, views


@checker
def contrastive_loss(function: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """Check a function (z_a, z_b, temperature) -> SimCLR's loss, which autograd can follow."""
    worlds = [(*views(7, 5, seed=110), 0.5), (*views(10, 4, seed=111), 1.5)]
    judge(function, worlds, simclr_loss, _CONTRASTIVE, "The loss", 1e-6)
    follow(function, worlds[0], simclr_loss)


def _similarities(
    a: Tensor, b: Tensor, t: float, unit: int | None = 1, itself: float = -math.inf
) -> Tensor:
    """Cosines of all 2 N with all 2 N over the temperature, ``itself`` on the diagonal."""
    z = torch.cat((a, b))
    z = F.normalize(z, dim=unit) if unit is not None else z
    return (z @ z.T / t).masked_fill(torch.eye(len(z), dtype=torch.bool), itself)


def _choose(similarity: Tensor, rows: int | None = None) -> Tensor:
    """Cross-entropy of the twin among all others, for the first ``rows`` of 2 N."""
    twin = torch.arange(len(similarity)).roll(len(similarity) // 2)
    return F.cross_entropy(similarity[:rows], twin[:rows])


def _across(a: Tensor, b: Tensor, t: float) -> Tensor:
    similarity = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / t
    return F.cross_entropy(similarity, torch.arange(len(a)))


def _without_twin(a: Tensor, b: Tensor, t: float) -> Tensor:
    similarity = _similarities(a, b, t)
    n = len(similarity)
    twin = F.one_hot(torch.arange(n).roll(n // 2)).bool()
    return (similarity.masked_fill(twin, -math.inf).logsumexp(1) - similarity[twin]).mean()


_CONTRASTIVE = {
    "An embedding may choose itself: take the 2 N cosines with itself out (−inf before the softmax).":
        lambda a, b, t: _choose(_similarities(a, b, t, itself=1 / t)),
    "You masked the cosines with itself by 0. exp(0) is 1, so each may still choose itself: mask with −inf.":
        lambda a, b, t: _choose(_similarities(a, b, t, itself=0.0)),
    "Only the other view's images are candidates. Those of its own view are negatives too.":
        lambda a, b, t: (_across(a, b, t) + _across(b, a, t)) / 2,
    "Only view A looks for its twins, among the images of B. All 2 N embeddings look, among all others.": _across,
    "Only view A looks for its twins. The mean runs over all 2 N embeddings.":
        lambda a, b, t: _choose(_similarities(a, b, t), len(a)),
    "Scale every embedding to length 1 first: cosines, not products.":
        lambda a, b, t: _choose(_similarities(a, b, t, None)),
    "You divided every column by its length (dim 0). An embedding is a row: normalise along dim 1.":
        lambda a, b, t: _choose(_similarities(a, b, t, 0)),
    "The temperature is missing.": lambda a, b, t: simclr_loss(a, b, 1.0),
    "You multiplied by the temperature. Divide: a low temperature makes the softmax sharp.":
        lambda a, b, t: simclr_loss(a, b, 1 / t),
    "This is the sum over all 2 N. Take the mean.": lambda a, b, t: simclr_loss(a, b, t) * 2 * len(a),
    "You divided by N. There are 2 N embeddings that look for their twin.": lambda a, b, t: simclr_loss(a, b, t) * 2,
    "The sign is turned round: the loss is −log p.": lambda a, b, t: -simclr_loss(a, b, t),
    "The twin itself is missing among the candidates: it belongs below the fraction bar too.": _without_twin,
    "Only the numerator is there: the cosine of the twins. What pushes the others away?":
        lambda a, b, t: -F.cosine_similarity(a, b).mean() / t,
}  # fmt: skip


@checker
def vicreg_terms(function: Callable[[Tensor, Tensor], tuple]) -> None:
    """Check a function (z_a, z_b) -> invariance, variance and covariance term of VICReg."""
    worlds = []
    for n, d, seed in ((9, 4, 110), (12, 5, 111)):
        z_a, z_b = views(n, d, seed)
        z_b[:, 0] *= 4  # one dimension whose deviation is above 1
        worlds.append((0.3 * z_a, 0.4 * z_b))
    # with 0.0001 under the root, or without it
    judge_parts(function, worlds, _right_terms, _VICREG, _TERMS, 1e-3, look=_all_at_once)


_TERMS = "three numbers: invariance, variance, covariance"


def _right_terms(z_a: Tensor, z_b: Tensor) -> Tensor:
    return torch.stack(tuple(vicreg_loss(z_a, z_b)[1:])).double()


def _all_at_once(terms: Tensor, z_a: Tensor, z_b: Tensor) -> None:
    right = _right_terms(z_a, z_b)
    weighted = right * torch.tensor([25.0, 25.0, 1.0])
    tell({
        "These are the terms times 25, 25 and 1. Return them without their weights.":
            torch.allclose(terms, weighted, rtol=1e-3),
        "The order is turned round: invariance, variance, covariance.":
            torch.allclose(terms, right.flip(0), rtol=1e-3),
    })  # fmt: skip


def _mean(hinge: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """The mean of a variance term over both views."""
    return lambda a, b: (hinge(a) + hinge(b)) / 2


def _hinge(z: Tensor) -> Tensor:
    return (1 - z.std(0)).relu().mean()


def _of(table: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Σ of squares off the diagonal of a table (D, D) made of one view, over D."""
    return lambda z: redundancy(table(z)) / z.shape[1]


def _sum(term: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda a, b: term(a) + term(b)


_off = _of(lambda z: z.T.cov())


def _times(factor: Callable[[int, int], float]) -> Callable[[Tensor, Tensor], Tensor]:
    """The covariance term times a factor of N and D."""
    return lambda a, b: factor(*a.shape) * _sum(_off)(a, b)


def _between(a: Tensor, b: Tensor) -> Tensor:
    return redundancy(centred(a).T @ centred(b) / (len(a) - 1)) / a.shape[1]


_CROSS = "This is the covariance between the views, as in Barlow Twins. VICReg looks at each view by itself."
_VICREG = {
    "The invariance": {
        "The invariance is summed over the dimensions, as in the paper. Take the mean of all N D entries.":
            lambda a, b: (a - b).square().sum(1).mean(),
        "The invariance is a sum. Take the mean of all N D entries.": lambda a, b: (a - b).square().sum(),
        "The invariance takes magnitudes. Take squares.": lambda a, b: (a - b).abs().mean(),
        "The invariance is the root of what is asked for. Leave the root out.":
            lambda a, b: (a - b).square().mean().sqrt(),
        "The embeddings of the invariance were centred. VICReg compares them as they are.":
            lambda a, b: (centred(a) - centred(b)).square().mean(),
    },
    "The variance term": {
        "The variance term adds the views (so it stands in the paper). Take their mean.": _sum(_hinge),
        "The variance term looks at view A only. Take the mean of both views.": lambda a, b: _hinge(a),
        "The variance term looks at view B only. Take the mean of both views.": lambda a, b: _hinge(b),
        "The hinge is missing: a deviation above 1 is good enough, it must not earn a bonus.":
            _mean(lambda z: (1 - z.std(0)).mean()),
        "A deviation above 1 is no fault: max(0, 1 − σ), not the magnitude.":
            _mean(lambda z: (1 - z.std(0)).abs().mean()),
        "The hinge is on the variance. It belongs on its root, the standard deviation.":
            _mean(lambda z: (1 - z.var(0)).relu().mean()),
        "The variance was divided by N. VICReg divides by N − 1 (torch's default).":
            _mean(lambda z: (1 - z.std(0, correction=0)).relu().mean()),
        "The variance term is a sum over dimensions. Take the mean.": _mean(lambda z: (1 - z.std(0)).relu().sum()),
        "The variance was taken along the features. It runs over the batch, dimension by dimension.":
            _mean(lambda z: (1 - z.std(1)).relu().mean()),
    },
    "The covariance term": {
        "The covariance term holds the diagonal too, the variances. Leave them out.":
            _sum(lambda z: z.T.cov().square().sum() / z.shape[1]),
        "The covariance term is not divided by D.": _times(lambda n, d: d),
        "The covariance term is divided by D² or by the number of pairs. Divide by D.": _times(lambda n, d: 1 / d),
        "The covariance term is divided by the number of pairs, D (D − 1). Divide by D.":
            _times(lambda n, d: 1 / (d - 1)),
        "The covariance was divided by N. VICReg divides by N − 1.": _times(lambda n, d: ((n - 1) / n) ** 2),
        "The covariance term looks at view A only. Add both views.": lambda a, b: _off(a),
        "The covariance term looks at view B only. Add both views.": lambda a, b: _off(b),
        "The covariance term takes the mean of the views. Here they are added.": _times(lambda n, d: 1 / 2),
        _CROSS: _between,
        _CROSS + " ": lambda a, b: 2 * _between(a, b),
        _CROSS + "  ": lambda a, b: _between(a, b) * ((len(a) - 1) / len(a)) ** 2,
        "The embeddings were not centred before the products.": _sum(_of(lambda z: z.T @ z / (len(z) - 1))),
        "These are correlations. VICReg takes covariances, without dividing by the deviations.":
            _sum(_of(lambda z: z.T.corrcoef())),
        "The covariance term adds magnitudes. Add squares.":
            _sum(lambda z: off_diagonal(z.T.cov()).abs().sum() / z.shape[1]),
    },
}  # fmt: skip


@checker
def redundancy_from_contrast(function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """Check a function (contrast, rows, columns) -> Σ_{i≠j} (ZᵀZ)_ij².

    contrast: Σ_{s≠t} (ZZᵀ)_st². rows (N,), columns (D,): squared lengths of the rows and columns of Z.
    """
    worlds = []
    for n, d in ((4, 6), (7, 3)):
        z = views(n, d, seed=110)[0]
        worlds.append((redundancy(z @ z.T), z.square().sum(1), z.square().sum(0)))
    judge(function, worlds, _dual, _DUALITY, "The redundancy", 1e-9)


def _dual(contrast: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return contrast + rows.square().sum() - columns.square().sum()


_DUALITY = {
    "This is ‖ZᵀZ‖², diagonal and all. Take away Σ_j (squared length of column j)².":
        lambda c, r, k: c + r.square().sum(),
    "The diagonal of ZZᵀ is missing: add Σ_s (squared length of row s)² to get ‖ZZᵀ‖².":
        lambda c, r, k: c - k.square().sum(),
    "Rows and columns have changed places.": lambda c, r, k: _dual(c, k, r),
    "This is the contrast itself. Correct it by both diagonals. (If you did: square each length first, then add. "
    "The plain sums of rows and columns are equal and cancel.)": lambda c, r, k: c,
    "Both diagonals were added. One of them is taken away.": lambda c, r, k: c + r.square().sum() + k.square().sum(),
}  # fmt: skip
