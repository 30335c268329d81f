"""The published weights: the ResNet-50 of the authors' hub entry, and their full training checkpoint.

Neither file comes with this package. Both are read as tensors only: nothing in them is run.

    resnet50.pth     torchvision's names: conv1.weight, bn1.weight, ..., layer4.2.bn3.bias; no classifier
    checkpoint.pth   {"epoch", "model", "optimizer"}; "model" has module.backbone.*, module.projector.* and
                     module.bn.*, the last batch norm, which our projector holds as its last layer
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from barlow_edu.models import BarlowTwinsModel, build_encoder

PREFIX = "module."  # of DistributedDataParallel
PARTS = ("backbone.", "projector.", "bn.")


def load_official(path: str | Path) -> nn.Module | BarlowTwinsModel:
    """What a published file holds, in evaluation mode: a ResNet-50 encoder, or encoder and projector.

    A file of torchvision's names gives the encoder, images (N, 3, H, W) -> (N, 2048); a classifier ("fc") in it is
    left out. A full checkpoint gives a ``BarlowTwinsModel``, its projector as wide and deep as the file says.
    Images are to be normalised as ``TwinViews("imagenet", 224).normalize`` does.

    Raises FileNotFoundError, and ValueError for a file that is neither, naming what is missing or too many.
    """
    state = _read(Path(path))
    if "model" in state and isinstance(state["model"], Mapping):
        return _whole_model(_without_prefix(state["model"]), path)
    state = _without_prefix(state)
    if any(name.startswith(PARTS) for name in state):
        return _whole_model(state, path)
    return _encoder(state, path)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(
            f"No file {path}. The published files are named in the authors' README: resnet50.pth (the encoder) "
            "and checkpoint.pth (encoder, projector and optimizer)."
        )
    # The optimizer's state names one function of the authors' script; a stand-in keeps its place.
    known = [(exclude_bias_and_norm, "__main__.exclude_bias_and_norm")]
    try:
        with torch.serialization.safe_globals(known):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of what is no file of weights torch may raise anything
        told = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path} is not a file of weights that torch can read: {told}") from error
    if not isinstance(found, Mapping):
        raise ValueError(
            f"{path} holds a {type(found).__name__}, not a mapping of names to tensors."
        )
    return dict(found)


def exclude_bias_and_norm(p: Tensor) -> bool:
    """Whether LARS leaves this parameter alone, under the name that published checkpoints refer to."""
    return p.ndim == 1


def _without_prefix(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(PREFIX): value for name, value in state.items()}


def _encoder(state: Mapping[str, Tensor], path: str | Path) -> nn.Module:
    encoder, _ = build_encoder("resnet50")
    _fill(encoder, {k: v for k, v in state.items() if not k.startswith("fc.")}, path, "a ResNet-50")
    return encoder.eval()


def _whole_model(state: Mapping[str, Tensor], path: str | Path) -> BarlowTwinsModel:
    part = {p: {k[len(p) :]: v for k, v in state.items() if k.startswith(p)} for p in PARTS}
    linear = sorted(
        (int(k.split(".")[0]), v) for k, v in part["projector."].items() if _matrix(k, v)
    )
    if not linear:
        raise ValueError(
            f"{path} holds no projector. Expected names like module.projector.0.weight, got "
            f"{', '.join(list(state)[:4]) or 'none'}."
        )
    widths = [len(w) for _, w in linear]
    model = BarlowTwinsModel(
        encoder_dim=2048, proj_dim=widths[-1], proj_hidden=widths[0], proj_layers=len(widths)
    )
    backbone = {k: v for k, v in part["backbone."].items() if not k.startswith("fc.")}
    _fill(model.encoder, backbone, path, "the encoder of a full checkpoint")
    last = f"{len(model.projector) - 1}."
    head = part["projector."] | {last + k: v for k, v in part["bn."].items()}
    _fill(model.projector, head, path, "the projector of a full checkpoint")
    return model.eval()


def _matrix(name: str, value: Any) -> bool:
    return name.endswith(".weight") and isinstance(value, Tensor) and value.ndim == 2


def _fill(module: nn.Module, state: Mapping[str, Tensor], path: str | Path, what: str) -> None:
    """Load the state, all of it. Raises ValueError naming what is missing, too many or of another shape."""
    wanted = module.state_dict()
    missing = [k for k in wanted if k not in state]
    extra = [k for k in state if k not in wanted]
    shape = {k: v.shape for k, v in state.items() if isinstance(v, Tensor)}
    other = [k for k in wanted if k in shape and shape[k] != wanted[k].shape]
    problems = [
        f"{len(names)} {told} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for names, told in ((missing, "missing"), (extra, "unknown"), (other, "of another shape"))
        if names
    ]
    if problems:
        raise ValueError(f"{path} does not hold {what}: {'; '.join(problems)}.")
    module.load_state_dict(state)
