"""What did it learn? One protocol: every number beside pixels, a random encoder and, if asked, labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from barlow_edu.config import build_model
from barlow_edu.data import ImageSet, load_images
from barlow_edu.evaluation.features import extract_features, layer_features, pixel_features
from barlow_edu.evaluation.probes import (
    KNN_K,
    KNN_TEMPERATURE,
    factor_probe,
    few_label_probe,
    knn_accuracy,
    linear_probe,
    nearest,
)
from barlow_edu.evaluation.protocol import Protocol, told
from barlow_edu.evaluation.spectra import (
    covariance_spectrum,
    effective_rank,
    rankme,
    spectrum_decay,
)
from barlow_edu.runs import Run, RunWriter, load_run
from barlow_edu.storage.trees import check_labelled

__all__ = [
    "covariance_spectrum",
    "effective_rank",
    "evaluate",
    "extract_features",
    "factor_probe",
    "few_label_probe",
    "knn_accuracy",
    "layer_features",
    "linear_probe",
    "nearest",
    "pixel_features",
    "rankme",
    "spectrum_decay",
]

FEW_LABELS = (1, 5, 10, 100)
FINE_TUNING = (10, 100, "all")


def evaluate(
    run: Run | str,
    train: ImageSet | None = None,
    test: ImageSet | None = None,
    linear: bool = True,
    k: int = KNN_K,
    temperature: float = KNN_TEMPERATURE,
    save: bool = False,
    seeds: int = 1,
    few: Sequence[int] = (),
    fine_tuning: Sequence[int | str] = (),
    supervised: bool | int = False,
    progress: bool | None = False,
) -> dict[str, Any]:
    """What a run's encoder knows, beside pixels and the same encoder untrained, by one protocol.

    Features are taken before the projector, without augmentation. train, test: image sets; default, those
    of the run's configuration; other ones test the transfer. linear: the linear probe, its regularisation
    chosen on a part of the training images. few: labels a class, for linear probes with few labels.
    fine_tuning: labels a class, or "all": the whole encoder trained on, beside one from scratch.
    supervised: also the same encoder trained with all labels, for as many epochs (True: as the run had).
    seeds: how often what is drawn at random is drawn; numbers are then means, with standard deviations
    (``protocol.SEED_CHANGES`` tells what a seed changes where). progress: show a bar (None: on a terminal).

    Returns {"data", "k", "temperature", "train_images", "test_images", "protocol", "rows", ...}; rows maps
    "pixels", "random encoder", "trained encoder" (and "supervised encoder") to {"knn", "linear",
    "regularization", "effective_rank", "rankme", "alpha", "few", "sd"}, as far as asked for. save=True
    adds it to the run's evaluation.json: results on other images than the run's stand there under
    "transfer". Raises ValueError if the run was trained on other images than its configuration loads, if
    the splits differ in their classes, or for a number of seeds or labels that cannot be.
    """
    run = run if isinstance(run, Run) else load_run(run)
    train = train if train is not None else _images(run, "train")
    test = test if test is not None else _images(run, "test")
    if supervised is not False and supervised < 1:
        raise ValueError(f"supervised must be True or at least 1 epoch, got {supervised}.")
    _check(train, test, seeds, (*few, *(n for n in fine_tuning if n != "all")))
    protocol = Protocol(linear, k, temperature, tuple(range(seeds)), tuple(few))
    results = protocol.describe(train, test) | {"rows": {}}
    encoders = _encoders(run, train, test, supervised, progress, results)
    parts = tqdm(encoders, "evaluate", len(_names(supervised)), disable=_hidden(progress))
    for name, encoder_of in parts:
        parts.set_postfix_str(name)
        varies = name in ("random encoder", "supervised encoder")
        row = protocol.row(encoder_of, varies, train, test, run.views().normalize)
        results["rows"][name] = row
    if fine_tuning:
        results["fine_tuning"] = _fine_tuning(run, train, test, fine_tuning, seeds, progress)
    if save:
        RunWriter(run.path).evaluation(_merged(run, results))
    return results


def _names(supervised: bool | int) -> tuple[str, ...]:
    names = ("pixels", "random encoder", "trained encoder")
    return names + ("supervised encoder",) * bool(supervised)


def _encoders(run, train, test, supervised, progress, results) -> Iterator[tuple[str, Callable]]:
    """Name and a function seed -> encoder (None: pixels), in the order of the table."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    trained = run.load_model().encoder.to(device)  # before the long work: are there weights?

    def random(seed: int) -> nn.Module:
        return build_model(run.config | {"seed": run.config["seed"] + seed}).encoder.to(device)

    def with_labels(seed: int) -> nn.Module:
        """The encoder trained with all labels; its record goes into ``results``."""
        from barlow_edu.evaluation.supervised import classifier_accuracy, supervised_encoder

        epochs = None if supervised is True else supervised
        classifier, record = supervised_encoder(run, train, epochs, seed, progress)
        accuracy = classifier_accuracy(classifier, test, run.views().normalize)
        record["accuracy"] = round(accuracy, 4)
        results.setdefault("supervised", []).append(record)
        return classifier[0]

    makers = (lambda seed: None, random, lambda seed: trained, with_labels)
    yield from zip(_names(supervised), makers, strict=False)


