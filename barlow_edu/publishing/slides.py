"""Slides from a notebook, that open without a network: ``course slides NN``.

Nothing is written twice. Which cell becomes which slide follows from what the cells are already tagged and titled:

* the first cell is the title; ``##`` begins a slide, ``###`` one below it (reveal.js: arrow down);
* of the prose a slide keeps formulas, tables, lists, predictions and what to notice, and of other paragraphs the
  beginning; the whole text is in the speaker's notes (press S);
* a code cell with a picture is a slide with the picture, a sentence that leads to it, what was printed and what to
  notice; its code and all else that is said of it are in the notes. Other code cells are shown with their output;
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

from barlow_edu.publishing.html import image
from barlow_edu.publishing.notebook import paths, read, relink, tags
from barlow_edu.storage.files import write_text

HERE = Path(__file__).resolve().parent
LEFT_OUT = {"setup", "solution", "instructor", "exercise", "skip"}
NO_SLIDE = re.compile(r"#+ (Limits|References|Exercise solutions)", re.IGNORECASE)
FOLDED = re.compile(r"<details>.*?</details>", re.DOTALL)
UNDER_A_PICTURE = "**What to notice"
CARD = re.compile(r"\| \| \|.*\*\*Time\*\*", re.DOTALL)  # goals, prerequisites, minutes
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z*_`$])")
WHOLE = re.compile(
    r"[#|<>]|[*-] |1\. |\*\*(Predict|What to notice|Claim)|.*\$\$", re.DOTALL
)  # is not shortened
LONG, ROOM = 32, 95  # words of a paragraph that is kept whole; words on a slide
LEAD, FEW = 30, 12  # words above a picture; words that are no slide of their own
TOO_LONG = "<p>The table is in the notebook, and in the speaker's notes.</p>"


@dataclass
class Slide:
    """One slide: HTML of what is shown, Markdown of what is said; whether it stands below the one before."""

    shown: list[str]
    said: list[str] = field(default_factory=list)
    below: bool = False
    picture: bool = False  # that waits for what to notice
    lead: str = ""  # Markdown of a few words that the next picture takes over


def write_slides(notebook: Path, out: Path) -> tuple[Path, int]:
    """Write ``out/NN_title_slides.html`` and the files it needs; returns its path and the number of slides.

    Raises FileNotFoundError for no such notebook, ValueError for one without slides.
    """
    pages = slides(read(notebook))
    if not pages:
        raise ValueError(f"{notebook} has no cells that make slides.")
    target = Path(out) / f"{Path(notebook).stem}_slides.html"
    title = re.sub("<[^>]+>", "", pages[0].shown[0]).replace("¶", "").strip().splitlines()[0]
    page = (HERE / "slides.html").read_text(encoding="utf-8").replace("<!-- title -->", title)
    shutil.copytree(HERE / "vendor", target.parent / "slides_files", dirs_exist_ok=True)
    shutil.copy(HERE / "slides.css", target.parent / "slides_files" / "slides.css")
    write_text(target, page.replace("<!-- slides -->", "\n".join(_sections(pages))))
    return target, len(pages)


def find_notebook(name: str, folder: Path) -> Path:
    """The notebook of a number ("4", "04") or a path. Raises FileNotFoundError naming those there are."""
    if Path(name).is_file():
        return Path(name)
    numbered = {f.name[:2]: f for f in paths(folder)}
    if name.zfill(2) not in numbered:
        raise FileNotFoundError(f"No notebook {name!r}. There are {', '.join(numbered)}.")
    return numbered[name.zfill(2)]


def slides(notebook) -> list[Slide]:
    """The slides of a notebook, in order, by the rule above."""
    pages: list[Slide] = []
    dropped, section = False, ""  # within a section without slides; where we are
    hidden = False  # what is said belongs to the setup cell, which is not shown
    for cell in notebook.cells:
        marks = tags(cell)
        if marks & LEFT_OUT:
            hidden = "setup" in marks
        elif "notes" in marks and pages:
            pages[-1].said.append(cell.source)
        elif cell.cell_type == "code" and not dropped:
            new = _of_code(cell, section)
            if new[0].picture and pages and pages[-1].lead:
                before = pages.pop()
                new[0].shown.insert(1, f'<div class="lead">{_markdown(before.lead)}</div>')
                new[0].said = [*before.said, *new[0].said]
            pages += new
        elif cell.cell_type == "markdown":
            for part in re.split(r"^(?=#{2,3} )", cell.source, flags=re.MULTILINE):
                if part.startswith("#"):
                    dropped, hidden = bool(NO_SLIDE.match(part)), False
                    section = part.splitlines()[0].lstrip("# ")
                if dropped or not part.strip() or CARD.match(part):
                    continue
                if hidden and pages:
                    pages[-1].said.append(part)
                else:
                    below = "subslide" in marks or part.startswith("###")
                    pages += _of_prose(part, section, below, pages)
    return pages


def _of_prose(part: str, section: str, below: bool, before: list[Slide]) -> list[Slide]:
    """One slide for a part of a text, or several where it is long. What to notice goes under its picture."""
    text = relink(FOLDED.sub("", part), lambda to: None if ".ipynb" in to else to).strip()
    blocks = [_beginning(b) for b in _blocks(text) if not CARD.match(b)]
    own_words = bool(blocks) and re.match(re.escape(UNDER_A_PICTURE) + r"\S*\s+\S", blocks[0])
    if own_words and before and before[-1].picture:
        before[-1].shown.append(_markdown(_beginning(blocks.pop(0), always=True)))
        before[-1].said.append(part)
        before[-1].picture = False
        blocks = [b for b in blocks if WHOLE.match(b)]
    if not blocks:
        return []
    heading = blocks[0] if blocks[0].startswith("#") else ""
    kicker = [] if heading else [_kicker(section)]
    parts = _pages(blocks, heading)
    new = [Slide([*kicker, _markdown("\n\n".join(page))], below=True) for page in parts]
    new[0].below = below or not heading
    new[0].said.append(part)
    if len(new) == 1 and not heading and not any(map(WHOLE.match, blocks)):
        text = "\n\n".join(blocks)
        new[0].lead = text if len(text.split()) <= LEAD and "$$" not in text else ""
    return new


def _pages(blocks: list[str], heading: str) -> list[list[str]]:
    """Blocks of a text, shared out to slides; a few words, or what ends in a colon, stay with what follows."""
    pages: list[list[str]] = [[]]
    for block in blocks:
        room = _room(pages[-1])
        if room > FEW and room + _room([block]) > ROOM:
            last = pages[-1]
            led = [last.pop()] if last[-1].endswith(":") and _room(last[:-1]) > FEW else []
            pages.append(([heading] if heading else []) + led)
        pages[-1].append(block)
    return pages


def _of_code(cell, section: str) -> list[Slide]:
    """Slides of a code cell: one a picture, or one with its code; what came out besides is on the last."""
    pictures, results, said = _of_outputs(cell.get("outputs", []))
    top = _kicker(section)
    if not pictures:
        code = f"<pre><code>{html.escape(cell.source)}</code></pre>"
        return [Slide([top, code, *results], said, below=True)]
    new = [Slide([top, picture], below=True, picture=True) for picture in pictures]
    new[-1].shown += results
    new[0].said += [f"```python\n{cell.source}\n```", *said]
    return new


def _of_outputs(outputs) -> tuple[list[str], list[str], list[str]]:
    """HTML of pictures, and of text and short tables; Markdown of tables that are too long for a slide."""
    pictures, printed, tables, said = [], [], [], []
    for output in outputs:
        data = output.get("data", {})
        if "image/png" in data:
            alt = output.get("metadata", {}).get("image/png", {}).get("alt", "")
            pictures.append(image(data["image/png"], alt))
        elif 'class="be-predict"' in data.get("text/html", ""):
            tables.append(data["text/html"])
        elif "text/markdown" in data:
            text = data["text/markdown"]
            long = _room([text]) > ROOM
            tables.append(TOO_LONG if long else _markdown(text))
            said += [text] if long else []
        elif output.output_type == "stream" and output.name == "stdout":
            printed.append(output.text)
        elif set(data) == {"text/plain"}:  # not the text of a widget, such as a progress bar
            printed.append(data["text/plain"])
    text = "".join(printed).strip("\n")
    return pictures, [f'<pre class="output">{html.escape(text)}</pre>'] * bool(text) + tables, said


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
    if len(block.split()) <= LONG or WHOLE.match(block) and not always:
        return block
    first, *more = SENTENCE_END.split(block)
    for sentence in more:
        if len(f"{first} {sentence}".split()) > LONG:
            break
        first = f"{first} {sentence}"
    return first


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


def _sections(pages: list[Slide]) -> Iterator[str]:
    """HTML: stacks of slides, each with its notes."""
    stacks: list[str] = []
    for slide in pages:
        if not (slide.below and stacks):
            stacks.append("")
        notes = _markdown("\n".join(slide.said))
        aside = f'<aside class="notes">{notes}</aside>' if slide.said else ""
        stacks[-1] += f"<section>{''.join(slide.shown)}{aside}</section>\n"
    return (f"<section>{stack}</section>" for stack in stacks)
