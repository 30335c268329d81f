"""Every wrong answer that the tests give to the exercise checkers, and the diagnosis it gets, as a Markdown table.

The answers are those of the tests: each ``test_checks_*.py`` holds RIGHT and WRONG, which map a checker's name
to answers, and what is printed is what the checker says today. Run: ``python tests/helpers/checker_table.py``.
"""

import ast
import contextlib
import functools
import importlib.util
import inspect
import io
import sys
import textwrap
from pathlib import Path
from types import ModuleType

from barlow_edu.teaching import checks

HERE = Path(__file__).parents[1] / "teaching" / "checks"
LONGEST = 110  # characters of an answer's code in the table


def modules() -> list[ModuleType]:
    """The test modules of the checkers, one a notebook."""
    paths = sorted(HERE.glob("test_*.py"))
    return [_load(p) for p in paths if p.stem not in ("test_base", "test_registry")]


@functools.cache
def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"checks_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answers(kind: str) -> dict[str, list]:
    """Checker's name -> the "RIGHT" or the "WRONG" answers that the tests give it."""
    found: dict[str, list] = {}
    for module in modules():
        for name, given in getattr(module, kind, {}).items():
            found.setdefault(name, []).extend(getattr(given, "values", lambda g=given: g)())
    return found


@functools.cache  # some answers take a while, and the tests ask more than once
def diagnosis(name: str, answer) -> str:
    """What the checker says to a wrong answer. Raises ValueError if it accepts it."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            getattr(checks, name)(answer)
    except checks.NotRight as told:
        return str(told)
    raise ValueError(f"{name} accepts this answer: {as_code(answer)}")


def as_code(answer) -> str:
    """The code of an answer in one line: of a lambda its body, of a function its name and its last line."""
    if not inspect.isfunction(answer):
        return getattr(answer, "__name__", repr(answer))
    if answer.__name__ != "<lambda>":
        body = ast.parse(textwrap.dedent(inspect.getsource(answer))).body[0].body[-1]
        return f"{answer.__name__}: {ast.unparse(body)}"
    line, column = min((p[0], p[2]) for p in answer.__code__.co_positions() if p[1] and p[2])
    tree = ast.parse(Path(answer.__code__.co_filename).read_text(encoding="utf-8"))
    holders = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Lambda)
        and (node.body.lineno, node.body.col_offset) <= (line, column)
        and (line, column) <= (node.end_lineno, node.end_col_offset)
    ]
    return ast.unparse(max(holders, key=lambda node: (node.lineno, node.col_offset)).body)


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def code_cell(text: str) -> str:
    return f"`{textwrap.shorten(cell(text), LONGEST, placeholder=' ...')}`"


def table() -> list[str]:
    """The table, line by line, with the counts of each checker after it."""
    right, wrong = answers("RIGHT"), answers("WRONG")
    lines = ["| checker | a wrong answer | what the learner is told |", "|---|---|---|"]
    for name, given in wrong.items():
        lines += [
            f"| `{name}` | {code_cell(as_code(a))} | {cell(diagnosis(name, a))} |" for a in given
        ]
    lines += [
        "",
        "| checker | right answers | wrong answers | different diagnoses |",
        "|---|---|---|---|",
    ]
    for name, given in wrong.items():
        told = {diagnosis(name, a) for a in given}
        lines.append(f"| `{name}` | {len(right.get(name, []))} | {len(given)} | {len(told)} |")
    total = sum(map(len, wrong.values()))
    return [*lines, "", f"{len(wrong)} checkers, {total} wrong answers."]


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")
    print("\n".join(table()))
