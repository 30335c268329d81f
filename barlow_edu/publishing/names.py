"""The names that cells leave to later ones, and take from earlier ones."""

import ast
import dis
from collections.abc import Iterator
from types import CodeType

STORES = ("STORE_NAME", "STORE_GLOBAL")
PARTS = (ast.Attribute, ast.Subscript)
LOADS = ("LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS")


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
        if isinstance(part, PARTS) and isinstance(part.ctx, ast.Store):
            while isinstance(part, PARTS):
                part = part.value
            defined |= {part.id} if isinstance(part, ast.Name) else set()
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


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        for child in ast.iter_child_nodes(node):
            yield from _outside_functions(child)
