"""A notebook of the course, read: its cells by their tags, their names, the numbers of its exercises, its links.

Tags: ``exercise`` (a stub that the learner fills in), ``solution`` (one way to do it, folded), ``instructor`` (notes
for teachers), ``setup``, ``predict`` (a question) and ``reveal`` (its result, out of sight until the cell is run). An
exercise and its solution carry the same number, ``metadata.barlow_edu.exercise``.
"""

import ast
import dis
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from types import CodeType

import nbformat

from barlow_edu.storage.files import replacing

NUMBERED = "[0-9][0-9]_*.ipynb"
STORES = ("STORE_NAME", "STORE_GLOBAL")
LOADS = ("LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS")
PARTS = (ast.Attribute, ast.Subscript)
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


def is_student(notebook) -> bool:
    """Whether this is a student's version, which has no solutions."""
    return notebook.metadata.get("barlow_edu", {}).get("version") == "student"


def digest(notebook) -> str:
    """A fingerprint of the code, by which ``course run`` marks what it ran."""
    code = "\0".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def read_whole(path: Path):
    """``read``, of a notebook whose outputs are those of one whole run of its code, or which is a student's.

    Raises ValueError, with what to do, for one that was run in part or in another order, that stopped at an error, or
    whose code has changed since ``course run``: JupyterLab saves such states by itself.
    """
    notebook = read(path)
    code = [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]
    mark = notebook.metadata.get("barlow_edu", {}).get("run")
    faults = {
        "stopped at an error": any(o.output_type == "error" for c in code for o in c.outputs),
        "was not run as a whole, from top to bottom":
            [c.execution_count for c in code] != list(range(1, len(code) + 1)),
        "has changed since it was run": mark not in (None, digest(notebook)),
    }  # fmt: skip
    for fault in (fault for fault, seen in faults.items() if seen and not is_student(notebook)):
        raise ValueError(
            f"{path} {fault}. Run it: python -m barlow_edu course run {path} (or take back what was saved: "
            f"git restore {path})."
        )
    return notebook


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


def checks_in(source: str) -> list[ast.Expr]:
    """The statements of a cell that call a checker."""
    statements = [s for s in ast.parse(source).body if isinstance(s, ast.Expr)]
    return [s for s in statements if ast.unparse(s).startswith("checks.")]


def solutions(notebook) -> dict[str, str]:
    """Number of an exercise -> the source of its solution."""
    return {number(cell): cell.source for cell in tagged(notebook, "solution")}


def name_figures(cell) -> None:
    """Write the alt texts that the cell's metadata hold (``barlow_edu.alt``, a text or a list) into its figures.

    Raises ValueError if there are more or fewer of them than figures.
    """
    texts = cell.metadata.get("barlow_edu", {}).get("alt", [])
    texts = [texts] if isinstance(texts, str) else texts
    figures = [o for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    if texts and len(texts) != len(figures):
        raise ValueError(f"{len(texts)} alt texts for {len(figures)} figures: {cell.source!r}")
    for text, figure in zip(texts, figures, strict=False):
        figure.metadata.setdefault("image/png", {})["alt"] = text


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


def names(source: str) -> tuple[set[str], set[str]]:
    """Names that a cell leaves to later cells, and names that it takes from earlier ones.

    A name that the cell itself makes first is not taken from elsewhere.

    >>> defined, used = names("x = 1\\nprint(x, y)")
    >>> sorted(defined), sorted(used)
    (['x'], ['print', 'y'])
    """
    plain = "\n".join(x for x in source.splitlines() if not x.startswith(("%", "!")))
    tree = ast.parse(plain)
    defined, used = _names_of(compile(tree, "cell", "exec"))
    for part in ast.walk(tree):  # x[0] = 1 and x.a = 1 take an x, and leave another
        if isinstance(part, PARTS) and isinstance(part.ctx, ast.Store):
            while isinstance(part, PARTS):
                part = part.value
            defined |= {getattr(part, "id", "")} & used  # a function's own are not in there
    return defined, used - {"__name__"}  # which every class reads


def _names_of(code: CodeType) -> tuple[set[str], set[str]]:
    """``names`` of compiled code, whose instructions stand in the order in which Python reads and writes names."""
    defined: set[str] = set()
    used: set[str] = set()
    for step in dis.get_instructions(code):
        name = step.argval
        if step.opname in STORES:
            defined.add(name)
        elif step.opname == "DELETE_NAME":  # also that of an exception, behind its handler
            defined.discard(name)
        elif step.opname in LOADS:
            used |= {name} - defined
        elif isinstance(name, CodeType):  # a function or a class looks its names up later
            used |= _names_of(name)[1] - defined
    return defined, used
