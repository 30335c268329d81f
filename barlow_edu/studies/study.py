"""Short trainings again and again, and their record: named points x seeds, in one folder.

    study.yaml          the points (name -> settings changed), the seeds, the question, the configuration of all
    environment.json    hardware, versions, commit, date, data label, minutes
    rows.json           one row a training (see ``measure_run``), the baselines, and what else was measured once
    matrices.npz        where they are kept: C of each training on the same twins, uint8 (64, 64), see ``to_bytes``

Trainings of one seed start from the same weights and see the same batches in the same order. A finished one is kept,
so that a study can be stopped and called again.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from tqdm.auto import tqdm

from barlow_edu.config import SETTINGS, load_config
from barlow_edu.evaluation.probes import Score
from barlow_edu.numerics.correlation import from_bytes
from barlow_edu.numerics.devices import Computer
from barlow_edu.storage.files import read_json, replacing, write_json, write_text, write_yaml
from barlow_edu.storage.places import recorded_folder

FREE = ("name", "device", "root", "seed")  # settings that do not make another training
Train = Callable[[dict[str, Any]], tuple[dict[str, Any], np.ndarray]]  # configuration -> row, C


class Study:
    """A study: read from its folder, or (``Study.begin``) being filled.

    key: the column that names a row's point. Where it is a setting ("lambd", "method") the point is its value.
    rows: one dictionary a training, in the order of the points, then by seed. bytes: C of each row as uint8 (d, d),
    empty where none is kept. settings: what study.yaml holds. results: what was measured once.
    """

    def __init__(self, path: str | Path, settings: Mapping[str, Any] | None = None):
        self.path = Path(path)
        self.environment: dict[str, Any] = {}
        self.results: dict[str, Any] = {}
        self.rows: list[dict[str, Any]] = []
        self.bytes: list[np.ndarray] = []
        if settings is None:
            settings = yaml.safe_load((self.path / "study.yaml").read_text(encoding="utf-8"))
            self.environment = read_json(self.path / "environment.json")
            self.results = read_json(self.path / "rows.json")
            self.rows = self.results.pop("rows")
        self.settings: dict[str, Any] = dict(settings)
        self.key: str = self.settings["key"]
        self.points: dict[Any, dict[str, Any]] = self.settings["points"]
        self.config: dict[str, Any] = self.settings["config"]
        self.wanted: list[tuple[Any, int]] = []
        if self.rows and (self.path / "matrices.npz").exists():
            with np.load(self.path / "matrices.npz") as arrays:
                self.bytes = [arrays[self._name(row)] for row in self.rows]

    @classmethod
    def begin(
        cls,
        path: str | Path,
        config: Mapping[str, Any],
        points: Mapping[Any, Mapping[str, Any]],
        seeds: Sequence[int],
        key: str = "variant",
        **declared: Any,
    ) -> "Study":
        """Begin a study, or go on with the one in ``path``; its trainings are kept. Nothing is written yet.

        config: complete; a point's settings replace its values. declared: what else study.yaml is to say. Raises
        ValueError if the folder holds a study of other settings.
        """
        settings = {"key": key, **declared, "seeds": list(seeds), "points": dict(points)}
        study = cls(path, settings | {"config": dict(config)})
        study.wanted = [(point, seed) for seed in seeds for point in points]
        if (study.path / "study.yaml").exists():
            study._go_on(cls(path), declared)
        else:
            about = {"threads": 1, "data": config["data"]}
            study.environment = Computer.choose(config).describe() | about
        if not any(isinstance(point, str) for point in study.points):
            study.points = study.settings["points"] = dict(sorted(study.points.items()))
        return study

    def __repr__(self) -> str:
        return f"Study({self.path.name!r}, {len(self.rows)} trainings over {self.key})"

    # what is recorded

    @property
    def groups(self) -> list[Any]:
        """The points with at least one training, in the order of their declaration."""
        trained = {row[self.key] for row in self.rows}
        return [point for point in self.points if point in trained]

    variants = methods = groups  # what the points of an experiment and of the comparison are called

    @property
    def baselines(self) -> dict[str, Any]:
        """What is reached without training: name -> kNN accuracy, or a row with it."""
        return self.results.get("baselines", {})

    @property
    def tuning(self) -> dict[str, Any]:
        """What was tried on held-out training images, and the settings chosen for each point."""
        return self.results.get("tuning", {})

    @property
    def values(self) -> np.ndarray:
        """The point of each row, (n,)."""
        return self.column(self.key)

    @property
    def spectra(self) -> np.ndarray:
        """Singular values of C, largest first, (n, D), where D is the same for all."""
        return np.array([row["spectrum"] for row in self.rows])

    def column(self, *what: Any) -> np.ndarray:
        """``column(name)``: one number of every row, (n,). ``column(point, name)``: of a point's, by seed, (seeds,).

        Raises KeyError naming the points, or the columns, that there are.
        """
        *point, name = what
        rows = [row for row in self.rows if not point or row[self.key] == point[0]]
        if not rows:
            groups = ", ".join(map(str, self.groups))
            raise KeyError(f"No {self.key} {point[0]!r}. There are {groups}.")
        known = [k for k, v in rows[0].items() if not isinstance(v, list)]
        if name not in known:
            raise KeyError(f"No column {name!r}. There are {', '.join(known)}.")
        return np.array([row[name] for row in rows])

    def score(self, point: Any, name: str = "knn") -> Score:
        """Mean and standard deviation over the seeds."""
        return Score.of(self.column(point, name).tolist())

    def nearest(self, value: float) -> int:
        """The row whose point is nearest, on a logarithmic scale. Raises ValueError unless value > 0."""
        if not value > 0:
            scale = "the scale of a sweep is logarithmic"
            raise ValueError(f"{self.key} must be above 0, got {value}: {scale}.")
        return int(np.abs(np.log(self.values / value)).argmin())

    def matrix(self, row: int) -> np.ndarray:
        """The first 64 dimensions of C of one row, float32, within 0.004."""
        return from_bytes(self.bytes[row])

    # how it is filled

    def config_of(self, point: Any, seed: int) -> dict[str, Any]:
        """The configuration of one training: what all share, the point's settings, and those chosen for it."""
        own = self.points[point] | self.tuning.get("chosen", {}).get(point, {}) | {"seed": seed}
        varied = {self.key: point} if self.key in self.config else {}
        config = self.config | varied | own
        # An older study lacks settings that are new, and may hold some that are gone.
        return load_config({name: value for name, value in config.items() if name in SETTINGS})

    def steps(self, point: Any) -> int:
        """Steps of one training of a point; 0 where the number of images is not in the configuration."""
        config = self.config_of(point, 0)
        return config["epochs"] * ((config["limit"] or 0) // config["batch_size"])

    def missing(self) -> list[tuple[Any, int]]:
        """(point, seed) of what is still to be trained, seed by seed."""
        trained = {(row[self.key], row["seed"]) for row in self.rows}
        return [pair for pair in self.wanted if pair not in trained]

    def take_over(self, others: Iterable["Study"]) -> None:
        """Keep the missing trainings that other studies hold, done with the same settings, and their baselines."""
        trained = [(other, row) for other in others for row in other.rows]
        configs = [other.config_of(row[other.key], row["seed"]) for other, row in trained]
        for point, seed in self.missing():
            wanted = self.config_of(point, seed)
            for (other, row), config in zip(trained, configs, strict=True):
                if row["seed"] == seed and not _differing(config, wanted):
                    numbers = {k: v for k, v in row.items() if k != other.key}
                    self.results.setdefault("baselines", other.baselines)
                    self.add({self.key: point, **numbers})
                    break

    def fill(self, train: Train, matrices: bool = False, jobs: int = 1) -> Iterator[str]:
        """Train what is missing and keep each training as it gets ready; after each, yield a line about it.

        matrices: keep C and its spectrum, too. jobs: trainings at a time, each in a process of its own.
        """
        todo = self.missing()
        configs = [self.config_of(*pair) for pair in todo]
        for i, (row, c) in in_turn(train, configs, jobs):
            point, seed = todo[i]
            if not matrices:
                row, c = {k: v for k, v in row.items() if k != "spectrum"}, None
            chosen = self.tuning.get("chosen", {}).get(point, {})
            self.add({self.key: point, "seed": seed, **chosen, **row}, c)
            yield f"{self.path.name}: {point}, seed {seed}: kNN {100 * row['knn']:.1f} %"

    def add(self, row: dict[str, Any], c: np.ndarray | None = None) -> None:
        """Keep one training."""
        self.rows.append(row)
        if c is not None:
            self.bytes.append(c)
        place, rows = list(self.points).index, self.rows
        order = sorted(range(len(rows)), key=lambda i: (place(rows[i][self.key]), rows[i]["seed"]))
        self.rows = [rows[i] for i in order]
        self.bytes = [self.bytes[i] for i in order] if self.bytes else []
        self.write()  # after each: a study takes hours, and may be stopped at any time

    def write(self) -> None:
        """Write all files, the matrices before the rows that name them."""
        if self.bytes:
            arrays = dict(zip(map(self._name, self.rows), self.bytes, strict=True))
            with replacing(self.path / "matrices.npz") as temporary, open(temporary, "wb") as file:
                np.savez_compressed(file, **arrays)
        timed = [*self.rows, *self.tuning.get("tried", [])]
        self.environment["minutes"] = round(sum(row["minutes"] for row in timed), 2)
        shared = {"config": self.config | {"root": None}}  # the root is a path of this machine
        results = [f"{json.dumps(name)}: {json.dumps(x)},\n" for name, x in self.results.items()]
        rows = ",\n".join(map(json.dumps, self.rows))
        write_json(self.path / "environment.json", self.environment)
        write_yaml(self.path / "study.yaml", self.settings | shared)
        write_text(self.path / "rows.json", f'{{{"".join(results)}"rows": [\n{rows}\n]}}\n')

    def _name(self, row: Mapping[str, Any]) -> str:
        """A training's name in matrices.npz."""
        point = row[self.key]
        return f"{point if isinstance(point, str) else format(point, '.12g')}_seed{row['seed']}"

    def _go_on(self, old: "Study", declared: Mapping[str, Any]) -> None:
        """Keep what the folder holds, after a check that the settings are the same."""
        if old.key != self.key:
            raise ValueError(f"{self.path} holds a study over {old.key}, not {self.key}.")
        other = [k for k, v in declared.items() if k != "question" and old.settings.get(k) != v]
        if other:
            names = " and ".join(other)
            raise ValueError(
                f"{self.path} holds a study with other {names}. Choose another folder."
            )
        self.results = old.results
        dropped = {p: old.points[p] for p in old.groups if p not in self.points}
        self.points |= dropped
        for point in old.groups or self.points:
            was, now = old.config_of(point, 0), self.config_of(point, 0)
            for name in _differing(was, now):
                raise ValueError(
                    f"{self.path} holds {self.key} {point!r} with {name}={was[name]!r}, not {now[name]!r}. "
                    "Choose another folder."
                )
        self.rows, self.bytes, self.environment = old.rows, old.bytes, old.environment
        self.settings["seeds"] = sorted({*old.settings["seeds"], *self.settings["seeds"]})


def load_study(path: str | Path, command: str) -> Study:
    """A study by folder, or by the name of a recorded one (``data/runs/NAME``).

    Raises FileNotFoundError saying which ``command`` makes one.
    """
    folder = recorded_folder(path, "study.yaml")
    if folder is None:
        raise FileNotFoundError(
            f"No study at {str(path)!r}. Make one: python -m barlow_edu sweep {command} --out {path}"
        )
    return Study(folder)


def refuse_varied(overrides: Mapping[str, Any], *names: str) -> None:
    """Raises ValueError if a setting is to be fixed that differs from training to training."""
    for name in names:
        if name in overrides:
            raise ValueError(
                f"{name} differs from training to training here, so it cannot be set to {overrides[name]!r} "
                "for all. Leave it out, or train once: python -m barlow_edu pretrain."
            )


def follow(steps: Iterable[str], total: int, progress: bool = True) -> None:
    """Do the steps, each of which says what it was, beside a bar, and on one thread of torch."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # results do not depend on how many cores there are
    try:
        with tqdm(total=total, disable=not progress) as bar:
            for text in steps:
                bar.update()
                bar.set_postfix_str(text)
    finally:
        torch.set_num_threads(before)


def in_turn(train: Callable, configs: Sequence[dict], jobs: int) -> Iterator[tuple[int, Any]]:
    """(number, result) of every training, as they get ready; ``jobs`` at a time, each in a process of its own."""
    if jobs == 1:
        yield from enumerate(map(train, configs))
        return
    with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        waiting = {pool.submit(train, config): i for i, config in enumerate(configs)}
        try:
            for done in as_completed(waiting):
                yield waiting[done], done.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _differing(config: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The settings in which two trainings differ."""
    return [k for k in config if k not in FREE and config[k] != other.get(k)]
