"""The checkers of notebook 05: right answers pass, and each known mistake gets its own diagnosis."""

import numpy as np
import torch


def off_diagonal(c):
    return c - torch.diag(c.diagonal())


def on(c):
    return (1 - c.diagonal()).square().sum()


def off(c):
    return off_diagonal(c).square().sum()


def by_loops(c, lambd):
    total = 0
    for i in range(len(c)):
        for j in range(len(c)):
            total = total + ((1 - c[i, j]) ** 2 if i == j else lambd * c[i, j] ** 2)
    return total


def by_weights(c, lambd):
    weight = torch.full_like(c, lambd).fill_diagonal_(1)
    return (weight * (c - torch.eye(len(c))) ** 2).sum()


def spoils_its_input(c, lambd):
    c.fill_diagonal_(0)
    return lambd * c.square().sum()


WRONG_LOSS = {
    "the redundancy is missing": lambda c, w: on(c),
    "the invariance is missing": lambda c, w: w * off(c),
    "λ is missing": lambda c, w: on(c) + off(c),
    "You multiplied the other sum by it": lambda c, w: w * on(c) + off(c),
    "whole loss by λ": lambda c, w: w * (on(c) + off(c)),
    "i ≠ j only": lambda c, w: on(c) + w * c.square().sum(),
    "one side of the diagonal only": lambda c, w: on(c) + w * torch.triu(c, 1).square().sum(),
    "doubled the upper side": lambda c, w: on(c) + 2 * w * torch.triu(c, 1).square().sum(),
    "target on the diagonal is 1": lambda c, w: c.diagonal().square().sum() + w * off(c),
    "added magnitudes": lambda c, w: (
        (1 - c.diagonal()).abs().sum() + w * off_diagonal(c).abs().sum()
    ),
    "squares are missing on the diagonal": lambda c, w: (1 - c.diagonal()).sum() + w * off(c),
    "You took means. ": lambda c, w: on(c) / len(c) + w * off(c) / (len(c) ** 2 - len(c)),
    "means over all D²": lambda c, w: (on(c) + w * off(c)) / len(c) ** 2,
    "before the square, not inside it": lambda c, w: on(c) + (w * off_diagonal(c)).square().sum(),
    "took the trace": lambda c, w: (1 - c.trace()) ** 2 + w * off(c),
    "mean on the diagonal": lambda c, w: on(c) / len(c) + w * off(c),
    "mean off the diagonal": lambda c, w: on(c) + w * off(c) / (len(c) ** 2 - len(c)),
    "right on other inputs": lambda c, w: on(c) + 0.07 * off(c),
    "in every term": lambda c, w: on(c) + w * float(off(c)),
    "its gradient is not": lambda c, w: float(on(c)) + w * off(c),
    "autograd lost its way": lambda c, w: by_loops(c, w).item(),
    "in place": spoils_its_input,
    "has shape": lambda c, w: (1 - c.diagonal()).square(),
}


def by_autograd(c, lambd):
    c = c.clone().requires_grad_()
    by_loops(c, lambd).backward()
    return c.grad


def by_numpy(c, lambd):
    g = 2 * lambd * c.numpy()
    np.fill_diagonal(g, -2 * (1 - np.diag(c.numpy())))
    return g


def diagonal_part(c):
    return torch.diag(c.diagonal() - 1)


WRONG_GRADIENT = {
    "factor 2 is missing": lambda c, w: by_autograd(c, w) / 2,
    "sign is turned round": lambda c, w: -by_autograd(c, w),
    "but not on it": lambda c, w: 2 * w * off_diagonal(c) - 2 * diagonal_part(c),
    "λ is missing": lambda c, w: 2 * (c - torch.eye(len(c))),
    "entries off the diagonal only": lambda c, w: 2 * w * (c - torch.eye(len(c))),
    "changed places": lambda c, w: 2 * off_diagonal(c) + 2 * w * diagonal_part(c),
    "redundancy has a gradient too": lambda c, w: 2 * diagonal_part(c),
    "invariance has a gradient too": lambda c, w: 2 * w * off_diagonal(c),
    "target is 1, not 0": lambda c, w: 2 * w * off_diagonal(c) + 2 * torch.diag(c.diagonal()),
    "transpose of the gradient": lambda c, w: by_autograd(c, w).T,
    "λ was squared": lambda c, w: by_autograd(c, w**2),
    "gradient of means": lambda c, w: (
        2 * diagonal_part(c) / len(c) + 2 * w * off_diagonal(c) / (len(c) ** 2 - len(c))
    ),
    "has shape": lambda c, w: by_autograd(c, w).sum(0),
    "values differ": lambda c, w: by_autograd(c, w) ** 2,
}


def standardised(z):
    return (z - z.mean(0)) / z.std(0, correction=0)


def grams(z_a, z_b):
    a, b = standardised(z_a), standardised(z_b)
    return ((a @ a.T) * (b @ b.T)).sum(), (a * b).mean(0)


def by_trace(z_a, z_b):
    a, b = standardised(z_a), standardised(z_b)
    everything = torch.trace((a @ a.T) @ (b @ b.T)) / len(a) ** 2
    return everything - torch.einsum("ni,ni->i", a, b).div(len(a)).square().sum()


