"""Every figure the notebooks draw, in one style.

Each function takes tensors or arrays and returns a matplotlib ``Figure`` that pyplot does not know: nothing is drawn
twice, no global setting changes. ``show(fig, alt)`` displays it. NaN and infinity are a ValueError, since a gap in a
picture is easily overlooked.
"""

import uuid
from collections.abc import Iterable, Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from barlow_edu.teaching import embed
from barlow_edu.teaching.embed import show
from barlow_edu.teaching.figures import drawing
from barlow_edu.teaching.figures.circle import circle
from barlow_edu.teaching.figures.drawing import PALETTE, WIDTH, one_panel, style, styled, to_array
from barlow_edu.teaching.figures.film import Film as film
from barlow_edu.teaching.figures.flipbook import Flipbook
from barlow_edu.teaching.figures.machine import machine
from barlow_edu.teaching.figures.pictures import clouds, neighbours, profile, scatter, table

__all__ = [
    "Flipbook", "Watch", "bars", "circle", "clouds", "correlation", "correlation_strip", "curves", "film",
    "heatmaps", "images", "line", "machine", "neighbours", "profile", "scatter", "show", "spectrum",
    "staircase", "style", "table", "twins",
]  # fmt: skip


@styled
def correlation(c, title: str | None = None) -> Figure:
    """The signature figure: C (D, D) as a heatmap fixed to [−1, 1], beside its singular values, the largest first.

    The title gives the mean of the diagonal (target 1) and the root mean square off it (target 0). The target of the
    singular values is 1; their axis turns logarithmic when the largest is above 4. Up to D = 10 the numbers are
    written into the cells. Raises ValueError if ``c`` is not square or not finite.
    """
    c = drawing.to_matrix(c, "c")
    fig = Figure(figsize=(WIDTH, 3.6 if title else 3.25))
    left, right = fig.subplots(1, 2)
    image = drawing.heatmap(left, c)
    every = drawing.thinning(c)
    note = f" (1 in {every})" if every > 1 else ""
    left.set(title=drawing.summary(c), xlabel=f"dimension of view B{note}",
             ylabel=f"dimension of view A{note}")  # fmt: skip
    fig.colorbar(image, ax=left, shrink=0.8, aspect=16, ticks=[-1, -0.5, 0, 0.5, 1])
    drawing.singular_values(right, c)
    if title:
        fig.suptitle(title)
    return fig


@styled
def correlation_strip(snapshots: Mapping[int, object], steps=None, titles=None) -> Figure:
    """C at some moments of a run, side by side on one scale.

    ``snapshots``: step -> (D, D), as ``Run.snapshots``. ``steps``: which of them; by default four, evenly spaced in
    their order, from the first to the last. ``titles``: one a step. Raises ValueError for a step that was not
    recorded, or another number of titles.
    """
    steps = drawing.pick(snapshots, 4) if steps is None else list(steps)
    missing = [step for step in steps if step not in snapshots]
    if missing or not steps:
        raise ValueError(f"No snapshot at step {missing}; recorded: {sorted(snapshots)}.")
    titles = [f"step {step:,}" for step in steps] if titles is None else list(titles)
    if len(titles) != len(steps):
        raise ValueError(f"Got {len(titles)} titles for {len(steps)} moments: give one title each.")
    fig = Figure(figsize=(WIDTH, 0.86 * WIDTH / max(len(steps), 2) + 0.8))
    axes = fig.subplots(1, len(steps), squeeze=False)[0]
    matrices = [drawing.to_matrix(snapshots[s], f"the snapshot at step {s}") for s in steps]
    drawing.strip(fig, axes, matrices, titles, short=len(steps) > 4)
    return fig


