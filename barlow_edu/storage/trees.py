"""Class-folder trees: which files there are, what they show, and balanced parts of them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm")


def image_files(root: Path, splits: tuple[str, ...]) -> tuple[list[Path], list[int], list[str]]:
    """Image paths, class numbers and class names of ``root/split/class/image.*``, in sorted order.

    ``splits`` are tried in turn. Raises FileNotFoundError if there is no such folder and ValueError if it holds
    no class folders or no images.
    """
    folder = next((root / s for s in splits if (root / s).is_dir()), None)
    if folder is None:
        raise FileNotFoundError(
            f"No folder {root / splits[0]}. A class-folder tree looks like "
            f"{root / splits[0]}{os.sep}CLASS{os.sep}image.png."
        )
    classes = sorted(d.name for d in folder.iterdir() if d.is_dir() and not d.name.startswith("."))
    files, labels = [], []
    for k, name in enumerate(classes):
        for path in sorted((folder / name).rglob("*")):
            hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
            if path.suffix.lower() in IMAGE_SUFFIXES and not hidden:
                files.append(path)
                labels.append(k)
    if not files:
        raise ValueError(
            f"{folder} holds no images in class folders. Put them at "
            f"{folder}{os.sep}CLASS{os.sep}image.png ({', '.join(IMAGE_SUFFIXES)})."
        )
    return files, labels, classes


def balanced(labels: Tensor, limit: int, seed: int) -> Tensor:
    """``limit`` row numbers, in order, as many of each class as there are to be had."""
    whole = isinstance(limit, (int, np.integer)) and not isinstance(limit, bool)
    if not whole or not 1 <= limit <= len(labels):
        raise ValueError(f"limit must be between 1 and {len(labels)}, got {limit!r}.")
    shuffled = np.random.RandomState(seed).permutation(len(labels))
    mixed = labels.numpy()[shuffled]
    by_class = mixed.argsort(kind="stable")
    counts = np.bincount(mixed)
    rank = np.empty(len(labels), int)  # how many of its class come before
    rank[by_class] = np.arange(len(labels)) - np.repeat(counts.cumsum() - counts, counts)
    return torch.from_numpy(np.sort(shuffled[rank.argsort(kind="stable")[:limit]]))
