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


def sizes(z):
    return np.abs(np.corrcoef(z.numpy().T))


def above(size, threshold, start=1):
    d = len(size)
    return [(i, j) for i in range(d) for j in range(i + start, d) if size[i, j] > threshold]


def as_tensor(z):
    return torch.triu(torch.corrcoef(z.T).abs() > 0.9999, 1).nonzero()


WRONG_COPIES = {
    "pairs (i, i)": lambda z: above(sizes(z), 0.999, start=0),
    "i > j": lambda z: torch.from_numpy(sizes(z) - 2 * np.eye(8) > 0.999).nonzero(),
    "twice": lambda z: above(sizes(z), 0.999) * 2,
    "found no copy": lambda z: [],
    "minus sign": lambda z: above(np.corrcoef(z.numpy().T), 0.999),
    "shifted and scaled. Compare correlations": lambda z: [(0, 6), (1, 4), (3, 6)],
    "strongly related": lambda z: above(sizes(z), 0.9),
    "threshold is too low": lambda z: above(sizes(z), 0.1),
    "list of pairs": lambda z: sizes(z),
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
    "find_copies": {"loops": lambda z: above(sizes(z), 0.999), "torch": as_tensor},
}
WRONG = {
    "cross_correlation": WRONG_C,
    "expected_redundancy": WRONG_SUM,
    "find_copies": WRONG_COPIES,
}
