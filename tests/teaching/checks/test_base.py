"""What every exercise checker is made of: open, right, and each kind of not right."""

import contextlib
import os
import random
import re

import checker_table
import numpy as np
import pytest
import torch

from barlow_edu.teaching import checks
from barlow_edu.teaching.checks.base import (
    NotRight,
    Shaped,
    attempt,
    checker,
    compare,
    follow,
    judge,
)

X = torch.tensor([[1.0, 2.0], [3.0, 5.0]])


@checker
def column_means(answer):
    """Check a function that takes the mean of every column."""
    mistakes = {"You took the mean of every row: use dim=0.": X.mean(1)}
    compare(attempt(answer, X.clone()), torch.tensor([2.0, 3.5]), mistakes)


def told(answer, capsys):
    column_means(answer)
    return capsys.readouterr().out.strip()


# the checker


def test_a_right_answer_is_told(capsys):
    assert told(lambda x: x.mean(0), capsys) == "column_means: right."


@pytest.mark.parametrize("answer", [..., lambda x: ...], ids=["dots", "returns dots"])
def test_an_open_exercise_passes_and_is_told(answer, capsys):
    found = told(answer, capsys)
    assert found == "column_means: still open. Replace the three dots, then run this cell again."


def test_any_answer_that_is_open_leaves_the_exercise_open(capsys):
    @checker
    def two(a, b):
        raise AssertionError("never called")

    two(1, ...)
    assert "still open" in capsys.readouterr().out


def test_a_wrong_answer_raises_and_says_nothing_right(capsys):
    with pytest.raises(NotRight, match="differ by up to 1"):
        column_means(lambda x: x.mean(0) + 1)
    assert capsys.readouterr().out == ""


def test_a_known_mistake_is_diagnosed():
    with pytest.raises(NotRight, match="You took the mean of every row: use dim=0."):
        column_means(lambda x: x.mean(1))


def test_a_checker_keeps_its_name_and_passes_options_on():
    @checker
    def picky(answer, tolerance=0.0):
        """Check."""
        compare(answer, 1.0, tolerance=tolerance)

    assert (picky.__name__, picky.__doc__) == ("picky", "Check.")
    picky(1.01, tolerance=0.1)
    with pytest.raises(NotRight):
        picky(1.01)


def test_a_checker_that_breaks_on_an_answer_says_so_in_a_sentence():
    @checker
    def brittle(answer):
        answer["nothing"]

    with pytest.raises(NotRight, match="cannot be used here. KeyError: 'nothing'") as told:
        brittle({})
    assert isinstance(told.value.__cause__, KeyError)


def test_not_right_is_an_assertion():
    assert issubclass(NotRight, AssertionError)
    assert checks.NotRight is NotRight


# what Jupyter shows: the message, not the frames of the checker


def shown(source):
    """The lines that IPython shows as the traceback of a cell."""
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    lines = []
    shell._showtraceback = lambda kind, error, traceback: lines.extend(traceback)
    shell.run_cell(source)
    InteractiveShell.clear_instance()
    return [re.sub(r"\x1b\[[\d;]*m", "", line) for line in lines]


def test_jupyter_shows_a_wrong_answer_as_its_diagnosis_alone():
    source = (
        "from barlow_edu import checks\nchecks.off_diagonal_rms(lambda c: c.square().mean().sqrt())"
    )
    assert shown(source) == [
        "NotRight: That is the root mean square of all of C. Leave the diagonal out."
    ]


def test_jupyter_shows_an_exercise_not_done_as_its_task_alone():
    source = (
        "from barlow_edu import checks\ndef f(c):\n    raise NotImplementedError('Exercise 0.1: do it')\n"
        "checks.off_diagonal_rms(f)"
    )
    assert shown(source) == ["NotImplementedError: Exercise 0.1: do it"]


# attempt


@pytest.mark.parametrize("answer", [3, "text", X])
def test_what_is_no_function_is_told(answer):
    with pytest.raises(NotRight, match=f"Give the function itself, not {type(answer).__name__}"):
        attempt(answer, X)


def test_an_exception_becomes_a_diagnosis_with_its_cause():
    with pytest.raises(NotRight, match="raised ZeroDivisionError: division by zero") as caught:
        attempt(lambda x: 1 / 0, X.clone())
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_an_exercise_not_written_yet_is_passed_on():
    def stub(x):
        raise NotImplementedError("Exercise 1")

    with pytest.raises(NotImplementedError, match="Exercise 1"):
        attempt(stub, X)


def test_what_torch_has_not_implemented_is_no_open_exercise():
    def lacks_a_type(x):
        raise NotImplementedError('"cholesky" not implemented for Half')

    with pytest.raises(NotRight, match="raised NotImplementedError: .cholesky. not implemented"):
        attempt(lacks_a_type, X)