def by_images_in_numpy(z_a, z_b):
    a, b = standardised(z_a).numpy(), standardised(z_b).numpy()
    pairs = ((a[s] @ a[t]) * (b[s] @ b[t]) for s in range(len(a)) for t in range(len(a)))
    return sum(pairs) / len(a) ** 2 - ((a * b).mean(0) ** 2).sum()


def through_c(z_a, z_b):
    return off(standardised(z_a).T @ standardised(z_b) / len(z_a))


def of_view_a_alone(z_a, z_b):
    return grams(z_a, z_a)[0] / len(z_a) ** 2 - grams(z_a, z_b)[1].square().sum()


def as_matrices(z_a, z_b):
    a, b = standardised(z_a), standardised(z_b)
    return (a @ a.T @ b @ b.T).sum() / len(a) ** 2 - (a * b).mean(0).square().sum()


def along_the_features(z_a, z_b):
    a, b = (standardised(z.T).T for z in (z_a, z_b))
    return ((a @ a.T) * (b @ b.T)).sum() / len(a) ** 2 - (a * b).mean(0).square().sum()


def total(z_a, z_b):
    return grams(z_a, z_b)[0] / len(z_a) ** 2


def squares(z_a, z_b):
    return grams(z_a, z_b)[1].square().sum()


WRONG_GRAM = {
    "D x D matrix was built": through_c,
    "Take away those on the diagonal": total,
    "Divide by N², and take": lambda a, b: total(a, b) * len(a) ** 2,
    "made of squares of C = AᵀB / N, so divide by N²": lambda a, b: (
        total(a, b) * len(a) - squares(a, b)
    ),
    "divide the Gram part": lambda a, b: total(a, b) * len(a) ** 2 - squares(a, b),
    "You divided by D²": lambda a, b: grams(a, b)[0] / a.shape[1] ** 2 - squares(a, b),
    "was not squared": lambda a, b: total(a, b) - grams(a, b)[1].sum(),
    "took away D": lambda a, b: total(a, b) - a.shape[1],
    "view A twice": of_view_a_alone,
    "entry by entry": as_matrices,
    "squared the trace": lambda a, b: total(a, b) - grams(a, b)[1].sum() ** 2,
    "mean over the D (D − 1)": lambda a, b: through_c(a, b) / (a.shape[1] ** 2 - a.shape[1]),
    "along the features (dim 1)": along_the_features,
    "times λ": lambda a, b: 0.005 * through_c(a, b),
    "values differ": lambda a, b: 2 * through_c(a, b),
}


def of_z_by_autograd(z_a, z_b, lambd):
    z_a = z_a.clone().requires_grad_()
    by_loops(standardised(z_a).T @ standardised(z_b) / len(z_a), lambd).backward()
    return z_a.grad


def of_z_by_jacobian(z_a, z_b, lambd):
    """Step 2, then the Jacobian of the standardisation column by column, as numpy."""
    a, b, n = standardised(z_a), standardised(z_b), len(z_a)
    step = b @ by_autograd(a.T @ b / n, lambd).T / n
    columns = []
    for i in range(a.shape[1]):
        jacobian = torch.eye(n) - 1 / n - torch.outer(a[:, i], a[:, i]) / n
        columns.append(jacobian.double() @ step[:, i] / z_a[:, i].std(correction=0))
    return torch.stack(columns, 1).numpy()


def before_standardising(z_a, z_b, lambd):
    a = standardised(z_a).requires_grad_()
    by_loops(a.T @ standardised(z_b) / len(a), lambd).backward()
    return a.grad


WRONG_THROUGH = {
    "This is dL/dA": before_standardising,
    "part along A_i is still in": lambda a, b, w: (
        before_standardising(a, b, w) / a.std(0, correction=0)
    ),
    "σ is missing": lambda a, b, w: of_z_by_autograd(a, b, w) * a.std(0, correction=0),
    "deviations of view B": lambda a, b, w: (
        of_z_by_autograd(a, b, w) * a.std(0, correction=0) / b.std(0, correction=0)
    ),
    "divides by N − 1": lambda a, b, w: (
        of_z_by_autograd(a, b, w) * a.std(0, correction=0) / a.std(0)
    ),
    "N is missing": lambda a, b, w: len(a) * of_z_by_autograd(a, b, w),
    "sign is turned round": lambda a, b, w: -of_z_by_autograd(a, b, w),
    "λ is missing": lambda a, b, w: of_z_by_autograd(a, b, 1),
    "gradient of view B": lambda a, b, w: of_z_by_autograd(b, a, w),
    "has shape": lambda a, b, w: of_z_by_autograd(a, b, w).sum(0),
    "values differ": lambda a, b, w: 3 * of_z_by_autograd(a, b, w),
}

RIGHT = {
    "loss_from_c": {"loops": by_loops, "weights": by_weights},
    "gradient_of_c": {"autograd": by_autograd, "numpy": by_numpy},
    "gradient_of_z": {"autograd": of_z_by_autograd, "jacobian": of_z_by_jacobian},
    "gram_redundancy": {"trace": by_trace, "image by image": by_images_in_numpy},
}
WRONG = {
    "loss_from_c": WRONG_LOSS,
    "gradient_of_c": WRONG_GRADIENT,
    "gradient_of_z": WRONG_THROUGH,
    "gram_redundancy": WRONG_GRAM,
}
