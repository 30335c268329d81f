"""What the figures of ``plots.py`` are made of: the style, the checks, and the panels on one axes.

The scale of C is ColorBrewer's red-blue, fixed to [−1, 1]: its ends differ along the blue-yellow axis, which
red-green colour blindness leaves intact, and zero is almost the white of the page. Nothing is said by colour alone:
lines also differ in dash and carry their name at their end, bars and small matrices their numbers.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from barlow_edu.numerics.correlation import from_bytes

# 81 levels, an odd number so that zero has its own: few enough for a small PNG.
DIVERGING = mpl.colormaps["RdBu_r"].resampled(81)
# Okabe and Ito (2008), without their yellow, too pale for a line; in an order that keeps neighbours
# far apart for colour-blind readers.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#000000", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("-", (0, (5, 2)), (0, (6, 2, 1.5, 2)), (0, (1.5, 1.5)), (0, (9, 2, 3, 2)))
MARKERS = "os^Dvp*"
WIDTH = 7.0  # inches: 700 px in a notebook
TEXT, GREY = "#222222", "#666666"
LABEL_POINTS = 9.0
SMALLEST = 0.001  # singular value that is drawn on a logarithmic axis

STYLE = mpl.rc_params_from_file(
    Path(__file__).with_name("course.mplstyle"), use_default_template=False
)


def colour_table() -> str:
    """The colours of C for the bytes 0 to 254, as 255 hexadecimal RGB triples: those of the figures."""
    values = from_bytes(np.arange(255))
    return DIVERGING((values + 1) / 2, bytes=True)[:, :3].tobytes().hex()


def one_panel(height: float, title: str | None = None):
    """A figure of the page's width, ``height`` in inches, and its only axes."""
    fig = Figure(figsize=(WIDTH, height))
    ax = fig.subplots()
    ax.set_title(title or "", loc="left", weight="bold")
    return fig, ax


def style():
    """The style as a context: ``with plots.style(): ...`` for a figure of your own."""
    return mpl.rc_context(STYLE)


styled = style()  # as a decorator: the function runs within the style, and no setting outlives it


def to_array(x, name: str, ndim: int | None = None) -> np.ndarray:
    """A tensor or array-like as a float64 array. Raises ValueError for NaN, infinity, a wrong ndim."""
    x = x.detach().cpu().double().numpy() if hasattr(x, "detach") else np.asarray(x, dtype=float)
    if ndim is not None and x.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimension(s), got shape {x.shape}.")
    if not x.size:
        raise ValueError(f"{name} is empty, shape {x.shape}: there is nothing to draw.")
    if not np.isfinite(x).all():
        places = f"{(~np.isfinite(x)).sum()} of {x.size} places"
        raise ValueError(f"{name} holds NaN or infinity in {places}: look there first.")
    return x


def to_matrix(c, name: str = "c") -> np.ndarray:
    """A (D, D) float64 array. Raises ValueError if it is not square or not finite."""
    c = to_array(c, name, ndim=2)
    if c.shape[0] != c.shape[1]:
        raise ValueError(f"{name} must be square (D, D), got shape {c.shape}.")
    return c


def to_pictures(x, name: str) -> np.ndarray:
    """(N, C, H, W) uint8 or float in [0, 1] -> (N, H, W, 3) float in [0, 1]."""
    scale = 255 if "uint8" in str(getattr(x, "dtype", "")) else 1
    x = to_array(x, name, ndim=4) / scale
    if x.shape[1] not in (1, 3):
        raise ValueError(f"{name} must be (N, 1 or 3, H, W), got shape {x.shape}.")
    if x.min() < -1e-3 or x.max() > 1 + 1e-3:
        span = f"[{x.min():.2f}, {x.max():.2f}]"
        raise ValueError(f"{name} lies in {span}, not in [0, 1]: call TwinViews.denormalize first.")
    return np.broadcast_to(x.clip(0, 1), (len(x), 3, *x.shape[2:])).transpose(0, 2, 3, 1)


def diagonal_and_rms(c: np.ndarray) -> tuple[float, float]:
    """The mean of the diagonal of (D, D), and the root mean square off it (0 when D = 1)."""
    diagonal = np.diag(c)
    off = max((c**2).sum() - (diagonal**2).sum(), 0.0) / max(c.size - len(c), 1)
    return float(diagonal.mean()), float(off**0.5)


def round_up(value: float) -> float:
    """The next 1, 2 or 5 times a power of ten; 1 for zero."""
    if not value:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(m * power for m in (1, 2, 5, 10) if m * power >= value * (1 - 1e-9)))


