"""Checkers for notebook 14, the bug hunt: six mended functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from barlow_edu.teaching.checks.base import NotRight, attempt, checker, compare

CHECKERS = (
    "unit_diagonal",
    "every_batch",
    "bright_pixels",
    "first_steps",
    "all_reduce_backward",
    "shards_as_one",
)


@checker
def unit_diagonal(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check a function (N, D), (N, D) -> (D, D): C, whose diagonal is 1 for equal views."""
    z_a, z_b = 2 * _normal(2, 9, 4, seed=140) + 1
    n, a, b = len(z_a), _standard(z_a), _standard(z_b)
    right = a.T @ b / n
    centred = (z_a - z_a.mean(0)).T @ (z_b - z_b.mean(0)) / n
    mistakes = {
        "Nothing has changed: two equal views still have (N − 1)/N on the diagonal. Which N does "
        "z.std(0) divide by, and which N does the last line divide by?": right * (n - 1) / n,
        "Now it is too large: equal views give N/(N − 1) on the diagonal. You changed both places; "
        "change one of them.": right * n / (n - 1),
        "You mended one view only: equal views still do not give 1.": right * ((n - 1) / n) ** 0.5,
        "You divided by the diagonal of C, so it is 1 for any two views, even for strangers. It is "
        "to be 1 for *equal* views.": right / right.diagonal(),
        "You wrote ones on the diagonal. Look for the place where the wrong number comes from.": (
            right - right.diagonal().diag() + torch.eye(4, dtype=right.dtype)
        ),
        "You divided by D, the number of dimensions. The sum runs over the N samples.": right
        * n
        / 4,
        "The standard deviation is gone: this is a covariance, and changes with the scale of z.": centred,
        "You did not subtract the mean.": (
            (z_a / z_a.std(0, correction=0)).T @ (z_b / z_b.std(0, correction=0)) / n
        ),
        "This is Cᵀ: rows belong to view A.": right.T,
    }
    compare(attempt(function, z_a, z_b), right, mistakes, "C")


@checker
def every_batch(function: Callable[[Tensor, Tensor, int], Sequence[Tensor]]) -> None:
    """Check a function (z_a, z_b, batch_size) -> the C of each batch, in order.

    A left-over batch may be left out, or have its own correct C. One of a single sample has none.
    """
    z_a, z_b = _normal(2, 22, 3, seed=141)
    _whole_batches(_list_of(attempt(function, z_a[:16], z_b[:16], 8)), z_a[:16], z_b[:16])
    answer = _list_of(attempt(function, z_a, z_b, 8))
    if len(answer) not in (2, 3):
        raise NotRight(f"22 samples in batches of 8 gave {len(answer)} matrices, not 2 or 3.")
    _whole_batches(answer[:2], z_a, z_b)
    if len(answer) == 3:
        a, b = _standard(z_a[16:]), _standard(z_b[16:])
        right = a.T @ b / 6
        mistakes = {
            "The left-over batch holds 6 samples, and its sum is still divided by 8: equal views can "
            "only reach 6/8.": right * 6 / 8,
            "The left-over batch was standardised together with another one.": (
                _standard(z_a[8:])[8:].T @ _standard(z_b[8:])[8:] / 6
            ),
        }
        compare(answer[2], right, mistakes, "C of the left-over batch")
    try:
        answer = _list_of(attempt(function, z_a[:17], z_b[:17], 8))
    except NotRight as error:
        raise NotRight(
            "Almost. With 17 samples in batches of 8 a single one is left over, and one sample has no "
            f"correlation. Leave it out. ({error})"
        ) from error
    if len(answer) > 2:
        raise NotRight(
            "Almost. With 17 samples in batches of 8 a single one is left over. One sample has no "
            "deviation, and no correlation: leave it out."
        )


def _whole_batches(answer: list[Tensor], z_a: Tensor, z_b: Tensor) -> None:
    if len(answer) != 2:
        raise NotRight(
            f"16 samples in batches of 8 are two full batches; you gave back {len(answer)} matrices. "
            "Only the scrap may be dropped."
        )
    for k, found in enumerate(answer):
        a, b = _standard(z_a[8 * k : 8 * k + 8]), _standard(z_b[8 * k : 8 * k + 8])
        right = a.T @ b / 8
        whole_a, whole_b = (_standard(z)[8 * k : 8 * k + 8] for z in (z_a, z_b))
        mistakes = {
            "You divided by the size of the whole set. A batch speaks for itself.": right
            * 8
            / len(z_a),
            "You standardised the whole set at once. Each batch has its own mean and deviation.": (
                whole_a.T @ whole_b / 8
            ),
        }
        compare(found, right, mistakes, f"C of full batch {k + 1}")


