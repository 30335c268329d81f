"""The paper's pipeline: torchvision's transforms, one picture at a time, each view from the full-size image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from barlow_edu.views import TwinViews


class PillowBlur:
    """Gaussian blur by Pillow, its radius drawn from ``sigma`` in pixels."""

    def __init__(self, sigma: tuple[float, float]):
        self.sigma = sigma

    def __call__(self, image: Image.Image) -> Image.Image:
        low, high = self.sigma
        return image.filter(ImageFilter.GaussianBlur(low + (high - low) * float(torch.rand(()))))


def reference_transforms(views: TwinViews) -> tuple[Callable[[Image.Image], Tensor], ...]:
    """For each of the two views the recipe of ``views`` as a function of a PIL image: float32 (3, size, size).

    The order of operations, the blur by Pillow and the solarisation of bytes are those of the published code.
    All draws come from torch's global generator.
    """
    return tuple(_transform(views, which) for which in (0, 1))


def _transform(views: TwinViews, which: int) -> transforms.Compose:
    r = views.recipe
    crop = InterpolationMode[r.interpolation.upper()]
    colour = transforms.ColorJitter(r.brightness, r.contrast, r.saturation, r.hue)
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(views.size, r.scale, r.ratio, crop),
            transforms.RandomHorizontalFlip(r.flip),
            transforms.RandomApply([colour], r.jitter),
            transforms.RandomGrayscale(r.grey),
            transforms.RandomApply([PillowBlur(r.blur_sigma)], r.blur[which]),
            transforms.RandomSolarize(round(255 * r.solarise_threshold), r.solarise[which]),
            transforms.ToTensor(),
            transforms.Normalize(r.mean, r.std),
        ]
    )
