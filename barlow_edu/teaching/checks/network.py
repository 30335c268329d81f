"""Checkers of notebook 09: the resolution that a stem leaves, the projector, and one of one's own."""

import functools
import itertools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from barlow_edu.evaluation.spectra import distance_to_identity
from barlow_edu.numerics.batchnorm import batch_statistics
from barlow_edu.teaching.checks.base import attempt, checker, judge, numbers, tell
from barlow_edu.teaching.checks.worlds import correlation, normal

STEM = {"imagenet": (7, 2, 3), "cifar": (3, 1, 1)}  # kernel, stride, padding of its convolution


def _whole_numbers(answer: Sequence[int], *_) -> Tensor:
    sizes = numbers(answer, "a list of five whole numbers")
    tell({
        "Six numbers. The stem counts once: after its max-pool, where it has one.": sizes.shape == (6,),
        "Return five numbers: after the stem, and after each of the four stages.": sizes.shape != (5,),
        "A resolution is a whole number of pixels: divide with //, as in the formula.": bool((sizes % 1).any()),
    })  # fmt: skip
    return sizes


def _after(size: int, kernel: int, stride: int, padding: int) -> int:
    """Resolution after a convolution or a pooling."""
    return (size + 2 * padding - kernel) // stride + 1


def _resolutions(size, stem, pool=None, strides=(1, 2, 2, 2), conv=None, after=_after) -> Tensor:
    size = after(size, *(conv or STEM[stem]))
    if stem == "imagenet" if pool is None else pool:
        size = after(size, 3, 2, 1)
    sizes = itertools.accumulate(strides, lambda n, stride: after(n, 3, stride, 1), initial=size)
    return torch.tensor([*sizes])


