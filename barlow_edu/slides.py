"""Slides from a notebook, that open without a network: ``course slides NN``.

Nothing is written twice. Which cell becomes which slide follows from what the cells are already tagged and titled:

* the first cell is the title; ``##`` begins a slide, ``###`` one below it (reveal.js: arrow down);
* of the prose a slide keeps formulas, tables, lists, predictions and what to notice, and of other paragraphs the
  beginning; the whole text is in the speaker's notes (press S);
* a code cell with a picture is a slide with the picture and what was printed; its code is in the notes. Other code
  cells are shown with their output;
* ``setup``, ``solution`` and ``instructor`` cells, hints, answers, limits and references are left out. An exercise is
  shown as a task.

A cell tagged ``slide``, ``subslide``, ``notes`` or ``skip`` is what its tag says instead.
"""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from barlow_edu.files import replacing

HERE = Path(__file__).resolve().parent
LEFT_OUT = {"setup", "solution", "instructor", "exercise", "skip"}
NO_SLIDE = re.compile(r"#+ (Limits|References|Exercise solutions)", re.IGNORECASE)
FOLDED = re.compile(r"<details>.*?</details>", re.DOTALL)
UNDER_A_PICTURE = "**What to notice"
NOTEBOOK_LINK = re.compile(r"\[([^\]]+)\]\([^)]*\.ipynb[^)]*\)")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z*_`$])")
KEPT_WHOLE = ("#", "|", "* ", "- ", "1. ", "$$", "**Predict", "**What to notice", "**Claim", ">")
LONG, ROOM = 32, 95  # words of a paragraph that is kept whole; words on a slide
ASSETS = (
    "reveal/reveal.css",
    "katex/katex.min.css",
    "reveal/reveal.js",
    "reveal/notes.js",
    "katex/katex.min.js",
    "katex/auto-render.min.js",
)

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="slides_files/reveal/reveal.css">
<link rel="stylesheet" href="slides_files/katex/katex.min.css">
<link rel="stylesheet" href="slides_files/slides.css">
</head>
<body>
<div class="reveal"><div class="slides">
{slides}
</div></div>
<script src="slides_files/reveal/reveal.js"></script>
<script src="slides_files/reveal/notes.js"></script>
<script src="slides_files/katex/katex.min.js"></script>
<script src="slides_files/katex/auto-render.min.js"></script>
<script>
renderMathInElement(document.querySelector(".slides"), {{
  delimiters: [{{left: "$$", right: "$$", display: true}}, {{left: "$", right: "$", display: false}}],
  throwOnError: false
}});
Reveal.initialize({{
  hash: true, slideNumber: "c/t", center: false, width: 1100, height: 700, margin: 0.05,
  transition: "none", plugins: [RevealNotes]
}});
</script>
</body>
</html>
"""


@dataclass
class Slide:
    """One slide: HTML of what is shown, Markdown of what is said; whether it stands below the one before."""

    shown: list[str]
    said: list[str] = field(default_factory=list)
    below: bool = False
    picture: bool = False  # that waits for what to notice


def write_slides(notebook: Path, out: Path) -> tuple[Path, int]:
    """Write ``out/NN_title_slides.html`` and the files it needs; returns its path and the number of slides.

    Raises FileNotFoundError for no such notebook, ValueError for one without slides.
    """
    import nbformat

    made = slides(nbformat.read(notebook, as_version=4))
    if not made:
        raise ValueError(f"{notebook} has no cells that make slides.")
    target = Path(out) / f"{Path(notebook).stem}_slides.html"
    title = re.sub("<[^>]+>", "", made[0].shown[0]).replace("¶", "").strip().splitlines()[0]
    page = PAGE.format(title=title, slides="\n".join(_sections(made)))
    shutil.copytree(HERE / "vendor", target.parent / "slides_files", dirs_exist_ok=True)
    shutil.copy(HERE / "slides.css", target.parent / "slides_files" / "slides.css")
    with replacing(target) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return target, len(made)


def find_notebook(name: str, folder: Path) -> Path:
    """The notebook of a number ("4", "04") or a path. Raises FileNotFoundError naming those there are."""
    if Path(name).is_file():
        return Path(name)
    found = [
        f for f in folder.glob("*.ipynb") if name.isdigit() and f.name[:3] == f"{int(name):02}_"
    ]
    if not found:
        known = ", ".join(sorted(f.name[:2] for f in folder.glob("[0-9][0-9]_*.ipynb")))
        raise FileNotFoundError(f"No notebook {name!r}. There are {known}.")
    return found[0]


def slides(notebook) -> list[Slide]:
    """The slides of a notebook, in order, by the rule above."""
    made: list[Slide] = []
    dropped, section = False, ""  # within a section without slides; where we are
    for cell in notebook.cells:
        tags = set(cell.metadata.get("tags", []))
        if tags & LEFT_OUT:
            continue
        if "notes" in tags and made:
            made[-1].said.append(cell.source)
        elif cell.cell_type == "code" and not dropped:
            made.append(_of_code(cell, section))
        elif cell.cell_type == "markdown":
            for part in re.split(r"^(?=#{2,3} )", cell.source, flags=re.MULTILINE):
                if part.startswith("#"):
                    dropped = bool(NO_SLIDE.match(part))
                    section = part.splitlines()[0].lstrip("# ")
                if dropped or not part.strip() or part.startswith("| | |"):
                    continue
                made += _of_prose(part, section, "subslide" in tags or part.startswith("###"), made)
    return made


def _of_prose(part: str, section: str, below: bool, before: list[Slide]) -> list[Slide]:
    """One slide for a part of a text, or several where it is long. What to notice goes under its picture."""
    text = NOTEBOOK_LINK.sub(r"\1", FOLDED.sub("", part)).strip()
    blocks = [_beginning(b) for b in _blocks(text) if not b.startswith("| | |")]
    if blocks and blocks[0].startswith(UNDER_A_PICTURE) and before and before[-1].picture:
        before[-1].shown.append(_markdown(_beginning(blocks.pop(0), always=True)))
        before[-1].said.append(part)
        before[-1].picture = False
    if not blocks:
        return []
    heading = blocks[0] if blocks[0].startswith("#") else ""
    pages: list[list[str]] = [[]]
    for block in blocks:
        if pages[-1] and _room(pages[-1]) + _room([block]) > ROOM and pages[-1] != [heading]:
            pages.append([heading] if heading else [])
        pages[-1].append(block)
    kicker = [] if heading else [_kicker(section)]
    made = [Slide([*kicker, _markdown("\n\n".join(page))], below=True) for page in pages]
    made[0].below = below or not heading
    made[0].said.append(part)
    return made


def _of_code(cell, section: str) -> Slide:
    """A slide for a code cell: its picture, or its code; and what it printed."""
    pictures, printed = [], []
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if "image/png" in data:
            alt = output.get("metadata", {}).get("image/png", {}).get("alt", "")
            source = data["image/png"].replace("\n", "")
            pictures.append(f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{source}">')
        elif output.output_type == "stream" and output.name == "stdout":
            printed.append(output.text)
        elif "text/plain" in data and "text/html" not in data:
            printed.append(data["text/plain"])
    text = "".join(printed).strip("\n")
    result = [f'<pre class="output">{html.escape(text)}</pre>'] if text else []
    if pictures:
        said = [f"```python\n{cell.source}\n```"]
        return Slide([_kicker(section), *pictures, *result], said, below=True, picture=True)
    code = f"<pre><code>{html.escape(cell.source)}</code></pre>"
    return Slide([_kicker(section), code, *result], below=True)


def _kicker(section: str) -> str:
    """The section that a slide without a heading belongs to."""
    return f'<p class="kicker">{html.escape(section)}</p>'


def _blocks(text: str) -> Iterator[str]:
    """Paragraphs, lists, tables, fenced code and displayed formulas of a text; each whole."""
    pieces: list[str] = []
    for piece in re.split(r"\n\s*\n", text):
        pieces.append(piece)
        joined = "\n\n".join(pieces)
        if joined.count("$$") % 2 == 0 and joined.count("```") % 2 == 0:
            # a heading right above its text is a block of its own
            if joined.startswith("#") and "\n" in joined:
                first, joined = joined.split("\n", 1)
                yield first
            yield joined.strip()
            pieces = []
    if pieces:
        yield "\n\n".join(pieces)


