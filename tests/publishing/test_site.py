"""What the website is made from. The pages themselves are looked at in ``browser/test_site_pages.py``."""

import importlib.util
import json
import re
import shutil
from functools import partial
from html.parser import HTMLParser
from importlib import import_module

import nbformat.v4 as v4
import pytest
import yaml

from barlow_edu.publishing import site
from barlow_edu.publishing.notebook import relink
from barlow_edu.publishing.site import gallery, notebooks, reference
from barlow_edu.publishing.site.extension import escaped, plain_docstring


def output(data, **metadata):
    return v4.new_output("display_data", data=data, metadata=metadata)


def test_a_figure_gets_its_alt_text_in_the_page():
    figure = output(
        {"image/png": "AA\n==", "text/plain": "<Figure>"},
        **{"image/png": {"alt": 'C is "blue"', "width": 700}},
    )
    [made] = notebooks.shown([figure])
    assert made.data["text/html"] == (
        '<img class="dark-light" alt="C is &quot;blue&quot;" width="700" '
        'src="data:image/png;base64,AA==">'
    )


def test_labels_and_widgets_leave_the_page():
    assert notebooks.shown([output({"text/html": "x", "text/plain": "Figure: C."})]) == []
    widget = {notebooks.WIDGET: {}, "text/plain": "<LambdaExplorer widget>"}
    assert notebooks.shown([output(widget)]) == []
    [live] = notebooks.shown([output({**widget, "text/html": "a panel"})])
    assert live.data["text/html"] == "a panel" and notebooks.WIDGET not in live.data


@pytest.mark.parametrize("kind", ["be-film", "be-lx be-lx-player"])
def test_a_player_is_in_one_output_with_its_picture(kind):
    picture = output({"image/png": "AA==", "text/plain": "<Film>"})
    player = output({"text/html": f'<style></style><div class="{kind}"></div>', "text/plain": "x"})
    other = output({"text/html": "<p>told</p>", "text/plain": "x"})
    cell = v4.new_code_cell("film", outputs=[picture, player, other])
    [page] = notebooks.page(v4.new_notebook(cells=[cell]), set()).cells
    together, alone = (made.data["text/html"] for made in page.outputs)
    assert together.startswith("<img") and kind in together and alone == "<p>told</p>"


def test_solutions_are_folded_and_notes_leave():
    solution, note = v4.new_code_cell("1"), v4.new_markdown_cell("answers")
    solution.metadata.tags, note.metadata.tags = ["solution"], ["instructor"]
    made = notebooks.page(v4.new_notebook(cells=[solution, note]), set())
    assert [cell.source for cell in made.cells] == ["1"]
    assert "hide-cell" in made.cells[0].metadata.tags


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a](b.ipynb) and [c](d.ipynb)", "[a](b.ipynb) and c"),
        ("[a](../data/runs/x)", "a"),
        ("[a](https://example.com) ![x](y.png)", "[a](https://example.com) ![x](y.png)"),
        ("[answers](EXAM_ANSWERS.md)", "answers"),
        ("[a](../data/runs/two/three/) [b](../data/runs/x)", "[a](../runs/two-three.md) b"),
    ],
)
def test_links_to_what_is_not_on_the_site_become_text(text, expected):
    known = {"b.ipynb", "../runs/two-three.md"}
    assert relink(text, partial(notebooks.on_site, known)) == expected


def test_links_in_outputs_lead_to_pages():
    told = output(
        {"text/markdown": "[a](../data/runs/x) [b](b.ipynb) [c](c.ipynb)", "text/plain": ""}
    )
    book = v4.new_notebook(cells=[v4.new_code_cell("show()", outputs=[told])])
    [cell] = notebooks.page(book, {"b.ipynb", "../runs/x.md"}).cells
    assert cell.outputs[0].data["text/markdown"] == "[a](../runs/x.html) [b](b.html) c"


