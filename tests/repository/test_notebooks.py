"""The guard over every notebook of the course, and a bad notebook for each of its rules."""

import ast
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import nbformat
import notebook_guard as guard
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_keeps_the_rules(path):
    found = guard.problems(path)
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("here, after", pairwise(NOTEBOOKS), ids=lambda path: path.stem[:2])
def test_a_notebook_links_to_the_one_after_it(here, after):
    """Where the next number exists: the last link to a notebook, behind the word Next."""
    if int(after.stem[:2]) != int(here.stem[:2]) + 1:
        pytest.skip("the notebook between them is not written yet")
    text = "\n".join(cell.source for cell in nbformat.read(here, as_version=4).cells)
    assert f"]({after.name})" in text[text.rindex("Next:") :]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_papermill_may_change_the_tier_where_it_is_used_later(path):
    """papermill puts what it is given right behind the cell tagged ``parameters``."""
    code = [cell for _, cell in guard.cells(nbformat.read(path, as_version=4), "code")]
    using = [i for i, cell in enumerate(code) if re.search(r"\b(QUICK|TIER)\b", cell.source)]
    marked = [i for i, cell in enumerate(code) if "parameters" in guard.tags(cell)]
    assert marked == (using[:1] if len(using) > 1 else [])


def test_papermill_runs_a_notebook_in_the_other_tier(tmp_path):
    papermill = pytest.importorskip("papermill")
    notebook = nbformat.read(ROOT / "notebooks" / "02_collapse_and_its_cure.ipynb", as_version=4)
    setup, train = [c for c in notebook.cells if re.search(r"\bQUICK\b", c.source)]
    notebook.cells = [setup, train, new_code_cell("print(train.__defaults__[-1], 'steps')")]
    nbformat.write(notebook, tmp_path / "in.ipynb")
    files = str(tmp_path / "in.ipynb"), str(tmp_path / "out.ipynb")
    done = papermill.execute_notebook(*files, {"QUICK": False}, progress_bar=False)
    assert done.cells[-1].outputs[0].text == "2000 steps\n"


CHANGE = {"append", "extend", "insert", "pop", "remove", "clear", "mkdir"}