@checker
def bright_pixels(function: Callable[[Tensor], Tensor]) -> None:
    """Check a function: images in [0, 1] -> the same with every pixel of at least 128/255 inverted."""
    levels = torch.arange(256)[torch.randperm(256, generator=torch.Generator().manual_seed(142))]
    levels = levels[levels != 128].repeat(4)[:972].reshape(3, 3, 9, 12)  # all, and no edge case
    x = levels / 255
    bright = levels >= 128
    mistakes = {
        "Nothing has changed, not one pixel. All values of x are between 0 and 1: which of them is 128 "
        "or more?": x,
        "You found the bright pixels, but 255 − x takes them far out of [0, 1]. What is the inverse of "
        "0.9 on this scale?": torch.where(bright, 255 - x, x),
        "This inverts every pixel. Solarising inverts the bright ones and leaves the dark ones.": 1
        - x,
        "Upside down: you inverted the dark pixels and left the bright ones.": (
            torch.where(bright, x, 1 - x)
        ),
        "The right picture on the wrong scale: it came in [0, 1], so it has to leave in [0, 1].": (
            torch.where(bright, 255 - levels, levels)
        ),
        "You cut the bright pixels off at black. They are to be inverted: 0.9 becomes 0.1.": (
            torch.where(bright, 0.0, x)
        ),
    }
    answer = attempt(function, x)
    if torch.is_tensor(answer) and answer.dtype == torch.uint8:
        raise NotRight("You gave back uint8. Floats came in, floats in [0, 1] have to leave.")
    compare(answer, torch.where(bright, 1 - x, x), mistakes, "the picture", tolerance=2e-3)


@checker
def first_steps(recipe_class: type) -> None:
    """Check a class of recipes: its hook ``optimizer_step(step, optimizer)`` warms up, then steps.

    Allowed are (step + 1) / warmup, and step / warmup, which spends the first step at rate 0.
    """
    if not isinstance(recipe_class, type):
        raise NotRight("Give the class itself, not an object: check(MyRecipe).")
    recipe = attempt(recipe_class)
    if not hasattr(recipe, "optimizer_step"):
        named = [name for name in dir(recipe) if "step" in name.lower()]
        raise NotRight(
            f"The loop still finds no optimizer_step on your recipe (it has {', '.join(named) or 'none'}), "
            "so it takes its own step at the full rate."
        )
    base, warmup, total = recipe.lr, recipe.warmup, recipe.warmup + 10
    rates, moved = _run_recipe(recipe, total)
    _diagnose_rates(torch.tensor(rates).double() / base, warmup)
    if not moved:
        raise NotRight(
            "The rates are right, but no weight ever moves: your hook replaces the loop's step, so it "
            "has to call optimizer.step() itself."
        )


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
    if len(used) > total:
        raise NotRight(
            f"{total} steps of the loop, and your hook moved the weights {len(used)} times."
        )
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
        "The hook is called now, but the rate is the full one from the first step on.": step * 0
        + 1,
        "After the warm-up it goes on growing, above the base rate. Hold it there: min(1, ...).": (
            (step + 1) / warmup
        ),
        "The first step is still taken at the full rate: set the rate before optimizer.step(), not "
        "after it.": late,
        "The rate stays 0 until the warm-up is over: // throws the fraction away. Divide with /.": (
            ((step + 1) // warmup).clamp(max=1)
        ),
    }
    compare(found, right, mistakes, "The rate / base rate, a step", tolerance=1e-6)


