"""The lambda sweep: one short training again and again, with nothing changed but λ.

    config.yaml         what was run; ``lambd`` is a list
    environment.json    hardware, versions, commit, date, data label, minutes
    sweep.json          one row a λ (see ``measure``), and the baselines
    matrices.npz        C of each λ on the same twins, uint8 (n, 64, 64), see ``to_bytes``

Every λ starts from the same weights and sees the same batches in the same order. A finished λ is kept, so that
a sweep can be stopped and called again. Files are written under a temporary name and renamed.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor
from tqdm.auto import tqdm

from barlow_edu.config import load_config
from barlow_edu.data import ImageSet, data_dir, load_images
from barlow_edu.evaluation import effective_rank, extract_features, knn_accuracy, pixel_features
from barlow_edu.files import replacing
from barlow_edu.loss import barlow_twins_loss, cross_correlation
from barlow_edu.models import batch_statistics
from barlow_edu.runs import Run, build_model, build_views, describe_environment
from barlow_edu.training import Computer, pretrain

LAMBDAS = tuple(float(f"{10 ** (k / 8 - 5):.4g}") for k in range(41))  # 1e-5 to 1, eight a decade
DIMS = 64  # dimensions of C whose picture is kept; all numbers are of the whole C
IMAGES = (5000, 2000, 1024)  # training images that vote, test images, those of which twins are made
FREE = ("name", "lambd", "device", "root")  # settings in which a sweep may differ from its record
RECORD = "lambda_sweep"


class Sweep:
    """A recorded sweep, read lazily. ``load_sweep`` finds one by path or by name.

    Its rows are sorted by λ, and all arrays are in that order.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config: dict[str, Any] = yaml.safe_load((self.path / "config.yaml").read_text())
        self.environment = json.loads((self.path / "environment.json").read_text())
        found = json.loads((self.path / "sweep.json").read_text())
        self.rows: list[dict[str, Any]] = sorted(found["rows"], key=lambda row: row["lambd"])
        self.baselines: dict[str, float] = found["baselines"]
        with np.load(self.path / "matrices.npz") as kept:
            place = {float(lambd): c for lambd, c in zip(kept["lambdas"], kept["c"], strict=True)}
        self.bytes = np.stack([place[row["lambd"]] for row in self.rows])  # uint8 (n, d, d)

    def __repr__(self) -> str:
        return f"Sweep({self.path.name!r}, {len(self.rows)} values of lambda)"

    @property
    def lambdas(self) -> np.ndarray:
        """The λ values, ascending, (n,)."""
        return self.column("lambd")

    @property
    def spectra(self) -> np.ndarray:
        """Singular values of C, largest first, (n, D)."""
        return np.array([row["spectrum"] for row in self.rows])

    def column(self, name: str) -> np.ndarray:
        """One number a λ, (n,). Raises KeyError naming the columns there are."""
        known = [k for k, value in self.rows[0].items() if not isinstance(value, list)]
        if name not in known:
            raise KeyError(f"No column {name!r}. There are {', '.join(known)}.")
        return np.array([row[name] for row in self.rows])

    def nearest(self, lambd: float) -> int:
        """The row whose λ is nearest, on a logarithmic scale. Raises ValueError unless lambd > 0."""
        if not lambd > 0:
            raise ValueError(
                f"lambd must be above 0, got {lambd}: the sweep is on a logarithmic scale."
            )
        return int(np.abs(np.log(self.lambdas / lambd)).argmin())

    def matrix(self, row: int) -> np.ndarray:
        """The first 64 dimensions of C of one row, float32, within 0.004."""
        return from_bytes(self.bytes[row])


def load_sweep(path: str | Path = RECORD) -> Sweep:
    """A sweep by folder, or by the name of a recorded one (``data/runs/NAME``).

    Raises FileNotFoundError saying how to make one.
    """
    for folder in (Path(path), data_dir() / "runs" / str(path)):
        if (folder / "sweep.json").exists():
            return Sweep(folder)
    raise FileNotFoundError(
        f"No sweep at {str(path)!r}. Make one: python -m barlow_edu sweep lambda --out {path}"
    )


