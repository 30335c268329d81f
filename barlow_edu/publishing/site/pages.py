"""The other pages: home, guides, claims ledger and glossary."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from barlow_edu import __version__
from barlow_edu.publishing.site import gallery, reference
from barlow_edu.publishing.site import notebooks as pages_of_notebooks
from barlow_edu.runs import load_run
from barlow_edu.storage.places import data_dir

HERE = Path(__file__).parent
TITLE = "Learn Barlow Twins by building it"
FIGURE = "c_becomes_identity.png"
ALT = (
    "The cross-correlation matrix at four moments of a recorded run: blotches all over, then a diagonal that grows "
    "while the rest fades to white"
)
GUIDES = {"INSTRUCTOR_GUIDE.md": "instructor_guide", "FORMULA_SHEET.md": "formula_sheet"}
INTRO = """
Barlow Twins learns to see without labels. One idea, from a 4 × 4 matrix that one can check by hand to a pretrained
encoder: **make the cross-correlation matrix $C$ of two views' embeddings the identity.**
"""
START = """
*$C$ at four moments of the recorded run [garments_quick](runs/garments_quick.md): {minutes:.1f} minutes on {cores}
CPU cores. [Play it as a film](runs/garments_quick.md), or [slide through 41 trainings](runs/lambda_sweep.md).*

* **New here?** Begin with [{title}](notebooks/{first}.ipynb).
* **Teaching?** {teaching}
* **Looking for a word?** The [glossary](glossary.md).
* **What was trained, on what, for how long?** The [recorded runs](runs/index.md).
* **Is it true that …?** The [claims ledger](claims.md).
* **Using the package?** Its [reference](api/index.md).

## To read here, to work at home

These pages show the notebooks with their stored outputs, and nothing on them needs a network. Films and the lambda
explorer work here. Exercises, their checkers and the live panel need a running notebook. In a clone of the
repository:

```
pip install uv && uv run jupyter lab notebooks/00_start_here.ipynb
```

Or with the wheel that your teacher gave you:

```
pip install barlow_edu-{version}-py3-none-any.whl
python -m barlow_edu course copy barlow
jupyter lab barlow
```
"""


def write_home(folder: Path, source: Path, names: Sequence[str], guides: Sequence[str]) -> None:
    """Write the home page with the order of all pages."""
    links = [f"[{_heading(folder / 'notebooks' / g)}](notebooks/{g}.md)" for g in guides]
    teaching = ", ".join(links) + "." if links else "See the teaching notes."
    where = load_run("garments_quick").environment
    title = _title(source / f"{names[0]}.ipynb")
    start = START.format(
        first=names[0], title=title, teaching=teaching, version=__version__, **where
    )
    chapters = {
        "Notebooks": [f"notebooks/{name}" for name in names],
        "To look up": ["glossary", "claims", "runs/index", "api/index"],
        "To teach": [f"notebooks/{guide}" for guide in guides],
    }
    toc = [
        "\n".join(["```{toctree}", ":hidden:", f":caption: {name}", "", *entries, "```"])
        for name, entries in chapters.items()
        if entries
    ]
    parts = [
        f"# {TITLE}",
        INTRO.strip(),
        gallery.raw(gallery.picture((data_dir() / "figures" / FIGURE).read_bytes(), ALT, 700)),
        start.strip(),
        "## The notebooks",
        "With the minutes to read and to solve the exercises.",
        _listed(source, names),
        *toc,
    ]
    (folder / "index.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _listed(source: Path, names: Sequence[str]) -> str:
    """The notebooks as a table."""
    rows = ["| notebook | its claim |", "|---|---|"]
    for name in names:
        path = source / f"{name}.ipynb"
        cells = _cells(path)
        link = f"[{_title(path)}](notebooks/{name}.ipynb)"
        rows.append(f"| {link}{_minutes(cells)} | {_claim(cells)} |")
    return "\n".join(rows)


def write_guides(source: Path, folder: Path) -> list[str]:
    """Write the guides beside the notebooks and the teaching notes of all of them; returns the pages' names."""
    import nbformat

    from barlow_edu.publishing.versions import teaching_notes

    paths = sorted(source.glob("[0-9][0-9]_*.ipynb"))
    known = {path.name for path in paths} | pages_of_notebooks.records()
    texts = {"teaching_notes": teaching_notes(nbformat.read(p, as_version=4) for p in paths)}
    for file, name in GUIDES.items():
        if (source / file).exists():
            texts[name] = (source / file).read_text(encoding="utf-8")
    for name, text in texts.items():
        for file, page in GUIDES.items():
            text = text.replace(f"({file})", f"({page}.md)")
        text = pages_of_notebooks.links(text, known | {f"{n}.md" for n in texts})
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
    order = [*GUIDES.values(), "teaching_notes"]
    return sorted(texts, key=order.index)


