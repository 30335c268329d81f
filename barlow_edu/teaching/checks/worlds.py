"""What several checkers share: hidden inputs, formulas, and the mistakes that are made in more than one exercise.

Every draw has a seed of its own, so that a checker says the same on every run and leaves the page's generators alone.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from barlow_edu.teaching.checks.base import GRADING, Shaped, numbers, tell


def drawn(seed: int) -> torch.Generator:
    """The generator of one draw."""
    return torch.Generator().manual_seed(seed + GRADING.get())


def normal(*shape: int, seed: int) -> Tensor:
    """Standard normal numbers, float64."""
    return torch.randn(*shape, generator=drawn(seed), dtype=torch.float64)


def views(n: int, d: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two related views (n, d), float64, neither centred nor scaled, no two dimensions alike."""
    z_a, noise = normal(2, n, d, seed=seed)
    scale, shift = torch.linspace(0.5, 3, d), torch.linspace(2, -1, d)
    return z_a * scale + shift, (z_a + 0.7 * noise) / scale - 2 * shift


def matrix(d: int, seed: int) -> Tensor:
    """A C (d, d), not symmetric."""
    return correlation(*views(4 * d, d, seed))


def centred(z: Tensor, dim: int = 0) -> Tensor:
    """Without the mean along ``dim``."""
    return z - z.mean(dim, keepdim=True)


def standard(z: Tensor, dim: int = 0) -> Tensor:
    """Mean 0 and variance 1 along ``dim``."""
    return centred(z, dim) / z.std(dim, keepdim=True, correction=0)


def correlation(z_a: Tensor, z_b: Tensor, scale=standard, n: int | None = None) -> Tensor:
    """C (D, D) of two views (N, D); a mistake with another ``scale`` or ``n``."""
    return scale(z_a).T @ scale(z_b) / (n or len(z_a))


def off_diagonal(c: Tensor) -> Tensor:
    """The D (D − 1) entries off the diagonal."""
    return c[~torch.eye(len(c), dtype=torch.bool)]


def redundancy(c: Tensor) -> Tensor:
    """Σ_{i≠j} C_ij²."""
    return off_diagonal(c).square().sum()


def cosines(a: Tensor, b: Tensor, dim: int = 1) -> Tensor:
    """Every row of ``a`` with every row of ``b``; a mistake with ``dim=0``, where columns get length 1."""
    return F.normalize(a, dim=dim) @ F.normalize(b, dim=dim).T


def embedding(answer: Any, names: str, rows: int, dim: int | None = None) -> Tensor:
    """A learner's embedding (rows, D), standardised. NotRight where it is none, or a dimension never changes."""
    z = numbers(answer, names, rows, dim)
    flat = "One of the dimensions never changes, so it has no correlation with anything."
    tell({flat: (z.std(0) < 1e-6).any()})
    return standard(z)


BRIGHT = 128 / 255  # the first byte that is solarised


def solarised(x: Tensor) -> Tensor:
    """Images, floats in [0, 1] or bytes, with their bright pixels inverted."""
    top, threshold = (255, 128) if x.dtype == torch.uint8 else (1, BRIGHT)
    return torch.where(x >= threshold, top - x, x)


ALONG_FEATURES = "You standardised along the features (dim 1). Take mean and std over the batch: dim 0."  # fmt: skip
# of ``correlation``
CORRELATION = {
    "This compares images with images, (N, N). C is (D, D): transpose the first table, a.T @ b.":
        lambda a, b: Shaped([len(a)] * 2),
    "This is the covariance, which changes with the scale of z: divide by the standard deviations, too.":
        {"scale": centred},
    "This is the covariance with N − 1. Divide by N instead, and by the standard deviations, too.":
        lambda a, b: correlation(a, b, centred, len(a) - 1),
    "This is the cosine: you scaled, but did not subtract the mean of each dimension.":
        lambda a, b: cosines(a.T, b.T),
    "You did not subtract the means before you divided by the standard deviations.":
        {"scale": lambda z: z / z.std(0, correction=0)},
    "The sum over the batch is right. Divide it by N, the number of images.": {"n": 1},
    "You divided by D. C is an average over the images: divide by N, len(z_a).":
        lambda a, b: correlation(a, b, n=a.shape[1]),
    ALONG_FEATURES: {"scale": lambda z: standard(z, 1)},
    "This is the transpose of C: row i belongs to view A, column j to view B.": lambda a, b: correlation(b, a),
    "You made C symmetric, but C is symmetric only when the views are equal: C_ij and C_ji compare "
    "different columns.": lambda a, b: (correlation(a, b) + correlation(b, a)) / 2,
    "This correlates view A with itself. The second table must be view B.": lambda a, b: correlation(a, a),
    "This correlates view B with itself. The first table must be view A.": lambda a, b: correlation(b, b),
    "You divided by the variances. Divide by their roots, the standard deviations.":
        {"scale": lambda z: centred(z) / z.var(0, correction=0)},
}  # fmt: skip

# of ``solarised``, for floats
SOLARISED = {
    "Nothing has changed, not one pixel. Floats in [0, 1] never reach 128: their threshold is 128/255.": lambda x: x,
    "You inverted every pixel. Only those at or above the threshold turn over.": lambda x: 1 - x,
    "Upside down: you inverted the dark pixels and left the bright ones.": lambda x: 1 - solarised(x),
    "255 − x is for bytes. It takes floats far out of [0, 1]: their inverse is 1 − x.":
        lambda x: torch.where(x >= BRIGHT, 255 - x, x),
    "You cut the bright pixels off at black. They are to turn over: 0.9 becomes 0.1.":
        lambda x: torch.where(x >= BRIGHT, 0, x),
}  # fmt: skip
