"""Student builds that graders grade: one answer right, one wrong, one for a person, one left open."""

import ast
import os
import re
import sys
from pathlib import Path

import nbformat
import pytest

from barlow_edu.cli import main
from barlow_edu.publishing import copies, grading, versions
from barlow_edu.publishing import notebook as nb
from barlow_edu.teaching import checks
from barlow_edu.teaching.checks import NotRight

NAME = "05_the_loss_from_scratch"
# Two and one exercises of the course are exact, one is open; the second answer is wrong and hides the checkers.
RIGHT, WRONG, BY_HAND, OPEN = (f"exercise_5_{i}" for i in (1, 2, 3, 4))
CHEAT = """
def gradient_of_c(c, lambd):
    return 0 * c

class checks:
    gradient_of_c = print

checks.gradient_of_c(gradient_of_c)
"""


@pytest.fixture(scope="module")
def source():
    """Notebook 05 as it is in the course."""
    return nb.read(copies.notebooks_dir() / f"{NAME}.ipynb")


@pytest.fixture(scope="module")
def course(source, tmp_path_factory):
    """A folder with notebook 05, of which only the setup and the exercises are left."""
    folder = tmp_path_factory.mktemp("course")
    book = versions.student(nbformat.from_dict(source))
    kept = [i for i, c in enumerate(book.cells) if nb.tags(c) & {"setup", "exercise"}]
    kept = sorted({j for i in kept for j in (i - 1, i)})
    book.cells = [book.cells[i] for i in kept]
    nb.write(book, folder / f"{NAME}.ipynb")
    return folder


def build(grader, course, out):
    assert (
        main(["course", "student", "--for", grader, "--notebooks", str(course), "--out", str(out)])
        == 0
    )


def answer(path, source, target):
    """A student's submission: three of the four exercises written, and handed in."""
    book, solved = nb.read(path), nb.solutions(source)
    cells = {nb.number(c): c for c in nb.tagged(book, "exercise")}
    assert len(cells) == 4 and all("NotImplementedError" in c.source for c in cells.values())
    cells["5.1"].source, cells["5.2"].source, cells["5.3"].source = (
        solved["5.1"],
        CHEAT,
        solved["5.3"],
    )
    nb.write(book, target)


def test_nbgrader_gives_the_points(course, source, tmp_path, monkeypatch):
    pytest.importorskip("nbgrader")
    from nbgrader.api import Gradebook
    from nbgrader.apps.api import NbGraderAPI
    from nbgrader.coursedir import CourseDirectory
    from traitlets.config import PyFileConfigLoader

    scripts = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    monkeypatch.setenv("PATH", scripts)  # nbgrader calls alembic there
    out = tmp_path / "course"
    build("nbgrader", course, out)
    config = PyFileConfigLoader(str(out / "nbgrader_config.py")).load_config()
    config.CourseDirectory.root = str(out)
    api = NbGraderAPI(CourseDirectory(config=config), config=config)
    result = api.generate_assignment(NAME)
    assert result["success"], result["log"]
    released = out / "release" / NAME / f"{NAME}.ipynb"
    assert "seed=" not in released.read_text(encoding="utf-8")
    handed_in = out / "submitted" / "ada" / NAME
    answer(released, source, handed_in / f"{NAME}.ipynb")
    result = api.autograde(NAME, "ada")
    assert result["success"], result["log"]
    with Gradebook(f"sqlite:///{out / 'gradebook.db'}", "barlow_edu") as book:
        grades = book.find_submission_notebook(NAME, NAME, "ada").grades
        score = {g.name: (g.auto_score, g.max_score, g.needs_manual_grade) for g in grades}
    assert score == {
        f"{RIGHT}_test": (1, 1, False),
        f"{WRONG}_test": (0, 2, False),
        BY_HAND: (None, 3, True),
        f"{OPEN}_test": (0, 2, False),
    }


def test_otter_gives_the_points(course, source, tmp_path, monkeypatch):
    pytest.importorskip("otter")
    from otter.api import grade_submission
    from otter.generate import main as generate

    build("otter", course, tmp_path / "out")
    assert not [
        p for p in (tmp_path / "out" / "student").rglob("*") if "seed=" in p.read_text("utf-8")
    ]
    monkeypatch.chdir(tmp_path / "out" / "autograder" / NAME)
    generate()
    answer(tmp_path / "out" / "student" / f"{NAME}.ipynb", source, tmp_path / "handed_in.ipynb")
    results = grade_submission(str(tmp_path / "handed_in.ipynb"), "autograder.zip", quiet=True)
    score = {test.name: (test.score, test.possible) for test in results.results.values()}
    assert score == {RIGHT: (1, 1), WRONG: (0, 2), OPEN: (0, 2)}
    assert (results.total, results.possible) == (1, 5)


