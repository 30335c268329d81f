"""Builds of the course from the notebooks: executing them, student and instructor versions.

The notebooks are the only source. Their cells carry tags: ``exercise`` (a stub that the learner fills in),
``solution`` (one way to do it, folded) and ``instructor`` (notes for teachers). The builds only leave out
and replace, so that they cannot drift from what the tests run.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from barlow_edu.files import replacing

KEPT_METADATA = ("kernelspec", "language_info")
CELL_METADATA_DROPPED = ("execution", "collapsed", "scrolled")
STUB = re.compile(r"^(?P<indent>\s*).*\.\.\.\s*# your turn.*$", re.MULTILINE)
TITLE = re.compile(r"^#+ (Exercise \d+\.\d+: .*)$", re.MULTILINE)


def execute(paths: Iterable[str | Path], timeout: int = 600) -> dict[str, float]:
    """Restart and run notebooks in the quick tier and store their outputs; returns minutes by name.

    A notebook whose cell fails is left as it was, and the error is raised. Widget state and timestamps are not
    stored: they would change with every run.
    """
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


def build(kind: str, notebooks: Path, out: Path) -> list[Path]:
    """Write the "student" or "instructor" version of every notebook in ``notebooks`` to ``out``.

    student: solutions and teaching notes are left out; every exercise raises NotImplementedError with its
    title until it is done; outputs that depend on an exercise are cleared. instructor: everything is kept
    and the folded solutions are unfolded. Returns the files written. Raises FileExistsError if ``out`` holds
    a notebook of that name (a learner's work is never overwritten), FileNotFoundError without notebooks.
    """
    import nbformat

    sources = sorted(Path(notebooks).glob("[0-9][0-9]_*.ipynb"))
    if not sources:
        raise FileNotFoundError(
            f"No notebooks in {notebooks}. Run this in the repository's folder."
        )
    out.mkdir(parents=True, exist_ok=True)
    taken = [s.name for s in sources if (out / s.name).exists()]
    if taken:
        raise FileExistsError(
            f"{out} holds {taken[0]} already, perhaps with somebody's work. Choose another folder."
        )
    for source in sources:
        notebook = nbformat.read(source, as_version=4)
        notebook = {"student": student, "instructor": instructor}[kind](notebook)
        with replacing(out / source.name) as temporary:
            nbformat.write(notebook, temporary)
    for extra in ("images",):
        if (Path(notebooks) / extra).is_dir():
            shutil.copytree(Path(notebooks) / extra, out / extra, dirs_exist_ok=True)
    return [out / s.name for s in sources]


def student(notebook):
    """The notebook as a learner gets it. Raises ValueError if an exercise has no stub or no title."""
    title = "the exercise"
    unknown: set[str] = set()  # names that exist only once an exercise is done
    cells = []
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "solution" in tags:
            unknown |= _names(cell.source)[0]
            continue
        if "instructor" in tags:
            continue
        if cell.cell_type == "markdown":
            found = TITLE.findall(cell.source)
            title = found[-1] if found else title
        elif "exercise" in tags:
            cell.source = _open(cell.source, title)
            unknown |= _names(cell.source)[0]
        if cell.cell_type == "code":
            defined, used = _names(cell.source)
            if "exercise" in tags or used & unknown:
                unknown |= defined
                cell.outputs, cell.execution_count = [], None
        cells.append(cell)
    notebook.cells = cells
    return notebook


def instructor(notebook):
    """The notebook as a teacher gets it: everything, solutions unfolded."""
    for cell in notebook.cells:
        cell.metadata.get("jupyter", {}).pop("source_hidden", None)
    return notebook


def fill_in(student_notebook, notebook):
    """The student's notebook with the solutions of ``notebook`` written into its exercises."""
    solutions = {
        cell.metadata["barlow_edu"]["exercise"]: cell.source
        for cell in notebook.cells
        if "solution" in cell.metadata.get("tags", [])
    }
    for cell in student_notebook.cells:
        if "exercise" in cell.metadata.get("tags", []):
            cell.source = solutions[cell.metadata["barlow_edu"]["exercise"]]
    return student_notebook


def _open(source: str, title: str) -> str:
    """The stub of an exercise, raising until it is done."""
    if not STUB.search(source):
        raise ValueError(f"{title}: its cell has no line ending in '...  # your turn'.")
    call = f'raise NotImplementedError("{title.rstrip(".")}. Write it here.")'
    return STUB.sub(lambda line: f"{line['indent']}{call}", source)


def _names(source: str) -> tuple[set[str], set[str]]:
    """Names that a cell defines at its top level, and all names that it uses."""
    tree = ast.parse("\n".join(x for x in source.splitlines() if not x.startswith(("%", "!"))))
    used, defined = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else defined).add(node.id)
    defined |= {n.name for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    return defined, used


def _normalise(notebook) -> None:
    """Leave only what a reader needs and what a rerun would write again."""
    notebook.metadata = {k: v for k, v in notebook.metadata.items() if k in KEPT_METADATA}
    notebook.metadata.get("language_info", {}).pop("version", None)
    for cell in notebook.cells:
        for key in CELL_METADATA_DROPPED:
            cell.metadata.pop(key, None)
