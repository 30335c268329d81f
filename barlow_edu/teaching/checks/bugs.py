"""Checkers for notebook 16, the bug hunt: six mended functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from barlow_edu.teaching.checks.base import NotRight, attempt, checker, compare, judge, tell
from barlow_edu.teaching.checks.mistakes import ALONG_FEATURES, BRIGHT, CORRELATION, SOLARISED
from barlow_edu.teaching.checks.worlds import centred, correlation, drawn, normal, standard


@checker
def unit_diagonal(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check a function (N, D), (N, D) -> (D, D): C, whose diagonal is 1 for equal views."""
    worlds = [tuple(2 * normal(2, 9, 4, seed=140) + 1), tuple(3 * normal(2, 13, 5, seed=146) - 1)]
    judge(function, worlds, correlation, _DIAGONAL, "C")


_DIAGONAL = {
    "Nothing has changed: two equal views still have (N − 1)/N on the diagonal. Which N does "
    "z.std(0) divide by, and which N does the last line divide by?":
        lambda a, b: correlation(a, b) * (len(a) - 1) / len(a),
    "Now it is too large: equal views give N/(N − 1) on the diagonal. You changed both places; "
    "change one of them.": lambda a, b: correlation(a, b) * len(a) / (len(a) - 1),
    "You mended one view only: equal views still do not give 1.":
        lambda a, b: correlation(a, b) * ((len(a) - 1) / len(a)) ** 0.5,
    "You divided by the diagonal of C, so it is 1 for any two views, even for strangers. It is "
    "to be 1 for *equal* views.": lambda a, b: correlation(a, b) / correlation(a, b).diagonal(),
    "You wrote ones on the diagonal. Look for the place where the wrong number comes from.":
        lambda a, b: correlation(a, b).fill_diagonal_(1),
} | CORRELATION  # fmt: skip


@checker
def every_batch(function: Callable[[Tensor, Tensor, int], Sequence[Tensor]]) -> None:
    """Check a function (z_a, z_b, batch_size) -> the C of each batch, in order.

    A left-over batch may be left out, or have its own correct C. One of a single sample has none.
    """
    for n, seed in ((8, 141), (5, 147)):
        _left_over(function, n, *normal(2, 3 * n - 2, 3, seed=seed))


def _left_over(function: Callable, n: int, z_a: Tensor, z_b: Tensor) -> None:
    """Check batches of n: two full ones, then n - 2 samples more, then a single one more."""
    full = _list_of(attempt(function, z_a[: 2 * n], z_b[: 2 * n], n))
    _whole_batches(full, n, z_a[: 2 * n], z_b[: 2 * n])
    answer = _list_of(attempt(function, z_a, z_b, n))
    number = f"{len(z_a)} samples in batches of {n} gave {len(answer)} matrices, not 2 or 3."
    tell({number: len(answer) not in (2, 3)})
    _whole_batches(answer[:2], n, z_a, z_b)
    if len(answer) == 3:
        right = correlation(z_a[2 * n :], z_b[2 * n :])
        mistakes = {
            f"The left-over batch holds {n - 2} samples, and its sum is still divided by {n}: equal views can "
            f"only reach {n - 2}/{n}.": right * (n - 2) / n,
            "The left-over batch was standardised together with another one.":
                standard(z_a[n:])[n:].T @ standard(z_b[n:])[n:] / (n - 2),
        }  # fmt: skip
        compare(answer[2], right, mistakes, "C of the left-over batch")
    almost = f"Almost. With {2 * n + 1} samples in batches of {n} a single one is left over"
    try:
        answer = _list_of(attempt(function, z_a[: 2 * n + 1], z_b[: 2 * n + 1], n))
    except NotRight as error:
        told = f"{almost}, and one sample has no correlation. Leave it out. ({error})"
        raise NotRight(told) from error
    single = f"{almost}. One sample has no deviation, and no correlation: leave it out."
    tell({single: len(answer) > 2})


def _whole_batches(answer: list[Tensor], n: int, z_a: Tensor, z_b: Tensor) -> None:
    number = f"{2 * n} samples in batches of {n} are two full batches; you gave back {len(answer)} matrices."
    tell({f"{number} Only the scrap may be dropped.": len(answer) != 2})
    for k, c in enumerate(answer):
        rows = slice(n * k, n * k + n)
        right = correlation(z_a[rows], z_b[rows])
        mistakes = {
            "You divided by the size of the whole set. A batch speaks for itself.": right * n / len(z_a),
            "You standardised the whole set at once. Each batch has its own mean and deviation.":
                standard(z_a)[rows].T @ standard(z_b)[rows] / n,
            ALONG_FEATURES: standard(z_a[rows], 1).T @ standard(z_b[rows], 1) / n,
        }  # fmt: skip
        compare(c, right, mistakes, f"C of full batch {k + 1}")


