"""How pictures come into a notebook: figures with alt text, and the film of C.

Stored notebooks are compared strictly by nbval, and a trained C differs between machines in its
last digits. nbval never compares ``image/png`` or output metadata, and it compares every
``text/html``. So whatever is measured travels inside a PNG, and all HTML depends on the arguments
alone (alt text, title, steps, shapes). A script in that HTML then finds the picture before it on
the page and

* gives it its alt text: JupyterLab and nbconvert's "lab" template ignore the alt in the metadata,
  where it also stands for the tools that read it (nbconvert's "classic" template, linters);
* turns the picture of all frames into a film with slider, play button and numbers.

Where scripts do not run (GitHub, a notebook that is not trusted) the pictures stand there by
themselves.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from barlow_edu.teaching.figures import drawing

SHARPNESS = 2  # pixels of a PNG for each pixel on the page
MARGIN, GAP, HEADER, CAPTION = 12, 20, 112, 36  # of the sheet, in its pixels
GREYS = 16
MAX_BYTES = 60_000
MAX_DIMS = 256
MAX_CELLS = 36 * 64 * 64  # in all frames together: a film stays below 300 kB
ALT_SCRIPT = """
(function (script) {
  const label = script.previousElementSibling;
  const alt = label.textContent.replace("Figure: ", "");
  const area = label.closest(".jp-OutputArea, .cell_output, .output") || document.body;
  (function name(tries) {
    const before = (img) => label.compareDocumentPosition(img) & Node.DOCUMENT_POSITION_PRECEDING;
    const img = Array.from(area.querySelectorAll("img")).filter(before).pop();
    if (img && !img.dataset.named) {
      img.alt = alt;
      img.dataset.named = "yes";
      (label.closest(".jp-OutputArea-child") || label).style.display = "none";
    } else if (tries > 0) setTimeout(name, 100, tries - 1);
  })(100);
})(document.currentScript);
"""


def show(fig: Figure, alt: str) -> None:
    """Display a figure in the notebook with its alt text.

    ``alt`` says in a sentence or two what the figure shows, for a reader who cannot see it. It must
    be the same on every run: no measured number. Raises ValueError if it is empty.
    """
    if not alt.strip():
        raise ValueError(f"alt is {alt!r}: say in a sentence what the figure shows.")
    with drawing.style():
        png = to_png(fig, alt)
    width, height = (round(100 * inches) for inches in fig.get_size_inches())
    label = f"<small>Figure: {html.escape(alt)}</small><script>{ALT_SCRIPT}</script>"
    _publish(png, (width, height), alt, f"<Figure: {alt}>")
    _display({"text/html": label, "text/plain": f"Figure: {alt}"})


def to_png(fig: Figure, alt: str = "") -> bytes:
    """The figure as a PNG, ``alt`` in its Description: sharp on any screen where that stays small."""
    for sharpness in range(SHARPNESS, 0, -1):
        buffer = io.BytesIO()
        fig.savefig(buffer, format="png", dpi=100 * sharpness)
        png = _encode(_few_colours(Image.open(buffer).convert("RGB")), Description=alt)
        if len(png) <= MAX_BYTES:
            break
    return png


def _few_colours(picture: Image.Image) -> Image.Image:
    """The picture with 256 colours, a third of its size, unless that would be seen, as in photographs."""
    reduced = picture.quantize(256, dither=Image.Dither.NONE)
    off = np.asarray(picture, dtype=int) - np.asarray(reduced.convert("RGB"), dtype=int)
    return picture if (np.abs(off).max(-1) > 16).mean() > 0.005 else reduced


class Film:
    """A film of C: a picture of all frames, and the player that cuts its frames out of it.

    ``snapshots``: step -> (D, D), as ``Run.snapshots``. At most ``max_frames`` of them are shown,
    fewer when ``dims`` is above 64, evenly spaced in their order. Of each the first ``dims``
    dimensions (256 at most) are seen; the numbers and the spectrum are those of the whole C.

    Displayed in a notebook it needs no kernel, no network and no widget: slider, play button and
    keyboard work in JupyterLab and in exported HTML; GitHub shows the picture of all frames. Nothing
    moves by itself, and it plays slower where the reader asked for reduced motion. ``save`` writes
    a page of its own. Raises ValueError for no snapshots, unequal shapes, NaN or infinity.
    """

    def __init__(self, snapshots: Mapping[int, object], title=None, dims=64, max_frames=36):
        if not snapshots or dims < 1 or max_frames < 1:
            raise ValueError(
                "A film needs snapshots, dims >= 1 and max_frames >= 1, got "
                f"{len(snapshots)} snapshots, dims={dims}, max_frames={max_frames}."
            )
        shown = min(dims, MAX_DIMS, len(next(iter(snapshots.values()))))
        self.steps = drawing.pick(snapshots, min(max_frames, max(2, MAX_CELLS // shown**2)))
        matrices = [drawing.to_matrix(snapshots[s], f"C at step {s}") for s in self.steps]
        if len({c.shape for c in matrices}) > 1:
            raise ValueError(f"Snapshots differ in shape: {sorted({c.shape for c in matrices})}.")
        self.dim = len(matrices[0])
        self.part = f"first {shown} of {self.dim} dimensions" if shown < self.dim else ""
        self.frames = np.stack([c[:shown, :shown] for c in matrices])  # (frames, shown, shown)
        self.numbers = _numbers(matrices)
        self.title = title or "The cross-correlation matrix C during training"
        self.alt = (
            f"{self.title}: {len(self.steps)} small heatmaps of C, from step {self.steps[0]:,} "
            f"to step {self.steps[-1]:,}, on a red-blue scale from −1 to 1."
        )
        caption = ", ".join(filter(None, [self.part, "below each frame its training step"]))
        self.layout = _layout(len(self.steps), shown)
        sheet = _sheet(self.frames, self.layout, self.steps, [self.title, caption])
        self.png = _encode(sheet, Description=self.alt, film=json.dumps(self.numbers))

    def __repr__(self) -> str:
        return f"<Film: {self.alt}>"

    def player(self) -> str:
        """The HTML that stands after the picture: it depends on steps, shapes and title alone."""
        levels = np.linspace(0, drawing.DIVERGING.N - 1, 9).astype(int)
        spec = {
            "title": self.title,
            "alt": self.alt,
            "steps": self.steps,
            "part": self.part and f"{self.part}; numbers and spectrum of all",
            "dims": [self.frames.shape[1], self.dim],
            "colours": [mpl.colors.to_hex(drawing.DIVERGING(int(i))) for i in levels],
            **self.layout,
        }
        note = "Run the cell above to play this picture as a film."
        data = html.escape(json.dumps(spec, ensure_ascii=False))
        script = (
            resources.files("barlow_edu.teaching.figures")
            .joinpath("film.js")
            .read_text(encoding="utf-8")
        )
        body = f'<div class="be-film" data-film="{data}">{note}</div><script>{script}</script>'
        return f"<style>{CSS}</style>{body}"

    def page(self) -> str:
        """A page of its own, which needs nothing else."""
        data, alt, title = _base64(self.png), html.escape(self.alt), html.escape(self.title)
        image = f'<img width="700" alt="{alt}" src="data:image/png;base64,{data}">'
        head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        return f'{head}<body class="be-page">{image}{self.player()}</body></html>'

    def save(self, path) -> Path:
        """Write the page to ``path`` (.html), or the picture of all frames (.png)."""
        path = Path(path)
        if path.suffix == ".png":
            path.write_bytes(self.png)
        else:
            path.write_text(self.page(), encoding="utf-8")
        return path

    def _ipython_display_(self) -> None:
        size = tuple(side // SHARPNESS for side in self.layout["size"])
        _publish(self.png, size, self.alt, repr(self))
        _display({"text/html": self.player(), "text/plain": "<Film player>"})


def _numbers(matrices) -> dict[str, list]:
    """What the player writes and draws: mean diagonal, off-diagonal RMS, up to 64 singular
    values.
    """
    pairs = [drawing.diagonal_and_rms(c) for c in matrices]
    places = np.linspace(0, len(matrices[0]) - 1, min(64, len(matrices[0]))).round().astype(int)
    spectra = drawing.svdvals(np.stack(matrices))[:, places]
    return {
        "diagonal": [round(diagonal, 4) for diagonal, _ in pairs],
        "rms": [round(rms, 4) for _, rms in pairs],
        "spectrum": [[float(f"{value:.3g}") for value in values] for values in spectra],
    }


def _layout(n: int, shown: int) -> dict:
    """Where ``n`` frames of ``shown`` dimensions stand on the sheet, in its pixels."""
    width = 100 * SHARPNESS * 7
    inner = width - 2 * MARGIN + GAP
    for cell in range(max(1, 320 // shown), 0, -1):  # pixels of one entry of C: as many as fit
        tile = cell * shown
        columns = inner // (tile + GAP)
        pitch = (tile + GAP, tile + CAPTION + GAP)
        height = HEADER + -(-n // columns) * pitch[1]
        if height <= 900:
            break
    size = (width, height)
    return {
        "size": size,
        "tile": tile,
        "columns": columns,
        "origin": (MARGIN, HEADER),
        "pitch": pitch,
    }


def _sheet(frames: np.ndarray, layout: dict, steps, heading: list[str]) -> Image.Image:
    """All frames in rows, each above its step, with heading and colour scale."""
    width, height = layout["size"]
    tile, pitch = layout["tile"], layout["pitch"]
    levels = drawing.DIVERGING.N
    index = np.full((height, width), levels + GREYS - 1, dtype=np.uint8)
    scaled = ((frames.clip(-1, 1) + 1) / 2 * (levels - 1)).round().astype(np.uint8)
    text = Image.new("L", (width, height))
    ink = ImageDraw.Draw(text)
    cell = tile // frames.shape[1]
    for k, frame in enumerate(scaled):
        line, column = divmod(k, layout["columns"])
        x, y = MARGIN + column * pitch[0], HEADER + line * pitch[1]
        index[y : y + tile, x : x + tile] = frame.repeat(cell, 0).repeat(cell, 1)
        ink.text((x + tile / 2, y + tile + 4), f"{steps[k]}", 255, _font(22), anchor="ma")
    _draw_header(ink, index, heading)
    greys = levels + GREYS - 1 - (np.asarray(text) / 255 * (GREYS - 1)).round().astype(np.uint8)
    sheet = Image.fromarray(np.where(np.asarray(text) > 8, greys, index))
    sheet.putpalette(_palette())
    return sheet


def _draw_header(ink: ImageDraw.ImageDraw, index: np.ndarray, heading: list[str]) -> None:
    ink.text((MARGIN, 10), heading[0], 255, _font(26, bold=True))
    ink.text((MARGIN, 56), heading[1], 255, _font(22))
    levels, right = drawing.DIVERGING.N, index.shape[1] - MARGIN - 30
    bar = np.arange(levels, dtype=np.uint8).repeat(3)
    index[60:80, right - len(bar) : right] = bar
    ink.text((right - len(bar) - 8, 56), "−1", 255, _font(22), anchor="ra")
    ink.text((right + 8, 56), "1", 255, _font(22))


def _palette() -> list[int]:
    dark = np.array(mpl.colors.to_rgb(drawing.TEXT))
    greys = [dark + (1 - dark) * k / (GREYS - 1) for k in range(GREYS)]
    colours = [drawing.DIVERGING(k)[:3] for k in range(drawing.DIVERGING.N)] + greys
    return (np.array(colours) * 255).round().astype(int).ravel().tolist()


def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / name), size)


def _encode(picture: Image.Image, **texts: str) -> bytes:
    """A PNG with text chunks, each of them Latin-1 as tEXt or else UTF-8 as iTXt."""
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add_text(key, text) if text.isascii() else info.add_itxt(key, text)
    buffer = io.BytesIO()
    picture.save(buffer, "png", optimize=True, pnginfo=info)
    return buffer.getvalue()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _publish(png: bytes, size: tuple[int, int], alt: str, text: str) -> None:
    metadata = {"image/png": {"alt": alt, "width": size[0], "height": size[1]}}
    _display({"image/png": _base64(png), "text/plain": text}, metadata)


def _display(data: dict, metadata: dict | None = None) -> None:
    from IPython.display import display

    display(data, raw=True, metadata=metadata or {})


CSS = """
.be-film { font: 14px/1.4 sans-serif; max-width: 700px; }
.be-film-title { font-weight: bold; margin: 4px 0 8px; }
.be-film-part { margin: -6px 0 8px; }
.be-film-panels { display: flex; flex-wrap: wrap; gap: 10px; align-items: flex-start; }
.be-film-c { width: 320px; height: 320px; image-rendering: pixelated; outline: 1px solid #666; }
.be-film-spectrum { width: 300px; height: 320px; }
.be-film-legend { display: flex; flex-direction: column; align-items: center; height: 320px; }
.be-film-legend i { width: 14px; flex: 1; outline: 1px solid #666; margin: 3px 0; }
.be-film-bar { display: flex; gap: 10px; align-items: center; margin: 10px 0 4px; }
.be-film-bar input { flex: 1; min-width: 80px; accent-color: #0072b2; height: 24px; }
.be-film-bar button { font: inherit; min-width: 92px; min-height: 32px; cursor: pointer;
  border: 1px solid #666; border-radius: 4px; background: #f3f3f3; color: #222; }
.be-film-bar button[aria-pressed="true"] { background: #d5e5f0; font-weight: bold; }
.be-film-bar :focus-visible { outline: 3px solid #0072b2; outline-offset: 2px; }
.be-film-readout { min-height: 1.4em; font-variant-numeric: tabular-nums; }
"""
