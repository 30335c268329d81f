"""Configurations: all settings there are, named YAML files, and the objects that they describe."""

import copy
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from barlow_edu.data import NAMES, ImageSet, in_memory, load_images
from barlow_edu.methods.ablations import AblatedBarlowTwins
from barlow_edu.methods.relatives import METHODS
from barlow_edu.models import ENCODERS, BarlowTwinsModel, TwinModel, build_encoder
from barlow_edu.numerics.devices import named_device
from barlow_edu.numerics.optim import OPTIMIZERS
from barlow_edu.recipe import PRESETS, ViewRecipe, reference_transforms
from barlow_edu.settings import SWITCH, Setting, complete, did_you_mean, read_settings
from barlow_edu.storage.containers import data_and_root
from barlow_edu.storage.libraries import MODULE, check_encoder, features_dim, pooled
from barlow_edu.storage.stream import ImageStream
from barlow_edu.storage.trees import scan
from barlow_edu.views import TwinViews

IN_MEMORY = 8e9  # bytes of decoded images, above which stream="auto" streams
CONFIG_DIR = Path(__file__).parent / "configs"


def _check_name(name: str) -> None:
    if name[0] == "." or re.search(r"[/\\:]", name) or not (name.isprintable() and name.strip()):
        raise ValueError(
            f"name must be that of a folder, without a path and a dot in front, got {name!r:.99}."
        )


# Every value of ``augment`` must be of the kind that the recipe has: a number, or as many numbers.
AUGMENT = {k: Setting(v, "see ViewRecipe", type(v)) for k, v in vars(ViewRecipe()).items()}
AUGMENT["scale"] = replace(AUGMENT["scale"], by_view=True)
# The training's settings; those of models stand in models.py and methods/, with the paper's values.
AUTO = ("auto", *SWITCH)
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
RUN = {
    "name": Setting("run", "name of the run and of its folder", check_also=_check_name),
    "method": Setting("barlow_twins", "which loss trains the encoder", choices=METHODS),
    "seed": Setting(0, "seed of weights, order, views and dropout", int, 0, 2**63 - 2),
}
DATA = {
    "data": Setting("garments", "the image set; or hf:NAME", choices=NAMES),
    "root": Setting(None, "folder of the images, where they are not downloaded", null=True),
    "limit": Setting(None, "so many training images, classes balanced", int, 1, null=True),
    "stream": Setting("auto", "read images while training, not before", choices=AUTO),
    "pipeline": Setting(
        "decode_once", "views by batch, or by torchvision", choices=("decode_once", "per_image")
    ),
    "canvas": Setting(None, "pixels that a stream keeps of an image", int, 8, null=True),
    "workers": Setting(None, "processes that decode for a stream", int, 0, 1024, null=True),
    "views": Setting("garments", "recipe of the views", choices=PRESETS),
    "augment": Setting({}, "what differs from that recipe, as {hue: 0.5}", dict, inside=AUGMENT),
}
OPTIMISATION = {
    "batch_size": Setting(256, "images a step, over all processes", int, 2),
    "epochs": Setting(1, "passes over the images", int, 1),
    "minutes": Setting(
        None, "train so long, by the clock: in place of epochs and warm-up", float, 1e-3, null=True
    ),
    "optimizer": Setting("adamw", "what turns gradients into steps", choices=OPTIMIZERS),
    "lr": Setting(2e-3, "learning rate, at its highest", float, 1e-12),
    "bias_lr": Setting(None, "that of biases and batch norm, if another", float, 0, null=True),
    "weight_decay": Setting(1e-4, "decay of weights, not of biases and batch norm", float, 0),
    "momentum": Setting(0.9, "momentum of sgd and lars", float, 0, 1),
    "warmup_epochs": Setting(0.5, "epochs in which the rate rises from 0", float, 0),
    "warmup_offset": Setting(1, "the first step's rate, in warm-up steps; published: 0", int, 0, 1),
    "final_lr": Setting(0.001, "where the cosine ends, as a share of lr", float, 0, 1),
    "reference_processes": Setting(1, "gradients as published code has them on so many", int, 1),
}
COMPUTING = {
    "device": Setting("auto", "auto, cpu, cuda, cuda:1 or mps", check_also=named_device),
    "precision": Setting("auto", "of the forward pass", choices=PRECISIONS),
    "channels_last": Setting("auto", "memory layout of images and weights", choices=AUTO),
    "compile": Setting(False, "compile the model by torch.compile", choices=SWITCH),
    "checkpoint_activations": Setting(
        False, "less memory: compute activations again on the way back", choices=SWITCH
    ),
    "micro_batch": Setting(None, "less memory: images a pass of the encoder", int, 1, null=True),
}
RECORD = {
    "checkpoint_every": Setting(None, "steps; null: once an epoch", int, 1, null=True),
    "log_every": Setting(10, "steps between two lines of metrics", int, 1),
    "snapshots": Setting(24, "how many times C is kept, most of them early", int, 0, 10_000),
    "snapshot_dims": Setting(128, "rows and columns of C that are kept", int, 1),
    "probe_size": Setting(1024, "images from which that C is computed", int, 2),
    "probe_split": Setting("train", "the split that they come from", choices=("train", "test")),
}
# A configuration that says nothing is one for small images.
SMALL = {"stem": "cifar", "image_size": 32, "proj_dim": 512}
MODEL = {k: replace(v, default=SMALL.get(k, v.default)) for k, v in TwinModel.settings.items()}
MODEL["encoder"] = Setting(
    "small_resnet",
    f"{', '.join(ENCODERS)}, or timm/NAME, torchvision/NAME, hf/NAME",
    check_also=lambda name: check_encoder(name, ENCODERS),
)
GROUPS: dict[str, dict[str, Setting]] = {
    "The run": RUN,
    "Images and views": DATA,
    "Encoder and projector": MODEL,
    "Barlow Twins": {**BarlowTwinsModel.settings, **AblatedBarlowTwins.settings},
    "Its relatives": {
        name: setting
        for method in METHODS.values()
        if method is not BarlowTwinsModel
        for name, setting in method.settings.items()
    },
    "Optimisation": OPTIMISATION,
    "Computing": COMPUTING,
    "The record": RECORD,
}
SETTINGS = {name: setting for group in GROUPS.values() for name, setting in group.items()}
DEFAULTS = {name: setting.default for name, setting in SETTINGS.items()}