@checker
def stem_resolutions(function: Callable[[int, str], Sequence[int]]) -> None:
    """Check a function (size, stem) -> the resolution after the stem and after each of the four stages."""
    worlds = itertools.product((32, 224, 33, 97), STEM)  # the odd sizes tell how one rounds
    judge(function, worlds, _resolutions, {
        "That is the cifar stem. Does your function look at its second argument?": {"stem": "cifar"},
        "That is the imagenet stem. Does your function look at its second argument?": {"stem": "imagenet"},
        "The max-pool is missing: after the 7 x 7 convolution it halves once more.": {"pool": False},
        "The cifar stem has no max-pool.": {"pool": True},
        "The first stage does not halve: only stages 2, 3 and 4 begin with stride 2.": {"strides": (2, 2, 2, 2)},
        "You rounded down. With padding, odd ones are rounded up: 33 to 17.": {"after": lambda n, k, s, p: n // s},
        "You left out the padding: 2p is in the formula.": {"after": lambda n, k, s, p: max(0, (n - k) // s + 1)},
        "You left out the + 1 at the end of the formula.": {"after": lambda n, k, s, p: (n + 2 * p - k) // s},
        "You forgot that stages 2, 3 and 4 halve the resolution.": {"strides": (1, 1, 1, 1)},
        "You padded by 2. A 3 x 3 kernel reaches one pixel further: padding 1.": {"conv": (3, 1, 2)},
    }, "resolutions({0}, {1!r})", 1e-9, look=_whole_numbers)  # fmt: skip


@checker
def build_projector(function: Callable[[int, int], nn.Module]) -> None:
    """Check a function (inputs, dim) -> the projector of the published code, (N, inputs) -> (N, dim)."""
    for inputs, dim in ((12, 20), (9, 6)):
        head = attempt(function, inputs, dim)
        module = f"Return a module, such as nn.Sequential(...), not a {type(head).__name__}."
        tell({module: not isinstance(head, nn.Module)})
        linears = [m for m in head.modules() if isinstance(m, nn.Linear)]
        norms = [m for m in head.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        _check_layers(head, linears, norms, inputs, dim)
        for k, norm in enumerate(norms[:2]):
            # scales and shifts of their own, so that the order of batch norm and ReLU shows
            norm.weight.data, norm.bias.data = normal(2, dim, seed=k).float().abs() + 0.2
        x = 2 * normal(64, inputs, seed=13).float() + 1
        right = functools.partial(_head, linears=linears, norms=norms)
        with batch_statistics(head), torch.no_grad():
            judge(head, [(x,)], right, _HEADS, "what your projector computes", 1e-3)


def _check_layers(head: nn.Module, linears: list, norms: list, inputs: int, dim: int) -> None:
    shapes = [(m.in_features, m.out_features) for m in linears]
    yours = ", ".join(f"{i} → {o}" for i, o in shapes)
    bare = [m.weight is None for m in norms]
    tell({
        f"The projector has three linear layers; yours has {len(linears)}.": len(linears) != 3,
        f"With inputs={inputs} and dim={dim} the layers should map {inputs} → {dim} → {dim} → {dim}; "
        f"yours are {yours}.": shapes != [(inputs, dim), (dim, dim), (dim, dim)],
        "A linear layer has a bias. Batch norm subtracts it: bias=False.": any(m.bias is not None for m in linears),
        "You took layer norm, which treats each image by itself. Batch norm compares the images of a batch.":
            any(isinstance(m, nn.LayerNorm) for m in head.modules()),
        "There is no batch norm: one belongs after each linear layer.": not norms,
        "The last linear layer is bare, as in the paper's text. The published code puts a batch norm "
        "after it, without weight and bias: affine=False.": len(norms) == 2 and not any(bare),
        f"One batch norm belongs after each of the three linear layers; yours has {len(norms)}.": len(norms) != 3,
        "The last batch norm has a weight and a bias. The loss undoes both: affine=False.": not all(bare[-1:]),
        "A batch norm between layers has a weight and a bias. Only the last one has affine=False.": any(bare[:-1]),
    })  # fmt: skip


def _head(x: Tensor, linears, norms, relus: Sequence[int] = (0, 1), first: str = "norm") -> Tensor:
    """The projector of these layers, with the batch's statistics; ``relus``: the layers that end in one."""
    for i, (linear, norm) in enumerate(zip(linears, norms, strict=True)):
        x = linear(x)
        if first == "relu" and i in relus:
            x = x.relu()
        x = F.batch_norm(x, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)
        if first == "norm" and i in relus:
            x = x.relu()
    return x


_HEADS = {
    "There is a ReLU after the last layer: it cuts z off below 0. It stands between layers.": {"relus": (0, 1, 2)},
    "There is no ReLU, so three linear layers do no more than one. Put one between each two.": {"relus": ()},
    "A ReLU is missing after the first layer: one belongs between each two layers.": {"relus": (1,)},
    "A ReLU is missing after the second layer: one belongs between each two layers.": {"relus": (0,)},
    "ReLU comes before the batch norm. The order is linear, batch norm, ReLU.": {"first": "relu"},
}  # fmt: skip


@checker
def own_projector(function: Callable[[Tensor, Tensor, int], Callable]) -> None:
    """Check a function (h_a, h_b, dim) -> embedding, (N, d) -> (N, dim), by C of twins that it has not seen.

    The features are mixtures of 8 numbers that the twins share and of 8 louder ones that they do not.
    """
    mix = torch.linalg.qr(normal(24, 24, seed=90)).Q[:16]
    known, new = (_feature_twins(mix, seed) for seed in (91, 93))
    embedding = attempt(function, *known, 8)
    itself = f"Return the embedding itself, a function or a module, not {type(embedding).__name__}."
    tell({itself: not callable(embedding)})
    with torch.no_grad():
        z = [torch.as_tensor(attempt(embedding, h)).double() for h in new]
    shape = f"(1000, 24) features become {tuple(z[0].shape)}. With dim=8 it should be (1000, 8)."
    tell({shape: any(x.shape != (1000, 8) for x in z)})
    varies = all(x.std(0).min() > 1e-6 for x in z)
    tell({"A dimension of your embedding is the same for all images, or not a number.": not varies})
    seen = distance_to_identity(correlation(*z), 1000)
    tell({
        f"On new twins the mean of C's diagonal is {seen.diagonal:.2f}, and 0.7 is wanted: your embedding "
        "holds much that only one of two twins has.": seen.diagonal < 0.7,
        f"On new twins C is {seen.distance:.2f} from the identity, and 0.4 is wanted. The diagonal is good, but off "
        f"it the RMS is {seen.rms:.2f}: dimensions repeat each other.": seen.distance > 0.4,
    })  # fmt: skip


def _feature_twins(mix: Tensor, seed: int) -> list[Tensor]:
    """Features (1000, 24), float32, of both views."""
    shared, noise = normal(1000, 8, seed=seed), normal(2, 1000, 32, seed=seed + 1)
    return [(torch.cat([shared, 2 * x[:, :8]], 1) @ mix + 0.1 * x[:, 8:]).float() for x in noise]
