"""Mistakes that are made in more than one exercise: diagnosis -> the function that makes them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from barlow_edu.teaching.checks.base import Shaped
from barlow_edu.teaching.checks.worlds import (
    centred,
    correlation,
    invariance,
    loss,
    off_diagonal,
    perplexity,
    redundancy,
    scaled,
    standard,
)

WITHOUT_MEAN = "You did not subtract the means before you divided by the standard deviations."
ALONG_FEATURES = (
    "You standardised along the features (dim 1). Take mean and std over the batch: dim 0."
)

# of C, from two views (N, D)
CORRELATION = {
    "This compares images with images, (N, N). C is (D, D): transpose the first table, a.T @ b.":
        lambda a, b: Shaped([len(a)] * 2),
    "This is the covariance, which changes with the scale of z: divide by the standard deviations too.":
        lambda a, b: centred(a).T @ centred(b) / len(a),
    "This is the covariance with N − 1: divide by the standard deviations too.":
        lambda a, b: centred(a).T @ centred(b) / (len(a) - 1),
    "This is the cosine: you scaled, but did not subtract the mean of each dimension.":
        lambda a, b: (a / a.norm(dim=0)).T @ (b / b.norm(dim=0)),
    WITHOUT_MEAN: lambda a, b: scaled(a).T @ scaled(b) / len(a),
    "The sum over the batch is right. Divide it by N, the number of images.": lambda a, b: correlation(a, b) * len(a),
    "You divided by D. C is an average over the images: divide by N, len(z_a).":
        lambda a, b: correlation(a, b) * len(a) / a.shape[1],
    ALONG_FEATURES: lambda a, b: standard(a, 1).T @ standard(b, 1) / len(a),
    "This is the transpose of C: row i belongs to view A, column j to view B.": lambda a, b: correlation(b, a),
    "You made C symmetric, but C is symmetric only when the views are equal: C_ij and C_ji compare "
    "different columns.": lambda a, b: (correlation(a, b) + correlation(b, a)) / 2,
    "This correlates view A with itself. The second table must be view B.": lambda a, b: correlation(a, a),
    "This correlates view B with itself. The first table must be view A.": lambda a, b: correlation(b, b),
    "You divided by the variances. Divide by the standard deviations, their roots.":
        lambda a, b: (centred(a) / a.var(0, correction=0)).T @ (centred(b) / b.var(0, correction=0)) / len(a),
}  # fmt: skip


def _upper(c: Tensor) -> Tensor:
    return torch.triu(c, 1).square().sum()


# of the loss, from C and λ
LOSS = {
    "This is the sum on the diagonal alone, the invariance: the redundancy is missing.": lambda c, w: invariance(c),
    "This is the sum off the diagonal alone, times λ: the invariance is missing.": lambda c, w: w * redundancy(c),
    "λ is missing: it weighs the sum off the diagonal, the redundancy.": lambda c, w: loss(c, 1),
    "λ belongs to the sum off the diagonal, the redundancy, not to the other one.":
        lambda c, w: w * invariance(c) + redundancy(c),
    "You multiplied the whole loss by λ. It belongs to the sum off the diagonal, the redundancy, alone.":
        lambda c, w: w * loss(c, 1),
    "λ was squared with the entries: it stands before the square, not inside it.": lambda c, w: loss(c, w**2),
    "The second sum runs over i ≠ j only: leave the entries with i = j, the diagonal, out of it.":
        lambda c, w: invariance(c) + w * c.square().sum(),
    "You counted one side of the diagonal only. C is not symmetric: both sides count.":
        lambda c, w: invariance(c) + w * _upper(c),
    "You doubled the upper side of the diagonal. C is not symmetric: add both sides themselves.":
        lambda c, w: invariance(c) + 2 * w * _upper(c),
    "The target on the diagonal is 1, not 0: (1 − C_ii)².":
        lambda c, w: c.diagonal().square().sum() + w * redundancy(c),
    "You added magnitudes. The loss adds squares.":
        lambda c, w: (1 - c.diagonal()).abs().sum() + w * off_diagonal(c).abs().sum(),
    "The squares are missing on the diagonal: (1 − C_ii)².":
        lambda c, w: (1 - c.diagonal()).sum() + w * redundancy(c),
    "The squares are missing off the diagonal: C_ij².": lambda c, w: invariance(c) + w * off_diagonal(c).sum(),
    "You took the trace, one number, before you squared. Square 1 − C_ii for each i, then add.":
        lambda c, w: (1 - c.trace()) ** 2 + w * redundancy(c),
    "You added up 1 − C_ii before you squared. Square each, then add.":
        lambda c, w: (1 - c.diagonal()).sum() ** 2 + w * redundancy(c),
    "You added up the entries off the diagonal before you squared. Square each, then add.":
        lambda c, w: invariance(c) + w * off_diagonal(c).sum() ** 2,
    "You took means. The paper's loss is made of sums.":
        lambda c, w: (1 - c.diagonal()).square().mean() + w * off_diagonal(c).square().mean(),
    "You took means over all D² entries. The paper's loss is made of sums.": lambda c, w: loss(c, w) / c.numel(),
    "You took the mean on the diagonal. The paper's loss is made of sums.":
        lambda c, w: invariance(c) / len(c) + w * redundancy(c),
    "You took the mean off the diagonal. The paper's loss is made of sums.":
        lambda c, w: invariance(c) + w * off_diagonal(c).square().mean(),
}  # fmt: skip


def sizes(x: Tensor) -> Tensor:
    """Singular values above 0, apart from rounding."""
    values = torch.linalg.svdvals(x)
    return values[values > 1e-12]


def _entropy(x: Tensor) -> Tensor:
    return perplexity(sizes(x)).log()


def _raw(values: Tensor) -> Tensor:
    """exp(−Σ v log v) of values that do not add up to 1."""
    return (-torch.xlogy(values, values).sum()).clamp(max=700).exp()


# of exp(entropy) of a matrix's singular values
PERPLEXITY = {
    "This is the entropy itself. Take exp of it: then D equal values count as D.": _entropy,
    "This is the entropy in bits. Use the natural logarithm, and exp at the end.":
        lambda x: _entropy(x) / math.log(2),
    "You took exp of an entropy in bits. Use the natural logarithm, log and not log2.":
        lambda x: (_entropy(x) / math.log(2)).exp(),
    "You took 2 to the power of an entropy in nats. Use exp.": lambda x: 2 ** _entropy(x),
    "The sign of the entropy is turned: it is minus the sum of p log p.": lambda x: (-_entropy(x)).exp(),
    "You squared the singular values. Here p is each one divided by their sum.": lambda x: perplexity(sizes(x) ** 2),
    "The singular values were not divided by their sum. The shares must add up to 1.": lambda x: _raw(sizes(x)),
    "You divided by the largest singular value. Divide by their sum: the shares must add up to 1.":
        lambda x: _raw(sizes(x) / sizes(x)[0]),
    "This counts every singular value above 0 as one. A small one should count for less.":
        lambda x: float(len(sizes(x))),
    "This is the participation ratio, (Σ s)² / Σ s². A fair count too, but not the one asked for.":
        lambda x: sizes(x).sum() ** 2 / sizes(x).square().sum(),
}  # fmt: skip

# of solarised pictures, floats in [0, 1]
BRIGHT = 128 / 255
SOLARISED = {
    "Nothing has changed, not one pixel. Floats in [0, 1] never reach 128: there the threshold is 128/255.":
        lambda x: x,
    "You inverted every pixel. Only those at or above the threshold turn over.": lambda x: 1 - x,
    "Upside down: you inverted the dark pixels and left the bright ones.":
        lambda x: torch.where(x >= BRIGHT, x, 1 - x),
    "255 − x is for bytes, and takes floats far out of [0, 1]. There the inverse of x is 1 − x.":
        lambda x: torch.where(x >= BRIGHT, 255 - x, x),
    "You cut the bright pixels off at black. They are to turn over: 0.9 becomes 0.1.":
        lambda x: torch.where(x >= BRIGHT, 0, x),
}  # fmt: skip
