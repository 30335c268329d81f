"""Checkers of notebook 12: right answers pass, wrong ones get the diagnosis they deserve."""

import numpy as np
import torch
from scipy.stats import binom


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
    "false_alarms": [
        lambda tests, level: 1 - (1 - level) ** tests,
        lambda tests, level: torch.tensor(binom.sf(0, tests, level)),
    ],
}
WRONG = {
    "paired_interval": {
        "b − a": lambda a, b, t: ends((b - a).mean(), half(a, b, t)),
        "Subtract first": lambda a, b, t: ends(
            (a - b).mean(), t * (a.var() + b.var()).sqrt() / len(a) ** 0.5
        ),
        "divided by n.": lambda a, b, t: ends(
            (a - b).mean(), t * (a - b).std(correction=0) / len(a) ** 0.5
        ),
        "√n is missing": lambda a, b, t: ends((a - b).mean(), t * (a - b).std()),
        "1 / √n": lambda a, b, t: ends((a - b).mean(), t * (a - b).std() / len(a)),
        "t is missing": lambda a, b, t: ends((a - b).mean(), half(a, b, 1)),
        "Low comes first": lambda a, b, t: ends((a - b).mean(), -half(a, b, t)),
        "two numbers": lambda a, b, t: 0.5,
        "shape": lambda a, b, t: (a - b).mean(),
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
    "false_alarms": {
        "added": lambda tests, level: tests * level,
        "all of them are quiet": lambda tests, level: (1 - level) ** tests,
        "every single one": lambda tests, level: level**tests,
        "opposite": lambda tests, level: 1 - level**tests,
        "exactly one": lambda tests, level: binom.pmf(1, tests, level),
        "percent": lambda tests, level: 100 - 100 * (1 - level) ** tests,
        "values differ": lambda tests, level: level,
    },
}
