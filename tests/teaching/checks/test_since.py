"""The checkers of notebook 17: right answers pass, and each known mistake gets its own diagnosis."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.preprocessing import StandardScaler

from barlow_edu import checks


def columns(x):
    return torch.arange(x.shape[1])


def resampled(mask=lambda x, rate, g: torch.rand(x.shape, generator=g) < rate, rows=None):
    """A view of a table: ``mask`` says which entries are drawn anew, ``rows`` from which rows of the pool."""
    rows = rows or (lambda x, pool, g: torch.randint(len(pool), x.shape, generator=g))

    def view(x, pool, rate, g):
        return torch.where(mask(x, rate, g), pool[rows(x, pool, g), columns(x)], x)

    return view


def entry_by_entry(x, pool, rate, g):
    """The same in numpy, column after column."""
    draw, x, pool = np.random.default_rng(g.initial_seed()), x.numpy().copy(), pool.numpy()
    for j in range(x.shape[1]):
        hit = draw.random(len(x)) < rate
        x[hit, j] = draw.choice(pool[:, j], hit.sum())
    return torch.from_numpy(x)


def noisy(x, pool, rate, g):
    return torch.where(torch.rand(x.shape, generator=g) < rate, torch.randn_like(x), x)


def standardized(z):
    return (z - z.mean(0)) / z.std(0, correction=0)


def mixed(z_a, z_b, order, alpha, scale=standardized):
    a, b = scale(z_a), scale(z_b)
    return (alpha * a.T @ a + (1 - alpha) * b[order].T @ a) / len(a)


def by_covariance(z_a, z_b, order, alpha):
    a, b = standardized(z_a), standardized(z_b)
    both = torch.cat([alpha * a + (1 - alpha) * b[order], a], 1)
    return torch.cov(both.T, correction=0)[: a.shape[1], a.shape[1] :]


def known():
    rows, labels = load_digits(return_X_y=True)
    return StandardScaler().fit_transform(rows[::2]), labels[::2]


def by_labels(kind):
    """Features from labels: what a checker of features cannot see, and far above the number to beat."""

    def features(x):
        model = LinearDiscriminantAnalysis().fit(*known())
        return torch.from_numpy(getattr(model, kind)(x.numpy()))

    return features


RIGHT = {
    "corrupted": [resampled(), entry_by_entry],
    "mixed_target": [mixed, by_covariance],
    "better_rows": [by_labels("transform"), by_labels("decision_function")],
}
WRONG = {
    "corrupted": {
        "Nothing has changed": lambda x, pool, rate, g: x,
        "of the shape of x": lambda x, pool, rate, g: x[:, :2],
        "from elsewhere": noisy,
        "its own column": lambda x, pool, rate, g: resampled()(x, pool.flip(1), rate, g),
        "Whole rows": resampled(lambda x, rate, g: torch.rand(len(x), 1, generator=g) < rate),
        "or whole columns": resampled(
            lambda x, rate, g: (torch.arange(6) < 6 * rate).expand(x.shape)
        ),
        "one row of pool": resampled(
            rows=lambda x, pool, g: torch.randint(len(pool), (len(x), 1), generator=g)
        ),
        "turned round": resampled(lambda x, rate, g: torch.rand(x.shape, generator=g) >= rate),
        "are replaced; rate is 60%": resampled(
            lambda x, rate, g: torch.rand(x.shape, generator=g) < rate / 2
        ),
        "hand generator on": resampled(lambda x, rate, g: torch.rand(x.shape) < rate),
        "in place": lambda x, pool, rate, g: x.copy_(resampled()(x, pool, rate, g)),
    },
    "mixed_target": {
        "not standardised": lambda *w: mixed(*w, scale=lambda z: z),
        "changed places": lambda a, b, o, alpha: mixed(a, b, o, 1 - alpha),
        "its own twin": lambda a, b, o, alpha: mixed(a, b, torch.arange(len(o)), alpha),
        "view B alone": lambda a, b, o, alpha: (
            (alpha * standardized(a) + (1 - alpha) * standardized(b))[o].T @ standardized(a) / len(o)
        ),
        "divided by N": lambda a, *w: mixed(a, *w) * len(a),
        "transpose": lambda *w: mixed(*w).T,
        "second part": lambda a, b, o, alpha: alpha * mixed(a, b, o, 1.0),
        "values differ": lambda *w: mixed(*w) + 1,
    },
    "better_rows": {
        "one row": lambda x: x[:-1],
        "NaN": lambda x: torch.full((len(x), 3), torch.nan),
        "collapsed": lambda x: torch.ones(len(x), 3),
        "to beat: 85.0%": lambda x: x,  # the columns themselves
    },
}  # fmt: skip


def test_rows_are_judged_by_the_number_to_beat():
    with pytest.raises(checks.NotRight, match=r"to beat: 99.0%"):
        checks.better_rows(RIGHT["better_rows"][0], to_beat=0.99)
