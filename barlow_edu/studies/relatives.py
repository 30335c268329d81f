"""Barlow Twins and its relatives on one budget: same encoder, images, views, batch, steps and seeds.

A study whose points are the methods, with what a step of each costs. Each method's learning rate is tuned on held-out
training images; the test images are looked at once the learning rates are chosen. Features are those of whole images,
shrunk to the size of the views.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from barlow_edu.config import build_model, build_views, load_config
from barlow_edu.data import ImageSet
from barlow_edu.evaluation.features import extract_features
from barlow_edu.evaluation.probes import KNN_K, KNN_TEMPERATURE, knn_accuracy
from barlow_edu.runs import Run
from barlow_edu.studies.costs import step_costs
from barlow_edu.studies.measure import Judges, load_cached, protocol, short_run, shrink, train
from barlow_edu.studies.study import Study, follow, load_study, refuse_varied

RECORD = "relatives"
SEEDS = (0, 1, 2)
RATES = (0.0015, 0.005, 0.015)
# What a method sets beside the shared configuration. Not tuned: the values of solo-learn's CIFAR-10 recipes.
OWN: dict[str, dict[str, Any]] = {
    "barlow_twins": {},
    "simclr": {"temperature": 0.2},
    "byol": {"ema": 0.99},
    "vicreg": {},
    "simsiam": {},
}
TUNING = {"images": 6000, "held_out": 2000, "epochs": 2, "seed": 0}
JUDGES = Judges(votes=None, tests=None, shrunk=True, probes=True)


def load_comparison(path: str | Path = RECORD) -> Study:
    """A comparison by folder, or by the name of a recorded one (``data/runs/NAME``).

    Raises FileNotFoundError saying how to make one.
    """
    return load_study(path, "relatives")


def compare(
    out: str | Path | None = None,
    rates: Sequence[float] = RATES,
    seeds: Sequence[int] = SEEDS,
    tuning: Mapping[str, int] = TUNING,
    progress: bool = True,
    **overrides: Any,
) -> Study:
    """Tune each method's learning rate on held-out training images, then train it once a seed and measure.

    out: the folder (default runs/relatives); what is finished there is kept. rates: learning rates tried.
    tuning: images trained on, images held_out to judge, epochs and the seed of the tuning. overrides: settings
    of the packaged configuration "relatives". One thread throughout. Raises ValueError if the folder holds a
    comparison with other settings.
    """
    refuse_varied(overrides, "method", "lr", "seed")
    config = load_config("relatives", snapshots=0, **overrides)
    plan = {"rates": list(rates), "tuning": dict(tuning)}
    out = Path(out or Path("runs") / RECORD)
    study = Study.begin(out, config, OWN, seeds, "method", **plan)
    total = len(OWN) * len(rates) + 2 + len(study.missing())
    follow(_steps(study), total, progress)
    return Study(study.path)


def _steps(study: Study) -> Iterator[str]:
    """Do what is still to do: tuning, costs, baselines, trainings; after each piece say what it was."""
    results = study.results
    results.setdefault("tuning", {
        "what": "kNN accuracy of held-out training images; the test split was not used",
        "k": KNN_K,
        "temperature": KNN_TEMPERATURE,
        "tried": [],
    })  # fmt: skip
    for method in OWN:
        for lr in study.settings["rates"]:
            yield _tune(study, method, {"lr": lr})
    study.tuning["chosen"] = {method: _best(study, method) for method in OWN}
    if not study.costs:
        results["costs"] = step_costs({m: study.config_of(m, 0) for m in OWN})
    yield "costs"
    if not study.baselines:
        results["baselines"] = _baselines(study.config, study.settings["seeds"])
    study.write()
    yield "baselines"
    yield from study.fill(partial(train, judges=JUDGES))


def _tune(study: Study, method: str, change: dict[str, Any]) -> str:
    """Train with the settings of ``change`` and judge on held-out images, unless that is done."""
    tried, plan = study.tuning["tried"], study.settings["tuning"]
    own = {"method": method, **change}
    if not any(own.items() <= row.items() for row in tried):
        fit, held = held_out(study.config, plan)
        config = study.config_of(method, plan["seed"], epochs=plan["epochs"], **change)
        begin = time.perf_counter()
        with short_run(config, fit) as run:
            knn, loss = _knn(run, fit, held), run.metrics[-1]["loss"]
        minutes = round((time.perf_counter() - begin) / 60, 2)
        tried.append({**own, "knn": knn, "loss": loss, "minutes": minutes})
        study.write()
    return f"tuning {method}, {change}"


def _best(study: Study, method: str) -> dict[str, Any]:
    """The settings tried with the best kNN accuracy of a method."""
    tried = [row for row in study.tuning["tried"] if row["method"] == method]
    best = max(tried, key=lambda row: row["knn"])
    return {"lr": best["lr"]}


def _knn(run: Run, fit: ImageSet, held: ImageSet) -> float:
    """kNN accuracy of the held-out images among those trained on."""
    encoder, normalize = run.load_model().encoder, run.views().normalize
    fit, held = (shrink(s, run.config["image_size"]) for s in (fit, held))
    features = [extract_features(encoder, s.images, normalize) for s in (fit, held)]
    return knn_accuracy(features[0], fit.labels, features[1], held.labels)


def held_out(config: Mapping[str, Any], plan: Mapping[str, int]) -> tuple[ImageSet, ImageSet]:
    """Two parts of the training split: ``plan["images"]`` to train on, ``plan["held_out"]`` to judge."""
    count = plan["images"] + plan["held_out"]
    images = load_cached(config["data"], config["root"], "train", count)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(plan["seed"]))
    return images.subset(order[: plan["images"]]), images.subset(order[plan["images"] :])


def _baselines(config: Mapping[str, Any], seeds: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Rows of the pixels and of encoders as each seed starts them."""
    sets, normalize = JUDGES.images(config), build_views(config).normalize

    def start(seed: int):
        return build_model(config | {"seed": seed}).encoder.eval()

    # A linear probe of the 3072 values of an image takes minutes: of the pixels only kNN.
    pixels = protocol(*seeds, linear=False).row(lambda seed: None, False, *sets, normalize)
    return {"pixels": pixels, "random encoder": protocol(*seeds).row(start, True, *sets, normalize)}
