"""A sweep: one short training again and again, with nothing changed but one setting (and the seed).

    config.yaml         what was run, and ``sweep``: the setting, its values, the seeds
    environment.json    hardware, versions, commit, date, data label, minutes
    sweep.json          one row a training (see ``short_runs.measure``), and the baselines
    matrices.npz        C of each training on the same twins, uint8 (64, 64), see ``short_runs.to_bytes``

Trainings of one seed start from the same weights and see the same batches in the same order. A finished one is
kept, so that a sweep can be stopped and called again. Files are written under a temporary name and renamed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from tqdm.auto import tqdm

from barlow_edu.config import DEFAULTS, load_config
from barlow_edu.numerics.devices import Computer, describe_environment
from barlow_edu.storage.files import replacing
from barlow_edu.storage.places import recorded_folder
from barlow_edu.studies.short_runs import (
    IMAGES,
    baselines,
    from_bytes,
    one_thread,
    refuse_varied,
    train_one,
)

LAMBDAS = tuple(float(f"{10 ** (k / 8 - 5):.4g}") for k in range(41))  # 1e-5 to 1, eight a decade
FREE = ("name", "device", "root", "seed")  # settings in which a folder's trainings may differ
RECORD = "lambda_sweep"


class Sweep:
    """A recorded sweep. ``load_sweep`` finds one by path or by name.

    ``key`` is the setting, ``rows`` are sorted by its value, then by seed; ``bytes``, C as uint8 (d, d) each,
    and all arrays are in that order.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config: dict[str, Any] = yaml.safe_load(
            (self.path / "config.yaml").read_text(encoding="utf-8")
        )
        self.environment = json.loads((self.path / "environment.json").read_text(encoding="utf-8"))
        self.key: str = self.config["sweep"]["key"]
        found = json.loads((self.path / "sweep.json").read_text(encoding="utf-8"))
        self.baselines: dict[str, float] = found["baselines"]
        self.rows: list[dict[str, Any]] = sorted(found["rows"], key=self._point)
        with np.load(self.path / "matrices.npz") as kept:
            self.bytes = [kept[_name(*self._point(row))] for row in self.rows]

    def __repr__(self) -> str:
        return f"Sweep({self.path.name!r}, {len(self.rows)} trainings over {self.key})"

    def _point(self, row: Mapping[str, Any]) -> tuple:
        return row[self.key], row["seed"]

    @property
    def values(self) -> np.ndarray:
        """The setting's value of each row, ascending, (n,)."""
        return self.column(self.key)

    @property
    def spectra(self) -> np.ndarray:
        """Singular values of C, largest first, (n, D), where D is the same for all."""
        return np.array([row["spectrum"] for row in self.rows])

    def column(self, name: str) -> np.ndarray:
        """One number a row, (n,). Raises KeyError naming the columns there are."""
        known = [k for k, value in self.rows[0].items() if not isinstance(value, list)]
        if name not in known:
            raise KeyError(f"No column {name!r}. There are {', '.join(known)}.")
        return np.array([row[name] for row in self.rows])

    def nearest(self, value: float) -> int:
        """The row whose value is nearest, on a logarithmic scale. Raises ValueError unless value > 0."""
        if not value > 0:
            raise ValueError(
                f"{self.key} must be above 0, got {value}: the scale of a sweep is logarithmic."
            )
        return int(np.abs(np.log(self.values / value)).argmin())

    def matrix(self, row: int) -> np.ndarray:
        """The first 64 dimensions of C of one row, float32, within 0.004."""
        return from_bytes(self.bytes[row])


def load_sweep(path: str | Path = RECORD) -> Sweep:
    """A sweep by folder, or by the name of a recorded one (``data/runs/NAME``).

    Raises FileNotFoundError saying how to make one.
    """
    folder = recorded_folder(path, "sweep.json")
    if folder is not None:
        return Sweep(folder)
    raise FileNotFoundError(
        f"No sweep at {str(path)!r}. Make one: python -m barlow_edu sweep lambda --out {path}"
    )


