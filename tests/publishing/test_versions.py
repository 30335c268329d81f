"""Executing notebooks: outputs are stored, what would change with every run is not."""

from pathlib import Path

import nbformat
import pytest
from jupyterlab import labapp
from nbclient.exceptions import CellExecutionError

from barlow_edu.cli import main
from barlow_edu.publishing import copies, site
from barlow_edu.publishing import notebook as nb
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
    """One notebook executed in a folder of its own, and its path."""
    path = tmp_path_factory.mktemp("notebooks") / "00_small.ipynb"
    (path.parent / "beside.txt").write_text("a file beside the notebook")
    sources = [
        "x = 6 * 7\nprint(x)",
        "import os\nprint(os.environ['BARLOW_EDU_TIER'], open('beside.txt').read())\nx",
        WIDGET,
    ]
    write(path, *sources)
    course.execute(path)
    return nbformat.read(path, as_version=4), path


def test_fresh_outputs_are_stored_in_order(executed):
    notebook, _ = executed
    first, second, third = notebook.cells[1:]
    assert [cell.execution_count for cell in (first, second, third)] == [1, 2, 3]
    assert first.outputs[0].text == "42\n"
    assert second.outputs[0].text == "quick a file beside the notebook\n"
    assert second.outputs[1].data["text/plain"] == "42"


def test_the_notebook_is_valid_and_names_its_kernel_without_a_version(executed):
    notebook, _ = executed
    nbformat.validate(notebook)
    assert set(notebook.metadata) == {"kernelspec", "language_info", "barlow_edu"}
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.language_info.name == "python"
    assert "version" not in notebook.metadata.language_info


def test_marks_of_the_browser_are_gone_and_tags_stay(executed):
    notebook, _ = executed
    for cell in notebook.cells[1:]:
        assert cell.metadata == {"tags": ["exercise"]}


def test_nothing_else_is_left_in_the_folder(executed):
    assert sorted(p.name for p in executed[1].parent.iterdir()) == ["00_small.ipynb", "beside.txt"]


def test_alt_texts_go_from_the_cell_into_its_figures(tmp_path):
    picture = 'from IPython.display import display\ndisplay({"image/png": "aa==", "text/plain": "f"}, raw=True)\n'
    path = write(tmp_path / "00_figure.ipynb", 2 * picture)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].metadata["barlow_edu"] = {"alt": ["C before", "C after"]}
    notebook.cells[1].metadata["tags"] = ["reveal"]
    nbformat.write(notebook, path)
    course.execute(path)
    cell = nbformat.read(path, as_version=4).cells[1]
    assert [o.metadata["image/png"]["alt"] for o in cell.outputs] == ["C before", "C after"]
    assert cell.metadata["jupyter"]["outputs_hidden"] is True
    notebook.cells[1].metadata["barlow_edu"] = {"alt": "one for two"}
    nbformat.write(notebook, path)
    with pytest.raises(ValueError, match="1 alt texts for 2 figures"):
        course.execute(path)


def test_a_student_sees_no_result_below_a_prediction():
    def book():
        result = [nbformat.v4.new_output("stream", text="63 %")]
        cells = [nbformat.v4.new_code_cell("a", outputs=result) for _ in range(2)]
        cells[1].metadata["tags"] = ["reveal"]
        return nbformat.v4.new_notebook(cells=cells)

    assert [len(cell.outputs) for cell in course.student(book()).cells] == [1, 0]


