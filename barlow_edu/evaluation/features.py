"""Features of images: of an encoder, of its pixels, and of every layer on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@torch.no_grad()
def extract_features(
    encoder: Callable[[Tensor], Tensor],
    images: Tensor,
    normalize: Callable[[Tensor], Tensor],
    batch_size: int = 500,
    device: str | torch.device | None = None,
) -> Tensor:
    """Features of uint8 images (N, C, H, W): float32 (N, dim), on the CPU.

    encoder: a module (put into evaluation mode meanwhile) or a function of normalised float images.
    normalize: uint8 -> float, usually ``run.views().normalize``. device: default, where the encoder is.
    """
    if not isinstance(encoder, nn.Module):
        return _run_batches(encoder, images.split(batch_size), normalize, device or "cpu")
    device = device or next((p.device for p in encoder.parameters()), "cpu")
    with _evaluation_mode(encoder):
        return _run_batches(encoder, images.split(batch_size), normalize, device)


def pixel_features(images: Tensor) -> Tensor:
    """The pixels themselves, uint8 (N, C, H, W) -> float32 (N, C H W) in [0, 1]: the baseline to beat."""
    return images.flatten(1).float() / 255


@torch.no_grad()
def layer_features(
    model: nn.Module,
    images: Tensor,
    normalize: Callable[[Tensor], Tensor],
    layers: Sequence[str] | None = None,
    pool: int = 2,
    batch_size: int = 500,
) -> dict[str, Tensor]:
    """What each layer says about uint8 images (N, C, H, W): name of the layer -> float32 (N, dim), on the CPU.

    model: any module of normalised images; of a ``BarlowTwinsModel`` also the projector is run. layers: names
    as in ``model.named_modules()``, in any order; default, those of ``layer_names(model)``. Maps
    (N, C, H, W) are averaged over ``pool`` x ``pool`` fields and flattened, so that roughly where something
    is survives; tokens (N, T, dim) are averaged; other outputs must be (N, dim). The output of the model's
    last step is always there, as "output". Raises ValueError for a layer that the model does not have.
    """
    layers = layer_names(model) if layers is None else list(layers)
    modules = dict(model.named_modules())
    unknown = [name for name in layers if name not in modules]
    if unknown:
        raise ValueError(
            f"The model has no layer {unknown[0]!r}. Some it has: {', '.join(list(modules)[1:12])}."
        )
    found: dict[str, list[Tensor]] = {}
    run = getattr(model, "embed", model)
    device = next((p.device for p in model.parameters()), "cpu")
    with _evaluation_mode(model), _listening(modules, layers, found, pool):
        for batch in images.split(batch_size):
            found.setdefault("output", []).append(run(normalize(batch.to(device))).float().cpu())
    return {name: torch.cat(found[name]) for name in (*layers, "output")}


def layer_names(model: nn.Module) -> list[str]:
    """Layers worth a look, from the first to the last but one: stages of the encoder, then the projector's.

    Of a ``BarlowTwinsModel``: stem and stages of the encoder, the encoder's features h ("encoder"), and each
    inner ReLU of the projector. Of any other module: its children with parameters, blocks one by one.
    """
    if not hasattr(model, "projector"):
        return _stages(model)
    names = [f"encoder.{name}" for name in _stages(model.encoder)] + ["encoder"]
    inner = [i for i, part in enumerate(model.projector) if isinstance(part, nn.ReLU)]
    return names + [f"projector.{i}" for i in inner]


def _stages(net: nn.Module) -> list[str]:
    """Names of the children that have parameters; a child called "blocks" is taken apart."""
    names = []
    for name, child in net.named_children():
        if name == "blocks":
            names += [f"blocks.{i}" for i, _ in child.named_children()]
        elif any(True for _ in child.parameters()):
            names.append(name)
    return names


@contextmanager
def _listening(modules, layers, found, pool) -> Iterator[None]:
    """Collect the pooled output of each layer in ``found`` while the model runs."""

    def hook(name):
        def listen(module, inputs, output):
            found.setdefault(name, []).append(_pooled(output, name, pool))

        return listen

    handles = [modules[name].register_forward_hook(hook(name)) for name in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _pooled(output: Tensor, name: str, pool: int) -> Tensor:
    if output.ndim == 4:
        output = F.adaptive_avg_pool2d(output.float(), min(pool, *output.shape[2:])).flatten(1)
    if output.ndim == 3:  # tokens of a vision transformer
        output = output.mean(1)
    if output.ndim != 2:
        raise ValueError(
            f"Layer {name!r} gives shape {tuple(output.shape)}; only (N, C, H, W), (N, tokens, dim) and "
            "(N, dim) can be looked at. Name other layers."
        )
    # A copy: a ReLU that works in place would write over it.
    return output.detach().float().cpu().clone()


@contextmanager
def _evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Evaluation mode meanwhile; every part goes back to the mode it was in."""
    was_training = {m: m.training for m in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for m, training in was_training.items():
            m.training = training


def _run_batches(encoder, batches, normalize, device) -> Tensor:
    return torch.cat([encoder(normalize(batch.to(device))).float().cpu() for batch in batches])
