"""The guard over every notebook of the course, and a bad notebook for each of its rules."""

import subprocess
import sys
from pathlib import Path

import nbformat
import notebook_guard as guard
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_keeps_the_rules(path):
    found = guard.problems(path)
    assert not found, "\n" + "\n".join(found)


def printed(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def figure(**metadata):
    data = {"image/png": "iVBORw0KGgo=", "text/plain": "<Figure>"}
    return new_output("display_data", data=data, metadata=metadata)


def error():
    return new_output("error", ename="ValueError", evalue="no", traceback=["no"])


def html(text):
    return new_output("display_data", data={"text/html": text, "text/plain": "html"})


def code(source="x = 1", *outputs, count=3, **metadata):
    return new_code_cell(
        source, outputs=list(outputs), execution_count=count, metadata=dict(metadata)
    )


def good_notebook():
    """Keeps every rule, and comes near to breaking each."""
    return new_notebook(
        cells=[
            new_markdown_cell("# Title\n\n```python\n# a comment, no heading\n```\n\n## Part"),
            new_markdown_cell('![C at step 0](c.png) and <img src="c.png" alt="C at the end">'),
            code("print(1)", printed("1\n"), count=1),
            code("\n".join(["x = 1"] * 16), count=2, tags=["setup"]),
            new_markdown_cell("### Exercise 1\n\n## Read about https://example.com/home/work"),
            new_code_cell(""),
        ]
    )


def with_cells(*cells):
    notebook = good_notebook()
    notebook.cells[-1:] = cells
    return notebook


def with_markdown(source):
    return with_cells(new_markdown_cell(source))


def without_exercise():
    notebook = good_notebook()
    del notebook.cells[4]
    return notebook


def with_widgets():
    notebook = good_notebook()
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {}}
    return notebook


def widget_state_output():
    data = {"application/vnd.jupyter.widget-state+json": {}, "text/plain": "x"}
    return new_output("display_data", data=data)


HOME = "/" + "home/someone"
BAD = [
    ("executed_in_order", "not 1 to 3", with_cells(code(count=5))),
    ("executed_in_order", "not 1 to 3", with_cells(code(count=None))),
    ("no_errors", "ValueError", with_cells(code("f()", error()))),
    ("no_errors", "ValueError", with_cells(code("f()", error(), tags=["raises-exception"]))),
    ("no_stderr", "careful", with_cells(code("f()", printed("careful", "stderr")))),
    ("no_widget_state", "metadata.widgets", with_widgets()),
    ("no_widget_state", "cell 5", with_cells(code("f()", widget_state_output()))),
    ("small_file", "more than", with_cells(code("f()", printed("a" * 1_000_000)))),
    ("outputs_are_compared", "[5]", with_cells(code("# NBVAL_IGNORE_OUTPUT\nf()"))),
    ("outputs_are_compared", "[5]", with_cells(code("f()\n  ##NBVAL_SKIP"))),
    ("outputs_are_compared", "[5]", with_cells(code(tags=["nbval-ignore-output"]))),
    ("outputs_are_compared", "[5]", with_cells(code(tags=["nbval-skip"]))),
    ("has_exercise", "Exercise", without_exercise()),
    ("images_have_alt_text", "cell 5", with_markdown("![](c.png)")),
    ("images_have_alt_text", "cell 5", with_markdown("![ ][c]")),
    ("images_have_alt_text", "<img>", with_markdown('<img src="c.png">')),
    ("images_have_alt_text", "<img>", with_markdown('<IMG alt="" src="c.png">')),
    ("images_have_alt_text", "HTML output", with_cells(code("f()", html("<img src='c.png'/>")))),
    ("figures_have_alt_text", "cell 5", with_cells(code("f()", figure()))),
    ("figures_have_alt_text", "plots.show", with_cells(code("f()", figure(alt="C")))),
    (
        "figures_have_alt_text",
        "cell 5",
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
        code("f()", figure(**{"image/png": {"alt": "C as a heatmap"}})),
        code("# NBVAL_CHECK_OUTPUT\nf()", tags=["nbval-raises-exception"]),
        code("f()", html('<img src="data:image/png;base64,aa//' + 'tmp/" alt="C">')),
        code("\n".join(["x = 1"] * 15)),
        code("\n".join(["x = 1"] * 40), tags=["solution"]),
        code("\n".join(["x = 1"] * 40), tags=["long"]),
    ],
    ids=["alt", "checked", "html", "15-lines", "solution", "long"],
)
def test_what_the_rules_allow(cell, tmp_path):
    path = tmp_path / "good.ipynb"
    nbformat.write(with_cells(cell), path)
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
    assert done.stdout == "bad.ipynb: has_exercise: no markdown cell has the word Exercise\n"


def test_nbval_masks_addresses_and_durations_and_nothing_else(tmp_path):
    masked = code("print('<f at 0xc0ffee> in 3 s')", printed("<f at 0xabcdef> in 2.5 s\n"))
    number = code("print('loss 0.25')", printed("loss 0.26\n"))
    path = tmp_path / "small.ipynb"
    nbformat.write(new_notebook(cells=[masked, number]), path)
    run = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", "pyproject.toml", path]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True)
    assert "1 failed, 1 passed" in done.stdout
    assert "Cell 1: Cell outputs differ" in done.stdout
