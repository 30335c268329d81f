"""What figures and prose owe every reader: contrast, more than colour, links that lead somewhere, spelling.

Headings and alt texts of the notebooks are rules of ``notebook_guard``; pages of the website are judged by axe-core
in ``browser/test_site_pages.py``, where keys are pressed, too.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import notebook_guard
import pytest
from contrast import contrast, pairs

from barlow_edu.teaching import explorer
from barlow_edu.teaching.embed import asset
from barlow_edu.teaching.figures import drawing

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TEXTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "notebooks").glob("*.md"))]
LINK = re.compile(r"(?<!\\)\]\(([^)\s]+)\)|<a href=\"([^\"]+)\"|<img[^>]*src=\"([^\"]+)\"")


@pytest.mark.parametrize(
    ("one", "other", "ratio"),
    [("#000", "#fff", 21.0), ("#777777", "#fff", 4.48), ("#ff0000", "#fff", 4.0)],
)
def test_contrast_is_that_of_wcag(one, other, ratio):
    assert contrast(one, other) == pytest.approx(ratio, abs=0.01)  # published examples


@pytest.mark.parametrize("place", pairs())
def test_pairs_of_colours_can_be_told_apart(place):
    needed, named = pairs()[place]
    ratios = {name: contrast(*pair) for name, pair in named.items()}
    assert min(ratios.values()) >= needed, ratios


def test_the_pairs_of_the_film_are_those_of_its_style_sheet():
    named = [
        pair for place, (_, named) in pairs().items() if "film" in place for pair in named.values()
    ]
    assert named and all(
        colour in asset("figures/film.css") for pair in named for colour in pair if colour != "#fff"
    )


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
    assert re.search(r"\.be-lx-line1 \{[^}]*stroke-dasharray", asset("explorer.css"))


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
    package = ROOT / "barlow_edu"
    for path in package.rglob("*.*"):
        if path.suffix in (".py", ".yaml", ".js", ".json") and "vendor" not in path.parts:
            shutil.copy(path, tmp_path / "_".join(path.relative_to(package).parts))
    assert misspelt(tmp_path) == []


def test_a_misspelt_word_is_seen(tmp_path):
    pytest.importorskip("codespell_lib")
    (tmp_path / "page.md").write_text("The sepe" + "rate matrix.")
    assert len(misspelt(tmp_path)) == 1


def test_the_explorer_names_what_it_shows():
    assert explorer.LambdaExplorer.title and "aria-label" in asset("explorer.js")


def glossary():
    from barlow_edu.publishing.site.pages import glossary

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
