"""Configurations: named YAML files, their defaults, and checks that name what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from barlow_edu.data import NAMES
from barlow_edu.models import MODEL_DEFAULTS
from barlow_edu.optim import OPTIMIZERS
from barlow_edu.views import PRESETS, ViewRecipe

CONFIG_DIR = Path(__file__).parent / "configs"

TRAINING_DEFAULTS: dict[str, Any] = {
    "name": "run",
    "method": "barlow_twins",
    # data and views
    "data": "garments",
    "root": None,
    "limit": None,
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
    "seed": 0,
    # how it is computed
    "device": "auto",
    "precision": "auto",
    "channels_last": "auto",
    # what is kept
    "log_every": 10,
    "snapshots": 24,
    "snapshot_dims": 128,
    "probe_size": 1024,
}
SMALL_IMAGES = {"encoder": "small_resnet", "stem": "cifar", "image_size": 32, "proj_dim": 512}
DEFAULTS = {**TRAINING_DEFAULTS, **MODEL_DEFAULTS, **SMALL_IMAGES}
CHOICES = {
    "method": ("barlow_twins",),
    "data": NAMES,
    "views": tuple(PRESETS),
    "optimizer": OPTIMIZERS,
    "precision": ("auto", "float32", "bfloat16"),
    "channels_last": ("auto", True, False),
    "form": ("auto", "matrix", "gram"),
}
AT_LEAST = {
    "batch_size": 2,
    "epochs": 1,
    "log_every": 1,
    "snapshots": 0,
    "snapshot_dims": 1,
    "probe_size": 2,
    "lambd": 0,
    "weight_decay": 0,
    "warmup_epochs": 0,
    "image_size": 8,
}
WHOLE = ("batch_size", "epochs", "log_every", "snapshots", "snapshot_dims", "probe_size", "seed")


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
            f"Unknown setting {', '.join(sorted(map(str, unknown)))}. Known: {', '.join(DEFAULTS)}."
        )
    complete = {**DEFAULTS, **given}
    _check(complete)
    return complete


def _read(config: str | Path) -> dict:
    path = CONFIG_DIR / f"{config}.yaml"
    if not path.exists():
        path = Path(config)
    if not path.is_file():
        raise FileNotFoundError(
            f"No configuration {str(config)!r}. Give a YAML file or one of {', '.join(config_names())}."
        )
    try:
        found = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not readable YAML: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold settings as 'key: value' lines.")
    return found


def _check(config: Mapping[str, Any]) -> None:
    for key, choices in CHOICES.items():
        if config[key] not in choices:
            allowed = ", ".join(map(str, choices))
            raise ValueError(f"{key} must be one of {allowed}, got {config[key]!r}.")
    for key in ("lr", *AT_LEAST):
        value = config[key]
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{key} must be a number, got {value!r}.")
        if not value >= AT_LEAST.get(key, 0) or (key == "lr" and value == 0):
            raise ValueError(f"{key} must be at least {AT_LEAST.get(key, 'above 0')}, got {value}.")
    for key in WHOLE:
        if not isinstance(config[key], int):
            raise ValueError(f"{key} must be a whole number, got {config[key]!r}.")
    unknown = set(config["augment"] or {}) - set(ViewRecipe.__dataclass_fields__)
    if unknown:
        raise ValueError(
            f"augment has no {', '.join(sorted(unknown))}. "
            f"Known: {', '.join(ViewRecipe.__dataclass_fields__)}."
        )
