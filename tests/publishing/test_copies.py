"""Student notebooks fail exactly at the exercises; with the solutions filled in they pass.

Executed are, in IPython within this process, which has loaded torch already: of every notebook its exercises, open
and filled in, with all cells that they need; of the light notebooks every cell, in both versions. For the rest of the
heavy notebooks it is shown on the text: filled in they hold the very code that nbval runs, and in the student version
no other cell needs an exercise or a lost name.
"""

import copy
import json
import re
import zipfile
from functools import cache
from pathlib import Path

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from needed_cells import needed

import barlow_edu as be
from barlow_edu.cli import main
from barlow_edu.publishing import copies
from barlow_edu.publishing import versions as course
from barlow_edu.publishing.notebook import names, number, read, solutions, tagged
from barlow_edu.teaching.checks.base import untouched
from barlow_edu.training import pretrain

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("[0-9][0-9]_*.ipynb"))
LIGHT = ("04_the_cross_correlation_matrix", "05_the_loss_from_scratch")  # every cell is run


read_once = cache(read)
student_once = cache(lambda path: course.student(read(path)))


def original_of(path):
    """A notebook of the course, to be changed at will."""
    return copy.deepcopy(read_once(path))


def student_of(path):
    """The student's notebook, to be changed at will."""
    return copy.deepcopy(student_once(path))


def fill_in(student_notebook, notebook):
    """The student's notebook with the solutions of ``notebook`` written into its exercises."""
    for cell in tagged(student_notebook, "exercise"):
        cell.source = solutions(notebook)[number(cell)]
    return student_notebook


def failing_cells(notebook):
    """Ids of the code cells that raise, and what they raise, when all are run; what one prints becomes its output."""
    InteractiveShell.clear_instance()
    shell, failing = InteractiveShell.instance(), {}
    try:
        for cell in (c for c in notebook.cells if c.cell_type == "code"):
            with capture_output() as printed:
                result = shell.run_cell(cell.source)
            cell.outputs = [nbformat.v4.new_output("stream", text=printed.stdout)]
            if error := result.error_before_exec or result.error_in_exec:
                failing[cell.id] = f"{type(error).__name__}: {error}"
    finally:
        InteractiveShell.clear_instance()
    return failing


def open_tasks(notebook):
    """Id of each exercise -> how the error begins that it must raise while it is open."""
    return {
        cell.id: f"NotImplementedError: Exercise {number(cell)}: write "
        for cell in tagged(notebook, "exercise")
    }


def waiting(path):
    """Ids of the cells that use what a learner's answer makes: without an output in the student version."""
    original = original_of(path)
    for cell in original.cells:
        if cell.cell_type == "code":
            cell.execution_count = 1
    version = course.student(original)
    cleared = {c.id for c in version.cells if c.cell_type == "code" and not c.execution_count}
    hidden = tagged(version, "exercise") + tagged(version, "reveal")  # a prediction's result, too
    return cleared - {c.id for c in hidden}


def assert_fails_at_the_exercises(failing, tasks, users=()):
    """While they are open they fail with their task; ``users``, which need the answers, may fail for want of them."""
    assert set(tasks) <= set(failing) <= {*tasks, *users}, failing
    for cell, error in failing.items():
        begin = tasks[cell] if cell in tasks else (*tasks.values(), "NameError: ")
        assert error.startswith(begin), (cell, error)


