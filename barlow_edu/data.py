"""Image sets by name, as uint8 tensors.

``garments`` is embedded: real garment photographs (Fashion-MNIST), composed at load time onto coloured
cards, so that a course needs no download. ``cifar10`` and ``cifar100`` are torchvision's, or a class-folder
tree given by ``root``. ``folder`` is any such tree.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from barlow_edu.storage.decoding import decode_images
from barlow_edu.storage.garments import GARMENT_CLASSES, garments
from barlow_edu.storage.places import download_dir
from barlow_edu.storage.trees import balanced, image_files

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
        cards, labels, factors = garments("train" if split == "train" else "test", seed)
        # Copies: what is written into one set of images must not appear in the next.
        cards, labels = (torch.from_numpy(x.copy()) for x in (cards, labels))
        factors = {k: torch.from_numpy(v) for k, v in factors.items()}
        images = ImageSet(cards, labels, list(GARMENT_CLASSES), name, factors)
    elif name == "folder" or (root is not None and any((root / s).is_dir() for s in SPLITS)):
        images, limit = _folder(name, root, split, size, limit, seed), None
    else:
        from barlow_edu.storage.downloads import cifar  # imports torchvision

        pixels, labels, classes = cifar(name, root or download_dir(), split == "train")
        pixels = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
        images = ImageSet(pixels, torch.tensor(labels), classes, CIFAR_NAMES[name])
    pixels = images.images.shape[-1]
    if size not in (None, pixels):
        raise ValueError(
            f"{images.name} comes in {pixels} x {pixels} pixels, got size={size}. Only class-folder "
            "trees are resized; TwinViews(size=...) makes views of any size."
        )
    return images if limit is None else images.subset(balanced(images.labels, limit, seed))


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
        rows = balanced(labels, limit, seed)
        files, labels = [files[i] for i in rows], labels[rows]
    images, kept, skipped = decode_images(files, size)
    label = name
    if name in CIFAR_NAMES:
        jpeg = files[0].suffix.lower() in (".jpg", ".jpeg")
        label = CIFAR_NAMES[name] + (" (JPEG copy)" if jpeg else " (class folders)")
    return ImageSet(images, labels[kept], classes, label, {}, skipped)
