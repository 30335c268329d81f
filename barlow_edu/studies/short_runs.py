"""Short trainings whose run folder is thrown away: what is measured of one, and kept.

Sweeps and experiments are made of them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from barlow_edu.config import build_model, build_views
from barlow_edu.data import ImageSet, load_images
from barlow_edu.evaluation.features import extract_features, pixel_features
from barlow_edu.evaluation.probes import knn_accuracy
from barlow_edu.evaluation.spectra import effective_rank
from barlow_edu.loss import barlow_twins_loss, cross_correlation
from barlow_edu.numerics.batchnorm import batch_statistics
from barlow_edu.runs import Run
from barlow_edu.training import pretrain

DIMS = 64  # dimensions of C whose picture is kept; all numbers are of the whole C
IMAGES = (4000, 2000, 1024)  # training images that vote, test images, those of which twins are made


def refuse_varied(overrides: Mapping[str, Any], *names: str) -> None:
    """Raises ValueError if a setting is to be fixed that differs from training to training."""
    for name in names:
        if name in overrides:
            raise ValueError(
                f"{name} differs from training to training here, so it cannot be set to {overrides[name]!r} "
                "for all. Leave it out, or train once: python -m barlow_edu pretrain."
            )


load_cached = lru_cache(maxsize=3)(load_images)


def train_one(
    config: Mapping[str, Any], key: str, counts: tuple[int, int, int] = IMAGES
) -> tuple[dict[str, Any], np.ndarray]:
    """Train once, in a folder that is thrown away, and measure: see there for ``counts``."""
    images = load_cached(config["data"], config["root"], "train", config["limit"])
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run = pretrain(config, Path(folder) / "run", images, progress=False)
        minutes = round((time.perf_counter() - begin) / 60, 2)
        row, c = measure(run, counts)
    return {key: config[key], "seed": config["seed"], **row, "minutes": minutes}, c


def measure(run: Run, counts: tuple[int, int, int] = IMAGES) -> tuple[dict[str, Any], np.ndarray]:
    """What a sweep keeps of a run: a row of numbers, and C as uint8 (64, 64).

    counts: how many training images vote, how many test images there are, and of how many twins are made
    (``batch_size``), the same for every training. On the twins: invariance, redundancy (not multiplied by λ),
    diagonal_mean, effective_rank_z and the spectrum of C, (D,). On the ``features`` h before the projector:
    effective_rank_h and knn (k = 200). On the embeddings z of undistorted images: knn_z.
    """
    config, model, views = run.config, run.load_model(), run.views()
    bank, test = _judges(config, counts)
    generator = torch.Generator().manual_seed(config["seed"] + 1)
    twins = views(test.images[: counts[2]], generator)
    with torch.no_grad(), batch_statistics(model):
        z_a, z_b = map(model.embed, twins)
    c = cross_correlation(z_a, z_b)
    terms = barlow_twins_loss(z_a, z_b, config["lambd"])
    sets = [extract_features(model.encoder, s.images, views.normalize) for s in (bank, test)]
    with torch.no_grad():
        heads = [model.projector(features) for features in sets]
    row = {
        "batch_size": len(z_a),
        "dim": z_a.shape[1],
        "features": sets[0].shape[1],
        "invariance": terms.invariance.item(),
        "redundancy": terms.redundancy.item(),
        "diagonal_mean": terms.diagonal.mean().item(),
        "effective_rank_z": effective_rank(z_a),
        "effective_rank_h": effective_rank(sets[1]),
        "knn_z": knn_accuracy(heads[0], bank.labels, heads[1], test.labels),
        "knn": knn_accuracy(sets[0], bank.labels, sets[1], test.labels),
    }
    row = {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in row.items()}
    row["spectrum"] = [float(f"{v:.4g}") for v in torch.linalg.svdvals(c.double())]
    return row, to_bytes(c[:DIMS, :DIMS])


def _judges(config: Mapping[str, Any], counts: Sequence[int]) -> tuple[ImageSet, ImageSet]:
    """Images that vote, and images to test."""
    name, root = config["data"], config["root"]
    return load_cached(name, root, "train", counts[0]), load_cached(name, root, "test", counts[1])


def baselines(config: Mapping[str, Any], counts: tuple[int, int, int] = IMAGES) -> dict[str, float]:
    """kNN accuracy of the pixels, of the untrained encoder, and of chance, on the images of ``measure``."""
    bank, test = _judges(config, counts)
    encoder, normalize = build_model(config).encoder, build_views(config).normalize
    features = {
        "pixels": [pixel_features(s.images) for s in (bank, test)],
        "untrained": [extract_features(encoder, s.images, normalize) for s in (bank, test)],
    }
    knn = {k: knn_accuracy(a, bank.labels, b, test.labels) for k, (a, b) in features.items()}
    return {k: float(f"{v:.5g}") for k, v in knn.items()} | {"chance": 1 / len(test.classes)}


def to_bytes(c: np.ndarray | Tensor) -> np.ndarray:
    """Correlations as uint8: 0 is −1, 127 is 0, 254 is 1. What leaves [−1, 1] is cut off."""
    return np.rint(np.clip(np.asarray(c, dtype=np.float64), -1, 1) * 127 + 127).astype(np.uint8)


def from_bytes(values: np.ndarray) -> np.ndarray:
    """The inverse of ``to_bytes``, float32, within 1/254."""
    return (values.astype(np.float32) - 127) / 127


@contextmanager
def one_thread() -> Iterator[None]:
    """Short trainings on few cores: results that do not depend on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
