"""The machine of the course, drawn once: from a photograph to C, and to the identity that C is to become."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from barlow_edu.teaching.figures.drawing import DIVERGING, GREY, PALETTE, TEXT, WIDTH, ink, styled

# part -> (its middle on the x axis, what stands below it)
PARTS = {
    "photograph": (0.75, "photograph"),
    "views": (2.55, "two views"),
    "encoder": (4.4, "encoder"),
    "h": (5.95, "features h"),
    "projector": (7.5, "projector"),
    "z": (9.05, "embedding z"),
    "C": (10.85, "matrix C"),
    "I": (13.05, "goal: I"),
}
TOP, MIDDLE, BOTTOM = 2.9, 2.0, 1.1
DIM = 0.22  # opacity of a part that is not lit


@styled
def machine(lit: str | Sequence[str] = tuple(PARTS), title: str | None = None) -> Figure:
    """The whole machine, with the parts in ``lit`` in colour and the others faint.

    The parts are "photograph", "views", "encoder", "h", "projector", "z", "C" and "I". The pictures are two views of
    one test card of ``garments``, with a fixed seed; the numbers in the small h, z and C are invented. Raises
    ValueError for a part that the machine does not have.

    >>> len(machine(lit=("z", "C")).axes)
    1
    """
    lit = (lit,) if isinstance(lit, str) else tuple(lit)
    unknown = [part for part in lit if part not in PARTS]
    if unknown:
        raise ValueError(f"lit names {unknown}, the parts are {', '.join(PARTS)}.")
    fig = Figure(figsize=(WIDTH, 2.3 if title else 2.0))
    ax = fig.subplots()
    ax.set(xlim=(-0.15, 14.05), ylim=(-0.15, 3.85), aspect="equal")
    ax.axis("off")
    if title:
        fig.suptitle(title)
    for part, y, pixels, width, height in _pictures():
        x = PARTS[part][0]
        edges = (x - width / 2, x + width / 2, y - height / 2, y + height / 2)
        look = {"vmin": -1, "vmax": 1, "cmap": DIVERGING, "zorder": 2, "gid": part}
        ax.imshow(pixels, extent=edges, alpha=1.0 if part in lit else DIM, **look)
    for start, end in _arrows():
        look = {"arrowstyle": "-|>", "color": GREY, "linewidth": 1.0, "shrinkA": 0, "shrinkB": 0}
        ax.annotate("", end, start, arrowprops=look)
    write = partial(ax.text, ha="center", va="center")
    for part in ("encoder", "projector"):
        x, strong = PARTS[part][0], part in lit
        color, alpha = (PALETTE[0], 1.0) if strong else ("#DDDDDD", DIM)
        look = {"facecolor": color, "edgecolor": "none", "alpha": alpha, "gid": part}
        ax.add_patch(FancyBboxPatch((x - 0.7, 0.5), 1.4, 3, boxstyle="round,pad=0.05", **look))
        write(x, MIDDLE, "the same\nfor both", size=7.5, color="white" if strong else GREY)
    for part, (x, words) in PARTS.items():
        strong = part in lit and len(lit) < len(PARTS)
        color = ink(PALETTE[0]) if strong else TEXT if part in lit else GREY
        x += 0.1 * (part == "z")  # its name is the longest: a little room to the projector's
        weight = "bold" if strong else "normal"
        write(x, 0.05, words, size=7, color=color, weight=weight, gid=f"name of {part}")
    return fig


def _pictures() -> Iterator[tuple[str, float, np.ndarray, float, float]]:
    """Everything that is drawn as an image: its part, its middle on the y axis, the image, its width and height."""
    import torch  # here, so that the other figures do without

    from barlow_edu.data import load_images
    from barlow_edu.views import TwinViews

    cards, views = load_images("garments", split="test", limit=30).images, TwinViews("garments")
    pair = views(cards, torch.Generator().manual_seed(1))
    shown = [x[1].permute(1, 2, 0) for x in (cards / 255, *map(views.denormalize, pair))]
    card, *twins = (x.clamp(0, 1).numpy() for x in shown)
    yield "photograph", MIDDLE, card, 1.5, 1.5
    numbers = np.random.default_rng(3).uniform(-1, 1, (4, 6, 1))
    for k, y in enumerate((TOP, BOTTOM)):
        yield "views", y, twins[k], 1.5, 1.5
        yield "h", y, numbers[k], 0.26, 1.5
        yield "z", y, numbers[2 + k, :5], 0.26, 1.3
    c = np.eye(5) * 0.5 + np.random.default_rng(5).uniform(-0.45, 0.45, (5, 5))
    yield "C", MIDDLE, c, 1.8, 1.8
    yield "I", MIDDLE, np.eye(5), 1.8, 1.8


def _arrows() -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
    """Start and end of every arrow: the photograph becomes two views, which meet again in C."""
    for y in (TOP, BOTTOM):
        yield (1.55, MIDDLE), (1.75, y)
        for start, end in ((3.35, 3.6), (5.2, 5.7), (6.2, 6.7), (8.3, 8.8)):
            yield (start, y), (end, y)
        yield (9.3, y), (9.9, MIDDLE + 0.35 * np.sign(y - MIDDLE))
    yield (11.85, MIDDLE), (12.05, MIDDLE)
