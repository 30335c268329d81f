"""Slides: the rule, on a notebook made for it, and on every notebook of the course."""

import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest

from barlow_edu.cli import main
from barlow_edu.publishing import slides

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("[0-9][0-9]_*.ipynb"))
PIXEL = "iVBORw0KGgo="
LONG_PARAGRAPH = "A first sentence with some words. " * 3 + "And then it goes on. " * 20


def notebook():
    """A title, two sections, an exercise with its solution, a picture, teaching notes, references."""
    md, code = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell
    cells = [
        md("# 7 · Title\n\n**Claim.** It works."),
        md("| | |\n|---|---|\n| **Time** | long |"),
        code("import setup_only", metadata={"tags": ["setup"]}),
        md(f"## 1. Section\n\n{LONG_PARAGRAPH}\n\n$$x =\n\n1$$\n\n### Below\n\nShort."),
        code("draw()"),
        md("**What to notice.** The line.\n\nAnother paragraph, see [3](03_x.ipynb)."),
        md(
            "## Exercise 9.1: do it\n\nWrite it.\n\n<details><summary>Hint 1</summary>secret</details>"
        ),
        code("...", metadata={"tags": ["exercise"]}),
        code("answer_of_7_1()", metadata={"tags": ["solution"]}),
        code("print('<b>')"),
        md("## Limits\n\nnot shown limits"),
        code("not_shown_code()"),
        md("## Recap\n\n| a | b |\n|---|---|\n| 1 | 2 |"),
        md("## Teaching notes\n\nfor teachers", metadata={"tags": ["instructor"]}),
    ]
    picture = {"image/png": PIXEL, "text/plain": "<Figure>"}
    alt = {"image/png": {"alt": 'a "line"'}}
    cells[4].outputs = [nbformat.v4.new_output("display_data", data=picture, metadata=alt)]
    cells[9].outputs = [nbformat.v4.new_output("stream", name="stdout", text="<b>\n")]
    return nbformat.v4.new_notebook(cells=cells)