def test_every_exercise_of_the_course_has_points_and_a_way_to_be_graded(tmp_path):
    said = grading.build("otter", copies.notebooks_dir(), tmp_path)
    assert "otter generate in a folder of autograder (extra grading)" in said
    number, points = map(int, re.match(r"(\d+) assignments, (\d+) points", said).groups())
    assert number == len(list((tmp_path / "student").glob("[0-9]*.ipynb"))) >= 17
    tests = {
        p.stem: ast.literal_eval(p.read_text("utf-8").partition("test = ")[2])
        for p in tmp_path.rglob("exercise*.py")
    }
    given = sum(test["points"] for test in tests.values())
    framed = 0
    for path in (tmp_path / "student").glob("*.ipynb"):
        book = nb.read(path)
        nbformat.validate(book)
        for place, cell in enumerate(book.cells):
            if "exercise" not in nb.tags(cell):
                continue
            [name] = cell.metadata.get("otter", {}).get("tests", [None])
            if name:
                code = tests.pop(name)["suites"][0]["cases"][0]["code"]
                assert code.count("... ") == len(nb.checks_in(cell.source)) >= 1
            else:
                framed += 1
                around = book.cells[place - 2].source, book.cells[place + 1].source
                assert around == ("<!-- BEGIN QUESTION -->", "<!-- END QUESTION -->")
                assert "★★★" in book.cells[place - 1].source
    assert not tests and framed >= 10 and given + 3 * framed == points


def test_a_build_of_nbgrader_is_a_course_folder_of_valid_notebooks(course, tmp_path):
    build("nbgrader", course, tmp_path / "out")
    book = nb.read(tmp_path / "out" / "source" / NAME / f"{NAME}.ipynb")
    nbformat.validate(book)
    marks = [c.metadata["nbgrader"] for c in book.cells if "nbgrader" in c.metadata]
    assert [m["grade_id"] for m in marks] == [
        *(RIGHT, f"{RIGHT}_test", WRONG, f"{WRONG}_test", BY_HAND, OPEN, f"{OPEN}_test")
    ]
    assert [m.get("points", 0) for m in marks] == [0, 1, 0, 2, 3, 0, 2]
    assert [m["locked"] for m in marks] == [False, True, False, True, False, False, True]
    links = set(re.findall(r"\]\(([^)]*\.ipynb)\)", "".join(c.source for c in book.cells)))
    assert links and all(re.fullmatch(r"\.\./(\w+)/\1\.ipynb", link) for link in links)


def test_hidden_inputs_differ_from_build_to_build(course, tmp_path):
    seeds = set()
    for out in ("a", "b"):
        grading.build("otter", course, tmp_path / out)
        texts = {p.read_text("utf-8") for p in (tmp_path / out).rglob("exercise*.py")}
        [seed] = {m for text in texts for m in re.findall(r"seed=(\d+)", text)}
        seeds.add(int(seed))
    assert len(seeds) == 2 and min(seeds) > 0


def test_nothing_is_overwritten_and_no_archive_holds_the_tests(course, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("work")
    with pytest.raises(FileExistsError, match="is not an empty folder"):
        grading.build("otter", course, tmp_path)
    command = ["course", "student", "--for", "otter", "--zip", "--notebooks", str(course)]
    assert main([*command, "--out", str(tmp_path / "out")]) != 0
    assert "--zip would pack the tests" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["mine.txt"]


def test_an_exercise_without_stars_is_named(course, tmp_path):
    path = Path(course / f"{NAME}.ipynb")
    book = nb.read(path)
    for cell in book.cells:
        cell.source = cell.source.replace("**Difficulty:**", "Difficulty")
    nb.write(book, tmp_path / "in" / path.name)
    with pytest.raises(ValueError, match="Exercise 5.1: no line"):
        grading.build("nbgrader", tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_answer_learned_by_heart_is_right_in_class_and_wrong_when_graded():
    def rms(c):
        off = c.square().sum() - c.diagonal().square().sum()
        return (off / (c.numel() - len(c))).sqrt()

    known = []
    checks.off_diagonal_rms(lambda c: known.append((c, rms(c))) or known[-1][1])

    def by_heart(c):
        return next((value for seen, value in known if seen.equal(c)), 0.5)

    checks.off_diagonal_rms(by_heart)
    with checks.graded(seed=7):
        checks.off_diagonal_rms(rms)
        with pytest.raises(NotRight):
            checks.off_diagonal_rms(by_heart)


def test_graded_is_silent_and_an_open_exercise_is_not_right(capfd):
    with checks.graded(seed=7), pytest.raises(NotRight, match="still open"):
        print("points: 100")
        checks.off_diagonal_rms(lambda c: ...)
    assert capfd.readouterr() == ("", "")
    checks.off_diagonal_rms(lambda c: ...)
    assert "still open" in capfd.readouterr().out
