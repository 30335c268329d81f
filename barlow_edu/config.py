"""Configurations: named YAML files, their defaults, and checks that name what is wrong."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from barlow_edu.data import NAMES, SPLITS, ImageSet, load_images
from barlow_edu.encoders import ENCODERS, STEMS
from barlow_edu.loss import FORMS
from barlow_edu.methods.ablations import AblatedBarlowTwins, complete_ablation
from barlow_edu.methods.relatives import METHODS
from barlow_edu.models import MODEL_DEFAULTS, TwinModel
from barlow_edu.optim import OPTIMIZERS
from barlow_edu.recipe import PRESETS, ViewRecipe, reference_transforms
from barlow_edu.storage.files import did_you_mean
from barlow_edu.storage.stream import ImageStream
from barlow_edu.storage.trees import balanced, image_files
from barlow_edu.views import TwinViews

IN_MEMORY = 8e9  # bytes of decoded images, above which stream="auto" streams
CONFIG_DIR = Path(__file__).parent / "configs"

TRAINING_DEFAULTS: dict[str, Any] = {
    "name": "run",
    "method": "barlow_twins",
    # data and views
    "data": "garments",
    "root": None,
    "limit": None,
    "stream": "auto",
    "pipeline": "decode_once",
    "canvas": None,
    "workers": None,
    "views": "garments",
    "augment": {},
    # optimisation
    "batch_size": 256,
    "epochs": 1,
    "optimizer": "adamw",
    "lr": 2e-3,
    "bias_lr": None,
    "weight_decay": 1e-4,
    "momentum": 0.9,
    "warmup_epochs": 0.5,
    "final_lr": 0.001,
    "reference_processes": 1,  # see distributed.published_scale
    "seed": 0,
    # how it is computed
    "device": "auto",
    "precision": "auto",
    "channels_last": "auto",
    "compile": False,
    "checkpoint_activations": False,  # this and the next: see recompute.py
    "micro_batch": None,
    # what is kept; checkpoint_every counts steps, null is once an epoch
    "checkpoint_every": None,
    "log_every": 10,
    "snapshots": 24,
    "snapshot_dims": 128,
    "probe_size": 1024,
}
SMALL_IMAGES = {"encoder": "small_resnet", "stem": "cifar", "image_size": 32, "proj_dim": 512}
DEFAULTS = {**TRAINING_DEFAULTS, **MODEL_DEFAULTS, **SMALL_IMAGES}
CHOICES = {
    "method": tuple(METHODS),
    "data": NAMES,
    "stream": ("auto", True, False),
    "pipeline": ("decode_once", "per_image"),
    "views": tuple(PRESETS),
    "stem": STEMS,
    "optimizer": OPTIMIZERS,
    "precision": ("auto", "float32", "bfloat16"),
    "channels_last": ("auto", True, False),
    "compile": (True, False),
    "checkpoint_activations": (True, False),
    "joint_views": (True, False),
    "predictor": (True, False),
    "stop_gradient": (True, False),
    "form": FORMS,
}
# Every number: the least and the most it may be.
BOUNDS = {
    "limit": (1, math.inf),
    "canvas": (8, math.inf),
    "workers": (0, math.inf),
    "batch_size": (2, math.inf),
    "epochs": (1, math.inf),
    "lr": (1e-12, math.inf),
    "bias_lr": (0, math.inf),
    "weight_decay": (0, math.inf),
    "momentum": (0, 1),
    "warmup_epochs": (0, math.inf),
    "final_lr": (0, 1),
    "micro_batch": (1, math.inf),
    "reference_processes": (1, math.inf),
    "seed": (0, 2**63 - 2),
    "checkpoint_every": (1, math.inf),
    "log_every": (1, math.inf),
    "snapshots": (0, math.inf),
    "snapshot_dims": (1, math.inf),
    "probe_size": (2, math.inf),
    "encoder_dim": (1, math.inf),
    "image_size": (8, math.inf),
    "proj_dim": (1, math.inf),
    "proj_hidden": (1, math.inf),
    "proj_layers": (1, math.inf),
    "lambd": (0, math.inf),
    "temperature": (1e-3, math.inf),
    "pred_hidden": (1, math.inf),
    "ema": (0, 1),
    "invariance_weight": (0, math.inf),
    "variance_weight": (0, math.inf),
    "covariance_weight": (0, math.inf),
}
FRACTIONS = ("lr", "bias_lr", "weight_decay", "momentum", "warmup_epochs", "final_lr", "lambd")
FRACTIONS += ("temperature", "ema", "invariance_weight", "variance_weight", "covariance_weight")
MAY_BE_NULL = ("limit", "micro_batch", "canvas", "workers", "bias_lr", "checkpoint_every")
MAY_BE_NULL += ("encoder_dim", "proj_hidden", "pred_hidden")


def config_names() -> list[str]:
    """Names of the configurations that come with the package."""
    return sorted(p.stem for p in CONFIG_DIR.glob("*.yaml"))


def load_config(config: str | Path | Mapping[str, Any] | None = None, **overrides: Any) -> dict:
    """A complete, checked configuration.

    config: a name (see ``config_names``), a YAML file, or a mapping; ``overrides`` replace single values.
    Raises FileNotFoundError for an unknown name and ValueError for an unknown key or an impossible value.
    """
    named = isinstance(config, (str, Path))
    given = _read(config) if named else dict(config or {})
    given |= overrides
    unknown = set(given) - set(DEFAULTS)
    if unknown:
        raise ValueError(
            f"Unknown setting {', '.join(sorted(map(str, unknown)))}.{did_you_mean(unknown, DEFAULTS)} "
            f"Known: {', '.join(DEFAULTS)}."
        )
    complete = {key: _plain(value) for key, value in {**DEFAULTS, **given}.items()}
    for key in ("augment", "ablate"):
        complete[key] = complete[key] or {}
    _check(complete)
    return complete


def build_model(config: Mapping[str, Any]) -> TwinModel:
    """The model of the method that a run's configuration asks for, initialised from its seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config["seed"])
        method = METHODS[config.get("method", "barlow_twins")]
        if config.get("ablate"):
            method = AblatedBarlowTwins
        return method({k: config[k] for k in MODEL_DEFAULTS if k in config})


