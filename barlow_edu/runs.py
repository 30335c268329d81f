"""The run folder, read: what was run, on what, and what came of it.

    config.yaml            the whole configuration
    environment.json       hardware, versions, commit, date, the images' name, fingerprint and root, minutes
    metrics.jsonl          one line a logged step
    snapshots/c_STEP.npy   C on a fixed batch of twins, float16, the first ``snapshot_dims`` dimensions
    encoder.safetensors    weights, projector.safetensors beside it
    evaluation.json        what ``evaluate`` measured
    checkpoint.pt          everything needed to go on; checkpoint_previous.pt the one before it
    .lock                  held by the process that trains

A recorded run has no checkpoints. ``storage/run_folder.py`` writes these files.
"""

import os
import shutil
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml
from torch import Tensor, nn

from barlow_edu.config import DEFAULTS, SETTINGS, build_model, build_views
from barlow_edu.models import TwinModel
from barlow_edu.settings import did_you_mean, read_settings
from barlow_edu.storage.files import read_json, write_json, write_yaml
from barlow_edu.storage.places import data_dir, recorded_folder
from barlow_edu.storage.run_folder import read_metrics, snapshot_files
from barlow_edu.storage.weights import fill, read_weights, write_weights
from barlow_edu.views import TwinViews

# Every run has had these settings from the first on; those that came later have their default's value.
ALWAYS = ("data", "root", "limit", "views", "augment", "encoder", "stem", "image_size", "proj_dim")
ALWAYS += ("proj_hidden", "proj_layers", "lambd", "batch_size", "epochs", "lr", "seed")