class Watch:
    """C (D, D) under the cell while it trains: ``draw = Watch()``, then ``draw(step, c)`` draws it anew.

    ``pretrain(..., on_snapshot=draw)`` calls it. All stay in ``snapshots``, step -> (D, D) in float32, for ``film``
    afterwards. Raises ValueError as ``correlation`` does.
    """

    def __init__(self, title: str = "C while it trains"):
        self.title, self.snapshots = title, {}
        self._id = uuid.uuid4().hex

    def __call__(self, step: int, c) -> None:
        first = not self.snapshots
        self.snapshots[step] = drawing.to_matrix(c, f"C at step {step}").astype(np.float32)
        fig = correlation(self.snapshots[step], f"{self.title}: step {step:,}")
        picture = embed.to_png(fig, self.title), embed.pixels(fig), self.title
        embed.display_picture(*picture, f"<{self.title}>", display_id=self._id, update=not first)


@styled
def curves(run_or_metrics, floor: float | None = None) -> Figure:
    """Training curves of a run: the loss with its two parts, and the mean of the diagonal of C.

    ``run_or_metrics``: a ``Run``, or its ``metrics`` (a list of dicts with "step"). ``floor`` of the loss is drawn if
    given; the axis is logarithmic where positive values span more than a factor of 20. Raises ValueError for a
    metric that was not logged.
    """
    steps, loss = _history(run_or_metrics, "loss")
    invariance = _history(run_or_metrics, "on_diag_loss")[1]
    parts = {"loss": loss, "invariance": invariance, "λ · redundancy": loss - invariance}
    fig = Figure(figsize=(WIDTH, 3.2))
    left, right = fig.subplots(1, 2, width_ratios=[1.2, 1])
    targets = {f"floor {floor:.3g}": floor} if floor else None
    drawing.lines(left, {name: (steps, y) for name, y in parts.items()}, targets=targets)
    left.set(xlabel="step", ylabel="loss")
    steps, diagonal = _history(run_or_metrics, "cross_corr_diag_mean")
    right.set_ylim(min(0.0, 1.1 * diagonal.min()), 1.08)
    drawing.lines(right, {"": (steps, diagonal)}, log=False, targets={"target": 1.0})
    right.set(xlabel="step", ylabel="mean of the diagonal of C")
    return fig


@styled
def twins(view1, view2, originals=None, n: int = 8, title: str | None = None) -> Figure:
    """Twin views under each other, one column an image, below their ``originals`` if given.

    Shapes: (N, C, H, W) each, float in [0, 1] (``TwinViews.denormalize``) or uint8; the first ``n`` are drawn. Raises
    ValueError if the numbers of images differ or values leave [0, 1].
    """
    rows = {} if originals is None else {"original": originals}
    rows |= {"view 1": view1, "view 2": view2}
    rows = {name: drawing.to_pictures(x, name)[:n] for name, x in rows.items()}
    counts = {name: len(x) for name, x in rows.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"Every row needs the same number of images, got {counts}.")
    fig, ax, _, middles = drawing.picture_figure(list(rows.values()), title)
    ax.set_yticks(middles, list(rows), size=10)
    ax.tick_params(length=0)
    return fig


