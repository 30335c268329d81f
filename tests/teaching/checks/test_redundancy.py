"""The checkers of notebook 01: right answers pass, and each known mistake gets its own diagnosis."""

import numpy as np
import torch
from scipy.linalg import fractional_matrix_power
from sklearn.cross_decomposition import CCA
from sklearn.preprocessing import StandardScaler

from barlow_edu.teaching.checks.redundancy import _shifted_views


def eigen(c):
    values, u = torch.linalg.eigh(c)
    return values.rsqrt().diag(), u


def zca(c):
    scale, u = eigen(c)
    return u @ scale @ u.T


def zca_by_iteration(c):
    """Newton and Schulz: no eigenvectors at all."""
    size, eye = c.norm(), torch.eye(len(c), dtype=c.dtype)
    y, w = c / size, eye
    for _ in range(60):
        step = (3 * eye - w @ y) / 2
        y, w = y @ step, step @ w
    return w / size.sqrt()


RIGHT_ZCA = {
    "eigenvectors": zca,
    "scipy": lambda c: fractional_matrix_power(c.numpy(), -0.5),
    "svd, float32": lambda c: (lambda u, s, v: (u / s.sqrt()) @ v)(*torch.linalg.svd(c.float())),
    "iteration": zca_by_iteration,
}
WRONG_ZCA = {
    "any rotation of it": lambda c: eigen(c)[0] @ eigen(c)[1].T,
    "turns back": lambda c: torch.linalg.inv(torch.linalg.cholesky(c)),
    "transposed whitening": lambda c: eigen(c)[1] @ eigen(c)[0],
    "directions are not": lambda c: eigen(c)[1].T @ eigen(c)[0] @ eigen(c)[1],
    "power −1": torch.linalg.inv,
    "more redundant": lambda c: torch.linalg.inv(zca(c)),
    "own deviation": lambda c: c.diagonal().rsqrt().diag(),
    "eigenvectors U alone": lambda c: eigen(c)[1],
    "did not scale": lambda c: eigen(c)[1].T,
    "scales": lambda c: eigen(c)[0],
    "not a tuple": torch.linalg.eigh,
    "NaN": lambda c: c**-0.5,
    "shape (5,)": lambda c: torch.linalg.eigvalsh(c),
    "values differ": lambda c: zca(c) + 0.1,
    "returned nothing": lambda c: None,
}


def kind(z, centre=True, scale=True, spread=0.01, ratio=0.5, every=True):
    std = z.std(0)
    if (std < spread).all() if every else (std < spread).any():
        return "constant"
    x = z - z.mean(0) if centre else z
    x = x / x.std(0).clamp(min=1e-6) if scale else x
    p = torch.linalg.svdvals(x)
    p = (p / p.sum()).clamp(min=1e-30)
    rank = (-(p * p.log()).sum()).exp()
    return "dimensional" if rank < ratio * z.shape[1] else "none"


def kind_by_numpy(z):
    x = StandardScaler().fit_transform(z.double().numpy())
    if z.double().numpy().std(0).max() < 1e-2:
        return "constant"
    values = np.linalg.eigvalsh(x.T @ x).clip(1e-30) ** 0.5
    p = values / values.sum()
    return "dimensional" if np.exp(-(p * np.log(p)).sum()) < z.shape[1] / 2 else "none"


RIGHT_KIND = {"torch": kind, "numpy": kind_by_numpy}
WRONG_KIND = {
    "eight unrelated": lambda z: "dimensional",
    "standard deviations first": lambda z: "none",
    "cannot see that": lambda z: kind(z, spread=0),
    "over the images": lambda z: "constant" if z.std() < 0.01 else kind(z, spread=0.0000011),
    "up to scale and sign": lambda z: "constant" if z.std(0).max() < 0.01 else "none",
    "each four times": lambda z: kind(z, ratio=0.2),
    "Subtract the mean": lambda z: kind(z, centre=False),
    "only their units differ": lambda z: kind(z, scale=False),
    "a small spread is not": lambda z: kind(z, spread=0.1),
    "one dimension of eight is dead": lambda z: kind(z, every=False),
    "not at their mean": lambda z: "constant" if z.std(0).mean() < 0.01 else kind(z),
    "below D/2 = 6": lambda z: kind(z, ratio=4 / z.shape[1]),
    "Return one of": lambda z: True,
    "raised": lambda z: z.rank(),
}


