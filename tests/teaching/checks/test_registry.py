"""What every exercise checker keeps, whichever notebook it belongs to; the answers are those of test_checks_*.py."""

import functools
import importlib
import re

import checker_table
import numpy as np
import pytest
import torch

from barlow_edu.teaching import checks
from barlow_edu.teaching.checks import base
from barlow_edu.teaching.checks.base import NotRight

NAMES = sorted(set(checks.__all__) - {"NotRight", "graded"})
RIGHT, WRONG = checker_table.answers("RIGHT"), checker_table.answers("WRONG")
ODD = {
    "text": "a good question",
    "a list": [],
    "a dictionary": {"a": 1},
    "a set": {1, 2},
    "a boolean": True,
    "NaN": float("nan"),
    "infinity": torch.tensor(float("inf")),
    "complex": torch.tensor(1j),
    "an empty tensor": torch.zeros(0),
    "four axes": torch.zeros(2, 1, 3, 1),
    "integers": torch.zeros(5, 5, dtype=torch.long),
    "numpy": np.zeros((3, 2)),
    "a pair": (torch.zeros(2, 2), None),
    "a function": lambda: 0,
    "a class": torch.Tensor,
}


@pytest.mark.parametrize("name", NAMES)
def test_right_answers_are_written_in_two_ways_or_more(name):
    assert len(RIGHT.get(name, [])) >= 2, f"put two right answers into RIGHT[{name!r}]"


@pytest.mark.parametrize("name", NAMES)
def test_four_mistakes_or_more_are_told_apart(name):
    """The catch-all sentences of base.py do not count: each checker knows four mistakes of its own."""
    told = {checker_table.diagnosis(name, answer) for answer in WRONG.get(name, [])}
    general = r"values differ by up to|has shape \(|Your function (raised|returned nothing|changed)"
    own = {text for text in told if not re.search(general, text)}
    assert len(own) >= 4, f"put more wrong answers into WRONG[{name!r}]; it has {sorted(own)}"


@pytest.mark.parametrize("name", NAMES)
def test_nonsense_is_refused_with_a_sentence(name):
    """Whatever a function returns, the checker says what is wrong; it never breaks itself, never accepts it."""
    for what, odd in ODD.items():
        try:
            getattr(checks, name)(lambda *given, odd=odd: odd)
        except NotRight as told:
            assert str(told).strip(), what
        except Exception as error:
            pytest.fail(f"{name} breaks on {what}: {type(error).__name__}: {error}")
        else:
            pytest.fail(f"{name} accepts {what}")


@pytest.mark.parametrize("name", NAMES)
def test_the_exercise_of_a_student_notebook_stays_open(name):
    class Stub(torch.nn.Module):  # a class can stand for a function, not the other way round
        def __new__(cls, *given, **options):
            raise NotImplementedError("Exercise 11.9: do it")

    with pytest.raises(NotImplementedError, match="Exercise 11.9"):
        getattr(checks, name)(Stub)


def cases(kind):
    """(checker, which answer, answer); an answer without a name has its number."""
    return [
        pytest.param(name, way, answer, id=f"{name}-{way}")
        for module in checker_table.modules()
        for name, given in getattr(module, kind, {}).items()
        for way, answer in (given.items() if isinstance(given, dict) else enumerate(given))
    ]


@pytest.mark.parametrize("name, way, answer", cases("RIGHT"))
def test_right_answers_pass_however_they_are_written(name, way, answer, capsys):
    getattr(checks, name)(answer)
    assert capsys.readouterr().out == f"{name}: right.\n"


@pytest.mark.parametrize("name, diagnosis, answer", cases("WRONG"))
def test_wrong_answers_are_told_what_happened(name, diagnosis, answer):
    with pytest.raises(NotRight) as told:
        getattr(checks, name)(answer)
    assert diagnosis in str(told.value)


@pytest.mark.parametrize("name", NAMES)
def test_an_open_exercise_passes_and_says_so(name, capsys):
    stubs = [...] if name == "first_steps" else [..., lambda *inputs: ...]  # that one takes a class
    for stub in stubs:
        getattr(checks, name)(stub)
        assert "still open" in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_no_mistake_hides_another(name, monkeypatch):
    """Otherwise a learner could be told of a mistake that is not theirs."""
    module = importlib.import_module(getattr(checks, name).__module__)
    tables = []

    def judge(function, worlds, right, mistakes, what="", tolerance=1e-4, look=None):
        for inputs in worlds:
            tables.append((inputs, right, mistakes, tolerance))
            base.attempt(function, *inputs)

    monkeypatch.setattr(module, "judge", judge, raising=False)
    getattr(checks, name)(RIGHT[name][0])
    for told in {told for *_, mistakes, _ in tables for told in mistakes}:
        assert any(is_told(told, *table) for table in tables), told


def is_told(told, inputs, right, mistakes, tolerance):
    """Whether this mistake, as an answer to these inputs, gets its own diagnosis."""
    if told not in mistakes:
        return False
    wrong = base.mistaken(right, mistakes[told], inputs)
    if isinstance(wrong, (base.Shaped, torch.dtype)):
        return True
    lazily = {t: functools.partial(base.mistaken, right, m, inputs) for t, m in mistakes.items()}
    try:
        base.compare(wrong, right(*inputs), lazily, tolerance=tolerance)
    except NotRight as diagnosis:
        return str(diagnosis) == told
    return False


def test_answers_belong_to_checkers_that_exist():
    assert set(RIGHT) | set(WRONG) <= set(NAMES)


def test_the_table_holds_every_wrong_answer_beside_what_it_is_told():
    lines = checker_table.table()
    counts = [len(answers) for answers in WRONG.values()]
    rows = [line for line in lines if line.startswith("| `")]
    assert len(rows) == sum(counts) + len(WRONG)
    assert lines[-1] == f"{len(WRONG)} checkers, {sum(counts)} wrong answers."
    uphill = "This went uphill: the gradient points where the loss grows. Subtract it."
    assert f"| `free_step` | `by_backward(a, b, w, -lr)` | {uphill} |" in lines


def test_the_table_tells_lambdas_of_one_line_apart():
    pair = (lambda x: x + 1, lambda x: x + 2)
    assert [checker_table.as_code(f) for f in pair] == ["x + 1", "x + 2"]


def test_a_wrong_answer_that_is_accepted_is_an_error():
    with pytest.raises(ValueError, match="off_diagonal_rms accepts this answer"):
        checker_table.diagnosis("off_diagonal_rms", RIGHT["off_diagonal_rms"][0])
