"""Twin views: the random augmentations of Barlow Twins as batched tensor operations.

The recipe is BYOL's, which the paper adopts (Zbontar et al., 2021, section 3 and appendix): random resized
crop, horizontal flip, colour jitter in random order, grey, Gaussian blur (probability 1.0 for one view, 0.1
for the other), solarisation (0 and 0.2). Parameters are drawn for every image on its own, as torchvision's
per-image pipeline does; the operations then run on the whole batch, on CPU or GPU.

Cropping, resizing, flipping and blurring are linear along each axis. They are done as small matrices,
``rows @ image @ columnsᵀ``: one batched matrix product instead of a loop over images.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import permutations

import torch
from torch import Tensor

GREY_WEIGHTS = (0.2989, 0.587, 0.114)  # ITU-R 601, as torchvision has them
JITTER_ORDERS = tuple(permutations(range(4)))  # brightness, contrast, saturation, hue
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
        unknown = set(overrides) - set(ViewRecipe.__dataclass_fields__)
        if unknown:
            raise ValueError(
                f"No augmentation called {', '.join(sorted(unknown))}. "
                f"Known: {', '.join(ViewRecipe.__dataclass_fields__)}."
            )
        recipe = PRESETS[preset] if isinstance(preset, str) else preset
        self.recipe = replace(recipe, **overrides)
        self.size = size
        if size < 1:
            raise ValueError(f"size must be at least 1 pixel, got {size}.")
        if self.recipe.interpolation not in _FILTERS:
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
        x = _where(drawn.grey, x, lambda s, rows: grey(s).expand_as(s))
        if max(r.blur) > 0:
            x = _where(drawn.blur, x, lambda s, rows: gaussian_blur(s, drawn.sigma[rows]))
        if max(r.solarise) > 0:
            x = _where(drawn.solarise, x, lambda s, rows: solarise(s, r.solarise_threshold))
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


def crop(images: Tensor, box: Tensor, flip: Tensor, size: int, interpolation="bicubic") -> Tensor:
    """Cut a box out of every image, resize it to size x size with antialiasing, flip it where asked.

    uint8 (N, C, H, W), box (k N, 4) of top, left, height, width, flip (k N,) bool -> float32
    (k N, C, size, size) in [0, 1]. Bicubic overshoot is clipped, as it is for 8-bit images.
    """
    n, channels, height, width = images.shape
    top, left, h, w = box.unbind(1)
    target = torch.arange(size, device=images.device).expand(len(box), size)
    rows = _resampling(top, h, target, height, interpolation)  # (k N, size, H)
    target = torch.where(flip.view(-1, 1), target.flip(1), target)
    columns = _resampling(left, w, target, width, interpolation)  # (k N, size, W)
    x = images.reshape(n, channels * height, width) / 255
    out = x.new_empty(len(box), channels, size, size)
    for start in range(0, len(box), max(1, n)):
        part = slice(start, start + n)
        lines = torch.bmm(x, columns[part].transpose(1, 2)).view(n, channels, height, size)
        out[part] = torch.einsum("nhk,nckw->nchw", rows[part], lines)
    return out.clamp_(0, 1)


def jitter(x: Tensor, drawn: ViewParameters) -> Tensor:
    """Colour jitter, in place, of the images (n, C, H, W) that ``drawn.jitter`` selects.

    Grey images (C = 1) have brightness and contrast, but no saturation and hue to change. The four operations
    run in each image's own order. Images are sorted by order. The 24 orders stand in alphabetical order, so
    images that share their first steps are neighbours: each step runs on as few slices as it can.
    """
    order, position = torch.where(drawn.jitter, drawn.order, 24).sort()
    ends = torch.bincount(order, minlength=25)[:24].cumsum(0).tolist()
    position = position[: ends[-1]].to(x.device, non_blocking=True)
    part = x[position]
    factors = (drawn.brightness, drawn.contrast, drawn.saturation, drawn.hue)
    factors = [f[position] for f in factors]
    operations = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)
    for step in range(4):
        start = 0
        for which, end in enumerate(ends):
            now, following = JITTER_ORDERS[which], JITTER_ORDERS[(which + 1) % 24]
            if now[: step + 1] != following[: step + 1] and end > start:
                k = now[step]
                operations[k](part[start:end], factors[k][start:end])
                start = end
    return x.index_copy_(0, position, part)


def adjust_brightness(x: Tensor, factor: Tensor) -> Tensor:
    """x * factor, clipped to [0, 1], in place. x: (n, C, H, W), factor: (n,)."""
    return x.mul_(factor.view(-1, 1, 1, 1)).clamp_(0, 1)


def adjust_contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Blend with the image's mean grey value, in place. x: (n, C, H, W), factor: (n,)."""
    f = factor.view(-1, 1, 1, 1)
    mean = grey(x).mean((1, 2, 3), keepdim=True)
    return x.mul_(f).add_(mean.mul_(1 - f)).clamp_(0, 1)


