"""A flipbook: figures as the frames of a film, with the film's player."""

import math
from collections.abc import Iterable, Sequence

from matplotlib.figure import Figure
from PIL import Image

from barlow_edu.teaching import embed

COLOURS, GAP = 64, 10  # of the picture; pixels between its frames
PAGE = 700  # width of a page, and of the widest frame, in pixels


class Flipbook(embed.Film):
    """Figures of one size as frames: slider, play button and keyboard, or, without scripts, all of them in rows.

    ``captions`` (one a figure) are written below, and read aloud. ``title`` names the whole. Displayed in a
    notebook it needs no kernel and no network. Raises ValueError for no figure, or another number of captions.
    """

    note = "Run the cell above to play these pictures as a film."

    def __init__(self, figures: Iterable[Figure], captions: Sequence[str], title: str):
        figures = list(figures)
        frames = [embed.drawn(fig, min(150, PAGE / fig.get_figwidth())) for fig in figures]
        if not frames or len(frames) != len(captions):
            raise ValueError(f"Got {len(frames)} figures and {len(captions)} captions.")
        self.title, self.frame = title, frames[0].size
        self.spec = {"steps": [*range(len(frames))], "captions": [*captions], "dims": self.frame}
        pitch = [side + GAP for side in self.frame]
        columns = math.ceil(len(frames) ** 0.5)
        rows = -(-len(frames) // columns)
        sheet = Image.new("RGB", (columns * pitch[0], rows * pitch[1]), "white")
        for k, frame in enumerate(frames):
            sheet.paste(frame, (k % columns * pitch[0], k // columns * pitch[1]))
        self.alt = f"{title}: {len(frames)} frames, from “{captions[0]}” to “{captions[-1]}”."
        self.layout = {"size": sheet.size, "tile": self.frame, "columns": columns}
        self.layout |= {"origin": (0, 0), "pitch": pitch, "width": 100 * figures[0].get_figwidth()}
        sheet = sheet.quantize(COLOURS, dither=Image.Dither.NONE)
        self.png = embed.encode(sheet, Description=self.alt)

    def __repr__(self) -> str:
        return f"<Flipbook: {self.title}, {len(self.spec['steps'])} frames>"

    def _ipython_display_(self) -> None:
        wide, high = self.layout["size"]
        self.display((PAGE, round(PAGE * high / wide)))
