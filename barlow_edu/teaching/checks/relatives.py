"""Checkers for notebook 13, the relatives of Barlow Twins."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from barlow_edu.methods.relatives import negative_cosine
from barlow_edu.teaching.checks.base import attempt, checker, follow, judge, numbers, tell
from barlow_edu.teaching.checks.worlds import cosines, redundancy, views
from barlow_edu.teaching.live import LiveProblem


def _contrast(a, b, t, unit=1, itself=-math.inf, rows=None, without_twin=False) -> Tensor:
    """−log p of the twin among all others, the mean over the first ``rows`` of 2 N; ``itself``: on the diagonal."""
    z = torch.cat((a, b)) if unit is None else F.normalize(torch.cat((a, b)), dim=unit)
    similarity = (z @ z.T / t).masked_fill(torch.eye(len(z), dtype=torch.bool), itself)[:rows]
    twin = F.one_hot(torch.arange(len(z)).roll(len(a)))[:rows].bool()
    below = similarity.masked_fill(twin, -math.inf) if without_twin else similarity
    return (below.logsumexp(1) - similarity[twin]).mean()


def _across(a: Tensor, b: Tensor, t: float) -> Tensor:
    return F.cross_entropy(cosines(a, b) / t, torch.arange(len(a)))


@checker
def contrastive_loss(function: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """Check a function (z_a, z_b, temperature) -> SimCLR's loss, which autograd can follow."""
    worlds = [(*views(7, 5, seed=110), 0.5), (*views(10, 4, seed=111), 1.5)]
    judge(function, worlds, _contrast, {
        "An embedding may choose itself: take its cosine with itself out (−inf before the softmax).":
            lambda a, b, t: _contrast(a, b, t, itself=1 / t),
        "You masked the cosine with itself by 0, and exp(0) is 1: mask with −inf instead.": {"itself": 0.0},
        "Only the other view's images are candidates. Those of its own view are negatives too.":
            lambda a, b, t: (_across(a, b, t) + _across(b, a, t)) / 2,
        "Only view A looks for its twins, among the images of B. All 2 N embeddings look, among all others.": _across,
        "Only view A looks. The mean runs over all 2 N embeddings.": lambda a, b, t: _contrast(a, b, t, rows=len(a)),
        "Scale every embedding to length 1 first: cosines, not products.": {"unit": None},
        "You divided every column by its length (dim 0). An embedding is a row: normalise along dim 1.": {"unit": 0},
        "The temperature is missing.": {"t": 1.0},
        "You multiplied by the temperature. Divide by it.": lambda a, b, t: _contrast(a, b, 1 / t),
        "This is the sum over all 2 N. Take the mean.": lambda a, b, t: _contrast(a, b, t) * 2 * len(a),
        "You divided by N. There are 2 N embeddings that look for a twin.": lambda a, b, t: _contrast(a, b, t) * 2,
        "The sign is turned round: the loss is −log p.": lambda a, b, t: -_contrast(a, b, t),
        "The twin itself is missing below the fraction bar: it is a candidate too.": {"without_twin": True},
        "Only the numerator is there: the cosine of the twins. What pushes the others away?":
            lambda a, b, t: -F.cosine_similarity(a, b).mean() / t,
    }, "The loss", 1e-6)  # fmt: skip
    follow(function, worlds[0], _contrast)


def _dual(contrast: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return contrast + rows.square().sum() - columns.square().sum()


@checker
def redundancy_from_contrast(function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """Check a function (contrast, rows, columns) -> Σ_{i≠j} (ZᵀZ)_ij².

    contrast: Σ_{s≠t} (ZZᵀ)_st². rows (N,), columns (D,): squared lengths of the rows and columns of Z.
    """
    tables = [views(n, d, seed=110)[0] for n, d in ((4, 6), (7, 3))]
    worlds = [(redundancy(z @ z.T), z.square().sum(1), z.square().sum(0)) for z in tables]
    judge(function, worlds, _dual, {
        "This is ‖ZᵀZ‖², diagonal and all. Take off Σ_j (length of column j)⁴.": lambda c, r, k: c + r.square().sum(),
        "The diagonal of ZZᵀ is missing: add Σ_s (length of row s)⁴.": lambda c, r, k: c - k.square().sum(),
        "Rows and columns have changed places.": lambda c, r, k: _dual(c, k, r),
        "This is the contrast itself. Correct it by both diagonals. (If you did: square each length first, then add. "
        "The plain sums of rows and columns are equal and cancel.)": lambda c, r, k: c,
        "Both diagonals were added. Take one of them away.": lambda c, r, k: c + r.square().sum() + k.square().sum(),
    }, "The redundancy", 1e-9)  # fmt: skip


@checker
def my_target(function: Callable[[Tensor], Tensor]) -> None:
    """Check targets (N, D) -> (N, D) by what they train: SimSiam without a predictor, on a world of eight signals.

    Eight numbers are to say more than four different things, and agree across the views. How is up to the targets.
    """
    for seed in (0, 1):
        problem = LiveProblem(dim=8, batch_size=128, seed=seed)
        for _ in range(400):
            z_a, z_b = problem.embed()
            t_a, t_b = (_targets(function, z.detach()) for z in (z_a, z_b))
            loss = negative_cosine(z_a, t_b) + negative_cosine(z_b, t_a)
            problem.optimizer.zero_grad()
            loss.backward()
            problem.optimizer.step()
        problem.look()
        distinct, agree = problem.distinct(), problem.c.diagonal().mean().item()
        tell({
            f"Collapsed: the eight numbers say {distinct:.1f} different things, more than 4 are asked for. What in "
            "your targets keeps them from all saying the same?": not distinct > 4,
            f"Alive, but it has learned nothing: the diagonal of C is {agree:.2f} on average, 0.5 is asked for. Your "
            "targets hold too little of what the other view says.": not agree > 0.5,
        })  # fmt: skip


def _targets(function: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """What the learner makes of a batch. Raises NotRight where nothing can be trained towards it."""
    wanted = f"one target for each embedding, a tensor {tuple(z.shape)}"
    targets = numbers(attempt(function, z), wanted, *z.shape)
    same = "All images have the same target, which is the collapse itself."
    tell({same: (targets == targets[0]).all()})
    return targets.float()