def config_names() -> list[str]:
    """Names of the configurations that come with the package."""
    return sorted(p.stem for p in CONFIG_DIR.glob("*.yaml"))


def load_config(config: str | Path | Mapping[str, Any] | None = None, **overrides: Any) -> dict:
    """A complete, checked configuration.

    config: a name (see ``config_names``), a YAML file, or a mapping; ``overrides`` replace single values.
    Raises FileNotFoundError for an unknown name and ValueError for an unknown key or an impossible value.

    >>> load_config("garments_quick", epochs=2)["epochs"]
    2
    """
    given = _read(config) if isinstance(config, (str, Path)) else dict(config or {})
    given |= overrides
    given |= data_and_root(given.get("data", DEFAULTS["data"]), given.get("root"))
    config = complete(SETTINGS, given)
    if config["ablate"] and config["method"] != "barlow_twins":
        raise ValueError(f"ablate is for Barlow Twins, and method is {config['method']!r}.")
    build_views(config)
    return config


def with_encoder(config: Any, overrides: Mapping[str, Any]) -> tuple[dict, nn.Module | None]:
    """``load_config``, where ``encoder`` may be a module: the configuration has its class's name, "module/Net".

    Also returns the module, as a copy ready to be trained. Raises ValueError as ``features_dim`` does.
    """
    given = {**(config if isinstance(config, Mapping) else {}), **overrides}
    encoder = given.get("encoder")
    if not isinstance(encoder, nn.Module):
        return load_config(config, **overrides), None
    encoder, name = copy.deepcopy(encoder).train(), MODULE + type(encoder).__name__
    config = load_config(config, **{**overrides, "encoder": name})
    dim = features_dim(pooled(encoder), config["image_size"], name, config["encoder_dim"])
    return config | {"encoder_dim": dim}, encoder