def test_an_exception_is_located_in_the_learners_own_lines():
    def multiplies(x):
        tripled = torch.cat([x, x, x])
        return tripled @ x.T @ x.new_zeros(7)

    with pytest.raises(NotRight) as told:
        attempt(multiplies, X.clone())
    first, second = str(told.value).splitlines()
    assert first.startswith("Your function raised RuntimeError: ")
    line = multiplies.__code__.co_firstlineno + 2
    assert second == f"  in line {line}:  return tripled @ x.T @ x.new_zeros(7)"


def test_an_attempt_within_another_is_heard_as_it_is(capsys):
    """As where a checker calls the learner's function many times for one answer."""

    def fails(x):
        return x @ x.new_zeros(7)

    def often(answer):
        return lambda x: [attempt(answer, x) for _ in range(2)]

    with pytest.raises(NotRight) as alone:
        attempt(fails, X.clone())
    with pytest.raises(NotRight) as within:
        attempt(often(fails), X.clone())
    assert str(alone.value) == str(within.value)

    @checker
    def twice(answer):
        attempt(often(answer), X.clone())

    twice(lambda x: ...)
    assert "still open" in capsys.readouterr().out


def test_no_line_of_a_checker_is_shown():
    """``my_pair`` calls the learner's transform in a lambda of its own."""
    with pytest.raises(NotRight, match=r"raised ZeroDivisionError: division by zero\Z"):
        checks.my_pair(lambda: 2 * (lambda x: 1 / 0,))


def test_a_forgotten_return_is_told():
    with pytest.raises(NotRight, match="returned nothing. Is the return statement missing"):
        attempt(lambda x: None, X)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.sub_(x.mean(0)),
        lambda x: x.t_(),
        lambda x: x.fill_(0) if False else x.__setitem__(0, 0.0) or x,
    ],
    ids=["values", "shape", "one row"],
)
def test_a_change_of_the_input_is_detected(change):
    with pytest.raises(NotRight, match="changed its input in place"):
        attempt(change, X.clone())


@pytest.mark.parametrize("change", [list.clear, list.pop, lambda x: x.append(x[0])])
def test_a_list_that_grows_or_shrinks_is_detected(change):
    with pytest.raises(NotRight, match="in place"):
        attempt(lambda x: (change(x), 1)[1], [X.clone(), X.clone()])


def test_a_change_of_the_second_input_is_detected():
    with pytest.raises(NotRight, match="in place"):
        attempt(lambda a, b: b.mul_(2), X.clone(), X.clone())


def test_inputs_and_options_are_handed_on():
    assert attempt(lambda a, b, c=0: (a, b, c), 1, "two", c=3) == (1, "two", 3)
    assert torch.equal(attempt(lambda x: x + 1, X.clone()), X + 1)


def test_inputs_with_nan_are_not_taken_for_changed():
    attempt(lambda x: x.isnan(), torch.tensor([1.0, float("nan")]))


def page_state():
    return (
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),
        random.getstate(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.is_anomaly_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
        torch.get_num_threads(),
        torch.get_default_device(),
        repr(torch.tensor([1 / 3, 1e9])),
        repr(np.array([1 / 3])),
        np.geterr(),
        os.getcwd(),
    )


def meddles(x):
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    torch.autograd.set_detect_anomaly(True)
    torch.set_autocast_enabled("cpu", True)
    torch.use_deterministic_algorithms(True)
    torch.set_float32_matmul_precision("medium")
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.set_printoptions(precision=1, sci_mode=True)
    np.set_printoptions(precision=1)
    np.seterr(all="raise")
    os.chdir(os.sep)
    torch.set_default_device("meta")
    return x.mean(0) if x.ndim == 2 else 1 / 0


@pytest.mark.parametrize("x", [X, X[0]], ids=["returns", "raises"])
def test_what_a_function_sets_is_set_back(x):
    before = page_state()
    with contextlib.suppress(NotRight):
        attempt(meddles, x.clone())
    assert page_state() == before


@pytest.mark.parametrize("name", ["find_twins", "off_diagonal_rms", "schedule"])
def test_a_checker_changes_nothing_on_the_page_and_expects_nothing_of_it(name):
    answer = checker_table.answers("RIGHT")[name][0]
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    try:
        before = page_state()
        getattr(checks, name)(answer)
        assert page_state() == before
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(True)


# judge and follow


