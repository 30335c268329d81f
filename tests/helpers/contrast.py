"""Contrast ratios of WCAG 2.2, and the pairs of colours that figures, film and explorer use."""

import re

import matplotlib as mpl

from barlow_edu.teaching.embed import asset
from barlow_edu.teaching.figures import drawing

TEXT_RATIO, SHAPE_RATIO = 4.5, 3.0  # 1.4.3 and 1.4.11


def luminance(colour):
    """Relative luminance."""
    rgb = mpl.colors.to_rgb(colour)
    r, g, b = (x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in rgb)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one, other):
    """Contrast ratio of two colours, from 1 to 21."""
    high, low = sorted([luminance(one), luminance(other)], reverse=True)
    return (high + 0.05) / (low + 0.05)


def explorer_colours(dark):
    """The colours of the explorer's theme by their names in the style sheet."""
    start = r'^\.be-lx\[data-dark="true"\] \{(.*?)\}' if dark else r"^\.be-lx \{(.*?)\}"
    block = re.search(start, asset("explorer.css"), re.M | re.S)
    return dict(re.findall(r"--(\w+): (#\w+)", block[1]))


def pairs():
    """Where a pair stands -> (ratio it needs, its pairs of colours, by name)."""
    low, middle, high = drawing.DIVERGING(0), drawing.DIVERGING(0.5), drawing.DIVERGING(1.0)
    names = {f"name of line {c}": (drawing.ink(c), "white") for c in drawing.PALETTE}
    texts = {"text": (drawing.TEXT, "white"), "grey text": (drawing.GREY, "white")}
    # Okabe and Ito's purple, orange and sky blue, for a fifth line and later: those carry dash, marker and name.
    lines = {f"line {c}": (c, "white") for c in drawing.PALETTE[:4]}
    later = {f"line {c}": (c, "white") for c in drawing.PALETTE[4:]}
    buttons = {"text": ("#222", "#f3f3f3"), "text, pressed": ("#222", "#d5e5f0")}
    found = {
        "figures: text": (TEXT_RATIO, {**texts, **names}),
        "figures: first four lines": (SHAPE_RATIO, lines),
        "figures: later lines": (1.0, later),
        "figures: ends of the scale of C": (
            SHAPE_RATIO,
            {"−1": (low, middle), "1": (high, middle)},
        ),
        "film: buttons": (TEXT_RATIO, buttons),
        "film: line and focus": (SHAPE_RATIO, {"blue": ("#0072b2", "#fff")}),
    }
    for dark in (False, True):
        c, theme = explorer_colours(dark), "dark" if dark else "light"
        text = {n: (c[n], c["page"]) for n in ("ink", "first", "second", "mark")}
        found[f"explorer, {theme}: text and lines"] = (TEXT_RATIO, text)
        found[f"explorer, {theme}: edges"] = (SHAPE_RATIO, {"edge": (c["edge"], c["page"])})
    return found
