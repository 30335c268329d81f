"""Encoders from elsewhere: ``timm/NAME``, ``torchvision/NAME``, ``hf/NAME``, of other packages, and modules.

A name gives a network without its classifier. ``hf/NAME`` is a type of model that transformers knows, such as
``hf/vit``, or a folder that ``save_pretrained`` wrote: a run begins with the weights that it holds. All others begin
untrained. Another package adds names of its own by entry points in the group ``barlow_edu.encoders``, each a function
(stem, image_size) -> (module, dim). Nothing is downloaded.
"""

import logging
from collections.abc import Iterable
from functools import partial
from importlib.metadata import entry_points
from importlib.util import find_spec
from inspect import signature
from pathlib import Path

import torch
from torch import Tensor, nn

from barlow_edu.numerics.batchnorm import untracked
from barlow_edu.settings import did_you_mean

GROUP = "barlow_edu.encoders"
MODULE = "module/"  # and the name of its class: what a run says of an encoder that was handed over as a module
CLASSIFIERS = ("fc", "head", "heads", "classifier", "last_linear")  # as libraries call them
log = logging.getLogger("barlow_edu")


def check_encoder(name: object, own: Iterable[str]) -> None:
    """Raises ValueError, with all there are, if no encoder can have this name; ``own``: the names of the package."""
    prefixes = (MODULE, *(f"{library}/" for library in LIBRARIES))
    if isinstance(name, str) and (name in own or name.startswith(prefixes)):
        return
    others = sorted(entry_points(group=GROUP).names)
    if name not in others:
        names = ", ".join([*own, *others, *(f"{library}/NAME" for library in LIBRARIES)])
        raise ValueError(f"No encoder {name!r}. Choose one of {names}, or a module.")


def library_encoder(
    name: str, stem: str, size: int, weights: bool = False
) -> tuple[nn.Module, int]:
    """The encoder that another package or a library has under a name, and the dimension of its features.

    weights: load those of hf/FOLDER, if its folder has any. Raises ValueError for a name that it does not have, or a
    size that the network does not take, and RuntimeError if the library is not installed.
    """
    library, _, inner = name.partition("/")
    for entry in entry_points(group=GROUP, name=name):
        return entry.load()(stem, size)
    if library not in LIBRARIES:
        raise ValueError(
            f"The encoder of this run is a module of yours, {inner}. Hand it over, untrained, as in "
            f"load_run(path, encoder={inner}(...)): the run has its weights, not its code."
        )
    try:
        build = partial(_hf, weights=weights) if library == "hf" else LIBRARIES[library]
        encoder = build(inner, size)
    except ImportError as error:
        raise missing(library, f"{name} needs a package that is missing: {error}") from error
    return encoder, features_dim(encoder, size, name)


def missing(extra: str, what: str) -> RuntimeError:
    """What to raise where the package of an extra is missing: it ends with the command that installs it here."""
    pip = "python -m pip" if find_spec("pip") else "uv pip"
    return RuntimeError(f'{what}. Install it: {pip} install "barlow_edu[{extra}]"')


def _timm(name: str, size: int) -> nn.Module:
    import timm

    if not timm.is_model(name):
        raise ValueError(f"timm has no {name!r}.{did_you_mean(name, timm.list_models())}")
    fixed = timm.get_pretrained_cfg(name).fixed_input_size  # a transformer, of that size alone
    return timm.create_model(name, num_classes=0, **({"img_size": size} if fixed else {}))


def _torchvision(name: str, size: int) -> nn.Module:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise ValueError(f"torchvision has no {name!r}.{did_you_mean(name, known)}")
    net = models.get_model(name, **({"image_size": size} if name.startswith("vit_") else {}))
    linear = [n for n, m in net.named_modules() if isinstance(m, nn.Linear)]
    if not linear:
        raise ValueError(f"torchvision/{name} has no linear classifier that could be taken off.")
    net.set_submodule(linear[-1], nn.Identity())
    return net


