"""The rules that every notebook of the course keeps, one function a rule.

nbval replays the notebooks, but it cannot see an unrun cell, a missing alt text or a path of the
author's machine. A rule takes a notebook (as `nbformat.read` gives it) and returns its problems.
Run by `test_notebooks.py`, or by hand: `python tests/helpers/notebook_guard.py notebooks/*.ipynb`.
"""

import json
import re
import sys
from pathlib import Path

import nbformat

MAX_BYTES = 1_000_000
MAX_LINES = 15
MAX_COLUMNS = 88
MAX_CODE_CELLS = 40
MAX_WORDS = 3000  # in Markdown, without the teaching notes
LONG_CELL_TAGS = {"long", "solution", "setup"}
MAX_IGNORED = 0.05  # share of code cells whose output nbval does not compare
UNCHECKED = re.compile(r"^\s*#+\s*(NBVAL_IGNORE_OUTPUT|NBVAL_SKIP|PYTEST_VALIDATE_IGNORE_OUTPUT)")
UNCHECKED_TAGS = {"nbval-ignore-output", "nbval-skip", "pytest-validate-ignore-output"}

FOLDERS = "|".join(["root", "home", "tmp", "work", "Users"])
MACHINE_PATH = re.compile(
    rf"(?<![\w.~/-])(file://)?/({FOLDERS})(?![\w-])|\b[A-Z]:[\\/]+Users\b", re.IGNORECASE
)
COLOUR = re.compile(r"\x1b\[[\d;]*m")
BASE64 = re.compile(r"base64,[A-Za-z0-9+/=\s]+")
FENCE = re.compile(r"^(```|~~~).*?^\1[^\n]*$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^(#{1,6})\s+(.+)$", re.MULTILINE)
MARKDOWN_IMAGE = re.compile(r"!\[([^\]]*)\]\s*[(\[]")
HTML_IMAGE = re.compile(r"<img\b[^>]*>", re.IGNORECASE)
EXERCISE = re.compile(r"^## Exercise (\d+\.\d+): \S.*$", re.MULTILINE)
STARS = {"★☆☆": "1", "★★☆": "2", "★★★": "3"}
HEADER = re.compile(
    r"^\*\*Difficulty:\*\* (\S+) \((\d) of 3\) · \*\*Time:\*\* \d+ minutes$", re.MULTILINE
)
HINT = re.compile(r"<summary>(Hint \d+)</summary>")
TASK = re.compile(r"\.\.\.\s*# your turn")
CHECK = re.compile(r"^checks\.\w+\(", re.MULTILINE)
# parts that every notebook has, and how one sees that it does; the card is the table below the claim
ANATOMY = {
    "a claim": r"\*\*Claim\b",
    "the card: You will": r"^\| \*\*You will\b",
    "the card: You need": r"^\| \*\*You need\*\*",
    "the card: Time": r"^\| \*\*Time\*\*",
    "the card: Offline": r"^\| \*\*Offline\*\*",
    "**What to notice.**": r"\*\*What to notice\.\*\*",
    "a heading with 'common mistake'": r"^#+ .*\bcommon mistake",
    "## Recap": r"^## Recap$",
    "### Three questions": r"^#+ Three questions$",
    "a heading 'Limits'": r"^## Limits\b",
    "the references": r"^#+ .*\breferences\b",
}
NOTES = {
    "how long it takes, in minutes": r"\bminutes\b|\(\d+\)",
    "the misconceptions to expect": r"\bmisconceptions?\b",
    "what to discuss": r"\bdiscuss(ion)?\b",
}
HTML_ALT = re.compile(r"""\balt\s*=\s*("\s*[^"\s]|'\s*[^'\s])""", re.IGNORECASE)


def cells(notebook, kind):
    """(index, cell) of all cells of one kind, "code" or "markdown"; an index counts from 0."""
    return [(i, cell) for i, cell in enumerate(notebook.cells) if cell.cell_type == kind]


def outputs(notebook):
    """(index of the cell, output) of all stored outputs."""
    return [(i, output) for i, cell in cells(notebook, "code") for output in cell.outputs]


def tags(cell):
    return set(cell.metadata.get("tags", []))


def text_of(output):
    """All text in an output, without image data (base64 can hold any letters)."""
    data = dict(output.get("data", {}))
    kept = {mime: body for mime, body in data.items() if not mime.startswith("image/")}
    parts = [output.get("text", ""), *output.get("traceback", []), output.get("evalue", "")]
    parts += [body if isinstance(body, str) else json.dumps(body) for body in kept.values()]
    parts += [data.get("image/svg+xml", "")]
    return BASE64.sub("base64,", COLOUR.sub(" ", "\n".join(parts)))


