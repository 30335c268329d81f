"""The notebooks as pages: the stored outputs, with what a page needs in place of what JupyterLab needs.

Figures get their alt text in the HTML itself and stand in the page as data, so that films and the lambda explorer
can read them where no server is. A player looks for its picture within its own output, so both become one output.
Solutions are folded. Teaching notes have a page of their own.
"""

import re
from collections.abc import Collection, Iterable
from functools import partial
from pathlib import Path

from barlow_edu.publishing.html import image
from barlow_edu.publishing.notebook import paths, read_whole, relink_all, tags, write
from barlow_edu.publishing.site import gallery
from barlow_edu.publishing.versions import instructor

WIDGET = "application/vnd.jupyter.widget-view+json"
LABEL = "Figure: "
FOLDED = {
    "solution": ("hide-cell", "Show a solution"),
    "reveal": ("hide-output", "Show the result"),
}
PLAYER = re.compile(r'class="be-film"|class="be-lx be-lx-player"')


def write_notebooks(source: Path, folder: Path) -> list[str]:
    """Write the pages of all notebooks; returns their names in order.

    Raises FileNotFoundError without any, ValueError for one that is not a full run, or is a student's.
    """
    files = paths(source)
    known = {path.name for path in files} | records()
    folder.mkdir(parents=True)
    for path in files:
        write(page(instructor(read_whole(path)), known), folder / path.name)
    return [path.stem for path in files]


def page(notebook, known: set[str]):
    """The notebook as its page shows it; ``known``: file names that links may lead to."""
    notebook.cells = [c for c in notebook.cells if "instructor" not in tags(c)]
    relink_all(notebook, partial(on_site, known))
    for cell in notebook.cells:
        for tag in tags(cell) & set(FOLDED):
            hide, says = FOLDED[tag]
            cell.metadata["tags"] = [*cell.metadata["tags"], hide]
            cell.metadata["mystnb"] = {"code_prompt_show": says}
        if cell.cell_type == "code":
            cell.outputs = shown(cell.outputs)
    return notebook


def on_site(known: Collection[str], target: str) -> str | None:
    """Where a link of a notebook leads on the site: to one of the pages ``known``, elsewhere, or nowhere (None)."""
    if record := re.fullmatch(r"\.\./data/runs/(.+?)/?", target):
        target = f"../runs/{gallery.page_name(record[1])}.md"
    there = target.partition("#")[0] in known
    return target if there or re.match(r"https?:|#|mailto:", target) else None


def records() -> set[str]:
    """The pages of the recorded runs, as links from a notebook's page."""
    return {f"../runs/{gallery.page_name(name)}.md" for name in gallery.records()}


def shown(outputs: Iterable) -> list:
    """What a page shows for the stored outputs of a cell; a player is in one output with the picture before it."""
    on_page = []
    for output in outputs:
        data = output.get("data", {})
        plain = data.get("text/plain", "")
        if plain.startswith(LABEL) or set(data) == {WIDGET, "text/plain"}:
            continue  # the label repeats the alt text; the widget stands for a player that is there, too
        if WIDGET in data:  # which comes with HTML that needs no kernel
            output["data"] = {"text/html": data["text/html"], "text/plain": plain}
        elif "image/png" in data:
            look = output.get("metadata", {}).get("image/png", {})
            picture = image(data["image/png"], look.get("alt", ""), look.get("width"))
            output["data"], output["metadata"] = {"text/html": picture, "text/plain": plain}, {}
        elif "text/markdown" in data:  # which Sphinx does not search for the names of pages
            pages = r"(\.\./runs/[\w-]+|\w+)\.(md|ipynb)\)"
            data["text/markdown"] = re.sub(pages, r"\1.html)", data["text/markdown"])
        player = output.get("data", {}).get("text/html", "")
        before = on_page[-1].get("data", {}).get("text/html", "") if on_page else ""
        if PLAYER.search(player) and before.startswith("<img"):
            on_page[-1]["data"]["text/html"] = before + player
        else:
            on_page.append(output)
    return on_page
