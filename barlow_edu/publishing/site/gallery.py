"""The gallery of recorded runs: one page for every folder of ``data/runs``, made from its files alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from barlow_edu.runs import Run
from barlow_edu.storage.places import data_dir
from barlow_edu.studies.study import Study

HARDWARE = {
    "data": "images",
    "images": "training images",
    "minutes": "minutes",
    "device": "device",
    "processor": "processor",
    "cores": "cores",
    "threads": "threads",
    "precision": "precision",
    "system": "system",
    "python": "Python",
    "torch": "torch",
    "commit": "commit",
    "date": "date",
    "note": "note",
}
SCORES = {"knn": "kNN, %", "linear": "linear probe, %", "effective_rank": "effective rank"}
# Columns of a record of several trainings, where they are there.
COLUMNS = {
    "knn": SCORES["knn"],
    "linear": SCORES["linear"],
    "effective_rank_h": "effective rank of h",
    "diagonal_mean": "mean of C's diagonal",
}
METHODS = {
    "barlow_twins": "Barlow Twins",
    "simclr": "SimCLR",
    "byol": "BYOL",
    "vicreg": "VICReg",
    "simsiam": "SimSiam",
}
BASELINES = {
    "pixels": "kNN of the pixels, %",
    "untrained": "kNN of the untrained encoder, %",
    "random encoder": "kNN of the untrained encoder, %",
    "chance": "chance, %",
}


def recorded() -> list[Path]:
    """Folders of the recorded runs, sweeps and experiments, sorted by name."""
    marks = ("config.yaml", "experiment.yaml", "comparison.yaml", "environment.json")
    found = {f.parent for mark in marks for f in (data_dir() / "runs").rglob(mark)}
    return sorted(f for f in found if not any(p.name.startswith(".") for p in (f, *f.parents[:2])))


def pages() -> dict[str, Path]:
    """Name of its page -> folder, of every record."""
    top = data_dir() / "runs"
    return {path.relative_to(top).as_posix().replace("/", "-"): path for path in recorded()}


def write_gallery(folder: Path) -> dict[str, str]:
    """Write a page for every record into ``folder``; returns page name -> a line about it, and writes the index."""
    folder.mkdir(parents=True)
    told = {}
    names = {
        page: path.relative_to(data_dir() / "runs").as_posix() for page, path in pages().items()
    }
    for page, path in pages().items():
        title, parts = page_of(path)
        text = "\n\n".join([f"# {names[page]}", title, *parts])
        (folder / f"{page}.md").write_text(text + "\n", encoding="utf-8")
        told[page] = title
    rows = [f"| [{names[page]}]({page}.md) | {told[page]} |" for page in told]
    table = "\n".join(["| record | what it is |", "|---|---|", *rows])
    toc = "\n".join(["```{toctree}", ":hidden:", "", *told, "```"])
    intro = (
        "What a laptop cannot train while one waits is recorded. Every page here is made from the files of one "
        "folder of `data/runs`: its configuration, the machine, the minutes, and what came of it."
    )
    index = "\n\n".join(["# Recorded runs", intro, table, toc])
    (folder / "index.md").write_text(index + "\n", encoding="utf-8")
    return told


def page_of(path: Path) -> tuple[str, list[str]]:
    """One line about a record, and the parts of its page in Markdown."""
    environment = json.loads((path / "environment.json").read_text(encoding="utf-8"))
    device = {"cpu": "a CPU"}.get(environment["device"], environment["device"])
    where = f"{environment['data']}, {_minutes(environment['minutes'])} on {device}"
    if (path / "study.yaml").exists():
        study = Study(path)
        title, middle, config = *_study(study, where), study.settings
    elif (path / "metrics.jsonl").exists():
        run = Run(path)
        c = run.config
        title = (
            f"`{c['encoder']}` with the `{c['stem']}` stem, views `{c['views']}`, {c['epochs']} epochs: "
            f"{where}."
        )
        middle, config = _run(run), run.config
    else:
        title, middle, config = f"{path.name}: {where}.", [], {}
    hardware = {HARDWARE[k]: environment[k] for k in HARDWARE if k in environment}
    parts = [*middle, "## Where it ran", table(hardware), "## Configuration"]
    return title, [*parts, f"```yaml\n{yaml.safe_dump(config, sort_keys=False).strip()}\n```"]


def _run(run: Run) -> list[str]:
    from barlow_edu.teaching.figures import plots
    from barlow_edu.teaching.figures.film import Film

    last = run.metrics[-1]
    parts = [f"Last logged step: {last['step']:,}; loss {last['loss']:.4g}."]
    alt = f"Training curves of {run.path.name}: the loss with its two parts, and the mean of C's diagonal, by step."
    parts += ["## Training", raw(figure(plots.curves(run), alt))]
    if run.snapshots:
        film = Film(run.snapshots, title=f"C in {run.path.name}")
        parts += ["## The film of C", raw(picture(film.png, film.alt, 700) + film.player())]
    if run.evaluation:
        parts += ["## Evaluation", evaluation(run.evaluation)]
    return parts


def _study(study: Study, where: str) -> tuple[str, list[str]]:
    """One line about several trainings, and what came of them: an explorer, or a table."""
    count, compared = len(study.rows), _compared(study.baselines)
    if study.bytes:
        title = f"{count} trainings, each with another `{study.key}`: {where}."
        if study.key != "lambd":
            keys = [k for k, value in study.rows[0].items() if not isinstance(value, list)]
            return title, ["## Results", rows_table(study.rows, keys)]
        from barlow_edu.teaching.explorer import LambdaExplorer

        explorer = LambdaExplorer(study)
        shown = picture(explorer.png, explorer.spec["alt"], 700) + explorer.player()
        return title, ["## Slide through it", raw(shown), *compared]
    names = ", ".join(METHODS.get(name, name) for name in study.groups)
    question = study.settings.get("question") or f"{names} on one budget"
    end = "" if question.endswith(("?", ")")) else "."
    title = f"{question}{end} {count} trainings: {where}."
    return title, ["## Results", means_table(study.rows, study.key), *compared]


def _compared(baselines: Mapping[str, Any]) -> list[str]:
    """kNN accuracies without training, each a number or among several of its kind."""
    numbers = {n: v["knn"] if isinstance(v, dict) else v for n, v in baselines.items()}
    if not numbers:
        return []
    told = {BASELINES.get(name, name): f"{100 * v:.1f}" for name, v in numbers.items()}
    return ["## Compared with", table(told)]


def means_table(rows: list[Mapping[str, Any]], kind: str) -> str:
    """Means over the seeds, one line for each value of ``kind``, with the lowest and the highest."""
    keys = [k for k in COLUMNS if k in rows[0]]
    seeds = sorted({row["seed"] for row in rows})
    lines = [
        f"Means over {len(seeds)} seeds, the lowest and the highest in brackets.",
        "",
        f"| {kind} | {' | '.join(COLUMNS[k] for k in keys)} |",
        "|---|" + "---|" * len(keys),
    ]
    for name in dict.fromkeys(row[kind] for row in rows):
        cells = [_spread(key, [row[key] for row in rows if row[kind] == name]) for key in keys]
        lines.append(f"| {METHODS.get(name, name)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(key: str, values: list[float]) -> str:
    factor, digits = (100, 1) if "%" in COLUMNS[key] else (1, 1 if "rank" in key else 2)
    mean, low, high = (
        f"{factor * v:.{digits}f}" for v in (sum(values) / len(values), min(values), max(values))
    )
    return f"{mean} ({low} to {high})"


def rows_table(rows: list[Mapping[str, Any]], keys: list[str]) -> str:
    """Rows of a record as a Markdown table."""
    lines = [f"| {' | '.join(keys)} |", "|" + "---|" * len(keys)]
    for row in rows:
        cells = (f"{row[k]:.4g}" if isinstance(row[k], float) else str(row[k]) for k in keys)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def evaluation(found: Mapping[str, Any]) -> str:
    """Table of an evaluation, what it was measured on below it."""
    rows = found["rows"]
    keys = [k for k in SCORES if any(k in row for row in rows.values())]
    lines = [
        f"| features | {' | '.join(SCORES[k] for k in keys)} |",
        "|" + "---|" * (len(keys) + 1),
    ]
    for name, row in rows.items():
        cells = [_score(key, row[key]) if key in row else "not measured" for key in keys]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        f"{found['train_images']:,} training and {found['test_images']:,} test images of {found['data']}.",
    ]
    return "\n".join(lines)


def _score(key: str, value: float) -> str:
    return f"{value:.1f}" if "rank" in key else f"{100 * value:.1f}"


def table(values: Mapping[str, Any]) -> str:
    """Names and values as a Markdown table."""
    return "\n".join(
        ["| what | value |", "|---|---|", *(f"| {k} | {v} |" for k, v in values.items())]
    )


def figure(fig, alt: str) -> str:
    """A figure as HTML."""
    from barlow_edu.teaching.embed import pixels, to_png

    return picture(to_png(fig, alt), alt, pixels(fig)[0])


def picture(png: bytes, alt: str, width: int) -> str:
    """A PNG as HTML."""
    import base64

    from barlow_edu.publishing.site.notebooks import image

    return image(base64.b64encode(png).decode(), alt, width)


def raw(text: str) -> str:
    """HTML within Markdown, in a box of its own in which players find their picture."""
    return f'````{{raw}} html\n<div class="cell_output">\n{text}\n</div>\n````'


def _minutes(value: float) -> str:
    return f"{value:.1f} minutes" if value < 100 else f"{value / 60:.1f} hours"
