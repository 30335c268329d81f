"""Image sets by name, as uint8 tensors.

``garments`` is embedded: real garment photographs (Fashion-MNIST), composed at load time onto coloured
cards, so that a course needs no download. ``cifar10`` and ``cifar100`` are torchvision's, or a class-folder
tree given by ``root``. ``folder`` is any such tree.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from barlow_edu.storage.files import decode_images, fetch_archive, image_files

GARMENT_CLASSES = (
    "T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot",
)  # fmt: skip
SPLITS = {"train": ("train",), "test": ("test", "val"), "val": ("val", "test")}
CIFAR_NAMES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
NAMES = ("garments", "cifar10", "cifar100", "folder")


@dataclass(frozen=True)
class ImageSet:
    """Images and their labels.

    images: uint8 (N, 3, H, W). labels: int64 (N,), used only by evaluation. classes: their names. name: how
    results got with these images are to be labelled. factors: what the composition drew for every image
    (garments only), each with N rows. unreadable: files that could not be read. Raises ValueError for images of
    another type or shape, or another number of labels.

    Training asks an ImageSet for the same things as an ``ImageStream``: ``fingerprint``, ``on``, ``batches``,
    ``load``, ``twins``, ``check_trainable``. A batch of it is a tensor of row numbers.
    """

    images: Tensor
    labels: Tensor
    classes: list[str]
    name: str
    factors: dict[str, Tensor] = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()

    def __post_init__(self):
        shape, kind = tuple(self.images.shape), self.images.dtype
        if self.images.ndim != 4 or shape[1] not in (1, 3) or kind != torch.uint8:
            raise ValueError(
                f"images must be uint8 of shape (N, 3, H, W), got {kind} of shape {shape}. "
                "For floats in [0, 1]: (images * 255).round().to(torch.uint8)."
            )
        if len(self.labels) != len(self.images):
            raise ValueError(
                f"As many labels as images are needed, got {len(self.labels)} for {len(self.images)}."
            )

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        n, c, h, w = self.images.shape
        return (
            f"ImageSet({self.name!r}, {n:,} images of {c} x {h} x {w}, {len(self.classes)} classes)"
        )

    def subset(self, rows: Tensor | Sequence[int] | slice) -> ImageSet:
        """The images in ``rows``, in that order."""
        rows = rows if isinstance(rows, slice) else torch.as_tensor(rows)
        factors = {k: v[rows] for k, v in self.factors.items()}
        chosen = self.images[rows], self.labels[rows]
        return ImageSet(*chosen, self.classes, self.name, factors, self.unreadable)

    @property
    def skipped(self) -> tuple[str, ...]:
        """Another name of ``unreadable``."""
        return self.unreadable

    def fingerprint(self) -> str:
        """Shape of the images and a checksum of 64 of them: enough to notice that a run goes on with others."""
        sample = self.images[:: max(1, len(self) // 64)].contiguous().cpu().numpy()
        return f"{' x '.join(map(str, self.images.shape))}, checksum {zlib.crc32(sample):08x}"

    def on(self, device: torch.device | str) -> ImageSet:
        """The set with its images on a device."""
        return replace(self, images=self.images.to(device))

    def batches(
        self, rows: Iterable[Tensor], keys: Iterable[int] | None = None
    ) -> Iterator[Tensor]:
        """Each tensor of row numbers, on the images' device. keys: only a stream needs them."""
        return (batch.to(self.images.device) for batch in rows)

    def load(self, rows: Tensor) -> Tensor:
        """One batch: the row numbers, on the images' device."""
        return rows.to(self.images.device)

    def twins(
        self,
        batch: Tensor,
        views: Any,
        generator: torch.Generator | None,
        device: torch.device | str,
        shard: slice = slice(None),
        total: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Both views of a batch on the device, (n, 3, size, size) each, normalised; see ``ImageStream.twins``."""
        images = self.images[batch].to(device)
        sizes = torch.tensor([images.shape[2:]]).expand(total or len(images), 2)
        return views.of_part(images, sizes, shard, generator)

    def check_trainable(self) -> None:
        """Every image set can be trained on."""


def load_images(
    name: str = "garments",
    root: str | Path | None = None,
    split: str = "train",
    limit: int | None = None,
    size: int | None = None,
    seed: int = 0,
) -> ImageSet:
    """Load an image set.

    name: "garments", "cifar10", "cifar100" or "folder". root: a class-folder tree (``split/class/image.*``), or for
    the CIFAR sets torchvision's folder. limit: keep this many images, the classes balanced, chosen by
    ``seed``; of a tree only these files are read, and one that cannot be read is missing then. size: resize
    every image of a tree so (shorter side, then centre crop); needed where the files differ in shape. ``seed``
    also decides the cards of ``garments``.

    Raises ValueError for an unknown name or split, a limit out of range or a size that the set does not have,
    FileNotFoundError for missing files (naming where to put what).
    """
    if name not in NAMES:
        raise ValueError(f"No image set {name!r}. Choose one of {', '.join(NAMES)}.")
    if split not in SPLITS:
        raise ValueError(f"split must be train or test (or val), got {split!r}.")
    root = None if root is None else Path(root).expanduser()
    if name == "garments":
        images = garments(split, seed)
    elif name == "folder" or _is_tree(root):
        images, limit = _folder(name, root, split, size, limit, seed), None
    else:
        images = _cifar(name, root, split)
    pixels = images.images.shape[-1]
    if size not in (None, pixels):
        raise ValueError(
            f"{images.name} comes in {pixels} x {pixels} pixels, got size={size}. Only class-folder "
            "trees are resized; TwinViews(size=...) makes views of any size."
        )
    return images if limit is None else images.subset(_balanced(images.labels, limit, seed))


def data_dir() -> Path:
    """The folder with the embedded data and the recorded runs.

    The environment variable BARLOW_EDU_DATA, else ``data/`` of the checkout, else ``data/`` of a copy of the
    course (``course copy``) that the process works in, else what came with the installed package.
    """
    if "BARLOW_EDU_DATA" in os.environ:
        return Path(os.environ["BARLOW_EDU_DATA"]).expanduser()
    package = Path(__file__).resolve().parent
    here = Path.cwd()
    for course in (package.parent, here, here.parent):
        if (course / "data" / "garments.npz").exists() and (course / "notebooks").is_dir():
            return course / "data"
    return package / "_data"


def recorded_folder(path: str | Path, holds: str) -> Path | None:
    """The folder at ``path``, or else the record of that name, if there is a file ``holds`` in it."""
    folders = (Path(path), data_dir() / "runs" / str(path))
    return next((folder for folder in folders if (folder / holds).exists()), None)


def download_dir() -> Path:
    """Where downloads go: ``downloads`` in the checkout's data folder, or in the user's cache."""
    if "BARLOW_EDU_DATA" in os.environ or data_dir().name == "data":
        return data_dir() / "downloads"
    return Path.home() / ".cache" / "barlow_edu"


def garments(split: str = "train", seed: int = 0) -> ImageSet:
    """20,000 training or 4,000 test garments on coloured 32 x 32 cards.

    Every photograph (28 x 28, grey) is resized by 0.45 to 0.95 of the card, placed anywhere, tinted (0.4 to
    1.0 a channel) and blended onto a dim background (0 to 0.4 a channel) with a soft gradient between its
    corners. All draws come from ``seed``; the arithmetic is integer, so every machine makes the same pixels.
    factors: tint (N, 3) and background (N, 3) in 0..255, side (N,) and place (N, 2) in pixels.
    """
    kept = _garments("train" if split == "train" else "test", seed)
    # A copy: what is written into one set of images must not be found in the next.
    return replace(kept, images=kept.images.clone(), labels=kept.labels.clone())


@lru_cache(maxsize=4)
def _garments(split: str, seed: int) -> ImageSet:
    path = data_dir() / "garments.npz"
    if not path.exists():
        raise FileNotFoundError(
            f"The embedded images are missing: {path}. Restore data/garments.npz from the repository, or "
            "point BARLOW_EDU_DATA to the folder that holds it."
        )
    with np.load(path) as stored:
        photos, labels = stored[f"{split}_images"], stored[f"{split}_labels"]
    cards, factors = _compose(photos, np.random.RandomState([seed, split == "test"]))
    return ImageSet(
        torch.from_numpy(cards),
        torch.from_numpy(labels.astype(np.int64)),
        list(GARMENT_CLASSES),
        "garments",
        {k: torch.from_numpy(v) for k, v in factors.items()},
    )


def _compose(photos: np.ndarray, rng: np.random.RandomState, card: int = 32):
    """Grey photographs (N, 28, 28) -> cards (N, 3, 32, 32) and what was drawn for them."""
    n = len(photos)
    side = rng.randint(round(0.45 * card), round(0.95 * card) + 1, n)
    place = (rng.randint(0, 1 << 16, (n, 2)) * (card - side + 1)[:, None]) >> 16
    tint = rng.randint(102, 256, (n, 3))  # 0.4 to 1.0
    background = rng.randint(0, 103, (n, 3))  # 0 to 0.4
    corners = rng.randint(60, 101, (n, 4))  # per cent of the background at each corner
    cards = np.empty((n, 3, card, card), np.uint8)
    for start in range(0, n, 256):  # a few at a time: fast in the cache, small in memory
        rows = slice(start, start + 256)
        alpha = np.zeros((len(cards[rows]), card, card), np.int32)
        for a, photo, s, (top, left) in zip(
            alpha, photos[rows], side[rows], place[rows], strict=True
        ):
            small = Image.fromarray(photo).resize((s, s), Image.Resampling.BILINEAR)
            a[top : top + s, left : left + s] = small
        _paint(cards[rows], alpha, tint[rows], background[rows], corners[rows])
    return cards, {"tint": tint, "background": background, "side": side, "place": place}


def _paint(cards, alpha, tint, background, corners) -> None:
    """Blend the tint over the shaded background; integers only. alpha: (n, 32, 32), cards: (n, 3, 32, 32)."""
    card = alpha.shape[-1]
    # Bilinear weights of the four corners, in integers that sum to (card - 1)².
    far = np.arange(card, dtype=np.int32)
    near = far[::-1]
    weights = np.stack([np.outer(a, b) for a in (near, far) for b in (near, far)])
    shade = np.tensordot(corners.astype(np.int32), weights, 1)  # (n, 32, 32), per cent
    clear = 255 - alpha
    for channel in range(3):
        bright = tint[:, channel, None, None].astype(np.int32)
        dim = background[:, channel, None, None].astype(np.int32)
        dim = dim * shade // (100 * (card - 1) ** 2)
        cards[:, channel] = (dim * clear + bright * alpha + 127) // 255


def _is_tree(root: Path | None) -> bool:
    return root is not None and any((root / s).is_dir() for s in SPLITS)


def _folder(
    name: str, root: Path | None, split: str, size: int | None, limit: int | None, seed: int
) -> ImageSet:
    """A class-folder tree as one uint8 tensor; with a limit only the files that it keeps are decoded."""
    if root is None:
        raise ValueError(
            "load_images('folder') needs root=, a folder with split/class/image files."
        )
    files, labels, classes = image_files(root, SPLITS[split])
    labels = torch.tensor(labels)
    if limit is not None:
        rows = _balanced(labels, limit, seed)
        files, labels = [files[i] for i in rows], labels[rows]
    images, kept, skipped = decode_images(files, size)
    label = name
    if name in CIFAR_NAMES:
        jpeg = files[0].suffix.lower() in (".jpg", ".jpeg")
        label = CIFAR_NAMES[name] + (" (JPEG copy)" if jpeg else " (class folders)")
    return ImageSet(images, labels[kept], classes, label, {}, skipped)


def _cifar(name: str, root: Path | None, split: str) -> ImageSet:
    """CIFAR-10 or -100 from torchvision's files, downloaded if need be."""
    from torchvision import datasets

    cls = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    folder = root if root is not None else download_dir()
    try:
        found = cls(folder, train=split == "train", download=False)
    except RuntimeError:  # a file is missing, or unpacking was cut short
        fetch_archive(name, folder)
        found = cls(folder, train=split == "train", download=False)
    images = torch.from_numpy(found.data).permute(0, 3, 1, 2).contiguous()
    label = CIFAR_NAMES[name]
    return ImageSet(images, torch.tensor(found.targets), list(found.classes), label)


def _balanced(labels: Tensor, limit: int, seed: int) -> Tensor:
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
