"""Checkers of notebooks 13, the relatives of Barlow Twins, and 17, since 2021."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from barlow_edu.evaluation.probes import few_label_probe
from barlow_edu.methods.relatives import negative_cosine
from barlow_edu.teaching.checks.base import attempt, checker, features, follow, judge, numbers, tell
from barlow_edu.teaching.checks.worlds import cosines, normal, redundancy, standard, views
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
        "You masked the cosine with itself by 0. exp(0) is 1, so each may still choose itself: mask with −inf.":
            {"itself": 0.0},
        "Only the other view's images are candidates. Those of its own view are negatives too.":
            lambda a, b, t: (_across(a, b, t) + _across(b, a, t)) / 2,
        "Only view A looks for its twins, among the images of B. All 2 N embeddings look, among all others.": _across,
        "Only view A looks for its twins. The mean runs over all 2 N embeddings.":
            lambda a, b, t: _contrast(a, b, t, rows=len(a)),
        "Scale every embedding to length 1 first: cosines, not products.": {"unit": None},
        "You divided every column by its length (dim 0). An embedding is a row: normalise along dim 1.": {"unit": 0},
        "The temperature is missing.": {"t": 1.0},
        "You multiplied by the temperature. Divide by it: a low temperature makes the softmax sharp.":
            lambda a, b, t: _contrast(a, b, 1 / t),
        "This is the sum over all 2 N. Take the mean.": lambda a, b, t: _contrast(a, b, t) * 2 * len(a),
        "You divided by N. There are 2 N embeddings that look for a twin.": lambda a, b, t: _contrast(a, b, t) * 2,
        "The sign is turned round: the loss is −log p.": lambda a, b, t: -_contrast(a, b, t),
        "The twin itself is missing below the fraction bar: it is a candidate too.": {"without_twin": True},
        "Only the numerator is there: the cosine of the twins. What pushes the others away?":
            lambda a, b, t: -F.cosine_similarity(a, b).mean() / t,
    }, "The loss", 1e-6)  # fmt: skip
    follow(function, worlds[0], _contrast)


@checker
def redundancy_from_contrast(function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """Check a function (contrast, rows, columns) -> Σ_{i≠j} (ZᵀZ)_ij².

    contrast: Σ_{s≠t} (ZZᵀ)_st². rows (N,), columns (D,): squared lengths of the rows and columns of Z.
    """
    tables = [views(n, d, seed=110)[0] for n, d in ((4, 6), (7, 3))]
    worlds = [(redundancy(z @ z.T), z.square().sum(1), z.square().sum(0)) for z in tables]
    judge(function, worlds, lambda c, r, k: c + r.square().sum() - k.square().sum(), {
        "This is ‖ZᵀZ‖², diagonal and all. Take away Σ_j (squared length of column j)².":
            lambda c, r, k: c + r.square().sum(),
        "The diagonal of ZZᵀ is missing: add Σ_s (squared length of row s)² to get ‖ZZᵀ‖².":
            lambda c, r, k: c - k.square().sum(),
        "Rows and columns have changed places.": lambda c, r, k: c + k.square().sum() - r.square().sum(),
        "This is the contrast itself. Correct it by both diagonals. (If you did: square each squared length first, "
        "then add. The plain sums over rows and over columns are equal, and cancel.)": lambda c, r, k: c,
        "Both diagonals were added. The one of ZᵀZ, from the columns, is taken away.":
            lambda c, r, k: c + r.square().sum() + k.square().sum(),
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


@checker
def corrupted(function: Callable[[Tensor, Tensor, float, torch.Generator], Tensor]) -> None:
    """Check a function (x, pool, rate, generator) -> x, where ``rate`` of the entries are of pool's own column."""
    apart = 20 * torch.arange(6)  # no value of a column could stand in another one
    x, pool = normal(400, 6, seed=170) + apart, normal(300, 6, seed=171) + apart
    for rate in (0.6, 0.2):
        tables = []
        for seed in (1, 2):  # the page's own generator stands elsewhere: that may not matter
            torch.manual_seed(seed)
            answer = attempt(function, x, pool, rate, torch.Generator().manual_seed(172))
            tables.append(numbers(answer, "a table of the shape of x, (N, columns)", *x.shape))
        new = answer != x
        own = answer[:, None] == pool  # (N, M, columns): which entry of the pool it is
        share, source = new.double().mean().item(), own.long().argmax(1)
        many = new.sum(1) > 1  # rows with several new entries
        spread = torch.where(new, source, -1).amax(1) > torch.where(new, source, 300).amin(1)
        tell({
            "Nothing has changed: torch.where(mask, drawn, x).": share == 0,
            "Some new entries come from elsewhere. Draw each from its own column of pool.": not own.any(1)[new].all(),
            "Whole rows or whole columns are replaced. The mask has the shape of x: each entry has its own chance.":
                any(((new.sum(d) == 0) | (new.sum(d) == new.shape[d])).all() for d in (0, 1)),
            "All new entries of a row come from one row of pool, so they still fit each other. Draw for each entry.":
                not spread[many].any(),
            "The mask is turned round: with probability rate an entry is replaced, not kept.":
                abs(share - (1 - rate)) < 0.05,
            f"{share:.0%} of the entries are replaced; rate is {rate:.0%}.": abs(share - rate) > 0.05,
            "The same generator gives another table: hand generator on to rand and to randint.":
                not torch.equal(*tables),
        })  # fmt: skip


