"""Checkers for notebook 07, watching C become the identity."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from barlow_edu.loss import barlow_twins_loss
from barlow_edu.teaching.checks.base import attempt, checker, judge, numbers, tell
from barlow_edu.teaching.checks.worlds import normal


def _two_tables(answer, z_a: Tensor, z_b: Tensor, *_) -> Tensor:
    one = "This is a single number, the loss. Return the two moved embeddings."
    tell({one: getattr(answer, "ndim", 1) == 0})
    moved = numbers(answer, "two tensors (N, D): the new z_a and the new z_b", 2, *z_a.shape)
    tell({
        "Nothing has moved. Return z - lr * gradient, for each of them.": torch.equal(moved, torch.stack([z_a, z_b])),
        "What you returned hangs on the graph of this step, where the next gradient would flow too: detach() it.":
            any(getattr(x, "requires_grad", False) for x in answer),
    })  # fmt: skip
    return moved


def _gradients(z_a: Tensor, z_b: Tensor, lambd: float) -> Tensor:
    """Gradients of the loss with respect to both embeddings, (2, N, D)."""
    z = torch.stack([z_a, z_b]).requires_grad_()
    return torch.autograd.grad(barlow_twins_loss(z[0], z[1], lambd).loss, z)[0]


def _step(z_a: Tensor, z_b: Tensor, lambd: float, lr: float, moves: Sequence[int] = (1, 1)):
    """Both embeddings, (2, N, D), after a step of those that move."""
    moves = torch.tensor(moves).view(2, 1, 1)
    return torch.stack([z_a, z_b]) - lr * (moves * _gradients(z_a, z_b, lambd))


@checker
def free_step(function: Callable[[Tensor, Tensor, float, float], tuple[Tensor, Tensor]]) -> None:
    """Check a function (z_a, z_b, lambd, lr) -> the two embeddings (N, D) after one gradient step."""
    worlds = [(*normal(2, 9, 5, seed=11), 0.3, 0.7), (*normal(2, 12, 4, seed=12), 0.08, 1.9)]
    judge(function, worlds, _step, {
        "This went uphill: the gradient points where the loss grows. Subtract it.": {"moves": (-1, -1)},
        "The learning rate is missing: subtract lr * gradient.": {"lr": 1},
        "View B stands still. Both tables are free: move both.": {"moves": (1, 0)},
        "View A stands still. Both tables are free: move both.": {"moves": (0, 1)},
        "A and B have changed places in what you return.": lambda *given: _step(*given).flip(0),
        "These are the gradients. Return z - lr * gradient, for both views.": lambda a, b, w, lr: _gradients(a, b, w),
        "This is the step alone. Return its end, z - lr * gradient.": lambda a, b, w, lr: lr * _gradients(a, b, w),
        "Your loss does not use the lambd that it was given.": {"lambd": 0.005},
        "Only the invariance was differentiated. Use the whole loss.": {"lambd": 0.0},
        "λ weighs both terms in your loss, not the redundancy alone.": lambda a, b, w, lr: _step(a, b, 1.0, w * lr),
        "λ is missing in your loss: it weighs the redundancy.": {"lambd": 1.0},
        "λ was squared with the entries: it stands before the square.": lambda a, b, w, lr: _step(a, b, w**2, lr),
        "You followed a loss divided by N: no mean over the batch.": lambda a, b, w, lr: _step(a, b, w, lr / len(a)),
        "You followed a loss divided by D: no mean over D.": lambda a, b, w, lr: _step(a, b, w, lr / a.shape[1]),
        "B was moved by a gradient taken after A had moved. Take both gradients at the same place.":
            lambda a, b, w, lr: torch.stack([moved := _step(a, b, w, lr)[0], _step(moved, b, w, lr)[1]]),
    }, "What you returned", 1e-6, look=_two_tables)  # fmt: skip


@checker
def learning_time(function: Callable[[Tensor, Tensor], float]) -> None:
    """Check a function (gamma, s0) -> the time at which a mode is half learned, c = 1/2."""
    # numbers as 0-d tensors: math, numpy and torch can all take their logarithm
    worlds = torch.tensor([[0.25, 1e-3], [1.0, 1e-4], [0.04, 1e-2]], dtype=torch.float64)
    what = "The time for γ = {0:.2f}, s0 = {1:.4f}"
    # without the − 1: a start is so small that it does not show
    judge(function, [tuple(x) for x in worlds], lambda g, s: (1 / (s**2 * g) - 1).log() / (8 * g), {
        "The time is negative. So is the logarithm: turn the sign.": lambda g, s: (s**2 * g).log() / (8 * g),
        "You divided by 4 γ, as for s. c = γ s² grows at twice that rate.": lambda g, s: -(s**2 * g).log() / (4 * g),
        "You took s0 where the formula has s0². c starts at c(0) = γ s0².": lambda g, s: -(s * g).log() / (8 * g),
        "γ is missing inside the logarithm. c starts at c(0) = γ s0².": lambda g, s: -(s**2).log() / (8 * g),
        "γ is missing in the denominator: a mode shared more is learned sooner.": lambda g, s: -(s**2 * g).log() / 8,
        "This is the decimal logarithm. The natural one is math.log.": lambda g, s: -(s**2 * g).log10() / (8 * g),
    }, what, 1e-3)  # fmt: skip


@checker
def faster_start(function: Callable[[Tensor, int, float], Tensor]) -> None:
    """Check a function (gamma, rows, size) -> W (rows, P), of Frobenius norm ``size`` at most, that learns sooner.

    Sooner: C = W Γ Wᵀ is within 0.1 of the identity in at most 3/4 of the time of a random start of that size.
    """
    for seed in (70, 71):
        q = torch.linalg.qr(normal(60, 60, seed=seed)).Q
        gamma = q @ torch.diag(0.8 ** torch.arange(60, dtype=torch.float64)) @ q.T
        random = normal(4, 60, seed=seed + 10)
        usual = _steps(0.01 * random / random.norm(), gamma)
        wanted = "a matrix with a row for each mode, (4, 60) here"
        w = numbers(attempt(function, gamma, 4, 0.01), wanted, 4, 60)
        share = _steps(w, gamma) / usual
        tell({
            f"Your start has size {w.norm():.3g}, more than the 0.01 that is allowed here.": w.norm() > 0.010001,
            "Your rows lie in fewer than 4 directions: gradient descent would never find the others.":
                torch.linalg.svdvals(w)[-1] < 1e-9 * w.norm(),
            f"That takes {share:.0%} of the time of a random start. Reach 75 % or less.": share > 0.75,
        })  # fmt: skip


def _steps(w: Tensor, gamma: Tensor, most: int = 2000) -> int:
    """Steps of gradient descent, of length 0.02, until C is within 0.1 of the identity."""
    for step in range(most):
        c = w @ gamma @ w.T
        if (c - torch.eye(len(c))).norm() < 0.1:
            return step
        w = w - 0.08 * (c - torch.eye(len(c))) @ w @ gamma
    return most
