"""What figures and prose owe every reader: contrast, more than colour, links that lead somewhere, spelling.

Headings and alt texts of the notebooks are rules of ``notebook_guard``; pages of the website are judged by axe-core
in ``browser/test_site_pages.py``, where keys are pressed, too.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import nbformat
import notebook_guard
import pytest

from barlow_edu import drawing, explorer, film

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "barlow_edu"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TEXTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "notebooks").glob("*.md"))]
TEXT_RATIO, SHAPE_RATIO = 4.5, 3.0  # WCAG 2.2, 1.4.3 and 1.4.11
LINK = re.compile(r"(?<!\\)\]\(([^)\s]+)\)|<a href=\"([^\"]+)\"|<img[^>]*src=\"([^\"]+)\"")


def luminance(colour):
    """Relative luminance, WCAG 2.2."""
    rgb = mpl.colors.to_rgb(colour)
    r, g, b = (x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in rgb)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one, other):
    """Contrast ratio of two colours, from 1 to 21."""
    high, low = sorted([luminance(one), luminance(other)], reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(
    ("one", "other", "ratio"),
    [("#000", "#fff", 21.0), ("#777777", "#fff", 4.48), ("#ff0000", "#fff", 4.0)],
)
def test_contrast_is_that_of_wcag(one, other, ratio):
    assert contrast(one, other) == pytest.approx(ratio, abs=0.01)  # published examples


def explorer_colours(dark):
    """The colours of the explorer's theme by their names in the style sheet."""
    css = (PACKAGE / "explorer.css").read_text(encoding="utf-8")
    block = re.search(
        r'^\.be-lx\[data-dark="true"\] \{(.*?)\}' if dark else r"^\.be-lx \{(.*?)\}",
        css,
        re.M | re.S,
    )
    return dict(re.findall(r"--(\w+): (#\w+)", block[1]))


@pytest.mark.parametrize("dark", [False, True])
def test_colours_of_the_explorer(dark):
    c = explorer_colours(dark)
    text = {name: contrast(c[name], c["page"]) for name in ("ink", "first", "second", "mark")}
    assert min(text.values()) >= TEXT_RATIO, text
    assert contrast(c["edge"], c["page"]) >= SHAPE_RATIO


def test_colours_of_the_film():
    assert contrast("#222", "#f3f3f3") >= TEXT_RATIO and contrast("#222", "#d5e5f0") >= TEXT_RATIO
    for colour in ("#222", "#f3f3f3", "#d5e5f0", "#0072b2"):
        assert colour in film.CSS  # the pairs above are those of the style sheet
    assert contrast("#0072b2", "#fff") >= SHAPE_RATIO


def test_text_of_figures():
    assert contrast(drawing.TEXT, "white") >= TEXT_RATIO
    assert contrast(drawing.GREY, "white") >= TEXT_RATIO
    names = {colour: contrast(drawing.ink(colour), "white") for colour in drawing.PALETTE}
    assert min(names.values()) >= TEXT_RATIO, names


def test_lines_and_bars_of_figures():
    ratios = {colour: contrast(colour, "white") for colour in drawing.PALETTE}
    pale = {colour for colour, ratio in ratios.items() if ratio < SHAPE_RATIO}
    # Okabe and Ito's purple, orange and sky blue, for a fifth line and later: those carry dash, marker and name.
    assert pale <= set(drawing.PALETTE[4:]), ratios


def test_the_ends_of_the_scale_of_c():
    low, middle, high = drawing.DIVERGING(0), drawing.DIVERGING(0.5), drawing.DIVERGING(1.0)
    assert contrast(low, middle) >= SHAPE_RATIO and contrast(high, middle) >= SHAPE_RATIO


def test_lines_differ_in_more_than_colour():
    """Dash and marker together tell the lines of a figure apart, and each carries its name at its end."""
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    steps = range(5)
    drawing.lines(ax, {f"line {i}": (steps, [i + s for s in steps]) for i in range(4)})
    looks = {str(line._unscaled_dash_pattern) + str(line.get_marker()) for line in ax.lines[:4]}
    assert len(looks) == 4
    written = " ".join(text.get_text() for text in ax.texts)
    assert all(f"line {i}" in written for i in range(4))