def test_prose_of_a_docstring_means_what_it_says():
    assert escaped("a *star, a |bar| and ``co*de`` of name_") == (
        r"a \*star, a \|bar\| and ``co*de`` of name\_"
    )
    lines = ["Files:", "    a   b", "", "* one", "  more"]
    plain_docstring(None, None, None, None, None, lines)
    assert lines[:5] == ["Files:", "", "::", "", "        a   b"]
    assert "* one" in lines
    lines = ["loss: scalar.", "diagonal: (D,), not_ a loss."]
    plain_docstring(None, None, None, None, None, lines)
    assert lines[:2] == ["* ``loss``: scalar.", r"* ``diagonal``: (D,), not\_ a loss."]


def test_every_record_has_a_page(tmp_path):
    records = gallery.records()
    assert {"garments_quick", "cifar10_cpu", "lambda_sweep", "ablations/width"} <= set(records)
    title, parts = gallery.page_of(records["stem_3x3"])
    text = "\n".join(parts)
    assert "minutes on a CPU" in title and "`cifar` stem" in title
    assert "be-film" in text and "kNN" in text and "```yaml" in text and "alt=" in text


PLANTED = (
    "<img src=x onerror=alert(1)>\n\n````\n</div>\n\n~~~{raw} html\n"
    "<img src=x onerror=alert(1)> ![x](y) | `` ' \""
)