@checker
def bright_pixels(function: Callable[[Tensor], Tensor]) -> None:
    """Check a function: images in [0, 1] -> the same with every pixel of at least 128/255 inverted."""
    worlds = []
    for seed in (142, 148):  # all levels, and no edge case
        levels = torch.randperm(256, generator=drawn(seed))
        worlds.append((levels[levels != 128].repeat(4)[:972].reshape(3, 3, 9, 12) / 255,))
    judge(function, worlds, _solarised, _PIXELS, "the picture", 2e-3)


def _solarised(x: Tensor) -> Tensor:
    return torch.where(x >= BRIGHT, 1 - x, x)


_PIXELS = {
    "You gave back uint8. Floats came in, floats in [0, 1] have to leave.": lambda x: torch.uint8,
    "The right picture on the wrong scale: it came in [0, 1], so it has to leave in [0, 1].":
        lambda x: 255 * _solarised(x),
} | SOLARISED  # fmt: skip


@checker
def first_steps(recipe_class: type) -> None:
    """Check a class of recipes: its hook ``optimizer_step(step, optimizer)`` warms up, then steps.

    Allowed are (step + 1) / warmup, and step / warmup, which spends the first step at rate 0.
    """
    if not isinstance(recipe_class, type):
        raise NotRight("Give the class itself, not an object: check(MyRecipe).")
    recipe = attempt(recipe_class)
    named = [name for name in dir(recipe) if "step" in name.lower()]
    lacking = (
        f"The loop still finds no optimizer_step on your recipe (it has {', '.join(named) or 'none'}), "
        "so it takes its own step at the full rate."
    )
    tell({lacking: not hasattr(recipe, "optimizer_step")})
    base, warmup, total = recipe.lr, recipe.warmup, recipe.warmup + 10
    rates, moved = _run_recipe(recipe, total)
    _diagnose_rates(torch.tensor(rates).double() / base, warmup)
    still = (
        "The rates are right, but no weight ever moves: your hook replaces the loop's step, so it "
    )
    tell({f"{still}has to call optimizer.step() itself.": not moved})


def _run_recipe(recipe: object, total: int) -> tuple[list[float], bool]:
    """The rate with which each step was taken, and whether a weight moved at all."""
    weight = nn.Parameter(torch.zeros(()))
    optimizer = recipe.configure_optimizer([weight])
    used = []
    optimizer.register_step_pre_hook(lambda o, *_: used.append(o.param_groups[0]["lr"]))
    after = []

    def take(step):
        done = recipe.optimizer_step(step, optimizer)
        return ... if done is ... else True  # an open exercise returns three dots

    for step in range(total):
        weight.grad = torch.ones(())
        attempt(take, step)
        after.append(optimizer.param_groups[0]["lr"])
    often = f"{total} steps of the loop, and your hook moved the weights {len(used)} times."
    tell({often: len(used) > total})
    moved = len(used) == total and weight.item() != 0
    return (used if len(used) == total else after), moved