def lambda_sweep(
    out: str | Path | None = None, jobs: int = 1, progress: bool = True, **overrides: Any
) -> Sweep:
    """The sweep of notebook 06: the configuration ``lambda_sweep`` with each of ``LAMBDAS``."""
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
) -> Sweep:
    """Train once for every value of one setting and every seed; keep what came of it in one folder.

    out: the folder; trainings finished there are not run again. key: a setting that is a number; its values are
    trained in the given order. jobs: trainings at a time, each in a process of its own with one thread. config,
    overrides: as for ``pretrain``. Raises ValueError if there is nothing to train, if a value does not fit the
    setting, or if the folder holds a sweep of other settings.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be 1 or more, got {jobs}.")
    if not len(values) or not len(seeds):
        raise ValueError(f"A sweep needs values and seeds, got {list(values)} and {list(seeds)}.")
    refuse_varied(overrides, key, "seed")
    if not isinstance(DEFAULTS.get(key), (int, float)) or key == "seed":
        raise ValueError(f"A sweep goes over a setting that is a number, got {key!r}.")
    base = load_config(config, snapshots=0, **overrides)
    settings = [{key: value, "seed": seed} for value, seed in product(values, seeds)]
    configs = {(c[key], c["seed"]): c for c in (load_config(base, **own) for own in settings)}
    folder = _Folder(Path(out), base, key, configs)
    todo = [one for point, one in configs.items() if point not in folder.rows]
    with tqdm(total=len(configs), initial=len(configs) - len(todo), disable=not progress) as bar:
        for row, c in _trained(todo, key, jobs):
            folder.add(row, c)
            bar.update()
            bar.set_postfix_str(f"{key} = {row[key]:.3g}: kNN {100 * row['knn']:.1f} %")
    return Sweep(folder.path)


class _Folder:
    """The sweep's folder while it is being filled. ``rows`` and ``matrices`` go by (value, seed)."""

    def __init__(self, path: Path, config: dict[str, Any], key: str, points: Iterable[tuple]):
        self.path, self.key = path, key
        self.rows: dict[tuple, dict] = {}
        self.matrices: dict[tuple, np.ndarray] = {}
        if (path / "sweep.json").exists():
            kept = Sweep(path)
            _check_same(kept, config, key)
            self.rows = {kept._point(row): row for row in kept.rows}
            self.matrices = dict(zip(self.rows, kept.bytes, strict=True))
            self.environment, self.baselines = kept.environment, kept.baselines
        else:
            device = Computer.choose(config)
            self.environment = describe_environment(device.device) | device.describe()
            self.environment |= {"threads": 1, "data": config["data"]}
            self.baselines = baselines(config, IMAGES)
        wanted = {*points, *self.rows}
        axes = {"key": key, "values": sorted({v for v, _ in wanted})}
        self.config = config | {"sweep": axes | {"seeds": sorted({s for _, s in wanted})}}

    def add(self, row: dict, c: np.ndarray) -> None:
        """Keep one training: first the matrices, then the rows that name them."""
        point = row[self.key], row["seed"]
        self.rows[point], self.matrices[point] = row, c
        order = sorted(self.rows)
        with replacing(self.path / "matrices.npz") as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **{_name(*p): self.matrices[p] for p in order})
        self.environment["minutes"] = round(sum(r["minutes"] for r in self.rows.values()), 2)
        self._write("environment.json", json.dumps(self.environment, indent=1) + "\n")
        self._write("config.yaml", yaml.safe_dump(self.config, sort_keys=False))
        rows = ",\n".join(json.dumps(self.rows[p]) for p in order)
        baselines = json.dumps(self.baselines)
        self._write("sweep.json", f'{{"baselines": {baselines},\n"rows": [\n{rows}\n]}}\n')

    def _write(self, name: str, text: str) -> None:
        with replacing(self.path / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _name(value: float, seed: int) -> str:
    """A training's name in matrices.npz."""
    return f"{value:.12g}_seed{seed}"


def _check_same(kept: Sweep, config: Mapping[str, Any], key: str) -> None:
    if kept.key != key:
        raise ValueError(f"{kept.path} holds a sweep over {kept.key}, not {key}.")
    for name, value in config.items():
        if name not in (*FREE, key) and kept.config.get(name) != value:
            raise ValueError(
                f"{kept.path} holds a sweep with {name}={kept.config.get(name)!r}, not {value!r}. "
                "Choose another folder."
            )


def _trained(configs: Sequence[dict], key: str, jobs: int) -> Iterator[tuple]:
    """(row, C) of every training, as they get ready."""
    if jobs == 1:
        with one_thread():
            yield from (train_one(one, key, IMAGES) for one in configs)
        return
    context = get_context("spawn")
    with ProcessPoolExecutor(jobs, context, torch.set_num_threads, (1,)) as pool:
        waiting = [pool.submit(train_one, one, key, IMAGES) for one in configs]
        try:
            for done in as_completed(waiting):
                yield done.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