def read_pairs(pairs: Iterable[str]) -> dict[str, Any]:
    """The settings of ``--set KEY=VALUE ...``, each value read by its setting's kind.

    Raises ValueError for what is no pair and for a key that is given twice.

    >>> read_pairs(["lr=1e-3", "root=2024"])
    {'lr': 0.001, 'root': '2024'}
    """
    given: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise ValueError(f"--set takes KEY=VALUE, got {pair!r}.")
        if key in given:
            raise ValueError(f"--set gives {key} twice. Give it once.")
        given[key] = SETTINGS[key].read(key, text) if key in SETTINGS else text
    return given


def settings_table() -> str:
    """All settings in Markdown, a table a group: name, default, what it may be, what it does."""
    lines = []
    for title, group in GROUPS.items():
        lines += [f"## {title}", "", "| setting | default | may be | |", "|---|---|---|---|"]
        for name, s in group.items():
            lines.append(f"| `{name}` | `{_as_yaml(s.default)}` | {s.allowed} | {s.help} |")
        lines.append("")
    return "\n".join(lines)


def settings_help() -> str:
    """All settings and the packaged configurations, as ``pretrain --help`` prints them."""
    lines = ["configurations:"]
    lines += [f"  {name:27} {_first_sentence(name)}" for name in config_names()]
    for title, group in GROUPS.items():
        lines += ["", f"settings, {title.lower()}:"]
        lines += [f"  {f'{n}={_as_yaml(s.default)}':27} {s.help}" for n, s in group.items()]
    example = "python -m barlow_edu pretrain garments_quick --set epochs=2 'augment={hue: 0.2}'"
    return "\n".join([*lines, "", "example:", f"  {example}"])


@dataclass(frozen=True)
class Schedule:
    """How long a run is, and when something happens: in steps, or with ``minutes`` in milliseconds of training.

    checkpoint_every is in steps. By the clock the first twentieth of the time is the warm-up.
    """

    per_epoch: int
    total: int
    warmup: int
    checkpoint_every: int
    snapshots: frozenset[int]

    @classmethod
    def of(cls, config: Mapping[str, Any], images: int, world_size: int = 1) -> "Schedule":
        """The schedule of a configuration on so many images. Raises ValueError if the batch does not fit."""
        _check_batch(config, images, world_size)
        per_epoch = images // config["batch_size"]
        minutes, total = config["minutes"], per_epoch * config["epochs"]
        warmup = round(per_epoch * config["warmup_epochs"])
        if minutes is not None:
            total, warmup = round(60_000 * minutes), round(3_000 * minutes)
        # Most happens early: snapshot times grow as a square, and the last step is always there.
        count = config["snapshots"]
        times = {round(total * (i / max(1, count - 1)) ** 2) for i in range(count)}
        times |= {total} if count else set()
        every = config["checkpoint_every"] or per_epoch
        return cls(per_epoch, total, warmup, every, frozenset(times))


