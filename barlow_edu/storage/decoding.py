"""Files to pixels: what the worker processes of a stream do."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm

# What Pillow raises for a broken file: whatever its parsers stumble over.
UNREADABLE = Exception
PATIENCE = 20  # neighbours tried in place of an unreadable file


class Batch(NamedTuple):
    """What workers hand over for n rows.

    images: "decode_once", uint8 (n, 3, canvas, canvas); "centre", uint8 (n, 3, size, size); "per_image", the
    first view, float32 (n, 3, size, size). second: the second view, else None. sizes: (n, 2) height and width
    of the image within its canvas. rows: (n,) which images these are; where a file could not be read, another
    one than was asked for. unreadable: file and reason.
    """

    images: Tensor
    second: Tensor | None
    sizes: Tensor
    rows: Tensor
    unreadable: tuple[tuple[str, str], ...]


class Decoder(Dataset):
    """Decodes batches of (row, key). It lives in the workers, so all it holds can be pickled.

    names: paths below ``root``, as bytes. mode, transforms: see ``streaming.ImageStream``. side: of the square
    that is handed over, in pixels. Raises RuntimeError if 20 files in a row cannot be read.
    """

    def __init__(self, root: str, names: np.ndarray, mode: str, side: int, transforms: Sequence):
        self.root, self.names, self.mode, self.side = root, names, mode, side
        self.transforms = transforms

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
        return Batch(images, second, sizes, rows, tuple(unreadable))

    def _readable(self, row: int, unreadable: list) -> tuple[Image.Image, int]:
        """The row's picture, or that of the first readable row after it."""
        for attempt in range(min(PATIENCE, len(self.names))):
            number = (row + attempt) % len(self.names)
            path = os.path.join(self.root, os.fsdecode(self.names[number]))
            try:
                return self._read(path), number
            except UNREADABLE as error:
                unreadable.append((path, str(error) or type(error).__name__))
        told = "\n".join(f"{path}: {reason}" for path, reason in unreadable[-PATIENCE:][:3])
        raise RuntimeError(f"{attempt + 1} files in a row cannot be read, among them\n{told}")

    def _read(self, path: str) -> Image.Image:
        with Image.open(path) as image:
            if self.mode == "per_image":
                return as_rgb(image)
            if self.mode == "centre":
                return centre_crop(as_rgb(image), self.side)
            image.draft(
                "RGB", (self.side, self.side)
            )  # JPEG: decode at 1/2, 1/4 or 1/8 where enough
            return shrink(as_rgb(image), self.side)

    def _views(self, picture: Image.Image, row: int, key: int) -> list[Tensor]:
        with torch.random.fork_rng(devices=[]):
            digest = hashlib.blake2b(f"{key} {row}".encode(), digest_size=8).digest()
            torch.manual_seed(int.from_bytes(digest, "little") >> 1)
            return [transform(picture) for transform in self.transforms]


def shrink(image: Image.Image, side: int) -> Image.Image:
    """The image, made smaller where it must be to fit into side x side pixels; its proportions stay."""
    scale = side / max(image.size)
    if scale >= 1:
        return image
    w, h = (max(1, round(scale * s)) for s in image.size)
    return image.resize((w, h), Image.Resampling.BICUBIC)


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """Shorter side resized to 8/7 of ``size`` (256 for 224), bilinear; then size x size from the centre."""
    scale = round(size * 8 / 7) / min(image.size)
    w, h = (max(size, round(scale * s)) for s in image.size)
    image = image.resize((w, h), Image.Resampling.BILINEAR)
    left, top = round((w - size) / 2), round((h - size) / 2)
    return image.crop((left, top, left + size, top + size))


def decode_images(files: list[Path], size: int | None) -> tuple[Tensor, list[int], tuple[str, ...]]:
    """Decode files once into a uint8 tensor (N, 3, H, W), several at a time, with progress.

    Returns the images, the positions in ``files`` of those that could be read, and the names of those that
    could not (also reported by a warning). size: resize the shorter side, crop the centre.
    Raises ValueError if no file can be read, or if shapes differ and no size is given.
    """
    with ThreadPoolExecutor() as pool:
        bar = tqdm(total=len(files), desc="decoding images", unit="img", disable=len(files) < 5000)
        results = []
        for start in range(0, len(files), 4096):  # bounds what waits in memory as Python objects
            for result in pool.map(lambda f: _decode(f, size), files[start : start + 4096]):
                results.append(result)
                bar.update()
        bar.close()
    kept = [i for i, r in enumerate(results) if isinstance(r, np.ndarray)]
    skipped = tuple(str(f) for f, r in zip(files, results, strict=True) if isinstance(r, str))
    if not kept:
        raise ValueError(
            f"None of {len(files)} files could be read, first {skipped[0]}: {results[0]}"
        )
    if skipped:
        shown = ", ".join(skipped[:3]) + (", ..." if len(skipped) > 3 else "")
        warnings.warn(f"Skipped {len(skipped)} unreadable images: {shown}", stacklevel=3)
    shapes = {results[i].shape for i in kept}
    if len(shapes) > 1:
        raise ValueError(
            f"The images differ in shape ({len(shapes)} shapes, for instance "
            f"{sorted(shapes)[0][:2]} and {sorted(shapes)[-1][:2]}). Give size=, for instance size=128."
        )
    images = torch.empty(len(kept), 3, *results[kept[0]].shape[:2], dtype=torch.uint8)
    for row, i in enumerate(kept):
        images[row] = torch.from_numpy(results[i]).permute(2, 0, 1)
        results[i] = None
    return images, kept, skipped


def as_rgb(image: Image.Image) -> Image.Image:
    """The picture in colours of 8 bits."""
    if image.mode.startswith("I"):  # 16 bits a pixel: convert() would cut them off at 255
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    return image.convert("RGB")


def _decode(path: Path, size: int | None) -> np.ndarray | str:
    """uint8 (H, W, 3), or what went wrong."""
    try:
        with Image.open(path) as image:
            image = as_rgb(image)
            if size is not None and image.size != (size, size):
                scale = size / min(image.size)
                w, h = (max(size, round(side * scale)) for side in image.size)
                image = image.resize((w, h), Image.Resampling.BICUBIC)
                left, top = (w - size) // 2, (h - size) // 2
                image = image.crop((left, top, left + size, top + size))
            return np.array(image)  # a copy: torch warns of memory that cannot be written
    except UNREADABLE as error:
        return str(error) or type(error).__name__