def _beginning(block: str, always: bool = False) -> str:
    """A block as it stands, or the first sentences of a long paragraph (always: of whatever is long)."""
    kept_whole = not always and (block.startswith(KEPT_WHOLE) or "$$" in block)
    if kept_whole or len(block.split()) <= LONG:
        return block
    kept: list[str] = []
    for sentence in SENTENCE_END.split(block):
        if kept and len(" ".join([*kept, sentence]).split()) > LONG:
            break
        kept.append(sentence)
    return " ".join(kept)


def _room(blocks: list[str]) -> float:
    """Words that blocks take up; a formula or a row of a table takes as much as a line."""
    return sum(
        len(re.sub(r"\$\$.*?\$\$", "", b, flags=re.DOTALL).split())
        + 12 * b.count("$$")
        + 4 * b.count("\n")
        for b in blocks
        if not b.startswith("#")
    )


def _markdown(text: str) -> str:
    from nbconvert.filters import markdown2html

    return str(markdown2html(text))


def _sections(made: list[Slide]) -> Iterator[str]:
    """HTML: stacks of slides, each with its notes."""
    stacks: list[list[Slide]] = []
    for slide in made:
        if slide.below and stacks:
            stacks[-1].append(slide)
        else:
            stacks.append([slide])
    for stack in stacks:
        inside = "\n".join(f"<section>{''.join(s.shown)}{_notes(s)}</section>" for s in stack)
        yield f"<section>{inside}</section>"


def _notes(slide: Slide) -> str:
    if not slide.said:
        return ""
    return f'<aside class="notes">{_markdown(chr(10).join(slide.said))}</aside>'
