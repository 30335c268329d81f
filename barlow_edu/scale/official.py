"""Weights from elsewhere, and ours for elsewhere: the authors' files, and the layouts of other libraries.

No such file comes with this package. All are read as tensors only: nothing in them is run.

    resnet50.pth     torchvision's names (so are timm's and VICReg's): conv1.weight, ..., layer4.2.bn3.bias
    checkpoint.pth   {"epoch", "model", "optimizer"}; "model" has module.backbone.*, module.projector.* and
                     module.bn.*, the last batch norm, which our projector holds as its last layer
    *.ckpt           {"state_dict"}, in which solo-learn and lightly have the encoder below a prefix
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from barlow_edu.models import BarlowTwinsModel, build_encoder
from barlow_edu.storage.weights import fill

PREFIX = "module."  # of DistributedDataParallel
# Where the encoder is, in the order of trying: by itself; solo-learn, lightly, VICReg; older files of solo-learn.
PREFIXES = ("", "backbone.", "encoder.", "model.", "net.")
# torchvision's names of what lightly's examples put into nn.Sequential without them.
CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


def load_official(path: str | Path) -> nn.Module | BarlowTwinsModel:
    """What a file of weights holds, in evaluation mode: a ResNet encoder, or encoder and projector.

    A full checkpoint in the authors' layout gives a ``BarlowTwinsModel``, its projector as wide and deep as the file
    says; any other the encoder alone, a ResNet-18, -34 or -50, images (N, 3, H, W) -> (N, dim), without a classifier.
    Images are to be normalised as in training: the published as ``TwinViews("imagenet", 224).normalize`` does.

    Raises FileNotFoundError, and ValueError for a file that is none of these, naming what is missing or too many.
    """
    path = Path(path)
    content = _read(path)
    inside = (content[k] for k in ("model", "state_dict") if isinstance(content.get(k), Mapping))
    state = {k.removeprefix(PREFIX): v for k, v in next(inside, content).items()}
    # The projectors of others have biases, which the paper's has not.
    parts = "state_dict" not in content and any(k.startswith("backbone.") for k in state)
    if parts and "projector.0.bias" not in state:
        return _whole_model(state, path)
    return _encoder(state, path)[0].eval()


def official_layout(model: BarlowTwinsModel) -> dict[str, Tensor]:
    """Weights under the names of the authors' full checkpoint, as its "model"."""
    *layers, last = model.projector
    parts = {"backbone.": model.encoder, "projector.": nn.Sequential(*layers), "bn.": last}
    states = {name: part.state_dict() for name, part in parts.items()}
    return {PREFIX + name + k: v for name, state in states.items() for k, v in state.items()}


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


def _encoder(state: Mapping[str, Any], path: Path) -> tuple[nn.Module, int]:
    """The ResNet in a file, and the dimension of its features."""
    first = ("conv1.weight", "0.weight")
    part = _part(state, next((p for p in PREFIXES if {p + n for n in first} & {*state}), ""))
    if "0.weight" in part:
        split = {k: k.partition(".") for k in part}
        part = {f"{CHILDREN.get(n, n)}.{rest}": part[k] for k, (n, _, rest) in split.items()}
    name = "resnet50"
    if "layer1.0.conv1.weight" in part and "layer1.0.conv3.weight" not in part:
        name = "resnet34" if "layer3.5.conv1.weight" in part else "resnet18"
    small = getattr(part.get("conv1.weight"), "shape", ())[2:] == (3, 3)
    encoder, dim = build_encoder(name, "cifar" if small else "imagenet")
    fill(encoder, part, path, f"a ResNet-{name[6:]}")
    if small and "classifier.weight" in state:  # solo-learn, whose small stem has a wider border
        encoder.conv1.padding = (2, 2)
    return encoder, dim


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
    encoder, dim = _encoder(state, path)
    model = BarlowTwinsModel(encoder=encoder, encoder_dim=dim, **shape)
    last = f"{len(model.projector) - 1}."
    head |= {last + k: v for k, v in _part(state, "bn.").items()}
    fill(model.projector, head, path, "the projector of a full checkpoint")
    return model.eval()
