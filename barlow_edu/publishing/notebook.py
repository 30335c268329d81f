"""A notebook of the course, read: its cells by their tags, the numbers of its exercises, its links.

Tags: ``exercise`` (a stub that the learner fills in), ``solution`` (one way to do it, folded), ``instructor`` (notes
for teachers) and ``setup``. An exercise and its solution carry the same number, ``metadata.barlow_edu.exercise``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import nbformat

from barlow_edu.storage.files import replacing

NUMBERED = "[0-9][0-9]_*.ipynb"
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)")


def paths(folder: Path) -> list[Path]:
    """The notebooks of a folder in order. Raises FileNotFoundError without any."""
    numbered = sorted(Path(folder).glob(NUMBERED))
    if not numbered:
        raise FileNotFoundError(f"No notebooks in {folder}. Run this in the repository's folder.")
    return numbered


def read(path: Path):
    """A notebook file, in version 4 of the format."""
    return nbformat.read(path, as_version=4)


def write(notebook, path: Path) -> None:
    """Write a notebook file, whole or not at all."""
    with replacing(path) as temporary:
        nbformat.write(notebook, temporary)


def tags(cell) -> set[str]:
    """The tags of a cell."""
    return set(cell.metadata.get("tags", []))


def tagged(notebook, tag: str) -> list:
    """The cells that bear a tag, in order."""
    return [cell for cell in notebook.cells if tag in tags(cell)]


def number(cell) -> str:
    """The number of an exercise or a solution, such as "4.2". Raises ValueError for a cell without one."""
    try:
        return cell.metadata["barlow_edu"]["exercise"]
    except KeyError:
        raise ValueError(
            f"A cell lacks its number, metadata.barlow_edu.exercise: {cell.source!r}"
        ) from None


def solutions(notebook) -> dict[str, str]:
    """Number of an exercise -> the source of its solution."""
    return {number(cell): cell.source for cell in tagged(notebook, "solution")}


def title(notebook) -> str:
    """The heading of the first cell."""
    return notebook.cells[0].source.splitlines()[0].lstrip("# ")


def relink(text: str, new: Callable[[str], str | None]) -> str:
    """Markdown with ``new(target)`` as the target of every link; of a link without a new target the words stay."""

    def link(old: re.Match) -> str:
        target = new(old[2])
        return f"[{old[1]}]({target})" if target else old[1]

    return LINK.sub(link, text)


def relink_all(notebook, new: Callable[[str], str | None]) -> None:
    """``relink`` in every Markdown cell, and in every output that is Markdown."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = relink(cell.source, new)
        for output in cell.get("outputs", []):
            shown = output.get("data", {})
            if "text/markdown" in shown:
                shown["text/markdown"] = relink(shown["text/markdown"], new)
