"""The checkers of notebook 15: right answers pass, and each known mistake gets its own diagnosis."""

import math

import numpy as np
import torch
from scipy.linalg import logm
from sklearn.metrics.pairwise import rbf_kernel


def series(e, order, weight=lambda k: (-1) ** (k + 1) / k, power=torch.linalg.matrix_power):
    return sum(weight(k) * power(e, k).trace() for k in range(1, order + 1))


def left_over(r):
    return r - torch.eye(len(r), dtype=r.dtype)


def by_eigenvalues(r, order):
    e = np.linalg.eigvalsh(r.numpy()) - 1
    return float(sum((-1) ** (k + 1) * (e**k).sum() / k for k in range(1, order + 1)))


def by_horner(r, order):
    """The series with as few products as there are terms, without the term of order 1, which is 0."""
    e, eye = left_over(r), torch.eye(len(r), dtype=r.dtype)
    total = eye * ((-1) ** (order + 1) / order)
    for k in range(order - 1, 0, -1):
        total = eye * ((-1) ** (k + 1) / k) + e @ total
    return (e @ total).trace()


def entrywise(e, k):
    return e**k


RIGHT_SERIES = {
    "matrix power": lambda r, order: series(left_over(r), order),
    "eigenvalues": by_eigenvalues,
    "Horner": by_horner,
}
WRONG_SERIES = {
    "power of each entry": lambda r, order: series(left_over(r), order, power=entrywise),
    "sums of entries": lambda r, order: sum(
        (-1) ** (k + 1) * (left_over(r) ** k).sum() / k for k in range(1, order + 1)
    ),
    "does not alternate": lambda r, order: series(left_over(r), order, lambda k: 1 / k),
    "sign is turned": lambda r, order: -series(left_over(r), order),
    "divided by k. Yours": lambda r, order: series(left_over(r), order, lambda k: (-1) ** (k + 1)),
    "You divided by k!": lambda r, order: series(
        left_over(r), order, lambda k: (-1) ** (k + 1) / math.factorial(k)
    ),
    "series of exp, with 1/k!": lambda r, order: series(
        left_over(r), order, lambda k: 1 / math.factorial(k)
    ),
    "powers of R": lambda r, order: series(r, order),
    "missing at the end": lambda r, order: series(left_over(r), order - 1),
    "one term too many": lambda r, order: series(left_over(r), order + 1),
    "exact log-determinant": lambda r, order: torch.logdet(r),
    "still a matrix": lambda r, order: torch.as_tensor(logm(r.numpy())),
    "values differ": lambda r, order: series(left_over(r), order) + 1,
    "in place": lambda r, order: series(r.sub_(torch.eye(len(r))), order),
    "Order 5": lambda r, order: series(left_over(r), min(order, 3)),
}


def gauss(x, scale=0.5):
    return torch.exp(-scale * (x[:, None] - x) ** 2)


def centre(k):
    h = torch.eye(len(k), dtype=k.dtype) - 1 / len(k)
    return h @ k @ h


def hsic(x, y, kernel=gauss, centre=centre):
    return (centre(kernel(x)) * centre(kernel(y))).mean()


def by_sklearn(x, y):
    k, m = (rbf_kernel(z.numpy()[:, None], gamma=0.5) for z in (x, y))
    h = np.eye(len(x)) - 1 / len(x)
    return np.trace(k @ h @ m @ h) / len(x) ** 2


RIGHT_HSIC = {
    "two centrings": hsic,
    "one is enough": lambda x, y: (centre(gauss(x)) * gauss(y)).mean(),
    "sklearn": by_sklearn,
    "cdist": lambda x, y: hsic(
        x, y, lambda z: torch.exp(-(torch.cdist(z[:, None], z[:, None]) ** 2) / 2)
    ),
}
WRONG_HSIC = {
    "not centred": lambda x, y: hsic(x, y, centre=lambda k: k),
    "the sum over all pairs": lambda x, y: hsic(x, y) * len(x) ** 2,
    "a common estimator": lambda x, y: hsic(x, y) * len(x) ** 2 / (len(x) - 1) ** 2,
    "divided by N, once": lambda x, y: hsic(x, y) * len(x),
    "not the rows": lambda x, y: hsic(x, y, centre=lambda k: k - k.mean(0)),
    "subtracted twice": lambda x, y: hsic(
        x, y, centre=lambda k: k - k.mean(0) - k.mean(1, keepdim=True)
    ),
    "distance is not squared": lambda x, y: hsic(
        x, y, lambda z: torch.exp(-(z[:, None] - z).abs() / 2)
    ),
    "The 2 is missing": lambda x, y: hsic(x, y, lambda z: gauss(z, 1.0)),
    "straight kernel": lambda x, y: hsic(x, y, lambda z: torch.outer(z, z)),
    "distance covariance": lambda x, y: hsic(x, y, lambda z: (z[:, None] - z).abs()),
    "not yet put through": lambda x, y: hsic(x, y, lambda z: (z[:, None] - z) ** 2),
    "still a matrix": lambda x, y: centre(gauss(x)) * centre(gauss(y)),
    "values differ": lambda x, y: 2 * hsic(x, y),
    "raised": lambda x, y: x @ y @ x,
}


def phi(x, t):
    return torch.exp(1j * x[:, None] * t).mean(0)


def normal(t):
    return torch.exp(-(t**2) / 2)


def by_numpy(x, t):
    x, t = x.numpy(), t.numpy()
    total = 0.0
    for frequency in t:
        point = np.mean([complex(np.cos(frequency * v), np.sin(frequency * v)) for v in x])
        total += abs(point - np.exp(-(frequency**2) / 2)) ** 2
    return total / len(t)


RIGHT_GAP = {
    "complex": lambda x, t: (phi(x, t) - normal(t)).abs().square().mean(),
    "loop": by_numpy,
    "mirrored": lambda x, t: (phi(-x, t) - normal(t)).abs().square().mean(),
}
WRONG_GAP = {
    "Only the cosine": lambda x, t: (phi(x, t).real - normal(t)).square().mean(),
    "Not squared": lambda x, t: (phi(x, t) - normal(t)).abs().mean(),
    "over the samples last": lambda x, t: (
        (torch.exp(1j * x[:, None] * t) - normal(t)).abs().square().mean()
    ),
    "summed over the samples": lambda x, t: (len(x) * phi(x, t) - normal(t)).abs().square().mean(),
    "summed over t": lambda x, t: (phi(x, t) - normal(t)).abs().square().sum(),
    "with the 2": lambda x, t: (phi(x, t) - torch.exp(-(t**2))).abs().square().mean(),
    "target is missing": lambda x, t: phi(x, t).abs().square().mean(),
    "the density": lambda x, t: (
        (phi(x, t) - normal(t) / (2 * torch.pi) ** 0.5).abs().square().mean()
    ),
    "its sine part is 0": lambda x, t: (
        (phi(x, t).real - normal(t)).square() + (phi(x, t).imag - normal(t)).square()
    ).mean(),
    "a complex number": lambda x, t: (phi(x, t) - normal(t)).square().mean(),
    "mean over t": lambda x, t: (phi(x, t) - normal(t)).abs().square(),
    "values differ": lambda x, t: 1 + (phi(x, t) - normal(t)).abs().square().mean(),
    "returned nothing": lambda x, t: None,
}

RIGHT = {"log_det_series": RIGHT_SERIES, "kernel_hsic": RIGHT_HSIC, "slice_gap": RIGHT_GAP}
WRONG = {"log_det_series": WRONG_SERIES, "kernel_hsic": WRONG_HSIC, "slice_gap": WRONG_GAP}
