"""The film of C: a picture of all frames, and the player that cuts its frames out of it."""

import json
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from barlow_edu.teaching import embed
from barlow_edu.teaching.embed import SHARPNESS
from barlow_edu.teaching.figures import drawing

MARGIN, GAP, HEADER, CAPTION = 12, 20, 112, 36  # of the sheet, in its pixels
FONTS = Path(mpl.get_data_path(), "fonts", "ttf")
FRAMES, DIMS = 36, 64  # at most, so that a film stays below 300 kB


class Film(embed.Film):
    """A film of C: a picture of all frames, and the player that cuts its frames out of it.

    ``snapshots``: step -> (D, D), as ``Run.snapshots``. At most 36 of them are shown, evenly spaced in their order.
    Of each the first 64 dimensions are seen; the numbers and the spectrum are those of the whole C.

    Slider, play button and keyboard work in JupyterLab and in exported HTML, without a kernel or a network; GitHub
    shows the picture of all frames. Nothing moves by itself, and it plays slower where the reader asked for reduced
    motion. ``save`` writes a page of its own. Raises ValueError for no snapshots, unequal shapes, NaN or infinity.
    """

    def __init__(self, snapshots: Mapping[int, object], title: str | None = None):
        self.steps = drawing.pick(snapshots, FRAMES)
        matrices = [drawing.to_matrix(snapshots[s], f"C at step {s}") for s in self.steps]
        if len({c.shape for c in matrices}) > 1:
            raise ValueError(f"Snapshots differ in shape: {sorted({c.shape for c in matrices})}.")
        dim = len(matrices[0])
        shown = min(DIMS, dim)
        part = f"first {shown} of {dim} dimensions" if shown < dim else ""
        self.frames = np.stack([c[:shown, :shown] for c in matrices])  # (frames, shown, shown)
        self.title = title or "The cross-correlation matrix C during training"
        self.alt = (
            f"{self.title}: {len(self.steps)} small heatmaps of C, from step {self.steps[0]:,} "
            f"to step {self.steps[-1]:,}, on a red-blue scale from −1 to 1."
        )
        levels = np.linspace(0, drawing.DIVERGING.N - 1, 9).astype(int)
        self.spec = {
            "steps": self.steps,
            "part": part and f"{part}; numbers and spectrum of all",
            "dims": [shown, dim],
            "colours": [mpl.colors.to_hex(drawing.DIVERGING(int(i))) for i in levels],
        }
        caption = ", ".join(filter(None, [part, "below each frame its training step"]))
        self.layout = _layout(len(self.steps), shown)
        sheet = _sheet(self.frames, self.layout, self.steps, [self.title, caption])
        self.png = embed.encode(sheet, Description=self.alt, film=json.dumps(_numbers(matrices)))

    def __repr__(self) -> str:
        return f"<Film: {self.alt}>"

    def _ipython_display_(self) -> None:
        self.display(tuple(side // SHARPNESS for side in self.layout["size"]))


def _numbers(matrices) -> dict[str, list]:
    """What the player writes and draws: mean diagonal, off-diagonal RMS, up to 64 singular values."""
    pairs = [drawing.diagonal_and_rms(c) for c in matrices]
    spectra = np.linalg.svd(np.stack(matrices), compute_uv=False)
    spectra = spectra[:, drawing.evenly(len(matrices[0]), 64)]
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
    places = {"size": (width, height), "tile": tile, "columns": columns}
    return {**places, "origin": (MARGIN, HEADER), "pitch": pitch}


def _sheet(frames: np.ndarray, layout: dict, steps, heading: list[str]) -> Image.Image:
    """All frames in rows, each above its step, with heading and colour scale, in at most 256 colours."""
    sheet = Image.new("RGB", layout["size"], "white")
    ink, tile, pitch = ImageDraw.Draw(sheet), layout["tile"], layout["pitch"]

    def paste(values: np.ndarray, place: tuple[int, int], size: tuple[int, int]) -> None:
        colours = Image.fromarray(drawing.DIVERGING((values + 1) / 2, bytes=True)[..., :3])
        sheet.paste(colours.resize(size, Image.Resampling.NEAREST), place)

    def write(text: str, place: tuple[float, float], anchor="la", size=22, face="") -> None:
        font = ImageFont.truetype(str(FONTS / f"DejaVuSans{face}.ttf"), size)
        ink.text(place, text, drawing.TEXT, font, anchor=anchor)

    for k, (frame, step) in enumerate(zip(frames, steps, strict=True)):
        line, column = divmod(k, layout["columns"])
        x, y = MARGIN + column * pitch[0], HEADER + line * pitch[1]
        paste(frame, (x, y), (tile, tile))
        write(f"{step}", (x + tile / 2, y + tile + 4), "ma")
    write(heading[0], (MARGIN, 10), size=26, face="-Bold")
    write(heading[1], (MARGIN, 56))
    scale = np.linspace(-1, 1, drawing.DIVERGING.N)[None]
    left, right = sheet.width - MARGIN - 30 - 3 * scale.size, sheet.width - MARGIN - 30
    paste(scale, (left, 60), (right - left, 20))
    write("−1", (left - 8, 56), "ra")
    write("1", (right + 8, 56))
    return sheet.quantize(dither=Image.Dither.NONE)