def judged(answer):
    judge(answer, [(2.0, 0.1), (3.0, 0.4)], lambda x, w: w * x, {"no λ": lambda x, w: x}, "f({0})")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x, w: x, "^no λ$"),
        (
            lambda x, w: 0.1 * x,
            r"f\(3.0\) .* by up to 0.9. Your function was right on other inputs",
        ),
        (lambda x, w: 0.2, "right on other inputs"),
        (lambda x, w: 7.0, r"f\(2.0\) .* by up to 6.8.$"),
    ],
    ids=["known", "a λ by heart", "a number by heart", "unknown"],
)
def test_every_world_is_tried(answer, message):
    judged(lambda x, w: w * x)
    with pytest.raises(NotRight, match=message):
        judged(answer)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x, w: x**3, "not squared"),
        (lambda x, w: x**2, "no λ"),
        (lambda x, w: w + x**2, "added"),
    ],
)
def test_a_mistake_can_be_options_of_what_is_right(answer, message):
    """An option can also put a value in the place of an input."""

    def right(x, w, power=2, take=torch.mul):
        return take(torch.as_tensor(w), x**power)

    mistakes = {
        "not squared": {"power": 3, "w": 1},
        "no λ": {"w": 1},
        "added": {"take": torch.add},
    }
    judge(right, [(2.0, 0.1)], right, mistakes)
    with pytest.raises(NotRight, match=f"^{message}$"):
        judge(answer, [(2.0, 0.1)], right, mistakes)


def test_an_answer_is_followed_through_all_of_its_terms():
    def right(x, w):
        return x.square().sum() + w * x.sum()

    follow(right, (X, 0.3), right)
    with pytest.raises(NotRight, match="lost its way"):
        follow(lambda x, w: float(right(x, w)), (X, 0.3), right)
    with pytest.raises(NotRight, match="its gradient is not: a part of it is a plain number"):
        follow(lambda x, w: x.square().sum() + w * float(x.sum()), (X, 0.3), right)


@pytest.mark.parametrize("kind", [Shaped([2, 2]), torch.complex64], ids=str)
def test_a_kind_of_answer_is_a_mistake_too(kind):
    with pytest.raises(NotRight, match="^not this kind$"):
        compare(X * 1j, torch.tensor([2.0, 3.5]), {"not this kind": kind})


# compare


@pytest.mark.parametrize(
    "answer",
    [
        torch.tensor([2.0, 3.5]),
        torch.tensor([2.0, 3.5], dtype=torch.float64),
        torch.tensor([2.0, 3.5], requires_grad=True),
        torch.tensor([2.0, 3.5 + 1e-4]),
        np.array([2.0, 3.5]),
        [2.0, 3.5],
        (2, 3.5),
    ],
    ids=str,
)
def test_right_answers_of_every_type(answer):
    compare(answer, torch.tensor([2.0, 3.5]))


@pytest.mark.parametrize("answer", [2, 2.0, torch.tensor(2), np.float32(2), torch.tensor(2.0001)])
def test_right_numbers_of_every_type(answer):
    compare(answer, 2.0)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("two", "the mean must be a tensor or a number, got str"),
        (None, "the mean must be a tensor or a number, got NoneType"),
        ({"a": 1}, "must be a tensor or a number, got dict"),
        ([torch.zeros(2), torch.zeros(3)], "must be a tensor or a number, got list"),
        (torch.zeros(2, 1), r"the mean has shape \(2, 1\); it should be \(2,\)"),
        (2.0, r"the mean has shape \(\); it should be \(2,\)"),
        (torch.tensor([2.0, float("nan")]), "the mean holds NaN. Is something divided by zero"),
        (torch.tensor([2.0, float("inf")]), "right shape, but the values differ by up to inf"),
        (torch.tensor([2.0, 3.4]), "right shape, but the values differ by up to 0.1"),
        (torch.tensor([2.0, 3.501]), "differ by up to 0.001"),
    ],
    ids=str,
)
def test_what_is_not_right_is_described(answer, message):
    with pytest.raises(NotRight, match=message):
        compare(answer, torch.tensor([2.0, 3.5]), what="the mean")


def test_the_first_mistake_that_fits_is_told_whatever_its_shape():
    mistakes = {
        "no": torch.zeros(3),
        "a scalar": 7.0,
        "twice": torch.tensor([4.0, 7.0]),
        "also twice": torch.tensor([4.0, 7.0]),
    }
    with pytest.raises(NotRight, match="^twice$"):
        compare(torch.tensor([4.0, 7.0]), torch.tensor([2.0, 3.5]), mistakes)
    with pytest.raises(NotRight, match="^a scalar$"):
        compare(7.0, torch.tensor([2.0, 3.5]), mistakes)


def test_a_mistake_that_gives_the_right_answer_is_none():
    compare(torch.ones(2), torch.ones(2), {"never told": torch.ones(2)})


def test_tolerance_is_relative_to_the_largest_value():
    big = torch.tensor([1e6, 0.0])
    compare(big + torch.tensor([0.0, 50.0]), big)
    with pytest.raises(NotRight):
        compare(big + torch.tensor([0.0, 500.0]), big)
    small = torch.tensor([1e-6, 0.0])
    with pytest.raises(NotRight):
        compare(small + torch.tensor([0.0, 1e-8]), small)
