"""How pictures and players come into a notebook, a page of their own, and the website.

Stored notebooks are compared strictly by nbval, and a trained C differs between machines in its last digits. nbval
never compares ``image/png`` or output metadata, and it compares every ``text/html``. So whatever is measured travels
inside a PNG, in a chunk of its own, and all HTML depends on the arguments alone. A script in it finds the picture
before it. It gives it its alt text (``figures/alt.js``), since JupyterLab and nbconvert's "lab" template ignore the
one in the metadata, which "classic" and linters read, or makes it a player (``figures/film.js``, ``explorer.js``).
Where scripts do not run (GitHub, a notebook that is not trusted) the pictures stand there by themselves.
"""

import base64
import html
import io
import json
import struct
import zlib
from importlib import resources
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, PngImagePlugin

from barlow_edu.teaching.figures import drawing

SHARPNESS = 2  # pixels of a PNG for each pixel on the page
MAX_BYTES = 60_000  # of a figure: where twice as sharp takes more, it is drawn less sharp


def asset(name: str) -> str:
    """The text of a script or style sheet of this wing, such as ``"figures/film.css"``."""
    return resources.files("barlow_edu.teaching").joinpath(name).read_text(encoding="utf-8")


def show(fig: Figure, alt: str | None = None) -> None:
    """Display a figure in the notebook with its alt text.

    ``alt`` says in a sentence or two what the figure shows, for a reader who cannot see it, with no measured number:
    it is the same on every run. In the course's notebooks it stands in the cell's metadata, where it gives no result
    away. By default it is the titles of the figure. Raises ValueError if it is empty.
    """
    alt = titles(fig) if alt is None else alt
    if not alt.strip():
        raise ValueError(f"alt is {alt!r}: say in a sentence what the figure shows.")
    display_picture(to_png(fig, alt), pixels(fig), alt, f"<Figure: {alt}>")
    label = f"<small>Figure: {html.escape(alt)}</small><script>\n{asset('figures/alt.js')}</script>"
    display({"text/html": label, "text/plain": f"Figure: {alt}"})


def titles(fig: Figure) -> str:
    """What a figure says of itself: its title, and the title or the labels of each of its axes."""
    words = [fig.get_suptitle()]
    for ax in fig.axes:
        labels = f"{ax.get_ylabel()} over {ax.get_xlabel()}"
        words.append(ax.get_title() or labels.removeprefix(" over ").removesuffix(" over "))
    return "; ".join(dict.fromkeys(filter(None, words))).replace("\n", " ") or "a figure"


def pixels(fig: Figure) -> tuple[int, int]:
    """Width and height of a figure on the page."""
    return tuple(round(100 * inches) for inches in fig.get_size_inches())


def to_png(fig: Figure, alt: str = "") -> bytes:
    """The figure as a PNG, ``alt`` in its Description: sharp on any screen where that stays small."""
    for sharpness in range(SHARPNESS, 0, -1):
        png = encode(_few_colours(drawn(fig, 100 * sharpness)), Description=alt)
        if len(png) <= MAX_BYTES:
            break
    return png


def drawn(fig: Figure, dpi: float) -> Image.Image:
    """The figure as an RGB picture of so many pixels an inch."""
    buffer = io.BytesIO()
    with drawing.style():
        fig.savefig(buffer, format="png", dpi=dpi)
    return Image.open(buffer).convert("RGB")


def _few_colours(picture: Image.Image) -> Image.Image:
    """The picture with 256 colours, a third of its size, unless that would be seen, as in photographs."""
    reduced = picture.quantize(256, dither=Image.Dither.NONE)
    off = np.asarray(picture, dtype=int) - np.asarray(reduced.convert("RGB"), dtype=int)
    return picture if (np.abs(off).max(-1) > 16).mean() > 0.005 else reduced


def encode(picture: Image.Image, **texts: str) -> bytes:
    """A PNG with text chunks, each of them Latin-1 as tEXt or else UTF-8 as iTXt."""
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add_text(key, text) if text.isascii() else info.add_itxt(key, text)
    buffer = io.BytesIO()
    picture.save(buffer, "png", optimize=True, pnginfo=info)
    return buffer.getvalue()


def with_chunk(png: bytes, name: bytes, data: bytes) -> bytes:
    """A PNG with one more chunk of measured bytes, before its last."""
    body = name + data
    chunk = struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
    return png[:-12] + chunk + png[-12:]


def element(kind: str, name: str, spec: dict, note: str, style: str, script: str) -> str:
    """An element of the classes ``kind``, with its style and a script that fills it as ``spec`` says."""
    data = html.escape(json.dumps(spec, ensure_ascii=False))
    body = f'<div class="{kind}" data-{name}="{data}">{note}</div>'
    return f"<style>{style}</style>{body}<script>{script}</script>"


class Player:
    """A picture and the script that plays it: has ``title``, ``png``, ``alt`` and ``player()``, the HTML after it."""

    def save(self, path: str | Path) -> Path:
        """Write the picture (.png), or a page with its player that needs nothing else (.html)."""
        path = Path(path)
        if path.suffix == ".png":
            path.write_bytes(self.png)
            return path
        head = '<!doctype html><html lang="en"><meta charset="utf-8">'
        head += '<meta name="viewport" content="width=device-width, initial-scale=1">'
        head += f"<title>{html.escape(self.title)}</title>"
        source = f"data:image/png;base64,{base64.b64encode(self.png).decode()}"
        picture = f'<img width="700" alt="{html.escape(self.alt)}" src="{source}">'
        body = f'<body class="be-page">{picture}{self.player()}</body></html>'
        path.write_text(head + body, encoding="utf-8")
        return path

    def display(self, size: tuple[int, int]) -> None:
        """Display the picture, ``size`` (width, height) on the page, and the player after it."""
        display_picture(self.png, size, self.alt, repr(self))
        name = f"<{type(self).__name__} player>"
        display({"text/html": self.player(), "text/plain": name})


class Film(Player):
    """A picture of frames, which film.js cuts out as ``spec`` and ``layout`` say: both without measured values."""

    note = "Run the cell above to play this picture as a film."  # what stands there without scripts

    def player(self) -> str:
        """The HTML that stands after the picture."""
        spec = {"title": self.title, "alt": self.alt, **self.spec, **self.layout}
        style = "\n" + asset("figures/film.css")
        return element("be-film", "film", spec, self.note, style, asset("figures/film.js"))


def display_picture(png: bytes, size: tuple[int, int], alt: str, text: str, **place) -> None:
    """Display a PNG, ``size`` (width, height) on the page, with its alt text in the metadata."""
    metadata = {"image/png": {"alt": alt, "width": size[0], "height": size[1]}}
    display({"image/png": base64.b64encode(png).decode(), "text/plain": text}, metadata, **place)


def display(data: dict, metadata: dict | None = None, **place) -> None:
    """Display a bundle of MIME types, under the cell that runs; ``place``: IPython's display_id and update."""
    from IPython.display import display as show_bundle

    show_bundle(data, raw=True, metadata=metadata or {}, **place)
