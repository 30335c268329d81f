"""Files to pixels, for images in memory and for the worker processes of a stream.

A file is opened only as one of the formats named here: Pillow guesses by content, and for some formats it starts
another program. Whatever cannot be read is named and left out. A camera's note on how the picture should be turned
(EXIF orientation) is ignored, as torchvision ignores it: the pixels are taken as they are stored. So are transparency
and, in an animation or a file of several pages, all pictures but the first.
"""

import hashlib
import logging
import math
import os
import re
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.functional import InterpolationMode, center_crop, resize
from tqdm.auto import tqdm

from barlow_edu.storage.containers import opened

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM")
PATIENCE = 20  # neighbours tried in place of an unreadable file
STRIP = 4  # sides of a square: what an image is longer is cut off before it is resized
FLAT = 16  # of 255: a set of images whose values lie this close together shows next to nothing
log = logging.getLogger("barlow_edu")


class Batch(NamedTuple):
    """The images in n rows of an ``ImageSet`` or, decoded by workers, of an ``ImageStream``.

    images: uint8 (n, 3, H, W), a stream's canvas or crop; "per_image": the first view, float32 (n, 3, size, size).
    sizes: (n, 2), height and width of each image in the upper left corner of its H x W pixels; None, all of them.
    rows: (n,) which images these are; where a file could not be read, another one than was asked for.
    second: the second view, of "per_image" alone. unreadable: file and reason.
    """

    images: Tensor
    sizes: Tensor | None
    rows: Tensor
    second: Tensor | None = None
    unreadable: tuple[tuple[str, str], ...] = ()


@dataclass(eq=False)
class Decoder(Dataset):
    """Decodes batches of (row, key). It lives in the workers, so all it holds can be pickled.

    names: paths below ``root``, as bytes. mode, transforms: see ``stream.ImageStream``. side: of the square
    that is handed over, in pixels. Raises RuntimeError if 20 files in a row cannot be read.
    """

    root: str
    names: np.ndarray
    mode: str
    side: int
    transforms: Sequence = ()

    def __getitems__(self, items: Sequence[tuple[int, int]]) -> Batch:
        n, side = len(items), self.side
        kind = torch.float32 if self.mode == "per_image" else torch.uint8
        images = torch.zeros(n, 3, side, side, dtype=kind)
        second = torch.zeros_like(images) if self.mode == "per_image" else None
        sizes, rows = torch.full((n, 2), side), torch.empty(n, dtype=torch.long)
        unreadable: list[tuple[str, str]] = []
        for i, (row, key) in enumerate(items):
            picture, rows[i] = self._readable(row, unreadable)
            if second is not None:
                images[i], second[i] = self._views(picture, row, key)
                continue
            pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
            sizes[i] = torch.tensor(pixels.shape[1:])
            images[i, :, : pixels.shape[1], : pixels.shape[2]] = pixels
        return Batch(images, sizes, rows, second, tuple(unreadable))

    def _readable(self, row: int, unreadable: list) -> tuple[Image.Image, int]:
        """The row's picture, or that of the first readable row after it."""
        for attempt in range(min(PATIENCE, len(self.names))):
            number = (row + attempt) % len(self.names)
            path = os.path.join(self.root, os.fsdecode(self.names[number]))
            picture = read(path, self.mode, self.side)
            if not isinstance(picture, str):
                return picture, number
            unreadable.append((path, picture))
        examples = "\n".join(f"{path}: {reason}" for path, reason in unreadable[-PATIENCE:][:3])
        raise RuntimeError(f"{attempt + 1} files in a row cannot be read, among them\n{examples}")

    def _views(self, picture: Image.Image, row: int, key: int) -> list[Tensor]:
        with torch.random.fork_rng(devices=[]):
            digest = hashlib.blake2b(f"{key} {row}".encode(), digest_size=8).digest()
            torch.manual_seed(int.from_bytes(digest, "little") >> 1)
            return [transform(picture) for transform in self.transforms]


