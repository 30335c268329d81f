"""The run folder: what was run, on what, and what came of it.

    config.yaml            the whole configuration
    environment.json       hardware, versions, commit, date, data label, minutes
    metrics.jsonl          one line a logged step
    snapshots/c_STEP.npy   C on a fixed batch of twins, float16, the first ``snapshot_dims`` dimensions
    encoder.safetensors    weights, projector.safetensors beside it
    evaluation.json        what ``evaluate`` found
    checkpoint.pt          everything needed to go on; checkpoint_previous.pt the one before it
    .lock                  held by the process that trains

A recorded run has no checkpoints. Files are written under a temporary name and renamed, so that a run folder
is never half written; a line of metrics that a crash cut in half is passed over and dropped when resuming.
"""

from __future__ import annotations

import io
import json
import math
import os
import shutil
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn

from barlow_edu.config import build_model, build_views
from barlow_edu.models import TwinModel
from barlow_edu.settings import did_you_mean
from barlow_edu.storage.files import append, replacing
from barlow_edu.storage.places import data_dir
from barlow_edu.views import TwinViews


class Run:
    """A run folder, read lazily. ``load_run`` finds one by path or by name."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"Run({self.path.name!r})"

    @cached_property
    def config(self) -> dict[str, Any]:
        """The configuration that was run."""
        path = self.path / "config.yaml"
        try:
            found = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ValueError(f"{path} is damaged: {' '.join(str(error).split())}") from error
        if not isinstance(found, dict):
            raise ValueError(f"{path} is damaged: it holds no settings.")
        return found

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Hardware, versions, commit, date, data label and minutes."""
        return _read_json(self.path / "environment.json")

    @cached_property
    def metrics(self) -> list[dict[str, float]]:
        """One dictionary a logged step: step, epoch, loss and its parts, lr, images_per_second."""
        lines = (self.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.endswith("}")]

    @cached_property
    def snapshots(self) -> dict[int, np.ndarray]:
        """Step -> C on the run's fixed batch, float32 (d, d)."""
        files = sorted((self.path / "snapshots").glob("c_*.npy"))
        return {int(f.stem[2:]): np.load(f).astype(np.float32) for f in files}

    @cached_property
    def evaluation(self) -> dict[str, Any]:
        """What ``evaluate`` wrote; empty if it was not run."""
        path = self.path / "evaluation.json"
        return _read_json(path) if path.exists() else {}

    def history(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps and values of one metric. Raises KeyError naming the metrics there are."""
        if self.metrics and key not in self.metrics[0]:
            raise KeyError(f"No metric {key!r}. There are {', '.join(self.metrics[0])}.")
        return (
            np.array([m["step"] for m in self.metrics]),
            np.array([m[key] for m in self.metrics]),
        )

    def views(self) -> TwinViews:
        """The twin views of this run; their ``normalize`` is what the encoder expects."""
        return build_views(self.config)

    def load_model(self, weights: bool = True) -> TwinModel:
        """The model, in evaluation mode, with the run's weights or (weights=False) as it was initialised.

        The projector's weights are loaded where they were kept. Raises FileNotFoundError if there are no
        weights.
        """
        model = build_model(self.config)
        if weights:
            path = self.path / "encoder.safetensors"
            if not path.exists():
                raise FileNotFoundError(
                    f"{self.path} holds no encoder.safetensors. Resume the run with "
                    f"pretrain(..., out={str(self.path)!r}, resume=True), or record it again."
                )
            model.encoder.load_state_dict(_weights(path))
            head = self.path / "projector.safetensors"
            if head.exists():
                model.projector.load_state_dict(_weights(head))
        return model.eval()


def load_run(path: str | Path) -> Run:
    """A run by folder, or by the name of a recorded one (``data/runs/NAME``).

    Raises FileNotFoundError naming the recorded runs there are, and ValueError if the folder holds a sweep.
    """
    for folder in (Path(path), data_dir() / "runs" / str(path)):
        if (folder / "sweep.json").exists():
            raise ValueError(
                f"{folder} holds a sweep, not a run: use barlow_edu.studies.lambda_sweep.load_sweep."
            )
        if (folder / "config.yaml").exists():
            return Run(folder)
    found = (f.parent for f in (data_dir() / "runs").glob("[!.]*/config.yaml"))
    recorded = sorted(folder.name for folder in found if not (folder / "sweep.json").exists())
    raise FileNotFoundError(
        f"No run at {str(path)!r}.{did_you_mean(str(path), recorded)} Recorded runs: "
        f"{', '.join(recorded) or 'none'}."
    )


def best_run(data: str) -> Run:
    """The recorded run on images of that name ("CIFAR-10", "garments") whose features have the best kNN accuracy.

    A label may say more, as "CIFAR-10 (JPEG copy)" does. Raises FileNotFoundError naming the images there are.
    """
    found = [Run(f.parent) for f in (data_dir() / "runs").glob("[!.]*/evaluation.json")]
    fitting = [run for run in found if run.environment["data"].split(" (")[0] == data]
    if not fitting:
        known = ", ".join(sorted({run.environment["data"] for run in found}))
        raise FileNotFoundError(
            f"No recorded run on {data!r}. There are runs on {known or 'none'}."
        )
    return max(fitting, key=lambda run: run.evaluation["rows"]["trained encoder"]["knn"])


def record(run: Run, name: str, without_weights: bool = False) -> Run:
    """Keep a finished run as ``data/runs/NAME``: everything but the checkpoint, weights as float16.

    Raises FileExistsError if there is a record of that name, and ValueError if the run is not finished.
    """
    target = data_dir() / "runs" / name
    if target.name != name:
        raise ValueError(f"The name of a record is that of a folder, without a path, got {name!r}.")
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
    if not without_weights:
        for file in run.path.glob("*.safetensors"):
            state = _weights(file).items()
            half = {k: v.half() if v.is_floating_point() else v for k, v in state}
            save_file(half, target / file.name)
    config = run.config | {"root": None}  # a path of this machine; environment.json names the data
    _write_text(target / "config.yaml", yaml.safe_dump(config, sort_keys=False))


class RunWriter:
    """Writes a run folder while training goes on."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        (self.path / "snapshots").mkdir(parents=True, exist_ok=True)

    def start(self, config: Mapping[str, Any], environment: Mapping[str, Any]) -> None:
        """Write config and environment."""
        _write_text(self.path / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))
        self.environment(environment)

    def environment(self, environment: Mapping[str, Any]) -> None:
        """Write (again) where the run took place."""
        _write_text(self.path / "environment.json", json.dumps(environment, indent=1) + "\n")

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line, whole or not at all."""
        rounded = {k: float(f"{v:.6g}") if math.isfinite(v) else v for k, v in values.items()}
        append(self.path / "metrics.jsonl", json.dumps({"step": step, **rounded}) + "\n")

    def rewind(self, step: int) -> None:
        """Drop what came after ``step`` (a resumed run writes it again), and what a crash left half written."""
        path = self.path / "metrics.jsonl"
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines(True)
            whole = [x for x in lines if x.endswith("}\n") and json.loads(x)["step"] <= step]
            if whole != lines:
                _write_text(path, "".join(whole))
        for file in (self.path / "snapshots").glob("c_*.npy"):
            if int(file.stem[2:]) > step:
                file.unlink()
        for file in [*self.path.glob(".*.part"), *self.path.glob("snapshots/.*.part")]:
            file.unlink()

    def unfinish(self) -> None:
        """Drop what only a finished run has: it goes on now."""
        for name in ("encoder.safetensors", "projector.safetensors", "evaluation.json"):
            (self.path / name).unlink(missing_ok=True)

    def snapshot(self, step: int, c: Tensor) -> None:
        """Keep one C, as float16."""
        target = self.path / "snapshots" / f"c_{step:07d}.npy"
        content = io.BytesIO()
        np.save(content, c.cpu().numpy().astype(np.float16))
        with replacing(target) as temporary:
            temporary.write_bytes(content.getbuffer())

    def weights(self, model: TwinModel) -> None:
        """Keep the encoder's and the projector's weights."""
        for name, module in (("encoder", model.encoder), ("projector", model.projector)):
            save_weights(module, self.path / f"{name}.safetensors")

    def evaluation(self, results: Mapping[str, Any]) -> None:
        """Keep what an evaluation found."""
        _write_text(self.path / "evaluation.json", json.dumps(results, indent=1) + "\n")


def save_weights(module: nn.Module, path: Path) -> None:
    """Write a module's state as safetensors."""
    state = {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
    with replacing(path) as temporary:
        # Not by save_file: its error for a full disk is not the system's.
        temporary.write_bytes(save(state))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _weights(path: Path) -> dict[str, Tensor]:
    """What a file of weights holds; halved ones in float32 again. Raises ValueError for a damaged file."""
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return {k: v.float() if v.dtype == torch.float16 else v for k, v in state.items()}


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
