"""The checkers of notebooks 01 and 02: right answers pass, and each known mistake gets its own diagnosis."""

import numpy as np
import torch
from scipy.linalg import fractional_matrix_power
from sklearn.preprocessing import StandardScaler

import barlow_edu as be


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


def bent(c, change):
    values, u = torch.linalg.eigh(c)
    return u @ change(values).diag() @ u.T


RIGHT_DIM = {
    "wiener, then whiten": lambda c, s: zca(c) @ c @ torch.linalg.inv(c + s**2 * torch.eye(len(c))),
    "scipy": lambda c, s: (
        fractional_matrix_power(c.numpy(), 0.5) @ np.linalg.inv(c.numpy() + s**2 * np.eye(len(c)))
    ),
}
WRONG_DIM = {
    "plain whitening": lambda c, s: zca(c),
    "does not whiten": lambda c, s: c @ torch.linalg.inv(c + s**2 * torch.eye(len(c))),
    "add σ² to them": lambda c, s: bent(c, lambda v: v.sqrt() / (v + s)),
    "whitens the noisy": lambda c, s: zca(c + s**2 * torch.eye(len(c))),
    "upside down": lambda c, s: bent(c, lambda v: s**2 / (v + s**2) / v.sqrt()),
    "returned nothing": lambda c, s: None,
}


def gaussian(sigma):
    line = np.exp(-(np.arange(-2, 3.0) ** 2) / 2 / sigma**2)
    return np.outer(line, line) / line.sum() ** 2


RIGHT_RETINA = {
    "four neighbours": lambda: [[0, -1, 0], [-1, 4, -1], [0, -1, 0]],
    "eight neighbours": lambda: 9 * torch.eye(9)[4].view(3, 3) - 1,
    "difference of gaussians": lambda: gaussian(0.4) - gaussian(1.2),
}
WRONG_RETINA = {
    "correlate by 0.7": lambda: torch.ones(1, 1),
    "correlate by 0.9": lambda: torch.ones(5, 5),
    "has 49 weights": lambda: torch.ones(7, 7),
    "Nothing gets through": lambda: torch.zeros(3, 3),
    "odd side": lambda: torch.ones(4, 4),
    "square filter": lambda: torch.ones(3, 5),
}

RIGHT_AGREEMENT = {
    "torch": lambda a, b: torch.nn.functional.mse_loss(a, b),
    "loops": lambda a, b: np.mean(
        [(float(x) - float(y)) ** 2 for x, y in zip(a.ravel(), b.ravel(), strict=True)]
    ),
}
WRONG_AGREEMENT = {
    "That is the sum": lambda a, b: (a - b).square().sum(),
    "cancel": lambda a, b: (a - b).mean(),
    "mean absolute": lambda a, b: (a - b).abs().mean(),
    "took a root": lambda a, b: (a - b).square().mean().sqrt(),
    "summed over the dimensions": lambda a, b: (a - b).square().sum(1).mean(),
    "Return one number": lambda a, b: (a - b).square().mean(1),
}


def variance_and_covariance(a, b):
    """As VICReg does it: a hinge on the spread, and small covariances."""
    loss = (a - b).square().mean()
    for z in (a - a.mean(0), b - b.mean(0)):
        c = z.T @ z / len(z)
        loss = (
            loss
            + torch.relu(1 - z.std(0)).mean()
            + (c - c.diagonal().diag()).square().sum() / len(c)
        )
    return loss


def contrast(a, b):
    """As SimCLR does it: each image is told from the others."""
    a, b = (torch.nn.functional.normalize(z, dim=1) for z in (a, b))
    return torch.nn.functional.cross_entropy(a @ b.T / 0.2, torch.arange(len(a)))


RIGHT_CURE = {
    "Barlow Twins": lambda a, b: be.barlow_twins_loss(a, b, lambd=0.1).loss,
    "VICReg": variance_and_covariance,
    "SimCLR": contrast,
}
WRONG_CURE = {
    "Constant collapse": lambda a, b: (a - b).square().mean(),
    "say 1.0 different": lambda a, b: be.barlow_twins_loss(a, b, lambd=0).loss,
    "do not agree": lambda a, b: be.barlow_twins_loss(a, b, lambd=1000).loss,
    "scalar tensor": lambda a, b: (a - b).square().mean().item(),
}

RIGHT = {
    "zca_matrix": RIGHT_ZCA,
    "dim_light_filter": RIGHT_DIM,
    "my_retina": RIGHT_RETINA,
    "agreement": RIGHT_AGREEMENT,
    "kind_of_collapse": RIGHT_KIND,
    "my_cure": RIGHT_CURE,
}
WRONG = {
    "zca_matrix": WRONG_ZCA,
    "dim_light_filter": WRONG_DIM,
    "my_retina": WRONG_RETINA,
    "agreement": WRONG_AGREEMENT,
    "kind_of_collapse": WRONG_KIND,
    "my_cure": WRONG_CURE,
}
