"""The lambda explorer: slide through a recorded sweep, or train while sliding.

``LambdaExplorer`` shows a ``Study``. Everything is sent once and drawn in the browser, so that it needs no kernel.
It comes in three outputs, for each place where a notebook is read:

* a picture: C at five λ and the curves. GitHub and a PDF show this. What was measured travels inside
  the PNG, see ``embed.py``;
* a script that turns the picture into the explorer, in JupyterLab and in exported pages;
* a widget that tells the kernel which λ the reader chose: ``explorer.lambd``.

``LiveLambda``, from ``panel.py``, trains while one slides.
"""

import base64
import io
import json
import struct
import zlib
from functools import cached_property
from pathlib import Path

import anywidget
import numpy as np
import traitlets
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from PIL import Image

from barlow_edu.studies.lambda_sweep import JUDGES, load_sweep, recorded_neighbours
from barlow_edu.studies.study import Study
from barlow_edu.teaching import embed
from barlow_edu.teaching.embed import asset
from barlow_edu.teaching.figures import drawing
from barlow_edu.teaching.panel import EXPLORER, LiveLambda, drawn_by_explorer

__all__ = ["LambdaExplorer", "LiveLambda"]
CHUNK = b"beLx"  # private, ancillary, not to be kept by editors: see explorer.js
STRIP = 5  # matrices in the picture
NEAR, TILES = 6, 16  # neighbours of an image; images in a row of the picture that holds them all


def pack(sweep: Study) -> bytes:
    """All that the explorer shows, compressed: length of the header, JSON header, C of every λ as uint8."""
    dim, dims = len(sweep.rows[0]["spectrum"]), len(sweep.bytes[0])
    redundancy = sweep.column("redundancy")
    numbers = {
        "lambdas": sweep.values,
        "knn_z": 100 * sweep.column("knn_z"),
        "knn_h": 100 * sweep.column("knn"),
        "rank_z": sweep.column("effective_rank_z"),
        "rank_h": sweep.column("effective_rank_h"),
        "diagonal": sweep.column("diagonal_mean"),
        "rms": np.sqrt(redundancy / max(dim * (dim - 1), 1)),
        "invariance": sweep.column("invariance"),
        "weighted": sweep.values * redundancy,
        "spectrum": sweep.spectra,
        "pixels": np.array(100 * sweep.baselines["pixels"]),
    }
    # Four digits are more than one can see, and the picture that carries them stays small.
    short = {key: np.char.mod("%.4g", values).astype(float) for key, values in numbers.items()}
    header = {key: values.tolist() for key, values in short.items()}
    header |= {"dims": dims, "dim": dim, "features": int(sweep.column("features")[0])}
    header |= {"near": neighbours(sweep)}
    text = json.dumps(header).encode()
    return zlib.compress(struct.pack("<I", len(text)) + text + np.stack(sweep.bytes).tobytes(), 9)