def executed_in_order(notebook):
    counts = [cell.execution_count for _, cell in cells(notebook, "code") if cell.source.strip()]
    if counts == list(range(1, len(counts) + 1)):
        return []
    return [f"execution counts are {counts}, not 1 to {len(counts)}: restart and run all cells"]


def no_errors(notebook):
    found = [(i, output.ename) for i, output in outputs(notebook) if output.output_type == "error"]
    return [f"cell {i} stores a {name}: catch it in the cell and print it" for i, name in found]


def no_stderr(notebook):
    return [
        f"cell {i} writes to stderr: {output.text.strip()[:60]!r}"
        for i, output in outputs(notebook)
        if output.output_type == "stream" and output.name == "stderr"
    ]


def no_widget_state(notebook):
    state = "application/vnd.jupyter.widget-state+json"
    problems = [f"cell {i} stores widget state" for i, o in outputs(notebook) if state in str(o)]
    if "widgets" in notebook.metadata:
        problems.append("metadata.widgets stores widget state: remove it")
    return problems


def small_file(notebook):
    size = len(nbformat.writes(notebook).encode())
    return [f"{size} bytes, more than {MAX_BYTES}"] if size >= MAX_BYTES else []


def outputs_are_compared(notebook):
    code = cells(notebook, "code")
    ignored = [
        i
        for i, cell in code
        if tags(cell) & UNCHECKED_TAGS or any(map(UNCHECKED.match, cell.source.splitlines()))
    ]
    if len(ignored) < MAX_IGNORED * max(len(code), 1) or not ignored:
        return []
    return [f"nbval ignores cells {ignored}: {len(ignored)} of {len(code)}, 5 % or more"]


def runs_have_new_folders(notebook):
    """A folder that holds a run is refused, so a cell with a fixed one could not be run a second time."""
    return [
        f"cell {i} trains in a fixed folder: take tempfile.mkdtemp(dir=FOLDER)"
        for i, cell in cells(notebook, "code")
        if re.search(r"pretrain\([^()#]*(Path\()?FOLDER(\.name\))? / ", cell.source)
    ]


def has_exercise(notebook):
    found = any("Exercise" in cell.source for _, cell in cells(notebook, "markdown"))
    return [] if found else ["no markdown cell has the word Exercise"]


def exercises_are_whole(notebook):
    """Title, header line, three hints, a stub with its check, and right after it the folded solution."""
    problems, numbers = [], []
    for i, cell in enumerate(notebook.cells):
        if "exercise" in tags(cell):
            number = exercise_number(cell)
            numbers.append(number)
            told = notebook.cells[i - 1].source if i else ""
            after = notebook.cells[i + 1] if i + 1 < len(notebook.cells) else None
            found = (
                exercise_text(told, number) + exercise_code(cell) + solution_after(after, number)
            )
            problems += [f"exercise {number} (cell {i}): {problem}" for problem in found]
    solutions = [exercise_number(cell) for cell in notebook.cells if "solution" in tags(cell)]
    titles = [
        title for _, cell in cells(notebook, "markdown") for title in EXERCISE.findall(cell.source)
    ]
    for what, found in {"solutions": solutions, "titles": titles}.items():
        if found != numbers:
            problems.append(f"exercises are {numbers}, {what} are {found}")
    if not 2 <= len(numbers) <= 6:
        problems.append(f"{len(numbers)} exercises; a notebook has two or three, at most six")
    return problems


def exercise_number(cell):
    return str(cell.metadata.get("barlow_edu", {}).get("exercise"))


def exercise_text(source, number):
    """Problems of the markdown cell before an exercise."""
    problems = []
    if EXERCISE.findall(source)[-1:] != [number]:
        problems.append(f"no title '## Exercise {number}: ...' in the cell before it")
    text = source[source.rfind("## Exercise") :]
    header = HEADER.search(text)
    if not header or STARS.get(header[1]) != header[2]:
        line = "**Difficulty:** ★★☆ (2 of 3) · **Time:** 12 minutes"
        problems.append(f"no line like {line!r}")
    if HINT.findall(text) != ["Hint 1", "Hint 2", "Hint 3"]:
        problems.append(f"hints are {HINT.findall(text)}, not Hint 1 to 3")
    return problems


def exercise_code(cell):
    """Problems of the stub."""
    problems = [] if TASK.search(cell.source) else ["its cell has no '...  # your turn'"]
    return problems + ([] if CHECK.search(cell.source) else ["its cell calls no checker"])


