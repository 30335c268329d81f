"""Twin views: the random augmentations of Barlow Twins as batched tensor operations.

The recipe is BYOL's, which the paper adopts (Zbontar et al., 2021, section 3 and appendix): random resized
crop, horizontal flip, colour jitter in random order, grey, Gaussian blur (probability 1.0 for one view, 0.1
for the other), solarisation (0 and 0.2). Parameters are drawn for every image on its own, as torchvision's
per-image pipeline does; the operations then run on the whole batch, on CPU or GPU.
``augmentations.py`` has the operations; they can be had from here, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from barlow_edu.numerics.pixels import (
    FILTERS,
    JITTER_ORDERS,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    apply_where,
    blur_radius,
    crop,
    gaussian_blur,
    grey,
    jitter,
    solarise,
)
from barlow_edu.storage.files import did_you_mean

__all__ = [
    "JITTER_ORDERS",
    "PRESETS",
    "TwinViews",
    "ViewParameters",
    "ViewRecipe",
    "adjust_brightness",
    "adjust_contrast",
    "adjust_hue",
    "adjust_saturation",
    "blur_radius",
    "crop",
    "gaussian_blur",
    "grey",
    "jitter",
    "solarise",
]
CROP_ATTEMPTS = 10  # as torchvision's RandomResizedCrop


@dataclass(frozen=True)
class ViewRecipe:
    """What a pair of views may look like. Pairs of probabilities are (view 1, view 2).

    scale: range of the crop's area, as a share of the image. ratio: range of its width / height.
    brightness, contrast, saturation: factors are drawn from [1 - x, 1 + x]. hue: shift in turns, from [-x, x].
    blur_sigma: range in pixels of the output. mean, std: normalisation of the finished view, a channel.
    """

    scale: tuple[float, float] = (0.08, 1.0)
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
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(
                    f"{name} must be two numbers above 0, the smaller first, got {low} and {high}."
                )
        for name in ("brightness", "contrast", "saturation", "hue"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}.")
        if not all(s > 0 for s in self.std):
            raise ValueError(f"std must be above 0, got {self.std}.")


PRESETS: dict[str, ViewRecipe] = {
    "imagenet": ViewRecipe(),
    "cifar": ViewRecipe(
        blur=(0.0, 0.0), mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)
    ),
    # Tints are random there, so colour must not be a way to recognise a twin: wide hue, much grey.
    "garments": ViewRecipe(
        scale=(0.3, 1.0), hue=0.5, grey=0.5, blur=(0.0, 0.0), mean=(0.30,) * 3, std=(0.22,) * 3
    ),
    # The usual jitter on garments: the encoder takes the colour shortcut (notebook 02).
    "shortcut": ViewRecipe(
        scale=(0.3, 1.0), hue=0.1, grey=0.2, blur=(0.0, 0.0), mean=(0.30,) * 3, std=(0.22,) * 3
    ),
}


@dataclass(frozen=True)
class ViewParameters:
    """What was drawn for N images: every field is a tensor with N rows.

    box: (N, 4) integer top, left, height, width of the crop, in pixels. flip, jitter, grey, blur, solarise:
    (N,) bool. brightness, contrast, saturation: (N,) factors. hue: (N,) turns. order: (N,) index into
    JITTER_ORDERS. sigma: (N,) pixels.
    """

    box: Tensor
    flip: Tensor
    jitter: Tensor
    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    hue: Tensor
    order: Tensor
    grey: Tensor
    blur: Tensor
    sigma: Tensor
    solarise: Tensor

    def to(self, device: torch.device) -> ViewParameters:
        """The same draws on another device."""
        moved = {k: v.to(device, non_blocking=True) for k, v in vars(self).items()}
        # These two decide which slices exist: where they were drawn on the CPU, asking costs no sync.
        return ViewParameters(**(moved | {"order": self.order, "jitter": self.jitter}))


class TwinViews:
    """Two random views of a batch of images.

    ``TwinViews("cifar", size=32)(images)`` maps uint8 (N, C, H, W), C = 1 or 3, to two float32 batches
    (N, C, size, size), normalised, on the same device. ``preset`` is a name in PRESETS; any field of
    ViewRecipe can be overridden by keyword: ``TwinViews("cifar", hue=0.5)``. Draws come from
    ``generator`` (a torch.Generator, on any device), or from torch's global one.

    Raises ValueError for an unknown preset, field or interpolation, or images of the wrong shape or type.
    """

    def __init__(self, preset: str | ViewRecipe = "garments", size: int = 32, **overrides):
        if isinstance(preset, str) and preset not in PRESETS:
            raise ValueError(f"No view preset {preset!r}. Choose one of {', '.join(PRESETS)}.")
        known = ViewRecipe.__dataclass_fields__
        unknown = sorted(set(overrides) - set(known))
        if unknown:
            raise ValueError(
                f"No augmentation called {', '.join(unknown)}.{did_you_mean(unknown, known)} "
                f"Known: {', '.join(known)}."
            )
        recipe = PRESETS[preset] if isinstance(preset, str) else preset
        self.recipe = replace(recipe, **overrides)
        self.size = size
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"size must be a whole number of at least 1 pixel, got {size}.")
        if self.recipe.interpolation not in FILTERS:
            raise ValueError(
                f"interpolation must be bilinear or bicubic, got {self.recipe.interpolation!r}."
            )

    def __call__(self, images: Tensor, generator: torch.Generator | None = None):
        """uint8 (N, C, H, W) -> view 1 and view 2, float32 (N, C, size, size), normalised."""
        _check_images(images)
        sizes = torch.tensor([images.shape[2:]]).expand(len(images), 2)
        return self.of_part(images, sizes, slice(None), generator)

    def of_part(self, images: Tensor, sizes: Tensor, own: slice, generator=None):
        """Two views of images (n, C, H, W), which are the rows ``own`` of a batch of N.

        sizes: (N, 2), height and width of what is the image within H x W, from the upper left corner; crops stay
        within it. Draws are made for all N, so that they do not depend on how the batch is shared.
        """
        height, width = sizes.unbind(1)
        drawn = [vars(self.draw(len(sizes), height, width, w, generator)) for w in (0, 1)]
        both = ViewParameters(**{k: torch.cat([d[k][own] for d in drawn]) for k in drawn[0]})
        view_1, view_2 = self.apply(images, both).chunk(2)
        return view_1, view_2

    def draw(
        self, n: int, height: int | Tensor, width: int | Tensor, which: int = 0, generator=None
    ) -> ViewParameters:
        """Draw the parameters of view ``which`` (0 or 1) for n images of height x width pixels.

        height, width: of all images, or (n,) of each.
        """
        r, draws = self.recipe, _Draws(n, generator)
        return ViewParameters(
            box=draws.boxes(height, width, r.scale, r.ratio),
            flip=draws.chance(r.flip),
            jitter=draws.chance(r.jitter),
            brightness=draws.factor(r.brightness),
            contrast=draws.factor(r.contrast),
            saturation=draws.factor(r.saturation),
            hue=draws.uniform(-r.hue, r.hue),
            order=(draws.uniform(0, 24)).long().clamp_(max=23),
            grey=draws.chance(r.grey),
            blur=draws.chance(r.blur[which]),
            sigma=draws.uniform(*r.blur_sigma),
            solarise=draws.chance(r.solarise[which]),
        )

    def apply(self, images: Tensor, drawn: ViewParameters) -> Tensor:
        """Normalised views of uint8 (N, C, H, W) images with the given parameters.

        ``drawn`` may hold k N rows for N images: then k views an image, (k N, C, size, size), are made,
        row i from image i mod N.
        """
        r, drawn = self.recipe, drawn.to(images.device)
        x = crop(images, drawn.box, drawn.flip, self.size, r.interpolation)
        x = jitter(x, drawn)
        x = apply_where(drawn.grey, x, lambda s, rows: grey(s).expand_as(s))
        if max(r.blur) > 0:
            x = apply_where(drawn.blur, x, lambda s, rows: gaussian_blur(s, drawn.sigma[rows]))
        if max(r.solarise) > 0:
            x = apply_where(drawn.solarise, x, lambda s, rows: solarise(s, r.solarise_threshold))
        return self._scale(x)

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 (N, C, H, W) -> float32, normalised like the views, with no augmentation."""
        _check_images(images)
        return self._scale(images.float().div_(255))

    def denormalize(self, view: Tensor) -> Tensor:
        """A normalised view (N, C, H, W) -> values in [0, 1], to be looked at."""
        mean, std = self._statistics(view)
        return (view * std + mean).clamp_(0, 1)

    def _scale(self, x: Tensor) -> Tensor:
        mean, std = self._statistics(x)
        return x.sub_(mean).div_(std)

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        values = torch.tensor([self.recipe.mean, self.recipe.std])
        if x.shape[1] == 1:
            values = values.mean(1, keepdim=True)
        mean, std = values.to(x.device, non_blocking=True)
        return mean.view(-1, 1, 1), std.view(-1, 1, 1)