def neighbours(sweep: Study) -> dict | None:
    """Test images of a few kinds and their nearest neighbours at some λ, if recorded, and one picture with all.

    ``queries``, and ``nearest`` a λ and a query: places in the picture, of ``side`` pixels, ``columns`` in a row.
    """
    record = recorded_neighbours(sweep)
    if not record:
        return None
    try:
        test = JUDGES.images(sweep.config)[1]
    except (OSError, ValueError):  # images that are elsewhere: the explorer does without them
        return None
    close = np.array([row["nearest"] for row in record["rows"]])[..., :NEAR]
    seen, places = np.unique(np.append(close, record["queries"]), return_inverse=True)
    tiles = test.images[seen].permute(0, 2, 3, 1).numpy()
    tiles = np.pad(tiles, ((0, -len(seen) % TILES), (0, 0), (0, 0), (0, 0)))
    n, side = len(tiles), tiles.shape[1]
    sprite = tiles.reshape(n // TILES, TILES, side, side, 3).swapaxes(1, 2)
    buffer = io.BytesIO()
    Image.fromarray(sprite.reshape(n // TILES * side, TILES * side, 3)).save(
        buffer, "webp", quality=80
    )
    return {
        "sprite": "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode(),
        "side": side, "columns": TILES, "rows": n // TILES,
        "names": [test.classes[k] for k in test.labels[seen].tolist()],
        "lambdas": [row["lambd"] for row in record["rows"]],
        "nearest": places[: close.size].reshape(close.shape).tolist(),
        "queries": places[close.size :].tolist(),
    }  # fmt: skip


def clearest(sweep: Study) -> int:
    """Place of the training whose C is nearest to the identity, among those that have a clear diagonal.

    Without that condition a C of zeros would win, whose distance is 1 for each dimension.
    """
    far = sweep.column("invariance") + sweep.column("redundancy")
    return int(np.where(sweep.column("diagonal_mean") >= 0.5, far, np.inf).argmin())


def plain(value: float) -> str:
    """Three digits without an exponent: 0.00001 and not 1e-05."""
    return np.format_float_positional(value, precision=3, fractional=False, trim="-")


class LambdaExplorer(anywidget.AnyWidget, embed.Player):
    """Slide through a sweep: C, its spectrum, and where on the curves of kNN and effective rank one is.

    sweep: a ``Study`` or where to find one. ``lambd`` is the λ that is shown; set it from Python, or read what
    the reader chose. ``save`` writes a page of its own (.html) or the picture (.png); neither needs a kernel or
    a network. Raises ValueError for a sweep over anything else than λ, or with several seeds.
    """

    title = "The lambda explorer"
    _esm = EXPLORER + "\nexport default { render: renderExplorer };\n"
    _css = asset("explorer.css")
    data = traitlets.Bytes().tag(sync=True)
    spec = traitlets.Dict().tag(sync=True)
    index = traitlets.Int(0).tag(sync=True)

    def __init__(self, sweep: Study | str | Path = "lambda_sweep"):
        self.sweep = sweep if isinstance(sweep, Study) else load_sweep(sweep)
        lambdas, dims = self.sweep.values, len(self.sweep.bytes[0])
        if self.sweep.key != "lambd" or lambdas.min() <= 0 or len(set(lambdas)) < len(lambdas):
            raise ValueError(
                f"LambdaExplorer needs a sweep over lambd, one training a value, above 0. Got {self.sweep}."
            )
        self.places = drawing.evenly(len(lambdas), STRIP)
        names = ", ".join(plain(lambdas[i]) for i in self.places)
        self.alt = (
            f"{self.title}: the matrix C after training with λ = {names}, and below it kNN accuracy and "
            f"effective rank against λ. C is drawn from −1 (blue) to 1 (red), {dims} dimensions of it."
        )
        spec = {
            "title": self.title,
            "note": f"{len(lambdas)} short trainings on {self.sweep.config['data']}, the same but for λ. "
            "Drag the slider or a curve, or press the arrow keys.",
            "alt": self.alt,
            "colours": drawing.colour_table(),
            "start": clearest(self.sweep),
        }
        super().__init__(data=pack(self.sweep), spec=spec, index=spec["start"])

    def __repr__(self) -> str:
        return f"<LambdaExplorer: {len(self.sweep.values)} values of lambda>"

    @property
    def lambd(self) -> float:
        """The λ that is shown."""
        return float(self.sweep.values[self.index])

    @lambd.setter
    def lambd(self, value: float) -> None:
        """Show the nearest λ of the sweep."""
        self.index = self.sweep.nearest(value)

    def figure(self) -> Figure:
        """C at five λ, and the curves of kNN and effective rank against λ."""
        with drawing.style():
            fig = Figure(figsize=(drawing.WIDTH, 4.9))
            rows = fig.add_gridspec(2, 1, height_ratios=[1, 1.2], hspace=0.08)
            axes = rows[0].subgridspec(1, len(self.places)).subplots(squeeze=False)[0]
            matrices = [self.sweep.matrix(place).astype(float) for place in self.places]
            titles = [f"λ = {plain(self.sweep.values[place])}" for place in self.places]
            drawing.strip(fig, axes, matrices, titles, short=True)
            self._curves(*rows[1].subgridspec(1, 2).subplots())
        return fig

    def _curves(self, left, right) -> None:
        sweep = self.sweep
        for ax in (left, right):
            drawing.log_axis(ax.xaxis, sweep.values)
            ax.xaxis.set_major_locator(LogLocator(numticks=4))
            ax.set_xlabel("λ")
        pixels = 100 * sweep.baselines["pixels"]
        for ax, what, factor, targets in (
            (left, ("knn_z", "knn"), 100, {"pixels": pixels}),
            (right, ("effective_rank_z", "effective_rank_h"), 1, {}),
        ):
            columns = zip(("embeddings z", "features h"), what, strict=True)
            lines = {name: (sweep.values, factor * sweep.column(key)) for name, key in columns}
            drawing.lines(ax, lines, log=False, targets=targets)
        left.set_ylabel("kNN accuracy, %")
        right.set_ylabel("effective rank")

    @cached_property
    def png(self) -> bytes:
        """The picture, with all that the explorer shows inside."""
        return embed.with_chunk(embed.to_png(self.figure(), self.alt), CHUNK, self.data)

    def player(self) -> str:
        """The HTML that stands after the picture. It holds nothing that was measured."""
        note = "Run the cell above to slide through the picture."
        code = "startBesidePicture(script.previousElementSibling);"
        return drawn_by_explorer("be-lx-player", "explorer", self.spec, note, code)

    def _ipython_display_(self) -> None:
        self.display(embed.pixels(self.figure()))
        widget, _ = self._repr_mimebundle_()
        embed.display({**widget, "text/plain": "<LambdaExplorer widget>"})