def not_twice(source):
    """What in a cell's code would fail or add up if the cell were run again, after the stop button perhaps."""
    code = "\n".join(line for line in source.splitlines() if not line.startswith(("%", "!")))
    nodes = list(ast.walk(ast.parse(code)))
    added_to = [n.target for n in nodes if isinstance(n, ast.AugAssign)]
    stored = [n for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
    begun = {n.id for n in stored if n not in added_to}
    begun |= {n.arg for n in nodes if isinstance(n, ast.arg)}
    for n in (n for n in nodes if isinstance(n, ast.Call)):
        called, options = ast.unparse(n.func), {k.arg for k in n.keywords}
        owner, _, method = called.rpartition(".")
        if method == "pretrain" and "mkdtemp(" not in code and "resume" not in options:
            yield ast.unparse(n)  # into the folder of the first run, where it is refused
        elif method in CHANGE and owner.isidentifier() and owner not in begun:
            yield ast.unparse(n)
    number = (n for n in nodes if isinstance(n, ast.AugAssign) and not isinstance(n.op, ast.BitOr))
    yield from (ast.unparse(n) for n in number if getattr(n.target, "id", "") not in begun | {""})


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_every_cell_can_be_run_twice(path):
    code = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    assert [problem for source in code for problem in not_twice(source)] == []


@pytest.mark.parametrize(
    ("source", "fails"),
    [
        ("run = be.pretrain(config, FOLDER)", True),
        ("run = be.pretrain(config, tempfile.mkdtemp(dir=FOLDER))", False),
        ("run = be.pretrain(config, folder, resume=True)", False),
        ("losses.append(1)", True),
        ("losses = []\nfor x in 'ab':\n    losses.append(x)", False),
        ("def f(losses):\n    losses.append(1)", False),
        ("count += 1", True),
        ("FOLDER.mkdir()", True),
    ],
)
def test_a_cell_that_cannot_be_run_twice_is_seen(source, fails):
    assert bool(list(not_twice(source))) == fails


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_to_notebooks_name_the_number_of_their_file(path):
    """[3 · The cross-correlation matrix](03_the_...), and not another number."""
    for cell in nbformat.read(path, as_version=4).cells:
        for words, file in re.findall(r"\[([^\]]+)\]\((\d\d_\w+\.ipynb)\)", cell.source):
            number = re.search(r"\d+", words)
            assert number and int(number[0]) == int(file[:2]), (words, file)


def printed(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def figure(**metadata):
    data = {"image/png": "iVBORw0KGgo=", "text/plain": "<Figure>"}
    return new_output("display_data", data=data, metadata=metadata)


def named_figure():
    return figure(**{"image/png": {"alt": "C as a heatmap"}})


def value(text):
    return new_output("execute_result", data={"text/plain": text}, execution_count=1)


def error():
    return new_output("error", ename="ValueError", evalue="no", traceback=["no"])


def html(text):
    return new_output("display_data", data={"text/html": text, "text/plain": "html"})


def code(source="x = 1", *outputs, count=3, **metadata):
    return new_code_cell(
        source, outputs=list(outputs), execution_count=count, metadata=dict(metadata)
    )


OPENING = """# Title

**Claim: it holds.**

| | |
|---|---|
| **You will** | learn |
| **You need** | a pencil |
| **Time** | 5 minutes |
| **Offline** | yes |

```python
# a comment, no heading
```

## Part
"""
CLOSING = """**What to notice.** It printed.

## A common mistake

## Recap

### Three questions

## Limits

## References
"""
NOTES = "## Teaching notes\n\n45 minutes. Misconceptions to expect: none. To discuss: why?"
HINTS = "\n".join(f"<details><summary>Hint {k}</summary>h</details>" for k in (1, 2, 3))
TEXT = """## Exercise {number}: do it

**Difficulty:** ★★☆ (2 of 3) · **Time:** 12 minutes

Write f. {hints}"""
STUB = "def f():\n    return ...  # your turn\n\n\nchecks.f(f)"


def exercise(number, text=TEXT, hints=HINTS, stub=STUB, solution="checks.f(f)", after=None, **kept):
    """The three cells of an exercise; the solution is folded and of the same number unless told."""
    kept = {"jupyter": {"source_hidden": True}, **kept}
    return [
        new_markdown_cell(text.format(number=number, hints=hints)),
        code(stub, tags=["exercise"], barlow_edu={"exercise": number}),
        code(solution, tags=["solution"], barlow_edu={"exercise": after or number}, **kept),
    ]


REVEAL = {"tags": ["reveal"], "jupyter": {"outputs_hidden": True}}


def good_notebook():
    """Keeps every rule, and comes near to breaking each."""
    notebook = new_notebook(
        cells=[
            new_markdown_cell(OPENING),
            new_markdown_cell('![C at step 0](c.png) and <img src="c.png" alt="C at the end">'),
            code("guess = predict('What will it print?')", tags=["predict"]),
            code("guess.compare(1)", printed("1\n"), **REVEAL),
            code("\n".join(["x = 1"] * 16), tags=["setup"]),
            new_markdown_cell("Read about https://example.com/home/work"),
            new_code_cell(""),
            *exercise("1.1"),
            *exercise("1.2"),
            new_markdown_cell(CLOSING),
            new_markdown_cell(NOTES, metadata={"tags": ["instructor"]}),
        ]
    )
    return numbered(notebook)


def numbered(notebook):
    """As after "restart and run all"."""
    run = [c for c in notebook.cells if c.cell_type == "code" and c.source]
    for count, cell in enumerate(run, 1):
        cell.execution_count = count
    return notebook


def with_cells(*cells):
    """The good notebook with the cells in place of the empty one, at 6."""
    notebook = good_notebook()
    notebook.cells[6:7] = cells
    return notebook


def with_markdown(source):
    return with_cells(new_markdown_cell(source))


def with_exercise(*arguments, **changes):
    """The good notebook with a third exercise."""
    notebook = good_notebook()
    notebook.cells[-2:-2] = exercise(*(arguments or ["1.3"]), **changes)
    return numbered(notebook)


def without(*places):
    """The good notebook without some cells."""
    notebook = good_notebook()
    for place in sorted((p % len(notebook.cells) for p in places), reverse=True):
        del notebook.cells[place]
    return numbered(notebook)


def saying(old, new):
    """The good notebook with a part of its text exchanged."""
    notebook = good_notebook()
    assert any(old in cell.source for cell in notebook.cells)
    for cell in notebook.cells:
        cell.source = cell.source.replace(old, new)
    return notebook


def without_exercise():
    return without(*range(7, 13))


def loose_notes():
    notebook = good_notebook()
    notebook.cells[-1].metadata["tags"] = []
    return notebook


def with_widgets():
    notebook = good_notebook()
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {}}
    return notebook


def widget_state_output():
    data = {"application/vnd.jupyter.widget-state+json": {}, "text/plain": "x"}
    return new_output("display_data", data=data)


def many_exercises():
    notebook = good_notebook()
    for k in range(3, 8):
        notebook.cells[-2:-2] = exercise(f"1.{k}")
    return numbered(notebook)


HOME = "/" + "home/someone"
BAD = [
    ("executed_in_order", "not 1 to 8", with_cells(code(count=9))),
    ("executed_in_order", "not 1 to 8", with_cells(code(count=None))),
    ("no_errors", "ValueError", with_cells(code("f()", error()))),
    ("no_errors", "ValueError", with_cells(code("f()", error(), tags=["raises-exception"]))),
    ("no_stderr", "careful", with_cells(code("f()", printed("careful", "stderr")))),
    ("no_widget_state", "metadata.widgets", with_widgets()),
    ("no_widget_state", "cell 6", with_cells(code("f()", widget_state_output()))),
    ("small_file", "more than", with_cells(code("f()", printed("a" * 1_000_000)))),
    ("outputs_are_compared", "[6]", with_cells(code("# NBVAL_IGNORE_OUTPUT\nf()"))),
    ("outputs_are_compared", "[6]", with_cells(code("f()\n  ##NBVAL_SKIP"))),
    ("outputs_are_compared", "[6]", with_cells(code(tags=["nbval-ignore-output"]))),
    ("outputs_are_compared", "[6]", with_cells(code(tags=["nbval-skip"]))),
    ("runs_have_new_folders", "cell 6", with_cells(code('be.pretrain(c, FOLDER / "a")'))),
    (
        "runs_have_new_folders",
        "cell 6",
        with_cells(code("be.pretrain(c, out=Path(FOLDER.name) / name)")),
    ),
    ("has_exercise", "Exercise", without_exercise()),
    ("exercises_are_whole", "0 exercises; a notebook has two", without_exercise()),
    ("exercises_are_whole", "1 exercises; a notebook has two", without(7, 8, 9)),
    ("exercises_are_whole", "7 exercises", many_exercises()),
    (
        "exercises_are_whole",
        "no title '## Exercise 1.1: ...'",
        saying("Exercise 1.1", "Exercise 7"),
    ),
    ("exercises_are_whole", "titles are ['1.2']", without(7)),
    ("exercises_are_whole", "no line like '**Difficulty", saying("2 of 3", "1 of 3")),
    ("exercises_are_whole", "no line like '**Difficulty", saying("12 minutes", "a while")),
    ("exercises_are_whole", "hints are ['Hint 1', 'Hint 2']", with_exercise(hints=HINTS[:-55])),
    ("exercises_are_whole", "not Hint 1 to 3", with_exercise(hints=HINTS + HINTS)),
    ("exercises_are_whole", "no '...  # your turn'", with_exercise(stub="checks.f(f)")),
    ("exercises_are_whole", "cell calls no checker", with_exercise(stub="x = ...  # your turn")),
    ("exercises_are_whole", "solution calls no checker", with_exercise(solution="print(1)")),
    ("exercises_are_whole", "next cell is not its solution", without(9)),
    ("exercises_are_whole", "next cell is not its solution", with_exercise("1.3", after="1.4")),
    ("exercises_are_whole", "not folded", with_exercise(jupyter={})),
    ("has_its_anatomy", "lacks a claim", saying("**Claim", "**Well")),
    ("has_its_anatomy", "lacks the card: You need", saying("**You need**", "**Have**")),
    ("has_its_anatomy", "lacks the card: Time", saying("**Time** |", "**Clock** |")),
    ("has_its_anatomy", "'common mistake'", saying("## A common mistake", "## A mistake")),
    ("has_its_anatomy", "lacks ### Three questions", saying("Three questions", "Quiz")),
    ("has_its_anatomy", "lacks the references", saying("## References", "")),
    ("has_its_anatomy", "0 cells tagged setup", without(4)),
    ("has_its_anatomy", "2 cells tagged setup", with_cells(code(tags=["setup"]))),
    ("has_teaching_notes", "the last cell is not", without(-1)),
    ("has_teaching_notes", "the last cell is not", loose_notes()),
    ("has_teaching_notes", "outside the cell tagged", with_markdown("**Teaching notes.** 9 min")),
    ("has_teaching_notes", "lack how long", saying("45 minutes", "Long")),
    ("has_teaching_notes", "lack the misconceptions", saying("Misconceptions", "Errors")),
    ("has_teaching_notes", "lack what to discuss", saying("To discuss", "To ask")),
    ("images_have_alt_text", "cell 6", with_markdown("![](c.png)")),
    ("images_have_alt_text", "cell 6", with_markdown("![ ][c]")),
    ("images_have_alt_text", "<img>", with_markdown('<img src="c.png">')),
    ("images_have_alt_text", "<img>", with_markdown('<IMG alt="" src="c.png">')),
    ("images_have_alt_text", "HTML output", with_cells(code("f()", html("<img src='c.png'/>")))),
    ("figures_have_alt_text", "cell 6", with_cells(code("f()", figure()))),
    ("figures_have_alt_text", "plots.show", with_cells(code("f()", figure(alt="C")))),
    (
        "figures_have_alt_text",
        "cell 6",
        with_cells(code("f()", figure(**{"image/png": {"alt": " "}}))),
    ),
    ("headings_in_order", "from level 2 to 4", with_markdown("#### Deep")),
    ("headings_in_order", "Another", with_markdown("# Another title")),
    ("headings_in_order", "needs one", new_notebook(cells=[new_markdown_cell("## Part\n# Title")])),
    ("headings_in_order", "needs one", new_notebook(cells=[new_markdown_cell("Exercise")])),
    ("short_cells", "16 lines", with_cells(code("\n".join(["x = 1"] * 16)))),
    ("no_machine_paths", HOME[:5], with_cells(code(f"x = '{HOME}'"))),
    ("no_machine_paths", HOME[:5], with_markdown(f"Open file://{HOME}/a.png")),
    ("no_machine_paths", HOME[:5], with_cells(code("f()", printed(f"\x1b[31m{HOME}/a")))),
    ("no_machine_paths", "Users", with_cells(code("f()", html("/" + "Users/someone")))),
    ("no_machine_paths", "Users", with_markdown("C:" + "\\Users\\someone")),
    ("numbers_are_shown", "cell 6", with_cells(code("f()", printed("C falls: True\n")))),
    ("numbers_are_shown", "assert", with_cells(code("f()", value("False")))),
    ("predictions_are_real", "asks for no prediction", without(2, 3)),
    ("predictions_are_real", "not tagged predict", with_cells(code("a = be.predict('?')"))),
    ("predictions_are_real", "a is never compared", with_cells(code("a = predict('?')"))),
    ("predictions_are_real", "not tagged reveal", with_cells(code("guess.compare(1)"))),
    ("predictions_are_real", "its own", with_cells(code("a = predict('?')\na.compare(1)"))),
    ("predictions_are_real", "shows its output", with_cells(code(tags=["reveal"]))),
    ("predictions_are_real", "asks in the text", with_markdown("**Predict.** Does it fall?")),
    ("alt_text_is_out_of_sight", "in its code", with_cells(code("plots.show(f, alt='C')"))),
    ("alt_text_is_out_of_sight", "no alt text in", with_cells(code("f()", named_figure()))),
    ("narrow_code", "89 characters", with_cells(code("x = 1  # " + 80 * "a"))),
    ("short_page", "words", with_markdown(3000 * "word ")),
    ("short_page", "41 code cells", with_cells(*(code() for _ in range(36)))),
    *[
        ("no_machine_paths", name, with_cells(code("f()", printed(f"saved to /{name}/a"))))
        for name in ("root", "tmp", "work")
    ],
]


@pytest.mark.parametrize(
    ("rule", "says", "notebook"), BAD, ids=[f"{i}-{rule}" for i, (rule, *_) in enumerate(BAD)]
)
def test_a_bad_notebook_breaks_its_rule(rule, says, notebook, tmp_path):
    path = tmp_path / "bad.ipynb"
    nbformat.write(notebook, path)
    assert any(text.startswith(f"{rule}: ") and says in text for text in guard.problems(path))


def test_every_rule_has_a_bad_notebook():
    assert {rule for rule, *_ in BAD} == {rule.__name__ for rule in guard.RULES}


def test_a_good_notebook_has_no_problems(tmp_path):
    path = tmp_path / "good.ipynb"
    nbformat.write(good_notebook(), path)
    assert guard.problems(path) == []


@pytest.mark.parametrize(
    "cell",
    [
        code("f()", named_figure(), barlow_edu={"alt": "C as a heatmap"}),
        code("f()", printed("It is true that trained ≈ 46.9 %, pixels ≈ 39.7 %\n")),
        code("# NBVAL_CHECK_OUTPUT\nf()", tags=["nbval-raises-exception"]),
        code("f()", html('<img src="data:image/png;base64,aa//' + 'tmp/" alt="C">')),
        code("\n".join(["x = 1"] * 15)),
        code("\n".join(["x = 1"] * 40), tags=["long"]),
    ],
    ids=["alt", "shown", "checked", "html", "15-lines", "long"],
)
def test_what_the_rules_allow(cell, tmp_path):
    path = tmp_path / "good.ipynb"
    nbformat.write(numbered(with_cells(cell)), path)
    assert guard.problems(path) == []


def test_a_solution_may_be_long(tmp_path):
    path = tmp_path / "good.ipynb"
    nbformat.write(with_exercise(solution="x = 1\n" * 40 + "checks.f(f)"), path)
    assert guard.problems(path) == []


def test_ignored_outputs_may_be_fewer_than_one_in_twenty():
    checked = [code() for _ in range(20)]
    notebook = new_notebook(cells=[*checked, code("# NBVAL_SKIP")])
    assert guard.outputs_are_compared(notebook) == []
    assert guard.outputs_are_compared(new_notebook(cells=notebook.cells[1:])) != []


def test_the_guard_runs_by_hand(tmp_path):
    good, bad = tmp_path / "good.ipynb", tmp_path / "bad.ipynb"
    nbformat.write(good_notebook(), good)
    nbformat.write(without_exercise(), bad)
    run = [sys.executable, guard.__file__, good, bad]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 1
    first = "bad.ipynb: has_exercise: no markdown cell has the word Exercise\n"
    assert done.stdout.startswith(first) and "good.ipynb" not in done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The settings of this repository over one small notebook, of which one number is stored wrong."""
    top = tmp_path_factory.mktemp("clone")
    for name in ("pyproject.toml", "conftest.py", "tests/nbval.cfg"):
        (top / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, top / name)
    shutil.copytree(ROOT / "tests" / "helpers" / "offline", top / "tests" / "helpers" / "offline")
    masked = code(
        "print('<f at 0xc0ffee> in 3 s, kNN ≈ 61.7 % ± 0.4')",
        printed("<f at 0xabcdef> in 2.5 s, kNN ≈  8 % ± 0.4\n"),
    )
    cells = [code("x = 1"), masked, code("print(x / 4)", printed("0.26\n")), code("x += 1")]
    (top / "notebooks").mkdir()
    nbformat.write(new_notebook(cells=cells), top / "notebooks" / "04_small.ipynb")
    return top


@pytest.mark.parametrize(
    ("folder", "arguments"),
    [
        ("notebooks", ["04_small.ipynb"]),
        ("tests", ["../notebooks"]),
        ("/", ["CLONE/notebooks/04_small.ipynb", "-n", "2"]),
    ],
)
def test_pytest_works_in_every_folder_and_in_parallel(clone, folder, arguments):
    """The cells share a kernel; addresses and durations are masked, and nothing else."""
    if "-n" in arguments:
        pytest.importorskip("xdist")
    arguments = [a.replace("CLONE", str(clone)) for a in arguments]
    run = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(run, cwd=clone / folder, capture_output=True, text=True)
    assert "1 failed, 3 passed" in done.stdout, done.stdout + done.stderr
    assert "Cell 2: Cell outputs differ" in done.stdout
