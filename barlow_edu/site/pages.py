"""The other pages: home, guides, claims ledger, glossary, and the reference of the package."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from barlow_edu.site import notebooks as pages_of_notebooks

HERE = Path(__file__).parent
PACKAGE = HERE.parent
GUIDES = {"INSTRUCTOR_GUIDE.md": "instructor_guide", "FORMULA_SHEET.md": "formula_sheet"}
LEAVE_OUT = ("__init__", "__main__")
INTRO = """
Learn Barlow Twins by building it. One idea, from a 4 × 4 matrix that one can check by hand to a pretrained
encoder: **make the cross-correlation matrix $C$ of two views' embeddings the identity.**

These pages show the notebooks with their stored outputs. To work in them, get the package and open them in
JupyterLab: every exercise has a checker that says what went wrong. Films and the lambda explorer work here, too, and
nothing on this site needs a network.
"""
START = """
* **New here?** Begin with [{title}](notebooks/{first}.ipynb).
* **Teaching?** {teaching}
* **Looking for a word?** The [glossary](glossary.md).
* **What was trained, on what, for how long?** The [recorded runs](runs/index.md).
* **Is it true that …?** The [claims ledger](claims.md).
* **Using the package?** Its [reference](api/index.md).
"""


def write_home(folder: Path, source: Path, names, runs, modules, guides) -> None:
    """Write the home page with the order of all pages."""
    titles = {name: _title(source / f"{name}.ipynb") for name in names}
    rows = [
        f"| [{titles[n]}](notebooks/{n}.ipynb) | {_claim(source / f'{n}.ipynb')} |" for n in names
    ]
    listed = ["| notebook | its claim |", "|---|---|", *rows]
    links = [f"[{_heading(folder / 'notebooks' / g)}](notebooks/{g}.md)" for g in guides]
    teaching = ", ".join(links) + "." if links else "See the teaching notes."
    start = START.format(first=names[0], title=titles[names[0]], teaching=teaching)
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
        "# barlow_edu",
        INTRO.strip(),
        start.strip(),
        "## The notebooks",
        "\n".join(listed),
        *toc,
    ]
    (folder / "index.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def write_guides(source: Path, folder: Path) -> list[str]:
    """Write the guides beside the notebooks and the teaching notes of all of them; returns the pages' names."""
    import nbformat

    from barlow_edu.course import teaching_notes

    paths = sorted(source.glob("[0-9][0-9]_*.ipynb"))
    known = {path.name for path in paths}
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
    from barlow_edu import ledger

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
            told = f"{found} {unit}".strip() if found else "not recorded"
            rows.append(f"| {p.variant} {p.relation} {p.other}, {name} | {told} | {came} |")
        parts.append("\n".join(rows))
        wanted = dict.fromkeys(p.experiment for p in claim.predictions)
        there = [n for e in wanted for n in (e, f"ablations-{e}") if n in runs]
        if there:
            parts.append("Record: " + ", ".join(f"[{n}](runs/{n}.md)" for n in there))
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
        more += [f"In the package: `{entry['name']}`."] if "name" in entry else []
        if entry["notebook"] in where:
            more.append(
                f"Introduced in [{entry['notebook']}](notebooks/{where[entry['notebook']]}.ipynb)."
            )
        lines += [entry["term"], f"  {entry['meaning']} {' '.join(more)}", ""]
    (folder / "glossary.md").write_text("\n".join([*lines, "````", ""]), encoding="utf-8")


def write_api(folder: Path) -> list[str]:
    """Write a page for every module that has anything public; returns their names."""
    folder.mkdir(parents=True)
    told = {}
    for path in sorted(PACKAGE.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        kinds = (ast.FunctionDef, ast.ClassDef)
        public = [n for n in tree.body if isinstance(n, kinds) and not n.name.startswith("_")]
        if path.stem in LEAVE_OUT or not public:
            continue
        told[path.stem] = re.split(r"(?<=[.:])\s", ast.get_docstring(tree) or "")[0].rstrip(":")
        text = f"# {path.stem}\n\n```{{eval-rst}}\n.. automodule:: barlow_edu.{path.stem}\n   :members:\n```\n"
        (folder / f"{path.stem}.md").write_text(text, encoding="utf-8")
    rows = [f"| [{n}]({n}.md) | {' '.join(line.split())} |" for n, line in told.items()]
    top = "All that `import barlow_edu` offers comes from these modules; each is one idea."
    listed = "\n".join(["| module | what lives there |", "|---|---|", *rows])
    toc = "\n".join(["```{toctree}", ":hidden:", "", *told, "```"])
    text = "\n\n".join(["# Reference of the package", top, listed, toc])
    (folder / "index.md").write_text(text + "\n", encoding="utf-8")
    return list(told)


def _cells(path: Path) -> list:
    import nbformat

    return nbformat.read(path, as_version=4).cells


def _title(path: Path) -> str:
    return _cells(path)[0].source.splitlines()[0].lstrip("# ")


def _claim(path: Path) -> str:
    """The sentence that a notebook claims."""
    for cell in _cells(path)[:3]:
        found = re.search(r"\*\*Claim[.:]?(?:\*\*)?\s*(.+?)(?:\n\n|$)", cell.source, re.DOTALL)
        if found:
            told = " ".join(found[1].replace("**", "").split()).replace("|", r"\|")
            return told[:1].upper() + told[1:]
    return ""


def _heading(path: Path) -> str:
    return path.with_suffix(".md").read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
