"""Checkers of notebook 00."""

import torch
from torch import Tensor

from barlow_edu.teaching.checks.base import checker, judge
from barlow_edu.teaching.checks.worlds import cosines, drawn, matrix, normal, off_diagonal


def _rms(c: Tensor, entries=off_diagonal, mean=torch.mean, root=torch.sqrt) -> Tensor:
    return root(mean(entries(c).square()))


@checker
def off_diagonal_rms(learner) -> None:
    """f(c) -> root mean square of the entries off the diagonal; c is (D, D)."""
    worlds = [(matrix(6, seed=3).float(),), (matrix(9, seed=4).float(),)]
    judge(learner, worlds, _rms, {
        "That is the root mean square of all of C. Leave the diagonal out.": {"entries": lambda c: c},
        "You divided by D². Off the diagonal D² − D entries remain.": {"entries": lambda c: c - c.diagonal().diag()},
        "That is the mean square. Take its root.": {"root": lambda x: x},
        "That is the sum of squares. Take their mean, then its root.": {"mean": torch.sum, "root": lambda x: x},
        "That is the root of the sum of squares. Take their mean before you take the root.": {"mean": torch.sum},
        "That is the plain mean: signs cancel. Square the entries first.": lambda c: off_diagonal(c).mean(),
        "That is the mean absolute value. Squares, their mean, its root.": lambda c: off_diagonal(c).abs().mean(),
        "That is the standard deviation: do not take the mean away.": lambda c: off_diagonal(c).std(),
        "That is the diagonal. Look at everything else.": {"entries": torch.diagonal},
    }, "the off-diagonal size")  # fmt: skip


def _twins(n: int, d: int, seed: int) -> tuple[Tensor, Tensor]:
    """Embeddings (n, d), float32, and their twins in another order; the lengths vary."""
    z, noise = (normal(2, n, d, seed=seed) * torch.linspace(0.4, 2.5, d)).float()
    generator = drawn(seed)
    lengths = 0.2 + 3 * torch.rand(n, 1, generator=generator)
    return z, ((z + 0.3 * noise) * lengths)[torch.randperm(n, generator=generator)]


@checker
def find_twins(learner) -> None:
    """f(z_a, z_b) -> (N,) row numbers: for each row of z_a, the most similar (cosine) row of z_b."""
    worlds = [_twins(30, 8, seed=5), _twins(21, 6, seed=6)]
    judge(learner, worlds, lambda a, b: cosines(a, b).argmax(1), {
        "Return row numbers (argmax), not similarities.": lambda a, b: torch.float32,
        "You searched among z_a for the rows of z_b: the other way round.": lambda a, b: cosines(a, b).argmax(0),
        "You divided columns by their lengths: normalise along dim 1.": lambda a, b: cosines(a, b, dim=0).argmax(1),
        "Long vectors win: divide by the lengths, so that directions count.": lambda a, b: (a @ b.T).argmax(1),
        "You took the least similar row.": lambda a, b: cosines(a, b).argmin(1),
        "Every row found itself: compare z_a with z_b, not with z_a.": lambda a, b: torch.arange(len(a)),
        "You used the distance. As lengths differ, use the cosine.": lambda a, b: torch.cdist(a, b).argmin(1),
    }, "the row numbers")  # fmt: skip
