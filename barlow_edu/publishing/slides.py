"""Slides from a notebook, that open without a network: ``course slides NN``.

Nothing is written twice. What the cells are tagged and titled says which of them become slides, one after another, so
that the arrow to the right is enough:

* the first cell is the title; every heading begins a slide with the beginning of its text. Formulas, tables, lists
  and what to notice are not cut; what does not fit is in the speaker's notes (press S);
* a picture is a slide with the few words that lead to it, what was printed, and what to notice; code is in the notes;
* a prediction is a slide, and so is code without a picture, with what came out;
* ``setup``, ``solution`` and ``instructor`` cells, hints, answers, limits and references are left out. An exercise is
  shown as a task;
* there are at most 25. Where a notebook has more, the code goes into the notes of the slide before, then the lower
  headings, then pictures and revealed results, of each kind first those of which least is said.

A cell tagged ``notes`` or ``skip`` is what its tag says instead.
"""

import html
import re
import shutil
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

from barlow_edu.publishing.html import image, page_part
from barlow_edu.publishing.notebook import paths, read, relink, tags
from barlow_edu.storage.files import write_text

HERE = Path(__file__).resolve().parent
MOST = 25  # slides of a notebook
STAYS, PICTURE, LOWER, CODE = range(4)  # how readily a slide goes into the notes of another
LEFT_OUT = {"setup", "solution", "instructor", "exercise", "skip"}
NO_SLIDE = re.compile(r"#+ (Limits|References|Exercise solutions)", re.IGNORECASE)
FOLDED = re.compile(r"<details>.*?</details>", re.DOTALL)
NOTICE = re.compile(r"\*\*What to notice\S*\s+\S")
CARD = re.compile(r"\| \| \|.*\*\*Time\*\*", re.DOTALL)  # goals, prerequisites, minutes
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z*_`$])")
WHOLE = re.compile(r"[#|<>]|[*-] |1\. |\*\*(What to notice|Claim)|.*\$\$", re.DOTALL)  # is not cut
# Paragraphs, lists and tables, code and formulas whole, and a heading also right above its text.
BLOCK = re.compile(r"^#[^\n]*|(?:\$\$.*?\$\$|```.*?```|(?!\n\s*\n).)+", re.DOTALL | re.MULTILINE)
LONG, ROOM, LEAD = 32, 95, 30  # words of a paragraph, on a slide, and above a picture
NO_GUESS = "You have not committed to a guess. "  # as nobody had when the notebook was run
TOO_LONG = "<p>The table is in the notebook, and in the speaker's notes.</p>"


@dataclass(eq=False)
class Slide:
    """One slide: HTML of what is shown, Markdown of what is said, and how readily it goes into another's notes."""

    shown: list[str]
    said: list[str] = field(default_factory=list)
    kind: int = STAYS
    heading: str = ""  # Markdown of a slide that begins with one
    lead: str = ""  # Markdown of a few words that the next picture takes over
    waits: bool = False  # a picture, for what to notice


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
    write_text(target, page.replace("<!-- slides -->", "\n".join(map(_section, pages))))
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
    for cell in notebook.cells:
        marks = tags(cell)
        if marks & LEFT_OUT or (cell.cell_type == "code" and dropped):
            continue
        if "notes" in marks and pages:
            pages[-1].said.append(cell.source)
        elif cell.cell_type == "code":
            new = _of_code(cell, section)
            if pages and (new[0].waits or "predict" in marks):
                _lead(pages, new[0])
            pages += new
        elif cell.cell_type == "markdown":
            for part in re.split(r"^(?=#{2,3} )", cell.source, flags=re.MULTILINE):
                if part.startswith("#"):
                    dropped = bool(NO_SLIDE.match(part))
                    section = part.splitlines()[0].lstrip("# ")
                if not dropped and part.strip():
                    pages += _of_prose(part, pages)
    return _shortened(pages)


def _of_prose(part: str, before: list[Slide]) -> list[Slide]:
    """A slide, if the text has a heading or none is before it; else notes, of which what to notice is shown."""
    text = relink(FOLDED.sub("", part), lambda to: None if ".ipynb" in to else to).strip()
    blocks = [_beginning(b.strip()) for b in BLOCK.findall(text) or [text] if not CARD.match(b)]
    if not blocks:
        return []
    if blocks[0].startswith("#") or not before:
        kind = LOWER if blocks[0].startswith("###") else STAYS
        text = "\n\n".join(_fitting(blocks))
        return [Slide([page_part(text)], [part], kind, heading=text)]
    last = before[-1]
    last.said.append(part)
    if last.waits and NOTICE.match(blocks[0]):
        last.shown.append(page_part(_beginning(blocks.pop(0), always=True)))
        last.waits = False
    text = "\n\n".join(blocks)
    last.lead = text if len(text.split()) <= LEAD and "$$" not in text else ""
    return []


def _lead(pages: list[Slide], slide: Slide) -> None:
    """Put the few words before a picture or a prediction on top of it, also where they are a slide with a heading."""
    last = pages[-1]
    if last.lead:
        slide.shown.insert(1, f'<div class="lead">{page_part(last.lead)}</div>')
        last.lead = ""
    if last.heading and len(pages) > 1 and _room([last.heading]) <= (LEAD if slide.waits else ROOM):
        slide.shown[0], slide.said = last.shown[0], last.said + slide.said
        slide.kind = min(last.kind, slide.kind)
        pages.pop()


def _fitting(blocks: list[str]) -> list[str]:
    """A heading, the first block after it, and of the others those for which there is room."""
    shown = blocks[:2]
    for block in blocks[2:]:
        if _room([*shown, block]) <= ROOM:
            shown.append(block)
    return shown


def _of_code(cell, section: str) -> list[Slide]:
    """Slides of a code cell: one a picture, or one with its code; what came out besides is on the last."""
    pictures, results, said = _of_outputs(cell.get("outputs", []))
    top = f'<p class="kicker">{html.escape(section)}</p>'
    source = f"```python\n{cell.source}\n```"
    if not pictures:
        code = f"<pre><code>{html.escape(cell.source)}</code></pre>"
        if "predict" in tags(cell):
            return [Slide([top, *results], [source, *said])]
        kind = PICTURE if "reveal" in tags(cell) else CODE
        return [Slide([top, code, *results], [source, *said], kind)]
    new = [Slide([top, picture], kind=PICTURE, waits=True) for picture in pictures]
    new[-1].shown += results
    new[0].said += [source, *said]
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
            tables.append(TOO_LONG if long else page_part(text))
            said += [text] if long else []
        elif output.output_type == "stream" and output.name == "stdout":
            printed.append(output.text)
        elif set(data) == {"text/plain"}:  # not the text of a widget, such as a progress bar
            printed.append(data["text/plain"])
    text = "".join(printed).replace(NO_GUESS, "").strip("\n")
    return pictures, [f'<pre class="output">{html.escape(text)}</pre>'] * bool(text) + tables, said


def _shortened(pages: list[Slide]) -> list[Slide]:
    """At most ``MOST`` slides: the others go into the notes of the slide before them."""
    spare = sorted(pages[1:], key=lambda s: (-s.kind, len(" ".join(s.said).split())))
    for slide in spare[: max(0, len(pages) - MOST)]:
        place = pages.index(slide)
        pages[place - 1].said += slide.said
        del pages[place]
    return pages


def _beginning(block: str, always: bool = False) -> str:
    """A block as it stands, or the first sentences of a long paragraph (always: of whatever is long)."""
    if len(block.split()) <= LONG or WHOLE.match(block) and not always:
        return block
    begun = list(accumulate(SENTENCE_END.split(block), "{} {}".format))
    fitting = [text for text in begun if len(text.split()) <= LONG]
    return fitting[-1] if fitting else begun[0]


def _room(blocks: list[str]) -> int:
    """Words that blocks take up; a formula or a row of a table takes as much as a line."""
    text = re.sub(r"^#.*\n*", "", "\n".join(blocks), flags=re.MULTILINE)
    words = re.sub(r"\$\$.*?\$\$", "", text, flags=re.DOTALL).split()
    return len(words) + 12 * text.count("$$") + 4 * text.count("\n")


def _section(slide: Slide) -> str:
    """HTML of a slide with its notes."""
    said = page_part("\n\n".join(slide.said))
    notes = f'<aside class="notes">{said}</aside>' if slide.said else ""
    return f"<section>{''.join(slide.shown)}{notes}</section>"
