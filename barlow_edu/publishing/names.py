"""Which cell needs which: the names that cells leave to later ones, and take from earlier ones."""

import ast
import dis
from collections.abc import Iterable, Iterator
from types import CodeType

from barlow_edu.publishing.notebook import tags

STORES = ("STORE_NAME", "STORE_GLOBAL")
LOADS = ("LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS")


def needed(notebook, wanted: Iterable[str]) -> list[str]:
    """Ids of the code cells that must run for the cells with the ids ``wanted``, in order, those included.

    Follows names backwards from cell to cell; cells tagged ``setup`` always belong to it.
    """
    wanted, wanted_names, ids = set(wanted), set(), []
    for cell in reversed([c for c in notebook.cells if c.cell_type == "code"]):
        defined, used = names(cell.source)
        if cell.id in wanted or "setup" in tags(cell) or defined & wanted_names:
            wanted_names = (wanted_names - defined) | used
            ids.insert(0, cell.id)
    return ids


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
    for part in _outside_functions(tree):  # x[0] = 1 and x.a = 1 take an x, and leave another
        if isinstance(part, ast.Attribute | ast.Subscript) and isinstance(part.ctx, ast.Store):
            defined.update([n.id for n in ast.walk(part) if isinstance(n, ast.Name)][:1])
    return defined, used


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


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        for child in ast.iter_child_nodes(node):
            yield from _outside_functions(child)
