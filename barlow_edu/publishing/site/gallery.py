"""The gallery of recorded runs: one page for every folder of ``data/runs``, made from its files alone."""

import glob
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from barlow_edu.publishing import html
from barlow_edu.runs import Run
from barlow_edu.storage.files import read_json
from barlow_edu.storage.places import data_dir
from barlow_edu.studies.study import Study
from barlow_edu.teaching.embed import pixels, to_png
from barlow_edu.teaching.explorer import LambdaExplorer
from barlow_edu.teaching.figures import plots
from barlow_edu.teaching.figures.film import Film


def records() -> dict[str, Path]:
    """Name -> folder of the recorded runs and studies, such as ``"ablations/width"``."""
    top = data_dir() / "runs"  # whose hidden folders are unfinished records, which glob passes over
    files = glob.iglob("**/environment.json", root_dir=top, recursive=True)
    return {path.as_posix(): top / path for path in sorted(Path(file).parent for file in files)}


def page_name(record: str) -> str:
    """The page of a record, without its ending: ``"ablations-width"`` for ``"ablations/width"``."""
    return re.sub(r"\W+", "-", record)


def method_name(key: str) -> str:
    """A method or a variant as one writes it."""
    return html.TEXTS["methods"].get(key, key)


def pages() -> dict[str, str]:
    """Name of a page, without its ending -> its Markdown: one for every record, and their index."""
    content, rows = {}, []
    for record, path in records().items():
        page, heading = page_name(record), html.text(record)
        line, parts = page_of(path)
        content[page] = "\n\n".join([f"# {heading}", line, *parts, ""])
        rows.append((html.Markdown(f"[{heading}]({page}.md)"), line))
    index = ["# Recorded runs", html.TEXTS["records"], html.table(("record", "what it is"), rows)]
    content["index"] = "\n\n".join([*index, html.toctree(content), ""])
    return {f"runs/{page}": text for page, text in content.items()}


def page_of(path: Path) -> tuple[html.Markdown, list[str]]:
    """One line about a record, and the parts of its page in Markdown."""
    environment = read_json(path / "environment.json")
    device = {"cpu": "a CPU"}.get(environment["device"], environment["device"])
    minutes = environment["minutes"]
    time = f"{minutes:.1f} minutes" if minutes < 100 else f"{minutes / 60:.1f} hours"
    where = html.text(f"{environment['data']}, {time} on {device}")
    study = (path / "study.yaml").exists()
    line, parts, config = _study(Study(path)) if study else _run(Run(path))
    labels = {k: label for k, label in html.TEXTS["environment"].items() if k in environment}
    parts += ["## Where it ran", _pairs({label: environment[k] for k, label in labels.items()})]
    configured = html.fenced(yaml.safe_dump(config, sort_keys=False).strip(), "yaml")
    return html.Markdown(f"{line}: {where}."), [*parts, "## Configuration", configured]


def _run(run: Run) -> tuple[str, list[str], Any]:
    last, name, c = run.metrics[-1], run.path.name, run.config
    encoder, stem, views = (html.code(c[key]) for key in ("encoder", "stem", "views"))
    stem = "" if "/" in c["encoder"] else f" with the {stem} stem"  # others have their own
    line = f"{encoder}{stem}, views {views}, {html.text(c['epochs'])} epochs"
    parts = [f"Last logged step: {last['step']:,}; loss {last['loss']:.4g}."]
    alt = f"Training curves of {name}: the loss with its two parts, and the mean of C's diagonal, by step."
    parts += ["## Training", picture(plots.curves(run), alt)]
    if run.snapshots:
        film = Film(run.snapshots, title=f"C in {name}")
        parts += ["## The film of C", html.raw(html.image(film.png, film.alt, 700) + film.player())]
    if run.evaluation:
        parts += ["## Evaluation", evaluation(run.evaluation)]
    return line, parts, c | {"root": None}  # a folder of this machine stays here


def picture(fig: Any, alt: str) -> str:
    """A figure as a part of a page."""
    return html.raw(html.image(to_png(fig, alt), alt, pixels(fig)[0]))


def _study(study: Study) -> tuple[str, list[str], Any]:
    """Several trainings: their question, and an explorer of C where it is kept, or a table of their scores."""
    rows = study.rows
    if study.bytes:
        explorer = LambdaExplorer(study)
        line = f"{len(rows)} trainings, each with another {html.code(study.key)}"
        player = html.image(explorer.png, explorer.spec["alt"], 700) + explorer.player()
        parts = ["## Slide through it", html.raw(player)]
    else:
        names = ", ".join(map(method_name, study.groups))
        question = str(study.settings.get("question") or f"{names} on one budget")
        line = html.text(question + ("" if question.endswith(("?", ")")) else "."))
        line = f"{line} {len(rows)} trainings"
        parts = ["## Results", means_table(rows, study.key)]
    accuracies = {n: v["knn"] if isinstance(v, dict) else v for n, v in study.baselines.items()}
    named = {html.TEXTS["baselines"].get(n, n): _number("knn", v) for n, v in accuracies.items()}
    parts += ["## Compared with", _pairs(named)] if named else []
    return line, parts, study.settings


def means_table(rows: Sequence[Mapping[str, Any]], kind: str) -> str:
    """Means over the seeds, one line for each value of ``kind``, with the lowest and the highest."""
    labels = {k: label for k, label in html.TEXTS["columns"].items() if k in rows[0]}
    seeds, lines = len({row["seed"] for row in rows}), []
    for name in dict.fromkeys(row[kind] for row in rows):
        lines.append([method_name(name)])
        for key in labels:
            values = [row[key] for row in rows if row[kind] == name]
            spread = (sum(values) / len(values), min(values), max(values))
            lines[-1].append("{} ({} to {})".format(*(_number(key, v) for v in spread)))
    what = f"Means over {seeds} seeds, the lowest and the highest in brackets."
    return f"{what}\n\n{html.table([kind, *labels.values()], lines)}"


def evaluation(scores: Mapping[str, Any]) -> str:
    """Table of an evaluation, what it was measured on below it."""
    rows = scores["rows"]
    measured = set().union(*rows.values())
    labels = {k: label for k, label in html.TEXTS["scores"].items() if k in measured}
    cells = [[name, *(_number(k, row.get(k)) for k in labels)] for name, row in rows.items()]
    images = f"{scores['train_images']:,} training and {scores['test_images']:,} test images"
    return f"{html.table(['features', *labels.values()], cells)}\n\n{images} of {html.text(scores['data'])}."


def _number(key: str, value: Any) -> str:
    """What was measured, as its column writes it: accuracies in per cent."""
    if value is None:
        return "not measured"
    if key in ("knn", "linear"):
        return f"{100 * value:.1f}"
    return f"{value:.2f}" if key == "diagonal_mean" else f"{value:.1f}"


def _pairs(values: Mapping[str, Any]) -> str:
    return html.table(("what", "value"), list(values.items()))