def solution_after(cell, number):
    """Problems of the cell after an exercise, which holds the solution."""
    if cell is None or "solution" not in tags(cell) or exercise_number(cell) != number:
        return ["the next cell is not its solution"]
    problems = [] if CHECK.search(cell.source) else ["its solution calls no checker"]
    folded = cell.metadata.get("jupyter", {}).get("source_hidden")
    return problems + ([] if folded else ["its solution is not folded (jupyter.source_hidden)"])


def has_its_anatomy(notebook):
    text = "\n\n".join(
        FENCE.sub("", cell.source)
        for _, cell in cells(notebook, "markdown")
        if "instructor" not in tags(cell)
    )
    problems = [
        f"lacks {part}"
        for part, pattern in ANATOMY.items()
        if not re.search(pattern, text, re.MULTILINE | re.IGNORECASE)
    ]
    setups = sum("setup" in tags(cell) for _, cell in cells(notebook, "code"))
    return problems + ([] if setups == 1 else [f"{setups} cells tagged setup, not one"])


def has_teaching_notes(notebook):
    """At the end, in a cell of their own, so that the builds can leave them out."""
    last = notebook.cells[-1]
    if last.cell_type != "markdown" or "instructor" not in tags(last):
        return ["the last cell is not a markdown cell tagged instructor, with the teaching notes"]
    text = "\n".join(
        cell.source for _, cell in cells(notebook, "markdown") if "instructor" in tags(cell)
    )
    problems = [
        f"the teaching notes lack {part}"
        for part, pattern in NOTES.items()
        if not re.search(pattern, text, re.IGNORECASE)
    ]
    loose = [
        f"cell {i}: teaching notes outside the cell tagged instructor"
        for i, cell in cells(notebook, "markdown")
        if re.search(r"(\*\*|# )Teaching notes", cell.source) and "instructor" not in tags(cell)
    ]
    return problems + loose


def images_have_alt_text(notebook):
    problems = []
    for i, cell in cells(notebook, "markdown"):
        source = FENCE.sub("", cell.source)
        if any(not alt.strip() for alt in MARKDOWN_IMAGE.findall(source)):
            problems.append(f"cell {i}: a markdown image without alt text")
        if any(not HTML_ALT.search(image) for image in HTML_IMAGE.findall(source)):
            problems.append(f"cell {i}: an <img> without alt text")
    for i, output in outputs(notebook):
        html = BASE64.sub("", output.get("data", {}).get("text/html", ""))
        if any(not HTML_ALT.search(image) for image in HTML_IMAGE.findall(html)):
            problems.append(f"cell {i}: its HTML output has an <img> without alt text")
    return problems


def figures_have_alt_text(notebook):
    return [
        f"cell {i}: a figure without alt text, show it with plots.show(fig, alt=...)"
        for i, output in outputs(notebook)
        for mime in output.get("data", {})
        if mime.startswith("image/")
        and not str(output.metadata.get(mime, {}).get("alt", "")).strip()
    ]


def headings_in_order(notebook):
    markdown = "\n\n".join(cell.source for _, cell in cells(notebook, "markdown"))
    levels = [(len(marks), title) for marks, title in HEADING.findall(FENCE.sub("", markdown))]
    titles = [title for level, title in levels if level == 1]
    problems = []
    if len(titles) != 1 or levels[0][0] != 1:
        problems.append(f"needs one # heading, the first of all; it has {titles}")
    for (before, _), (level, title) in zip(levels, levels[1:], strict=False):
        if level > before + 1:
            problems.append(f"heading {title!r} jumps from level {before} to {level}")
    return problems


def short_cells(notebook):
    return [
        f"cell {i} has {lines} lines, more than {MAX_LINES}"
        for i, cell in cells(notebook, "code")
        if (lines := len(cell.source.strip().splitlines())) > MAX_LINES
        and not tags(cell) & LONG_CELL_TAGS
    ]


def no_machine_paths(notebook):
    texts = [(i, BASE64.sub("base64,", cell.source)) for i, cell in enumerate(notebook.cells)]
    texts += [(i, text_of(output)) for i, output in outputs(notebook)]
    found = [(i, MACHINE_PATH.search(text)) for i, text in texts]
    return [f"cell {i} holds a path of this machine: {hit[0]}" for i, hit in found if hit]


def numbers_are_shown(notebook):
    """A line that ends in True hides the number that it is about: print it, behind a ≈ if it was measured."""
    return [
        f"cell {i} prints {line.strip()[:60]!r}: print the number (≈), and assert what must hold"
        for i, output in outputs(notebook)
        for line in text_of({**output, "data": plain_only(output)}).splitlines()
        if re.search(r"\b(True|False)\.?\s*$", line)
    ]