def white(x, power=-0.5, centre=True, correction=0):
    x = x - x.mean(0) if centre else x
    values, u = torch.linalg.eigh(x.T @ x / (len(x) - correction))
    return x @ u @ (values**power).diag() @ u.T


def canonical(a, b):
    return torch.linalg.svdvals(white(a).T @ white(b) / len(a))


def canonical_by_qr(a, b):
    (q, _), (r, _) = (np.linalg.qr((x - x.mean(0)).numpy()) for x in (a, b))
    return np.linalg.svd(q.T @ r, compute_uv=False)


def canonical_by_sklearn(a, b):
    u, v = CCA(n_components=a.shape[1], max_iter=5000, tol=1e-14).fit_transform(
        a.numpy(), b.numpy()
    )
    return [np.corrcoef(u[:, i], v[:, i])[0, 1] for i in range(a.shape[1])]


def product(a, b):
    return torch.linalg.svdvals(a.T @ b / len(a))


def centred(x):
    return x - x.mean(0)


def standard(x):
    return centred(x) / x.std(0, correction=0)


RIGHT_CANONICAL = {
    "whitening": canonical,
    "qr": canonical_by_qr,
    "sklearn": canonical_by_sklearn,
    "N - 1 in both": lambda a, b: (
        product(white(a, correction=1), white(b, correction=1)) * len(a) / (len(a) - 1)
    ),
}
WRONG_CANONICAL = {
    "largest first": lambda a, b: canonical(a, b).flip(0),
    "the squares": lambda a, b: canonical(a, b) ** 2,
    "not yet an average": lambda a, b: torch.linalg.svdvals(white(a).T @ white(b)),
    "mixed N and N − 1": lambda a, b: canonical(a, b) * len(a) / (len(a) - 1),
    "mixed N − 1 and N": lambda a, b: product(white(a, correction=1), white(b, correction=1)),
    "raw covariance": lambda a, b: product(centred(a), centred(b)),
    "still correlated": lambda a, b: product(standard(a), standard(b)),
    "subtract the means": lambda a, b: product(white(a, centre=False), white(b, centre=False)),
    "View B is not white": lambda a, b: product(white(a), centred(b)),
    "View A is not white": lambda a, b: product(centred(a), white(b)),
    "with the covariance of view A": lambda a, b: product(
        white(a), centred(b) @ zca(a.T.cov(correction=0))
    ),
    "not with its root": lambda a, b: product(white(a, -1), white(b, -1)),
    "diagonal of the whitened": lambda a, b: (white(a).T @ white(b) / len(a)).diagonal(),
    "with itself": lambda a, b: canonical(a, a),
    "a matrix": lambda a, b: white(a).T @ white(b) / len(a),
    "singular values alone": lambda a, b: torch.linalg.svd(white(a).T @ white(b) / len(a)),
    "in place": lambda a, b: canonical(a.sub_(a.mean(0)), b),
    "values differ": lambda a, b: canonical(a, b) / 2,
}

RIGHT = {
    "zca_matrix": RIGHT_ZCA,
    "kind_of_collapse": RIGHT_KIND,
    "canonical_correlations": RIGHT_CANONICAL,
}
WRONG = {
    "zca_matrix": WRONG_ZCA,
    "kind_of_collapse": WRONG_KIND,
    "canonical_correlations": WRONG_CANONICAL,
}


def test_no_two_mistakes_give_the_same_canonical_correlations():
    views = _shifted_views(300, 4, seed=12)
    numbers = ["largest", "squares", "raw", "still", "subtract", "View B", "View A", "root", "diag"]
    answers = [f for d, f in WRONG_CANONICAL.items() if any(word in d for word in numbers)]
    results = [f(*views) for f in (canonical, *answers)]
    for i, one in enumerate(results):
        for other in results[:i]:
            assert not torch.allclose(one, other, rtol=1e-3)