def test_a_failing_notebook_is_left_as_it_was(tmp_path):
    path = write(tmp_path / "01_bad.ipynb", "print('fine')", "1 / 0")
    before = path.read_bytes()
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        course.execute(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["01_bad.ipynb"]


def test_a_missing_notebook_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.ipynb"):
        course.execute(tmp_path / "nowhere.ipynb")


def book(**metadata):
    """A notebook of three cells that ran as a whole."""
    cells = [nbformat.v4.new_markdown_cell("# Title")]
    cells += [nbformat.v4.new_code_cell(f"x = {i}", execution_count=i) for i in (1, 2, 3)]
    notebook = nbformat.v4.new_notebook(cells=[*cells, nbformat.v4.new_code_cell("")])
    notebook.metadata["barlow_edu"] = {"run": nb.digest(notebook)} | metadata
    return notebook


def half_run(notebook):
    notebook.cells[3].execution_count = None


def out_of_order(notebook):
    notebook.cells[1].execution_count = 9


def failed(notebook):
    error = nbformat.v4.new_output("error", ename="E", evalue="", traceback=[])
    notebook.cells[3].outputs = [error]


def edited(notebook):
    notebook.cells[2].source += "0"


FAULTS = {
    half_run: "was not run as a whole",
    out_of_order: "was not run as a whole",
    failed: "stopped at an error",
    edited: "has changed since it was run",
}


@pytest.fixture
def course_folder(tmp_path):
    """Notebooks 00 and 01, and what goes with them."""
    folder = tmp_path / "course"
    folder.mkdir()
    for name in ("00_one", "01_two"):
        nbformat.write(book(), folder / f"{name}.ipynb")
    for name in ("FORMULA_SHEET.md", *copies.INSTRUCTORS_ONLY):
        (folder / name).write_text(name)
    return folder


def commands(folder, monkeypatch):
    """The commands that hand notebooks on, as functions of a folder to write to."""
    monkeypatch.setattr(copies, "notebooks_dir", lambda: folder)
    monkeypatch.setattr(site, "check_installed", lambda: None)
    return {
        name: lambda out, name=name, more=more: main(["course", name, *more, str(out)])
        for name, more in {
            "student": ["--out"],
            "instructor": ["--out"],
            "site": ["--out"],
            "copy": [],
            "start": ["--no-lab"],
        }.items()
    }


@pytest.mark.parametrize("spoil", FAULTS)
def test_what_is_not_one_full_run_of_its_code_is_handed_on_by_no_command(
    course_folder, monkeypatch, capsys, spoil
):
    path = course_folder / "01_two.ipynb"
    notebook = nbformat.read(path, as_version=4)
    spoil(notebook)
    nbformat.write(notebook, path)
    for name, command in commands(course_folder, monkeypatch).items():
        out = course_folder.parent / name
        assert command(out) == 2
        told = capsys.readouterr().err
        assert f"01_two.ipynb {FAULTS[spoil]}" in told and "course run" in told
        assert not out.exists()


def test_what_was_edited_is_a_full_run_again_after_course_run(course_folder):
    path = course_folder / "01_two.ipynb"
    notebook = nbformat.read(path, as_version=4)
    edited(notebook)
    nbformat.write(notebook, path)
    with pytest.raises(ValueError, match="has changed since it was run"):
        nb.read_whole(path)
    course.execute(path)
    assert nb.read_whole(path).cells[2].source == "x = 20"


FIRST = "--LabApp.default_url=/lab/tree/00_start_here.ipynb"


def test_start_puts_a_learners_notebooks_there_and_opens_them(course_folder, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr(labapp, "main", lambda given: opened.append((Path.cwd(), given)))
    monkeypatch.setattr(copies, "notebooks_dir", lambda: course_folder)
    monkeypatch.chdir(course_folder.parent)
    assert main(["course", "start"]) == 0
    mine = course_folder.parent / "barlow_edu_course"
    names = ["00_one.ipynb", "01_two.ipynb", "FORMULA_SHEET.md", "README.md"]
    assert sorted(p.name for p in mine.iterdir()) == names
    assert nb.is_student(nb.read(mine / "00_one.ipynb"))
    assert opened == [(mine, [FIRST])]
    assert "2 new" in capsys.readouterr().out
    # a second start: work stays, what is missing comes back, and nothing of it needs the originals to be whole
    (mine / "00_one.ipynb").write_text("my work")
    (mine / "FORMULA_SHEET.md").write_text("my notes")
    (mine / "README.md").unlink()
    nbformat.write(nbformat.v4.new_notebook(), course_folder / "01_two.ipynb")
    monkeypatch.chdir(course_folder.parent)
    assert main(["course", "start", mine.name, "--no-browser", "--lab=--allow-root"]) == 0
    assert (mine / "00_one.ipynb").read_text() == "my work"
    assert (mine / "FORMULA_SHEET.md").read_text() == "my notes"
    assert sorted(p.name for p in mine.iterdir()) == names
    assert opened[1] == (mine, [FIRST, "--no-browser", "--allow-root"])
    assert "0 new" in capsys.readouterr().out


def test_start_opens_neither_the_course_itself_nor_a_file(course_folder, monkeypatch, capsys):
    monkeypatch.setattr(copies, "notebooks_dir", lambda: course_folder)
    before = {p: p.read_bytes() for p in course_folder.iterdir()}
    for folder in (course_folder, course_folder / "FORMULA_SHEET.md"):
        assert main(["course", "start", str(folder), "--no-lab"]) == 2
        assert "Choose another folder" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in course_folder.iterdir()} == before


def test_a_copy_holds_the_course_and_nothing_of_whoever_copies_it(course_folder, monkeypatch):
    """What lies beside the notebooks, hidden, linked or not, is not handed on."""
    (course_folder.parent / "elsewhere.txt").write_text("secret")
    for name in (".env", "my_answers.md", "grades/2026.csv", "images/c.png"):
        (course_folder / name).parent.mkdir(exist_ok=True)
        (course_folder / name).write_text("mine")
    for link in ("linked.txt", "images/linked.png"):
        (course_folder / link).symlink_to(course_folder.parent / "elsewhere.txt")
    out = course_folder.parent / "copy"
    assert commands(course_folder, monkeypatch)["copy"](out) == 0
    copied = {p.relative_to(out).as_posix() for p in (out / "notebooks").rglob("*") if p.is_file()}
    names = ("00_one.ipynb", "01_two.ipynb", "FORMULA_SHEET.md")
    assert copied == {f"notebooks/{name}" for name in names}
    assert not [p for p in out.rglob(".*")]


def test_a_students_version_makes_students_versions_but_nothing_for_teachers(
    course_folder, monkeypatch, capsys
):
    stub = nbformat.v4.new_code_cell("x = ...  # your turn", execution_count=4)
    stub.metadata = {"tags": ["exercise"], "barlow_edu": {"exercise": "0.1"}}
    notebook = book()
    notebook.cells[4] = stub
    notebook.metadata.pop("barlow_edu")
    nbformat.write(notebook, course_folder / "00_one.ipynb")
    student, again = course_folder.parent / "student", course_folder.parent / "again"
    course.build("student", course_folder, student)
    course.build("student", student, again)
    assert not {p.name for p in student.iterdir()} & set(copies.INSTRUCTORS_ONLY)
    for path in student.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes()
    run = commands(student, monkeypatch)
    for name in ("instructor", "site"):
        assert run[name](course_folder.parent / name) == 2
        assert "clone of the repository" in capsys.readouterr().err
    assert run["copy"](course_folder.parent / "copy") == 0
