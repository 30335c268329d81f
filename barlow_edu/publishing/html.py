"""What stands on a page: pictures as HTML, values as Markdown that cannot become anything else.

Whatever comes from a file (a note, a name, a setting) passes through ``text``, ``code`` or ``fenced`` on its way into
a page, and ``table`` sends every cell through ``text``. No other place escapes.
"""

import base64
import html
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template

import yaml

# Longer texts of the site, and what it calls the keys of recorded files.
TEXTS = yaml.safe_load(Path(__file__).with_name("texts.yaml").read_text(encoding="utf-8"))


class Markdown(str):
    """A text that goes into a page as it is: it was written here, or escaped."""


def text(value: object) -> Markdown:
    """A value as Markdown that shows its characters and does nothing; ``Markdown`` stays as it is.

    >>> text("<b> *x*")
    '&#60;b&#62; &#42;x&#42;'
    """
    if isinstance(value, Markdown):
        return value
    plain = " ".join(str(value).split())
    return Markdown(re.sub(r"[^\w .,:;?!%=+/()-]|_", lambda c: f"&#{ord(c[0])};", plain))


def code(value: object) -> Markdown:
    """A value as code within a line, also within a table: its backticks and bars are replaced."""
    return Markdown("`" + " ".join(str(value).split()).replace("`", "'").replace("|", "¦") + "`")


def fenced(content: str, kind: str) -> str:
    """A block of Markdown between fences that are longer than any within it; ``kind`` is ``yaml``, ``{raw} html``."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", content)), default=0))
    return f"{fence}{kind}\n{content}\n{fence}"


def raw(content: str) -> str:
    """HTML within Markdown, in a box of its own in which players find their picture."""
    return fenced(f'<div class="cell_output">\n{content}\n</div>', "{raw} html")


def page_part(part: str) -> str:
    """A part of a page as HTML, where Sphinx does not make the page."""
    from nbconvert.filters import markdown2html

    first, _, rest = part.partition("\n")
    return rest.rpartition("\n")[0] if first.endswith("{raw} html") else str(markdown2html(part))


def toctree(pages: Iterable[str], caption: str = "") -> str:
    """Sphinx's list of the pages below a page, hidden: the menu shows it."""
    head = [":hidden:", *([f":caption: {caption}"] if caption else []), ""]
    return fenced("\n".join([*head, *pages]), "{toctree}")


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(map(text, cells))} |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def image(png: bytes | str, alt: str, width: int | None = None) -> str:
    """A PNG, its bytes or their base64, as HTML; ``width`` in pixels of the page."""
    data = base64.b64encode(png).decode() if isinstance(png, bytes) else png.replace("\n", "")
    size = f' width="{width}"' if width else ""
    source = f"data:image/png;base64,{data}"
    return f'<img class="dark-light" alt="{html.escape(alt)}"{size} src="{source}">'


def filled(template: str, **values: object) -> str:
    """A template that stands beside this file, such as ``report.html``, with a value for every ``$name`` in it."""
    text = Path(__file__).with_name(template).read_text(encoding="utf-8")
    return Template(text).substitute(values)