def number(value: float, digits: int = 2) -> str:
    """A number with a true minus sign, and without one when it rounds to zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def summary(c: np.ndarray, joint: str = ", ", short: bool = False) -> str:
    """The two numbers of a C in words, as a caption."""
    mean, rms = diagonal_and_rms(c)
    names = ("diagonal", "off it") if short else ("mean diagonal", "off-diagonal RMS")
    return f"{names[0]} {number(mean)}{joint}{names[1]} {number(rms)}"


def evenly(count: int, n: int) -> list[int]:
    """At most ``n`` of the places 0 to ``count`` - 1, evenly spaced, the first and the last included."""
    return np.linspace(0, count - 1, min(n, count)).round().astype(int).tolist()


def pick(snapshots: Mapping[int, object], n: int) -> list[int]:
    """``n`` steps of a mapping step -> C, evenly spaced in their order. Raises ValueError without any."""
    steps = sorted(snapshots)
    if not steps:
        raise ValueError("There are no snapshots: record at least one step.")
    return [steps[i] for i in evenly(len(steps), n)]


def thinning(c: np.ndarray) -> int:
    """k, where a heatmap of ``c`` shows one dimension in k: 1 up to 256 dimensions.

    An entry thinner than a pixel would break the diagonal, and noise makes for large files.
    """
    return -(-max(c.shape) // 192) if max(c.shape) > 256 else 1


def heatmap(ax, c: np.ndarray, limit: float = 1.0, ticks: bool = True, beside: int = 2):
    """Draw a matrix on the diverging scale [−limit, limit]. -> image.

    Small ones get their numbers written in, as far as they fit when ``beside`` such panels share the page's width.
    """
    every = thinning(c)
    edges = (-0.5, c.shape[1] - 0.5, c.shape[0] - 0.5, -0.5)
    image = ax.imshow(c[::every, ::every], DIVERGING, vmin=-limit, vmax=limit, extent=edges)
    for spine in ax.spines.values():
        spine.set(visible=True, linewidth=0.8)
    if not ticks:
        ax.set(xticks=[], yticks=[])
    elif max(c.shape) <= 8:
        ax.set(xticks=range(c.shape[1]), yticks=range(c.shape[0]))
    else:
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(4, integer=True))
    across = beside * max(c.shape)  # cells that share the width of the page
    if across <= 20:
        write_cells(ax, c, 0.65 * limit, 2 if across <= 12 else 1)
    return image


def write_cells(ax, c: np.ndarray, dark: float, digits: int = 2) -> None:
    """Write each number into its cell, in white where its magnitude is above ``dark``."""
    for (i, j), value in np.ndenumerate(c):
        color = "white" if abs(value) > dark else TEXT
        ax.text(j, i, number(value, digits), ha="center", va="center", size=9, color=color)


def strip(fig, axes, matrices: Sequence[np.ndarray], titles: Sequence[str], short: bool) -> None:
    """Several C on one scale, each below its title and above its two numbers."""
    for ax, c, title in zip(axes, matrices, titles, strict=True):
        image = heatmap(ax, c, ticks=False, beside=len(axes))
        ax.set_title(title, weight="bold")
        ax.set_xlabel(summary(c, "\n", short), size=9)
    fig.colorbar(image, ax=axes, shrink=0.7, aspect=12, pad=0.02, ticks=[-1, 0, 1])


def singular_values(ax, c: np.ndarray) -> None:
    """Singular values of C, largest first, and their target: all 1, as for the identity.

    The axis is logarithmic when the largest is above 4; values below 0.001 are then counted, not drawn.
    """
    values = np.linalg.svd(c, compute_uv=False)
    log = values[0] > 4
    drawn = values[values >= SMALLEST] if log else values
    ax.axhline(1, color=PALETTE[1], ls=DASHES[1], lw=1.6)
    marker = "o" if len(drawn) <= 32 else ""
    ax.plot(np.arange(1, len(drawn) + 1), drawn, color=PALETTE[0], marker=marker, markersize=4)
    if log:
        log_axis(ax.yaxis, np.array([SMALLEST, values[0]]))
    ax.set_ylim((SMALLEST, 3 * values[0]) if log else (0, max(1.3, 1.1 * values[0])))
    ax.set(xlabel="rank", ylabel="singular value", xlim=(0.5, len(values) + 0.5))
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    ax.set_title("singular values of C")
    right = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "ha": "right"}
    ax.annotate("target: all 1", (0.98, 1), xytext=(0, 3), color=ink(PALETTE[1]), size=9, **right)
    if len(drawn) < len(values):
        note = f"{len(values) - len(drawn)} values below {SMALLEST}"
        ax.annotate(note, (0.98, SMALLEST), xytext=(0, 5), size=9, **right)


def log_axis(axis, values: np.ndarray) -> None:
    """A logarithmic axis with plain numbers, powers only beyond 10,000; ticks fit its ``values``."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    narrow = values.max() < 100 * values.min()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,), numticks=8))
    axis.set_major_formatter(lambda x, _: f"{x:,.6g}" if 1e-4 <= x < 1e5 else f"{x:.0e}")
    axis.set_minor_formatter(NullFormatter())


