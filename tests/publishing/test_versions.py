"""Executing notebooks: outputs are stored, what would change with every run is not."""

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

from barlow_edu.publishing import versions as course

WIDGET = """
from IPython.display import display
display({"application/vnd.jupyter.widget-view+json": {"model_id": "x"}, "text/plain": "slider"},
        raw=True)
"""


def write(path, *sources):
    """A notebook with the marks that a browser leaves."""
    cells = [nbformat.v4.new_markdown_cell("# Title"), *map(nbformat.v4.new_code_cell, sources)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "widgets": {"application/vnd.jupyter.widget-state+json": {"state": {}}},
        "toc": {"base_numbering": 1},
    }
    for cell in cells[1:]:
        cell.metadata = {
            "tags": ["exercise"],
            "collapsed": True,
            "scrolled": True,
            "execution": {"iopub.execute_input": "2001-01-01T00:00:00Z"},
        }
        cell.outputs = [nbformat.v4.new_output("stream", text="old")]
        cell.execution_count = 77
    nbformat.write(notebook, path)
    return path


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """One notebook executed in a folder of its own, and what execute returned."""
    path = tmp_path_factory.mktemp("notebooks") / "00_small.ipynb"
    (path.parent / "beside.txt").write_text("a file beside the notebook")
    sources = [
        "x = 6 * 7\nprint(x)",
        "import os\nprint(os.environ['BARLOW_EDU_TIER'], open('beside.txt').read())\nx",
        WIDGET,
    ]
    write(path, *sources)
    minutes = course.execute([path])
    return nbformat.read(path, as_version=4), minutes, path


def test_fresh_outputs_are_stored_in_order(executed):
    notebook, _, _ = executed
    first, second, third = notebook.cells[1:]
    assert [cell.execution_count for cell in (first, second, third)] == [1, 2, 3]
    assert first.outputs[0].text == "42\n"
    assert second.outputs[0].text == "quick a file beside the notebook\n"
    assert second.outputs[1].data["text/plain"] == "42"


def test_the_notebook_is_valid_and_names_its_kernel_without_a_version(executed):
    notebook, _, _ = executed
    nbformat.validate(notebook)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.language_info.name == "python"
    assert "version" not in notebook.metadata.language_info


def test_marks_of_the_browser_are_gone_and_tags_stay(executed):
    notebook, _, _ = executed
    for cell in notebook.cells[1:]:
        assert cell.metadata == {"tags": ["exercise"]}


def test_minutes_are_told_by_name(executed):
    _, minutes, _ = executed
    assert list(minutes) == ["00_small"]
    assert 0 < minutes["00_small"] < 30


def test_nothing_else_is_left_in_the_folder(executed):
    assert sorted(p.name for p in executed[2].parent.iterdir()) == ["00_small.ipynb", "beside.txt"]


def test_alt_texts_go_from_the_cell_into_its_figures(tmp_path):
    picture = 'from IPython.display import display\ndisplay({"image/png": "aa==", "text/plain": "f"}, raw=True)\n'
    path = write(tmp_path / "00_figure.ipynb", 2 * picture)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].metadata["barlow_edu"] = {"alt": ["C before", "C after"]}
    notebook.cells[1].metadata["tags"] = ["reveal"]
    nbformat.write(notebook, path)
    course.execute([path])
    cell = nbformat.read(path, as_version=4).cells[1]
    assert [o.metadata["image/png"]["alt"] for o in cell.outputs] == ["C before", "C after"]
    assert cell.metadata["jupyter"]["outputs_hidden"] is True
    notebook.cells[1].metadata["barlow_edu"] = {"alt": "one for two"}
    nbformat.write(notebook, path)
    with pytest.raises(ValueError, match="1 alt texts for 2 figures"):
        course.execute([path])


def test_a_student_sees_no_result_below_a_prediction():
    def book():
        result = [nbformat.v4.new_output("stream", text="63 %")]
        cells = [nbformat.v4.new_code_cell("a", outputs=result) for _ in range(2)]
        cells[1].metadata["tags"] = ["reveal"]
        return nbformat.v4.new_notebook(cells=cells)

    assert [len(cell.outputs) for cell in course.student(book()).cells] == [1, 0]
    assert [len(cell.outputs) for cell in course.student(book(), True).cells] == [0, 0]


def test_a_failing_notebook_is_left_as_it_was(tmp_path):
    path = write(tmp_path / "01_bad.ipynb", "print('fine')", "1 / 0")
    before = path.read_bytes()
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        course.execute([path])
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["01_bad.ipynb"]


def test_a_missing_notebook_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.ipynb"):
        course.execute([tmp_path / "nowhere.ipynb"])
