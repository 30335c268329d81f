"""Student notebooks fail exactly at the exercises; with the solutions filled in they pass."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from barlow_edu import course
from barlow_edu.cli import main

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("[0-9][0-9]_*.ipynb"))
QUICK = ("03_the_cross_correlation_matrix", "04_the_loss_from_scratch")  # seconds each: really run


def read(path):
    return nbformat.read(path, as_version=4)


def tagged(notebook, tag):
    return [c for c in notebook.cells if tag in c.metadata.get("tags", [])]


def failing_cells(notebook):
    """Ids of the cells that raise, and what they raise, when everything is run."""
    resources = {"metadata": {"path": NOTEBOOKS[0].parent}}
    NotebookClient(notebook, timeout=300, allow_errors=True, resources=resources).execute()
    return {
        cell.id: output.ename
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "error"
    }


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_every_exercise_has_a_stub_and_a_solution(path):
    notebook = read(path)
    exercises = [c.metadata["barlow_edu"]["exercise"] for c in tagged(notebook, "exercise")]
    solutions = [c.metadata["barlow_edu"]["exercise"] for c in tagged(notebook, "solution")]
    assert 2 <= len(exercises) <= 4 and exercises == solutions
    assert all(x.startswith(f"{int(path.stem[:2])}.") for x in exercises)
    for cell in tagged(notebook, "solution"):
        assert cell.metadata["jupyter"]["source_hidden"], "solutions are folded"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_student_version_opens_exercises_and_drops_solutions(path):
    original, version = read(path), course.student(read(path))
    assert not tagged(version, "solution") and not tagged(version, "instructor")
    assert len(tagged(version, "exercise")) == len(tagged(original, "exercise"))
    for cell in tagged(version, "exercise"):
        assert 'raise NotImplementedError("Exercise ' in cell.source
        assert cell.outputs == [] and cell.execution_count is None
    hidden = {s.source for s in tagged(original, "solution")}
    assert not any(c.source in hidden for c in version.cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_filled_in_student_version_is_the_tested_notebook(path):
    """The solutions in the exercises' places leave the code that nbval runs, without the open stubs."""
    original = read(path)
    filled = course.fill_in(course.student(read(path)), original)
    code = [c.source for c in filled.cells if c.cell_type == "code"]
    skipped = tagged(original, "exercise") + tagged(original, "instructor")
    tested = [c.source for c in original.cells if c.cell_type == "code" and c not in skipped]
    assert code == tested


@pytest.mark.parametrize("stem", QUICK)
def test_student_notebook_fails_exactly_at_the_exercises(stem):
    path = next(p for p in NOTEBOOKS if p.stem == stem)
    version = course.student(read(path))
    exercises = {c.id for c in tagged(version, "exercise")}
    cleared = {c.id for c in version.cells if c.cell_type == "code" and not c.get("outputs")}
    failing = failing_cells(version)
    assert {i for i, name in failing.items() if name == "NotImplementedError"} == exercises
    assert set(failing) <= cleared, "only cells that depend on an exercise may fail"
    filled = course.fill_in(course.student(read(path)), read(path))
    assert failing_cells(filled) == {}


def test_build_writes_all_and_never_overwrites(tmp_path, capsys):
    out = tmp_path / "student"
    assert main(["course", "student", "--out", str(out)]) == 0
    assert sorted(p.name for p in out.iterdir()) == [p.name for p in NOTEBOOKS]
    before = (out / NOTEBOOKS[0].name).read_bytes()
    assert main(["course", "student", "--out", str(out)]) == 2
    assert "Choose another folder" in capsys.readouterr().err
    assert (out / NOTEBOOKS[0].name).read_bytes() == before


def test_student_build_is_the_same_every_time(tmp_path):
    for name in ("a", "b"):
        course.build("student", NOTEBOOKS[0].parent, tmp_path / name)
    for path in NOTEBOOKS:
        assert (tmp_path / "a" / path.name).read_bytes() == (
            tmp_path / "b" / path.name
        ).read_bytes()


def test_instructor_version_unfolds_solutions(tmp_path):
    assert main(["course", "instructor", "--out", str(tmp_path)]) == 0
    for path in NOTEBOOKS:
        solutions = tagged(read(tmp_path / path.name), "solution")
        assert solutions and not any(
            c.metadata.get("jupyter", {}).get("source_hidden") for c in solutions
        )


def test_an_exercise_without_a_stub_is_an_error():
    notebook = nbformat.v4.new_notebook()
    cell = nbformat.v4.new_code_cell("x = 1")
    cell.metadata["tags"] = ["exercise"]
    notebook.cells.append(cell)
    with pytest.raises(ValueError, match="your turn"):
        course.student(notebook)


def test_missing_notebooks_are_named(tmp_path, capsys):
    command = ["course", "student", "--out", str(tmp_path / "x"), "--notebooks", str(tmp_path)]
    assert main(command) == 2
    assert str(tmp_path) in capsys.readouterr().err