class Run:
    """A run folder, read lazily. ``load_run`` finds one by path or by name.

    A file that is missing raises FileNotFoundError, one that is damaged ValueError, in a sentence with its name.
    encoder: the module, untrained, where the run was given one in place of a name.

    >>> run = load_run("garments_quick")
    >>> run.config["batch_size"], sorted(run.snapshots)[:3]
    (256, [0, 2, 8])
    """

    def __init__(self, path: str | Path, encoder: nn.Module | None = None):
        self.path, self.encoder = Path(path), encoder

    def __repr__(self) -> str:
        return f"Run({self.path.name!r})"

    @cached_property
    def config(self) -> dict[str, Any]:
        """The configuration that was run."""
        path = self.path / "config.yaml"
        try:
            content = read_settings(SETTINGS, path.read_text(encoding="utf-8"))
            for name in (SETTINGS.keys() & content) - {"encoder"}:  # a name of the user's, perhaps
                SETTINGS[name].check(name, content[name])
        except (ValueError, yaml.YAMLError, RecursionError) as error:  # or UnicodeDecodeError
            raise ValueError(f"{path} is damaged: {' '.join(str(error).split())}.") from error
        return DEFAULTS | _complete(path, content, ALWAYS)

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Hardware, versions, commit, date, minutes, and which images."""
        path = self.path / "environment.json"
        texts = {"data": str, "fingerprint": str, "root": str}
        return _complete(path, read_json(path), ("data",), **texts)

    @cached_property
    def metrics(self) -> list[dict[str, float]]:
        """One dictionary a logged step: step, epoch, loss and its parts, lr, images_per_second."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing: what this run has logged is lost.")
        lines = [values for _, values in read_metrics(path)]
        if None in lines[:-1]:  # a crash may have cut the last one short: it is passed over
            number = lines.index(None) + 1
            raise ValueError(
                f"{path} is damaged in line {number}. Resume the run, or remove the line."
            )
        return [values for values in lines if values]

    @cached_property
    def snapshots(self) -> dict[int, np.ndarray]:
        """Step -> C on the run's fixed batch, float32 (d, d)."""
        return {step: _read_array(file) for step, file in snapshot_files(self.path).items()}

    @cached_property
    def evaluation(self) -> dict[str, Any]:
        """What ``evaluate`` wrote; empty if it was not run."""
        path = self.path / "evaluation.json"
        kinds = {"rows": dict, "transfer": dict}
        return _complete(path, read_json(path), **kinds) if path.exists() else {}

    def history(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps and values of one metric, (steps that logged it,) each. Raises KeyError naming those there are."""
        lines = [m for m in self.metrics if key in m]  # online probes are not in every line
        if self.metrics and not lines:
            known = dict.fromkeys(name for m in self.metrics for name in m)
            raise KeyError(f"No metric {key!r}. There are {', '.join(known)}.")
        steps, values = ([m[k] for m in lines] for k in ("step", key))
        return np.array(steps), np.array(values)

    def views(self) -> TwinViews:
        """The twin views of this run; their ``normalize`` is what the encoder expects."""
        return build_views(self.config)

    def untrained(self, seed: int = 0) -> TwinModel:
        """The model as it was initialised, or as with a seed higher by so much; a module's own weights stay."""
        return build_model(self.config | {"seed": self.config["seed"] + seed}, self.encoder)

    def load_model(self, weights: bool = True) -> TwinModel:
        """The model, in evaluation mode, with the run's weights or (weights=False) as it was initialised.

        Where the projector's weights were not recorded, the model encodes, and raises ValueError when it is asked for
        embeddings. Raises FileNotFoundError if there are no weights at all.
        """
        model = self.untrained()
        if weights:
            encoder, projector = (self.path / f"{x}.safetensors" for x in ("encoder", "projector"))
            if not encoder.exists():
                raise FileNotFoundError(
                    f"{self.path} holds no encoder.safetensors. Resume the run with "
                    f"pretrain(..., out={str(self.path)!r}, resume=True), or record it again."
                )
            what = "the {} of config.yaml beside it"
            fill(model.encoder, read_weights(encoder), encoder, what.format("encoder"))
            if projector.exists():
                fill(model.projector, read_weights(projector), projector, what.format("projector"))
            else:
                model.projector = _NoProjector(projector)
        return model.eval()


class _NoProjector(nn.Module):
    """Stands where a projector would be."""

    def __init__(self, path: Path):
        super().__init__()
        self.path = path

    def forward(self, features: Tensor) -> Tensor:
        raise ValueError(f"There is no {self.path}: only the encoder of this run can be used.")


def load_run(path: str | Path, encoder: nn.Module | None = None) -> Run:
    """A run by folder, or by the name of a recorded one (``data/runs/NAME``); ``encoder`` as in :class:`Run`.

    Raises FileNotFoundError naming the recorded runs there are, and ValueError if the folder holds a study.

    >>> load_run("garments_quick")
    Run('garments_quick')
    """
    if folder := recorded_folder(path, "study.yaml"):
        raise ValueError(
            f"{folder} holds a study, not a run: read it with barlow_edu.studies.study.Study."
        )
    if folder := recorded_folder(path, "config.yaml"):
        return Run(folder, encoder)
    recorded = sorted(run.path.name for run in _recorded("config.yaml"))
    raise FileNotFoundError(
        f"No run at {str(path)!r}.{did_you_mean(str(path), recorded)} Recorded runs: "
        f"{', '.join(recorded) or 'none'}."
    )


def _recorded(file: str) -> list[Run]:
    """The recorded runs that have a certain file."""
    return [Run(path.parent) for path in (data_dir() / "runs").glob(f"[!.]*/{file}")]


def best_run(data: str) -> Run:
    """The recorded run on images of that name ("CIFAR-10", "garments") whose features have the best kNN accuracy.

    A label may say more, as "CIFAR-10 (JPEG copy)" does. Raises FileNotFoundError naming the images there are.

    >>> best_run("garments")
    Run('garments_hero')
    """

    def knn(run: Run) -> float | None:  # None where it was evaluated on other images alone
        return run.evaluation.get("rows", {}).get("trained encoder", {}).get("knn")

    scored = [run for run in _recorded("evaluation.json") if knn(run) is not None]
    fitting = [run for run in scored if run.environment["data"].split(" (")[0] == data]
    if not fitting:
        known = ", ".join(sorted({run.environment["data"] for run in scored})) or "none"
        raise FileNotFoundError(f"No recorded run on {data!r}. There are runs on {known}.")
    return max(fitting, key=knn)


def record(run: Run, name: str, without_weights: bool = False) -> Run:
    """Keep a finished run as ``data/runs/NAME``: everything but the checkpoint, weights as float16.

    Raises FileExistsError if there is a record of that name, and ValueError if the run is not finished or the name
    cannot be that of a run.
    """
    SETTINGS["name"].check("name", name)
    target = data_dir() / "runs" / name
    if target.exists():
        raise FileExistsError(f"{target} exists. Remove it first, or choose another name.")
    if not (run.path / "encoder.safetensors").exists():
        raise ValueError(f"{run.path} is not finished: it holds no encoder.safetensors.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".", dir=target.parent) as unfinished:
        copy = Path(unfinished, name)
        left_out = ["*.safetensors", "*.part", "*.pt", "*.pth", ".lock", "wandb*", "mlflow_id"]
        shutil.copytree(run.path, copy, ignore=shutil.ignore_patterns(*left_out))
        for file in () if without_weights else run.path.glob("*.safetensors"):
            weights = read_weights(file)
            half = {k: v.half() if v.is_floating_point() else v for k, v in weights.items()}
            write_weights(copy / file.name, half)
        # Folders of this machine stay here; the images' name and fingerprint say which they were.
        write_yaml(copy / "config.yaml", run.config | {"root": None})
        about = {k: v for k, v in run.environment.items() if k != "root"}
        write_json(copy / "environment.json", about)
        os.replace(copy, target)
    return Run(target)


def _complete(path: Path, content: Any, names: tuple = (), **kinds: type) -> dict[str, Any]:
    """``content``, which must hold values by their names, those of ``names``; ``kinds``: name -> its kind."""
    missing = [name for name in names if not isinstance(content, Mapping) or name not in content]
    if missing or not isinstance(content, Mapping):
        what = ", ".join(missing) or "everything"
        raise ValueError(f"{path} is damaged: {what} is missing. Add it by hand, or train again.")
    for name, kind in kinds.items():
        if not isinstance(content.get(name, kind()), kind):
            wrong = f"{name} is {content[name]!r:.60}"
            raise ValueError(f"{path} is damaged: {wrong}. Mend it by hand.")
    return dict(content)


def _read_array(path: Path) -> np.ndarray:
    try:
        c = np.load(path)
        if isinstance(c, np.ndarray) and c.ndim == 2 and c.shape[0] == c.shape[1] > 0:
            return c.astype(np.float32)
        raise ValueError("it holds no square matrix")
    except (ValueError, TypeError, EOFError, MemoryError) as error:
        raise ValueError(f"{path} is damaged: {error}. Remove it.") from error
