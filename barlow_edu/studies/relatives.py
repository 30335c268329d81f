"""Barlow Twins and its relatives on one budget: same encoder, images, views, batch, steps and seeds.

    settings.yaml       the configuration they share, what each method adds, the learning rates tried, the seeds
    environment.json    hardware, versions, commit, date, data label, minutes
    tuning.json         each method with each learning rate, judged on held-out training images
    comparison.json     one row a training (see ``measure``), what a step costs, and the baselines

A finished training is kept, so that the comparison can be stopped and called again. The test images are looked
at once the learning rates are chosen. Trainings of one seed start from the same encoder and see the same batches.
Features are those of whole images, shrunk to the size of the views.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from tqdm.auto import tqdm

from barlow_edu.config import build_model, build_views, load_config
from barlow_edu.data import ImageSet, load_images
from barlow_edu.evaluation import Protocol
from barlow_edu.evaluation.features import extract_features
from barlow_edu.evaluation.probes import knn_accuracy
from barlow_edu.evaluation.spectra import rankme
from barlow_edu.methods.relatives import embedding_std
from barlow_edu.models import TwinModel
from barlow_edu.numerics.batchnorm import batch_statistics
from barlow_edu.numerics.devices import Computer, describe_environment
from barlow_edu.runs import Run
from barlow_edu.storage.files import replacing
from barlow_edu.storage.places import recorded_folder
from barlow_edu.studies.costs import step_costs
from barlow_edu.studies.records import SeededRows
from barlow_edu.studies.short_runs import refuse_varied
from barlow_edu.training import pretrain

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
K, TEMPERATURE = 200, 0.1  # of kNN
TWINS = 1024  # test images of which twins are made


class Comparison(SeededRows):
    """A recorded comparison. ``load_comparison`` finds one by path or by name. Its groups are the methods."""

    key = "method"

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.settings: dict[str, Any] = yaml.safe_load(
            (self.path / "settings.yaml").read_text(encoding="utf-8")
        )
        self.environment = self._json("environment.json")
        self.tuning = self._json("tuning.json")
        found = self._json("comparison.json")
        self.rows: list[dict[str, Any]] = found["rows"]
        self.costs: dict[str, dict[str, float]] = found["costs"]
        self.baselines: dict[str, dict[str, Any]] = found["baselines"]

    def __repr__(self) -> str:
        return f"Comparison({self.path.name!r}, {len(self.rows)} trainings)"

    def _json(self, name: str) -> dict[str, Any]:
        return json.loads((self.path / name).read_text(encoding="utf-8"))

    @property
    def methods(self) -> list[str]:
        """Their names, in the order of ``OWN``."""
        return [m for m in OWN if any(row["method"] == m for row in self.rows)]

    groups = methods


def load_comparison(path: str | Path = RECORD) -> Comparison:
    """A comparison by folder, or by the name of a recorded one (``data/runs/NAME``).

    Raises FileNotFoundError saying how to make one.
    """
    folder = recorded_folder(path, "comparison.json")
    if folder is not None:
        return Comparison(folder)
    raise FileNotFoundError(
        f"No comparison at {str(path)!r}. Make one: python -m barlow_edu sweep relatives --out {path}"
    )


def compare(
    out: str | Path | None = None,
    rates: Sequence[float] = RATES,
    seeds: Sequence[int] = SEEDS,
    tuning: Mapping[str, int] = TUNING,
    progress: bool = True,
    **overrides: Any,
) -> Comparison:
    """Tune each method's learning rate on held-out training images, then train it once a seed and measure.

    out: the folder (default runs/relatives); what is finished there is kept. rates: learning rates tried.
    tuning: images trained on, images held_out to judge, epochs and the seed of the tuning. overrides: settings
    of the packaged configuration "relatives". One thread throughout. Raises ValueError if the folder holds a
    comparison with other settings.
    """
    refuse_varied(overrides, "method", "lr", "seed")
    config = load_config("relatives", snapshots=0, **overrides)
    settings = {"config": config, "own": OWN, "rates": list(rates), "seeds": list(seeds)}
    folder = _Folder(Path(out or Path("runs") / RECORD), settings | {"tuning": dict(tuning)})
    total = len(OWN) * (len(rates) + len(seeds)) + 2
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tqdm(total=total, disable=not progress, desc=RECORD) as bar:
            for told in folder.fill():
                bar.set_postfix_str(told)
                bar.update()
    finally:
        torch.set_num_threads(threads)
    return Comparison(folder.path)


class _Folder:
    """The comparison's folder while it is being filled, in order: tuning, costs, baselines, rows."""

    def __init__(self, path: Path, settings: dict[str, Any]):
        self.path, self.settings, self.config = path, settings, settings["config"]
        self.tuning: dict[str, Any] = {"tried": []}
        self.found: dict[str, Any] = {"costs": {}, "baselines": {}, "rows": []}
        if (path / "settings.yaml").exists():
            kept = yaml.safe_load((path / "settings.yaml").read_text(encoding="utf-8"))
            kept["config"] = load_config(kept["config"])  # of a version with fewer settings
            if kept != settings:
                differing = sorted(k for k in settings if kept.get(k) != settings[k])
                raise ValueError(
                    f"{path} holds a comparison with other settings ({', '.join(differing)}). "
                    "Choose another folder."
                )
            self.tuning = json.loads((path / "tuning.json").read_text(encoding="utf-8"))
            self.found = json.loads((path / "comparison.json").read_text(encoding="utf-8"))
        self.write()

    def fill(self) -> Iterator[str]:
        """Do what is still to do; after each piece say what it was."""
        for method in OWN:
            for lr in self.settings["rates"]:
                yield self._tune(method, lr)
        chosen = self._choose()
        if not self.found["costs"]:
            self.found["costs"] = step_costs({m: self._config(m, chosen[m], 0) for m in OWN})
        yield "costs"
        if not self.found["baselines"]:
            self.found["baselines"] = self._baselines()
        yield "baselines"
        for seed in self.settings["seeds"]:
            for method in OWN:
                yield self._train(method, chosen[method], seed)

    def _config(self, method: str, lr: float, seed: int, **more: Any) -> dict[str, Any]:
        own = {"method": method, "name": f"{method}_seed{seed}", "lr": lr, "seed": seed}
        return load_config(self.config, **OWN[method], **own, **more)

    def _tune(self, method: str, lr: float) -> str:
        plan = self.settings["tuning"]
        if not any((row["method"], row["lr"]) == (method, lr) for row in self.tuning["tried"]):
            fit, held = _held_out(self.config["data"], self.config["root"], plan)
            shrunk = [_shrunk(s, self.config["image_size"]) for s in (fit, held)]
            config = self._config(method, lr, plan["seed"], epochs=plan["epochs"])
            begin = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                run = pretrain(config, Path(folder) / "run", fit, progress=False)
                knn = _knn(run.load_model(), run.views().normalize, *shrunk)
                row = {"method": method, "lr": lr, "knn": knn, "loss": run.metrics[-1]["loss"]}
            row["minutes"] = round((time.perf_counter() - begin) / 60, 2)
            self.tuning["tried"].append(row)
            self.write()
        return f"tuning {method}, lr {lr:g}"

    def _choose(self) -> dict[str, float]:
        """The learning rate with the best kNN accuracy of each method."""
        best = {}
        for method in OWN:
            tried = [row for row in self.tuning["tried"] if row["method"] == method]
            best[method] = max(tried, key=lambda row: row["knn"])["lr"]
        self.tuning["chosen"] = best
        return best

    def _train(self, method: str, lr: float, seed: int) -> str:
        rows = self.found["rows"]
        if not any((row["method"], row["seed"]) == (method, seed) for row in rows):
            images = _load(
                *(self.config[k] for k in ("data", "root")), "train", self.config["limit"]
            )
            config = self._config(method, lr, seed)
            begin, cpu = time.perf_counter(), time.process_time()
            with tempfile.TemporaryDirectory() as folder:
                run = pretrain(config, Path(folder) / "run", images, progress=False)
                cpu = time.process_time() - cpu
                row = {"method": method, "seed": seed, "lr": lr, **measure(run)}
            row["cpu_seconds"] = round(cpu, 1)
            rows.append(row | {"minutes": round((time.perf_counter() - begin) / 60, 2)})
            self.write()
        return f"{method}, seed {seed}"

    def _baselines(self) -> dict[str, dict[str, Any]]:
        train, test = _judges(self.config)
        normalize, seeds = build_views(self.config).normalize, self.settings["seeds"]

        def start(seed: int):
            return build_model(self.config | {"seed": seed}).encoder.eval()

        def row(encoder_of, linear: bool) -> dict[str, Any]:
            protocol = Protocol(linear, K, TEMPERATURE, tuple(seeds), ())
            return protocol.row(encoder_of, linear, train, test, normalize)

        # A linear probe of the 3072 values of an image takes minutes: of the pixels only kNN.
        return {"pixels": row(lambda seed: None, False), "random encoder": row(start, True)}

    def write(self) -> None:
        """Write all files, each whole or not at all."""
        self.path.mkdir(parents=True, exist_ok=True)
        computer = Computer.choose(self.config)
        environment = describe_environment(computer.device) | computer.describe()
        minutes = sum(row["minutes"] for row in self.tuning["tried"] + self.found["rows"])
        environment |= {"threads": 1, "data": self.config["data"], "minutes": round(minutes, 2)}
        head = {"what": "kNN accuracy of held-out training images; the test split was not used"}
        self._dump("tuning.json", head | {"k": K, "temperature": TEMPERATURE} | self.tuning)
        self._dump("comparison.json", self.found)
        self._dump("environment.json", environment)
        self._dump("settings.yaml", None)

    def _dump(self, name: str, content: Any) -> None:
        text = json.dumps(content, indent=1) + "\n"
        if name.endswith("yaml"):
            text = yaml.safe_dump(self.settings, sort_keys=False)
        with replacing(self.path / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def measure(run: Run) -> dict[str, Any]:
    """What is kept of a finished run.

    knn, linear, effective_rank, rankme and alpha of the features h, by the protocol of ``evaluate``; of the
    embeddings z of twins: embedding_std, and embedding_rank, RankMe of z / |z| (1: all on one line); and the last
    logged metrics.
    """
    config, model, views = run.config, run.load_model(), run.views()
    train, test = _judges(config)
    protocol = Protocol(True, K, TEMPERATURE, (config["seed"],), ())
    row = protocol.row(lambda seed: model.encoder, False, train, test, views.normalize)
    generator = torch.Generator().manual_seed(config["seed"] + 1)
    originals = _load(config["data"], config["root"], "test", None).images[:TWINS]
    twins = views(originals, generator)
    with torch.no_grad(), batch_statistics(model):
        z = model.embed(twins[0])
    row |= {"embedding_std": float(embedding_std(z)), "embedding_rank": rankme(F.normalize(z))}
    last = {k: v for k, v in run.metrics[-1].items() if k not in ("embedding_std", "epoch", "lr")}
    return row | {k: v for k, v in last.items() if k != "images_per_second"}


def _knn(model: TwinModel, normalize, fit: ImageSet, held: ImageSet) -> float:
    features = [extract_features(model.encoder, s.images, normalize) for s in (fit, held)]
    return knn_accuracy(features[0], fit.labels, features[1], held.labels, K, TEMPERATURE)


def _held_out(name: str, root: str | None, plan: Mapping[str, int]) -> tuple[ImageSet, ImageSet]:
    """Two parts of the training split: to train on, and to judge."""
    images = _load(name, root, "train", plan["images"] + plan["held_out"])
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(plan["seed"]))
    return images.subset(order[: plan["images"]]), images.subset(order[plan["images"] :])


def _judges(config: Mapping[str, Any]) -> tuple[ImageSet, ImageSet]:
    """The images trained on, which vote, and all test images, both shrunk."""
    name, root = config["data"], config["root"]
    sets = _load(name, root, "train", config["limit"]), _load(name, root, "test", None)
    return tuple(_shrunk(s, config["image_size"]) for s in sets)


def _shrunk(images: ImageSet, size: int) -> ImageSet:
    """The images at ``size`` x ``size`` pixels, each the mean of what it covers; as they are if they are so small."""
    if images.images.shape[-1] <= size:
        return images
    small = F.interpolate(images.images.float(), (size, size), mode="area")
    return replace(images, images=small.round().to(torch.uint8))


_load = lru_cache(maxsize=3)(load_images)