def planted(value, under=""):
    """What a JSON or YAML file holds, with markup behind every text that a person may have written."""
    if isinstance(value, dict):
        return {planted(k) if under == "rows" else k: planted(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [planted(v) for v in value]
    free = under != "key"  # the column that names a study's points
    return value + PLANTED if isinstance(value, str) and free else value


def rewritten(file):
    """The file with markup planted everywhere."""
    load, dump = (json.loads, json.dumps) if file.suffix == ".json" else (yaml.safe_load, yaml.dump)
    content = load(file.read_text(encoding="utf-8"))
    free = {"encoder": content.get("encoder", "") + PLANTED, "root": PLANTED}  # of a run's settings
    made = content | free if file.name == "config.yaml" else planted(content)
    file.write_text(dump(made), encoding="utf-8")


@pytest.mark.parametrize(
    "name", ["garments_quick", "lambda_sweep", "relatives", "ablations/width", "stem_7x7"]
)
def test_markup_in_a_record_stays_text(name, tmp_path, monkeypatch):
    """In every note, name, setting and question, and in the folder's name."""
    settings = pytest.importorskip("myst_parser.config.main").MdParserConfig(
        enable_extensions={"amsmath", "dollarmath", "deflist"}
    )
    renderer = pytest.importorskip("markdown_it.renderer").RendererHTML
    parser = import_module("myst_parser.parsers.mdit").create_md_parser(settings, renderer)
    folder = tmp_path / "runs" / "<b onclick=alert(1)>`|"
    shutil.copytree(gallery.records()[name], folder)
    for file in [*folder.glob("*.json"), *folder.glob("*.yaml")]:
        rewritten(file)
    monkeypatch.setenv("BARLOW_EDU_DATA", str(tmp_path))
    pages = gallery.pages()
    assert len(pages) == 2 and "onerror" in "".join(pages.values())
    for text in pages.values():
        tokens = list(walked(parser.parse(text)))
        assert not [t for t in tokens if t.type in ("html_block", "html_inline", "image")]
        boxes = [t.content for t in tokens if t.info == "{raw} html"]
        assert {t.info for t in tokens if t.type == "fence"} <= {"{raw} html", "yaml", "{toctree}"}
        for tag, attributes in elements("".join(boxes)):
            assert tag != "b" and not {"onerror", "onclick"} & set(attributes)


def walked(tokens):
    for token in tokens:
        yield token
        yield from walked(token.children or [])


class Elements(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen = []

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))


def elements(html):
    """(tag, attributes) of every element of an HTML text."""
    parser = Elements()
    parser.feed(html)
    return parser.seen


def test_rows_of_several_seeds_become_means():
    rows = [
        {"method": "byol", "seed": s, "knn": k, "effective_rank_h": 9.96}
        for s, k in enumerate((0.3, 0.5))
    ]
    told, *_, last = gallery.means_table(rows, "method").splitlines()
    assert "2 seeds" in told and last == "| BYOL | 40.0 (30.0 to 50.0) | 10.0 (10.0 to 10.0) |"


def test_a_record_without_a_question_names_what_it_compares():
    title, parts = gallery.page_of(gallery.records()["relatives"])
    assert "Barlow Twins, SimCLR" in title and "15 trainings" in title
    assert any("kNN of the untrained encoder" in part for part in parts)


def test_a_missing_library_is_named(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "myst_nb" else found(name)
    )
    with pytest.raises(RuntimeError, match="pip install sphinx myst-nb"):
        site.check_installed()


def test_another_folder_is_left_alone(tmp_path):
    pytest.importorskip("sphinx_book_theme")
    for name in ("work.txt", ".buildinfo"):  # the second is what Sphinx leaves in every site
        (tmp_path / name).write_text("mine")
        with pytest.raises(FileExistsError, match="something else"):
            site.build_site(tmp_path)
        assert (tmp_path / name).read_text() == "mine"


def test_of_a_site_that_is_built_again_only_its_own_files_go(tmp_path, monkeypatch):
    """A branch of pages keeps its ``.git`` and ``CNAME``, and a mark that names files elsewhere removes none."""
    pages, out = ["index.html", "notebooks/old.html"], tmp_path / "out"

    def write(source, html):
        for name in pages:
            (html / name).parent.mkdir(parents=True, exist_ok=True)
            (html / name).write_text(name)

    monkeypatch.setattr(site, "check_installed", lambda: None)
    monkeypatch.setattr(site, "write_source", lambda *_: None)
    monkeypatch.setattr(site, "run_sphinx", write)
    monkeypatch.setattr(site.playground, "write_beside", lambda folder: None)
    assert site.build_site(out) == pages
    mine = [tmp_path / "precious", out / "CNAME", out / ".git" / "HEAD"]
    for file in mine:
        file.parent.mkdir(exist_ok=True)
        file.write_text("mine")
    mark = out / site.MARK
    mark.write_text(f"{mark.read_text()}\n../precious\n{mine[0]}")
    pages[1] = "notebooks/new.html"
    assert site.build_site(out) == sorted(pages)
    assert not (out / "notebooks" / "old.html").exists()
    assert [file.read_text() for file in mine] == ["mine"] * 3


def test_every_module_with_something_public_has_a_page():
    pages = reference.pages()
    modules = re.findall(r"automodule:: barlow_edu\.([\w.]+)", "".join(pages.values()))
    assert {"loss", "views", "runs", "training", "numerics.pixels"} <= set(modules)
    index = pages["api/index"]
    named = [name for name in modules if not name.startswith("teaching.checks")]
    assert all(f"[{name}]({name.partition('.')[0]}.md)" in index for name in named)
    assert "automodule:: barlow_edu.numerics.pixels" in pages["api/numerics"]
    assert "{py:obj}`load_run <barlow_edu.runs.load_run>`" in index
    checkers = pages["api/checks"]
    assert "teaching.checks.matrix" in checkers and "teaching.checks.bugs" in checkers


def test_names_of_the_package_lead_to_the_reference():
    assert reference.linked("barlow_edu.TwinViews") == (
        "{py:obj}`barlow_edu.TwinViews <barlow_edu.views.TwinViews>`"
    )
    assert reference.linked("lambd") == "`lambd`"
    assert reference.first_sentence("Files: safe\nwriting, locks. More.\n\nEnd") == (
        "Files: safe writing, locks."
    )