def _diagnose_rates(found: Tensor, warmup: int) -> None:
    """found: (T,) rates relative to the base."""
    step = torch.arange(len(found)).double()
    right = ((step + 1) / warmup).clamp(max=1)
    from_zero = (step / warmup).clamp(max=1)
    if any(torch.allclose(found, x, atol=1e-6) for x in (right, from_zero)):
        return
    late = torch.cat([torch.ones(1).double(), right[:-1]])
    mistakes = {
        "The hook is called now, but the rate is the full one from the first step on.": torch.ones_like(step),
        "After the warm-up it goes on growing, above the base rate. Hold it there: min(1, ...).": (step + 1) / warmup,
        "The first step is still taken at the full rate: set the rate before optimizer.step(), not after it.": late,
        "The rate stays 0 until the warm-up is over: // throws the fraction away. Divide with /.":
            ((step + 1) // warmup).clamp(max=1),
    }  # fmt: skip
    compare(found, right, mistakes, "The rate / base rate, a step", tolerance=1e-6)


@checker
def all_reduce_backward(function: Callable[[list[Tensor]], Sequence[Tensor]]) -> None:
    """Check the backward rule of an all-reduce sum.

    It takes ∂L_k/∂total for each rank k, and returns for each rank the gradient of Σ_k L_k with respect to
    what that rank put in.
    """
    worlds = [(list(normal(3, 2, 4, seed=143)),), (list(normal(5, 3, 2, seed=149)),)]
    judge(function, worlds, _every_rank, _BACKWARD, "The list of gradients", look=_one_a_rank)


def _one_a_rank(answer, grads: list[Tensor]) -> Tensor:
    answer = _list_of(answer, what="gradients, one a rank")
    tell({
        f"You returned one tensor. Every rank needs its own: a list of {len(grads)}.":
            bool(answer) and torch.is_tensor(answer[0]) and answer[0].shape == grads[0].shape[1:],
        f"There are {len(grads)} ranks, and you returned {len(answer)} gradients.": len(answer) != len(grads),
    })  # fmt: skip
    return torch.stack([torch.as_tensor(x).double() for x in answer])


def _every_rank(grads: list[Tensor], factor: float = 1.0) -> Tensor:
    return torch.stack([factor * sum(grads)] * len(grads))


_BACKWARD = {
    "Each rank still hands on its own gradient alone, as if the others had never used its part.": torch.stack,
    "This is the mean over ranks. What rank k put in is in the loss of *every* rank, and effects on "
    "several losses add up. (DDP will take its mean later.)": lambda g: _every_rank(g, 1 / len(g)),
    "Right as long as all ranks compute the same loss. In general their gradients differ, and W "
    "times the own one is not the sum.": lambda g: torch.stack(g) * len(g),
    "This is W times too much: the sum over ranks holds the W already.": lambda g: _every_rank(g, len(g)),
    "Only rank 0 got it. Nobody is special in an all-reduce.":
        lambda g: torch.stack([sum(g)] + [0 * x for x in g[1:]]),
    "You left out the rank's own loss. Its part is in that one too.": lambda g: _every_rank(g) - torch.stack(g),
}  # fmt: skip


@checker
def shards_as_one(function: Callable[[list[Tensor]], Sequence[Tensor]]) -> None:
    """Check a function: shards (n_k, D), one a rank -> the same, standardised by the whole batch."""
    for sizes, seed in (((3, 5, 7), 144), ((6, 2, 4, 8), 150)):
        z = normal(sum(sizes), 3, seed=seed) * torch.tensor([1.0, 3.0, 0.5])
        z = z + torch.tensor([0.0, 5.0, -2.0]) + torch.linspace(-2, 2, len(z)).double()[:, None]
        _explain_shards(_whole(attempt(function, list(z.split(sizes))), z, sizes), z.split(sizes))
        _check_gradient(function, z.requires_grad_(), sizes)


def _check_gradient(function: Callable, z: Tensor, sizes: Sequence[int]) -> None:
    answer = _whole(attempt(function, list(z.split(sizes))), z, sizes)
    cut = "The values are right, but no gradient flows back to z: do not detach."
    tell({cut: not answer.requires_grad})
    weights = normal(*z.shape, seed=145)
    gradient, right = (
        torch.autograd.grad((weights * x).sum(), z)[0] for x in (answer, standard(z))
    )
    tell({
        "The values are right, the gradient is not. Is a mean or a deviation detached, or computed "
        "under no_grad? z moves them, too, and the gradient has to know.":
            not torch.allclose(gradient.double(), right, rtol=1e-4)
    })  # fmt: skip


def _whole(answer: object, z: Tensor, sizes: Sequence[int]) -> Tensor:
    """The learner's shards as one batch."""
    whole = torch.is_tensor(answer) and answer.shape == z.shape
    tell({"You returned the batch in one piece. Every rank needs its shard: a list.": whole})
    answer = _list_of(answer, what="shards")
    shapes = [tuple(x.shape) for x in answer]
    tell({
        f"The shards came with {list(sizes)} rows; yours have the shapes {shapes}.":
            shapes != [(n, z.shape[1]) for n in sizes]
    })  # fmt: skip
    return torch.cat(answer)


def _explain_shards(found: Tensor, shards: Sequence[Tensor]) -> None:
    z = torch.cat(list(shards))
    mean, std = z.mean(0), z.std(0, correction=0)
    means = torch.stack([s.mean(0) for s in shards])
    variances = torch.stack([s.var(0, correction=0) for s in shards])
    share = torch.tensor([len(s) for s in shards])[:, None] / len(z)
    within, plain = (share * variances).sum(0).sqrt(), means.mean(0)
    scales = (std, within, variances.mean(0).sqrt(), (z - plain).square().mean(0).sqrt())
    unequal = [(z - plain) / scale for scale in scales] + [(z - mean) / scales[2]]
    tell({
        "The mean of the ranks' means is only right if all hold the same number of samples. Here "
        "they do not: add up the sums and the counts.":
            any(torch.allclose(found.double(), x, rtol=1e-4) for x in unequal)
    })  # fmt: skip
    own_scale = zip(shards, variances, strict=True)
    mistakes = {
        "Each rank still uses its own mean and its own deviation.": torch.cat([standard(s) for s in shards]),
        "The mean is the global one, but each rank divides by its own deviation.":
            torch.cat([(s - mean) / v.sqrt() for s, v in own_scale]),
        "The deviation is the global one, but each rank subtracts its own mean.":
            torch.cat([centred(s) / std for s in shards]),
        "The mean of the ranks' variances is too small: it leaves out how far their means lie apart.":
            (z - mean) / within,
        "This is the square root of N − 1 again, the bug of case 1.": (z - mean) / z.std(0),
        "You divided by the variance. Take its root.": (z - mean) / std**2,
    }  # fmt: skip
    compare(found, standard(z), mistakes, "The standardised batch")


def _list_of(answer: object, what: str = "matrices") -> list[Tensor]:
    try:
        return list(answer)
    except TypeError as error:
        raise NotRight(f"Return a list of {what}, not {type(answer).__name__}.") from error