def _hf(name: str, size: int, weights: bool = False) -> nn.Module:
    from transformers import CONFIG_MAPPING, AutoConfig, AutoModel

    folder = Path(name).expanduser()
    if not folder.is_dir() and name not in CONFIG_MAPPING:
        near = did_you_mean(name, CONFIG_MAPPING)
        raise ValueError(f"{name!r} is no folder, and no type of model in transformers.{near}")
    if weights and any(folder.glob("*.safetensors")):  # else AutoModel would ask for them
        return _Pooled(AutoModel.from_pretrained(folder, local_files_only=True).float().train())
    config = AutoConfig.from_pretrained(folder) if folder.is_dir() else CONFIG_MAPPING[name]()
    if hasattr(config, "image_size") and not folder.is_dir():  # the weights are for that size
        config.image_size = size
    return _Pooled(AutoModel.from_config(config))


LIBRARIES = {"timm": _timm, "torchvision": _torchvision, "hf": _hf}


def pooled(encoder: nn.Module) -> nn.Module:
    """A model of transformers as an encoder, without its classifier; any other module as it is."""
    if getattr(encoder, "main_input_name", None) != "pixel_values":
        return encoder
    return _Pooled(encoder.base_model)


class _Pooled(nn.Module):
    """What a vision model of transformers pools itself, or else the mean of its tokens or places: (N, dim)."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        # Images may have another size than in its training.
        known = signature(model.forward).parameters
        self.options = {name: True for name in ["interpolate_pos_encoding"] if name in known}

    def forward(self, x: Tensor) -> Tensor:
        out = self.model(pixel_values=x, **self.options)
        if getattr(out, "pooler_output", None) is not None:
            return out.pooler_output.flatten(1)
        last = out.last_hidden_state  # (N, tokens, dim) or (N, dim, H, W)
        return last.mean(1) if last.ndim == 3 else last.mean((2, 3))


def features_dim(encoder: nn.Module, size: int, name: str, dim: int | None = None) -> int:
    """The dimension of an encoder's features of images (N, 3, size, size), measured on two black ones.

    A last layer that may be a classifier is pointed out. Parameters to which no gradient comes, such as a token for
    masked patches, are named and from now on frozen: several processes would wait for their gradients.
    Raises ValueError if the encoder does not take such images or returns no (N, dim) tensor (dim: None for any).
    """
    trained = {n: p for n, p in encoder.named_parameters() if p.requires_grad}
    like = next(encoder.parameters(), torch.empty(0))
    with torch.random.fork_rng(devices=[]), untracked(encoder), torch.enable_grad():
        try:
            features = encoder(like.new_zeros(2, 3, size, size))
        except Exception as error:  # of a network that we do not know
            what = f"images of {size} x {size} pixels: {str(error) or type(error).__name__}"
            raise ValueError(f"{name} does not take {what}") from error
        check_features(features, name, dim)
        if trained and features.requires_grad:
            grads = torch.autograd.grad(features.sum(), [*trained.values()], allow_unused=True)
            idle = [n for n, grad in zip(trained, grads, strict=True) if grad is None]
            for n in idle:
                trained[n].requires_grad_(False)
            if idle:
                text = "%s: no gradient reaches %s. They stay as they are."
                log.warning(text, name, ", ".join(idle))
    n, m = [x for x in encoder.named_modules() if not isinstance(x[1], nn.Identity)][-1]
    if isinstance(m, nn.Linear) and n.partition(".")[0] in CLASSIFIERS:
        text = "%s ends with the linear layer %s. Put nn.Identity() there if it is a classifier."
        log.warning(text, name, n)
    return features.shape[1]


def check_features(features: object, name: str, dim: int | None = None) -> None:
    """Raises ValueError unless an encoder has returned a tensor (N, dim)."""
    is_tensor = isinstance(features, Tensor)
    if not is_tensor or features.ndim != 2 or dim not in (None, features.shape[1]):
        what = f"shape {tuple(features.shape)}" if is_tensor else f"a {type(features).__name__}"
        what += "" if dim is None else f", but encoder_dim is {dim}"
        raise ValueError(
            f"{name} returned {what}: it must return a tensor (N, {dim or 'dim'}). Set encoder_dim to the width of "
            "its output, or wrap it in a module that picks, flattens or pools its features."
        )
