"""The notebooks as pages: the stored outputs, with what a page needs in place of what JupyterLab needs.

Figures get their alt text in the HTML itself and stand in the page as data, so that films and the lambda explorer
can read them where no server is. A player looks for its picture within its own output, so both become one output.
Solutions are folded. Teaching notes have a page of their own.
"""

from __future__ import annotations

import html
import re
from collections.abc import Collection
from pathlib import Path

from barlow_edu.publishing.site import gallery

WIDGET = "application/vnd.jupyter.widget-view+json"
LABEL = "Figure: "
LIVE = "<p><em>This panel trains while you slide. It needs a running notebook.</em></p>"
PLAYER = re.compile(r'class="be-film"|class="be-lx be-lx-player"')
# What stands only in a checkout: its text stays, the link goes. Recorded runs have pages.
OUTSIDE = re.compile(r"\[([^\]]*)\]\((?:\.\./(?!runs/)|EXAM_ANSWERS)[^)]*\)")
RECORD = re.compile(r"\]\(\.\./data/runs/([\w/]*\w)/?\)")


def write_notebooks(source: Path, folder: Path) -> list[str]:
    """Write the pages of all notebooks; returns their names in order. Raises FileNotFoundError without any."""
    import nbformat

    paths = sorted(source.glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise FileNotFoundError(f"No notebooks in {source}.")
    folder.mkdir(parents=True)
    known = {path.name for path in paths} | records()
    for path in paths:
        notebook = page(nbformat.read(path, as_version=4), known)
        nbformat.write(notebook, folder / path.name)
    return [path.stem for path in paths]


def page(notebook, known: set[str]):
    """The notebook as its page shows it; ``known``: file names that links may lead to."""
    kept = [c for c in notebook.cells if "instructor" not in c.metadata.get("tags", [])]
    for cell in kept:
        if cell.cell_type == "markdown":
            cell.source = links(cell.source, known)
            continue
        if "solution" in cell.metadata.get("tags", []):
            cell.metadata["tags"] = [*cell.metadata["tags"], "hide-cell"]
            cell.metadata["mystnb"] = {"code_prompt_show": "Show a solution"}
        cell.outputs = joined([made for output in cell.outputs for made in outputs(output, known)])
    notebook.cells = kept
    return notebook


def links(text: str, known: Collection[str]) -> str:
    """Markdown without links to what is not on the site."""

    def keep(found: re.Match) -> str:
        target = found[2].partition("#")[0]
        return found[0] if target in known or re.match(r"https?:|#|mailto:", found[2]) else found[1]

    text = RECORD.sub(lambda found: f"](../runs/{found[1].replace('/', '-')}.md)", text)
    text = OUTSIDE.sub(r"\1", text)
    return re.sub(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)", keep, text)


def records() -> set[str]:
    """The pages of the recorded runs, as links from a notebook's page."""
    return {f"../runs/{page}.md" for page in gallery.pages()}


def outputs(output, known: Collection[str] = ()) -> list:
    """What a page shows for one stored output: nothing, the output, or HTML in its place."""
    data = output.get("data", {})
    if data.get("text/plain", "").startswith(LABEL) or set(data) == {WIDGET, "text/plain"}:
        return []  # the label repeats the alt text; the widget stands for a player that is there, too
    if WIDGET in data:
        output["data"] = {"text/html": LIVE, "text/plain": data["text/plain"]}
    elif "image/png" in data:
        look = output.get("metadata", {}).get("image/png", {})
        picture = image(data["image/png"], look.get("alt", ""), look.get("width"))
        output["data"] = {"text/html": picture, "text/plain": data["text/plain"]}
        output["metadata"] = {}
    elif "text/markdown" in data:  # which Sphinx does not search for the names of pages
        text = links(data["text/markdown"], known)
        output["data"]["text/markdown"] = re.sub(
            r"(\.\./runs/[\w-]+|\w+)\.(md|ipynb)\)", r"\1.html)", text
        )
    return [output]


def joined(found: list) -> list:
    """The outputs of a cell, each player in one output with the picture that stands before it."""
    made = []
    for output in found:
        player = output.get("data", {}).get("text/html", "")
        before = made[-1].get("data", {}).get("text/html", "") if made else ""
        if PLAYER.search(player) and before.startswith("<img"):
            made[-1]["data"]["text/html"] = before + player
        else:
            made.append(output)
    return made


def image(png: str, alt: str, width: int | None) -> str:
    """A picture, given as base64, as HTML."""
    size = f' width="{width}"' if width else ""
    data = png.replace("\n", "")
    return f'<img class="dark-light" alt="{html.escape(alt)}"{size} src="data:image/png;base64,{data}">'
