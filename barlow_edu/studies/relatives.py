"""Barlow Twins and its relatives on one budget: same encoder, images, views, batch, steps and seeds.

A study whose points are the methods. Each is tuned in its learning rate and in a knob of its own, on held-out
training images, with as many trainings of full length as any other; the test images are looked at once the settings
are chosen. Features are those of whole images, shrunk to the size of the views.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from barlow_edu.config import load_config
from barlow_edu.evaluation.probes import KNN_K, KNN_TEMPERATURE
from barlow_edu.studies.measure import Judges, fill, held_out_knn
from barlow_edu.studies.study import Study, follow, in_turn, load_study, refuse_varied

RECORD = "relatives"
SEEDS = tuple(range(10))
RATES = [0.0015, 0.005, 0.015]
# What is tried of each method, in every combination.
KNOBS: dict[str, dict[str, list[float]]] = {
    "barlow_twins": {"lr": RATES, "lambd": [0.005, 0.02, 0.1]},
    "simclr": {"lr": RATES, "temperature": [0.1, 0.2, 0.5]},
    "byol": {"lr": RATES, "ema": [0.9, 0.97, 0.99]},
    "vicreg": {"lr": RATES, "variance_weight": [10.0, 25.0, 50.0]},
    "simsiam": {"lr": RATES, "pred_hidden": [32, 128, 512]},
}
# 16 epochs of 6,000 images are as many steps as the 12 epochs of 8,000 in the comparison.
TUNING = {"images": 6000, "held_out": 2000, "epochs": 16, "seed": 100}
JUDGES = Judges(votes=None, tests=None, shrunk=True, probes=True)


def load_comparison(path: str | Path = RECORD) -> Study:
    """A comparison by folder, or by the name of a recorded one, as ``load_study`` has it."""
    return load_study(path, "relatives")


def compare(
    out: str | Path | None = None,
    knobs: Mapping[str, Mapping[str, Sequence[float]]] = KNOBS,
    seeds: Sequence[int] = SEEDS,
    tuning: Mapping[str, int] = TUNING,
    jobs: int = 1,
    progress: bool = True,
    **overrides: Any,
) -> Study:
    """Tune each method's knobs on held-out training images, then train it once a seed and measure.

    out: the folder (default runs/relatives); what is finished there is kept. knobs: method -> setting -> values
    tried, in every combination. tuning: images trained on, images held_out to judge, epochs and seed of the tuning.
    jobs: trainings at a time, one thread each. overrides: settings of the packaged configuration "relatives". Raises
    ValueError if the folder holds a comparison with other settings.
    """
    from sklearn.model_selection import ParameterGrid

    refuse_varied(overrides, "method", "lr", "seed")
    config = load_config("relatives", snapshots=0, **overrides)
    plan = {"knobs": {m: dict(knobs[m]) for m in knobs}, "tuning": dict(tuning)}
    out, points = out or Path("runs") / RECORD, {m: {} for m in knobs}
    study = Study.begin(out, config, points, seeds, "method", **plan)
    trials = list(ParameterGrid([{"method": [m], **knobs[m]} for m in knobs]))
    tried = study.results.setdefault("tuning", {
        "what": "kNN accuracy of held-out training images; the test split was not used",
        "k": KNN_K,
        "temperature": KNN_TEMPERATURE,
        "tried": [],
    })["tried"]  # fmt: skip
    todo = [trial for trial in trials if not any(trial.items() <= row.items() for row in tried)]
    follow(_steps(study, trials, todo, jobs), len(todo) + len(study.missing()), progress)
    return Study(study.path)


def _steps(study: Study, trials: list[dict], todo: list[dict], jobs: int) -> Iterator[str]:
    """Do what is still to do: tuning, then the trainings; after each say what it was."""
    plan, tried = study.settings["tuning"], study.tuning["tried"]
    shared = {"seed": plan["seed"], "epochs": plan["epochs"]}
    configs = [load_config(study.config | trial | shared) for trial in todo]
    for i, row in in_turn(partial(held_out_knn, plan), configs, jobs):
        tried.append({**todo[i], **row})
        study.write()
        yield f"tuning {todo[i]}"
    study.tuning["chosen"] = {method: _best(trials, tried, method) for method in study.points}
    study.write()
    yield from fill(study, JUDGES, jobs)


def _best(trials: list[dict], tried: list[dict], method: str) -> dict[str, Any]:
    """The settings with the best kNN accuracy of a method; the first declared wins a tie."""
    own = [trial for trial in trials if trial["method"] == method]
    scores = [next(r["knn"] for r in tried if t.items() <= r.items()) for t in own]
    best = own[scores.index(max(scores))]
    return {name: value for name, value in best.items() if name != "method"}
