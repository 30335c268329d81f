"""Students' notebooks that nbgrader and otter-grader can grade.

An exercise has as many points as stars. With one or two stars its own checker grades it, on hidden inputs drawn
anew (``checks.graded``); with three there is no single answer, so a person does, who sees what the checker said.
Neither grader is imported: both read what is written here from the notebook and from files of tests.
"""

import ast
import re
import secrets
from collections.abc import Iterator
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
    out = Path(out).expanduser().resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} is not an empty folder. Choose another one.")
    books = {p.stem: versions.student(nb.read_whole(p)) for p in nb.paths(notebooks)}
    seed = 1 + secrets.randbelow(10**9)
    mark = {"nbgrader": _nbgrader, "otter": _otter}[grader]
    marked = {name: list(mark(notebook, seed)) for name, notebook in books.items()}
    for name, notebook in books.items():
        folder = out / ("source/" + name if grader == "nbgrader" else "student")
        nb.relink_all(notebook, lambda to: _link(to, grader))
        nb.write(notebook, folder / f"{name}.ipynb")
        tests = [exercise for exercise in marked[name] if exercise.test and grader == "otter"]
        for exercise in tests:
            file = out / "autograder" / name / "tests" / f"{exercise.name}.py"
            write_text(file, _otter_test(exercise))
        for beside, content in copies.beside("student", Path(notebooks)).items():
            copies.put(content, folder / beside)
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


def _exercises(notebook, seed: int) -> Iterator[tuple[int, Exercise]]:
    """Place and exercise, from the last to the first, so that cells can be put in around one."""
    for place in reversed(range(len(notebook.cells))):
        cell = notebook.cells[place]
        if "exercise" not in nb.tags(cell):
            continue
        stars = STARS.findall("".join(c.source for c in notebook.cells[:place]))
        if not stars:
            raise ValueError(f"Exercise {nb.number(cell)}: no line **Difficulty:** ★☆☆ above it.")
        points = len(stars[-1])
        test = [
            "from barlow_edu.teaching import checks",  # whatever the name means on the page by now
            f"with checks.graded(seed={seed}):",
            *(f"    {ast.unparse(call)}" for call in nb.checks_in(cell.source)),
        ]
        name = "exercise_" + nb.number(cell).replace(".", "_")
        yield place, Exercise(name, points, test if points < 3 else [])


def _nbgrader(notebook, seed: int) -> Iterator[Exercise]:
    """Mark the exercises, and put a locked test behind each that has one; nbgrader hides its inside from students."""
    for place, exercise in _exercises(notebook, seed):
        cell, name, points = notebook.cells[place], exercise.name, {"points": exercise.points}
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
            notebook.cells.insert(place + 1, test)
        yield exercise


def _otter(notebook, seed: int) -> Iterator[Exercise]:
    """Name the test of each exercise, and frame what a person grades: otter's PDF can show just that."""
    for place, exercise in _exercises(notebook, seed):
        if exercise.test:
            notebook.cells[place].metadata["otter"] = {"tests": [exercise.name]}
        else:
            for at, edge in ((place + 1, "END"), (place - 1, "BEGIN")):
                mark = new_markdown_cell(f"<!-- {edge} QUESTION -->", id=f"{exercise.name}_{edge}")
                notebook.cells.insert(at, mark)
        yield exercise


def _otter_test(exercise: Exercise) -> str:
    """A test file of otter's: a doctest that prints nothing."""
    code = [("... " if line.startswith(" ") else ">>> ") + line for line in exercise.test]
    suite = {"type": "doctest", "cases": [{"code": "\n".join(code), "hidden": True}]}
    return f"OK_FORMAT = True\ntest = {dict(name=exercise.name, points=exercise.points, suites=[suite])!r}\n"