def to_bytes(c: np.ndarray | Tensor) -> np.ndarray:
    """Correlations as uint8: 0 is −1, 127 is 0, 254 is 1. What leaves [−1, 1] is cut off."""
    return np.rint(np.clip(np.asarray(c, dtype=np.float64), -1, 1) * 127 + 127).astype(np.uint8)


def from_bytes(values: np.ndarray) -> np.ndarray:
    """The inverse of ``to_bytes``, float32, within 1/254."""
    return (values.astype(np.float32) - 127) / 127


def lambda_sweep(
    out: str | Path | None = None,
    lambdas: Sequence[float] = LAMBDAS,
    jobs: int = 1,
    progress: bool = True,
    config: str | Mapping[str, Any] = RECORD,
    **overrides: Any,
) -> Sweep:
    """Train once for every λ and keep what came of it in one folder.

    out: the folder (default ``runs/lambda_sweep``); λ values finished there are not run again. jobs: trainings
    at a time, each in a process of its own, with one thread. config, overrides: as for ``pretrain``.
    Raises ValueError if the folder holds a sweep of other settings, if a λ is not above 0, or if jobs < 1.
    """
    if jobs < 1 or not lambdas or not min(lambdas) > 0:
        raise ValueError(
            f"A sweep needs jobs of 1 or more and lambdas above 0, got jobs={jobs} and {lambdas}."
        )
    config = load_config(config, snapshots=0, **overrides)
    config["lambd"] = sorted(float(x) for x in lambdas)
    folder = _Folder(Path(out) if out is not None else Path("runs") / RECORD, config)
    todo = [x for x in config["lambd"] if x not in folder.rows]
    total = len(config["lambd"])
    with tqdm(total=total, initial=total - len(todo), unit="λ", disable=not progress) as bar:
        for row, c in _trained(config, todo, jobs):
            folder.add(row, c)
            bar.update()
            bar.set_postfix_str(f"λ = {row['lambd']:.3g}: kNN {100 * row['knn']:.1f} %")
    return folder.finish()