def as_a_learner_runs_it(path):
    """What the exercises need, and each exercise twice: open, then filled in (its id ends in -filled)."""
    version, filled = student_of(path), student_of(path)
    filled = fill_in(filled, original_of(path))
    exercises = {c.id for c in tagged(version, "exercise")}
    steps = needed(filled, exercises)
    opened, done = ({c.id: c for c in nb.cells} for nb in (version, filled))
    cells = []
    for step in steps:
        cells.append(opened[step])
        if step in exercises:
            cells.append(copy.deepcopy(done[step]))
            cells[-1].id = f"{step}-filled"
    version.cells = cells
    return version


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_every_exercise_has_a_stub_and_a_solution(path):
    notebook = original_of(path)
    exercises = [number(c) for c in tagged(notebook, "exercise")]
    solutions = [number(c) for c in tagged(notebook, "solution")]
    assert 2 <= len(exercises) <= 6 and exercises == solutions
    assert all(x.startswith(f"{int(path.stem[:2])}.") for x in exercises)
    for cell in tagged(notebook, "solution"):
        assert cell.metadata["jupyter"]["source_hidden"], "solutions are folded"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_student_version_opens_exercises_and_drops_solutions(path):
    original, version = original_of(path), student_of(path)
    assert not tagged(version, "solution") and not tagged(version, "instructor")
    assert len(tagged(version, "exercise")) == len(tagged(original, "exercise"))
    for cell in tagged(version, "exercise"):
        assert f'raise NotImplementedError("Exercise {number(cell)}: write ' in cell.source
        assert cell.outputs == [] and cell.execution_count is None
    hidden = {s.source for s in tagged(original, "solution")}
    assert not any(c.source in hidden for c in version.cells)


def left_lines(original, version):
    """Lines of solutions, up to their check, that a student version holds and does not tell before the exercise.

    What stands before it is meant to be read: hints, and what was taught.
    """
    texts = {c.id: c.source + json.dumps(c.get("outputs", [])) for c in version.cells}
    places, solved, left = list(texts), solutions(original), []
    for cell in tagged(version, "exercise"):
        at = places.index(cell.id)
        before, after = (" ".join(map(texts.get, p)) for p in (places[:at], places[at:]))
        [stub] = [c.source for c in original.cells if c.id == cell.id]
        lines = solved[number(cell)].partition("\nchecks.")[0].splitlines()
        new = [x for x in map(str.strip, lines) if len(x) > 7 and x not in stub + before]
        left += [x for x in new if x in after]
    return left


