"""Checkers for notebook 03, making twins."""

from collections.abc import Callable

import torch
from torch import Tensor

from barlow_edu.data import load_images
from barlow_edu.teaching.cards import measure
from barlow_edu.teaching.checks.base import Shaped, attempt, checker, close, judge, tell
from barlow_edu.teaching.checks.worlds import BRIGHT, SOLARISED, correlation, normal, solarised
from barlow_edu.views import TwinViews


@checker
def solarise_any(function: Callable[[Tensor], Tensor]) -> None:
    """Check a function that solarises images, floats in [0, 1] or bytes, and keeps their type."""
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    judge(function, [(levels / 255,)], solarised, {
        "You left out the threshold: byte 128 turns over too, so >=.": lambda x: torch.where(x > BRIGHT, 1 - x, x),
        "You turned values below 0: bright ones become 1 − x, not −x.": lambda x: torch.where(x >= BRIGHT, -x, x),
        "Your threshold is 127/255. Byte 128 is first: 128/255.": lambda x: torch.where(x >= 127 / 255, 1 - x, x),
    } | SOLARISED, "The solarised float image", 1e-6)  # fmt: skip
    between = torch.linspace(127.6, 127.9, 256).view(1, 1, 16, 16) / 255  # above 0.5, below 128/255
    answer = attempt(function, between)
    turned = torch.is_tensor(answer) and close(answer.double(), 1 - between.double(), 1e-6)
    tell({"Your threshold is 0.5, that of bytes is 128/255 = 0.50196: take the same.": turned})
    dark = levels % 2  # bytes 0 and 1: their largest value is that of floats
    judge(function, [(levels,), (dark,)], solarised, {
        "A byte image of 0 and 1 was taken for floats. Ask for its type, x.dtype, not for its largest value.":
            lambda x: torch.where(x > 0, 1 - x, x) if x.max() == 1 else Shaped([0]),
        "Floats are right, but bytes did not change. 128 is the threshold for them.": lambda x: x,
        "Floats are right. But every byte but 0 is over 128/255: take 128.": lambda x: torch.where(x > 0, 255 - x, x),
        "Floats are right. But 1 − x wraps round below 0: take 255 − x.": lambda x: torch.where(x >= 128, 1 - x, x),
        "Floats are right. For bytes, both mistakes at once: 128, 255 − x.": lambda x: torch.where(x > 0, 1 - x, x),
        "You gave floats in [0, 1] back for bytes. Bytes are to go out as bytes.": lambda x: solarised(x) / 255,
    }, "The solarised byte image", 1e-6)  # fmt: skip
    kind = getattr(attempt(function, levels), "dtype", None)
    tell({"The byte image is right, but its type is not uint8 any more.": kind != torch.uint8})


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
        "View 2 is no sharper than view 1. Blur has probability 1.0 in view 1, 0.1 in 2.": not soft < 0.8 * sharp,
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
    for (
        what,
        signs,
        share,
        low,
        high,
    ) in (  # the recipe's share, and what 200 views may show of it by chance
        ("grey", red.amax(1) - red.amin(1) < 0.01, "20 %", 0.1, 0.32),
        ("flipped", side[side.abs() > 0.02] < 0, "50 %", 0.38, 0.62),
        ("left in their colours", kept, "16 %", 0.0, 0.4),
    ):
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
