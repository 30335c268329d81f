"""The checkers of notebook 04: right answers pass, and each known mistake gets its own diagnosis."""

import numpy as np
import pytest
import torch


def by_matmul(z_a, z_b):
    a = (z_a - z_a.mean(0)) / z_a.std(0, correction=0)
    b = (z_b - z_b.mean(0)) / z_b.std(0, correction=0)
    return a.T @ b / len(a)


def by_numpy(z_a, z_b):
    d = z_a.shape[1]
    return np.corrcoef(z_a.numpy().T, z_b.numpy().T)[:d, d:]


def with_n_minus_1_twice(z_a, z_b):
    a, b = (z_a - z_a.mean(0)) / z_a.std(0), (z_b - z_b.mean(0)) / z_b.std(0)
    return torch.einsum("ni,nj->ij", a, b) / (len(a) - 1)


def centred(z, dim=0):
    return z - z.mean(dim, keepdim=True)


def scaled(z, dim=0, correction=0):
    return z / z.std(dim, keepdim=True, correction=correction)


def in_place(z_a, z_b):
    z_a -= z_a.mean(0)
    return by_matmul(z_a, z_b)


WRONG_C = {
    "This is the covariance, which": lambda a, b: centred(a).T @ centred(b) / len(a),
    "covariance with N − 1": lambda a, b: centred(a).T @ centred(b) / (len(a) - 1),
    "This is the cosine": lambda a, b: (a / a.norm(dim=0)).T @ (b / b.norm(dim=0)),
    "did not subtract the means": lambda a, b: scaled(a).T @ scaled(b) / len(a),
    "mixed N − 1 and N": lambda a, b: (
        scaled(centred(a), correction=1).T @ scaled(centred(b), correction=1) / len(a)
    ),
    "mixed N and N − 1": lambda a, b: by_matmul(a, b) * len(a) / (len(a) - 1),
    "Divide it by N, the number": lambda a, b: by_matmul(a, b) * len(a),
    "You divided by D": lambda a, b: by_matmul(a, b) * len(a) / a.shape[1],
    "along the features": lambda a, b: (
        scaled(centred(a, 1), 1).T @ scaled(centred(b, 1), 1) / len(a)
    ),
    "transpose of C": lambda a, b: by_matmul(b, a),
    "symmetric only when the views are equal": lambda a, b: (by_matmul(a, b) + by_matmul(b, a)) / 2,
    "view A with itself": lambda a, b: by_matmul(a, a),
    "view B with itself": lambda a, b: by_matmul(b, b),
    "images with images": lambda a, b: scaled(centred(a)) @ scaled(centred(b)).T / len(a),
    "in place": in_place,
    "raised RuntimeError": lambda a, b: a @ b,
    "returned nothing": lambda a, b: None,
    "values differ": lambda a, b: by_matmul(a, b) ** 2,
}


def counted_one_by_one(batch_size, dim):
    pairs = sum(dim - 1 for _ in range(dim))
    return torch.tensor(pairs / (batch_size - 1))


def test_expected_redundancy_is_what_shuffled_columns_give():
    generator = np.random.default_rng(0)
    a, b = generator.standard_normal((2, 11, 5))
    sums = []
    for _ in range(4000):
        mixed = np.stack([generator.permutation(column) for column in b.T], 1)
        squares = np.corrcoef(a.T, mixed.T)[:5, 5:] ** 2
        sums.append(squares.sum() - np.trace(squares))
    assert np.mean(sums) == pytest.approx(5 * 4 / 10, rel=0.03)


WRONG_SUM = {
    "You divided by N": lambda n, d: d * (d - 1) / n,
    "counted all D² entries": lambda n, d: d**2 / (n - 1),
    "counted half": lambda n, d: d * (d - 1) / 2 / (n - 1),
    "counted each dimension once": lambda n, d: d / (n - 1),
    "mean of a single square": lambda n, d: 1 / (n - 1),
    "added magnitudes": lambda n, d: d * (d - 1) / (n - 1) ** 0.5,
    "changed places": lambda n, d: n * (n - 1) / (d - 1),
    "must be a tensor or a number": lambda n, d: "thirty thousand",
    "values differ": lambda n, d: 0.0,
}


def bent(n):
    x = torch.randn(n)
    return torch.stack([x, x**2], 1)


def signs(n):
    """The product of two signs: each pair of the three is independent, and any two give the third."""
    a, b = np.sign(np.random.default_rng(0).normal(size=(2, n)))
    return np.stack([a, b, a * b], 1)


def circle(n):
    angle = 6.2832 * torch.rand(n)
    return torch.stack([angle.cos(), angle.sin()], 1)


WRONG_FOOL = {
    "C sees it": lambda n: torch.randn(n, 1).repeat(1, 3),
    "C sees it: an entry off the diagonal is 0.9": lambda n: torch.rand(n, 1) ** torch.arange(1, 3),
    "the best guess explains 0%": lambda n: np.random.default_rng(0).normal(size=(n, 4)),
    "no dimension can be read off": circle,  # the sine has two values for each cosine, and their mean is 0
    "N rows and 2 to 8 columns": lambda n: torch.randn(n, 1),
    "never changes": lambda n: torch.stack([torch.randn(n), torch.ones(n)], 1),
}

RIGHT = {
    "cross_correlation": {
        "matmul": by_matmul,
        "numpy": by_numpy,
        "N - 1 twice": with_n_minus_1_twice,
    },
    "expected_redundancy": {
        "formula": lambda n, d: (d * d - d) / (n - 1),
        "counted": counted_one_by_one,
    },
    "fool_c": {"a square": bent, "signs": signs},
}
WRONG = {
    "cross_correlation": WRONG_C,
    "expected_redundancy": WRONG_SUM,
    "fool_c": WRONG_FOOL,
}