class _Draws:
    """Random numbers for n images, on the generator's device."""

    def __init__(self, n: int, generator: torch.Generator | None):
        self.n, self.generator = n, generator
        self.device = generator.device if generator is not None else "cpu"

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        u = torch.rand((self.n, *shape), generator=self.generator, device=self.device)
        return low + (high - low) * u

    def chance(self, p: float) -> Tensor:
        return self.uniform(0, 1) < p

    def factor(self, spread: float) -> Tensor:
        return self.uniform(max(0.0, 1 - spread), 1 + spread)

    def boxes(self, height, width, scale, ratio) -> Tensor:
        """(n, 4) crop boxes as torchvision's RandomResizedCrop draws them: the first of ten that fits."""
        height, width = (self._each(side) for side in (height, width))
        pixels = (height * width).float().view(-1, 1)
        area = self.uniform(*scale, CROP_ATTEMPTS) * pixels
        aspect = self.uniform(math.log(ratio[0]), math.log(ratio[1]), CROP_ATTEMPTS).exp()
        w, h = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
        fits = (w >= 1) & (w <= width.view(-1, 1)) & (h >= 1) & (h <= height.view(-1, 1))
        first = fits.to(torch.uint8).argmax(1, keepdim=True)
        # No attempt fits: the largest centred box with an admissible shape.
        fallback = (width / height).clamp(*ratio)
        fallback_w = torch.minimum(width, (height * fallback).round()).float()
        fallback_h = torch.minimum(height, (width / fallback).round()).float()
        height, width, found = height.float(), width.float(), fits.any(1)
        w = torch.where(found, w.gather(1, first).squeeze(1), fallback_w)
        h = torch.where(found, h.gather(1, first).squeeze(1), fallback_h)
        top = torch.where(
            found, (self.uniform(0, 1) * (height - h + 1)).floor(), ((height - h) / 2).floor()
        )
        left = torch.where(
            found, (self.uniform(0, 1) * (width - w + 1)).floor(), ((width - w) / 2).floor()
        )
        top, left = torch.minimum(top, height - 1), torch.minimum(left, width - 1)
        return torch.stack([top, left, h, w], 1).long()

    def _each(self, side: int | Tensor) -> Tensor:
        """(n,) float64, of one number or of n."""
        return torch.as_tensor(side, dtype=torch.float64, device=self.device).expand(self.n)


def _check_images(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"Images must have shape (N, C, H, W) with C = 1 or 3, got {tuple(images.shape)}."
        )
    if images.dtype != torch.uint8:
        raise ValueError(
            f"Images must be uint8 in [0, 255], got {images.dtype}. "
            "For floats in [0, 1]: (images * 255).round().to(torch.uint8)."
        )
