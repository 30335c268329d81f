"""Image sets by name, as uint8 tensors.

``garments`` is embedded: real garment photographs (Fashion-MNIST), composed at load time onto coloured cards, so that
a course needs no download. ``cifar10`` and ``cifar100`` are torchvision's, or a class-folder tree given by ``root``;
``folder`` is any such tree, ``hf:NAME`` a data set of Hugging Face's hub, or in a folder that its library reads.
"""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from barlow_edu.storage.containers import data_and_root
from barlow_edu.storage.decoding import Batch, decode_images
from barlow_edu.storage.downloads import cifar
from barlow_edu.storage.garments import garments
from barlow_edu.storage.places import download_dir
from barlow_edu.storage.stream import ImageStream
from barlow_edu.storage.trees import SPLITS, balanced, scan

CIFAR_NAMES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
OTHERS = {entry.name: entry for entry in entry_points(group="barlow_edu.data")}
NAMES = ("garments", "cifar10", "cifar100", "folder", *OTHERS)


@dataclass(frozen=True)
class ImageSet:
    """Images and their labels.

    images: uint8 (N, 3, H, W). labels: int64 (N,), numbers of ``classes``, used only by evaluation. name: the label
    of results on these images. factors: what was drawn to compose each image (garments only), with N rows each.
    unreadable: files that could not be read. sizes: (N, 2), where they differ, the height and width of each image in
    the upper left corner of its H x W pixels. Raises ValueError for anything else.

    Training asks an ImageSet for what it asks an ``ImageStream``: ``fingerprint``, ``on``, ``batches``, ``load``.

    >>> ImageSet(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1]), ["cat", "dog"], "pets")
    ImageSet('pets', 2 images of 3 x 8 x 8, 2 classes)
    """

    images: Tensor
    labels: Tensor
    classes: list[str]
    name: str
    factors: dict[str, Tensor] = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()
    sizes: Tensor | None = None

    def __post_init__(self):
        kind, shape = (getattr(self.images, name, ()) for name in ("dtype", "shape"))
        if kind != torch.uint8 or len(shape) != 4 or shape[1] != 3:
            raise ValueError(
                f"images must be a tensor, uint8 (N, 3, H, W), got {kind or type(self.images)} of shape {(*shape,)}. "
                "Of floats: (images * 255).round().to(torch.uint8); for one channel: images.expand(-1, 3, -1, -1)."
            )
        labels, last = self.labels, len(self.classes) - 1
        if not isinstance(labels, Tensor) or labels.dtype != torch.long or labels.ndim != 1:
            raise ValueError(
                f"labels must be whole numbers, an int64 tensor of shape (N,), got {labels!r:.80}. "
                "Give torch.as_tensor(labels).long().flatten()."
            )
        for name, rows in {"labels": labels, "sizes": self.sizes, **self.factors}.items():
            if rows is not None and len(rows) != shape[0]:
                raise ValueError(f"{shape[0]} images need as many {name}, got {len(rows)}.")
        if len(labels) and not 0 <= labels.min() <= labels.max() <= last:
            raise ValueError(
                f"labels must be numbers of classes, 0 to {last}, got {labels.min()} to {labels.max()}. "
                "For images without labels: zeros, and classes=['']."
            )

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.images.shape[1:]))
        number, classes = f"{len(self):,} images", f"{len(self.classes)} classes"
        return f"ImageSet({self.name!r}, {number} of {shape}, {classes})"

    def subset(self, rows: Tensor | Sequence[int] | slice) -> "ImageSet":
        """The images in ``rows``, in that order."""
        rows = rows if isinstance(rows, slice) else torch.as_tensor(rows)
        factors = {k: v[rows] for k, v in self.factors.items()}
        sizes = None if self.sizes is None else self.sizes[rows]
        images, labels = self.images[rows], self.labels[rows]
        return replace(self, images=images, labels=labels, factors=factors, sizes=sizes)

    skipped = property(lambda self: self.unreadable)  # its name in version one

    def fingerprint(self) -> str:
        """Shape of the images and a checksum of 64 of them: enough to notice that a run goes on with others."""
        sample = self.images[:: max(1, len(self) // 64)].contiguous().cpu().numpy()
        return f"{' x '.join(map(str, self.images.shape))}, checksum {zlib.crc32(sample):08x}"

    def on(self, device: torch.device | str) -> "ImageSet":
        """The set with its images on a device."""
        return replace(self, images=self.images.to(device))

    def batches(self, rows: Iterable[Tensor], keys: Any = None) -> Iterator[Batch]:
        """The images of each tensor of row numbers, in order. keys: only a stream needs them."""
        return map(self.load, rows)

    def load(self, rows: Tensor) -> Batch:
        """One batch: the images in these rows."""
        sizes = None if self.sizes is None else self.sizes[rows]
        return Batch(self.images[rows.to(self.images.device, non_blocking=True)], sizes, rows)


def load_images(
    name: str = "garments",
    root: str | Path | None = None,
    split: str = "train",
    limit: int | None = None,
    size: int | None = None,
    seed: int = 0,
) -> ImageSet:
    """Load an image set.

    name: "garments", "cifar10", "cifar100", "folder", "hf:NAME", or an entry point of another package in the group
    ``barlow_edu.data``, a function of all the rest, by keyword. root: a class-folder tree (``split/class/image.*``;
    see ``storage.trees``), or for the CIFAR sets torchvision's folder. limit: take this many images, the classes
    balanced, chosen by ``seed``; of a tree only these files are opened, and those that cannot be read are left out.
    size: resize every image of a tree (shorter side, then centre crop); needed where the files differ in shape.
    ``seed`` also decides the cards of ``garments`` (``storage.garments.compose``).

    Raises ValueError for an unknown name or split, a limit out of range, a size that the set does not have, or a
    root for a set that has none; FileNotFoundError for missing files, saying what to put where.

    >>> load_images("garments", split="test", limit=50)
    ImageSet('garments', 50 images of 3 x 32 x 32, 10 classes)
    """
    # What is asked for, and do its parts go together?
    name, root = data_and_root(name, root).values()
    if name not in NAMES:
        raise ValueError(f"No image set {name!r}. Choose one of {', '.join(NAMES)}, or hf:NAME.")
    if split not in SPLITS:
        raise ValueError(f"split must be train or test (or val), got {split!r}.")
    if name == "garments" and root is not None:  # ignored, it would mean other images
        raise ValueError(f"garments take no root, got '{root}': give data=folder, or split=.")
    if name == "folder" and root is None:
        raise ValueError("load_images('folder') needs root=, a folder of split/class/image files.")
    root = None if root is None else Path(root).expanduser()
    if name in OTHERS:
        return OTHERS[name].load()(root=root, split=split, limit=limit, size=size, seed=seed)
    # A tree of files, of any shapes. They are chosen first: only those that are taken are opened.
    if name == "folder" or (root is not None and any((root / s).is_dir() for s in SPLITS)):
        tree = scan(root, split).part(limit, seed)
        # JPEG has changed the pixels: results must not pass for those on CIFAR itself
        if name in CIFAR_NAMES:
            jpeg = tree.files[0].lower().endswith((".jpg", ".jpeg"))
            name = CIFAR_NAMES[name] + (" (JPEG copy)" if jpeg else " (class folders)")
        return ImageSet(*decode_images(tree, name, "square" if size else "whole", size))
    # A set that comes in one size, all of it at once.
    if name == "garments":
        images = ImageSet(*garments(split == "train", seed))
    else:
        parts = cifar(name, root or download_dir(), split == "train")
        images = ImageSet(*parts, CIFAR_NAMES[name])
    pixels = images.images.shape[-1]
    if size not in (None, pixels):
        raise ValueError(
            f"{images.name} comes in {pixels} x {pixels} pixels, got size={size}. Only class-folder "
            "trees are resized; TwinViews(size=...) makes views of any size."
        )
    return images if limit is None else images.subset(balanced(images.labels, limit, seed))


def in_memory(stream: ImageStream) -> ImageSet:
    """All images of a stream, decoded into memory as the stream would: whole, so that crops see all of them."""
    return ImageSet(*decode_images(stream, stream.name, "decode_once", stream.canvas))