def write_ledger(folder: Path, runs: Mapping[str, str]) -> None:
    """Write the claims ledger: every claim of ``claims.json`` with what the recorded trainings say."""
    from barlow_edu.studies import ledger

    parts = [
        "# Claims ledger",
        "What is said about Barlow Twins, put as predictions about recorded trainings, and the verdict that follows "
        "from them by a fixed rule: nothing is decided by hand. Differences are means over seeds with their 95 % "
        "interval. A claim without a record says so.",
    ]
    for i, entry in enumerate(ledger.ledger(), 1):
        claim = entry.claim
        parts += [f"## {i}. {claim.text}", f"**Verdict here: {entry.verdict}.**"]
        parts.append(f"* Who says so: {claim.who}\n* In the paper: {claim.paper}")
        rows = ["| prediction | measured | outcome |", "|---|---|---|"]
        for p, found, came in zip(claim.predictions, entry.effects, entry.outcomes, strict=True):
            name, _, unit = ledger.KEYS[p.key]
            told = f"{found} {unit}".strip().replace("-", "−") if found else "not recorded"
            one, other = (gallery.METHODS.get(v, v) for v in (p.variant, p.other))
            rows.append(f"| {one} {p.relation} {other}, {name} | {told} | {came} |")
        parts.append("\n".join(rows))
        wanted = dict.fromkeys(p.experiment for p in claim.predictions)
        there = [n for e in wanted for n in (e, f"ablations-{e}") if n in runs]
        if there:
            links = (f"[{n.replace('ablations-', 'ablations/')}](runs/{n}.md)" for n in there)
            parts.append(f"Record: {', '.join(links)}")
    (folder / "claims.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def glossary() -> list[dict[str, str]]:
    """The terms of the course: ``term``, ``meaning``, ``notebook`` (its number), and where there is one ``symbol``
    and ``name`` (in the package).
    """
    return yaml.safe_load((HERE / "glossary.yaml").read_text(encoding="utf-8"))


def write_glossary(folder: Path, names: Sequence[str]) -> None:
    """Write the glossary: every term with its symbol, meaning, name in the package and first notebook."""
    where = {name[:2]: name for name in names}
    lines = [
        "# Glossary",
        "",
        "Every term of the course, with its symbol and where it is introduced.",
        "",
    ]
    lines += ["````{glossary}"]
    for entry in sorted(glossary(), key=lambda e: e["term"].lower()):
        more = [f"Symbol: {entry['symbol']}."] if "symbol" in entry else []
        more += [f"In the package: {reference.linked(entry['name'])}."] if "name" in entry else []
        number = entry["notebook"]
        if number in where:
            more.append(f"Introduced in [notebook {number}](notebooks/{where[number]}.ipynb).")
        lines += [entry["term"], f"  {entry['meaning']} {' '.join(more)}", ""]
    (folder / "glossary.md").write_text("\n".join([*lines, "````", ""]), encoding="utf-8")


def _cells(path: Path) -> list:
    import nbformat

    return nbformat.read(path, as_version=4).cells


def _title(path: Path) -> str:
    return _cells(path)[0].source.splitlines()[0].lstrip("# ")


def _claim(cells: Sequence) -> str:
    """The sentence that a notebook claims."""
    for cell in cells[:3]:
        found = re.search(r"\*\*Claim[.:]?(?:\*\*)?\s*(.+?)(?:\n\n|$)", cell.source, re.DOTALL)
        if found:
            told = " ".join(found[1].replace("**", "").split()).replace("|", r"\|")
            return told[:1].upper() + told[1:]
    return ""


def _minutes(cells: Sequence) -> str:
    """The minutes on the card of a notebook."""
    found = re.search(
        r"\*\*Time\*\* \| about (\d+) minutes", "\n".join(c.source for c in cells[:3])
    )
    return f"<br>{found[1]} min" if found else ""


def _heading(path: Path) -> str:
    return path.with_suffix(".md").read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
