"""Checkers of notebooks 07, watching C become the identity, and 08, the lambda explorer."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from barlow_edu.loss import barlow_twins_loss
from barlow_edu.teaching.checks.base import NotRight, attempt, checker, judge, numbers, tell
from barlow_edu.teaching.checks.worlds import normal
from barlow_edu.teaching.live import LiveProblem


def _two_tables(answer, z_a: Tensor, z_b: Tensor, *_) -> Tensor:
    one = "This is a single number, the loss. Return the two moved embeddings."
    tell({one: getattr(answer, "ndim", 1) == 0})
    moved = numbers(answer, "two tensors (N, D): the new z_a and the new z_b", 2, *z_a.shape)
    tell({
        "Nothing has moved. Return z - lr * gradient for each of the two.":
            torch.equal(moved, torch.stack([z_a, z_b])),
        "What you returned still hangs on the graph of this step, so the next step's gradient would flow back into "
        "it. Call detach() on it, or take the step under torch.no_grad().":
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
        "These are the gradients. Return the embeddings after the step: z - lr * gradient, for both views.":
            lambda a, b, w, lr: _gradients(a, b, w),
        "This is the step alone. Return where it leads: z - lr * gradient.":
            lambda a, b, w, lr: lr * _gradients(a, b, w),
        "Your loss does not use the lambd that it was given.": {"lambd": 0.005},
        "Only the invariance was differentiated. Use the whole loss.": {"lambd": 0.0},
        "λ weighs both terms in your loss. It belongs to the redundancy only.":
            lambda a, b, w, lr: _step(a, b, 1.0, w * lr),
        "λ is missing in your loss: it weighs the redundancy.": {"lambd": 1.0},
        "λ was squared with the entries: it stands before the square, not inside it.":
            lambda a, b, w, lr: _step(a, b, w**2, lr),
        "You followed the loss divided by N. The loss is a sum, with no mean over the batch.":
            lambda a, b, w, lr: _step(a, b, w, lr / len(a)),
        "You followed the loss divided by D. The loss is a sum over dimensions, not their mean.":
            lambda a, b, w, lr: _step(a, b, w, lr / a.shape[1]),
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
        "The time is negative. The logarithm of a small number is below 0, so put a minus before it.":
            lambda g, s: (s**2 * g).log() / (8 * g),
        "You divided by 4 γ, the rate at which s grows. But c = γ s² grows with its square, at twice that rate.":
            lambda g, s: -(s**2 * g).log() / (4 * g),
        "You took s0 where the formula has s0². The strength at the start is c(0) = γ s0².":
            lambda g, s: -(s * g).log() / (8 * g),
        "γ is missing inside the logarithm. The strength at the start is c(0) = γ s0².":
            lambda g, s: -(s**2).log() / (8 * g),
        "γ is missing in the denominator: a mode that the twins share more is learned sooner.":
            lambda g, s: -(s**2 * g).log() / 8,
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


THINGS, DIAGONAL = 7.5, 0.84  # what a schedule is to reach


@checker
def same_balance(learner) -> None:
    """f(lambd, dim, new_dim) -> the λ that gives redundancy the same weight beside invariance at new_dim."""
    worlds = [(0.02, 5, 19), (0.3, 33, 9)]
    judge(learner, worlds, lambda w, d, n: w * (d - 1) / (n - 1), {
        "That is the other way round: more dimensions bring more off-diagonal terms for each "
        "diagonal one, so λ must shrink.": lambda w, d, n: w * (n - 1) / (d - 1),
        "Close: but a row of C has D − 1 entries off the diagonal, not D.": lambda w, d, n: w * d / n,
        "You counted all off-diagonal terms, D (D − 1). The diagonal grows too: how many are there "
        "for each diagonal one?": lambda w, d, n: w * d * (d - 1) / (n * (n - 1)),
        "You divided by D². Count the off-diagonal terms for each diagonal one: they grow like D.":
            lambda w, d, n: w * d**2 / n**2,
        "The root is too weak: the loss is linear in λ and in the number of terms.":
            lambda w, d, n: w * ((d - 1) / (n - 1)) ** 0.5,
        "You returned the same λ. Then the balance moves, because the number of terms changes.": lambda w, d, n: w,
        "That is the weight λ (D − 1) itself. Which λ gives the same weight at new_dim?": lambda w, d, n: w * (d - 1),
    }, "λ at the new width")  # fmt: skip


def _chosen(lambdas: Tensor, knn: Tensor, margin: float, strict=False, further: int = 0) -> Tensor:
    """λ of the best, and of both ends of the unbroken stretch of kNN around it."""
    least = knn.max() - margin
    good = (knn > least if strict else knn >= least).tolist()
    best = low = high = int(knn.argmax())
    while low > 0 and good[low - 1]:
        low -= 1
    while high < len(good) - 1 and good[high + 1]:
        high += 1
    return lambdas[[best, max(low - further, 0), min(high + further, len(good) - 1)]]


@checker
def plateau(learner) -> None:
    """f(lambdas, knn, margin) -> (best λ, lowest λ, highest λ) of the unbroken stretch around the best."""
    lambdas = torch.tensor([1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3], dtype=torch.float64)
    knn = torch.tensor([0.50, 0.30, 0.49, 0.52, 0.505, 0.47, 0.46, 0.2], dtype=torch.float64)
    # exactly at the margin of 1/8
    eighths = torch.tensor([3, 2, 4, 5, 4.25, 3], dtype=torch.float64) / 8
    worlds = [(lambdas, knn, 0.04), (lambdas[:6] * 2, eighths, 0.125), (lambdas, knn.flip(0), 0.1)]
    judge(learner, worlds, _chosen, {
        "These are places in the list. Look up the λ values at these places: lambdas[i].":
            lambda x, *ym: _chosen(torch.arange(len(x)), *ym),
        "These are accuracies. Return the λ values that belong to them.": lambda x, y, m: _chosen(y, y, m),
        "The stretch must be unbroken: the first λ is good by accident, with a bad one in between.":
            lambda x, y, m: torch.stack([x[y.argmax()], *x[y >= y.max() - m].aminmax()]),
        "You went one step too far on each side: those λ are outside the margin.": {"further": 1},
        "You stopped at the best. Walk to both sides while kNN stays within the margin.":
            lambda x, y, m: x[[int(y.argmax())] * 3],
        "The order is: best λ, lowest λ, highest λ.": lambda x, y, m: _chosen(x, y, m).sort().values,
        "You took the worst λ for the best.": lambda x, y, m: x[[int(y.argmin())] * 3],
        "Your margin is relative. Take kNN of at least best − margin.": lambda x, y, m: _chosen(x, y, m * y.max()),
        "A λ whose kNN is exactly best − margin belongs to the plateau: at least, so >= and not >.": {"strict": True},
    }, "the plateau", look=lambda x, *_: numbers(x, "three numbers: best λ, lowest λ, highest λ"))  # fmt: skip


@checker
def schedule(learner) -> None:
    """f(t) -> λ at the moment t of the training, 0 to 1: trains the live world with 24 dimensions by it."""
    world, steps = LiveProblem(dim=24), 400
    for step in range(steps):
        lambd = attempt(learner, step / steps)
        if isinstance(lambd, bool) or not isinstance(lambd, (int, float)) or not 0 <= lambd < 1e6:
            raise NotRight(f"λ at t = {step / steps:g} is {lambd!r}: return a number, 0 or more.")
        world.lambd = lambd
        world.step()
    said, diagonal = world.distinct(), float(world.c.diagonal().mean())
    tell({
        f"All dimensions are copies: they say {said:.1f} different things. Raise λ.": said < 2,
        f"The dimensions say {said:.1f} different things, but {THINGS:g} are wanted. A higher λ forbids copies.":
            said < THINGS,
        f"The mean diagonal is {diagonal:.2f}, {DIAGONAL:g} is wanted: twins disagree. Lower λ.": diagonal < DIAGONAL,
    })  # fmt: skip
