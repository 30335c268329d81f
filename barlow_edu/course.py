"""Builds of the course from the notebooks: executing them, student and instructor versions."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from barlow_edu.files import replacing

KEPT_METADATA = ("kernelspec", "language_info")
CELL_METADATA_DROPPED = ("execution", "collapsed", "scrolled")


def execute(paths: Iterable[str | Path], timeout: int = 600) -> dict[str, float]:
    """Restart and run notebooks in the quick tier and store their outputs; returns minutes by name.

    A notebook whose cell fails is left as it was, and the error is raised. Widget state and timestamps are not
    stored: they would change with every run.
    """
    import time

    import nbformat
    from nbclient import NotebookClient

    os.environ.setdefault("BARLOW_EDU_TIER", "quick")
    minutes = {}
    for path in map(Path, paths):
        notebook = nbformat.read(path, as_version=4)
        begin = time.perf_counter()
        client = NotebookClient(
            notebook, timeout=timeout, resources={"metadata": {"path": path.parent}}
        )
        client.execute()
        minutes[path.stem] = (time.perf_counter() - begin) / 60
        _normalise(notebook)
        with replacing(path) as temporary:
            nbformat.write(notebook, temporary)
    return minutes


def _normalise(notebook) -> None:
    """Leave only what a reader needs and what a rerun would write again."""
    notebook.metadata = {k: v for k, v in notebook.metadata.items() if k in KEPT_METADATA}
    notebook.metadata.get("language_info", {}).pop("version", None)
    for cell in notebook.cells:
        for key in CELL_METADATA_DROPPED:
            cell.metadata.pop(key, None)
