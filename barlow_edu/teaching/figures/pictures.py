"""Figures of what features know, which ``plots`` offers beside its own: neighbours, maps, factors through layers."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from barlow_edu.teaching.figures import drawing
from barlow_edu.teaching.figures.drawing import PALETTE, TEXT, WIDTH, one_panel, styled, to_array

SHAPES = "os^Dvp*XP<"  # one a class; with seven colours no two of 70 classes look alike
WRONG = PALETTE[1]


@styled
def neighbours(queries, found, query_names=None, found_names=None, title=None) -> Figure:
    """Each query at the left of its row, its nearest neighbours beside it, the nearest first.

    Shapes: (Q, C, H, W) and (Q, k, C, H, W), uint8 or float in [0, 1]. Names, (Q,) and (Q, k), stand below; a
    neighbour whose name is not the query's gets a cross before its name, and a frame. Raises ValueError if the
    numbers of queries, neighbours and names do not fit.
    """
    queries = drawing.to_pictures(queries, "queries")
    if len(found) != len(queries):
        raise ValueError(f"Got {len(queries)} queries and neighbours of {len(found)}.")
    rows = [drawing.to_pictures(x, "found") for x in found]
    names = _names(query_names, found_names, len(queries), len(rows[0]))
    blank = np.ones_like(queries[:1])
    rows = [np.concatenate([q[None], blank, x]) for q, x in zip(queries, rows, strict=True)]
    side = queries.shape[1]
    gap = max(4, round((0.38 if names else 0.1) * side))
    fig, ax, centres, middles = drawing.picture_figure(rows, title, gap)
    write = partial(ax.text, ha="center", va="top", size=8)
    for (query, others), y in zip(names, middles, strict=False):
        write(centres[0], y + side / 2 + 0.5, query, weight="bold", color=TEXT)
        for x, name in zip(centres[2:], others, strict=True):
            wrong = name != query
            mark, color = ("✗ ", WRONG) if wrong else ("", TEXT)
            write(x, y + side / 2 + 0.5, mark + name, color=color)
            if wrong:
                frame = {"fill": False, "edgecolor": WRONG, "linewidth": 1.6, "linestyle": "--"}
                corner = (x - side / 2 - 1, y - side / 2 - 1)
                ax.add_patch(Rectangle(corner, side + 1, side + 1, **frame))
    top, middle = middles[0] - side / 2 - 2, (centres[2] + centres[-1]) / 2
    for x, heading in ((centres[0], "query"), (middle, "nearest neighbours, the nearest first")):
        ax.text(x, top, heading, ha="center", va="bottom", size=9)
    return fig


def _names(query_names, found_names, queries: int, k: int) -> list[tuple[str, list[str]]]:
    """[(query's name, its neighbours' names)], empty without names."""
    if query_names is None and found_names is None:
        return []
    if query_names is None or found_names is None:
        raise ValueError("Give names for queries and neighbours, or for neither.")
    pairs = [(str(q), [str(n) for n in f]) for q, f in zip(query_names, found_names, strict=False)]
    sizes = len(query_names), len(found_names), {len(f) for _, f in pairs}
    if sizes != (queries, queries, {k}):
        wanted = f"Names for {queries} queries with {k} neighbours each are needed"
        raise ValueError(f"{wanted}, got {sizes[0]} and {sizes[1]} with {sorted(sizes[2])}.")
    return pairs


@styled
def table(values, rows: Sequence[str], columns: Sequence[str], title=None, low=0.0) -> Figure:
    """A small table of numbers, (rows, columns), written on a scale from ``low`` to 1: blues, or red-blue from −1.

    Raises ValueError if the names do not fit the numbers.
    """
    values = to_array(values, "values", 2)
    if values.shape != (len(rows), len(columns)):
        named = f"{len(rows)} rows and {len(columns)} columns are named"
        raise ValueError(f"{named}, values are {values.shape}.")
    fig = Figure(figsize=(min(WIDTH, 1.6 + 1.3 * len(columns)), 0.95 + 0.38 * len(rows)))
    ax = fig.subplots()
    ax.imshow(values, drawing.DIVERGING if low < 0 else "Blues", vmin=low, vmax=1, aspect="auto")
    drawing.write_cells(ax, values, dark=0.6)
    ax.set_xticks(range(len(columns)), columns, size=8)
    ax.set_yticks(range(len(rows)), rows)
    ax.tick_params(length=0)
    ax.set_title(title or "", weight="bold")
    return fig


@styled
def scatter(points, labels, names: Sequence[str], xlabel: str, ylabel: str) -> Figure:
    """N points (N, 2) in the plane; each class, labels (N,) into ``names``, has a colour and a shape, named above.

    Raises ValueError if the shapes do not fit or a label has no name.
    """
    points, labels = to_array(points, "points", 2), to_array(labels, "labels", 1).astype(int)
    low, high = labels.min(), labels.max()
    if points.shape != (len(labels), 2) or low < 0 or high >= len(names):
        given = f"{points.shape}, and {len(labels)} labels from {low} to {high}"
        raise ValueError(f"points must be (N, 2), labels below {len(names)}, got {given}.")
    fig, ax = one_panel(0.5 * WIDTH, None)
    for k in np.unique(labels):
        look = {"marker": SHAPES[k % len(SHAPES)], "color": PALETTE[k % len(PALETTE)]}
        ax.scatter(*points[labels == k].T, s=16, alpha=0.75, label=names[k], **look)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(names), frameon=False)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.spines[:].set_visible(True)
    return fig


@styled
def clouds(panels: Mapping[str, object], c=None, limit: float = 4.0) -> Figure:
    """Point clouds of dimension 1 over dimension 0, side by side on one scale: title -> (N, 2).

    With ``c``, (D, D), the matrix stands beside them. Points beyond ``limit`` are cut off. Raises ValueError for
    points of another shape.
    """
    points = {name: to_array(z, name, 2) for name, z in panels.items()}
    if any(z.shape[1] != 2 for z in points.values()):
        raise ValueError(f"points must be (N, 2), got {[z.shape for z in points.values()]}.")
    columns = len(points) + (c is not None)
    page = WIDTH * min(1.0, (columns + 0.2) / 3)
    fig = Figure(figsize=(page, 0.8 * page / columns + 0.8))
    axes = fig.subplots(1, columns, squeeze=False)[0]
    for ax, (name, z) in zip(axes, points.items(), strict=False):
        ax.plot(*z.T, ".", ms=3, color=PALETTE[0])
        ticks = [-limit / 2, 0, limit / 2]
        ax.set(title=name, aspect="equal", xlim=(-limit, limit), ylim=(-limit, limit))
        ax.set(xticks=ticks, yticks=ticks, xlabel="dimension 0")
        ax.label_outer()
    axes[0].set_ylabel("dimension 1")
    if c is not None:
        drawing.heatmap(axes[-1], drawing.to_matrix(c), ticks=False, beside=columns + 1)
        axes[-1].set_title("C")
    return fig


@styled
def profile(table: Mapping[str, Mapping[str, float]], title: str | None = None) -> Figure:
    """Several values followed through named stages: stage -> name -> value, the stages from left to right.

    For ``factor_probe``: one line a factor, one place on the x axis a layer. Values below −0.1 are drawn
    there. Raises ValueError if the stages do not have the same names.
    """
    stages = list(table)
    names = list(table[stages[0]])
    if any(list(row) != names for row in table.values()):
        raise ValueError(f"Every stage needs the values {names}.")
    fig, ax = one_panel(3.6, title)
    values = {n: to_array([row[n] for row in table.values()], n, 1) for n in names}
    series = {n: (np.arange(len(stages)), v.clip(min=-0.1)) for n, v in values.items()}
    drawing.lines(ax, series, log=False)
    ax.set_xticks(range(len(stages)), stages, rotation=35, ha="right")
    ax.set(ylabel="R²")
    return fig
