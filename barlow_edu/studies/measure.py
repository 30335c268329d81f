"""One short training, whose run folder is thrown away: what is measured of it, and what needs no training."""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from barlow_edu.config import build_model, build_views
from barlow_edu.data import ImageSet, load_images
from barlow_edu.evaluation import Protocol
from barlow_edu.evaluation.features import extract_features, pixel_features
from barlow_edu.evaluation.probes import KNN_K, KNN_TEMPERATURE, knn_accuracy
from barlow_edu.evaluation.spectra import effective_rank, rankme
from barlow_edu.loss import barlow_twins_loss, cross_correlation
from barlow_edu.methods.relatives import embedding_std
from barlow_edu.models import TwinModel
from barlow_edu.numerics.batchnorm import batch_statistics
from barlow_edu.numerics.correlation import to_bytes
from barlow_edu.runs import Run
from barlow_edu.studies.study import Study
from barlow_edu.training import pretrain

DIMS = 64  # dimensions of C whose picture is kept; all numbers are of the whole C
UNTRAINED = "untrained_"  # before the name of a column: the same of the network before its training
TWIN = ("knn", "knn_z", "linear", "effective_rank_h", "effective_rank_z", "diagonal_mean")
UNSAID = ("embedding_std", "epoch", "lr", "images_per_second")  # last metrics that no row repeats


class Judges(NamedTuple):
    """What a training is measured with, the same for every training of a study.

    votes, tests: training images that vote and images to test, None for all. twins: test images of which twins are
    made. shrunk: features of whole images at the size of the views. probes: linear probe and last metrics, too.
    """

    votes: int | None = 4000
    tests: int | None = 2000
    twins: int = 1024
    shrunk: bool = False
    probes: bool = False

    def images(self, config: Mapping[str, Any]) -> tuple[ImageSet, ImageSet]:
        """Images that vote (no more than were trained on), and images to test."""
        name, root = config["data"], config["root"]
        votes = config["limit"] if self.votes is None else self.votes
        sets = load_cached(name, root, "train", votes), load_cached(name, root, "test", self.tests)
        return tuple(shrink(s, config["image_size"]) if self.shrunk else s for s in sets)


USUAL = Judges()
load_cached = lru_cache(maxsize=3)(load_images)


@contextmanager
def short_run(config: Mapping[str, Any], images: ImageSet | None = None) -> Iterator[Run]:
    """Train in a folder that is thrown away at the end. images: default, those of the configuration."""
    if images is None:
        images = load_cached(config["data"], config["root"], "train", config["limit"])
    with tempfile.TemporaryDirectory() as folder:
        yield pretrain(config, Path(folder) / "run", images, progress=False)


def train(config: Mapping[str, Any], judges: Judges = USUAL) -> tuple[dict[str, Any], np.ndarray]:
    """Train once and measure: a row of numbers, see ``measure_run``, with cpu_seconds and minutes; and C."""
    begin, cpu = time.perf_counter(), time.process_time()
    with short_run(config) as run:
        cpu = time.process_time() - cpu
        row, c = measure_run(run, judges)
    minutes = (time.perf_counter() - begin) / 60
    return row | {"cpu_seconds": round(cpu, 1), "minutes": round(minutes, 2)}, c


def fill(study: Study, judges: Judges, jobs: int, matrices: bool = False) -> Iterator[str]:
    """Measure the baselines of a study, where they are missing, and train what is; a line about each training."""
    if study.missing() and not study.baselines:
        study.results["baselines"] = baselines(study.config, judges)
    yield from study.fill(partial(train, judges=judges), matrices, jobs)


def held_out_knn(plan: Mapping[str, int], config: Mapping[str, Any]) -> dict[str, float]:
    """Train on one part of the training images, see ``held_out``: kNN accuracy of the other part, loss, minutes."""
    begin, (fit, held) = time.perf_counter(), held_out(config, plan)
    with short_run(config, fit) as run:
        encoder, normalize = run.load_model().encoder, run.views().normalize
        sets = (shrink(s, config["image_size"]) for s in (fit, held))
        knn = _knn(partial(extract_features, encoder, normalize=normalize), *sets)
        loss = run.metrics[-1]["loss"]
    return {"knn": knn, "loss": loss, "minutes": round((time.perf_counter() - begin) / 60, 2)}


def held_out(config: Mapping[str, Any], plan: Mapping[str, int]) -> tuple[ImageSet, ImageSet]:
    """Two parts of the training split: ``plan["images"]`` to train on, ``plan["held_out"]`` to judge."""
    count = plan["images"] + plan["held_out"]
    images = load_cached(config["data"], config["root"], "train", count)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(plan["seed"]))
    return images.subset(order[: plan["images"]]), images.subset(order[plan["images"] :])


