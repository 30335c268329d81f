"""The run folder, read: what was run, on what, and what came of it.

    config.yaml            the whole configuration
    environment.json       hardware, versions, commit, date, data label and fingerprint, minutes
    metrics.jsonl          one line a logged step
    snapshots/c_STEP.npy   C on a fixed batch of twins, float16, the first ``snapshot_dims`` dimensions
    encoder.safetensors    weights, projector.safetensors beside it
    evaluation.json        what ``evaluate`` measured
    checkpoint.pt          everything needed to go on; checkpoint_previous.pt the one before it
    .lock                  held by the process that trains

A recorded run has no checkpoints. ``storage/run_folder.py`` writes these files.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from barlow_edu.config import build_model, build_views
from barlow_edu.models import TwinModel
from barlow_edu.settings import did_you_mean
from barlow_edu.storage.files import read_json, write_json, write_yaml
from barlow_edu.storage.places import data_dir
from barlow_edu.storage.run_folder import read_metrics, read_weights, write_weights
from barlow_edu.views import TwinViews

# Settings that every run has had from the first on; those that came later have the value of their default.
ALWAYS = ("data", "root", "limit", "views", "augment", "encoder", "stem", "image_size", "proj_dim")
ALWAYS += ("proj_hidden", "proj_layers", "lambd", "batch_size", "epochs", "lr", "seed")


class Run:
    """A run folder, read lazily. ``load_run`` finds one by path or by name.

    A file that is missing raises FileNotFoundError, one that is damaged ValueError, in a sentence with its name.

    >>> run = load_run("garments_quick")
    >>> run.config["batch_size"], sorted(run.snapshots)[:3]
    (256, [0, 2, 7])
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"Run({self.path.name!r})"

    @cached_property
    def config(self) -> dict[str, Any]:
        """The configuration that was run."""
        path = self.path / "config.yaml"
        try:
            config = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is damaged: {' '.join(str(error).split())}") from error
        return _mapping(path, config, ALWAYS)

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Hardware, versions, commit, date, data label and minutes."""
        path = self.path / "environment.json"
        return _mapping(path, read_json(path), ("data",))

    @cached_property
    def metrics(self) -> list[dict[str, float]]:
        """One dictionary a logged step: step, epoch, loss and its parts, lr, images_per_second."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing: nothing that this run logged is left.")
        lines = [values for _, values in read_metrics(path)]
        if None in lines[:-1]:  # the last one is cut short by a crash; resuming drops it
            number = lines.index(None) + 1
            raise ValueError(f"{path} is damaged in line {number}: resume the run, or remove it.")
        return [values for values in lines if values]

    @cached_property
    def snapshots(self) -> dict[int, np.ndarray]:
        """Step -> C on the run's fixed batch, float32 (d, d)."""
        files = sorted((self.path / "snapshots").glob("c_*.npy"))
        return {int(f.stem[2:]): _read_array(f) for f in files}

    @cached_property
    def evaluation(self) -> dict[str, Any]:
        """What ``evaluate`` wrote; empty if it was not run."""
        path = self.path / "evaluation.json"
        return _mapping(path, read_json(path)) if path.exists() else {}

    def history(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps and values of one metric, (logged steps,) each. Raises KeyError naming the metrics there are."""
        if self.metrics and key not in self.metrics[0]:
            raise KeyError(f"No metric {key!r}. There are {', '.join(self.metrics[0])}.")
        steps, values = ([m[k] for m in self.metrics] for k in ("step", key))
        return np.array(steps), np.array(values)

    def views(self) -> TwinViews:
        """The twin views of this run; their ``normalize`` is what the encoder expects."""
        return build_views(self.config)

    def load_model(self, weights: bool = True) -> TwinModel:
        """The model, in evaluation mode, with the run's weights or (weights=False) as it was initialised.

        Where the projector's weights were not kept, the model has none: it encodes, and it raises ValueError when
        it is asked for embeddings. Raises FileNotFoundError if there are no weights at all.
        """
        model = build_model(self.config)
        if not weights:
            return model.eval()
        encoder, projector = (self.path / f"{x}.safetensors" for x in ("encoder", "projector"))
        if not encoder.exists():
            raise FileNotFoundError(
                f"{self.path} holds no encoder.safetensors. Resume the run with "
                f"pretrain(..., out={str(self.path)!r}, resume=True), or record it again."
            )
        _load_weights(model.encoder, encoder)
        if projector.exists():
            _load_weights(model.projector, projector)
        else:
            model.projector = _Missing(projector)
        return model.eval()


class _Missing(nn.Module):
    """Stands where a projector's weights were not kept."""

    def __init__(self, path: Path):
        super().__init__()
        self.path = path

    def forward(self, features: Tensor) -> Tensor:
        raise ValueError(f"{self.path} was not kept: of this run there is the encoder alone.")


def load_run(path: str | Path) -> Run:
    """A run by folder, or by the name of a recorded one (``data/runs/NAME``).

    Raises FileNotFoundError naming the recorded runs there are, and ValueError if the folder holds a study.

    >>> load_run("garments_quick")
    Run('garments_quick')
    """
    for folder in (Path(path), data_dir() / "runs" / str(path)):
        if (folder / "study.yaml").exists():
            raise ValueError(
                f"{folder} holds a study, not a run: read it with barlow_edu.studies.study.Study."
            )
        if (folder / "config.yaml").exists():
            return Run(folder)
    folders = (f.parent for f in (data_dir() / "runs").glob("[!.]*/config.yaml"))
    recorded = sorted(folder.name for folder in folders)
    raise FileNotFoundError(
        f"No run at {str(path)!r}.{did_you_mean(str(path), recorded)} Recorded runs: "
        f"{', '.join(recorded) or 'none'}."
    )


def best_run(data: str) -> Run:
    """The recorded run on images of that name ("CIFAR-10", "garments") whose features have the best kNN accuracy.

    A label may say more, as "CIFAR-10 (JPEG copy)" does. Raises FileNotFoundError naming the images there are.

    >>> best_run("garments")
    Run('garments_quick')
    """
    evaluated = [Run(f.parent) for f in (data_dir() / "runs").glob("[!.]*/evaluation.json")]
    scores = {run: _knn(run) for run in evaluated}
    scored = [run for run in evaluated if scores[run] is not None]
    fitting = [run for run in scored if run.environment["data"].split(" (")[0] == data]
    if not fitting:
        known = ", ".join(sorted({run.environment["data"] for run in scored}))
        raise FileNotFoundError(
            f"No recorded run on {data!r}. There are runs on {known or 'none'}."
        )
    return max(fitting, key=scores.get)


def _knn(run: Run) -> float | None:
    """The kNN accuracy of a run on its own images; None where it was evaluated on others alone."""
    return run.evaluation.get("rows", {}).get("trained encoder", {}).get("knn")


def record(run: Run, name: str, without_weights: bool = False) -> Run:
    """Keep a finished run as ``data/runs/NAME``: everything but the checkpoint, weights as float16.

    Raises FileExistsError if there is a record of that name, and ValueError if the run is not finished or the name
    is not that of a folder that can be seen.
    """
    target = data_dir() / "runs" / name
    if target.name != name or name.startswith("."):
        raise ValueError(
            f"The name of a record is that of a folder, without a path and no dot first, got {name!r}."
        )
    if target.exists():
        raise FileExistsError(f"{target} exists. Remove it first, or choose another name.")
    if not (run.path / "encoder.safetensors").exists():
        raise ValueError(f"{run.path} is not finished: it holds no encoder.safetensors.")
    unfinished = target.with_name(f".{name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        _copy(run, unfinished, without_weights)
        os.replace(unfinished, target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return Run(target)


def _copy(run: Run, target: Path, without_weights: bool) -> None:
    weights = ("*.safetensors", "*.part", "checkpoint*.pt", ".lock")
    shutil.copytree(run.path, target, ignore=shutil.ignore_patterns(*weights))
    for file in () if without_weights else run.path.glob("*.safetensors"):
        half = {k: v.half() if v.is_floating_point() else v for k, v in read_weights(file).items()}
        write_weights(target / file.name, half)
    # Paths of this machine; the data's name and fingerprint stay.
    write_yaml(target / "config.yaml", run.config | {"root": None})
    environment = {k: v for k, v in run.environment.items() if k != "root"}
    write_json(target / "environment.json", environment)


def _mapping(path: Path, content: Any, names: tuple[str, ...] = ()) -> dict[str, Any]:
    """What a file must hold: values by name. Raises ValueError if it does not, or if one of ``names`` is missing."""
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} is damaged: it holds no 'name: value' pairs.")
    missing = [name for name in names if name not in content]
    if missing:
        raise ValueError(f"{path} is damaged: {', '.join(missing)} is missing. Add it by hand.")
    return dict(content)


def _read_array(path: Path) -> np.ndarray:
    try:
        return np.load(path).astype(np.float32)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is damaged: {error} Remove it.") from error


def _load_weights(module: nn.Module, path: Path) -> None:
    """Put the weights of a file into a module. Raises ValueError if they are not the module's."""
    weights = read_weights(path)
    odd = [
        f"{k} is {v.dtype}"
        for k, v in weights.items()
        if v.dtype not in (torch.float32, torch.float64, torch.bfloat16, torch.int64)
    ]
    try:
        if odd:
            raise RuntimeError(f"{odd[0]}, not a number as trained")
        module.load_state_dict(weights)
    except RuntimeError as error:
        problem = " ".join(str(error).split())
        raise ValueError(
            f"{path} does not hold the weights that config.yaml asks for: {problem}."
        ) from error
