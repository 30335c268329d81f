"""Three images make a circle: each standardised dimension is an arrow, and a correlation the cosine of an angle."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from barlow_edu.teaching.figures.drawing import DASHES, GREY, PALETTE, TEXT, ink, styled, to_array

TURNS = 2 * np.pi * np.arange(3) / 3
# a column of cos(θ + turns) goes to its angle θ
PLANE = np.stack([np.cos(TURNS), -np.sin(TURNS)]) * 2**0.5 / 3
ARROW = {"angles": "xy", "scale_units": "xy", "scale": 1}


@styled
def circle(views: Mapping[str, object], push: Mapping | None = None, title="") -> Figure:
    """Embeddings of three images as arrows on the unit circle, one for each dimension.

    ``views``: letter -> (3, D), centred columns, drawn with length 1; the first view's arrows are filled, the
    second's hollow. ``push``, letter -> (3, D): where each tip is pushed, drawn in black. A dotted line goes on
    behind each arrow, since the sign of a dimension does not matter. Raises ValueError for another number of images.
    """
    points = {name: _in_plane(z, name) for name, z in views.items()}
    fig = Figure(figsize=(3.4, 3.6))
    ax = fig.subplots()
    turn = np.linspace(0, 2 * np.pi, 200)
    ax.plot(np.cos(turn), np.sin(turn), color="#bbbbbb", lw=1)
    for k, (name, tips) in enumerate(points.items()):
        tips = tips / np.linalg.norm(tips, axis=0)
        color, face = ink(PALETTE[k]), "none" if k else PALETTE[k]
        look = {"facecolor": face, "edgecolor": color, "lw": 1.2, "width": 0.014}
        ax.quiver(*np.zeros_like(tips), *tips, **look, **ARROW)
        for i, (x, y) in enumerate(tips.T):
            ax.plot([0, -x], [0, -y], color=GREY, ls=DASHES[3], lw=1)
            ax.text(1.2 * x, 1.2 * y, f"{name}{i}", color=color, ha="center", va="center")
        if name in (push or {}):
            ax.quiver(*tips, *_in_plane(push[name], "push"), color=TEXT, width=0.01, **ARROW)
    ax.set(xlim=(-1.4, 1.4), ylim=(-1.4, 1.4), aspect="equal", title=title)
    ax.set_axis_off()
    return fig


def _in_plane(z, name: str) -> np.ndarray:
    """(3, D) with columns that add up to 0 -> their places in the plane, (2, D)."""
    z = to_array(z, name, 2)
    if len(z) != 3:
        raise ValueError(f"{name} has {len(z)} images: a circle needs three.")
    return PLANE @ z
