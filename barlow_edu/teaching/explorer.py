"""The lambda explorer: slide through a recorded sweep, or train while sliding.

``LambdaExplorer`` shows a ``Study``. Everything is sent once and drawn in the browser, so that it needs no kernel.
It comes in three outputs: a picture, which GitHub and a PDF show, and inside which what was measured travels (see
``embed.py``); a script that turns the picture into the explorer; and a widget that tells the kernel the chosen λ.

``LiveLambda`` trains. The world that it sees is that of ``live``, written again in ``playground/live.js``; tests
hold one step of the two against each other. The page trains and not the kernel: so the panel moves while a cell
runs, works where no kernel is, leaves nothing running behind, and does not train while nobody looks at the page.
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
from barlow_edu.teaching import embed, playground
from barlow_edu.teaching.embed import asset
from barlow_edu.teaching.figures import drawing

EXPLORER = asset("playground/heatmap.js").replace("export ", "") + asset("explorer.js")
CHUNK = b"beLx"  # private, ancillary, not to be kept by editors: see explorer.js
STRIP = 5  # matrices in the picture
NEAR, TILES = 6, 16  # neighbours of an image; images in a row of the picture that holds them all
DIMS = (2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96)  # of the sliders
BATCHES = (4, 8, 16, 32, 64, 128, 256, 512, 1024)


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
    header = {k: np.char.mod("%.4g", x).astype(float).tolist() for k, x in numbers.items()}
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
    sprite = Image.fromarray(sprite.reshape(n // TILES * side, TILES * side, 3))
    sprite.save(buffer, "webp", quality=80)
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
            needed = "LambdaExplorer needs a sweep over lambd, one training a value, above 0."
            raise ValueError(f"{needed} Got {self.sweep}.")
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
            left, right = rows[1].subgridspec(1, 2).subplots()
            pixels = {"pixels": 100 * self.sweep.baselines["pixels"]}
            self._curves(left, "kNN accuracy, %", 100, ("knn_z", "knn"), pixels)
            self._curves(right, "effective rank", 1, ("effective_rank_z", "effective_rank_h"))
        return fig

    def _curves(self, ax, ylabel: str, factor: int, keys: tuple[str, str], targets=None) -> None:
        drawing.log_axis(ax.xaxis, self.sweep.values)
        ax.xaxis.set_major_locator(LogLocator(numticks=4))
        columns = zip(("embeddings z", "features h"), keys, strict=True)
        series = {name: (self.sweep.values, factor * self.sweep.column(k)) for name, k in columns}
        drawing.lines(ax, series, log=False, targets=targets)
        ax.set(xlabel="λ", ylabel=ylabel)

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


class LiveLambda:
    """Displayed in a notebook: play, pause, reset, and sliders that start at the values given.

    ``lambd``: from 0.0001 to 10. ``dim``: one of DIMS. ``batch_size``: one of BATCHES. Raises ValueError for others.

    >>> LiveLambda(lambd=0.1, dim=8)
    <LiveLambda: run this cell, then press Play>
    """

    def __init__(self, lambd: float = 0.01, dim: int = 24, batch_size: int = 256):
        if not 1e-4 <= lambd <= 10 or dim not in DIMS or batch_size not in BATCHES:
            raise ValueError(
                f"The sliders have no lambd={lambd}, dim={dim}, batch_size={batch_size}. Choose lambd from 0.0001 to "
                f"10, dim from {DIMS} and batch_size from {BATCHES}."
            )
        self.start = {"lambd": lambd, "dim": dim, "batch": batch_size}

    def __repr__(self) -> str:
        return "<LiveLambda: run this cell, then press Play>"

    def _repr_html_(self) -> str:
        spec = {**self.start, "dims": DIMS, "batches": BATCHES, "colours": drawing.colour_table()}
        note = "Run this cell in Jupyter: then you can turn λ while a small encoder trains."
        code = playground.bundle("live") + asset("without_kernel.js")
        code += "startWithoutKernel(script.previousElementSibling);"
        return drawn_by_explorer("be-lx-panel", "live", spec, f"<em>{note}</em>", code)


def drawn_by_explorer(kind: str, name: str, spec: dict, note: str, code: str) -> str:
    """The HTML of an element that ``code`` fills by explorer.js; ``script`` in it is the script behind it."""
    script = f"(function (script) {{\n{EXPLORER}{code}\n}})(document.currentScript);"
    style = asset("explorer.css")
    return embed.element(f"be-lx {kind}", name, spec, note, style, script)
