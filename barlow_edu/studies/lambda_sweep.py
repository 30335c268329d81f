"""A sweep: one short training for every value of one setting, and the 41 values of λ of notebook 08."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from barlow_edu.config import load_config
from barlow_edu.storage.files import read_json
from barlow_edu.studies.measure import USUAL, fill
from barlow_edu.studies.study import Study, follow, load_study, refuse_varied

LAMBDAS = tuple(float(f"{10 ** (k / 8 - 5):.4g}") for k in range(41))  # 1e-5 to 1, eight a decade
RECORD = "lambda_sweep"
JUDGES = USUAL


def load_sweep(path: str | Path = RECORD) -> Study:
    """A sweep by folder, or by the name of a recorded one, as ``load_study`` has it."""
    return load_study(path, "lambda")


def lambda_sweep(
    out: str | Path | None = None, jobs: int = 1, progress: bool = True, **overrides: Any
) -> Study:
    """The sweep of notebook 08: the configuration ``lambda_sweep`` with each of ``LAMBDAS``."""
    out = out if out is not None else Path("runs") / RECORD
    # A sweep that is stopped early has the whole range, in wider steps.
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
    follow(fill(study, JUDGES, jobs, matrices=True), len(study.missing()), progress)
    return Study(study.path)


def recorded_neighbours(sweep: Study) -> dict[str, Any] | None:
    """What ``benchmarks/record_neighbours.py`` wrote: test images, ``queries``, and their ``nearest`` for some λ."""
    path = sweep.path / "neighbours.json"
    return read_json(path) if path.exists() else None