def measure_run(run: Run, counts: tuple = USUAL) -> tuple[dict[str, Any], np.ndarray]:
    """What a study keeps of a run: a row of numbers, and C as uint8 (64, 64).

    counts: ``Judges``, or its first numbers. On the twins: batch_size, invariance, redundancy (not multiplied by λ),
    diagonal_mean, effective_rank_z and the spectrum of C, (D,). On the ``features`` h before the projector:
    effective_rank_h and knn (k = 200). On the embeddings z of undistorted images: knn_z. With probes also the row of
    ``evaluate`` (linear, effective_rank, rankme, alpha), of z embedding_std and embedding_rank, RankMe of z / |z|
    (1: all on one line), and the last logged metrics. And of the same network before training, as its seed starts it,
    the columns ``TWIN``, each with ``UNTRAINED`` before its name.
    """
    judges = Judges(*counts)
    row, c = _numbers(run, run.load_model(), judges)
    start, _ = _numbers(run, run.load_model(weights=False), judges)
    if judges.probes:
        row |= {k: v for k, v in run.metrics[-1].items() if k not in UNSAID}
    row |= {UNTRAINED + name: start[name] for name in TWIN if name in start}
    row = {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in row.items()}
    row["spectrum"] = [float(f"{v:.4g}") for v in torch.linalg.svdvals(c.double())]
    return row, to_bytes(c[:DIMS, :DIMS])


def _numbers(run: Run, model: TwinModel, judges: Judges) -> tuple[dict[str, Any], Tensor]:
    """The row of ``measure_run``, without its twin, and C (D, D), of a model with the views and images of a run."""
    config, views = run.config, run.views()
    bank, test = judges.images(config)
    generator = torch.Generator().manual_seed(config["seed"] + 1)  # as for the snapshots of a run
    originals = load_cached(config["data"], config["root"], "test", judges.tests).images
    twins = views(originals[: judges.twins], generator)
    # C as the loss sees it: batch norm with the statistics of these views, not its running averages.
    with torch.no_grad(), batch_statistics(model):
        z_a, z_b = map(model.embed, twins)
    terms = barlow_twins_loss(z_a, z_b, config["lambd"])
    h, h_test = (extract_features(model.encoder, s.images, views.normalize) for s in (bank, test))
    with torch.no_grad():
        z, z_test = model.projector(h), model.projector(h_test)
    row = {
        "batch_size": len(z_a),
        "dim": z_a.shape[1],
        "features": h.shape[1],
        "invariance": terms.invariance.item(),
        "redundancy": terms.redundancy.item(),
        "diagonal_mean": terms.diagonal.mean().item(),
        "effective_rank_z": effective_rank(z_a),
        "effective_rank_h": effective_rank(h_test),
        "knn_z": knn_accuracy(z, bank.labels, z_test, test.labels),
        "knn": knn_accuracy(h, bank.labels, h_test, test.labels),
    }
    if judges.probes:
        protocol = Protocol(True, KNN_K, KNN_TEMPERATURE, (config["seed"],), ())
        row |= protocol.row(lambda seed: model.encoder, False, bank, test, views.normalize)
        row["embedding_std"] = embedding_std(z_a).item()
        row["embedding_rank"] = rankme(F.normalize(z_a))
    return row, cross_correlation(z_a, z_b)


def baselines(config: Mapping[str, Any], judges: Judges = USUAL) -> dict[str, float]:
    """kNN accuracy of the pixels, of the untrained encoder, and of chance, on the images of ``measure_run``."""
    sets, encoder = judges.images(config), build_model(config).encoder
    normalize = build_views(config).normalize
    untrained = partial(extract_features, encoder, normalize=normalize)
    knn = {"pixels": _knn(pixel_features, *sets), "untrained": _knn(untrained, *sets)}
    return {k: float(f"{v:.5g}") for k, v in knn.items()} | {"chance": 1 / len(sets[1].classes)}


def _knn(features_of: Callable[[Tensor], Tensor], bank: ImageSet, test: ImageSet) -> float:
    voting, tested = (features_of(s.images) for s in (bank, test))
    return knn_accuracy(voting, bank.labels, tested, test.labels)


def shrink(images: ImageSet, size: int) -> ImageSet:
    """The images at ``size`` x ``size`` pixels, each the mean of what it covers; smaller ones as they are."""
    if images.images.shape[-1] <= size:
        return images
    small = F.interpolate(images.images.float(), (size, size), mode="area")
    return replace(images, images=small.round().to(torch.uint8))