@checker
def all_reduce_backward(function: Callable[[list[Tensor]], Sequence[Tensor]]) -> None:
    """Check the backward rule of an all-reduce sum.

    It takes ∂L_k/∂total for each rank k, and returns for each rank the gradient of Σ_k L_k with respect to
    what that rank put in.
    """
    grads = list(_normal(3, 2, 4, seed=143))
    copies = [g.clone() for g in grads]
    answer = attempt(function, grads)
    if not all(torch.equal(*pair) for pair in zip(grads, copies, strict=True)):
        raise NotRight("You changed the gradients in place. Build new ones.")
    answer = _list_of(answer, what="gradients, one a rank")
    total, world = sum(copies), len(copies)
    if torch.is_tensor(answer[0]) and len(answer) == 2 and answer[0].shape == (4,):
        raise NotRight("You returned one tensor. Every rank needs its own: a list of three.")
    if len(answer) != world:
        raise NotRight(f"There are {world} ranks, and you returned {len(answer)} gradients.")
    found = torch.stack([torch.as_tensor(x).double() for x in answer])
    own, zero = torch.stack(copies), torch.zeros_like(total)
    mistakes = {
        "Each rank still hands on its own gradient alone, as if the others had never used its part.": own,
        "This is the mean over ranks. What rank k put in is in the loss of *every* rank, and effects on "
        "several losses add up. (DDP will take its mean later.)": torch.stack([total / world] * 3),
        "Right as long as all ranks compute the same loss. In general their gradients differ, and W "
        "times the own one is not the sum.": own * world,
        "This is W times too much: the sum over ranks holds the W already.": torch.stack(
            [total * world] * 3
        ),
        "Only rank 0 got it. Nobody is special in an all-reduce.": torch.stack([total, zero, zero]),
        "You left out the rank's own loss. Its part is in that one too.": total - own,
    }
    compare(found, torch.stack([total] * 3), mistakes, "The list of gradients")


@checker
def shards_as_one(function: Callable[[list[Tensor]], Sequence[Tensor]]) -> None:
    """Check a function: shards (n_k, D), one a rank -> the same, standardised by the whole batch."""
    z = _normal(15, 3, seed=144) * torch.tensor([1.0, 3.0, 0.5]) + torch.tensor([0.0, 5.0, -2.0])
    z = z + torch.linspace(-2, 2, 15).double()[:, None]  # the ranks see different things
    sizes = (3, 5, 7)
    found = _shards_answer(function, z, sizes)
    _explain_shards(found, z.split(sizes))
    z.requires_grad_()
    found = _shards_answer(function, z, sizes)
    if not found.requires_grad:
        raise NotRight("The values are right, but no gradient flows back to z: do not detach.")
    weights = _normal(15, 3, seed=145)
    gradient, right = (
        torch.autograd.grad((weights * x).sum(), z)[0] for x in (found, _standard(z))
    )
    if not torch.allclose(gradient.double(), right, rtol=1e-4):
        raise NotRight(
            "The values are right, the gradient is not. Is a mean or a deviation detached, or computed "
            "under no_grad? z moves them, too, and the gradient has to know."
        )


def _shards_answer(function: Callable, z: Tensor, sizes: Sequence[int]) -> Tensor:
    answer = attempt(function, list(z.split(sizes)))
    if torch.is_tensor(answer) and answer.shape == z.shape:
        raise NotRight("You returned the batch in one piece. Every rank needs its shard: a list.")
    answer = _list_of(answer, what="shards")
    shapes = [tuple(x.shape) for x in answer]
    if shapes != [(n, z.shape[1]) for n in sizes]:
        raise NotRight(f"The shards came with {list(sizes)} rows; yours have the shapes {shapes}.")
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
    if any(torch.allclose(found.double(), x, rtol=1e-4) for x in unequal):
        raise NotRight(
            "The mean of the ranks' means is only right if all hold the same number of samples. Here "
            "they do not: add up the sums and the counts."
        )
    own_scale = zip(shards, variances, strict=True)
    mistakes = {
        "Each rank still uses its own mean and its own deviation.": torch.cat(
            [_standard(s) for s in shards]
        ),
        "The mean is the global one, but each rank divides by its own deviation.": torch.cat(
            [(s - mean) / v.sqrt() for s, v in own_scale]
        ),
        "The deviation is the global one, but each rank subtracts its own mean.": torch.cat(
            [(s - s.mean(0)) / std for s in shards]
        ),
        "The mean of the ranks' variances is too small: it leaves out how far their means lie apart.": (
            (z - mean) / within
        ),
        "This is the square root of N − 1 again, the bug of case 1.": (z - mean) / z.std(0),
        "You divided by the variance. Take its root.": (z - mean) / std**2,
    }
    compare(found, _standard(z), mistakes, "The standardised batch")


def _standard(z: Tensor) -> Tensor:
    return (z - z.mean(0)) / z.std(0, correction=0)


def _normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _list_of(answer: object, what: str = "matrices") -> list[Tensor]:
    try:
        return list(answer)
    except TypeError as error:
        raise NotRight(f"Return a list of {what}, not {type(answer).__name__}.") from error
