"""Checkers of notebook 07: the resolution that a stem leaves, the projector, and its parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from barlow_edu.numerics.batchnorm import batch_statistics
from barlow_edu.teaching.checks.base import NotRight, attempt, checker, compare

CHECKERS = ("stem_resolutions", "build_projector", "projector_parameters")
STEM = {
    "imagenet": (7, 2, 3),
    "cifar": (3, 1, 1),
}  # kernel, stride, padding of the first convolution


@checker
def stem_resolutions(function: Callable[[int, str], Sequence[int]]) -> None:
    """Check a function (size, stem) -> the resolution after the stem and after each of the four stages."""
    for size in (32, 224, 33, 97):
        for stem in STEM:
            answer = _whole_numbers(attempt(function, size, stem))
            compare(
                answer,
                torch.tensor(_resolutions(size, stem)),
                _resolution_mistakes(size, stem),
                f"resolutions({size}, {stem!r})",
                tolerance=1e-9,
            )


def _whole_numbers(answer: Sequence[int]) -> Tensor:
    try:
        found = torch.as_tensor(answer, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise NotRight("Return a list of five whole numbers.") from error
    if found.shape == (6,):
        raise NotRight(
            "Six numbers. The stem counts once: the resolution after its max-pool, where it has one. "
            "Then four stages."
        )
    if found.shape != (5,):
        raise NotRight("Return five numbers: after the stem, and after each of the four stages.")
    if (found != found.round()).any():
        raise NotRight(
            "A resolution is a whole number of pixels: divide with //, as in the formula."
        )
    return found


def _after(size: int, kernel: int, stride: int, padding: int) -> int:
    """Resolution after a convolution or a pooling."""
    return (size + 2 * padding - kernel) // stride + 1


def _resolutions(
    size: int,
    stem: str,
    pool: bool | None = None,
    strides: Sequence[int] = (1, 2, 2, 2),
    conv: tuple[int, int, int] | None = None,
    after: Callable[[int, int, int, int], int] = _after,
) -> list[int]:
    size = after(size, *(conv or STEM[stem]))
    if stem == "imagenet" if pool is None else pool:
        size = after(size, 3, 2, 1)
    found = [size]
    for stride in strides:
        found.append(after(found[-1], 3, stride, 1))
    return found


def _resolution_mistakes(size: int, stem: str) -> dict[str, Tensor]:
    other = next(name for name in STEM if name != stem)
    mistakes = {
        f"That is the {other} stem. Does your function look at its second argument?": _resolutions(
            size, other
        ),
        "The first stage does not halve: its blocks have stride 1. Stages 2, 3 and 4 begin with stride 2.": (
            _resolutions(size, stem, strides=(2, 2, 2, 2))
        ),
        "You rounded down. With the padding of this network an odd resolution is rounded up: 33 becomes 17.": (
            _resolutions(size, stem, after=lambda n, k, s, p: n // s)
        ),
        "You left out the padding: 2p belongs into the formula.": _resolutions(
            size, stem, after=lambda n, k, s, p: max(0, (n - k) // s + 1)
        ),
        "You left out the + 1 at the end of the formula.": _resolutions(
            size, stem, after=lambda n, k, s, p: (n + 2 * p - k) // s
        ),
        "You forgot that stages 2, 3 and 4 halve the resolution.": _resolutions(
            size, stem, strides=(1, 1, 1, 1)
        ),
    }
    if stem == "imagenet":
        forgotten = "The max-pool is missing: after the 7 x 7 convolution it halves once more."
        mistakes[forgotten] = _resolutions(size, stem, pool=False)
    else:
        mistakes["The cifar stem has no max-pool."] = _resolutions(size, stem, pool=True)
        padded = "You padded by 2. A 3 x 3 kernel reaches one pixel to each side, so padding 1 keeps the size."
        mistakes[padded] = _resolutions(size, stem, conv=(3, 1, 2))
    return {told: torch.tensor(values) for told, values in mistakes.items()}


@checker
def build_projector(function: Callable[[int, int], nn.Module]) -> None:
    """Check a function (inputs, dim) -> the projector of the published code, (N, inputs) -> (N, dim)."""
    inputs, dim = 12, 20
    head = attempt(function, inputs, dim)
    if not isinstance(head, nn.Module):
        raise NotRight(f"Return a module, such as nn.Sequential(...), not a {type(head).__name__}.")
    linears = [m for m in head.modules() if isinstance(m, nn.Linear)]
    norms = [m for m in head.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    _check_linears(linears, inputs, dim)
    _check_norms(head, norms, len(linears))
    generator = torch.Generator().manual_seed(13)
    with torch.no_grad():
        for norm in norms[:2]:  # scales and shifts of their own, so that the order of things shows
            norm.weight.copy_(torch.rand(dim, generator=generator) + 0.5)
            norm.bias.copy_(torch.randn(dim, generator=generator))
        x = 2 * torch.randn(64, inputs, generator=generator) + 1
        with batch_statistics(head):
            answer = attempt(head, x)
        compare(
            answer,
            _head(x, linears, norms),
            _head_mistakes(x, linears, norms),
            "what your projector computes",
            tolerance=1e-3,
        )


def _check_linears(linears: list[nn.Linear], inputs: int, dim: int) -> None:
    if len(linears) != 3:
        raise NotRight(f"The projector has three linear layers; yours has {len(linears)}.")
    shapes = [(m.in_features, m.out_features) for m in linears]
    if shapes != [(inputs, dim), (dim, dim), (dim, dim)]:
        raise NotRight(
            f"With inputs={inputs} and dim={dim} the layers should map {inputs} → {dim} → {dim} → {dim}; "
            f"yours are {', '.join(f'{i} → {o}' for i, o in shapes)}."
        )
    if any(m.bias is not None for m in linears):
        raise NotRight(
            "A linear layer has a bias. The batch norm behind it subtracts the mean and the bias with it, "
            "so it would do nothing: bias=False."
        )


def _check_norms(head: nn.Module, norms: list[nn.Module], layers: int) -> None:
    if any(isinstance(m, nn.LayerNorm) for m in head.modules()):
        raise NotRight(
            "You took layer norm, which treats each image by itself. Batch norm compares the images of a batch."
        )
    if not norms:
        raise NotRight("There is no batch norm: one belongs behind each linear layer.")
    bare = [m.weight is None for m in norms]
    if len(norms) == layers - 1 and not any(bare):
        raise NotRight(
            "The last linear layer is bare, as in the paper's text. The published code puts a batch norm "
            "behind it, without weight and bias: affine=False."
        )
    if len(norms) != layers:
        raise NotRight(
            f"One batch norm belongs behind each of the three linear layers; yours has {len(norms)}."
        )
    if not bare[-1]:
        raise NotRight(
            "The last batch norm has a weight and a bias. The loss standardises each dimension, so they "
            "would do nothing: affine=False."
        )
    if any(bare[:-1]):
        raise NotRight(
            "A batch norm between the layers has no weight and no bias. Only the last one has affine=False."
        )


def _head(
    x: Tensor,
    linears: list[nn.Module],
    norms: list[nn.Module],
    relus: tuple[int, ...] = (0, 1),
    first: str = "norm",
) -> Tensor:
    """The projector of these layers, with the batch's statistics; ``relus``: the layers that end in one."""
    for i, (linear, norm) in enumerate(zip(linears, norms, strict=True)):
        x = linear(x)
        if first == "relu" and i in relus:
            x = x.relu()
        x = F.batch_norm(x, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)
        if first == "norm" and i in relus:
            x = x.relu()
    return x


