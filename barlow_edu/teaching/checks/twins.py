"""Checkers of notebooks 03, making twins, and 09: the encoder's resolutions, the projector, one of one's own."""

import functools
import itertools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from barlow_edu.data import load_images
from barlow_edu.evaluation.spectra import distance_to_identity
from barlow_edu.numerics.batchnorm import batch_statistics
from barlow_edu.teaching.cards import measure
from barlow_edu.teaching.checks.base import Shaped, attempt, checker, close, judge, numbers, tell
from barlow_edu.teaching.checks.worlds import (
    BRIGHT,
    SOLARISED,
    correlation,
    embedding,
    normal,
    solarised,
)
from barlow_edu.views import TwinViews


@checker
def solarise_any(function: Callable[[Tensor], Tensor]) -> None:
    """Check a function that solarises images, floats in [0, 1] or bytes, and keeps their type."""
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    judge(function, [(levels / 255,)], solarised, {
        "You left out the threshold itself: byte 128 turns over too, so write >= and not >.":
            lambda x: torch.where(x > BRIGHT, 1 - x, x),
        "You turned values below 0: bright ones become 1 − x, not −x.": lambda x: torch.where(x >= BRIGHT, -x, x),
        "Your threshold is 127/255. Byte 128 is the first to turn over: take 128/255.":
            lambda x: torch.where(x >= 127 / 255, 1 - x, x),
    } | SOLARISED, "The solarised float image", 1e-6)  # fmt: skip
    between = torch.linspace(127.6, 127.9, 256).view(1, 1, 16, 16) / 255  # above 0.5, below 128/255
    answer = attempt(function, between)
    turned = torch.is_tensor(answer) and close(answer.double(), 1 - between.double(), 1e-6)
    tell({
        "Your threshold is 0.5. Byte 128 is 128/255 = 0.50196: take that, or floats between the two turn over.":
            turned,
    })  # fmt: skip
    dark = levels % 2  # bytes 0 and 1: their largest value is that of floats
    judge(function, [(levels,), (dark,)], solarised, {
        "A byte image of 0 and 1 was taken for floats. Ask for its type, x.dtype, not for its largest value.":
            lambda x: torch.where(x > 0, 1 - x, x) if x.max() == 1 else Shaped([0]),
        "Floats are right, but bytes did not change. 128 is the threshold for them.": lambda x: x,
        "Floats are right, bytes are not: every byte but 0 is above 128/255. Their threshold is 128.":
            lambda x: torch.where(x > 0, 255 - x, x),
        "Floats are right, bytes are not: 1 − x wraps round below 0. Their inverse is 255 − x.":
            lambda x: torch.where(x >= 128, 1 - x, x),
        "Floats are right, bytes are not: you treat them as floats. Their threshold is 128, their inverse 255 − x.":
            lambda x: torch.where(x > 0, 1 - x, x),
        "You gave floats in [0, 1] back for bytes. What comes in as bytes goes out as bytes.":
            lambda x: solarised(x) / 255,
    }, "The solarised byte image", 1e-6)  # fmt: skip
    kind = getattr(attempt(function, levels), "dtype", None)
    other = "The values of the byte image are right, but its type is not uint8. Keep the type."
    tell({other: kind != torch.uint8})


@checker
def my_pair(function: Callable[[], tuple[Callable, Callable]]) -> None:
    """Check a function that returns the paper's two transforms of one image, uint8 (3, 64, 64) -> float (3, 32, 32).

    Each is tried 200 times on simple pictures; the recipe's probabilities must be seen in what comes out.
    """
    pair = attempt(function)
    two = isinstance(pair, (tuple, list)) and len(pair) == 2 and all(map(callable, pair))
    tell({"Return two transforms, view_1 and view_2.": not two})
    (a, soft), (b, sharp) = (_what_it_does(view, f"View {k}") for k, view in enumerate(pair, 1))
    tell({
        f"{a:.0%} and {b:.0%} of views 1 and 2 are solarised, not 0 and 20 %. It comes after the jitter.":
            a > 0.02 or not 0.1 <= b <= 0.32,
        "View 2 is no sharper than view 1. Blur has probability 1.0 in view 1 and 0.1 in view 2.":
            not soft < 0.8 * sharp,
    })  # fmt: skip


