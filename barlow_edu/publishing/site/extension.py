"""A Sphinx extension: docstrings of plain prose, as autodoc needs them."""

import re

LIST = re.compile(r"^\s*([*-]|\d+\.) ")
MARKUP = re.compile(r"``.+?``|:\w+:`[^`]+`|([*|`\\]|_(?=\W|$))")  # code, or one character of prose
FIELD = re.compile(r"^(\w+): ")


def setup(app) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", plain_docstring)
    app.connect("autodoc-skip-member", skip_field)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def plain_docstring(app, what, name, obj, options, lines: list[str]) -> None:
    """Make reStructuredText of prose: examples and tables by spaces stay as they are, lines that begin with a name
    are a list, and a lone star is a star.
    """
    blocks = re.split(r"\n(?:\s*\n)+", "\n".join(lines).strip("\n"))
    lines[:] = []
    for block in (b.split("\n") for b in blocks):
        indented = [i for i, line in enumerate(block) if line.startswith(" ")]
        if block[0].startswith(">>>"):
            lines += [*block, ""]
        elif indented and not LIST.match(block[0]):
            prose, table = block[: indented[0]], block[indented[0] :]
            lines += [*map(escaped, prose), "", "::", "", *("    " + x for x in table), ""]
        elif len(block) > 1 and all(map(FIELD.match, block)):
            lines += [*(FIELD.sub(r"* ``\1``: ", escaped(line)) for line in block), ""]
        else:
            lines += [*map(escaped, block), ""]


def escaped(line: str) -> str:
    """A line of prose whose stars, bars and lone backticks mean themselves; ``code`` stays code."""
    bullet = LIST.match(line)
    start = bullet.end() if bullet else 0
    return line[:start] + MARKUP.sub(lambda m: f"\\{m[1]}" if m[1] else m[0], line[start:])


def skip_field(app, what, name, obj, skip, options) -> bool | None:
    """Leave out a NamedTuple's fields and ``forward``, of which only Python and torch say something."""
    docstring = getattr(obj, "__doc__", "") or ""
    return True if name == "forward" or docstring.startswith("Alias for field number") else None
