"""Checkers of notebook 12: right answers pass, wrong ones get the diagnosis they deserve."""

import numpy as np
import torch


def half(a, b, t):
    return t * (a - b).std() / len(a) ** 0.5


def ends(centre, width):
    return centre - width, centre + width


def by_numpy(a, b, t):
    d = np.asarray(a) - np.asarray(b)
    error = np.sqrt(np.square(d - d.mean()).sum() / (len(d) - 1) / len(d))
    return np.array([d.mean() - t * error, d.mean() + t * error])


def read(low, high, margin):
    if low > -margin and high < margin:
        return "alike"
    return "above" if low > 0 else "below" if high < 0 else "undecided"


def read_signs_first(low, high, margin):
    return "above" if low > 0 else "below" if high < 0 else read(low, high, margin)


def read_one_end(low, high, margin):
    if low > -margin or high < margin:
        return "alike" if low < 0 < high else read(low, high, margin)
    return read(low, high, margin)


def shares(train, variants, budget, better=np.argmax):
    return better([np.mean([train(v) for _ in range(budget // variants)]) for v in range(variants)])


def top_two(train, variants, budget):
    scores = {v: [train(v), train(v)] for v in range(variants)}
    for _ in range(budget - 2 * variants):
        two = sorted(scores, key=lambda v: -np.mean(scores[v]))[:2]
        v = min(two, key=lambda v: len(scores[v]))
        scores[v].append(train(v))
    return max(scores, key=lambda v: np.mean(scores[v]))


def upper_bounds(train, variants, budget):
    """The next seed for the variant that could still be the best, seen a little optimistically."""
    scores = [[train(v)] for v in range(variants)]
    for _ in range(budget - variants):
        bounds = [np.mean(s) + 2 / len(s) ** 0.5 for s in scores]
        v = int(np.argmax(bounds))
        scores[v].append(train(v))
    return torch.tensor([np.mean(s) for s in scores]).argmax()


RIGHT = {
    "paired_interval": [
        lambda a, b, t: ends((a - b).mean(), half(a, b, t)),
        lambda a, b, t: torch.stack(ends((a - b).mean(), half(a, b, t))),
        by_numpy,
    ],
    "reading": [
        read,
        lambda low, high, margin: (
            "alike"
            if max(abs(low), abs(high)) < margin
            else "undecided"
            if low * high <= 0
            else "above"
            if low > 0
            else "below"
        ),
    ],
    "choose_variant": [top_two, upper_bounds],
}
WRONG = {
    "paired_interval": {
        "b − a": lambda a, b, t: ends((b - a).mean(), half(a, b, t)),
        "Subtract first": lambda a, b, t: ends(
            (a - b).mean(), t * (a.var() + b.var()).sqrt() / len(a) ** 0.5
        ),
        "Your deviation divides by n.": lambda a, b, t: ends(
            (a - b).mean(), t * (a - b).std(correction=0) / len(a) ** 0.5
        ),
        "√n is missing": lambda a, b, t: ends((a - b).mean(), t * (a - b).std()),
        "1 / √n": lambda a, b, t: ends((a - b).mean(), t * (a - b).std() / len(a)),
        "t is missing": lambda a, b, t: ends((a - b).mean(), half(a, b, 1)),
        "Low comes first": lambda a, b, t: ends((a - b).mean(), -half(a, b, t)),
        "two numbers": lambda a, b, t: 0.5,
        "low, high": lambda a, b, t: (a - b).mean(),
        "in place": lambda a, b, t: a.sub_(b),
        "returned nothing": lambda a, b, t: None,
    },
    "reading": {
        "Ask for the margin first": read_signs_first,
        "Both must be": read_one_end,
        "too little to care": lambda low, high, margin: (
            "above" if low > 0 else "below" if high < 0 else "undecided"
        ),
        "lies above 0": lambda low, high, margin: "alike",
        "lies below 0": lambda low, high, margin: "above" if low > 0 else "undecided",
        "differences that matter": lambda low, high, margin: (
            "above" if low > 0 else "below" if high < 0 else "alike"
        ),
        "did not use the margin": lambda low, high, margin: read(low, high, 0.03),
        "four words": lambda low, high, margin: low > 0,
        "none of": lambda low, high, margin: "better",
    },
    "choose_variant": {
        "Train, and take": lambda train, variants, budget: 3,
        "take the highest": lambda *given: shares(*given, better=np.argmin),
        "Spend all 40": lambda train, variants, budget: shares(train, variants, 2 * variants),
        "Which variants need no further seed": shares,
        "All 40 trainings are spent": lambda train, variants, budget: shares(train, variants, 99),
        "A variant is a number": lambda train, variants, budget: train(8),
        "not 35": lambda train, variants, budget: round(train(0)) * 0 + 35,
        "returned nothing": lambda train, variants, budget: None,
    },
}
