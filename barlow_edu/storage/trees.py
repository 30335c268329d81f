"""Folders of images: which files are taken, of which class, and balanced parts of them.

One rule for images in memory and streamed. A tree is ROOT/SPLIT/CLASS/images, or ROOT/CLASS/images where only a
training split is asked for; folders inside a class belong to it. Images with no class folders around them form one
class without a name. Links to folders are followed, each folder once a class, so that a link which leads back
makes no circle. Only regular files are taken, for a pipe would hang and a device never end. Where there are neither
folders nor images, a split may be WebDataset's shards or a data set of Hugging Face's library (``containers.py``),
and the root ``hf:NAME`` is that of one on its hub.
"""

import logging
import os
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from barlow_edu.numerics.distributed import rank
from barlow_edu.storage.containers import HUB, hub_split, packed

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
SPLITS = {"train": ("train",), "test": ("test", "val"), "val": ("val", "test")}
# Thumbnails, bins and caches of operating systems and network disks, and all that is hidden by a dot.
SYSTEM = re.compile(
    r"\.|(@eadir|@tmp|[#@$]recycle(\.bin)?|#snapshot|__macosx|__pycache__|lost\+found|"
    r"system volume information|thumbs\.db|desktop\.ini)$",
    re.IGNORECASE,
)
HIDDEN = "hidden or the system's"
log = logging.getLogger("barlow_edu")


class Tree(NamedTuple):
    """The images of a split: ``files`` in order, ``labels`` (N,) their numbers in ``classes``."""

    files: list[str]
    labels: Tensor
    classes: list[str]

    def part(self, limit: int | None, seed: int = 0) -> "Tree":
        """``limit`` of the images, the classes balanced; None, all. Raises ValueError for a limit out of range."""
        if limit is None:
            return self
        rows = balanced(self.labels, limit, seed)
        return Tree([self.files[i] for i in rows], self.labels[rows], self.classes)


def scan(root: Path, split: str = "train") -> Tree:
    """The images of a split below ``root``. One line in the log says what was taken and what left out, and why.

    Raises FileNotFoundError if there is no such folder and ValueError if it holds no images.
    """
    folder, left_out = _folder(root, SPLITS[split]), Counter()
    above = {_identity(path) for path in folder.resolve().parents if path.exists()}
    entries = _entries(str(folder), left_out, set(above))
    if not entries and (inside := packed(folder, IMAGE_SUFFIXES)):
        files, labels, classes = inside
        if not files:
            raise ValueError(f"{folder}: no images in its shards ({', '.join(IMAGE_SUFFIXES)}).")
        if rank() == 0:
            log.info("%s: %s images in shards or a saved data set", folder, f"{len(files):,}")
        return Tree(files, torch.tensor(labels), classes)
    above.add(_identity(folder))
    by_class = {e.name: _images(e.path, left_out, set(above)) for e in entries if e.is_dir()}
    loose = [e.path for e in entries if not e.is_dir()]
    if loose and any(by_class.values()):
        left_out["in no class folder"] += len(loose)
    elif loose:
        by_class = {"": loose}
    files = [path for images in by_class.values() for path in images]
    counts = torch.tensor([len(images) for images in by_class.values()], dtype=torch.long)
    labels = torch.arange(len(by_class)).repeat_interleave(counts)
    line = f"{folder}: {len(files):,} images in {len(by_class)} classes"
    if left_out:
        line += "; left out: " + ", ".join(f"{why} ({n:,})" for why, n in left_out.most_common(9))
    if empty := [name for name, images in by_class.items() if not images]:
        line += "; no images in: " + ", ".join(empty[:9]) + (", ..." if len(empty) > 9 else "")
    line = " ".join(line.splitlines())  # a name may hold a line's end
    if not files:
        raise ValueError(
            f"{line}. Put images into class folders, {folder}{os.sep}CLASS{os.sep}image.png "
            f"({', '.join(IMAGE_SUFFIXES)})."
        )
    if rank() == 0:
        log.log(logging.WARNING if empty or set(left_out) - {HIDDEN} else logging.INFO, "%s", line)
    return Tree(files, labels, [*by_class])


def _folder(root: Path, names: tuple[str, ...]) -> Path:
    """The split's folder, also ``Train``; the root where training images are wanted and it has no such folders."""
    if root.as_posix().startswith(HUB):
        return hub_split(root.as_posix(), names)
    paths = sorted(root.iterdir()) if root.is_dir() else []  # small letters last: they count
    splits = {p.name.lower(): p for p in paths if p.name.lower() in SPLITS and p.is_dir()}
    for name in names:
        if name in splits:
            return splits[name]
    if "train" in names and root.is_dir() and not splits:
        return root
    raise FileNotFoundError(
        f"No folder {root / names[0]}. A class-folder tree looks like "
        f"{root / names[0]}{os.sep}CLASS{os.sep}image.png."
    )


def _images(folder: str, left_out: Counter[str], seen: set) -> list[str]:
    """The images in a folder and below, sorted name by name of their paths."""
    images, folders = [], [folder]
    while folders:  # no recursion: a path may be deeper than Python's stack
        for entry in _entries(folders.pop(), left_out, seen):
            (folders if entry.is_dir() else images).append(entry.path)
    return sorted(images, key=lambda path: path.split(os.sep))


def _entries(folder: str, left_out: Counter[str], seen: set) -> list[os.DirEntry]:
    """The folders and images in a folder, by name; what else there is, is counted.

    seen: the identities of the folders that were opened before; this one is added.
    """
    try:
        if (identity := _identity(folder)) in seen:
            left_out["links that lead back"] += 1
            return []
        seen.add(identity)
        with os.scandir(folder) as entries:
            reasons = {entry: _reason(entry) for entry in sorted(entries, key=lambda e: e.name)}
    except OSError:
        left_out["folders that cannot be opened"] += 1
        return []
    left_out.update(filter(None, reasons.values()))
    return [entry for entry, reason in reasons.items() if not reason]


def _reason(entry: os.DirEntry) -> str:
    """Why an entry is not taken; "" for a folder and for a regular file with an image's ending."""
    suffix = os.path.splitext(entry.name)[1].lower()
    try:
        if SYSTEM.match(entry.name):
            return HIDDEN
        if entry.is_dir():
            return ""
        if not entry.is_file():  # a link that leads nowhere may have been a class
            return "neither file nor folder"
        if suffix not in IMAGE_SUFFIXES:
            return f"*{suffix}" if suffix else "without an ending"
        return ""
    except OSError:  # links in a circle
        return "neither file nor folder"


def _identity(path: str | Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def balanced(labels: Tensor, limit: int, seed: int) -> Tensor:
    """``limit`` row numbers of labels (N,), in order, as many of each class as there are to be had.

    Raises ValueError if ``limit`` is not a whole number between 1 and N.
    """
    whole = isinstance(limit, (int, np.integer)) and not isinstance(limit, bool)
    if not whole or not 1 <= limit <= len(labels):
        raise ValueError(f"limit must be between 1 and {len(labels)}, got {limit!r}.")
    # RandomState: numpy has promised that its draws never change, and recorded runs name no images.
    shuffled = np.random.RandomState(seed).permutation(len(labels))
    mixed = labels.numpy()[shuffled]
    by_class = mixed.argsort(kind="stable")
    counts = np.bincount(mixed)
    place = np.empty(len(labels), int)  # how many of its class come before
    place[by_class] = np.arange(len(labels)) - np.repeat(counts.cumsum() - counts, counts)
    return torch.from_numpy(np.sort(shuffled[place.argsort(kind="stable")[:limit]]))
