"""Recorded experiments: named variants of one short training, over seeds.

A YAML file beside this one declares them: a base configuration, and for each experiment a question and its variants.
Each experiment is a study, ``data/runs/SET/EXPERIMENT``. A training that another experiment of the set has done with
the same settings is taken over.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from barlow_edu.config import load_config
from barlow_edu.settings import read_yaml
from barlow_edu.studies.measure import Judges, baselines, train
from barlow_edu.studies.study import Study, follow, load_study, refuse_varied

HERE = Path(__file__).parent
JUDGES = Judges(shrunk=True)


def experiment_sets() -> list[str]:
    """Names of the declared sets of experiments."""
    return sorted(p.stem for p in HERE.glob("*.yaml"))


def load_experiment(path: str | Path) -> Study:
    """An experiment by folder, or by the name of a recorded one, as "ablations/terms".

    Raises FileNotFoundError saying how to make one.
    """
    return load_study(path, experiment_sets()[0])


def declaration(name: str) -> dict[str, Any]:
    """What the set of that name declares. Raises ValueError for another name, naming those there are."""
    if name not in experiment_sets():
        raise ValueError(f"No experiments {name!r}. There are {', '.join(experiment_sets())}.")
    return read_yaml((HERE / f"{name}.yaml").read_text(encoding="utf-8"))


def rank_agreement(column: str, other: str = "knn", name: str = "ablations") -> float:
    """Spearman's correlation of two columns over all recorded trainings of a set, each training counted once.

    RankMe (Garrido et al., 2023) chooses among trainings by the rank of what they learned:
    ``rank_agreement("effective_rank_h")`` says how well that would have chosen here, ``rank_agreement(
    "effective_rank_z")`` whether the embedding tells it, too. Raises FileNotFoundError if nothing is recorded and
    KeyError for an unknown column.
    """
    from scipy.stats import spearmanr

    studies = [load_experiment(f"{name}/{e}") for e in declaration(name)["experiments"]]
    # A training that two experiments share has the same settings in both.
    pairs = {
        str(study.config_of(row["variant"], row["seed"])): (row[column], row[other])
        for study in studies
        for row in study.rows
    }
    return float(spearmanr(*zip(*pairs.values(), strict=True)).statistic)


def run_experiments(
    name: str,
    out: str | Path | None = None,
    only: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    jobs: int = 1,
    progress: bool = True,
    **overrides: Any,
) -> list[Study]:
    """Train every variant of the set's experiments with every seed, and keep what came of it under ``out``.

    out: default, runs/NAME. only: some experiments; default, all. jobs: trainings at a time, one thread each.
    overrides: settings for all trainings, as for ``pretrain``. Raises ValueError for an unknown experiment, an
    impossible setting, or a folder that holds the experiment with other settings.
    """
    declared = declaration(name)
    experiments = declared["experiments"]
    unknown = set(only) - set(experiments)
    if unknown:
        raise ValueError(
            f"No experiment {', '.join(sorted(unknown))}. There are {', '.join(experiments)}."
        )
    out = Path(out) if out is not None else Path("runs") / name
    refuse_varied(overrides, "seed")
    base = dict(declared["base"])
    base = load_config(base.pop("config"), snapshots=0, **base | overrides)
    seeds = list(declared["seeds"] if seeds is None else seeds)
    studies = []
    for key in only or list(experiments):
        points = {n: change or {} for n, change in experiments[key]["variants"].items()}
        question = experiments[key]["question"]
        studies.append(Study.begin(out / key, base, points, seeds, question=question))
    total = sum(len(study.missing()) for study in studies)
    follow((text for study in studies for text in _fill(study, jobs)), total, progress)
    return [Study(study.path) for study in studies]


def _fill(study: Study, jobs: int) -> Iterator[str]:
    """Take over, then train, what is missing; a line about each."""
    wanted = len(study.missing())
    others = sorted(study.path.parent.glob("*/study.yaml"))
    study.take_over(Study(other.parent) for other in others)
    todo = len(study.missing())
    yield from ["taken over"] * (wanted - todo)
    if todo and not study.baselines:
        study.results["baselines"] = baselines(study.config, JUDGES)
    yield from study.fill(partial(train, judges=JUDGES), jobs=jobs)
