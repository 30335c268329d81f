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
from barlow_edu.storage.weights import fill

PREFIX = "module."  # of DistributedDataParallel
PARTS = ("backbone.", "projector.", "bn.")


def load_official(path: str | Path) -> nn.Module | BarlowTwinsModel:
    """What a published file holds, in evaluation mode: a ResNet-50 encoder, or encoder and projector.

    A file of torchvision's names gives the encoder, images (N, 3, H, W) -> (N, 2048); a classifier ("fc") in it is
    left out. A full checkpoint gives a ``BarlowTwinsModel``, its projector as wide and deep as the file says.
    Images are to be normalised as ``TwinViews("imagenet", 224).normalize`` does.

    Raises FileNotFoundError, and ValueError for a file that is neither, naming what is missing or too many.
    """
    path = Path(path)
    state = _read(path)
    if isinstance(state.get("model"), Mapping):
        state = state["model"]
    state = {name.removeprefix(PREFIX): value for name, value in state.items()}
    if any(name.startswith(PARTS) for name in state):
        return _whole_model(state, path)
    encoder, _ = build_encoder("resnet50")
    fill(encoder, _part(state), path, "a ResNet-50")
    return encoder.eval()


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
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of what is no file of weights torch may raise anything
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path} is not a file of weights that torch can read: {why}") from error
    if not isinstance(content, Mapping):
        raise ValueError(
            f"{path} holds a {type(content).__name__}, not a mapping of names to tensors."
        )
    return dict(content)


def exclude_bias_and_norm(p: Tensor) -> bool:
    """Whether LARS leaves this parameter alone, under the name that published checkpoints refer to."""
    return p.ndim == 1


def _part(state: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """What lies below a prefix, but for a classifier."""
    part = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    return {k: v for k, v in part.items() if not k.startswith("fc.")}


def _whole_model(state: Mapping[str, Any], path: Path) -> BarlowTwinsModel:
    head = _part(state, "projector.")
    linear = {k: v for k, v in head.items() if isinstance(v, Tensor) and v.ndim == 2}
    widths = [len(linear[k]) for k in sorted(linear, key=lambda k: int(k.split(".")[0]))]
    if not widths:
        raise ValueError(
            f"{path} holds no projector. Expected names like module.projector.0.weight, got "
            f"{', '.join(list(state)[:4]) or 'none'}."
        )
    shape = {"proj_dim": widths[-1], "proj_hidden": widths[0], "proj_layers": len(widths)}
    model = BarlowTwinsModel(encoder_dim=2048, **shape)
    fill(model.encoder, _part(state, "backbone."), path, "the encoder of a full checkpoint")
    last = f"{len(model.projector) - 1}."
    head |= {last + k: v for k, v in _part(state, "bn.").items()}
    fill(model.projector, head, path, "the projector of a full checkpoint")
    return model.eval()
