"""The playground: Barlow Twins trains in the browser, in one HTML file that needs no kernel and no network.

The modules beside this file are plain JavaScript; ``bundle`` joins them into one script, since a browser does not
load modules from a file on disk. Pictures, words and script all travel in the page.
"""

import base64
import html
import json
import re
import zlib
from importlib import resources
from pathlib import Path
from string import Template
from urllib.parse import urlencode

import numpy as np

from barlow_edu.storage.files import write_text
from barlow_edu.storage.garments import place
from barlow_edu.storage.places import data_dir
from barlow_edu.teaching.embed import asset
from barlow_edu.teaching.figures.drawing import colour_table

SIZE, TRAIN, TEST, SEED = 24, 3000, 500, 0
NAME, FRAME = "playground.html", '<iframe src="playground.html'
IMPORT = re.compile(r'^import \{([^}]*)\} from "\./(\w+)\.js";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async )?(?:function|class|const|let) (\w+))", re.MULTILINE)


def bundle(name: str) -> str:
    """The module ``name`` with all that it imports, as one script: each module a function that returns its exports.

    >>> bundle("random").splitlines()[0]
    'const random = (() => {'
    """
    parts: dict[str, str] = {}

    def take(module: str) -> None:
        """Add a module behind all that it imports."""
        text = asset(f"playground/{module}.js")
        for _, other in IMPORT.findall(text):
            if other not in parts:
                take(other)
        exports = ", ".join(EXPORT.findall(text))
        body = EXPORT.sub("", IMPORT.sub(r"const {\1} = \2;\n", text))
        parts[module] = f"const {module} = (() => {{\n{body}return {{ {exports} }};\n}})();\n"

    take(name)
    return "".join(parts.values())


def images(train: int = TRAIN, test: int = TEST) -> bytes:
    """Garments as images.js reads them: size and counts, labels, colours, and how much of each pixel is garment."""
    with np.load(data_dir() / "garments.npz") as stored:
        photos = np.concatenate([stored["train_images"][:train], stored["test_images"][:test]])
        labels = np.concatenate([stored["train_labels"][:train], stored["test_labels"][:test]])
    alpha, factors = place(photos, np.random.RandomState(SEED), SIZE)
    colours = np.hstack([factors[key] for key in ("tint", "background", "corners")])
    head = np.array([SIZE, train, test], "<u2").tobytes()
    parts = [labels.astype(np.uint8), colours.astype(np.uint8), alpha]
    return zlib.compress(head + b"".join(part.tobytes() for part in parts), 9)


def page() -> str:
    """The whole page: an HTML text of 1.2 MB that needs nothing else."""
    files = resources.files(__package__).joinpath("words").iterdir()
    given = {
        "words": {Path(f.name).stem: json.loads(f.read_text(encoding="utf-8")) for f in files},
        "colours": colour_table(),
        "images": base64.b64encode(images()).decode(),
        "script": bundle("worker") + "worker.serve(self);\n",
    }
    # A "</script>" within the data would end the script.
    data = json.dumps(given, ensure_ascii=False).replace("</", "<\\/")
    script = f'{bundle("page")}page.start(document.getElementById("playground"), {data});'
    parts = {"title": given["words"]["en"]["title"], "style": asset("playground/page.css")}
    return Template(asset("playground/page.html")).substitute(parts, script=script)


def write(path: str | Path = NAME) -> Path:
    """Write the page to ``path``. Returns where it is."""
    path = Path(path)
    write_text(path, page())
    return path


def write_beside(site: Path) -> None:
    """Write the page into a site, and let frames in the site's notebooks find it there."""
    write(site / NAME)
    for path in (site / "notebooks").glob("*.html"):
        text = path.read_text(encoding="utf-8")
        if FRAME in text:  # which is beside its notebook, but one folder above a notebook's page
            path.write_text(re.sub(rf'="{NAME}', f'="../{NAME}', text), encoding="utf-8")


class Playground:
    """The page in a frame of a notebook. What the notebook stores is the frame alone, not the page."""

    def __init__(self, settings: str, height: int):
        self.settings, self.height = settings, height

    def __repr__(self) -> str:
        return f"<Playground: open {NAME} in a browser>"

    def _repr_html_(self) -> str:
        state = html.escape(self.settings)
        return (
            f'{FRAME}{state}" title="Barlow Twins playground" width="100%" height="{self.height}" '
            f'style="border: 0" allow="clipboard-write"></iframe><p><a href="{NAME}{state}" '
            'target="_blank" style="color: inherit">The playground on a page of its own</a></p>'
        )


def playground(height: int = 760, **settings) -> Playground:
    """The playground in a notebook: Barlow Twins trains in the browser, whatever the kernel does.

    Writes ``playground.html`` beside the notebook, and shows it in a frame of ``height`` pixels. ``settings`` are
    what the page's address may hold, such as ``dim=64`` or ``story="collapse"``; λ is ``**{"lambda": 0}``.

    >>> playground(story="collapse").settings
    '#story=collapse'
    """
    write()
    return Playground(f"#{urlencode(settings)}" if settings else "", height)