def _fine_tuning(run, train, test, per_class, seeds, progress) -> dict[str, Any]:
    """Labels a class -> {"pretrained", "random init"} -> mean and deviation, and with which budgets."""
    from barlow_edu.evaluation.supervised import FROM_SCRATCH, Budget, fine_tune

    device = "cuda" if torch.cuda.is_available() else "cpu"
    starts = {"pretrained": (True, Budget()), "random init": (False, FROM_SCRATCH)}
    results: dict[str, Any] = {"budget": {k: asdict(b) for k, (_, b) in starts.items()}}
    for n in per_class:
        results[str(n)] = {}
        for name, (weights, budget) in starts.items():
            encoder = run.load_model(weights=weights).encoder.to(device)
            count = None if n == "all" else int(n)
            score = fine_tune(
                encoder, train, test, run.views(), count, tuple(range(seeds)), budget, progress
            )
            results[str(n)][name] = told(score)
    return results


def _merged(run: Run, new: Mapping[str, Any]) -> dict[str, Any]:
    """The run's evaluation.json with ``new`` added; an evaluation of other images or sizes is replaced."""
    old = Run(run.path).evaluation
    if new["data"] != run.environment["data"]:
        return old | {"transfer": old.get("transfer", {}) | {new["data"]: dict(new)}}
    same = ("data", "k", "temperature", "train_images", "test_images")
    if any(old.get(key) != new[key] for key in same):
        kept = {"transfer": old["transfer"]} if "transfer" in old else {}
        return {**new, **kept}
    rows = {
        name: _without(old["rows"].get(name, {}), "sd") | row for name, row in new["rows"].items()
    }
    merged = {**old, **new, "rows": old["rows"] | rows}
    if "fine_tuning" in new:
        merged["fine_tuning"] = old.get("fine_tuning", {}) | new["fine_tuning"]
    return merged


def _without(row: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in row.items() if k != key}


def _images(run: Run, split: str) -> ImageSet:
    """The run's images. Raises ValueError if these are not what it was trained on."""
    config, label = run.config, run.environment["data"]
    limit = config["limit"] if split == "train" else None
    size = config["image_size"] if config["data"] == "folder" else None
    images = load_images(config["data"], config["root"], split, limit, size)
    if images.name != label:
        raise ValueError(
            f"{run} was trained on {label!r}, but its configuration loads {images.name!r}. Give train= and "
            "test= (on the command line --data and --root)."
        )
    return images


def _check(train: ImageSet, test: ImageSet, seeds: int, labels: Sequence[Any]) -> None:
    check_labelled(train)
    if train.classes != test.classes:
        raise ValueError(
            f"The classes differ: {train.classes} for training, {test.classes} for the test. "
            "A class folder must be there in both splits, even if it is empty."
        )
    if seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {seeds}.")
    counts = torch.bincount(train.labels)
    fewest = int(counts[counts > 0].min())
    for n in labels:
        if not isinstance(n, int) or not 1 <= n <= fewest:
            raise ValueError(
                f"Labels a class must be between 1 and {fewest}, the smallest class of {train.name}, or "
                f"(fine-tuning only) 'all'; got {n!r}."
            )


def _hidden(progress: bool | None) -> bool | None:
    return None if progress is None else not progress