def build_views(config: Mapping[str, Any]) -> TwinViews:
    """The twin views a run's configuration asks for."""
    return TwinViews(config["views"], config["image_size"], **(config.get("augment") or {}))


def open_stream(config: Mapping[str, Any], split: str = "train", mode: str | None = None):
    """The stream that a configuration with ``data: folder`` describes. mode: default, its ``pipeline``.

    Raises ValueError without a root, FileNotFoundError without the folder.
    """
    if config["data"] != "folder" or config["root"] is None:
        raise ValueError(
            "Only a class-folder tree is streamed: set data=folder and root=PATH, a folder with "
            f"train{os.sep}CLASS{os.sep}image files (got data={config['data']}, root={config['root']})."
        )
    root = Path(config["root"]).expanduser()
    files, labels, classes = image_files(root, SPLITS[split])
    labels = torch.tensor(labels)
    if config["limit"] is not None and split == "train":
        rows = balanced(labels, config["limit"], 0)
        files, labels = [files[i] for i in rows], labels[rows]
    size = config["image_size"]
    transforms = reference_transforms(build_views(config).recipe, size)
    settings = (mode or config["pipeline"], config["canvas"], config["workers"])
    return ImageStream(files, labels, classes, size, *settings, transforms)


def images_for(config: Mapping[str, Any]) -> ImageSet | ImageStream:
    """The training images of a configuration: in memory where they fit, streamed where not or if so told.

    Raises ValueError for a pipeline that only a stream has, if stream is False.
    """
    size = config["image_size"] if config["data"] == "folder" else None
    if config["pipeline"] == "per_image" and config["stream"] is False:
        raise ValueError(
            "pipeline=per_image works on files, but stream=False. Set stream=auto or True, or "
            "pipeline=decode_once."
        )
    if config["stream"] is True or config["pipeline"] == "per_image":
        return open_stream(config)
    if config["stream"] == "auto" and size is not None and config["root"] is not None:
        stream = open_stream(config)
        if 3 * size**2 * len(stream) > IN_MEMORY:
            return stream
    return load_images(config["data"], config["root"], "train", config["limit"], size)


