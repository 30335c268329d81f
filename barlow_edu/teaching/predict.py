"""A prediction: a question with a place to commit to an answer, which is then shown beside the result."""

import html
import zlib
from numbers import Integral, Real

import ipywidgets as widgets

STYLE = "margin: 0.3em 0 0.6em; padding: 0.4em 0.8em; border-left: 4px solid #0072B2"


class Prediction(widgets.VBox):
    """A question, and the learner's answer to it, or None. Displayed in a notebook: buttons, or a field for a number.

    Where no widget runs the question stands there by itself, and ``commit`` takes the answer.
    """

    def __init__(self, question: str, choices: tuple[str, ...] = (), unit: str = ""):
        if len(choices) == 1 or len(set(choices)) < len(choices):
            raise ValueError(f"choices are {choices}: give two or more different ones, or none.")
        self.question, self.choices, self.unit = question, choices, unit
        self.answer: str | float | None = None
        title = widgets.HTMLMath(f"<b>Predict.</b> {question}")
        self._said = widgets.HTML()
        if choices:
            field = widgets.ToggleButtons(options=choices, value=None)
            field.style.button_width = "auto"
            field.observe(lambda change: self._take(change.new), "value")
            row = [field]
        else:
            field = widgets.FloatText(layout=widgets.Layout(width="8em"))
            button = widgets.Button(description="That is my guess")
            button.on_click(lambda _: self._take(field.value))
            row = [field, widgets.Label(unit), button]
        super().__init__([title, widgets.HBox(row), self._said])

    def commit(self, answer: str | float) -> "Prediction":
        """Take an answer. Raises ValueError for one that is no choice, or no number where a number is asked."""
        if self.choices and answer not in self.choices:
            raise ValueError(f"{answer!r} is none of the choices: {', '.join(self.choices)}.")
        if not self.choices and (isinstance(answer, bool) or not isinstance(answer, Real)):
            raise ValueError(f"{answer!r} is no number: the question asks for one.")
        self._take(answer)
        return self

    def compare(self, result: str | float) -> None:
        """Print the answer beside the result. A float is measured, and marked ≈; an integer or a text is exact."""
        guess = f"Your guess: {self._written(self.answer)}." if self.answer is not None else ""
        measured = isinstance(result, Real) and not isinstance(result, Integral)
        print(guess or "You have not committed to a guess.", end=" ")
        print(f"The result: {'≈ ' * measured}{self._written(result)}.")

    def _take(self, answer: str | float) -> None:
        self.answer = answer
        self._said.value = f"You said: <b>{html.escape(self._written(answer))}</b>. Read on."

    def _written(self, value: str | float) -> str:
        text = value if isinstance(value, str) else f"{value:.4g}"
        return f"{text} {self.unit}".rstrip()

    def __repr__(self) -> str:
        return f"Predict: {self.question} {' / '.join(self.choices) or self.unit}".rstrip()

    def _repr_mimebundle_(self, **_) -> dict:
        shown = super()._repr_mimebundle_()  # whose text is cut off after 110 letters
        return {**shown, "text/plain": repr(self), "text/html": self._repr_html_()}

    def _repr_html_(self) -> str:
        """The question for a page without a kernel: one can still mark a choice before one reads on."""
        name = f"predict-{zlib.crc32(repr(self).encode()):08x}"
        one = f'<label style="margin-right: 1.2em"><input type="radio" name="{name}"> '
        fields = "".join(f"{one}{html.escape(choice)}</label>" for choice in self.choices)
        unit = html.escape(self.unit)
        number = f'<label>Your guess: <input type="number" step="any"> {unit}</label>'
        head = f'<fieldset class="be-predict" style="{STYLE}"><legend><b>Predict.</b></legend>'
        return f"{head}<p>{self.question}</p>{fields or number}</fieldset>"


def predict(question: str, *choices: str, unit: str = "") -> Prediction:
    """A question to commit to before the result is shown. ``choices``: the possible answers; none of them: a number.

    ``question`` is shown as HTML, with formulas between dollars. The result comes in a later cell, which is tagged
    ``reveal`` and calls ``compare``. Raises ValueError for a single choice or for one given twice.

    >>> guess = predict("What does the rank of C do?", "it rises", "it falls", "it stays")
    >>> guess.commit("it falls").compare("it rises")
    Your guess: it falls. The result: it rises.
    >>> predict("How many of 100 neighbours share the class?").compare(63.21)
    You have not committed to a guess. The result: ≈ 63.21.
    """
    return Prediction(question, choices, unit)
