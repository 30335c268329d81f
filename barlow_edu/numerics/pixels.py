"""The augmentations as batched tensor operations, and random draws of a parameter for every image.

Each operation equals torchvision's for one image. Images are float32 (n, C, H, W) in [0, 1], C = 1 or 3.

Cropping, resizing, flipping and blurring are linear along each axis. They are done as small matrices,
``rows @ image @ columnsᵀ``: one batched matrix product instead of a loop over images.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations

import torch
from torch import Tensor

GREY_WEIGHTS = (0.2989, 0.587, 0.114)  # ITU-R 601, as torchvision has them
JITTER_ORDERS = tuple(permutations(range(4)))  # brightness, contrast, saturation, hue
CROP_ATTEMPTS = 10  # as torchvision's RandomResizedCrop


@dataclass(frozen=True)
class ViewParameters:
    """What was drawn for N images: every field is a tensor with N rows."""

    box: Tensor  # (N, 4) integers: top, left, height, width of the crop, in pixels
    flip: Tensor  # (N,) bool, as are jitter, grey, blur and solarise
    jitter: Tensor
    brightness: Tensor  # (N,) factors, as are contrast and saturation
    contrast: Tensor
    saturation: Tensor
    hue: Tensor  # (N,) turns
    order: Tensor  # (N,) index into JITTER_ORDERS
    grey: Tensor
    blur: Tensor
    sigma: Tensor  # (N,) pixels
    solarise: Tensor

    def to(self, device: torch.device) -> "ViewParameters":
        """The same draws on another device."""
        moved = {k: v.to(device, non_blocking=True) for k, v in vars(self).items()}
        # These two decide which slices exist: where they were drawn on the CPU, asking costs no sync.
        return ViewParameters(**(moved | {"order": self.order, "jitter": self.jitter}))


class Draws:
    """Random numbers for n images, on the generator's device (default: torch's global generator, on the CPU)."""

    def __init__(self, n: int, generator: torch.Generator | None = None):
        self.n, self.generator = n, generator
        self.device = generator.device if generator is not None else "cpu"

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """(n, *shape) numbers between low and high."""
        u = torch.rand((self.n, *shape), generator=self.generator, device=self.device)
        return low + (high - low) * u

    def chance(self, p: float) -> Tensor:
        """(n,) bool, True with probability p."""
        return self.uniform(0, 1) < p

    def factor(self, spread: float) -> Tensor:
        """(n,) factors from [1 - spread, 1 + spread], none of them negative."""
        return self.uniform(max(0.0, 1 - spread), 1 + spread)

    def boxes(self, height, width, scale, ratio) -> Tensor:
        """(n, 4) integer top, left, height, width of crops, as torchvision's RandomResizedCrop draws them.

        height, width: of all images, or (n,) of each, in pixels. scale, ratio: ranges of the crop's share of the
        area and of its width / height. Of ten attempts the first that fits into the image counts.
        """
        like = {"dtype": torch.float64, "device": self.device}
        height, width = (torch.as_tensor(x, **like).expand(self.n) for x in (height, width))
        area = self.uniform(*scale, CROP_ATTEMPTS) * (height * width).float().view(-1, 1)
        aspect = self.uniform(*map(math.log, ratio), CROP_ATTEMPTS).exp()
        w, h = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
        fits = (w >= 1) & (w <= width.view(-1, 1)) & (h >= 1) & (h <= height.view(-1, 1))
        first, any_fits = fits.to(torch.uint8).argmax(1, keepdim=True), fits.any(1)
        # No attempt fits: the largest box of an admissible shape, in the centre.
        shape = (width / height).clamp(*ratio)
        largest_w = torch.minimum(width, (height * shape).round()).float()
        largest_h = torch.minimum(height, (width / shape).round()).float()
        w = torch.where(any_fits, w.gather(1, first).squeeze(1), largest_w)
        h = torch.where(any_fits, h.gather(1, first).squeeze(1), largest_h)
        corner = []
        for side, length in ((height.float(), h), (width.float(), w)):
            drawn = (self.uniform(0, 1) * (side - length + 1)).floor()
            start = torch.where(any_fits, drawn, ((side - length) / 2).floor())
            corner.append(torch.minimum(start, side - 1))
        return torch.stack([*corner, h, w], 1).long()


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
    run in each image's own order. Images are sorted by it, and the 24 orders alphabetically, so that images which
    share their first steps are neighbours: each step runs on as few slices as it can.
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


def apply_where(mask: Tensor, x: Tensor, operation: Callable) -> Tensor:
    """Apply ``operation(images, rows)`` to the images that ``mask`` selects."""
    if x.device.type == "cpu":
        rows = mask.nonzero().squeeze(1)
        if len(rows):
            x[rows] = operation(x[rows], rows)
        return x
    # On an accelerator computing all is cheaper than asking the device how many there are.
    return torch.where(mask.view(-1, 1, 1, 1), operation(x.clone(), slice(None)), x)


def _bicubic(x: Tensor) -> Tensor:
    """Keys' cubic with a = -1/2, the kernel of Pillow and of torchvision's antialiased resizing."""
    x = x.abs().clamp_(max=2)
    near = (1.5 * x - 2.5).mul_(x).mul_(x).add_(1)
    far = (-0.5 * x + 2.5).mul_(x).sub_(4).mul_(x).add_(2)
    return torch.where(x < 1, near, far)


FILTERS = {"bilinear": (lambda x: (1 - x.abs()).clamp_(min=0), 1), "bicubic": (_bicubic, 2)}


def _resampling(
    start: Tensor, length: Tensor, target: Tensor, n: int, interpolation: str
) -> Tensor:
    """(N, size, n) matrices that resize the pixels [start, start + length) of a line of n.

    target: (N, size), which pixel of the resized line stands where (reversed to flip it).
    """
    kernel, support = FILTERS[interpolation]
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
    index = ((n - 1) - ((n - 1) - index.abs()).abs()).clamp_(min=0)  # a single pixel has no border
    shape = (len(sigma), n, 2 * radius + 1)
    out = torch.zeros(len(sigma), n, n, device=sigma.device)
    return out.scatter_add_(2, index.expand(shape), weight.unsqueeze(1).expand(shape))
