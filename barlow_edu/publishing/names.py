"""Which cell needs which: the names that cells leave to later ones, and take from earlier ones."""

import ast
import symtable
from collections.abc import Iterable, Iterator

from barlow_edu.publishing.notebook import tags

SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
BLOCKS = ("body", "handlers", "orelse", "finalbody")


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

    Read statement by statement, so that a name which the cell itself makes first is not taken from elsewhere.

    >>> defined, used = names("x = 1\\nprint(x, y)")
    >>> sorted(defined), sorted(used)
    (['x'], ['print', 'y'])
    """
    plain = "\n".join(x for x in source.splitlines() if not x.startswith(("%", "!")))
    defined: set[str] = set()
    used: set[str] = set()
    for statement in _statements(ast.parse(plain).body):
        leaves, takes = _names_of(ast.unparse(statement))
        if isinstance(statement, ast.Assign | ast.AugAssign | ast.AnnAssign):
            changed = _changed(statement)  # x += 1 and x[0] = 1 need an x, and leave another
            leaves, takes = leaves | changed, takes | changed
        used |= takes - defined
        defined |= leaves
    return defined, used


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The simple statements of a cell in order; of a block first its heading, then what is inside."""
    for statement in body:
        blocks = [] if isinstance(statement, SCOPES) else BLOCKS
        inside = [(b, getattr(statement, b)) for b in blocks if hasattr(statement, b)]
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
