"""The reference of the package, from its docstrings: a page for every room, which is a module or a folder."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path

import barlow_edu
from barlow_edu.publishing.html import Markdown, table, toctree
from barlow_edu.storage.files import write_text

PACKAGE = Path(barlow_edu.__file__).parent
LEAVE_OUT = ("__init__", "__main__")
CHECKS = "teaching.checks"  # its modules share a page
TOP = """
Names that stand in `barlow_edu` itself, as in `import barlow_edu as be`, and the modules that they come from. The
page of a module, or of its folder, has what else lives there.
"""
INTRO_TO_CHECKS = """
What `from barlow_edu import checks` has: one function for every exercise, to be called with your answer. It raises
nothing: it prints what is right, or what went wrong and where.
"""


def write_api(folder: Path) -> list[str]:
    """Write a page for every room of the package that has anything public; returns the names of the modules."""
    sentences: dict[str, str] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        kinds = (ast.FunctionDef, ast.ClassDef)
        public = any(isinstance(n, kinds) and not n.name.startswith("_") for n in tree.body)
        if public and name not in LEAVE_OUT and not name.startswith(CHECKS):
            sentences[name] = first_sentence(ast.get_docstring(tree) or "")
    pages = {room: f"# {room}\n" for room in map(_room, sentences)}
    for name in sorted(sentences):
        heading = f"## {name}\n\n" if "." in name else ""
        pages[_room(name)] += f"\n{heading}{_automodule(name)}\n"
    for room, content in {**pages, "checks": _checks()}.items():
        write_text(folder / f"{room}.md", content)
    write_text(folder / "index.md", _index(sentences, [*pages, "checks"]))
    return sorted(sentences)


def _room(module: str) -> str:
    return module.partition(".")[0]


def linked(name: str) -> str:
    """A name of the package as Markdown, with a link to its place in the reference where it has one."""
    last = name.removeprefix("barlow_edu.")
    if last == name or last not in barlow_edu.__all__:
        return f"`{name}`"
    return f"{{py:obj}}`{name} <{getattr(barlow_edu, last).__module__}.{last}>`"


def first_sentence(docstring: str) -> str:
    """The first sentence of a docstring, in one line."""
    sentence = re.split(r"(?<=\.)\s|\n\n", docstring.strip())[0]
    return " ".join(sentence.split()).rstrip(":")


def _automodule(name: str, members: str = "") -> str:
    return f"```{{eval-rst}}\n.. automodule:: barlow_edu.{name}\n   :members: {members}\n```"


def _checks() -> str:
    """The page of the checkers: those of each module of ``checks``."""
    parts = ["# checks", INTRO_TO_CHECKS.strip()]
    for path in sorted((PACKAGE / CHECKS.replace(".", "/")).glob("[!_]*.py")):
        name = f"{CHECKS}.{path.stem}"
        members = getattr(import_module(f"barlow_edu.{name}"), "CHECKERS", ())
        if members:
            parts.append(_automodule(name, ", ".join(members)))
    return "\n\n".join([*parts, ""])


def _index(sentences: Mapping[str, str], pages: Iterable[str]) -> str:
    """The first page: the names of the package, and the modules, each with its sentence."""
    names = []
    for home, some in barlow_edu._HOMES.items():
        links = [linked(f"barlow_edu.{n}").replace("`barlow_edu.", "`", 1) for n in some]
        names.append([_page(home), Markdown(", ".join(links))])
    rows = [[_page(name), Markdown(s.replace("|", "&#124;"))] for name, s in sentences.items()]
    rows.append([_page("checks"), "The checkers of the exercises."])
    parts = ["# Reference of the package", TOP.strip(), table(("from", "names"), names)]
    parts += ["## All modules", table(("module", "what lives there"), rows)]
    return "\n\n".join([*parts, toctree(pages), ""])


def _page(module: str) -> Markdown:
    return Markdown(f"[{module}]({_room(module)}.md)")
