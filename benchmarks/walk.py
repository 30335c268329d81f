"""A timed walk through the 90-minute lecture, as a student does it who sees the notebooks for the first time.

    python benchmarks/walk.py

Reading: the words of the Markdown cells (without hints, answers and teaching notes) and of the code, at the speeds
below. Looking: a fixed time for every figure and every prediction. Running: the cells are executed, one after the
other, and timed; while a cell of more than half a minute runs, the student is assumed to wait. Exercises: the minutes
that their titles state. Nothing is said of questions to the lecturer.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
from needed_cells import needed

ROOT = Path(__file__).parents[1]
OUT = Path(__file__).parent / "results" / "walk_90_minutes.md"
WORDS_A_MINUTE = 200  # prose with formulas, read to be understood; plain prose goes at about 240
CODE_WORDS_A_MINUTE = 100
FIGURE, PREDICTION = 30, 45  # seconds

# Notebook, how the headings of a part begin ("": what comes before the first), its minutes in the guide.
TRACK = [
    ("00_start_here", ("", "1. ", "2. "), 8),
    ("00_start_here", ("3. ", "4. ", "Exercise 0.1", "Exercise 0.2"), 25),
    ("00_start_here", ("5. ",), 10),
    ("00_start_here", ("6. ", "7. "), 12),
    ("00_start_here", ("A common mistake", "Recap"), 10),
    ("08_lambda_explorer", ("", "1. "), 15),
]
FOLDED = re.compile(r"<details>.*?</details>", re.DOTALL)
MINUTES = re.compile(r"\*\*Time:\*\* (\d+) minutes")


def sections(notebook) -> dict[str, list]:
    """Heading of every ``## `` section -> its cells; a cell with several headings is split between them."""
    found: dict[str, list] = {"": []}
    here = ""
    for cell in notebook.cells:
        if "instructor" in cell.metadata.get("tags", []):
            continue
        if cell.cell_type == "code":
            found[here].append(cell)
            continue
        for part in re.split(r"^(?=## )", cell.source, flags=re.MULTILINE):
            if part.startswith("## "):
                here = part.splitlines()[0][3:]
                found[here] = []
            found[here].append(nbformat.v4.new_markdown_cell(part))
    return found


def chosen(notebook, beginnings) -> list:
    """The cells of the sections that begin so. Raises ValueError if a section is missing."""
    found, cells = sections(notebook), []
    for begin in beginnings:
        names = [n for n in found if (n.startswith(begin) if begin else n == "")]
        if len(names) != 1:
            raise ValueError(
                f"{len(names)} sections begin with {begin!r}; there are {list(found)}."
            )
        cells += found[names[0]]
    return cells


def reading(cells) -> dict[str, float]:
    """Minutes of reading, looking and solving, and the words read."""
    prose = [FOLDED.sub("", c.source) for c in cells if c.cell_type == "markdown"]
    code = [
        c for c in cells if c.cell_type == "code" and "solution" not in c.metadata.get("tags", [])
    ]
    words = sum(len(text.split()) for text in prose)
    code_words = sum(len(re.findall(r"\w+", c.source)) for c in code)
    figures = sum("image/png" in o.get("data", {}) for c in code for o in c.get("outputs", []))
    predictions = sum("predict" in c.metadata.get("tags", []) for c in code)
    return {
        "words": words,
        "read": words / WORDS_A_MINUTE + code_words / CODE_WORDS_A_MINUTE,
        "look": (figures * FIGURE + predictions * PREDICTION) / 60,
        "solve": sum(int(m) for text in prose for m in MINUTES.findall(text)),
    }


def seconds_of_cells(path: Path, wanted: set[str]) -> dict[str, float]:
    """Execute the cells with the ids ``wanted`` and what they need; seconds by id."""
    notebook = nbformat.read(path, as_version=4)
    steps = set(needed(notebook, wanted))
    notebook.cells = [c for c in notebook.cells if c.id in steps]
    begun, took = {}, {}
    client = NotebookClient(
        notebook,
        timeout=3000,
        resources={"metadata": {"path": path.parent}},
        on_cell_execute=lambda cell, cell_index: begun.update({cell.id: time.perf_counter()}),
        # not on_cell_complete, which comes when the cell is sent
        on_cell_executed=lambda cell, cell_index, execute_reply: took.update(
            {cell.id: time.perf_counter() - begun[cell.id]}
        ),
    )
    try:
        client.execute()
    except AssertionError:
        if (
            client.km is not None
        ):  # else nbclient wants to end a kernel that Ctrl-C or kill has ended
            raise
        raise SystemExit("Stopped; nothing was written.") from None
    return took


def main() -> None:
    """Walk, and write the table."""
    os.environ["BARLOW_EDU_TIER"] = "quick"
    notebooks = {n: nbformat.read(ROOT / "notebooks" / f"{n}.ipynb", 4) for n, _, _ in TRACK}
    parts = [(n, begin, planned, chosen(notebooks[n], begin)) for n, begin, planned in TRACK]
    took: dict[str, float] = {}
    for name in notebooks:
        ids = {
            c.id for n, _, _, cells in parts if n == name for c in cells if c.cell_type == "code"
        }
        took |= seconds_of_cells(ROOT / "notebooks" / f"{name}.ipynb", ids)
    rows, total = (
        [],
        dict.fromkeys(("words", "read", "look", "run", "solve", "all", "planned"), 0.0),
    )
    for name, begin, planned, cells in parts:
        row = reading(cells) | {"planned": planned}
        row["run"] = sum(took.get(c.id, 0) for c in cells if c.cell_type == "code") / 60
        row["all"] = row["read"] + row["look"] + row["run"] + row["solve"]
        total = {key: total[key] + row[key] for key in total}
        titles = ", ".join(b.strip(". ") or "opening" for b in begin)
        rows.append((f"{name[:2]}: {titles}", row))
    keys = ("words", "read", "look", "run", "solve", "all", "planned")
    lines = [f"| {' | '.join(['part', *keys])} |", "|---|" + "---:|" * len(keys)]
    for name, row in [*rows, ("**all**", total)]:
        lines.append(
            f"| {name} | "
            + " | ".join(
                f"{row[k]:.0f}" if k in ("words", "planned", "solve") else f"{row[k]:.1f}"
                for k in keys
            )
            + " |"
        )
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    text = (
        "# A timed walk through the 90-minute lecture\n\n"
        f"Minutes, but for the words. {WORDS_A_MINUTE} words of prose and {CODE_WORDS_A_MINUTE} words of code a "
        f"minute, {FIGURE} s a figure, {PREDICTION} s a prediction, exercises as long as their titles say, cells "
        "as long as they ran. No questions, no breaks. "
        f"Run: {time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, load {busy:.0f} at the end, "
        f"Python {platform.python_version()}.\n\n" + "\n".join(lines) + "\n"
    )
    OUT.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