class Tags(HTMLParser):
    """The tags that are open, in order; one that was opened in vain stays."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in ("img", "br", "hr", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (self.open, tag)
        self.open.pop()


def unclosed(text):
    parser = Tags()
    parser.feed(text)
    return parser.open


def texts(made):
    return ["".join(slide.shown) for slide in made]


def test_every_kind_of_cell_becomes_what_the_rule_says():
    made = slides.slides(notebook())
    shown = "\n".join(texts(made))
    for absent in (
        "setup_only",
        "secret",
        "answer_of_7_1",
        "not shown",
        "not_shown",
        "for teachers",
        "Time",
    ):
        assert absent not in shown, absent
    order = [
        "Title",
        "1. Section",
        "Below",
        "<img",
        "Exercise 9.1",
        "print(",
        "Recap",
    ]
    places = [next(i for i, t in enumerate(texts(made)) if word in t) for word in order]
    assert places == sorted(places)


def test_a_long_paragraph_is_begun_on_the_slide_and_whole_in_the_notes():
    [section] = [s for s in slides.slides(notebook()) if "1. Section" in "".join(s.shown)]
    assert section.shown[0].count("And then it goes on.") < 3
    assert section.said[0].count("And then it goes on.") == 20
    assert "$$x =" in section.shown[0]  # a formula is not cut at its empty line


def test_a_picture_keeps_its_alt_text_its_code_and_what_to_notice():
    [one] = [s for s in slides.slides(notebook()) if "<img" in "".join(s.shown)]
    assert 'alt="a &quot;line&quot;"' in "".join(one.shown)
    assert "The line." in one.shown[-1]
    assert any("draw()" in said for said in one.said)


def picture():
    """A cell with a picture, as the one of ``notebook``."""
    return notebook().cells[4]


def prose(*sources):
    return [nbformat.v4.new_markdown_cell(source) for source in sources]


def test_a_few_words_before_a_picture_stand_above_it_and_many_in_the_notes():
    few, many = prose("A film.", "More. " * 40)
    book = nbformat.v4.new_notebook(cells=[*prose("# T"), few, picture(), many, picture()])
    title, first, second = slides.slides(book)
    assert "A film." in first.shown[1] and "<img" in first.shown[2]
    assert "More." not in "".join(second.shown) and many.source in first.said
    assert few.source in title.said


def test_a_short_heading_stands_above_its_picture():
    short, long = prose("## Short\n\nA film.", "## Long\n\n$$x$$\n\n" + "word " * 30)
    book = nbformat.v4.new_notebook(cells=[*prose("# T"), short, picture(), long, picture()])
    title, first, second, third = texts(slides.slides(book))
    assert "<img" in first and "Short" in first and "A film." in first
    assert "Long" in second and "<img" not in second and "<img" in third


def test_of_what_to_notice_a_slide_has_the_first_words_and_the_notes_the_rest():
    after = prose("**What to notice.** The line.\n\nMuch more of it.")
    [made] = slides.slides(nbformat.v4.new_notebook(cells=[picture(), *after]))
    assert "The line." in made.shown[-1]
    assert "Much more" not in "".join(made.shown) and "Much more" in made.said[-1]


def test_two_pictures_are_two_slides():
    two = picture()
    two.outputs *= 2
    assert len(slides.slides(nbformat.v4.new_notebook(cells=[two]))) == 2


def test_a_recap_keeps_its_table_and_a_card_is_left_out():
    recap, card = (
        "## Recap\n\n| | |\n|---|---|\n| C | matrix |",
        "| | |\n|---|---|\n| **Time** | long |",
    )
    made = texts(slides.slides(nbformat.v4.new_notebook(cells=prose(card, recap))))
    assert len(made) == 1 and "matrix" in made[0]


def test_a_progress_bar_is_not_shown():
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("train()")])
    widget = {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "0%| | 0/312"}
    book.cells[0].outputs = [nbformat.v4.new_output("display_data", data=widget)]
    assert "0/312" not in "".join(texts(slides.slides(book)))


def test_tags_overrule():
    book = notebook()
    book.cells[4].metadata["tags"] = ["skip"]
    book.cells[6].metadata["tags"] = ["notes"]
    made = slides.slides(book)
    assert not [t for t in texts(made) if "<img" in t or "Exercise 9.1" in t]
    assert any("Exercise 9.1" in said for s in made for said in s.said)


def test_what_does_not_fit_is_in_the_notes():
    items = [f"* {'word ' * 40}{k}" for k in range(4)]
    text = "## Much\n\n" + "\n\n".join(items)
    [made] = slides.slides(nbformat.v4.new_notebook(cells=prose(text)))
    shown = "".join(made.shown)
    assert "Much" in shown and "word 1" in shown and "word 3" not in shown and made.said == [text]


def test_of_too_many_slides_code_goes_first_and_pictures_last(monkeypatch):
    code = nbformat.v4.new_code_cell("1 + 1")
    asked = nbformat.v4.new_code_cell("ask()", metadata={"tags": ["predict"]})
    cells = [*prose("# T"), code, picture(), asked, *prose("### Lower", "## Upper"), picture()]
    for most, gone, pictures in ((5, "1 + 1", 2), (4, "Lower", 2), (3, "draw()", 1)):
        monkeypatch.setattr(slides, "MOST", most)
        made = slides.slides(nbformat.v4.new_notebook(cells=cells))
        shown, said = "".join(texts(made)), "".join(t for s in made for t in s.said)
        assert len(made) == most and shown.count("<img") == pictures
        assert gone not in shown and gone in said


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem[:2])
def test_no_solution_and_no_teaching_note_is_on_a_slide(path):
    book = nbformat.read(path, as_version=4)
    hidden = [
        c.source for c in book.cells if {"solution", "instructor"} & set(c.metadata.get("tags", []))
    ]
    made = slides.slides(book)
    everything = "\n".join(part for s in made for part in [*s.shown, *s.said])
    assert 10 < len(made) <= 25
    for slide in made:
        assert unclosed("".join(slide.shown)) == [], slide.shown
    assert not [source for source in hidden if source in everything]
    assert not re.search(
        r"<img (?![^>]*alt=\"[^\"]{20,})", everything
    )  # pictures say what they show


def test_the_command_writes_a_page_that_needs_nothing_from_elsewhere(tmp_path, capsys):
    assert main(["course", "slides", "4", "--out", str(tmp_path)]) == 0
    assert "slides in" in capsys.readouterr().out
    page = (tmp_path / "04_the_cross_correlation_matrix_slides.html").read_text(encoding="utf-8")
    wanted = re.findall(r'<(?:script|link|img)[^>]* (?:src|href)="([^"]+)"', page)
    local = [name for name in wanted if not name.startswith("data:")]
    assert local and all((tmp_path / name).is_file() for name in local)
    styles = (tmp_path / "slides_files/katex/katex.min.css").read_text(encoding="utf-8")
    fonts = re.findall(r"url\((fonts/[^)]+\.woff2)\)", styles)
    assert fonts and all((tmp_path / "slides_files/katex" / f).is_file() for f in fonts)
    for licence in ("reveal", "katex"):
        text = (tmp_path / "slides_files" / licence / "LICENSE").read_text(encoding="utf-8")
        assert "Permission is hereby granted" in text


def test_an_unknown_notebook_is_named(tmp_path, capsys):
    assert main(["course", "slides", "99", "--out", str(tmp_path)]) == 2
    assert "No notebook '99'. There are 00, 01" in capsys.readouterr().err


def test_a_block_is_whole_whatever_empty_lines_it_has():
    blocks = ["# A", "text\nof two lines", "$$x =\n\n1$$", "```python\na\n\nb\n```", "* one\n* two"]
    text = "\n".join(blocks[:2]) + "\n\n" + "\n \n".join(blocks[2:])
    assert [block.strip() for block in slides.BLOCK.findall(text)] == blocks