def _plain(value: Any) -> Any:
    """The value as YAML has it, so that a run's configuration can be written, read and compared."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    return str(value) if isinstance(value, Path) else value


class _Loader(yaml.SafeLoader):
    """YAML 1.1 takes 1e-3 for a word; here it is a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read_yaml(text: str) -> Any:
    """Plain YAML, in which 1e-3 is a number. Raises yaml.YAMLError."""
    return yaml.load(text, _Loader)


def _read(config: str | Path) -> dict:
    path = CONFIG_DIR / f"{config}.yaml"
    if not path.exists():
        path = Path(config)
    if not path.is_file():
        raise FileNotFoundError(
            f"No configuration {str(config)!r}.{did_you_mean(str(config), config_names())} Give a YAML file or "
            f"one of {', '.join(config_names())}."
        )
    try:
        found = read_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        told = " ".join(str(error).split())
        raise ValueError(f"{path} is not readable YAML: {told}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold settings as 'key: value' lines.")
    return found


def _check(config: Mapping[str, Any]) -> None:
    for key, choices in CHOICES.items():
        # 1 equals True, and 1.0 too, but neither is one of the choices.
        if not any(config[key] == c and type(config[key]) is type(c) for c in choices):
            allowed = ", ".join(map(str, choices))
            raise ValueError(f"{key} must be one of {allowed}, got {config[key]!r}.")
    for key, (least, most) in BOUNDS.items():
        if config[key] is not None or key not in MAY_BE_NULL:
            _check_number(key, config[key], least, most)
    for key in ("name", "device"):
        if not isinstance(config[key], str) or not config[key]:
            raise ValueError(f"{key} must be text, got {config[key]!r}.")
    _check_device(config["device"])
    if not isinstance(config["root"], (str, type(None))):
        raise ValueError(f"root must be a folder, got {config['root']!r}.")
    if not isinstance(config["encoder"], str) or config["encoder"] not in ENCODERS:
        raise ValueError(
            f"encoder must be one of {', '.join(ENCODERS)}, got {config['encoder']!r}. A run can only be "
            "read again if its encoder has a name: add yours to barlow_edu.encoders.ENCODERS."
        )
    _check_augment(config["augment"])
    complete_ablation(config["ablate"])
    if config["ablate"] and config["method"] != "barlow_twins":
        raise ValueError(f"ablate is for Barlow Twins, and method is {config['method']!r}.")
    TwinViews(config["views"], config["image_size"], **config["augment"])


def _check_device(device: str) -> None:
    if device == "auto":
        return
    try:
        torch.device(device)
    except RuntimeError:
        raise ValueError(
            f"device must be auto, cpu, cuda, a number of it as cuda:1, or mps, got {device!r}."
        ) from None


def _check_number(key: str, value: Any, least: float, most: float) -> None:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or value in (math.inf, -math.inf)
    ):
        raise ValueError(f"{key} must be a number, got {value!r}.")
    if key not in FRACTIONS and not isinstance(value, int):
        raise ValueError(f"{key} must be a whole number, got {value!r}.")
    if not least <= value <= most:
        allowed = f"at least {least}" if most == math.inf else f"between {least} and {most}"
        raise ValueError(f"{key} must be {allowed}, got {value}.")


def _check_augment(augment: Any) -> None:
    """Every value must be of the kind that the recipe has: a number, or as many numbers."""
    if not isinstance(augment, Mapping):
        raise ValueError(f"augment must hold 'key: value' pairs, got {augment!r}.")
    known = ViewRecipe.__dataclass_fields__
    for key, value in augment.items():
        if key not in known:
            near = did_you_mean([key], known)
            raise ValueError(f"augment has no {key!r}.{near} Known: {', '.join(known)}.")
        usual = _plain(known[key].default)
        fits = isinstance(value, list) == isinstance(usual, list)
        numbers = (value if isinstance(value, list) else [value]) if fits else []
        fits = fits and len(numbers) == (len(usual) if isinstance(usual, list) else 1)
        kind = str if isinstance(usual, str) else (int, float)
        if not fits or any(isinstance(n, bool) or not isinstance(n, kind) for n in numbers):
            raise ValueError(f"augment: {key} must be like {usual}, got {value!r}.")
