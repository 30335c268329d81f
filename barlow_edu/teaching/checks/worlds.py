"""The hidden inputs of the checkers, and the few formulas that several of them share.

Every draw has a seed of its own, so that a checker says the same on every run and leaves the page's generators alone.
"""

from __future__ import annotations

from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import Tensor

# Added to every seed while answers are graded: those who read the checkers know the inputs of 0 alone.
GRADING: ContextVar[int] = ContextVar("GRADING", default=0)


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


def centred(z: Tensor, dim: int = 0) -> Tensor:
    """Without the mean along ``dim``."""
    return z - z.mean(dim, keepdim=True)


def standard(z: Tensor, dim: int = 0, correction: int = 0) -> Tensor:
    """Mean 0 and variance 1 along ``dim``."""
    return centred(z, dim) / z.std(dim, keepdim=True, correction=correction)


def scaled(z: Tensor) -> Tensor:
    """Divided by the standard deviations, but not centred."""
    return z / z.std(0, correction=0)


def correlation(z_a: Tensor, z_b: Tensor) -> Tensor:
    """C (D, D) of two views (N, D)."""
    return standard(z_a).T @ standard(z_b) / len(z_a)


def matrix(d: int, seed: int) -> Tensor:
    """A C (d, d), not symmetric."""
    return correlation(*views(4 * d, d, seed))


def off_diagonal(c: Tensor) -> Tensor:
    """The D (D − 1) entries off the diagonal."""
    return c[~torch.eye(len(c), dtype=torch.bool)]


def invariance(c: Tensor) -> Tensor:
    """Σ_i (1 − C_ii)²."""
    return (1 - c.diagonal()).square().sum()


def redundancy(c: Tensor) -> Tensor:
    """Σ_{i≠j} C_ij²."""
    return off_diagonal(c).square().sum()


def loss(c: Tensor, lambd: float) -> Tensor:
    """The Barlow Twins loss of C (D, D)."""
    return invariance(c) + lambd * redundancy(c)


def cosines(a: Tensor, b: Tensor, dim: int = 1) -> Tensor:
    """Every row of ``a`` with every row of ``b``; a mistake with ``dim=0``, where columns get length 1."""
    return F.normalize(a, dim=dim) @ F.normalize(b, dim=dim).T


def perplexity(values: Tensor) -> Tensor:
    """exp(entropy) of non-negative values, divided by their sum."""
    share = values / values.sum()
    return torch.exp(-torch.xlogy(share, share).sum())
