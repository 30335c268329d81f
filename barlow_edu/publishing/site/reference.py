"""The reference of the package, from its docstrings: a page for every room, which is a module or a folder."""

import ast
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import barlow_edu
from barlow_edu.publishing.html import TEXTS, Markdown, fenced, table, toctree

PACKAGE = Path(barlow_edu.__file__).parent


def pages() -> dict[str, str]:
    """Name -> Markdown of a page for every room of the package that has anything public, and of their index."""
    sentences: dict[str, str] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        kinds = (ast.FunctionDef, ast.ClassDef)
        if any(isinstance(n, kinds) and not n.name.startswith("_") for n in tree.body):
            sentences[name] = first_sentence(ast.get_docstring(tree) or "")
    content = {room: f"# {room}\n" for room in map(_room, sentences)}
    for name in sentences:
        heading = f"## {name}\n\n" if name != _room(name) else ""
        module = f".. automodule:: barlow_edu.{name}\n   :members:"
        content[_room(name)] += f"\n{heading}{fenced(module, '{eval-rst}')}\n"
    content["index"] = _index(sentences, content)
    return {f"api/{room}": text for room, text in content.items()}


def _room(module: str) -> str:
    """The page of a module: that of its folder; the checkers have their own."""
    return "checks" if module.startswith("teaching.checks") else module.partition(".")[0]


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


def _index(sentences: Mapping[str, str], rooms: Iterable[str]) -> str:
    """The first page: the names of the package, and the modules, each with its sentence."""
    homes: dict[str, list[str]] = {}
    for name, target in barlow_edu._HOMES.items():
        link = linked(f"barlow_edu.{name}").replace("`barlow_edu.", "`", 1)
        homes.setdefault(target.split(".", 1)[1].rpartition(".")[0], []).append(link)
    names = [[_page(home), Markdown(", ".join(links))] for home, links in homes.items()]
    rows = [[_page(name), Markdown(s.replace("|", "&#124;"))] for name, s in sentences.items()]
    parts = ["# Reference of the package", TEXTS["reference"], table(("from", "names"), names)]
    parts += ["## All modules", table(("module", "what lives there"), rows)]
    return "\n\n".join([*parts, toctree(rooms), ""])


def _page(module: str) -> Markdown:
    return Markdown(f"[{module}]({_room(module)}.md)")
