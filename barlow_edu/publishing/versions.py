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
import symtable
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from barlow_edu.storage.files import replacing

KEPT_METADATA = ("kernelspec", "language_info")
CELL_METADATA_DROPPED = ("execution", "collapsed", "scrolled")
STUB = re.compile(r"^(?P<indent>[ \t]*)(?P<code>.*)\.\.\.\s*# your turn.*$", re.MULTILINE)
NOTES = "TEACHING_NOTES.md"
OUTSIDE = re.compile(r"(?<!!)\[([^\]]+)\]\(\.\./[^)\s]+\)")  # a link out of the folder of notebooks
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
BLOCKS = ("body", "handlers", "orelse", "finalbody")


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
            notebook,
            timeout=timeout,
            resources={"metadata": {"path": path.parent}},
            coalesce_streams=True,  # how print reaches us in pieces is chance
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
    task until it is done; outputs that depend on an exercise are cleared. instructor: everything is kept, the
    folded solutions are unfolded, and the teaching notes of all notebooks are put together in
    ``TEACHING_NOTES.md``. Returns the notebooks written. Raises FileExistsError if ``out`` holds a file of such a
    name (a learner's work is never overwritten), FileNotFoundError without notebooks.
    """
    import nbformat

    sources = sorted(Path(notebooks).glob("[0-9][0-9]_*.ipynb"))
    if not sources:
        raise FileNotFoundError(
            f"No notebooks in {notebooks}. Run this in the repository's folder."
        )
    out.mkdir(parents=True, exist_ok=True)
    written = [out / s.name for s in sources] + [out / NOTES] * (kind == "instructor")
    taken = [path.name for path in written if path.exists()]
    if taken:
        raise FileExistsError(
            f"{out} holds {taken[0]} already, perhaps with somebody's work. Choose another folder."
        )
    originals = [nbformat.read(source, as_version=4) for source in sources]
    if kind == "instructor":
        with replacing(out / NOTES) as temporary:
            temporary.write_text(teaching_notes(originals), encoding="utf-8")
    for source, notebook in zip(sources, originals, strict=True):
        notebook = {"student": student, "instructor": instructor}[kind](notebook)
        drop_links_outside(notebook)
        with replacing(out / source.name) as temporary:
            nbformat.write(notebook, temporary)
    for extra in ("images",):
        if (Path(notebooks) / extra).is_dir():
            shutil.copytree(Path(notebooks) / extra, out / extra, dirs_exist_ok=True)
    return written[: len(sources)]


def student(notebook):
    """The notebook as a learner gets it. Raises ValueError if an exercise has no stub or no number.

    What a solution does with the function after its check (a picture, a number for the paper's sizes) is put
    behind the check in the exercise, so that the learner gets it as a reward.
    """
    solutions = _solutions(notebook)
    unknown: set[str] = set()  # names that exist only once an exercise is done
    cells = []
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "solution" in tags or "instructor" in tags:
            continue
        if "exercise" in tags:
            number = _number(cell)
            unknown |= names(cell.source)[0] | names(solutions.get(number, ""))[0]
            cell.source = _open(cell.source, number) + _reward(solutions.get(number, ""))
        if cell.cell_type == "code":
            defined, used = names(cell.source)
            if "exercise" in tags or used & unknown:
                unknown |= defined
                cell.outputs, cell.execution_count = [], None
            else:
                unknown -= defined
        cells.append(cell)
    notebook.cells = cells
    return notebook


def instructor(notebook):
    """The notebook as a teacher gets it: everything, solutions unfolded."""
    for cell in notebook.cells:
        cell.metadata.get("jupyter", {}).pop("source_hidden", None)
    return notebook


def drop_links_outside(notebook) -> None:
    """Leave the words of links to files beside the folder of notebooks, which a build does not hold."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = OUTSIDE.sub(r"\1", cell.source)
        for output in cell.get("outputs", []):
            shown = output.get("data", {})
            if "text/markdown" in shown:
                shown["text/markdown"] = OUTSIDE.sub(r"\1", shown["text/markdown"])


def teaching_notes(notebooks) -> str:
    """The teaching notes of all notebooks as one Markdown text, under the notebooks' titles."""
    parts = ["# Teaching notes\n"]
    for notebook in notebooks:
        noted = [c.source for c in notebook.cells if "instructor" in c.metadata.get("tags", [])]
        title = notebook.cells[0].source.splitlines()[0].lstrip("# ")
        text = "\n\n".join(noted) or "None yet."
        parts.append(f"## {title}\n\n" + re.sub(r"^#+ Teaching notes\n+", "", text) + "\n")
    return "\n".join(parts)


def fill_in(student_notebook, notebook):
    """The student's notebook with the solutions of ``notebook`` written into its exercises."""
    solutions = _solutions(notebook)
    for cell in student_notebook.cells:
        if "exercise" in cell.metadata.get("tags", []):
            cell.source = solutions[_number(cell)]
    return student_notebook


def needed(notebook, wanted: Iterable[str]) -> list[str]:
    """Ids of the code cells that must run for the cells with the ids ``wanted``, in order, those included.

    Follows names backwards from cell to cell; cells tagged ``setup`` always belong to it.
    """
    wanted, names_wanted, found = set(wanted), set(), []
    for cell in reversed([c for c in notebook.cells if c.cell_type == "code"]):
        defined, used = names(cell.source)
        if cell.id in wanted or "setup" in cell.metadata.get("tags", []) or defined & names_wanted:
            names_wanted = (names_wanted - defined) | used
            found.insert(0, cell.id)
    return found


def names(source: str) -> tuple[set[str], set[str]]:
    """Names that a cell leaves to later cells, and names that it takes from earlier ones.

    Read statement by statement, so that a name which the cell itself makes first is not taken from elsewhere.
    """
    plain = "\n".join(x for x in source.splitlines() if not x.startswith(("%", "!")))
    defined: set[str] = set()
    used: set[str] = set()
    for statement in _statements(ast.parse(plain).body):
        made, taken = _names_of(ast.unparse(statement))
        if isinstance(statement, ast.Assign | ast.AugAssign | ast.AnnAssign):
            changed = _changed(statement)  # x += 1 and x[0] = 1 need an x, and leave another
            made, taken = made | changed, taken | changed
        used |= taken - defined
        defined |= made
    return defined, used


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The simple statements of a cell in order; of a block first its heading, then what is inside."""
    for statement in body:
        blocks = (
            [] if isinstance(statement, SCOPES) else [b for b in BLOCKS if hasattr(statement, b)]
        )
        inside = [(b, getattr(statement, b)) for b in blocks]
        for block, _ in inside:
            setattr(statement, block, [ast.Pass()] if block == "body" else [])
        if not isinstance(statement, ast.Try):
            yield statement
        for _, statements in inside:
            handlers = [s for s in statements if isinstance(s, ast.ExceptHandler)]
            yield from _statements([s for h in handlers for s in h.body] or statements)


def _changed(assignment: ast.Assign | ast.AugAssign | ast.AnnAssign) -> set[str]:
    """Names of the things that an assignment changes in place."""
    targets = getattr(assignment, "targets", None) or [assignment.target]
    places = [t for t in targets if not isinstance(t, ast.Name | ast.Tuple)]
    if isinstance(assignment, ast.AugAssign):
        places = targets
    inside = [n for place in places for n in ast.walk(place) if isinstance(n, ast.Name)]
    return {n.id for n in inside[:1]}


def _names_of(source: str) -> tuple[set[str], set[str]]:
    """Names that a piece of code defines at its top level, and those that it and its functions look up there."""
    top = symtable.symtable(source, "cell", "exec")
    symbols = top.get_symbols()
    defined = {s.get_name() for s in symbols if s.is_assigned() or s.is_imported()}
    used = {s.get_name() for s in symbols if s.is_referenced()}
    scopes = list(top.get_children())
    while scopes:
        scope = scopes.pop()
        scopes += scope.get_children()
        used |= {s.get_name() for s in scope.get_symbols() if s.is_global() and s.is_referenced()}
    return defined, used


def _solutions(notebook) -> dict[str, str]:
    """Number of an exercise -> the source of its solution."""
    return {
        _number(cell): cell.source
        for cell in notebook.cells
        if "solution" in cell.metadata.get("tags", [])
    }


def _number(cell) -> str:
    try:
        return cell.metadata["barlow_edu"]["exercise"]
    except KeyError:
        raise ValueError(
            f"A cell lacks its number, metadata.barlow_edu.exercise: {cell.source!r}"
        ) from None


def _open(source: str, number: str) -> str:
    """The stub of an exercise, raising its task until it is done."""
    if not STUB.search(source):
        raise ValueError(f"Exercise {number}: its cell has no line ending in '...  # your turn'.")
    functions = [
        n for n in ast.parse(source).body if isinstance(n, (ast.FunctionDef, ast.ClassDef))
    ]

    def task(found: re.Match) -> str:
        line = source.count("\n", 0, found.start()) + 1
        inside = [f for f in functions if f.lineno <= line <= f.end_lineno]
        what = _heading(inside[0]) if inside else found["code"].rstrip("= ") or "your answer"
        sentence = f"Exercise {number}: write {what} in place of this line."
        return f'{found["indent"]}raise NotImplementedError("{sentence}")'

    return STUB.sub(task, source)


def _heading(node: ast.FunctionDef | ast.ClassDef) -> str:
    """A function with its parameters, or a class, as one writes it in a sentence."""
    return f"{node.name}({ast.unparse(node.args)})" if hasattr(node, "args") else node.name


def _reward(solution: str) -> str:
    """What a solution does after its check, or nothing."""
    checked = [
        statement.end_lineno
        for statement in ast.parse(solution).body
        if isinstance(statement, ast.Expr) and ast.unparse(statement).startswith("checks.")
    ]
    rest = solution.splitlines()[checked[-1] :] if checked else []
    return "\n".join(["", *rest]) if rest else ""


def _normalise(notebook) -> None:
    """Leave only what a reader needs and what a rerun would write again."""
    notebook.metadata = {k: v for k, v in notebook.metadata.items() if k in KEPT_METADATA}
    notebook.metadata.get("language_info", {}).pop("version", None)
    for cell in notebook.cells:
        for key in CELL_METADATA_DROPPED:
            cell.metadata.pop(key, None)