def _head_mistakes(x: Tensor, *layers: list[nn.Module]) -> dict[str, Tensor]:
    last = (
        "There is a ReLU behind the last layer: no entry of z can be below 0, and half of what the layer "
        "could say is cut off. ReLU stands between the layers only."
    )
    missing = "A ReLU is missing: one belongs between each two layers, so there are two."
    return {
        last: _head(x, *layers, relus=(0, 1, 2)),
        "There is no ReLU, so three linear layers do no more than one. Put one between each two.": _head(
            x, *layers, relus=()
        ),
        missing: _head(x, *layers, relus=(0,)),
        missing + " ": _head(x, *layers, relus=(1,)),
        "ReLU comes before the batch norm. The order is linear, batch norm, ReLU.": _head(
            x, *layers, first="relu"
        ),
    }


@checker
def projector_parameters(function: Callable[[int, int, int], int]) -> None:
    """Check a function (inputs, hidden, dim) -> the number of parameters of a projector of three layers."""
    for inputs, hidden, dim in ((7, 11, 5), (2048, 8192, 8192)):
        weights = inputs * hidden + hidden * hidden + hidden * dim
        right = weights + 2 * (2 * hidden)
        mistakes = {
            "The weights are right. The two inner batch norms have a weight and a bias for each dimension.": (
                weights
            ),
            "You have half of what the batch norms hold: there are two inner ones, and each has a weight *and* "
            "a bias for each dimension.": weights + 2 * hidden,
            "You counted the last batch norm. It has affine=False: no weight, no bias.": right
            + 2 * dim,
            "You counted biases of the linear layers. They have none: bias=False.": (
                right + 2 * hidden + dim
            ),
            "You counted biases of the linear layers and left out the batch norms.": (
                weights + 2 * hidden + dim
            ),
            "You counted running means and variances. They are measured, not learned: buffers.": (
                right + 4 * hidden + 2 * dim
            ),
            "A layer is missing: inputs → hidden → hidden → dim are three.": (
                inputs * hidden + hidden * dim + 2 * hidden
            ),
            "A layer too many: inputs → hidden → hidden → dim are three.": (
                right + hidden * hidden + 2 * hidden
            ),
        }
        compare(
            attempt(function, inputs, hidden, dim),
            right,
            mistakes,
            f"projector_parameters({inputs}, {hidden}, {dim})",
            tolerance=1e-12,
        )
