"""Checkers for notebook 05, watching C become the identity."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from barlow_edu.loss import barlow_twins_loss
from barlow_edu.teaching.checks.base import NotRight, attempt, checker, compare

CHECKERS = ("free_step", "learning_time", "effective_modes")


@checker
def free_step(function: Callable[[Tensor, Tensor, float, float], tuple[Tensor, Tensor]]) -> None:
    """Check a function (z_a, z_b, lambd, lr) -> the two embeddings (N, D) after one gradient step."""
    generator = torch.Generator().manual_seed(11)
    z_a, z_b = torch.randn(2, 9, 5, generator=generator, dtype=torch.float64)
    lambd, lr = 0.3, 0.7
    answer = attempt(function, z_a, z_b, lambd, lr)
    if torch.is_tensor(answer) and answer.ndim == 0:
        raise NotRight("This is a single number, the loss. Return the two moved embeddings.")
    try:
        moved_a, moved_b = answer
    except (TypeError, ValueError) as error:
        raise NotRight("Return two tensors: the new z_a and the new z_b.") from error
    found = _stacked(moved_a, moved_b)
    if found.shape == (2, 9, 5) and torch.equal(found, torch.stack([z_a, z_b])):
        raise NotRight("Nothing has moved. Return z - lr * gradient, for each of the two.")
    right = torch.stack([z_a, z_b]) - lr * _gradients(z_a, z_b, lambd)
    compare(
        found, right, _step_mistakes(z_a, z_b, lambd, lr), what="What you returned", tolerance=1e-6
    )


@checker
def learning_time(function: Callable[[Tensor, Tensor], float]) -> None:
    """Check a function (gamma, s0) -> the time at which a mode is half learned, c = 1/2."""
    for gamma, s0 in [(0.25, 1e-3), (1.0, 1e-4), (0.04, 1e-2)]:
        # numbers as 0-d tensors: math, numpy and torch can all take their logarithm
        answer = attempt(function, *torch.tensor([gamma, s0], dtype=torch.float64))
        log = -math.log(s0**2 * gamma)
        mistakes = {
            "The time is negative. The logarithm of a small number is below 0: turn the sign.": (
                -log / (8 * gamma)
            ),
            "You divided by 4 γ. That is how fast s grows. Its square, c = γ s², grows at twice that rate.": (
                log / (4 * gamma)
            ),
            "You took s0 where the formula has s0². The strength at the start is c(0) = γ s0².": (
                -math.log(s0 * gamma) / (8 * gamma)
            ),
            "γ is missing inside the logarithm. The strength at the start is c(0) = γ s0².": (
                -math.log(s0**2) / (8 * gamma)
            ),
            "γ is missing in the denominator: a mode that the twins share more is learned sooner.": (
                log / 8
            ),
            "This is the decimal logarithm. The natural one is math.log.": (
                log / math.log(10) / (8 * gamma)
            ),
        }
        right = math.log(1 / (s0**2 * gamma) - 1) / (8 * gamma)
        compare(answer, right, mistakes, f"The time for γ = {gamma}, s0 = {s0}", 1e-3)


@checker
def effective_modes(function: Callable[[Tensor], float]) -> None:
    """Check a function C (D, D) -> exp(entropy) of its normalised singular values."""
    generator = torch.Generator().manual_seed(12)
    mixed = torch.randn(7, 7, generator=generator, dtype=torch.float64) / 4
    _check_modes(function, mixed, "a mixed C, 7 × 7")
    _check_modes(function, torch.eye(6, dtype=torch.float64), "C = I, 6 × 6")
    two = torch.diag(torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64))
    _check_modes(function, two, "C = diag(1, 1, 0, 0)")


def _check_modes(function: Callable[[Tensor], float], c: Tensor, case: str) -> None:
    answer = attempt(function, c)
    if torch.is_tensor(answer) and answer.numel() == 1:
        answer = answer.reshape(())
    if torch.isnan(torch.as_tensor(answer)).any():
        raise NotRight(
            f"NaN for {case}: 0 · log 0 is not a number for a computer. Leave out the zeros, p[p > 0]."
        )
    values = torch.linalg.svdvals(c)
    compare(answer, _perplexity(values), _mode_mistakes(c, values), f"The number for {case}", 1e-4)


def _mode_mistakes(c: Tensor, values: Tensor) -> dict[str, float]:
    p = values[values > 0] / values.sum()
    entropy = float(-(p * p.log()).sum())
    bits = entropy / math.log(2)
    raw = values[values > 0]
    return {
        "This is the entropy itself. Take exp of it, then D equal values count as D.": entropy,
        "This is the entropy in bits. Use the natural logarithm, and exp at the end.": bits,
        "The entropy is in bits, but exp undoes the natural logarithm. Use log, not log2.": math.exp(
            bits
        ),
        "The sign of the entropy is turned: it is minus the sum of p log p.": math.exp(-entropy),
        "You squared the singular values. Here p is each one divided by their sum.": (
            _perplexity(values.square())
        ),
        "These are eigenvalues. C is not symmetric: take its singular values.": (
            _perplexity(torch.linalg.eigvals(c).abs())
        ),
        "The singular values were not divided by their sum. p must add up to 1.": math.exp(
            min(700.0, float(-(raw * raw.log()).sum()))
        ),
        "This counts every singular value above 0 as one. A small one should count for less.": float(
            len(raw)
        ),
        "This is the participation ratio, (Σ s)² / Σ s². A fair count too, but not the one asked for.": float(
            values.sum().square() / values.square().sum()
        ),
    }


def _perplexity(values: Tensor) -> float:
    """exp(entropy) of non-negative values, divided by their sum."""
    p = values / values.sum()
    p = p[p > 0]
    return float(torch.exp(-(p * p.log()).sum()))


def _gradients(z_a: Tensor, z_b: Tensor, lambd: float) -> Tensor:
    """Gradients of the loss with respect to both embeddings, (2, N, D)."""
    z = torch.stack([z_a, z_b]).requires_grad_()
    return torch.autograd.grad(barlow_twins_loss(z[0], z[1], lambd).loss, z)[0]


def _stacked(moved_a: Tensor, moved_b: Tensor) -> Tensor:
    try:
        return torch.stack([torch.as_tensor(moved_a), torch.as_tensor(moved_b)]).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise NotRight("The two things that you returned must be (N, D) tensors.") from error


def _step_mistakes(z_a: Tensor, z_b: Tensor, lambd: float, lr: float) -> dict[str, Tensor]:
    z = torch.stack([z_a, z_b])
    step = lr * _gradients(z_a, z_b, lambd)
    zero = torch.zeros_like(z_a)
    after_a = z_a - step[0]
    late_b = z_b - lr * _gradients(after_a, z_b, lambd)[1]
    return {
        "This went uphill: the gradient points where the loss grows. Subtract it.": z + step,
        "The learning rate is missing: subtract lr * gradient.": z - step / lr,
        "View B stands still. Both tables are free: move both.": z - torch.stack([step[0], zero]),
        "View A stands still. Both tables are free: move both.": z - torch.stack([zero, step[1]]),
        "A and B have changed places in what you return.": (z - step).flip(0),
        "These are the gradients. Return the embeddings after the step, z - lr * gradient.": step
        / lr,
        "This is the step alone. Return where it leads to, z - lr * gradient.": step,
        "Your loss does not use the lambd that it was given.": z - lr * _gradients(z_a, z_b, 0.005),
        "Only the invariance was differentiated. Use the whole loss.": z
        - lr * _gradients(z_a, z_b, 0.0),
        "B was moved by a gradient taken after A had moved. Take both gradients at the same place.": (
            torch.stack([after_a, late_b])
        ),
    }