def adjust_saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Blend with the grey image, in place. x: (n, C, H, W), factor: (n,)."""
    if x.shape[1] == 1:
        return x
    f = factor.view(-1, 1, 1, 1)
    luma = grey(x).mul_(1 - f)
    return x.mul_(f).add_(luma).clamp_(0, 1)


def adjust_hue(x: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue of HSV by ``shift`` turns, in place. x: (n, C, H, W) in [0, 1], shift: (n,).

    With value v = max, chroma c = max - min and hue h in sixths of a turn, channel n of the result is
    v - c * clip(2 - |(n + h) mod 6 - 2|, 0, 1), n = 5, 3, 1 for red, green, blue.
    """
    if x.shape[1] == 1:
        return x
    red, green, blue = x.unbind(1)
    value = x.amax(1)
    chroma = value - x.amin(1)
    # Float masks: on a CPU they are several times faster than torch.where.
    is_red = value.clone().eq_(red)
    is_green = value.clone().eq_(green).mul_(1 - is_red)
    is_blue = 1 - is_red - is_green
    hue = (green - blue).mul_(is_red)
    hue.addcmul_(blue - red, is_green).addcmul_(red - green, is_blue)
    hue.div_(chroma.clamp(min=1e-12)).add_(is_green, alpha=2).add_(is_blue, alpha=4)
    hue += 6 * shift.view(-1, 1, 1)
    for channel, n in zip((red, green, blue), (5, 3, 1), strict=True):
        k = hue + n
        k -= (k / 6).floor_().mul_(6)
        weight = k.sub_(2).abs_().neg_().add_(2).clamp_(0, 1)
        torch.addcmul(value, chroma, weight, value=-1, out=channel)
    return x


def grey(x: Tensor) -> Tensor:
    """Luma: (n, C, H, W) -> (n, 1, H, W), a copy."""
    if x.shape[1] == 1:
        return x.clone()
    red, green, blue = x.unbind(1)
    out = (red * GREY_WEIGHTS[0]).add_(green, alpha=GREY_WEIGHTS[1])
    return out.add_(blue, alpha=GREY_WEIGHTS[2]).unsqueeze_(1)


def gaussian_blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur with a width for every image. x: (n, C, H, W), sigma: (n,) in pixels.

    The kernel spans a tenth of the image, an odd number of pixels (23 at 224), as in SimCLR's recipe; borders
    are reflected.
    """
    radius = blur_radius(x.shape[-1])
    rows = _blurring(sigma, x.shape[-2], radius)
    columns = _blurring(sigma, x.shape[-1], radius)
    return torch.einsum("nhi,ncij,nwj->nchw", rows, x, columns)


def blur_radius(size: int) -> int:
    """Pixels on each side of the blur kernel's centre."""
    return max(1, size // 20)


def solarise(x: Tensor, threshold: float = 128 / 255) -> Tensor:
    """Invert every value at or above ``threshold``. x in [0, 1]."""
    return torch.where(x >= threshold, 1 - x, x)


def _where(mask: Tensor, x: Tensor, operation: Callable) -> Tensor:
    """Apply ``operation(images, rows)`` to the images that ``mask`` selects."""
    if x.device.type == "cpu":
        rows = mask.nonzero().squeeze(1)
        if len(rows):
            x[rows] = operation(x[rows], rows)
        return x
    # On an accelerator computing all is cheaper than asking the device how many there are.
    return torch.where(mask.view(-1, 1, 1, 1), operation(x.clone(), slice(None)), x)


def _bilinear(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp_(min=0)


def _bicubic(x: Tensor) -> Tensor:
    """Keys' cubic with a = -1/2, the kernel of Pillow and of torchvision's antialiased resizing."""
    x = x.abs().clamp_(max=2)
    near = (1.5 * x - 2.5).mul_(x).mul_(x).add_(1)
    far = (-0.5 * x + 2.5).mul_(x).sub_(4).mul_(x).add_(2)
    return torch.where(x < 1, near, far)


_FILTERS = {"bilinear": (_bilinear, 1), "bicubic": (_bicubic, 2)}


def _resampling(
    start: Tensor, length: Tensor, target: Tensor, n: int, interpolation: str
) -> Tensor:
    """(N, size, n) matrices that resize the pixels [start, start + length) of a line of n.

    target: (N, size), which pixel of the resized line stands where (reversed to flip it).
    """
    kernel, support = _FILTERS[interpolation]
    size = target.shape[1]
    step = (length / size).view(-1, 1, 1)
    stretch = step.clamp(min=1)  # wider when shrinking: antialiasing
    taps = math.ceil(2 * support * max(1.0, n / size)) + 1
    centre = (target.unsqueeze(2) + 0.5) * step
    first = (centre - support * stretch).floor_()
    index = first + torch.arange(taps, device=start.device)
    weight = kernel((index + 0.5 - centre).div_(stretch))
    weight *= (index >= 0) & (index < length.view(-1, 1, 1))
    weight /= weight.sum(2, keepdim=True)
    index = index.add_(start.view(-1, 1, 1)).clamp_(0, n - 1).long()
    return weight.new_zeros(len(start), size, n).scatter_add_(2, index, weight)


def _blurring(sigma: Tensor, n: int, radius: int) -> Tensor:
    """(N, n, n) matrices of a Gaussian kernel with reflected borders."""
    offset = torch.arange(-radius, radius + 1, device=sigma.device)
    weight = torch.exp(-0.5 * (offset / sigma.view(-1, 1)).square())
    weight /= weight.sum(1, keepdim=True)
    index = torch.arange(n, device=sigma.device).view(-1, 1) + offset
    index = (n - 1) - ((n - 1) - index.abs()).abs()
    shape = (len(sigma), n, 2 * radius + 1)
    out = torch.zeros(len(sigma), n, n, device=sigma.device)
    return out.scatter_add_(2, index.expand(shape), weight.unsqueeze(1).expand(shape))


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