@styled
def images(x, n: int = 16, titles: Iterable | None = None, columns: int = 8, title=None) -> Figure:
    """The first ``n`` images of (N, C, H, W), float in [0, 1] or uint8; ``titles`` stand below."""
    x = drawing.to_pictures(x, "x")[:n]
    names = [""] * len(x) if titles is None else [str(name) for name in titles][: len(x)]
    if len(names) != len(x):
        raise ValueError(f"Got {len(names)} titles for {len(x)} images: give one title each.")
    rows = [x[i : i + columns] for i in range(0, len(x), columns)]
    gap = 2 if titles is None else max(2, round(0.3 * x.shape[1]))
    fig, ax, centres, middles = drawing.picture_figure(rows, title, gap)
    for k, name in enumerate(names):
        bottom = middles[k // columns] + x.shape[1] / 2
        ax.text(centres[k % columns], bottom + 0.5, name, ha="center", va="top", size=9)
    return fig


@styled
def bars(table: Mapping[str, object], unit="%", highlight: str | None = None, title=None) -> Figure:
    """Horizontal bars with their number at the end, from ``table``: name -> value or (value, sd).

    With ``unit="%"`` values are fractions, 0.57 is drawn as 57.0 %; with any other they are drawn as they are.
    ``highlight`` names a bar to set off by colour, hatching and bold type. Raises ValueError for a fraction above 1
    or a ``highlight`` that is not in the table.
    """
    if not table or (highlight is not None and highlight not in table):
        raise ValueError(f"highlight {highlight!r} is not in the table: {list(table)}.")
    pairs = np.stack([to_array(np.resize([*np.atleast_1d(v), 0], 2), k) for k, v in table.items()])
    if unit == "%" and pairs[:, 0].max() > 1:
        most = pairs[:, 0].max()
        raise ValueError(f"With unit='%' values are fractions, got {most}: divide by 100.")
    values, spreads = (100 if unit == "%" else 1) * pairs.T
    fig, ax = one_panel(0.42 * len(table) + (0.95 if title else 0.65), title)
    for place, (name, value, sd) in enumerate(zip(table, values, spreads, strict=True)):
        strong = name == highlight
        look = {"color": PALETTE[1], "hatch": "//"} if strong else {"color": PALETTE[0]}
        error = {"xerr": sd or None, "ecolor": drawing.TEXT, "capsize": 3}
        ax.barh(place, value, 0.66, edgecolor="white", **look, **error)
        number = f"{value:.1f}{' ± ' + format(sd, '.1f') if sd else ''} {unit}".strip()
        beside = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
        weight = "bold" if strong else "normal"
        ax.annotate(number, (max(value, 0) + sd, place), weight=weight, **beside)
    ax.set_yticks(range(len(table)), list(table))
    for label in ax.get_yticklabels():
        label.set(size=10, weight="bold" if label.get_text() == highlight else "normal")
    ax.invert_yaxis()
    ax.set_xlim(min(0, 1.15 * values.min()), max(1.3 * (values + spreads).max(), 1e-9))
    if unit == "%":  # room for the numbers beyond 100, but no ticks there
        low, high = ax.get_xlim()
        ax.set_xticks([tick for tick in ax.get_xticks() if low <= tick <= min(high, 100)])
    ax.set_xlabel(unit)
    ax.tick_params(axis="y", length=0)
    return fig


@styled
def spectrum(values_by_name: Mapping[str, object], ylabel="value") -> Figure:
    """Spectra compared: for each name, (k,) eigen- or singular values, drawn largest first.

    Values below 1e-6 of the largest are drawn there, so that zeros stay on the logarithmic paper.
    """
    spectra = {name: -np.sort(-to_array(v, name, ndim=1)) for name, v in values_by_name.items()}
    floor = 1e-6 * max(values[0] for values in spectra.values())
    series = {k: (np.arange(1, len(v) + 1), np.maximum(v, floor)) for k, v in spectra.items()}
    return _line_figure(series, "rank", ylabel, logy=True)


@styled
def staircase(times, measured, predicted, loss, now: float | None = None) -> Figure:
    """Modes learned one by one: measured solid, the theory's prediction dashed in the same colour, the loss below.

    Shapes: (T,), (T, k), (T, k), (T,). ``now``: draw what was measured up to this time only, as a frame of a film.
    The modes are named where they are half learned. Raises ValueError if the numbers of times differ.
    """
    times, loss = to_array(times, "times", 1), to_array(loss, "loss", 1)
    measured, predicted = to_array(measured, "measured", 2), to_array(predicted, "predicted", 2)
    rows = [len(x) for x in (times, measured, predicted, loss)]
    if len(set(rows)) > 1:
        raise ValueError(f"times, measured, predicted and loss need one row a time, got {rows}.")
    now = times[-1] if now is None else now
    seen = times <= now
    fig = Figure(figsize=(WIDTH, 4.6))
    ax, below = fig.subplots(2, sharex=True, height_ratios=[2, 1])
    for j, (column, theory) in enumerate(zip(measured.T, predicted.T, strict=True)):
        color, dark = PALETTE[j % len(PALETTE)], drawing.ink(PALETTE[j % len(PALETTE)])
        ax.plot(times[seen], column[seen], color=color, lw=3.2, alpha=0.6)
        ax.plot(times, theory, color=dark, ls=drawing.DASHES[1], lw=1.6, zorder=3)
        level = 0.65 if j % 2 else 0.35  # modes that come together are named at different heights
        half = int(np.argmax(column >= column[0] + level * (column[-1] - column[0])))
        box = {"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.85}
        if times[half] <= now:
            ax.text(times[half], column[half], f"mode {j}", color=dark, size=9,
                    ha="center", va="center", bbox=box, zorder=4)  # fmt: skip
    solid = {"color": drawing.GREY, "lw": 3.2, "alpha": 0.6, "label": "measured (solid)"}
    dashed = {"color": drawing.TEXT, "ls": drawing.DASHES[1], "lw": 1.6, "label": "theory (dashed)"}
    handles = [Line2D([], [], **look) for look in (solid, dashed)]
    ax.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
    ax.set(ylabel="strength of the mode", ylim=(-0.05, 1.05 * max(measured.max(), 1)))
    ax.margins(x=0.01)
    below.plot(times[seen], loss[seen], color=drawing.TEXT, lw=2)
    below.set(xlabel="time", xlim=(times[0], times[-1]))
    below.set(ylabel="loss", ylim=(-0.05 * loss.max(), 1.05 * loss.max()))
    return fig


@styled
def heatmaps(matrices: Mapping[str, object], vmax: float | None = None) -> Figure:
    """A row of matrices, title -> (rows, columns), on one diverging scale [−vmax, vmax].

    ``vmax``: by default their largest magnitude, rounded up to 1, 2 or 5 times a power of ten. Small ones have their
    numbers written in.
    """
    arrays = {name: to_array(x, name, ndim=2) for name, x in matrices.items()}
    limit = vmax or drawing.round_up(max(np.abs(x).max() for x in arrays.values()))
    page = WIDTH * min(1.0, (len(arrays) + 0.5) / 3.5)
    fig = Figure(figsize=(page, 0.86 * page / (len(arrays) + 0.2) + 0.5))
    axes = fig.subplots(1, len(arrays), squeeze=False)[0]
    for ax, (name, x) in zip(axes, arrays.items(), strict=True):
        image = drawing.heatmap(ax, x, limit, ticks=False, beside=max(len(arrays), 3))
        ax.set_title(name)
    fig.colorbar(image, ax=axes, shrink=0.8, aspect=12, pad=0.02, ticks=[-limit, 0, limit])
    return fig


@styled
def line(x, y: Mapping[str, object], xlabel, ylabel, logx=False, logy=False, marks=None) -> Figure:
    """Lines ``y``, name -> (n,), over ``x`` (n,), named at their ends; ``marks``, label -> x: dotted verticals."""
    x = to_array(x, "x", ndim=1)
    series = {name: (x, to_array(values, name, ndim=1)) for name, values in y.items()}
    for name, (_, values) in series.items():
        if len(values) != len(x):
            raise ValueError(f"{name} has {len(values)} values for {len(x)} places on x.")
    return _line_figure(series, xlabel, ylabel, logy, logx, marks)


def _line_figure(series, xlabel, ylabel, logy, logx=False, marks=None) -> Figure:
    fig, ax = one_panel(3.2)
    if logx:
        x = np.concatenate([x for x, _ in series.values()])
        drawing.log_axis(ax.xaxis, x)
    drawing.lines(ax, series, log=logy)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    for name, place in (marks or {}).items():
        ax.axvline(place, color=drawing.GREY, lw=1.3, ls=drawing.DASHES[3], zorder=1)
        ax.annotate(name, (place, 1), xycoords=("data", "axes fraction"), xytext=(0, 3),
                    textcoords="offset points", ha="center", size=9)  # fmt: skip
    return fig


def _history(run_or_metrics, key: str) -> tuple[np.ndarray, np.ndarray]:
    """(steps, values) of one metric of a Run or of a list of dicts."""
    if hasattr(run_or_metrics, "metrics"):
        run_or_metrics = run_or_metrics.metrics
    rows = [row for row in run_or_metrics if key in row]
    if not rows:
        known = sorted({name for row in run_or_metrics for name in row})
        raise ValueError(f"No metric {key!r} was logged; there are: {', '.join(known)}.")
    steps = to_array([row["step"] for row in rows], "step", 1)
    return steps, to_array([float(row[key]) for row in rows], key, 1)
