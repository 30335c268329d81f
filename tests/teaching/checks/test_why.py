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


def waves(x, dims=4, frequency=1):
    u = torch.special.ndtr(x)[:, None]
    return torch.cos(frequency * torch.pi * u * torch.arange(1, dims + 1, dtype=x.dtype))


def hermite(x):
    """The first three of Hermite's polynomials, by their recursion."""
    polynomials = [torch.ones_like(x), x]
    for k in (1, 2):
        polynomials.append(x * polynomials[-1] - k * polynomials[-2])
    return torch.stack(polynomials[1:], 1)


def by_qr(x):
    """Powers of x, made orthogonal on the batch itself."""
    return torch.linalg.qr(torch.stack([x.tanh() ** k for k in range(6)], 1))[0][:, 1:]


def with_noise(x):
    return torch.cat([waves(x), torch.randn(len(x), 1, dtype=x.dtype)], 1)


RIGHT_FOOLS = {"cosines": waves, "Hermite": hermite, "QR": by_qr}
WRONG_FOOLS = {
    "dimensions 0 and 2 correlate": lambda x: torch.stack([x, x**2, x**3], 1),
    "2 dimensions are too few": lambda x: torch.stack([x, x**2 - 1], 1),
    "does not always get the same": with_noise,
    "Dimension 2 is no smooth curve": lambda x: torch.cat(
        [waves(x, 2), (1e6 * x[:, None]).sin()], 1
    ),
    "One of the dimensions never changes": lambda x: waves(x) * torch.tensor([1, 1, 1, 0]),
    "NaN or infinity": lambda x: waves(x).log(),
    "one row of numbers": lambda x: waves(x).T,
    "in place": lambda x: waves(x.mul_(2)),
    "raised": lambda x: waves(x) @ x,
}

RIGHT = {"log_det_series": RIGHT_SERIES, "kernel_hsic": RIGHT_HSIC, "fools_c": RIGHT_FOOLS}
WRONG = {"log_det_series": WRONG_SERIES, "kernel_hsic": WRONG_HSIC, "fools_c": WRONG_FOOLS}
