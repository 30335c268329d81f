"""Students' notebooks that nbgrader and otter-grader can grade.

An exercise has as many points as stars. With one or two stars its own checker grades it, on hidden inputs drawn
anew (``checks.graded``); with three there is no single answer, so a person does, who sees what the checker said.
Neither grader is imported: both read what is written here from the notebook and from files of tests.
"""

import ast
import re
import secrets
from pathlib import Path
from typing import NamedTuple

from nbformat.v4 import new_code_cell, new_markdown_cell

from barlow_edu.publishing import copies, versions
from barlow_edu.publishing import notebook as nb
from barlow_edu.storage.files import write_text

STARS = re.compile(r"\*\*Difficulty:\*\* (★+)")
STUB = re.compile(r'^([ \t]*)raise NotImplementedError\("Exercise .*$', re.MULTILINE)
# nbgrader's own limit of 30 seconds a cell is shorter than some trainings.
CONFIG = """c = get_config()
c.CourseDirectory.course_id = "barlow_edu"
c.Execute.timeout = 600
"""
NEXT = {
    "nbgrader": "nbgrader generate_assignment NN_NAME there (extra grading); students get what is in release.",
    "otter": "otter generate in a folder of autograder (extra grading); students get what is in student.",
}


class Exercise(NamedTuple):
    """What a grader is to know of an exercise; ``test`` has the lines of its code, none where a person grades."""

    name: str
    points: int
    test: list[str]


def build(grader: str, notebooks: Path, out: Path) -> str:
    """Write the students' notebooks for "nbgrader" or "otter" into ``out``; returns what to do next.

    nbgrader: ``source/NN_NAME/NN_NAME.ipynb``, and a configuration, so that ``out`` is a course folder. otter: the
    notebooks in ``student``, their tests in ``autograder/NN_NAME/tests``. The seed of the hidden inputs is drawn anew
    in every build and stands in the tests. Raises FileExistsError if ``out`` holds anything, FileNotFoundError
    without notebooks, ValueError for one that is not a full run or an exercise without stars; then nothing is
    written.
    """
    out = copies.new_folder(out)
    books = {p.stem: versions.student(nb.read_whole(p)) for p in nb.paths(notebooks)}
    seed = 1 + secrets.randbelow(10**9)
    marked = {name: _marked(notebook, grader, seed) for name, notebook in books.items()}
    for name, notebook in books.items():
        folder = out / ("source/" + name if grader == "nbgrader" else "student")
        nb.relink_all(notebook, lambda to: _link(to, grader))
        nb.write(notebook, folder / f"{name}.ipynb")
        copies.put(copies.beside("student", notebooks), folder)
        for exercise in marked[name]:
            if exercise.test and grader == "otter":
                file = out / "autograder" / name / "tests" / f"{exercise.name}.py"
                write_text(file, _otter_test(exercise))
    if grader == "nbgrader":
        write_text(out / "nbgrader_config.py", CONFIG)
    points = sum(exercise.points for exercises in marked.values() for exercise in exercises)
    return f"{len(books)} assignments, {points} points in {out}. Next: {NEXT[grader]}"


def _link(to: str, grader: str) -> str | None:
    """Where a link leads when every notebook of nbgrader's lies in a folder of its own."""
    if to.startswith("../"):
        return None
    apart = grader == "nbgrader" and to.endswith(".ipynb") and "/" not in to
    return f"../{Path(to).stem}/{to}" if apart else to


def _marked(notebook, grader: str, seed: int) -> list[Exercise]:
    """The exercises of a notebook, of which each is marked for the grader."""
    cells, exercises, stars = [], [], []
    for cell in notebook.cells:
        cells.append(cell)
        stars += STARS.findall(cell.source)
        if "exercise" in nb.tags(cell):
            exercises.append(_exercise(cell, stars, seed))
            {"nbgrader": _nbgrader, "otter": _otter}[grader](cells, exercises[-1])
    notebook.cells = cells
    return exercises


def _exercise(cell, stars: list[str], seed: int) -> Exercise:
    if not stars:
        raise ValueError(f"Exercise {nb.number(cell)}: no line **Difficulty:** ★☆☆ above it.")
    test = [
        "from barlow_edu.teaching import checks",  # whatever the name means on the page by now
        f"with checks.graded(seed={seed}):",
        *(f"    {ast.unparse(call)}" for call in nb.checks_in(cell.source)),
    ]
    name, points = "exercise_" + nb.number(cell).replace(".", "_"), len(stars[-1])
    return Exercise(name, points, test if points < 3 else [])


def _nbgrader(cells: list, exercise: Exercise) -> None:
    """Mark the last cell, and put its locked test behind it, the inside of which nbgrader hides from students."""
    cell, name, points = cells[-1], exercise.name, {"points": exercise.points}
    # Without a region nbgrader would replace the whole cell.
    cell.source = STUB.sub(r"\1### BEGIN SOLUTION\n\g<0>\n\1### END SOLUTION", cell.source)
    common = {"schema_version": 3, "solution": True, "locked": False, "task": False}
    graded = {"grade": True, **points} if not exercise.test else {"grade": False}
    cell.metadata["nbgrader"] = {**common, **graded, "grade_id": name}
    if exercise.test:
        hidden = ["### BEGIN HIDDEN TESTS", *exercise.test, "### END HIDDEN TESTS"]
        says = "# Your answer is graded here. Leave this cell as it is."
        test = new_code_cell("\n".join([says, *hidden]), id=f"{name}_test")
        common |= {"solution": False, "locked": True}
        test.metadata["nbgrader"] = {**common, "grade": True, **points, "grade_id": test.id}
        cells.append(test)


def _otter(cells: list, exercise: Exercise) -> None:
    """Name the test of the last cell, or frame what a person grades: otter's PDF can show just that."""
    if exercise.test:
        cells[-1].metadata["otter"] = {"tests": [exercise.name]}
        return
    begin, end = (
        new_markdown_cell(f"<!-- {edge} QUESTION -->", id=f"{exercise.name}_{edge}")
        for edge in ("BEGIN", "END")
    )
    cells[-2:] = [begin, *cells[-2:], end]


def _otter_test(exercise: Exercise) -> str:
    """A test file of otter's: a doctest that prints nothing."""
    code = [("... " if line.startswith(" ") else ">>> ") + line for line in exercise.test]
    suite = {"type": "doctest", "cases": [{"code": "\n".join(code), "hidden": True}]}
    return f"OK_FORMAT = True\ntest = {dict(name=exercise.name, points=exercise.points, suites=[suite])!r}\n"
