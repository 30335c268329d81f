"""Recorded experiments: named variants of one short training, over seeds.

A YAML file beside this one declares them: a base configuration, and for each experiment a question and its variants.
Each experiment is a folder, ``data/runs/SET/EXPERIMENT``:

    experiment.yaml     the question, the base configuration, the variants and the seeds
    environment.json    hardware, versions, commit, date, data label, minutes
    rows.json           one row a training (see ``short_runs.measure``), and the baselines

A finished training is kept, so that the sweep can be stopped and called again; one that another experiment of the set
has trained with the same settings is taken over. Trainings of one seed start from the same encoder and see the same
images in the same order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from tqdm.auto import tqdm

from barlow_edu.config import load_config
from barlow_edu.numerics.devices import Computer, describe_environment
from barlow_edu.settings import read_yaml
from barlow_edu.storage.files import replacing
from barlow_edu.storage.places import recorded_folder
from barlow_edu.studies.records import SeededRows
from barlow_edu.studies.short_runs import baselines, one_thread, refuse_varied, train_one

HERE = Path(__file__).parent
FREE = ("name", "device", "root", "seed")  # settings that do not make another training


class Experiment(SeededRows):
    """A recorded experiment. ``load_experiment`` finds one by path or by name. Its groups are the variants."""

    key = "variant"

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.settings: dict[str, Any] = yaml.safe_load(
            (self.path / "experiment.yaml").read_text(encoding="utf-8")
        )
        self.environment = json.loads((self.path / "environment.json").read_text(encoding="utf-8"))
        found = json.loads((self.path / "rows.json").read_text(encoding="utf-8"))
        self.rows: list[dict[str, Any]] = found["rows"]
        self.baselines: dict[str, float] = found["baselines"]

    def __repr__(self) -> str:
        return f"Experiment({self.path.name!r}, {len(self.rows)} trainings)"

    @property
    def question(self) -> str:
        """What it asks."""
        return self.settings["question"]

    @property
    def variants(self) -> list[str]:
        """Those with at least one training, in the order of their declaration."""
        trained = {row["variant"] for row in self.rows}
        return [name for name in self.settings["variants"] if name in trained]

    groups = variants


def experiment_sets() -> list[str]:
    """Names of the declared sets of experiments."""
    return sorted(p.stem for p in HERE.glob("*.yaml"))


def load_experiment(path: str | Path) -> Experiment:
    """An experiment by folder, or by the name of a recorded one, as "ablations/terms".

    Raises FileNotFoundError saying how to make one.
    """
    folder = recorded_folder(path, "rows.json")
    if folder is not None:
        return Experiment(folder)
    raise FileNotFoundError(
        f"No experiment at {str(path)!r}. Make one: python -m barlow_edu sweep "
        f"{experiment_sets()[0]} --out FOLDER"
    )


def declaration(name: str) -> dict[str, Any]:
    """What the set of that name declares. Raises ValueError for another name, naming those there are."""
    if name not in experiment_sets():
        raise ValueError(f"No experiments {name!r}. There are {', '.join(experiment_sets())}.")
    return read_yaml((HERE / f"{name}.yaml").read_text(encoding="utf-8"))


def run_experiments(
    name: str,
    out: str | Path | None = None,
    only: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    progress: bool = True,
    **overrides: Any,
) -> list[Experiment]:
    """Train every variant of the set's experiments with every seed, and keep what came of it under ``out``.

    out: default, runs/NAME. only: some experiments; default, all. overrides: settings for all trainings, as for
    ``pretrain``. Raises ValueError for an unknown experiment, an impossible setting, or a folder that holds the
    experiment with other settings.
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
    folders = [
        _Folder(out / key, base, experiments[key], seeds) for key in only or list(experiments)
    ]
    count = sum(len(folder.points) for folder in folders)
    with tqdm(total=count, disable=not progress) as bar, one_thread():
        for folder in folders:
            for told in folder.fill():
                bar.update()
                bar.set_postfix_str(f"{folder.path.name}: {told}")
    return [Experiment(folder.path) for folder in folders]


