"""Recorded experiments: named variants of one short training, over seeds.

A YAML file beside this one declares them: a base configuration, and for each experiment a question and its variants.
Each experiment is a study, ``data/runs/SET/EXPERIMENT``. A training that another experiment of the set has done with
the same settings is taken over.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from barlow_edu.config import load_config
from barlow_edu.settings import read_yaml
from barlow_edu.studies.measure import Judges, fill
from barlow_edu.studies.study import Study, follow, load_study, refuse_varied

HERE = Path(__file__).parent
JUDGES = Judges(shrunk=True)


def load_experiment(path: str | Path) -> Study:
    """An experiment by folder, or by the name of a recorded one, "ablations/terms", as ``load_study`` has it."""
    return load_study(path, "ablations")


def declaration(name: str) -> dict[str, Any]:
    """What the set of that name declares. Raises ValueError for another name, naming those there are."""
    sets = {path.stem: path for path in sorted(HERE.glob("*.yaml"))}
    if name not in sets:
        raise ValueError(f"No experiments {name!r}. There are {', '.join(sets)}.")
    return read_yaml(sets[name].read_text(encoding="utf-8"))


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
    unknown = ", ".join(sorted(set(only) - set(experiments)))
    if unknown:
        raise ValueError(f"No experiment {unknown}. There are {', '.join(experiments)}.")
    out = Path(out or Path("runs") / name)
    refuse_varied(overrides, "seed")
    base = dict(declared["base"])
    base = load_config(base.pop("config"), snapshots=0, **base | overrides)
    seeds = declared["seeds"] if seeds is None else seeds
    studies = []
    for key in only or experiments:
        points = {n: change or {} for n, change in experiments[key]["variants"].items()}
        question = experiments[key]["question"]
        studies.append(Study.begin(out / key, base, points, seeds, question=question))
    total = sum(len(study.missing()) for study in studies)

    def steps() -> Iterator[str]:
        # One experiment after the other: what the first has trained, the next ones take over.
        for study in studies:
            wanted = len(study.missing())
            study.take_over(Study(other.parent) for other in sorted(out.glob("*/study.yaml")))
            yield from ["taken over"] * (wanted - len(study.missing()))
            yield from fill(study, JUDGES, jobs)

    follow(steps(), total, progress)
    return [Study(study.path) for study in studies]
