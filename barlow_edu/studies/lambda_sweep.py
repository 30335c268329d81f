"""A sweep: one short training for every value of one setting, and the 41 values of λ of notebook 08."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from barlow_edu.config import load_config
from barlow_edu.evaluation.features import extract_features
from barlow_edu.evaluation.probes import knn_accuracy, nearest
from barlow_edu.storage.files import write_text
from barlow_edu.studies.measure import USUAL, baselines, short_run, train
from barlow_edu.studies.study import Study, follow, load_study, refuse_varied

LAMBDAS = tuple(float(f"{10 ** (k / 8 - 5):.4g}") for k in range(41))  # 1e-5 to 1, eight a decade
RECORD = "lambda_sweep"
JUDGES = USUAL
NEIGHBOURS = "neighbours.json"
KINDS = (0, 1, 2, 3, 5, 7, 8, 9)  # of the test images whose neighbours are recorded


def load_sweep(path: str | Path = RECORD) -> Study:
    """A sweep by folder, or by the name of a recorded one, as ``load_study`` has it."""
    return load_study(path, "lambda")


def lambda_sweep(
    out: str | Path | None = None, jobs: int = 1, progress: bool = True, **overrides: Any
) -> Study:
    """The sweep of notebook 08: the configuration ``lambda_sweep`` with each of ``LAMBDAS``."""
    out = out if out is not None else Path("runs") / RECORD
    coarse_first = sorted(LAMBDAS, key=lambda x: LAMBDAS.index(x) % 8 > 0)
    return sweep(out, RECORD, "lambd", coarse_first, jobs=jobs, progress=progress, **overrides)


def sweep(
    out: str | Path,
    config: str | Path | Mapping[str, Any],
    key: str,
    values: Sequence[float],
    seeds: Sequence[int] = (0,),
    jobs: int = 1,
    progress: bool = True,
    **overrides: Any,
) -> Study:
    """Train once for every value of one setting and every seed; keep what came of it in one folder.

    out: the folder; trainings finished there are not run again. key: a setting that is a number; its values are
    trained in the given order. jobs: trainings at a time, each in a process of its own with one thread. config,
    overrides: as for ``pretrain``. Raises ValueError if there is nothing to train, if a value does not fit the
    setting, or if the folder holds a study of other settings.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be 1 or more, got {jobs}.")
    if not len(values) or not len(seeds):
        raise ValueError(f"A sweep needs values and seeds, got {list(values)} and {list(seeds)}.")
    refuse_varied(overrides, key, "seed")
    base = load_config(config, snapshots=0, **overrides)
    if not isinstance(load_config().get(key), (int, float)) or key == "seed":
        raise ValueError(f"A sweep goes over a setting that is a number, got {key!r}.")
    for value in values:
        load_config(base, **{key: value})
    study = Study.begin(out, base, {value: {} for value in values}, seeds, key)
    todo = study.missing()
    if todo and not study.baselines:
        study.results["baselines"] = baselines(base, JUDGES)
    steps = study.fill(partial(train, judges=JUDGES), matrices=True, jobs=jobs)
    follow(steps, len(todo), progress)
    return Study(study.path)


def record_neighbours(sweep: Study, every: int = 4) -> Path:
    """Train every fourth value again, and write whom its features take for neighbours: ``neighbours.json``.

    For a test image of each of eight kinds the rows of the twelve nearest among the other test images, by the cosine
    of h; kNN accuracy beside it, since a second training on another machine is not the first one bit for bit, and
    where that took place.
    """
    bank, test = JUDGES.images(sweep.config)
    labels = test.labels.tolist()
    queries = [labels.index(kind) for kind in KINDS if kind in labels]
    rows = []
    for value in sweep.values[::every].tolist():
        with short_run({**sweep.config, "lambd": value}) as run:
            about, features = run.environment, partial(extract_features, run.load_model().encoder)
            voting, h = (features(s.images, run.views().normalize) for s in (bank, test))
        close = nearest(h, h[queries], 13)[1][:, 1:]  # the nearest of all is the query
        knn = knn_accuracy(voting, bank.labels, h, test.labels)
        rows.append({"lambd": value, "knn": round(knn, 4), "nearest": close.tolist()})
        record = {"environment": about, "queries": queries, "rows": rows}
        write_text(sweep.path / NEIGHBOURS, json.dumps(record))
    return sweep.path / NEIGHBOURS


def recorded_neighbours(sweep: Study) -> dict[str, Any] | None:
    """What ``record_neighbours`` wrote: rows of test images, ``queries``, and ``nearest`` a λ and a query."""
    path = sweep.path / NEIGHBOURS
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