def test_the_explorer_dashes_its_second_line():
    css = (PACKAGE / "explorer.css").read_text(encoding="utf-8")
    assert re.search(r"\.be-lx-line1 \{[^}]*stroke-dasharray", css)


def prose(path):
    """Markdown of a file: all of it, or a notebook's Markdown cells."""
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(c.source for c in cells if c.cell_type == "markdown")


def anchors(text):
    """What GitHub and Jupyter call the headings of a Markdown text."""
    found = set()
    for _, heading in notebook_guard.HEADING.findall(notebook_guard.FENCE.sub("", text)):
        plain = re.sub(r"[^\w\- ]", "", heading.lower())
        found |= {plain.replace(" ", "-"), heading.replace(" ", "-")}
    return found


def broken(path):
    """Internal links of a file that lead nowhere."""
    found = []
    text = prose(path)
    for groups in LINK.findall(notebook_guard.FENCE.sub("", text)):
        link = next(filter(None, groups))
        if re.match(r"https?:|mailto:|data:|attachment:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file) if file else path
        inside = anchor and target.suffix in (".md", ".ipynb") and target.exists()
        if not target.exists() or inside and anchor not in anchors(prose(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("path", [*TEXTS, *NOTEBOOKS], ids=lambda path: path.name)
def test_internal_links_lead_somewhere(path):
    assert broken(path) == []


def test_a_broken_link_is_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# One\n[a](nothing.md) [b](#one) [c](#two) [d](https://example.com) [e](page.md)"
    )
    assert broken(page) == ["nothing.md", "#two"]


def test_headings_of_texts_are_in_order():
    for path in TEXTS:
        text = notebook_guard.FENCE.sub("", path.read_text(encoding="utf-8"))
        levels = [len(marks) for marks, _ in notebook_guard.HEADING.findall(text)]
        assert levels[0] == 1 and levels.count(1) == 1, path.name
        jumps = [b - a for a, b in zip(levels, levels[1:], strict=False)]
        assert max(jumps, default=0) <= 1, path.name


def misspelt(folder):
    """What codespell finds in a folder of texts."""
    words = Path(__file__).with_name("words.txt")
    run = [sys.executable, "-m", "codespell_lib", "--ignore-words", str(words), str(folder)]
    done = subprocess.run(run, capture_output=True, text=True, encoding="utf-8")
    return done.stdout.splitlines()


def test_spelling(tmp_path):
    pytest.importorskip("codespell_lib")
    for path in [*TEXTS, *NOTEBOOKS]:
        (tmp_path / f"{path.name}.txt").write_text(prose(path), encoding="utf-8")
    for path in [*PACKAGE.glob("*.py"), *PACKAGE.rglob("*.yaml"), *PACKAGE.glob("*.js*")]:
        shutil.copy(path, tmp_path / path.name)
    assert misspelt(tmp_path) == []


def test_a_misspelt_word_is_seen(tmp_path):
    pytest.importorskip("codespell_lib")
    (tmp_path / "page.md").write_text("The sepe" + "rate matrix.")
    assert len(misspelt(tmp_path)) == 1


def test_the_explorer_names_what_it_shows():
    assert explorer.TITLE and "aria-label" in (PACKAGE / "explorer.js").read_text(encoding="utf-8")


def glossary():
    from barlow_edu.site.pages import glossary

    return glossary()


@pytest.mark.parametrize("entry", glossary(), ids=lambda entry: entry["term"])
def test_a_term_of_the_glossary_stands_in_the_notebook_that_introduces_it(entry):
    [path] = [p for p in NOTEBOOKS if p.name.startswith(entry["notebook"])]
    said = " ".join(prose(path).lower().split())
    words = entry["term"].lower()
    spelt = {
        words.replace("matrix", "matrices"),
        words,
        words.replace("-", " "),
        words.removesuffix("s"),
        words.removesuffix(" accuracy"),
    }
    assert any(word in said for word in spelt)
