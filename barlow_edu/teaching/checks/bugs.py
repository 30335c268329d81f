"""Checkers for notebook 16, the bug hunt: six mended functions."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from barlow_edu.teaching.checks.base import (
    NotRight,
    attempt,
    checker,
    compare,
    follow,
    judge,
    numbers,
    tell,
)
from barlow_edu.teaching.checks.worlds import (
    ALONG_FEATURES,
    CORRELATION,
    SOLARISED,
    centred,
    correlation,
    drawn,
    normal,
    solarised,
    standard,
)


@checker
def unit_diagonal(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check a function (N, D), (N, D) -> (D, D): C, whose diagonal is 1 for equal views."""
    worlds = [tuple(2 * normal(2, 9, 4, seed=140) + 1), tuple(3 * normal(2, 13, 5, seed=146) - 1)]
    judge(function, worlds, correlation, {
        "Nothing has changed: two equal views still have (N − 1)/N on the diagonal. Which N does "
        "z.std(0) divide by, and which N does the last line divide by?": {"scale": lambda z: centred(z) / z.std(0)},
        "Now it is too large: equal views give N/(N − 1) on the diagonal. You changed both places: change only one.":
            lambda a, b: correlation(a, b, n=len(a) - 1),
        "You mended one view only: equal views still do not give 1.":
            lambda a, b: correlation(a, b) * ((len(a) - 1) / len(a)) ** 0.5,
        "You divided by the diagonal of C, so it is 1 for any two views. Only *equal* views should give 1.":
            lambda a, b: correlation(a, b) / correlation(a, b).diagonal(),
        "You wrote ones on the diagonal, which hides the mistake. Look for the place where the wrong N comes from.":
            lambda a, b: correlation(a, b).fill_diagonal_(1),
    } | CORRELATION, "C")  # fmt: skip


def _batches(z_a, z_b, n, scale=standard, size=None) -> Tensor:
    """C of each full batch of n."""
    pairs = zip(z_a.split(n), z_b.split(n), strict=True)
    return torch.stack([correlation(a, b, scale, size) for a, b in pairs if len(a) == n])


def _first_two(answer, z_a: Tensor, z_b: Tensor, n: int) -> Tensor:
    answer = numbers(answer, "a list of matrices")
    tell({
        f"{2 * n} samples in batches of {n} are two full batches, but you returned {len(answer)} matrices. Only a "
        "left-over batch may be dropped.": len(z_a) == 2 * n and len(answer) != 2,
        f"{len(z_a)} samples in batches of {n} gave {len(answer)} matrices, not 2 or 3.": len(answer) not in (2, 3),
    })  # fmt: skip
    return answer[:2]


@checker
def every_batch(function: Callable[[Tensor, Tensor, int], Sequence[Tensor]]) -> None:
    """Check a function (z_a, z_b, batch_size) -> the C of each batch, in order.

    A left-over batch may be left out, or have its own correct C. One of a single sample has none.
    """
    for n, seed in ((8, 141), (5, 147)):
        z_a, z_b = normal(2, 3 * n - 2, 3, seed=seed)
        judge(function, [(z_a[: 2 * n], z_b[: 2 * n], n), (z_a, z_b, n)], _batches, {
            "You divided by the size of the whole set. C of a batch is an average over that batch alone.":
                lambda a, b, n: _batches(a, b, n, size=len(a)),
            "You standardised the whole set at once. Each batch has its own mean and deviation.":
                lambda a, b, n: _batches(standard(a), standard(b), n, lambda z: z),
            ALONG_FEATURES: {"scale": lambda z: standard(z, 1)},
        }, "C of the full batches", look=_first_two)  # fmt: skip
        for c in list(attempt(function, z_a, z_b, n))[2:]:
            right = correlation(z_a[2 * n :], z_b[2 * n :])
            mistakes = {
                f"The left-over batch holds {n - 2} samples, but its sum is still divided by {n}: equal views can "
                f"only reach {n - 2}/{n}.": right * (n - 2) / n,
                "The left-over batch was standardised together with another one.":
                    standard(z_a[n:])[n:].T @ standard(z_b[n:])[n:] / (n - 2),
            }  # fmt: skip
            compare(c, right, mistakes, "C of the left-over batch")
        rows = 2 * n + 1  # the C of a single sample may neither be returned nor raise an error
        almost = f"Almost. With {rows} samples in batches of {n} a single one is left over"
        try:
            answer = list(attempt(function, z_a[:rows], z_b[:rows], n))
        except NotRight as error:
            alone = f"{almost}, and one sample has no correlation. Leave it out. ({error})"
            raise NotRight(alone) from error
        alone = f"{almost}. One sample has no deviation, and no correlation: leave it out."
        tell({alone: len(answer) > 2})