def ink(color: str) -> tuple[float, float, float]:
    """A darker shade of a line's colour, readable as text on white."""
    return tuple(0.6 * part for part in mpl.colors.to_rgb(color))


def lines(ax, series: Mapping[str, tuple], log: bool | None = None, targets=None) -> None:
    """Draw ``series``, name -> (x, y), with each name at its line's end; ``targets``, name -> level.

    ``log``: logarithmic y axis; None: where all values are positive and span more than a factor of 20.
    """
    values = np.concatenate([y for _, y in series.values()])
    if log is None:
        log = values.min() > 0 and values.max() / values.min() > 20
    if log:
        log_axis(ax.yaxis, values)
    ends = []
    for i, (name, (x, y)) in enumerate(series.items()):
        color = PALETTE[i % len(PALETTE)]
        marker = MARKERS[i % len(MARKERS)] if len(x) <= 12 else ""
        ax.plot(x, y, color=color, ls=DASHES[i % len(DASHES)], marker=marker, label=name,
                markerfacecolor="white" if i % 2 else color)  # fmt: skip
        ends.append((y[-1], name, ink(color)))
    for name, level in (targets or {}).items():
        ax.axhline(level, color=GREY, lw=1.3, ls=(0, (2, 2)), zorder=1)
        ends.append((level, name, GREY))
    ax.grid(True, axis="y")
    ax.margins(x=0.01)
    label_ends(ax, ends)


def label_ends(ax, ends: Sequence[tuple]) -> None:
    """Write (y, name, colour) at the right edge of the axes, pushed apart where they would touch."""
    ends = [end for end in ends if end[1]]
    if not ends:
        return
    ax.autoscale_view()
    scale = ax.transScale + ax.transLimits
    heights = [scale.transform((ax.get_xlim()[1], y))[1] for y, _, _ in ends]
    # A line of text as a share of the axes' height, before the layout is known: about 72 % of the figure's.
    gap = 1.25 * LABEL_POINTS / 72 / (0.72 * ax.figure.get_figheight())
    for (_, name, color), y in zip(ends, spread(heights, gap), strict=True):
        ax.annotate(name, (1, y), xycoords="axes fraction", xytext=(5, 0), va="center",
                    textcoords="offset points", color=color, size=LABEL_POINTS)  # fmt: skip


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Heights moved as little as needed to stand ``gap`` apart, in their order."""
    from scipy.optimize import isotonic_regression  # least squares under "in order"

    order = np.argsort(heights, kind="stable")
    offsets = gap * np.arange(len(order))
    placed = np.empty(len(order))
    placed[order] = isotonic_regression(np.asarray(heights, float)[order] - offsets).x + offsets
    return placed.tolist()


def picture_figure(rows: Sequence[np.ndarray], title: str | None, gap: int = 2):
    """Rows of (N, H, W, 3) pictures as one image, ``gap`` pixels between rows, 2 or more beside.

    Returns the figure, its axes, and the centres of the columns and of the rows in pixels.
    """
    height, width = rows[0].shape[1:3]
    columns, between = max(len(row) for row in rows), max(2, width // 16)
    canvas = np.ones((len(rows) * (height + gap), columns * (width + between) - between, 3))
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            y, x = i * (height + gap), j * (width + between)
            canvas[y : y + height, x : x + width] = picture
    page = WIDTH * min(1.0, (columns + 1) / 6)
    ratio = canvas.shape[0] / canvas.shape[1]
    fig = Figure(figsize=(page, 0.9 * page * ratio + (0.5 if title else 0.15)))
    ax = fig.subplots()
    ax.imshow(canvas)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    if title:
        fig.suptitle(title)
    centres = [j * (width + between) + width / 2 for j in range(columns)]
    return fig, ax, centres, [i * (height + gap) + height / 2 for i in range(len(rows))]