def plain_only(output):
    return {k: v for k, v in output.get("data", {}).items() if k == "text/plain"}


def predictions_are_real(notebook):
    """A question that one commits to, and its result in a later cell, out of sight until that is run."""
    problems, open_questions = [], []
    code = cells(notebook, "code")
    source = "\n".join(cell.source for _, cell in code)
    lines = re.findall(r"^(?:from \S+ )?import (.+)$", source, re.MULTILINE)
    imported = set(re.findall(r"\w+", " ".join(lines)))
    for i, cell in code:
        asked = re.findall(r"^(\w+) = (?:be\.)?predict\(", cell.source, re.MULTILINE)
        compared = re.findall(r"\b(\w+)\.compare\(", cell.source)
        answered = [name for name in compared if name not in imported]  # a module may compare, too
        if asked and "predict" not in tags(cell):
            problems.append(f"cell {i} asks for a prediction and is not tagged predict")
        if answered and "reveal" not in tags(cell):
            problems.append(f"cell {i} shows the result of a prediction and is not tagged reveal")
        if set(asked) & set(answered):
            problems.append(f"cell {i} answers its own question")
        hidden = cell.metadata.get("jupyter", {}).get("outputs_hidden")
        if "reveal" in tags(cell) and not hidden:
            problems.append(
                f"cell {i} is tagged reveal and shows its output: run the notebook anew"
            )
        open_questions = [q for q in open_questions + asked if q not in answered]
    if not any("predict" in tags(cell) for _, cell in code):
        problems.append("asks for no prediction: guess = be.predict(...)")
    problems += [f"{question} is never compared with its result" for question in open_questions]
    for i, cell in cells(notebook, "markdown"):
        if re.search(r"\*\*Predict\b", cell.source) and "instructor" not in tags(cell):
            problems.append(f"cell {i} asks in the text, where one cannot commit: be.predict(...)")
    return problems


def alt_text_is_out_of_sight(notebook):
    problems = [
        f"cell {i} writes an alt text in its code: it belongs to metadata.barlow_edu.alt"
        for i, cell in cells(notebook, "code")
        if re.search(r"\balt=", cell.source) and not tags(cell) & {"setup", "solution"}
    ]
    for i, cell in cells(notebook, "code"):
        figures = [o for o in cell.outputs if "image/png" in o.get("data", {})]
        named = "alt" in cell.metadata.get("barlow_edu", {})
        players = any("<script" in o.get("data", {}).get("text/html", "") for o in cell.outputs)
        if figures and not named and not players:
            problems.append(f"cell {i} has a figure and no alt text in metadata.barlow_edu.alt")
    return problems


def narrow_code(notebook):
    return [
        f"cell {i} has a line of {len(line)} characters, more than {MAX_COLUMNS}"
        for i, cell in cells(notebook, "code")
        for line in cell.source.splitlines()
        if len(line) > MAX_COLUMNS
    ]


def short_page(notebook):
    words = sum(
        len(cell.source.split())
        for _, cell in cells(notebook, "markdown")
        if "instructor" not in tags(cell)
    )
    code = len([cell for _, cell in cells(notebook, "code") if "solution" not in tags(cell)])
    problems = [f"{words} words, more than {MAX_WORDS}"] if words > MAX_WORDS else []
    return problems + ([f"{code} code cells, more than {MAX_CODE_CELLS}"] * (code > MAX_CODE_CELLS))


RULES = [
    executed_in_order,
    no_errors,
    no_stderr,
    no_widget_state,
    small_file,
    outputs_are_compared,
    runs_have_new_folders,
    has_exercise,
    exercises_are_whole,
    has_its_anatomy,
    has_teaching_notes,
    images_have_alt_text,
    figures_have_alt_text,
    headings_in_order,
    short_cells,
    no_machine_paths,
    numbers_are_shown,
    predictions_are_real,
    alt_text_is_out_of_sight,
    narrow_code,
    short_page,
]


def problems(path):
    """All problems of the notebook file at `path`, as sentences that begin with the rule's name."""
    notebook = nbformat.read(path, as_version=4)
    return [f"{rule.__name__}: {problem}" for rule in RULES for problem in rule(notebook)]


if __name__ == "__main__":
    found = [f"{Path(path).name}: {text}" for path in sys.argv[1:] for text in problems(path)]
    print("\n".join(found))
    sys.exit(bool(found))
