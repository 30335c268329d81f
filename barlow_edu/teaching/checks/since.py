"""Checkers of notebook 17: a view of a table, the target of mixed twins, features of rows to beat a number."""

from collections.abc import Callable

import torch
from torch import Tensor

from barlow_edu.evaluation.probes import few_label_probe
from barlow_edu.teaching.checks.base import attempt, checker, features, judge, numbers, tell
from barlow_edu.teaching.checks.worlds import normal, standard, views


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
            "A new entry is a value that its own column has somewhere in pool. Yours also come from elsewhere.":
                not own.any(1)[new].all(),
            "Whole rows or whole columns are replaced. The mask has the shape of x: each entry has its own chance.":
                any(((new.sum(d) == 0) | (new.sum(d) == new.shape[d])).all() for d in (0, 1)),
            "All new entries of a row come from one row of pool: draw for each entry.": not spread[many].any(),
            "The mask is turned round: rate is the chance to be replaced, not kept.": abs(share - (1 - rate)) < 0.05,
            f"{share:.0%} of the entries are replaced; rate is {rate:.0%}.": abs(share - rate) > 0.05,
            "The same generator gives another table: hand generator on to rand, randint.": not torch.equal(*tables),
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
