"""The checkers of notebook 07: right answers pass, and each known mistake gets its own diagnosis."""

import math

import numpy as np
import torch

import barlow_edu as be


def gradients(z_a, z_b, lambd):
    z_a, z_b = z_a.clone().requires_grad_(), z_b.clone().requires_grad_()
    be.barlow_twins_loss(z_a, z_b, lambd).loss.backward()
    return z_a.grad, z_b.grad


def by_backward(z_a, z_b, lambd, lr):
    g_a, g_b = gradients(z_a, z_b, lambd)
    return z_a - lr * g_a, z_b - lr * g_b


def by_corrcoef(z_a, z_b, lambd, lr):
    """Both views at once, on C from torch.corrcoef."""
    z = torch.stack([z_a, z_b]).requires_grad_()
    d = z.shape[-1]
    c = torch.corrcoef(torch.cat([z[0], z[1]], dim=1).T)[:d, d:]
    weight = torch.full_like(c, lambd).fill_diagonal_(1)
    (weight * (c - torch.eye(d)) ** 2).sum().backward()
    return (z - lr * z.grad).detach()


def one_after_the_other(z_a, z_b, lambd, lr):
    z_a = z_a - lr * gradients(z_a, z_b, lambd)[0]
    return z_a, z_b - lr * gradients(z_a, z_b, lambd)[1]


def in_place(z_a, z_b, lambd, lr):
    g_a, g_b = gradients(z_a, z_b, lambd)
    z_a -= lr * g_a
    z_b -= lr * g_b
    return z_a, z_b


def undetached(z_a, z_b, lambd, lr):
    z_a, z_b = z_a.clone().requires_grad_(), z_b.clone().requires_grad_()
    g_a, g_b = torch.autograd.grad(be.barlow_twins_loss(z_a, z_b, lambd).loss, (z_a, z_b))
    return z_a - lr * g_a, z_b - lr * g_b


def only_a(a, b, w, lr):
    return by_backward(a, b, w, lr)[0], b


def only_b(a, b, w, lr):
    return a, by_backward(a, b, w, lr)[1]


def invariance_only(a, b, w, lr):
    return by_backward(a, b, 0.0, lr)


WRONG_STEP = {
    "uphill": lambda a, b, w, lr: by_backward(a, b, w, -lr),
    "learning rate is missing": lambda a, b, w, lr: by_backward(a, b, w, 1.0),
    "View B stands still": only_a,
    "View A stands still": only_b,
    "changed places": lambda a, b, w, lr: by_backward(a, b, w, lr)[::-1],
    "These are the gradients": lambda a, b, w, lr: gradients(a, b, w),
    "This is the step alone": lambda a, b, w, lr: [lr * g for g in gradients(a, b, w)],
    "does not use the lambd": lambda a, b, w, lr: by_backward(a, b, 0.005, lr),
    "Only the invariance": invariance_only,
    "after A had moved": one_after_the_other,
    "λ weighs both terms": lambda a, b, w, lr: by_backward(a, b, 1.0, w * lr),
    "λ is missing": lambda a, b, w, lr: by_backward(a, b, 1.0, lr),
    "λ was squared": lambda a, b, w, lr: by_backward(a, b, w**2, lr),
    "no mean over the batch": lambda a, b, w, lr: by_backward(a, b, w, lr / len(a)),
    "hangs on the graph": undetached,
    "Nothing has moved": lambda a, b, w, lr: (a, b),
    "Return two tensors": lambda a, b, w, lr: by_backward(a, b, w, lr)[0],
    "a single number": lambda a, b, w, lr: be.barlow_twins_loss(a, b, w).loss,
    "the new z_a and the new z_b": lambda a, b, w, lr: ("z_a", "z_b"),
    "in place": in_place,
    "has the shape": lambda a, b, w, lr: (a.T, b.T),
    "differ by up to": lambda a, b, w, lr: by_backward(a, b, w, lr / 3),
}


def by_integration(gamma, s0):
    """Follow ds/dt = −4 γ s (γ s² − 1) with small Runge-Kutta steps until γ s² is 1/2."""
    gamma, s, t = float(gamma), float(s0), 0.0
    dt = 1e-3 / gamma

    def speed(s):
        return -4 * gamma * s * (gamma * s * s - 1)

    while gamma * s * s < 0.5:
        middle = s + dt / 2 * speed(s)
        s, t = s + dt * speed(middle), t + dt
    return t


WRONG_TIME = {
    "put a minus before it": lambda g, s: math.log(s**2 * g) / (8 * g),
    "at twice that rate": lambda g, s: -math.log(s**2 * g) / (4 * g),
    "You took s0 where": lambda g, s: -math.log(s * g) / (8 * g),
    "missing inside the logarithm": lambda g, s: -math.log(s**2) / (8 * g),
    "missing in the denominator": lambda g, s: -math.log(s**2 * g) / 8,
    "decimal logarithm": lambda g, s: -math.log10(s**2 * g) / (8 * g),
    "differ by up to": lambda g, s: -math.log(s**2 * g) / (6 * g),
    "raised ValueError": lambda g, s: math.log(-g),
    "returned nothing": lambda g, s: None,
}


def leading(gamma, rows, size):
    return size * torch.linalg.eigh(gamma).eigenvectors[:, -rows:].T / rows**0.5


def slow_modes_first(gamma, rows, size):
    """In numpy: most of the size for the modes that take longest."""
    vectors, values, _ = np.linalg.svd(gamma.numpy())
    w = vectors[:, :rows].T / values[:rows, None] ** 3
    return size * w / np.linalg.norm(w)


def at_random(gamma, rows, size):
    w = torch.randn(rows, len(gamma), generator=torch.Generator().manual_seed(3), dtype=gamma.dtype)
    return size * w / w.norm()


WRONG_START = {
    "a row for each mode": lambda gamma, rows, size: leading(gamma, rows, size).T,
    "NaN": lambda gamma, rows, size: leading(gamma, rows, size) * torch.nan,
    "more than the 0.01": lambda gamma, rows, size: 5 * leading(gamma, rows, size),
    "fewer than 4 directions": lambda gamma, rows, size: (
        leading(gamma, rows, size)[:1].repeat(rows, 1) / rows**0.5
    ),
    "of the time of a random start": at_random,
}

RIGHT = {
    "free_step": {"backward": by_backward, "corrcoef": by_corrcoef},
    "learning_time": {
        "exact": lambda gamma, s0: math.log(1 / (gamma * s0**2) - 1) / (8 * gamma),
        "approximate": lambda gamma, s0: -torch.log(s0**2 * gamma) / 8 / gamma,
        "numpy": lambda gamma, s0: (
            (-2 * np.log(float(s0)) - np.log(float(gamma))) / (8 * float(gamma))
        ),
        "integrated": by_integration,
    },
    "faster_start": {"leading": leading, "slow ones": slow_modes_first},
}
WRONG = {"free_step": WRONG_STEP, "learning_time": WRONG_TIME, "faster_start": WRONG_START}