# The common mistake of notebook 4 ends as its exercise does, and that of notebook 6 as many a function does.
TAUGHT_LATER = ["return a.T @ b / len(a)", "return loss"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_no_line_of_a_solution_is_left(path):
    left = left_lines(original_of(path), student_of(path))
    assert [line for line in left if line not in TAUGHT_LATER] == []


def test_a_line_of_a_solution_that_is_left_is_seen():
    stub, solution = "def f(x):\n    return ...  # your turn\n\n\nchecks.f(f)", "return x.square()"
    filled = f"def f(x):\n    {solution}\n\n\nchecks.f(f)"
    cells = [code(stub, "exercise", "1.1"), code(filled, "solution", "1.1"), code(f"# {solution}")]
    book = notebook_of(*cells)
    assert left_lines(copy.deepcopy(book), course.student(copy.deepcopy(book))) == [solution]
    book.cells.insert(0, nbformat.v4.new_markdown_cell(f"Hint 3: `{solution}`"))
    assert left_lines(copy.deepcopy(book), course.student(copy.deepcopy(book))) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_filled_in_student_version_is_the_tested_notebook(path):
    """The solutions in the exercises' places leave the code that nbval runs, without the open stubs."""
    original = original_of(path)
    filled = fill_in(student_of(path), original)
    code = [c.source for c in filled.cells if c.cell_type == "code"]
    skipped = tagged(original, "exercise") + tagged(original, "instructor")
    tested = [c.source for c in original.cells if c.cell_type == "code" and c not in skipped]
    assert code == tested


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_most_of_a_page_does_not_wait_for_an_exercise(path):
    """A page uses what the learner wrote, and a learner who skips an exercise can still read on."""
    code = [cell for cell in original_of(path).cells if cell.cell_type == "code"]
    assert len(waiting(path)) <= len(code) / 3, sorted(waiting(path))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_no_name_gets_lost_with_the_solutions(path):
    """What only a solution made (an import, a helper) is used nowhere in the student version."""
    version = student_of(path)
    found = [names(c.source) for c in version.cells if c.cell_type == "code"]
    made = {
        name for cell in tagged(original_of(path), "solution") for name in names(cell.source)[0]
    }
    lost = made.difference(*(defined for defined, _ in found))
    assert not [lost & used for _, used in found if lost & used]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_exercises_fail_while_open_and_pass_when_filled_in(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    # What an exercise needs of a run is that there is one: here it is short, and nbval runs it as it stands.
    short = {"epochs": 1, "limit": 512, "on_snapshot": None}
    monkeypatch.setattr(
        be, "pretrain", lambda *given, **settings: pretrain(*given, **settings | short)
    )
    notebook = as_a_learner_runs_it(path)
    with untouched():
        failing = failing_cells(notebook)
    # What a page asserts of a training, and of a prediction that rests on one, cannot hold here: see above.
    unasked = {c.id for c in tagged(notebook, "reveal")}
    unasked |= {c.id for c in notebook.cells if "be.pretrain(" in c.source} - set(
        open_tasks(notebook)
    )
    failing = {k: v for k, v in failing.items() if k not in unasked or "AssertionError" not in v}
    assert_fails_at_the_exercises(failing, open_tasks(original_of(path)))
    done = [c for c in notebook.cells if c.id.endswith("-filled")]
    assert len(done) == len(tagged(original_of(path), "solution")) > 0
    for cell in done:
        printed = "".join(o.get("text", "") for o in cell.outputs)
        assert re.search(r"^\w+: right\.$", printed, re.MULTILINE), cell.source


@pytest.mark.parametrize("stem", LIGHT)
def test_student_notebook_fails_exactly_at_the_exercises(stem, monkeypatch):
    path = next(p for p in NOTEBOOKS if p.stem == stem)
    monkeypatch.chdir(path.parent)
    version = student_of(path)
    users = {*waiting(path), *(cell.id for cell in tagged(version, "reveal"))}
    filled = fill_in(student_of(path), original_of(path))
    with untouched():
        failing, failing_filled = failing_cells(version), failing_cells(filled)
    assert_fails_at_the_exercises(failing, open_tasks(original_of(path)), users)
    assert failing_filled == {}


@pytest.fixture(scope="module")
def builds(tmp_path_factory):
    """A folder with the builds ``student`` and ``instructor``, as the commands write them."""
    folder = tmp_path_factory.mktemp("builds")
    for kind in ("student", "instructor"):
        assert main(["course", kind, "--out", str(folder / kind)]) == 0
    return folder


def test_no_link_of_a_build_leads_out_of_it(builds):
    for kind in ("student", "instructor"):
        for path in sorted((builds / kind).glob("*.ipynb")):
            for cell in read(path).cells:
                shown = [
                    o.get("data", {}).get("text/markdown", "") for o in cell.get("outputs", [])
                ]
                text = "\n".join([*shown, cell.source if cell.cell_type == "markdown" else ""])
                found = re.findall(r"\]\((?!https?:|#|mailto:|data:)([^)#\s]+)", text)
                assert all((builds / kind / link).exists() for link in found), (path.name, found)


def test_build_writes_all_and_never_overwrites(builds, capsys):
    out = builds / "student"
    assert sorted(p.name for p in out.glob("*.ipynb")) == [p.name for p in NOTEBOOKS]
    before = (out / NOTEBOOKS[0].name).read_bytes()
    assert main(["course", "student", "--out", str(out)]) == 2
    assert "Choose another folder" in capsys.readouterr().err
    assert (out / NOTEBOOKS[0].name).read_bytes() == before


def test_student_build_is_the_same_every_time(builds, tmp_path):
    course.build("student", NOTEBOOKS[0].parent, tmp_path)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (builds / "student" / path.name).read_bytes()


def test_instructor_version_unfolds_solutions(builds):
    for path in NOTEBOOKS:
        solutions = tagged(read(builds / "instructor" / path.name), "solution")
        assert solutions and not any(
            c.metadata.get("jupyter", {}).get("source_hidden") for c in solutions
        )


def code(source, tag=None, number=None):
    cell = nbformat.v4.new_code_cell(source, execution_count=1)
    cell.outputs = [nbformat.v4.new_output("stream", text="old")]
    cell.metadata["tags"] = [tag] if tag else []
    if number:
        cell.metadata["barlow_edu"] = {"exercise": number}
    return cell


def notebook_of(*cells):
    return nbformat.v4.new_notebook(cells=list(cells))


def test_an_exercise_without_a_stub_is_an_error():
    with pytest.raises(ValueError, match="Exercise 1.1: its cell has no line .*your turn"):
        course.student(notebook_of(code("x = 1", "exercise", "1.1")))


def test_an_exercise_without_a_number_is_an_error():
    with pytest.raises(ValueError, match="lacks its number"):
        course.student(notebook_of(code("x = ...  # your turn", "exercise")))


@pytest.mark.parametrize(
    ("source", "task"),
    [
        ("def f(a, b=1):\n    return ...  # your turn", "write f(a, b=1) in place of this line."),
        ("def f(a):\n    b = 1\n\n    return ...  # your turn: b", "write f(a) in place of"),
        ("class A(B):\n    def f(self):\n        return ...  # your turn", "write A in place of"),
        ("answer = ...  # your turn", "write answer in place of this line."),
        ("def f():\n    pass\n\n\nw = ...  # your turn", "write w in place of this line."),
    ],
)
def test_the_stub_tells_what_to_write_where_it_is_missing(source, task):
    version = course.student(notebook_of(code(source, "exercise", "2.3")))
    opened = version.cells[0].source
    compile(opened, "cell", "exec")
    before, line = source.splitlines()[:-1], opened.splitlines()[-1]
    assert opened.splitlines()[:-1] == before
    assert f'raise NotImplementedError("Exercise 2.3: {task}' in line
    indent = len(source.splitlines()[-1]) - len(source.splitlines()[-1].lstrip())
    assert line.startswith(" " * indent + "raise")


def test_what_a_solution_does_after_its_check_stays_as_a_reward():
    stub = "def f(x):\n    return ...  # your turn\n\n\nchecks.f(f)"
    solution = (
        "def f(x):\n    y = 2\n    return x + y\n\n\nchecks.f(\n    f\n)\n# look:\nprint(f(3))"
    )
    cells = code(stub, "exercise", "1.1"), code(solution, "solution", "1.1")
    (cell,) = course.student(notebook_of(*cells)).cells
    assert cell.source.endswith("\nchecks.f(f)\n# look:\nprint(f(3))")
    assert "y = 2" not in cell.source


def test_outputs_that_depend_on_an_exercise_are_cleared():
    """Through as many cells as it takes, and not where a name is made anew."""
    cells = [
        code("y = 5\nz = 1\nprint(y)"),
        code("def f(x):\n    return ...  # your turn", "exercise", "1.1"),
        code("def f(x):\n    z = x\n    return z", "solution", "1.1"),
        code("a = f(2)"),
        code("print(z)"),
        code("def g():\n    return a"),
        code("g()"),
        code("a = 3\nprint(a)"),
        code("print(a)"),
    ]
    version = course.student(notebook_of(*cells))
    assert [bool(c.outputs) for c in version.cells] == [1, 0, 0, 1, 0, 0, 1, 1]
    assert all(bool(c.outputs) == bool(c.execution_count) for c in version.cells)


@pytest.mark.parametrize(
    ("source", "defined", "used"),
    [
        ("x = 1\nprint(x, y)", "x", "print y"),
        ("import a.b as c\nfrom d import e\nc.f(e)", "c e", ""),
        ("def f(q):\n    g = 1\n    return h + g + q", "f", "h"),
        ("class A(B):\n    c = d\n\n    def m(self):\n        return k", "A", "B d k"),
        ("with open(p) as k:\n    z = k.read()\n    z, w", "k z", "open p w"),
        ("for i in n:\n    t = i\n    t + u", "i t", "n u"),
        ("try:\n    a\nexcept E as e:\n    v = e\nelse:\n    b = 1", "v b", "a E"),
        ("def f():\n    x = {}\n    x[0] = x.y = 1", "f", ""),
        ("x = f()\nx.y[k] = 1\ndel k", "x", "f k"),
        ("z = z - 1", "z", "z"),
        ("x += 1", "x", "x"),
        ("d[k] = 3", "d", "d k"),
        ("a.b = 3", "a", "a"),
        ("[i for i in z if i > low]", "", "z low"),
        ("%matplotlib inline\n!ls\nq", "", "q"),
    ],
)
def test_names_that_a_cell_leaves_and_takes(source, defined, used):
    assert names(source) == (set(defined.split()), set(used.split()))


def test_needed_cells_are_followed_backwards():
    sources = ["import a", "x = a.b", "y = 1", "x = x + 1", "z = y", "x", "x = 0"]
    cells = [code(s) for s in sources]
    cells.insert(0, code("seed = 0", "setup"))
    notebook = notebook_of(*cells)
    found = needed(notebook, [cells[6].id])
    assert [cells.index(c) for c in cells if c.id in found] == [0, 1, 2, 4, 6]


def test_teaching_notes_are_put_together(builds):
    text = (builds / "instructor" / "TEACHING_NOTES.md").read_text(encoding="utf-8")
    assert text.count("\n## ") == len(NOTEBOOKS)
    for path in NOTEBOOKS:
        for cell in tagged(original_of(path), "instructor"):
            assert cell.source.splitlines()[-1] in text


def test_instructor_build_never_overwrites_edited_notes(tmp_path, capsys):
    (tmp_path / "TEACHING_NOTES.md").write_text("mine")
    assert main(["course", "instructor", "--out", str(tmp_path)]) == 2
    assert "TEACHING_NOTES.md already" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["TEACHING_NOTES.md"]


def test_missing_notebooks_are_named(tmp_path, capsys):
    command = ["course", "student", "--out", str(tmp_path / "x"), "--notebooks", str(tmp_path)]
    assert main(command) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_an_archive_holds_what_was_written_and_nothing_else(tmp_path, monkeypatch):
    """In a folder that holds a secret, and a link to another: ``course student --out . --zip``."""
    (tmp_path / "class").mkdir()
    (tmp_path / "elsewhere.txt").write_text("not to be handed on")
    monkeypatch.chdir(tmp_path / "class")
    Path(".env").write_text("KEY=1")
    Path("answers.md").symlink_to("../elsewhere.txt")
    assert main(["course", "student", "--out", ".", "--zip"]) == 0
    names = zipfile.ZipFile(tmp_path / "class.zip").namelist()
    assert sorted(names) == sorted(
        f"class/{n}" for n in [*(p.name for p in NOTEBOOKS), "FORMULA_SHEET.md", "README.md"]
    )


def test_equal_folders_make_equal_archives_and_none_is_overwritten(tmp_path):
    files = {name: [tmp_path / name / "x" / f for f in "ba"] for name in ("one", "two")}
    for file in [*files["one"], *files["two"]]:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("same")
    first = copies.archive(tmp_path / "one", files["one"]).read_bytes()
    second = copies.archive(tmp_path / "two", files["two"][::-1]).read_bytes()
    assert first.replace(b"one/", b"two/") == second
    with pytest.raises(FileExistsError, match="one.zip exists"):
        copies.archive(tmp_path / "one", files["one"])


@pytest.mark.parametrize("name", ["README.md", "FORMULA_SHEET.md"])
def test_a_build_leaves_a_file_of_somebody_as_it_is(tmp_path, capsys, name):
    (tmp_path / name).write_text("mine")
    assert main(["course", "student", "--out", str(tmp_path)]) == 2
    assert f"holds {name} already" in capsys.readouterr().err
    assert [p.read_text() for p in tmp_path.iterdir()] == ["mine"]