def _mixed(z_a, z_b, order, alpha, scale=standard) -> Tensor:
    a, b = scale(z_a), scale(z_b)
    return (alpha * a + (1 - alpha) * b[order]).T @ a / len(a)


@checker
def mixed_target(function: Callable[[Tensor, Tensor, Tensor, float], Tensor]) -> None:
    """Check a function (z_a, z_b, order, alpha) -> α AᵀA/N + (1−α) B[order]ᵀA/N, (D, D), of standardised A, B."""
    orders = [torch.randperm(n, generator=torch.Generator().manual_seed(n)) for n in (30, 21)]
    worlds = [(*views(30, 4, 173), orders[0], 0.3), (*views(21, 5, 175), orders[1], 0.8)]
    judge(function, worlds, _mixed, {
        "The embeddings are not standardised: be.standardize first.": {"scale": lambda z: z},
        "α and 1 − α have changed places: α belongs to view A.": lambda a, b, o, x: _mixed(a, b, o, 1 - x),
        "Row n is mixed with row order[n] of view B. Yours is mixed with its own twin: b[order].":
            lambda a, b, o, x: _mixed(a, b, torch.arange(len(o)), x),
        "order belongs to view B alone. You have put both views into the new order.":
            lambda a, b, o, x: (x * standard(a) + (1 - x) * standard(b))[o].T @ standard(a) / len(o),
        "This is not yet divided by N.": lambda *w: _mixed(*w) * len(w[0]),
        "This is the transpose: the mixed rows come first, (…)ᵀ A.": lambda *w: _mixed(*w).T,
        "The second part is missing: (1 − α) times C of the partners and view A.":
            lambda a, b, o, x: x * standard(a).T @ standard(a) / len(o),
    }, "The target")  # fmt: skip


@checker
def better_rows(function: Callable[[Tensor], Tensor], to_beat: float = 0.85) -> None:
    """Check features, rows of digits (N, 64) -> (N, k): five labels a digit, right more often than ``to_beat``?"""
    from sklearn.datasets import load_digits
    from sklearn.preprocessing import StandardScaler

    rows, labels = load_digits(return_X_y=True)
    rows = torch.as_tensor(StandardScaler().fit(rows[::2]).transform(rows), dtype=torch.float32)
    labels = torch.as_tensor(labels)
    known, asked = (features(function, part, "rows") for part in (rows[::2], rows[1::2]))
    parts = known, labels[::2], asked, labels[1::2]
    accuracy = few_label_probe(*parts, per_class=(5,), seeds=range(10))[5].mean
    short = f"{accuracy:.1%} with five labels a digit, to beat: {to_beat:.1%}. Change one thing."
    tell({short: accuracy <= to_beat})
