"""The reference of the package: a page for every module, from its docstrings."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path

import barlow_edu

PACKAGE = Path(barlow_edu.__file__).parent
LEAVE_OUT = ("__init__", "__main__")
TOP = """
Names that stand in `barlow_edu` itself, as in `import barlow_edu as be`, and the modules that they come from. The
page of a module has what else lives there.
"""
CHECKS = """
What `from barlow_edu import checks` has: one function for every exercise, to be called with your answer. It raises
nothing: it prints what is right, or what went wrong and where.
"""


def write_api(folder: Path) -> list[str]:
    """Write a page for every module that has anything public; returns their names."""
    folder.mkdir(parents=True)
    told = {}
    for name, path in _modules().items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        kinds = (ast.FunctionDef, ast.ClassDef)
        public = [n for n in tree.body if isinstance(n, kinds) and not n.name.startswith("_")]
        if name in LEAVE_OUT or not public:
            continue
        told[name] = first_sentence(ast.get_docstring(tree) or "")
        text = f"# {name}\n\n{_automodule(name, '')}\n"
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
    told = dict(sorted({**told, "checks": "The checkers of the exercises."}.items()))
    (folder / "checks.md").write_text(_checks(), encoding="utf-8")
    (folder / "index.md").write_text(_index(told), encoding="utf-8")
    return list(told)


def linked(name: str) -> str:
    """A name of the package as Markdown, with a link to its place in the reference where it has one."""
    last = name.removeprefix("barlow_edu.")
    if last == name or last not in barlow_edu.__all__:
        return f"`{name}`"
    return f"{{py:obj}}`{name} <{getattr(barlow_edu, last).__module__}.{last}>`"


def first_sentence(docstring: str) -> str:
    """The first sentence of a docstring, in one line."""
    found = re.split(r"(?<=\.)\s|\n\n", docstring.strip())[0]
    return " ".join(found.split()).rstrip(":")


def _modules() -> dict[str, Path]:
    """Name -> file of the modules, and of the packages that are used as one."""
    found = {path.stem: path for path in PACKAGE.glob("*.py")}
    return dict(sorted({**found, "experiments": PACKAGE / "experiments" / "__init__.py"}.items()))


def _automodule(name: str, members: str) -> str:
    return f"```{{eval-rst}}\n.. automodule:: barlow_edu.{name}\n   :members: {members}\n```"


def _checks() -> str:
    """The page of the checkers: those of each module of ``checks``."""
    from importlib import import_module

    parts = ["# checks", CHECKS.strip()]
    for path in sorted((PACKAGE / "checks").glob("[!_]*.py")):
        names = getattr(import_module(f"barlow_edu.teaching.checks.{path.stem}"), "CHECKERS", ())
        if names:
            parts.append(_automodule(f"checks.{path.stem}", ", ".join(names)))
    return "\n\n".join(parts) + "\n"


def _index(told: Mapping[str, str]) -> str:
    """The first page: the names of the package, and the modules, each with its sentence."""
    names = ["| from | names |", "|---|---|"]
    for home, some in barlow_edu._HOMES.items():
        there = ", ".join(
            linked(f"barlow_edu.{name}").replace("`barlow_edu.", "`", 1) for name in some
        )
        names.append(f"| [{home}]({home}.md) | {there} |")
    rows = ["| module | what lives there |", "|---|---|"]
    rows += [f"| [{n}]({n}.md) | {line.replace('|', '&#124;')} |" for n, line in told.items()]
    toc = "\n".join(["```{toctree}", ":hidden:", "", *told, "```"])
    parts = ["# Reference of the package", TOP.strip(), "\n".join(names), "## All modules"]
    return "\n\n".join([*parts, "\n".join(rows), toc]) + "\n"
