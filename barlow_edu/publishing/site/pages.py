"""The other pages: home, guides, claims ledger, glossary and settings."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from barlow_edu import __version__
from barlow_edu.config import settings_table
from barlow_edu.publishing.html import TEXTS, Markdown, image, raw, table, text, toctree
from barlow_edu.publishing.notebook import paths, read, relink, title
from barlow_edu.publishing.site import gallery, reference
from barlow_edu.publishing.site.notebooks import on_site, records
from barlow_edu.publishing.versions import teaching_notes
from barlow_edu.runs import load_run
from barlow_edu.storage.places import data_dir
from barlow_edu.studies import ledger

HERE = Path(__file__).parent
MANUALS = ("install", "using")
GUIDES = {"INSTRUCTOR_GUIDE.md": "instructor_guide.md", "FORMULA_SHEET.md": "formula_sheet.md"}


def pages(source: Path, names: Sequence[str]) -> dict[str, str]:
    """Name of a page, without its ending -> its Markdown; ``names``: those of the notebooks in ``source``."""
    guides = _guides(source)
    more = {"claims": _claims(), "glossary": _glossary(names), "index": _home(source, guides)}
    return guides | _manuals() | more


def _home(source: Path, guides: Mapping[str, str]) -> str:
    """The home page, with the order of all pages."""
    books = {path.stem: read(path) for path in paths(source)}
    chapters = {
        "Notebooks": [f"notebooks/{name}" for name in books],
        "To look up": [*MANUALS, "glossary", "claims", "runs/index", "settings", "api/index"],
        "To teach": list(guides),
    }
    ran = load_run("garments_hero").environment
    picture = (data_dir() / "figures" / "c_becomes_identity.png").read_bytes()
    headings = {name: content.splitlines()[0].lstrip("# ") for name, content in guides.items()}
    first, opening = next(iter(books.items()))
    fill = {
        "picture": raw(image(picture, TEXTS["picture"], 700)),
        "minutes": ran["minutes"],
        "threads": text(ran["threads"]),
        "first": f"[{title(opening)}](notebooks/{first}.ipynb)",
        "guides": ", ".join(f"[{heading}]({name}.md)" for name, heading in headings.items()),
        "version": __version__,
        "notebooks": table(("notebook", "its claim"), [_row(*book) for book in books.items()]),
        "contents": "\n\n".join(toctree(pages, name) for name, pages in chapters.items()),
    }
    return (HERE / "home.md").read_text(encoding="utf-8").format(**fill)


def _row(name: str, notebook) -> tuple[Markdown, Markdown]:
    """A notebook's row in the table: its title and the minutes on its card, and the sentence that it claims."""
    top = "\n\n".join(cell.source for cell in notebook.cells[:3])
    minutes = re.search(r"\*\*Time\*\* \| about (\d+) minutes", top)
    claim = re.search(r"\*\*Claim[.:]?(?:\*\*)?\s*(.+?)(?:\n\n|$)", top, re.DOTALL)
    sentence = " ".join(claim[1].replace("**", "").split()).replace("|", r"\|") if claim else ""
    link = f"[{title(notebook)}](notebooks/{name}.ipynb)"
    link += f"<br>{minutes[1]} min" if minutes else ""
    return Markdown(link), Markdown(sentence[:1].upper() + sentence[1:])


def _guides(source: Path) -> dict[str, str]:
    """The guides beside the notebooks, and the teaching notes of all of them."""
    books = paths(source)
    texts = {page: (source / file).read_text(encoding="utf-8") for file, page in GUIDES.items()}
    texts["teaching_notes.md"] = teaching_notes(map(read, books))
    known = {path.name for path in books} | records() | set(texts)

    def there(target: str) -> str | None:
        return on_site(known, GUIDES.get(target, target))

    return {f"notebooks/{p[:-3]}": relink(content, there) for p, content in texts.items()}


def _manuals() -> dict[str, str]:
    """How to install and use the package, as it stands beside this file, and the table of all settings."""
    texts = {name: (HERE / f"{name}.md").read_text(encoding="utf-8") for name in MANUALS}
    texts["settings"] = f"# Settings\n\n{TEXTS['settings']}\n\n{settings_table()}\n"
    return {name: relink(content, lambda to: on_site((), to)) for name, content in texts.items()}


def _claims() -> str:
    """The claims ledger: every claim of ``claims.json`` with what the recorded trainings say."""
    parts, recorded = ["# Claims ledger", TEXTS["claims"]], gallery.records()
    for i, entry in enumerate(ledger.ledger(), 1):
        claim = entry.claim
        parts += [f"## {i}. {claim.text}", f"**Verdict here: {entry.verdict}.**"]
        parts += [f"Why: {'; '.join(entry.obstacles)}."] if entry.obstacles else []
        parts.append(f"* Who says so: {claim.who}\n* In the paper: {claim.paper}")
        measured = zip(claim.predictions, entry.effects, entry.outcomes, strict=True)
        rows = [_prediction(*row) for row in measured]
        parts.append(table(("prediction", "measured", "outcome"), rows))
        wanted = dict.fromkeys(p.experiment for p in claim.predictions)
        names = [n for e in wanted for n in (e, f"ablations/{e}") if n in recorded]
        links = [f"[{n}](runs/{gallery.page_name(n)}.md)" for n in names]
        parts += [f"Record: {', '.join(links)}"] if links else []
    return "\n\n".join([*parts, ""])


def _prediction(prediction, effect, outcome: str) -> tuple[str, str, str]:
    """A prediction as a row: what it says, what was measured, what came of it."""
    name, unit = ledger.KEYS[prediction.key]
    measured = f"{effect} {unit}".strip().replace("-", "−") if effect else "not recorded"
    one, other = map(gallery.method_name, (prediction.variant, prediction.other))
    return f"{one} {prediction.relation} {other}, {name}", measured, outcome


def glossary() -> list[dict[str, str]]:
    """The terms: ``term``, ``meaning``, ``notebook`` (its number); perhaps ``symbol``, ``name`` in the package."""
    return yaml.safe_load((HERE / "glossary.yaml").read_text(encoding="utf-8"))


def _glossary(names: Sequence[str]) -> str:
    """The glossary: every term with its symbol, meaning, name in the package and first notebook."""
    where = {name[:2]: name for name in names}
    what = "Every term of the course, with its symbol and where it is introduced."
    lines = ["# Glossary", "", what, "", "````{glossary}"]
    for entry in sorted(glossary(), key=lambda e: e["term"].lower()):
        more = [f"Symbol: {entry['symbol']}."] if "symbol" in entry else []
        more += [f"In the package: {reference.linked(entry['name'])}."] if "name" in entry else []
        number = entry["notebook"]
        if number in where:
            more.append(f"Introduced in [notebook {number}](notebooks/{where[number]}.ipynb).")
        lines += [entry["term"], f"  {entry['meaning']} {' '.join(more)}", ""]
    return "\n".join([*lines, "````", ""])
