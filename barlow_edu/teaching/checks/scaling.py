"""Checkers for notebook 12: the gradient that DDP leaves, one step of LARS, what a run costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from barlow_edu.optim import LARS
from barlow_edu.teaching.checks.base import NotRight, attempt, checker, compare

CHECKERS = ("after_ddp", "lars_step", "run_cost")


@checker
def after_ddp(function: Callable[[list[Tensor], bool], Tensor]) -> None:
    """Check a function (own, seen) -> the gradient that every process holds after DDP's averaging.

    own: one tensor a process, the gradient along the way through its own rows alone; they add up to the true
    gradient. seen: whether autograd sees the all-reduce of C.
    """
    own = list(_normal(3, 4, 2, seed=120))
    copies = [x.clone() for x in own]
    total = sum(copies)
    seen, blind = (attempt(function, own, flag) for flag in (True, False))
    if not all(torch.equal(*pair) for pair in zip(own, copies, strict=True)):
        raise NotRight("You changed the gradients in place. Build a new tensor.")
    _averaged(blind, "Unseen", total / 3, _blind_mistakes(copies, total))
    _averaged(seen, "Seen", total, _seen_mistakes(copies, total))


def _averaged(answer: object, case: str, right: Tensor, mistakes: dict[str, Tensor]) -> None:
    if isinstance(answer, (list, tuple)) and len(answer) == 3:
        raise NotRight(
            "You returned a list. After the averaging all processes hold the same gradient: return one tensor."
        )
    told = {f"{case} by autograd: {diagnosis}": wrong for diagnosis, wrong in mistakes.items()}
    compare(answer, right, told, f"{case} by autograd: the gradient")


def _blind_mistakes(own: Sequence[Tensor], total: Tensor) -> dict[str, Tensor]:
    return {
        "this is the true gradient. But each process knows its own part alone, and DDP takes the mean of the "
        "parts. The mean is not their sum.": total,
        "this is one process's part, not yet averaged. DDP takes the mean over all of them.": own[
            0
        ],
        "this is W times the true gradient. Nothing here multiplies.": total * 3,
        "divided by W twice. The mean divides once.": total / 9,
        "this divides by two. There are len(own) processes.": total / 2,
    }


def _seen_mistakes(own: Sequence[Tensor], total: Tensor) -> dict[str, Tensor]:
    return {
        "nothing has changed against the blind case. The backward pass of the all-reduce adds up what all W "
        "losses say, so that each process holds W times its own part; then comes the mean.": total
        / 3,
        "W times too much. Each process holds W times its own part, and DDP's mean divides the sum by W.": total
        * 3,
        "this is one process's part, times W. The mean over the processes is missing.": own[0] * 3,
        "this is one process's part alone.": own[0],
    }


@checker
def lars_step(function: Callable[[Tensor, Tensor, float, float, float], Tensor]) -> None:
    """Check a function (w, grad, lr, weight_decay, eta) -> w after one step of LARS, without momentum.

    A tensor with one axis (a bias, batch norm) takes a plain step: no decay, no adaptation.
    """
    w, grad = _normal(2, 5, 3, seed=121)
    lr, decay, eta = 0.5, 0.2, 0.1
    found = attempt(function, w, grad, lr, decay, eta)
    right = _by_optimizer(w, grad, lr, decay, eta)
    compare(found, right, _matrix_mistakes(w, grad, lr, decay, eta), "The weight", 1e-6)
    bias, slope = w[:, 0].clone(), grad[:, 0].clone()
    adapted = _plain(bias, slope, lr, eta * bias.norm() / slope.norm())
    decayed = slope + decay * bias
    mistakes = {
        "The matrix is right. But the bias was adapted too; the paper leaves biases and batch norm out. Look "
        "at w.ndim.": adapted,
        "The matrix is right. But the bias was treated like a weight, decayed and adapted. Look at w.ndim.": (
            _by_optimizer(bias, slope, lr, decay, eta, adapt=True)
        ),
        "The matrix is right. But the bias was decayed: no weight decay for a tensor with one axis.": _plain(
            bias, decayed, lr
        ),
        "The matrix is right. But the bias did not move: it is left out of the adaptation, not of the step.": bias,
    }
    found = attempt(function, bias, slope, lr, decay, eta)
    compare(found, _plain(bias, slope, lr), mistakes, "The bias", 1e-6)


def _matrix_mistakes(w: Tensor, grad: Tensor, lr, decay, eta) -> dict[str, Tensor]:
    step = grad + decay * w
    trust = eta * w.norm() / step.norm()
    return {
        "Nothing has moved. Return the new weight.": w,
        "This went uphill: subtract the step.": _plain(w, step, -lr, trust),
        "A plain step: the trust ratio is missing.": _plain(w, step, lr),
        "The weight decay is missing. It is added to the gradient before the norms are taken.": (
            _plain(w, grad, lr, eta * w.norm() / grad.norm())
        ),
        "The ratio was taken with the norm of the gradient alone. LARS adds the decay first, and takes the "
        "norm of the sum.": _plain(w, step, lr, eta * w.norm() / grad.norm()),
        "The decay was added after the adaptation, so that it is not scaled with the rest.": (
            w - lr * (eta * w.norm() / grad.norm() * grad + decay * w)
        ),
        "The ratio is upside down: a small gradient is to be made longer, so |g| stands below.": (
            _plain(w, step, lr, eta * step.norm() / w.norm())
        ),
        "eta is missing: the step is as long as the weight itself, times lr.": (
            _plain(w, step, lr, trust / eta)
        ),
        "The learning rate is missing.": _plain(w, step, 1.0, trust),
        "You returned the step. The new weight is w minus the step.": lr * trust * step,
        "The norms were taken row by row. One ratio for the whole tensor.": _plain(
            w, step, lr, eta * w.norm(dim=1, keepdim=True) / step.norm(dim=1, keepdim=True)
        ),
    }


def _plain(w: Tensor, step: Tensor, lr: float, trust: Tensor | float = 1.0) -> Tensor:
    return w - lr * trust * step


def _by_optimizer(w: Tensor, grad: Tensor, lr, decay, eta, adapt: bool = True) -> Tensor:
    moved = w.clone().requires_grad_()
    moved.grad = grad.clone()
    LARS([moved], lr=lr, weight_decay=decay, momentum=0.0, eta=eta, adapt=adapt).step()
    return moved.detach()


@checker
def run_cost(function: Callable[..., Sequence[float]]) -> None:
    """Check a function (flop_per_image, images, epochs, gpus, tflops, price) -> (hours, cost).

    tflops: 10¹² operations a second that one GPU really does. price: of one GPU for an hour.
    """
    given = (5e10, 1_200_000, 300, 16, 40.0, 2.5)
    flop, images, epochs, gpus, tflops, price = given
    answer = attempt(function, *given)
    seconds = flop * images * epochs / (gpus * tflops * 1e12)
    hours = seconds / 3600
    cost = hours * gpus * price

    def pair(hours: float, cost: float) -> Tensor:
        return torch.tensor([hours, cost], dtype=torch.float64)

    mistakes = {
        "The cost is that of one GPU. The price is for one GPU and hour, and all of them run.": pair(
            hours, hours * price
        ),
        "The hours are those of one GPU alone: the others share the work. (The cost is right: it does not "
        "depend on how many share it.)": pair(hours * gpus, cost),
        "One GPU does it all here, and then all of them are paid for it.": pair(
            hours * gpus, cost * gpus
        ),
        "The epochs are missing.": pair(hours / epochs, cost / epochs),
        "These are seconds. An hour has 3600.": pair(seconds, seconds * gpus * price),
        "The hours are in seconds; the cost is right.": pair(seconds, cost),
        "These are minutes. An hour has 3600 seconds.": pair(hours * 60, cost * 60),
        "The tera is missing: tflops counts 10¹² operations a second.": pair(
            hours * 1e12, cost * 1e12
        ),
        "Both views are in flop_per_image already; you counted them twice.": pair(
            2 * hours, 2 * cost
        ),
        "The right numbers in the wrong order: first the hours, then the cost.": pair(cost, hours),
    }
    compare(answer, pair(hours, cost), mistakes, "(hours, cost)", 1e-7)


def _normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
