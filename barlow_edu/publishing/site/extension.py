"""A Sphinx extension: formulas for KaTeX, and docstrings of plain prose.

The formulas are set by ``site.js`` in the browser, with the KaTeX that comes with the site. KaTeX also writes MathML,
which screen readers speak.
"""

from __future__ import annotations

import html
import re

from docutils import nodes

LIST = re.compile(r"^\s*([*-]|\d+\.) ")
FIELD = re.compile(r"^(\w+): ")


def setup(app) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_html_math_renderer("katex", (inline_math, None), (block_math, None))
    app.connect("autodoc-process-docstring", plain_docstring)
    app.connect("autodoc-skip-member", skip_field)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def inline_math(writer, node) -> None:
    """A formula within a line."""
    _formula(writer, node, "span")


def block_math(writer, node) -> None:
    """A formula of its own."""
    _formula(writer, node, "div")


def _formula(writer, node, tag: str) -> None:
    text = html.escape(node.astext())
    display = ' tabindex="0" role="group" aria-label="formula"' if tag == "div" else ""
    writer.body.append(f'<{tag} class="be-math"{display}>{text}</{tag}>')
    raise nodes.SkipNode


def plain_docstring(app, what, name, obj, options, lines: list[str]) -> None:
    """Make reStructuredText of prose: tables by spaces stay as they are, lines that begin with a name are a list, and
    a lone star is a star.
    """
    blocks: list[list[str]] = [[]]
    for line in [*lines, ""]:
        if line.strip():
            blocks[-1].append(line)
        elif blocks[-1]:
            blocks.append([])
    lines[:] = []
    for block in filter(None, blocks):
        if any(line.startswith(" ") for line in block) and not LIST.match(block[0]):
            indented = next(i for i, line in enumerate(block) if line.startswith(" "))
            prose, table = block[:indented], block[indented:]
            lines += [*map(escaped, prose), "", "::", "", *("    " + x for x in table), ""]
        elif len(block) > 1 and all(map(FIELD.match, block)):
            lines += [*(FIELD.sub(r"* ``\1``: ", escaped(line)) for line in block), ""]
        else:
            lines += [*map(escaped, block), ""]


def escaped(line: str) -> str:
    """A line of prose whose stars, bars and lone backticks mean themselves; ``code`` stays code."""
    parts = re.split(r"(``.+?``|:\w+:`[^`]+`)", line)
    bullet = LIST.match(parts[0])
    start = bullet.end() if bullet else 0
    for i in range(0, len(parts), 2):
        head, tail = (parts[i][:start], parts[i][start:]) if i == 0 else ("", parts[i])
        parts[i] = head + re.sub(r"([*|`\\]|_(?=\W|$))", r"\\\1", tail)
    return "".join(parts)


def skip_field(app, what, name, obj, skip, options) -> bool | None:
    """Leave out a NamedTuple's fields and ``forward``, of which only Python and torch say something."""
    told = getattr(obj, "__doc__", "") or ""
    return True if name == "forward" or told.startswith("Alias for field number") else None