def _what_it_does(transform: Callable, name: str) -> tuple[float, float]:
    """How often it solarises, and how sharp its views are, after all else that 200 views of a picture show."""

    def draw(picture: Tensor) -> Tensor:
        """200 views of a picture, (200, 3, 32, 32)."""
        torch.manual_seed(0)
        # one attempt for all, because each sets the generators back
        views = attempt(lambda x: [torch.as_tensor(transform(x)) for _ in range(200)], picture)
        fits = all(view.shape == (3, 32, 32) and view.is_floating_point() for view in views)
        kind = f"{tuple(views[0].shape)}, {views[0].dtype}"
        tell({f"{name} returns {kind}, not floats (3, 32, 32).": not fits})
        return torch.stack(views)

    flat = torch.ones(3, 64, 64)
    red = draw((flat * torch.tensor([230, 60, 90])[:, None, None]).byte()).mean((2, 3))
    values = f"{name} gives values from {red.min():.1f} to {red.max():.1f}, not in [0, 1]."
    tell({values: red.max() > 1.01 or red.min() < -0.01})
    bright = draw((flat * 247).byte()).mean((1, 2, 3))
    half = draw(torch.cat([flat[..., :32] * 20, flat[..., :32] * 110], 2).byte())
    side = half[..., 16:].mean((1, 2, 3)) - half[..., :16].mean((1, 2, 3))
    columns = half.mean((1, 2))
    low, high = columns.amin(1), columns.amax(1)
    edge = (columns.mean(1) - low) / (high - low + 1e-3)  # where dark meets bright, 0 to 1
    tell({f"{name} shows the same part each time. Where is the random crop?": edge.std() < 0.05})
    noise = draw((normal(3, 64, 64, seed=3).clamp(-2, 2) * 30 + 110).byte())
    kept = (red - torch.tensor([230, 60, 90]) / 255).abs().amax(1) < 0.01
    recipe = (  # its share, and what 200 views may show of it by chance
        ("grey", red.amax(1) - red.amin(1) < 0.01, "20 %", 0.1, 0.32),
        ("flipped", side[side.abs() > 0.02] < 0, "50 %", 0.38, 0.62),
        ("left in their colours", kept, "16 %", 0.0, 0.4),
    )
    for what, signs, share, low, high in recipe:
        seen = signs.double().mean().item()
        other = f"{name}: {seen:.0%} of the pictures are {what}, not about {share}."
        tell({other: not low <= seen <= high})
    sharpness = (noise[..., 1:] - noise[..., :-1]).abs().mean((1, 2, 3)).median().item()
    return (bright < 0.48).double().mean().item(), sharpness


@checker
def my_recipe(function: Callable[[], TwinViews]) -> None:
    """Check views for sorting cards by colour, by what twins of 600 garments share under them."""
    views = attempt(function)
    wanted = "Return be.TwinViews(...), with a preset and the settings that you change."
    tell({wanted: not isinstance(views, TwinViews)})
    images = load_images("garments", limit=600).images
    pair = views(images, torch.Generator().manual_seed(0))
    shared = correlation(*(measure(views.denormalize(view)) for view in pair)).diagonal()
    colour, form = shared[[1, 2, 4, 5]].min().item(), shared[[6, 8, 9]].abs().max().item()
    tell({
        f"A colour has a correlation of {colour:.2f} between the twins, not 0.8: what changes it?": not colour > 0.8,
        f"Twins still agree by {form:.2f} on height, size or shape; an encoder could sort by these. 0.6 is allowed: "
        "which operation moves and resizes things?": not form < 0.6,
    })  # fmt: skip


STEM = {"imagenet": (7, 2, 3), "cifar": (3, 1, 1)}  # kernel, stride, padding of its convolution


def _whole_numbers(answer: Sequence[int], *_) -> Tensor:
    sizes = numbers(answer, "a list of five whole numbers")
    tell({
        "You gave six numbers. The stem counts once, after its max-pool where it has one. Then come the stages.":
            sizes.shape == (6,),
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
        "The first stage does not halve: its blocks have stride 1. Stages 2, 3 and 4 begin with stride 2.":
            {"strides": (2, 2, 2, 2)},
        "You rounded down. With the padding of this network an odd resolution is rounded up: 33 becomes 17.":
            {"after": lambda n, k, s, p: n // s},
        "You left out the padding: 2p belongs in the formula.":
            {"after": lambda n, k, s, p: max(0, (n - k) // s + 1)},
        "You left out the + 1 at the end of the formula.": {"after": lambda n, k, s, p: (n + 2 * p - k) // s},
        "You forgot that stages 2, 3 and 4 halve the resolution.": {"strides": (1, 1, 1, 1)},
        "You padded by 2. A 3 x 3 kernel reaches one pixel to each side, so padding 1 keeps the size.":
            {"conv": (3, 1, 2)},
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
        "A linear layer has a bias. The batch norm after it subtracts the mean, and the bias with it, so the bias "
        "does nothing: set bias=False.": any(m.bias is not None for m in linears),
        "You took layer norm, which treats each image by itself. Batch norm compares the images of a batch.":
            any(isinstance(m, nn.LayerNorm) for m in head.modules()),
        "There is no batch norm: one belongs after each linear layer.": not norms,
        "The last linear layer is bare, as in the paper's text. The published code puts a batch norm "
        "after it, without weight and bias: affine=False.": len(norms) == 2 and not any(bare),
        f"One batch norm belongs after each of the three linear layers; yours has {len(norms)}.": len(norms) != 3,
        "The last batch norm has a weight and a bias. The loss standardises each dimension, so they do nothing: "
        "set affine=False.": not all(bare[-1:]),
        "A batch norm between the layers has no weight and no bias. Only the last one is to have affine=False.":
            any(bare[:-1]),
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
    "There is a ReLU after the last layer: no entry of z can be below 0, and half of what the layer could say is "
    "cut off. ReLU stands between the layers only.": {"relus": (0, 1, 2)},
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
    own = attempt(function, *known, 8)
    itself = f"Return the embedding itself, a function or a module, not {type(own).__name__}."
    tell({itself: not callable(own)})
    wanted = "(1000, 8) numbers for features (1000, 24) and dim=8"
    with torch.no_grad():
        z = [embedding(attempt(own, h), wanted, 1000, 8) for h in new]
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
