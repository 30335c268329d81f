"""Features of images: of an encoder, of its pixels, and of every layer on the way."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from barlow_edu.data import ImageSet, load_images
from barlow_edu.numerics.batchnorm import evaluating
from barlow_edu.numerics.devices import device_of

Say = Callable[[str], Any]
log = logging.getLogger("barlow_edu")


@torch.no_grad()
def extract_features(
    encoder: Callable[[Tensor], Tensor],
    images: Tensor,
    normalize: Callable[[Tensor], Tensor],
    batch_size: int = 500,
    device: str | torch.device | None = None,
    progress: bool | None = False,
) -> Tensor:
    """Features of uint8 images (N, C, H, W): float32 (N, dim), on the CPU.

    encoder: a module (put into evaluation mode meanwhile) or a function of normalised float images.
    normalize: uint8 -> float, usually ``run.views().normalize``. device: default, where the encoder is.
    progress: show a bar (None: on a terminal).

    >>> images = torch.full((2, 3, 4, 4), 51, dtype=torch.uint8)
    >>> extract_features(lambda x: x.mean((2, 3)), images, lambda x: x / 255)[0]
    tensor([0.2000, 0.2000, 0.2000])
    """
    module = encoder if isinstance(encoder, nn.Module) else nn.Identity()
    device = device or device_of(module)
    batches = tqdm(images.split(batch_size), "features", leave=False, disable=hidden(progress))
    with evaluating(module):
        return torch.cat([encoder(normalize(x.to(device))).float().cpu() for x in batches])


def pixel_features(images: Tensor) -> Tensor:
    """The pixels themselves, uint8 (N, C, H, W) -> float32 (N, C H W) in [0, 1]: the baseline to beat.

    >>> pixel_features(torch.tensor([[[[0, 255]]]], dtype=torch.uint8))
    tensor([[0., 1.]])
    """
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

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 5))
    >>> images = torch.zeros(7, 3, 4, 4, dtype=torch.uint8)
    >>> {name: tuple(x.shape) for name, x in layer_features(net, images, torch.Tensor.float).items()}
    {'0': (7, 32), '3': (7, 5), 'output': (7, 5)}
    """
    layers = layer_names(model) if layers is None else list(layers)
    modules = dict(model.named_modules())
    unknown = [name for name in layers if name not in modules]
    if unknown:
        raise ValueError(
            f"The model has no layer {unknown[0]!r}. Some it has: {', '.join(list(modules)[1:12])}."
        )
    outputs: dict[str, list[Tensor]] = {name: [] for name in (*layers, "output")}

    def listener(name: str):
        return lambda module, inputs, output: outputs[name].append(_pooled(output, name, pool))

    embed, device = getattr(model, "embed", model), device_of(model)
    with ExitStack() as hooks, evaluating(model):
        for name in layers:
            hooks.enter_context(modules[name].register_forward_hook(listener(name)))
        for batch in images.split(batch_size):
            outputs["output"].append(embed(normalize(batch.to(device))).float().cpu())
    return {name: torch.cat(parts) for name, parts in outputs.items()}


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


def labelled_sets(config: Mapping[str, Any]) -> tuple[ImageSet, ImageSet]:
    """Training and test images of a configuration, in memory; those of a folder in the size of the views."""
    size = config["image_size"] if config["data"] == "folder" else None
    splits = {"train": config["limit"], "test": None}
    return tuple(load_images(config["data"], config["root"], s, n, size) for s, n in splits.items())


def one_by_one(names: Sequence[str], progress: bool | None) -> Iterator[tuple[str, Say]]:
    """Each name, with a function that says what is being done: on the bar, or without a terminal in the log."""
    with tqdm(names, disable=hidden(progress)) as bar:
        say = log.info if progress is None and bar.disable else bar.set_postfix_str
        for name in bar:
            bar.set_description(name)
            say(f"Evaluating: {name}")
            yield name, say


def hidden(progress: bool | None) -> bool | None:
    """tqdm's ``disable`` for our ``progress``: None shows the bar only on a terminal."""
    return None if progress is None else not progress


def _stages(net: nn.Module) -> list[str]:
    """Names of the children that have parameters; a child called "blocks" is taken apart."""
    names = []
    for name, child in net.named_children():
        if name == "blocks":
            names += [f"blocks.{i}" for i, _ in child.named_children()]
        elif any(True for _ in child.parameters()):
            names.append(name)
    return names


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
