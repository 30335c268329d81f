"""What a pair of views may look like: recipes, and the paper's pipeline in torchvision's own words.

The paper adopts BYOL's recipe (Zbontar et al., 2021, section 3 and appendix; Grill et al., 2020): random resized
crop, horizontal flip, colour jitter in random order, grey, Gaussian blur (probability 1.0 for one view, 0.1 for
the other), solarisation (0 and 0.2).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from PIL import Image, ImageFilter
from torchvision import transforms

from barlow_edu.numerics.pixels import FILTERS
from barlow_edu.settings import for_each_view


@dataclass(frozen=True)
class ViewRecipe:
    """What a pair of views may look like. Pairs of probabilities and of ranges belong to (view 1, view 2).

    scale: range of the crop's area, as a share of the image; or two of them, as in ((0.4, 1.0), (0.1, 0.4)) for a
    global and a local view. ratio: range of its width / height. interpolation: "bilinear" or "bicubic".
    flip, jitter, grey, blur, solarise: probabilities. brightness, contrast, saturation: factors are drawn from
    [1 - x, 1 + x]. hue: shift in turns, from [-x, x]. blur_sigma: range in pixels of the finished view.
    solarise_threshold: values in [0, 1] from here on are inverted. mean, std: normalisation of the finished view, one
    number per channel.

    Raises ValueError for a probability outside [0, 1], a range out of order, and whatever else cannot be drawn.

    >>> ViewRecipe(hue=0.5).blur
    (1.0, 0.1)
    """

    scale: tuple[float, float] | tuple[tuple[float, float], tuple[float, float]] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: str = "bicubic"
    flip: float = 0.5
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    grey: float = 0.2
    blur: tuple[float, float] = (1.0, 0.1)
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarise: tuple[float, float] = (0.0, 0.2)
    solarise_threshold: float = 128 / 255
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __post_init__(self):
        for name in ("flip", "jitter", "grey", "blur", "solarise"):
            chances = getattr(self, name)
            for p in chances if isinstance(chances, (tuple, list)) else (chances,):
                if not 0 <= p <= 1:
                    raise ValueError(f"{name} is a probability, between 0 and 1, got {p}.")
        for name in ("scale", "ratio", "blur_sigma"):
            both = getattr(self, name)
            for low, high in for_each_view(both) if name == "scale" else (both,):
                if not 0 < low <= high:
                    wanted = "two numbers above 0, the smaller first"
                    raise ValueError(f"{name} must be {wanted}, got {low} and {high}.")
        for name in ("brightness", "contrast", "saturation", "hue"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}.")
        if not all(s > 0 for s in self.std):
            raise ValueError(f"std must be above 0, got {self.std}.")
        if self.interpolation not in FILTERS:
            choices = " or ".join(FILTERS)
            raise ValueError(f"interpolation must be {choices}, got {self.interpolation!r}.")


PRESETS: dict[str, ViewRecipe] = {
    "imagenet": ViewRecipe(),
    "cifar": ViewRecipe(
        blur=(0.0, 0.0), mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)
    ),
    # Tints are random there, so colour must not be a way to recognise a twin: wide hue, much grey.
    "garments": ViewRecipe(
        scale=(0.3, 1.0), hue=0.5, grey=0.5, blur=(0.0, 0.0), mean=(0.30,) * 3, std=(0.22,) * 3
    ),
}
# The usual jitter on garments: the encoder takes the colour shortcut (notebook 03).
PRESETS["shortcut"] = replace(PRESETS["garments"], hue=0.1, grey=0.2)


def reference_transforms(r: ViewRecipe, size: int) -> tuple[Callable, ...]:
    """The paper's pipeline, a function for each of the two views: PIL image -> float32 (3, size, size), normalised.

    The order of operations, the blur by Pillow and the solarisation of bytes are those of the published code.
    All draws come from torch's global generator.
    """
    crop = transforms.InterpolationMode[r.interpolation.upper()]
    colour = transforms.ColorJitter(r.brightness, r.contrast, r.saturation, r.hue)
    return tuple(
        transforms.Compose(
            [
                transforms.RandomResizedCrop(size, scale, r.ratio, crop),
                transforms.RandomHorizontalFlip(r.flip),
                transforms.RandomApply([colour], r.jitter),
                transforms.RandomGrayscale(r.grey),
                transforms.RandomApply([partial(_blur, sigma=r.blur_sigma)], blur),
                transforms.RandomSolarize(round(255 * r.solarise_threshold), solarise),
                transforms.ToTensor(),
                transforms.Normalize(r.mean, r.std),
            ]
        )
        for scale, blur, solarise in zip(for_each_view(r.scale), r.blur, r.solarise, strict=True)
    )


def _blur(image: Image.Image, sigma: tuple[float, float]) -> Image.Image:
    """Gaussian blur by Pillow, its radius drawn from ``sigma`` in pixels."""
    low, high = sigma
    return image.filter(ImageFilter.GaussianBlur(low + (high - low) * float(torch.rand(()))))