@checker
def bright_pixels(function: Callable[[Tensor], Tensor]) -> None:
    """Check a function: images in [0, 1] -> the same with every pixel of at least 128/255 inverted."""
    levels = [torch.randperm(256, generator=drawn(seed)) for seed in (142, 148)]
    # all of them, and no edge case
    worlds = [(x[x != 128].repeat(4)[:972].reshape(3, 3, 9, 12) / 255,) for x in levels]
    judge(function, worlds, solarised, {
        "You returned uint8. Floats came in, so floats in [0, 1] have to leave.": lambda x: torch.uint8,
        "This is the right picture on the wrong scale: it came in [0, 1], so it has to leave in [0, 1].":
            lambda x: 255 * solarised(x),
    } | SOLARISED, "the picture", 2e-3)  # fmt: skip


@checker
def first_steps(recipe_class: type) -> None:
    """Check a class of recipes: its hook ``optimizer_step(step, optimizer)`` warms up, then steps.

    A share of (step + 1) / warmup is right, and so is step / warmup, which spends the first step at rate 0.
    """
    itself = "Give the class itself, not an object: check(MyRecipe)."
    tell({itself: not isinstance(recipe_class, type)})
    recipe = attempt(recipe_class)
    named = ", ".join(name for name in dir(recipe) if "step" in name.lower()) or "none"
    tell({
        f"The loop still finds no optimizer_step on your recipe (it has {named}), so it takes its own step at "
        "the full rate.": not hasattr(recipe, "optimizer_step"),
    })  # fmt: skip
    rates, moved = _run_recipe(recipe, recipe.warmup + 10)
    step = torch.arange(len(rates)).double()
    right = ((step + 1) / recipe.warmup).clamp(max=1)
    mistakes = {
        "The hook is called now, but the rate is the full one from the first step on.": torch.ones_like(step),
        "After the warm-up the rate goes on growing, above the base rate. Hold it there: min(1, ...).":
            (step + 1) / recipe.warmup,
        "The first step is still taken at the full rate: set the rate before optimizer.step(), not after it.":
            torch.cat([torch.ones(1), right[:-1]]),
        "The rate stays 0 until the warm-up is over: // throws the fraction away. Divide with /.":
            ((step + 1) // recipe.warmup).clamp(max=1),
    }  # fmt: skip
    if not torch.allclose(rates, (step / recipe.warmup).clamp(max=1), atol=1e-6):
        compare(rates, right, mistakes, "The rate / base rate, a step", tolerance=1e-6)
    tell({
        "The rates are right, but no weight ever moves: your hook replaces the loop's step, so it has to call "
        "optimizer.step() itself.": not moved,
    })  # fmt: skip


def _run_recipe(recipe: object, total: int) -> tuple[Tensor, bool]:
    """The rate, relative to the base, with which each step was taken, and whether a weight moved at all."""
    weight = nn.Parameter(torch.zeros(()))
    optimizer = recipe.configure_optimizer([weight])
    used, after = [], []
    optimizer.register_step_pre_hook(lambda o, *_: used.append(o.param_groups[0]["lr"]))

    def take(step):
        # a hook returns nothing, and an open exercise three dots
        return ... if recipe.optimizer_step(step, optimizer) is ... else True

    for step in range(total):
        weight.grad = torch.ones(())
        attempt(take, step)
        after.append(optimizer.param_groups[0]["lr"])
    often = f"{total} steps of the loop, and your hook moved the weights {len(used)} times."
    tell({often: len(used) > total})
    stepped = len(used) == total
    rates = torch.tensor(used if stepped else after).double() / recipe.lr
    return rates, stepped and weight.item() != 0


def _one_a_rank(answer, grads: list[Tensor]) -> Tensor:
    answer = numbers(answer, "a list of gradients, one a rank")
    tell({
        f"You returned one tensor. Every rank needs its own: a list of {len(grads)}.": answer.shape == grads[0].shape,
        f"There are {len(grads)} ranks, and you returned {len(answer)} gradients.": len(answer) != len(grads),
    })  # fmt: skip
    return answer


def _every_rank(grads: list[Tensor], factor: float = 1.0) -> Tensor:
    return torch.stack([factor * sum(grads)] * len(grads))


@checker
def all_reduce_backward(function: Callable[[list[Tensor]], Sequence[Tensor]]) -> None:
    """Check the backward rule of an all-reduce sum.

    It takes ∂L_k/∂total for each rank k, and returns for each rank the gradient of Σ_k L_k with respect to
    what that rank put in.
    """
    worlds = [(list(normal(3, 2, 4, seed=143)),), (list(normal(5, 3, 2, seed=149)),)]
    judge(function, worlds, _every_rank, {
        "Each rank still hands on its own gradient alone, as if the others had never used its part.": torch.stack,
        "This is the mean over ranks. What rank k put in is in the loss of *every* rank, and effects on several "
        "losses add up. (DDP will take its mean later.)": lambda g: _every_rank(g, 1 / len(g)),
        "This is right as long as all ranks compute the same loss. In general their gradients differ, and W times "
        "a rank's own is not their sum.": lambda g: torch.stack(g) * len(g),
        "This is W times too much: the sum over ranks holds the W already.": lambda g: _every_rank(g, len(g)),
        "Only rank 0 got the sum. No rank is special in an all-reduce: each of them needs it.":
            lambda g: torch.stack([sum(g)] + [0 * x for x in g[1:]]),
        "You left out the rank's own loss. Its part is in that one too.": lambda g: _every_rank(g) - torch.stack(g),
    }, "The list of gradients", look=_one_a_rank)  # fmt: skip


def _whole(answer: object, shards: list[Tensor]) -> Tensor:
    """The learner's shards as one batch."""
    whole = torch.is_tensor(answer) and answer.shape == torch.cat(shards).shape
    tell({
        "You returned the batch in one piece. Every rank needs its shard: a list.": whole,
        f"Return a list of shards, not {type(answer).__name__}.": not isinstance(answer, Iterable),
    })  # fmt: skip
    answer = list(answer)
    shapes = [tuple(x.shape) for x in answer]
    rows = [len(s) for s in shards]
    other = f"The shards came with {rows} rows; yours have the shapes {shapes}."
    tell({other: shapes != [s.shape for s in shards]})
    return torch.cat(answer)


def _explain_shards(answer: object, shards: list[Tensor]) -> Tensor:
    """Tell the several ways to take means over ranks as if all of them held the same number of samples."""
    whole, z = _whole(answer, shards), torch.cat(shards)
    mean = torch.stack([s.mean(0) for s in shards]).mean(0)
    scale = torch.stack([s.var(0, correction=0) for s in shards]).mean(0).sqrt()
    scales = scale, z.std(0, correction=0), _within(shards), (z - mean).square().mean(0).sqrt()
    unequal = [(z - z.mean(0)) / scale, *((z - mean) / s for s in scales)]
    tell({
        "The mean of the ranks' means is only right if all hold the same number of samples. Here they do not: add up "
        "the sums and the counts.": any(torch.allclose(whole.double(), x, rtol=1e-4) for x in unequal),
    })  # fmt: skip
    return whole


def _within(shards: list[Tensor]) -> Tensor:
    """The deviation within the ranks, around the mean of each."""
    return torch.cat([centred(s) for s in shards]).std(0, correction=0)


def _by_parts(shards, mean=lambda z, s: z.mean(0), scale=lambda z, s: z.std(0, correction=0)):
    """Each shard s with a mean and a deviation that are taken from the whole batch z, or from s."""
    z = torch.cat(shards)
    return torch.cat([(s - mean(z, s)) / scale(z, s) for s in shards])


@checker
def shards_as_one(function: Callable[[list[Tensor]], Sequence[Tensor]]) -> None:
    """Check a function: shards (n_k, D), one a rank -> the same, standardised by the whole batch."""
    for sizes, seed in (((3, 5, 7), 144), ((6, 2, 4, 8), 150)):
        z = normal(sum(sizes), 3, seed=seed) * torch.tensor([1.0, 3.0, 0.5])
        z = z + torch.tensor([0.0, 5.0, -2.0]) + torch.linspace(-2, 2, len(z)).double()[:, None]
        world = (list(z.split(sizes)),)
        judge(function, [world], _by_parts, {
            "Each rank still uses its own mean and its own deviation. Take both from the whole batch.":
                lambda shards: torch.cat([*map(standard, shards)]),
            "The mean is the global one, but each rank still divides by its own deviation.":
                {"scale": lambda z, s: s.std(0, correction=0)},
            "The deviation is the global one, but each rank still subtracts its own mean.":
                {"mean": lambda z, s: s.mean(0)},
            "The mean of the ranks' variances is too small: it leaves out how far their means lie apart.":
                lambda shards: _by_parts(shards, scale=lambda z, s: _within(shards)),
            "This is the square root of N − 1 again, the bug of case 1.": {"scale": lambda z, s: z.std(0)},
            "You divided by the variance. Take its root.": {"scale": lambda z, s: z.var(0, correction=0)},
        }, "The standardised batch", look=_explain_shards)  # fmt: skip
        weights = normal(*z.shape, seed=145)

        def learner(z: Tensor, sizes=sizes, weights=weights) -> Tensor:
            shards = list(z.split(sizes))
            return (weights * _whole(attempt(function, shards), shards)).sum()

        hint = " Is a mean or a deviation detached, or computed under no_grad? z moves them, too."
        follow(learner, (z,), lambda z, weights=weights: (weights * standard(z)).sum(), hint)