class _Folder:
    """The folder of one experiment while it is being filled."""

    def __init__(self, path: Path, base: Mapping[str, Any], declared: Mapping, seeds: list[int]):
        self.path, self.base = path, dict(base)
        variants = {name: change or {} for name, change in declared["variants"].items()}
        self.points = {
            (name, seed): load_config(self.base | change | {"seed": seed})
            for name, change in variants.items()
            for seed in seeds
        }
        self.settings = {"question": declared["question"], "seeds": seeds, "variants": variants}
        self.settings["base"] = self.base | {"root": None}  # a path of this machine
        self.rows: list[dict[str, Any]] = []
        if (path / "rows.json").exists():
            kept = Experiment(path)
            self._check_same(kept)
            self.rows, self.baselines = kept.rows, kept.baselines
            self.environment = kept.environment
            more = set(kept.settings["seeds"]) | set(seeds)
            self.settings["seeds"] = sorted(more)
        else:
            self.baselines = None
            computer = Computer.choose(self.base)
            self.environment = describe_environment(computer.device) | computer.describe()
            self.environment |= {"threads": 1, "data": base["data"]}

    def fill(self) -> Iterator[str]:
        """Train what is missing, seed by seed; yields a line after each."""
        for (name, seed), config in sorted(self.points.items(), key=lambda p: p[0][1]):
            if not any((r["variant"], r["seed"]) == (name, seed) for r in self.rows):
                row = self._taken_over(config) or self._train(config)
                self.rows.append({"variant": name, **row})
                self.write()
            [row] = [r for r in self.rows if (r["variant"], r["seed"]) == (name, seed)]
            yield f"{name}, seed {seed}: kNN {100 * row['knn']:.1f} %"

    def _train(self, config: dict[str, Any]) -> dict[str, Any]:
        if self.baselines is None:
            self.baselines = baselines(self.base)
        row, _ = train_one(config, "lambd")
        del row["spectrum"]
        return row | {"settings": {k: config[k] for k in _changed(config, self.base)}}

    def _taken_over(self, config: Mapping[str, Any]) -> dict[str, Any] | None:
        """The row of the same training in another experiment of the set, if there is one."""
        wanted = {k: config[k] for k in _changed(config, self.base)}
        for rows in sorted(self.path.parent.glob("*/rows.json")):
            other = Experiment(rows.parent)
            if not _changed(other.settings["base"], self.base):
                for row in other.rows:
                    if row["settings"] == wanted and row["seed"] == config["seed"]:
                        self.baselines = self.baselines or other.baselines
                        return {k: v for k, v in row.items() if k != "variant"}
        return None

    def _check_same(self, kept: Experiment) -> None:
        for key in _changed(kept.settings["base"], self.base):
            raise ValueError(
                f"{kept.path} holds the experiment with {key}={kept.settings['base'].get(key)!r}, "
                f"not {self.base[key]!r}. Choose another folder."
            )
        for name, change in kept.settings["variants"].items():
            if name in kept.variants and self.settings["variants"].get(name) != change:
                raise ValueError(
                    f"{kept.path} holds another {name!r}: {change}. Choose another folder."
                )

    def write(self) -> None:
        """Write all files, each whole or not at all."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.environment["minutes"] = round(sum(row["minutes"] for row in self.rows), 2)
        rows = ",\n".join(json.dumps(row) for row in self.rows)
        baselines = json.dumps(self.baselines)
        self._write("rows.json", f'{{"baselines": {baselines},\n"rows": [\n{rows}\n]}}\n')
        self._write("environment.json", json.dumps(self.environment, indent=1) + "\n")
        self._write("experiment.yaml", yaml.safe_dump(self.settings, sort_keys=False))

    def _write(self, name: str, text: str) -> None:
        with replacing(self.path / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _changed(config: Mapping[str, Any], base: Mapping[str, Any]) -> list[str]:
    """The settings in which two trainings differ."""
    return [k for k in base if k not in FREE and config.get(k) != base[k]]