def decode_images(images: Any, name: str, mode: str, side: int | None) -> tuple:
    """Decode the files of a ``Tree`` or a stream once, several at a time; returns what an ``ImageSet`` is made of.

    mode, side: see ``read``. Each image lies in the upper left corner; sizes, (N, 2), are None where all are alike. A
    warning names the files that cannot be read.
    Raises ValueError if no file can be read, or if shapes differ and the mode is "whole".
    """
    files, pictures, unreadable = images.files, {}, {}  # pictures by row, reasons by file
    bar = tqdm(files, desc="decoding images", unit="img", disable=len(files) < 5000)
    with bar, ThreadPoolExecutor() as pool:
        for start in range(0, len(files), 4096):  # bounds what waits in memory as Python objects
            part = files[start : start + 4096]
            for row, picture in enumerate(pool.map(lambda f: read(f, mode, side), part), start):
                if isinstance(picture, str):
                    unreadable[files[row]] = picture
                else:
                    pictures[row] = np.array(picture)
                bar.update()
    first = ", ".join(f"{file} ({reason})" for file, reason in [*unreadable.items()][:3])
    if not pictures:
        raise ValueError(f"None of {len(files)} files could be read, first {first}")
    if unreadable:
        more = ", ..." if len(unreadable) > 3 else ""
        warnings.warn(f"Skipped {len(unreadable)} unreadable images: {first}{more}", stacklevel=3)
    rows, sizes = [*pictures], torch.tensor([p.shape[:2] for p in pictures.values()])
    shapes = sizes.unique(dim=0).tolist()
    if len(shapes) > 1 and mode == "whole":
        raise ValueError(
            f"The images differ in shape ({len(shapes)} shapes, for instance {tuple(shapes[0])} and "
            f"{tuple(shapes[-1])}). Give size=, for instance size=128."
        )
    # Where shapes differ, the stream's whole canvas: then views are the same to the last bit.
    height, width = shapes[0] if len(shapes) == 1 else (side, side)
    pixels = torch.zeros(len(rows), 3, height, width, dtype=torch.uint8)
    for canvas, row, (h, w) in zip(pixels, rows, sizes.tolist(), strict=True):
        # Popped: all pictures, and all of them once more in one tensor, would need twice the memory.
        canvas[:, :h, :w] = torch.from_numpy(pictures.pop(row)).permute(2, 0, 1)
    warn_if_flat(pixels, sizes, name)
    sizes = sizes if len(shapes) > 1 else None
    return pixels, images.labels[rows], images.classes, name, {}, tuple(unreadable), sizes


def read(path: str, mode: str, side: int | None) -> Image.Image | str:
    """The picture, RGB, or the reason why it cannot be read.

    mode: "whole" and "per_image", as it is; "decode_once", shrunk to fit into side x side pixels; "square", the
    shorter side resized to ``side``, then the square in the centre; "centre", the same with the shorter
    side resized to 8/7 of ``side`` (256 for 224), bilinear.
    """
    try:
        with opened(path) as file, Image.open(file, formats=FORMATS) as image:
            if mode == "decode_once":
                image.draft("RGB", (side, side))  # JPEG: decode at 1/2, 1/4 or 1/8 where enough
            image = as_rgb(image)
            if mode == "decode_once" and max(image.size) > side:
                w, h = (max(1, round(side / max(image.size) * s)) for s in image.size)
                return image.resize((w, h), Image.Resampling.BICUBIC)
            if mode == "centre":
                return _square(image, side, round(side * 8 / 7), InterpolationMode.BILINEAR)
            if mode == "square" and image.size != (side, side):
                return _square(image, side, side, InterpolationMode.BICUBIC)
            return image
    except Exception as error:  # whatever Pillow's parsers stumble over
        return str(error).partition(" <_io.")[0] or type(error).__name__


def as_rgb(image: Image.Image) -> Image.Image:
    """The picture in colours of 8 bits.

    Whole numbers of more bits are scaled by the range that they need: of 8, 10, 12, ... bits the fewest that hold the
    largest. Floats may lie in [0, 1] or [0, 255]. Raises ValueError for negative and other values, for floats that
    reach just beyond 1, which could be either, and for colours of 16 bits that use 14 or less: of these Pillow hands
    over the upper eight.
    """
    upper_half = re.search(";16[BLN]", str(getattr(image, "tile", "")))
    if image.mode.startswith("I") or image.mode == "F":  # convert() would cut them off at 255
        values = np.asarray(image).astype(np.float64)
        low, high = values.min(), values.max()
        unclear = image.mode == "F" and (high > 255 or 1 < high <= FLAT)
        if not 0 <= low <= high < math.inf or unclear:
            raise ValueError(f"values from {low:g} to {high:g}: save it with 8 bits a channel")
        bits = max(8, math.ceil(int(high).bit_length() / 2) * 2)
        top = 1 if image.mode == "F" and high <= 1 else 2**bits - 1
        return Image.fromarray((values * (255 / top)).round().astype(np.uint8)).convert("RGB")
    rgb = image.convert("RGB")
    if upper_half and max(high for _, high in rgb.getextrema()) < 64:
        raise ValueError("16 bits a channel, and 14 or less in use: save it with 8 bits a channel")
    return rgb


def _square(image: Image.Image, size: int, short: int, how: InterpolationMode) -> Image.Image:
    """Shorter side resized to ``short``; then size x size from the centre."""
    most = STRIP * min(image.size)
    if max(image.size) > most:
        image = center_crop(image, [min(most, image.height), min(most, image.width)])
    return center_crop(resize(image, [short], how), [size, size])


def warn_if_flat(images: Tensor, sizes: Tensor, name: str) -> None:
    """Say so where the values of uint8 ``images``, on their canvas, are so alike that they show next to nothing."""
    pictures = [x[:, :h, :w] for x, (h, w) in zip(images[:64], sizes.tolist(), strict=False)]
    low, high = min(int(x.min()) for x in pictures), max(int(x.max()) for x in pictures)
    if high - low <= FLAT:
        log.warning(
            "%s: all values lie between %d and %d of 255, next to no contrast. Were the images saved with more bits "
            "than they use?", name, low, high,
        )  # fmt: skip
