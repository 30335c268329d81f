"""A prediction takes an answer once, shows it beside the result, and reads without a kernel."""

import pytest

from barlow_edu.teaching.predict import predict


def test_buttons_and_field_take_the_answer(capsys):
    choice = predict("Does it fall?", "it falls", "it rises")
    choice.children[1].children[0].value = "it rises"
    number = predict("How many?", unit="%")
    field, _, button = number.children[1].children
    field.value = 60.0
    assert number.answer is None  # not committed yet
    button.click()
    choice.compare("it falls")
    number.compare(63.2149)
    assert "it rises" in choice.children[2].value
    assert capsys.readouterr().out == (
        "Your guess: it rises. The result: it falls.\nYour guess: 60 %. The result: ≈ 63.21 %.\n"
    )


def test_exact_results_bear_no_sign(capsys):
    predict("How many entries?").compare(4096)
    assert capsys.readouterr().out == "You have not committed to a guess. The result: 4096.\n"


@pytest.mark.parametrize("answer", ["it stays", 3])
def test_an_answer_that_is_no_choice_is_refused(answer):
    with pytest.raises(ValueError, match="it falls, it rises"):
        predict("Does it fall?", "it falls", "it rises").commit(answer)


@pytest.mark.parametrize("answer", ["a lot", True, None])
def test_an_answer_that_is_no_number_is_refused(answer):
    with pytest.raises(ValueError, match="no number"):
        predict("How many?").commit(answer)


@pytest.mark.parametrize("choices", [("one",), ("same", "same")])
def test_choices_differ(choices):
    with pytest.raises(ValueError, match="two or more"):
        predict("Which?", *choices)


def test_without_a_kernel_the_question_stands_there_and_no_answer():
    first, again = (predict("Is 1 < 2 & why?", "x < y", "no")._repr_mimebundle_() for _ in "ab")
    assert first["text/html"] == again["text/html"] and first["text/plain"] == again["text/plain"]
    assert "x &lt; y" in first["text/html"] and first["text/html"].count("<label") == 2
    assert "<label" in predict("How many?")._repr_html_()