class _Folder:
    """The sweep's folder while it is being filled."""

    def __init__(self, path: Path, config: dict[str, Any]):
        self.path, self.config = path, config
        self.rows: dict[float, dict] = {}
        self.matrices: dict[float, np.ndarray] = {}
        if (path / "sweep.json").exists():
            kept = Sweep(path)
            _check_same(kept, config)
            self.rows = {row["lambd"]: row for row in kept.rows}
            self.matrices = dict(zip(self.rows, kept.bytes, strict=True))
            config["lambd"] = sorted({*config["lambd"], *self.rows})
        else:
            device = Computer.choose(config)
            self.environment = describe_environment(device.device) | device.describe()
            self.environment |= {"threads": 1, "data": config["data"]}
            self.baselines = _baselines(config)
            return
        self.environment, self.baselines = kept.environment, kept.baselines

    def add(self, row: dict, c: np.ndarray) -> None:
        """Keep one λ: first the matrices, then the rows that name them."""
        self.rows[row["lambd"]], self.matrices[row["lambd"]] = row, c
        order = sorted(self.rows)
        with replacing(self.path / "matrices.npz") as temporary, open(temporary, "wb") as file:
            stack = np.stack([self.matrices[x] for x in order])
            np.savez_compressed(file, lambdas=np.array(order), c=stack)
        self.environment["minutes"] = round(sum(r["minutes"] for r in self.rows.values()), 2)
        self._write("environment.json", json.dumps(self.environment, indent=1) + "\n")
        self._write("config.yaml", yaml.safe_dump(self.config, sort_keys=False))
        rows = ",\n".join(json.dumps(self.rows[x]) for x in order)
        baselines = json.dumps(self.baselines)
        self._write("sweep.json", f'{{"baselines": {baselines},\n"rows": [\n{rows}\n]}}\n')

    def finish(self) -> Sweep:
        return Sweep(self.path)

    def _write(self, name: str, text: str) -> None:
        with replacing(self.path / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _check_same(kept: Sweep, config: Mapping[str, Any]) -> None:
    for key, value in config.items():
        if key not in FREE and kept.config.get(key) != value:
            raise ValueError(
                f"{kept.path} holds a sweep with {key}={kept.config.get(key)!r}, not {value!r}. "
                "Choose another folder."
            )


def _trained(config: dict, lambdas: Sequence[float], jobs: int) -> Iterator[tuple]:
    """(row, C) of every λ, as they get ready."""
    if jobs == 1:
        with _one_thread():
            for lambd in lambdas:
                yield train_one(config, lambd, IMAGES)
        return
    context = get_context("spawn")
    with ProcessPoolExecutor(jobs, context, torch.set_num_threads, (1,)) as pool:
        waiting = [pool.submit(train_one, config, lambd, IMAGES) for lambd in lambdas]
        try:
            for done in as_completed(waiting):
                yield done.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def train_one(
    config: Mapping[str, Any], lambd: float, counts: tuple[int, int, int] = IMAGES
) -> tuple[dict[str, Any], np.ndarray]:
    """Train with one λ, in a folder that is thrown away, and measure: see there for ``counts``."""
    images = _load(config["data"], config["root"], "train", config["limit"])
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        run = pretrain({**config, "lambd": lambd}, out, images, progress=False)
        minutes = round((time.perf_counter() - begin) / 60, 2)
        row, c = measure(run, counts)
    return {"lambd": lambd, **row, "minutes": minutes}, c


def measure(run: Run, counts: tuple[int, int, int] = IMAGES) -> tuple[dict[str, Any], np.ndarray]:
    """What a sweep keeps of a run: a row of numbers, and C as uint8 (64, 64).

    counts: how many training images vote, how many test images there are, and of how many twins are made
    (``batch_size``), the same for every λ. On the twins: invariance, redundancy (not multiplied by λ),
    diagonal_mean, effective_rank_z and the spectrum of C, (D,). On the ``features`` before the projector:
    effective_rank_h and knn (k = 200).
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
    row = {
        "batch_size": len(z_a),
        "dim": z_a.shape[1],
        "features": sets[0].shape[1],
        "invariance": terms.invariance.item(),
        "redundancy": terms.redundancy.item(),
        "diagonal_mean": terms.diagonal.mean().item(),
        "effective_rank_z": effective_rank(z_a),
        "effective_rank_h": effective_rank(sets[1]),
        "knn": knn_accuracy(sets[0], bank.labels, sets[1], test.labels),
    }
    row = {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in row.items()}
    row["spectrum"] = [float(f"{v:.4g}") for v in torch.linalg.svdvals(c.double())]
    return row, to_bytes(c[:DIMS, :DIMS])


_load = lru_cache(maxsize=3)(load_images)


def _judges(config: Mapping[str, Any], counts: Sequence[int]) -> tuple[ImageSet, ImageSet]:
    """Images that vote, and images to test."""
    name, root = config["data"], config["root"]
    return _load(name, root, "train", counts[0]), _load(name, root, "test", counts[1])


def _baselines(config: Mapping[str, Any]) -> dict[str, float]:
    """kNN accuracy of the pixels, of the untrained encoder, and of chance."""
    bank, test = _judges(config, IMAGES)
    encoder = build_model({**config, "lambd": 0.0}).encoder
    normalize = build_views(config).normalize
    features = {
        "pixels": [pixel_features(s.images) for s in (bank, test)],
        "untrained": [extract_features(encoder, s.images, normalize) for s in (bank, test)],
    }
    knn = {k: knn_accuracy(a, bank.labels, b, test.labels) for k, (a, b) in features.items()}
    return {k: float(f"{v:.5g}") for k, v in knn.items()} | {"chance": 1 / len(test.classes)}


@contextmanager
def _one_thread() -> Iterator[None]:
    """Short trainings on few cores: results that do not depend on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
