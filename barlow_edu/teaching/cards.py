"""What can be read off a card of ``garments`` without learning: ten simple numbers of a view, and what was drawn."""

import torch
from torch import Tensor

from barlow_edu.data import ImageSet

PARTS, COLOURS = ("backgr.", "garment"), ("light", "red", "blue")
MEASURES = [f"{part}\n{colour}" for part in PARTS for colour in COLOURS]
MEASURES += ["height", "left or\nright", "size", "shape"]


def measure(x: Tensor) -> Tensor:
    """Ten numbers of views in [0, 1], named in MEASURES: (N, 3, S, S) -> (N, 10).

    Of background and garment the lightness, red against green, blue against yellow; of the garment its place (0 is
    the top, and the left), its size, and the logarithm of how much taller than wide it is.

    >>> measure(torch.rand(4, 3, 16, 16)).shape
    torch.Size([4, 10])
    """
    weight = _garment(x)
    colours = [(x * w[:, None]).sum((2, 3)) / w.sum((1, 2))[:, None] for w in (1 - weight, weight)]
    place = torch.linspace(0, 1, x.shape[-1])
    share = weight / weight.sum((1, 2), keepdim=True)
    rows, columns = share.sum(2), share.sum(1)
    y, x = rows @ place, columns @ place
    tall, wide = rows @ place**2 - y**2, columns @ place**2 - x**2
    form = torch.stack([y, x, weight.mean((1, 2)), (tall / wide).log()], 1)
    return torch.cat([*map(_opponent, colours), form], 1)


def _garment(x: Tensor) -> Tensor:
    """How much each pixel belongs to the garment, which is brighter: (N, 3, S, S) -> (N, S, S)."""
    light = x.amax(1)
    low, high = light.flatten(1).quantile(torch.tensor([0.1, 0.98]), 1)[:, :, None, None]
    return ((light - low) / (high - low + 1e-3)).clamp(0, 1).square()


def _opponent(colour: Tensor) -> Tensor:
    """(N, 3) red, green, blue -> (N, 3) lightness, red against green, blue against yellow."""
    red, green, blue = colour.unbind(1)
    return torch.stack([colour.mean(1), red - green, blue - (red + green) / 2], 1)


def factor(images: ImageSet, name: str) -> Tensor:
    """What was drawn for each card, (N, k): "tint", "background", "side" or "place"; of colours without lightness."""
    x = images.factors[name].double().reshape(len(images), -1)
    return x - x.mean(1, keepdim=True) if name in ("tint", "background") else x