def _check_batch(config: Mapping[str, Any], images: int, world_size: int) -> None:
    size = config["batch_size"]
    if size % world_size:
        near = (size // world_size * world_size, (size // world_size + 1) * world_size)
        raise ValueError(
            f"batch_size={size} is that of all {world_size} processes together and must be a multiple of their "
            f"number. Take {' or '.join(str(n) for n in near if n)}."
        )
    if size > images:
        raise ValueError(
            f"batch_size={size} is more than the {images} images there are. Take a smaller batch or more images."
        )


def build_model(
    config: Mapping[str, Any], encoder: nn.Module | None = None, weights: bool = False
) -> TwinModel:
    """The model of the method that a run's configuration asks for, initialised from its seed.

    encoder: the module, of which a copy is taken, where the configuration has the name of its class. weights: begin
    with those of hf/FOLDER, as a run does; the same model untrained has none. Raises ValueError if the encoder has
    another name.
    """
    name = config["encoder"]
    if encoder is not None and (given := MODULE + type(encoder).__name__) != name:
        raise ValueError(f"The encoder of this run is {name}, not {given}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config["seed"])
        method = METHODS[config.get("method", "barlow_twins")]
        if config.get("ablate"):
            method = AblatedBarlowTwins
        values = {k: config[k] for k in method.known if k in config}
        if encoder is not None:
            values["encoder"] = copy.deepcopy(pooled(encoder))
        elif weights and name.startswith("hf/"):
            net, dim = build_encoder(name, config["stem"], config["image_size"], weights)
            values |= {"encoder": net, "encoder_dim": values["encoder_dim"] or dim}
        return method(values)


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
    tree, size = scan(Path(config["root"]).expanduser(), split), config["image_size"]
    tree = tree.part(config["limit"] if split == "train" else None)
    transforms = reference_transforms(build_views(config).recipe, size)
    settings = (mode or config["pipeline"], config["canvas"], config["workers"], transforms)
    return ImageStream(*tree, size, *settings)


def images_for(config: Mapping[str, Any], images: Any = None) -> ImageSet | ImageStream:
    """The training images of a configuration: in memory where they fit, else (or if it says so) streamed.

    images: those to take instead. Raises ValueError for what is no image set, for a stream that cannot be trained
    on, and for a pipeline that only a stream has, if stream is False.
    """
    if images is not None:
        if not isinstance(images, (ImageSet, ImageStream)):
            raise ValueError(
                "data must be an ImageSet, an ImageStream or the name of an image set, got a "
                f"{type(images).__name__}. Of a uint8 tensor (N, 3, H, W) make an ImageSet(images, labels, classes, "
                "name)."
            )
        if getattr(images, "mode", None) == "centre":
            raise ValueError(
                "A stream of mode 'centre' holds the evaluation's crops. Train on one of mode 'decode_once' or "
                "'per_image'."
            )
        return images
    if config["pipeline"] == "per_image" and config["stream"] is False:
        raise ValueError(
            "pipeline=per_image works on files, but stream=False. Set stream=auto or True, or "
            "pipeline=decode_once."
        )
    streamed = config["stream"] is True or config["pipeline"] == "per_image"
    if not streamed and (config["data"] != "folder" or config["root"] is None):
        return load_images(config["data"], config["root"], "train", config["limit"])
    stream = open_stream(config)
    fits = config["stream"] is False or 3 * stream.canvas**2 * len(stream) <= IN_MEMORY
    return in_memory(stream) if fits and not streamed else stream


def watched_images(config: Mapping[str, Any], images: ImageSet | ImageStream) -> Any:
    """The images on which C is looked at while ``images`` are trained on: these, or (probe_split) the test split."""
    if config["probe_split"] == "train":
        return images
    if config["data"] != "folder":
        return load_images(config["data"], config["root"], "test")
    stream = open_stream(config, "test")
    return stream if isinstance(images, ImageStream) else in_memory(stream)


def _as_yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _first_sentence(name: str) -> str:
    """What a packaged configuration says of itself first."""
    comment = re.match(r"(#.*\n)+", (CONFIG_DIR / f"{name}.yaml").read_text(encoding="utf-8"))
    words = comment[0].replace("#", "").split() if comment else []
    return " ".join(words).split(". ")[0].rstrip(".") + "."


def _read(config: str | Path) -> dict:
    path, names = Path(config), config_names()
    if str(config) in names:
        path = CONFIG_DIR / f"{config}.yaml"
    if not path.is_file():
        raise FileNotFoundError(
            f"No configuration {str(config)!r}.{did_you_mean(str(config), names)} Give a YAML file or one of "
            f"{', '.join(names)}."
        )
    try:
        return read_settings(SETTINGS, path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not readable: {' '.join(str(error).split())}.") from error
