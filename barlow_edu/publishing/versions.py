"""Versions of the course from the notebooks: executed, for students, for instructors.

The notebooks are the only source. A version only leaves out and replaces, so that it cannot drift from what the tests
run. Which tags the cells carry is said in ``notebook``.
"""

import ast
import os
import re
from collections.abc import Iterable
from pathlib import Path

from barlow_edu.publishing import copies
from barlow_edu.publishing import notebook as nb

METADATA = ("kernelspec", "language_info")  # of a notebook; all else goes
CELL_METADATA_DROPPED = ("execution", "collapsed", "scrolled")
STUB = re.compile(r"^(?P<indent>[ \t]*)(?P<code>.*)\.\.\.\s*# your turn.*$", re.MULTILINE)
NOTES = "TEACHING_NOTES.md"


def execute(path: Path) -> None:
    """Restart and run a notebook in the quick tier and store its outputs.

    If a cell fails it is left as it was, and the error is raised. Widget state and timestamps are not stored: they
    would change with every run.
    """
    from nbclient import NotebookClient

    os.environ.setdefault("BARLOW_EDU_TIER", "quick")
    notebook = nb.read(path)
    place = {"metadata": {"path": path.parent}}
    # One text a cell, since it is chance in how many pieces print reaches us.
    NotebookClient(notebook, timeout=600, resources=place, coalesce_streams=True).execute()
    _normalise(notebook)
    notebook.metadata["barlow_edu"] = {"run": nb.digest(notebook)}
    nb.write(notebook, path)


def build(kind: str, notebooks: Path, out: Path, keep: bool = False) -> list[Path]:
    """Write the "student" or "instructor" version of every notebook in ``notebooks``, and what goes with them.

    student: solutions and teaching notes are left out; every exercise raises NotImplementedError with its
    task until it is done; outputs that depend on an exercise or follow a prediction are cleared. instructor:
    everything is kept, the folded solutions are unfolded, and the teaching notes of all notebooks are put together in
    ``TEACHING_NOTES.md``.

    Returns the files written into ``out``, the notebooks first. A learner's work is never overwritten: raises
    FileExistsError if ``out`` holds a file of such a name, or with ``keep`` leaves it as it is. Raises
    FileNotFoundError without notebooks, ValueError for one that is not a full run. Then nothing is written.
    """
    notebooks, out = Path(notebooks).resolve(), Path(out).resolve()
    sources = {path.name: path for path in nb.paths(notebooks)}
    if out == notebooks or out.is_file():
        raise FileExistsError(f"{out} is a file, or the course itself. Choose another folder.")
    beside = copies.beside(kind, notebooks)
    if kind == "instructor":
        beside[NOTES] = teaching_notes(map(nb.read, sources.values())).encode()
    taken = [name for name in [*sources, *beside] if (out / name).exists()]
    if taken and not keep:
        there = f"{out} holds {taken[0]} already, perhaps with somebody's work"
        raise FileExistsError(f"{there}. Choose another folder.")
    version = {"student": student, "instructor": instructor}[kind]
    books = {n: version(nb.read_whole(p)) for n, p in sources.items() if n not in taken}
    for name, notebook in books.items():
        nb.relink_all(notebook, lambda to: None if to.startswith("../") else to)  # is left behind
        nb.write(notebook, out / name)
    rest = {name: content for name, content in beside.items() if name not in taken}
    copies.put(rest, out)
    return [out / name for name in [*books, *rest]]


def student(notebook):
    """The notebook as a learner gets it: no solution, and no result below a prediction or behind an exercise.

    Raises ValueError if an exercise has no stub or no number.

    What a solution does with the function after its check (a picture, a number for the paper's sizes) is put
    behind the check in the exercise, so that the learner gets it as a reward.
    """
    solved = nb.solutions(notebook)
    unknown: set[str] = set()  # names that exist only once an exercise is done
    notebook.cells = [c for c in notebook.cells if not nb.tags(c) & {"solution", "instructor"}]
    for cell in notebook.cells:
        exercise = "exercise" in nb.tags(cell)
        if exercise:
            solution = solved.get(nb.number(cell), "")
            unknown |= nb.names(cell.source)[0] | nb.names(solution)[0]
            if not nb.is_student(notebook):
                cell.source = _open(cell.source, nb.number(cell)) + _reward(solution)
        if cell.cell_type == "code":
            defined, used = nb.names(cell.source)
            undone = exercise or used & unknown
            unknown = unknown | defined if undone else unknown - defined
            if undone or "reveal" in nb.tags(cell):
                cell.outputs, cell.execution_count = [], None
    notebook.metadata["barlow_edu"] = {"version": "student"}
    return notebook


def instructor(notebook):
    """The notebook as a teacher gets it, its solutions unfolded. Raises ValueError for a student's version."""
    if nb.is_student(notebook):
        raise ValueError(
            "These are students' notebooks, without solutions and teaching notes, as the installed package has them. "
            "Work in a clone of the repository, or, for course instructor, name its notebooks: --notebooks FOLDER."
        )
    for cell in notebook.cells:
        cell.metadata.get("jupyter", {}).pop("source_hidden", None)
    return notebook


def teaching_notes(notebooks: Iterable) -> str:
    """The teaching notes of all notebooks as one Markdown text, under the notebooks' titles."""
    parts = ["# Teaching notes\n"]
    for notebook in notebooks:
        text = "\n\n".join(c.source for c in nb.tagged(notebook, "instructor")) or "None yet."
        text = re.sub(r"^#+ Teaching notes\n+", "", text)
        parts.append(f"## {nb.title(notebook)}\n\n{text}\n")
    return "\n".join(parts)


def _open(source: str, number: str) -> str:
    """The stub of an exercise, raising its task until it is done."""
    if not STUB.search(source):
        raise ValueError(f"Exercise {number}: its cell has no line ending in '...  # your turn'.")
    kinds = (ast.FunctionDef, ast.ClassDef)
    parts = [n for n in ast.parse(source).body if isinstance(n, kinds)]

    def task(stub: re.Match) -> str:
        line = source.count("\n", 0, stub.start()) + 1
        around = [part for part in parts if part.lineno <= line <= part.end_lineno]
        what = _heading(around[0]) if around else stub["code"].rstrip("= ") or "your answer"
        sentence = f"Exercise {number}: write {what} in place of this line."
        return f'{stub["indent"]}raise NotImplementedError("{sentence}")'

    return STUB.sub(task, source)


def _heading(node: ast.FunctionDef | ast.ClassDef) -> str:
    """A function with its parameters, or a class, as one writes it in a sentence."""
    return f"{node.name}({ast.unparse(node.args)})" if hasattr(node, "args") else node.name


def _reward(solution: str) -> str:
    """What a solution does after its check, or nothing."""
    checked = nb.checks_in(solution)
    rest = solution.splitlines()[checked[-1].end_lineno :] if checked else []
    return "\n".join(["", *rest]) if rest else ""


def _normalise(notebook) -> None:
    """Leave only what a reader needs and what a rerun would write again."""
    notebook.metadata = {k: v for k, v in notebook.metadata.items() if k in METADATA}
    notebook.metadata.get("language_info", {}).pop("version", None)
    for cell in notebook.cells:
        for key in CELL_METADATA_DROPPED:
            cell.metadata.pop(key, None)
        if "reveal" in nb.tags(cell):  # JupyterLab shows it as soon as the learner runs the cell
            cell.metadata["jupyter"] = {**cell.metadata.get("jupyter", {}), "outputs_hidden": True}
        nb.name_figures(cell)
