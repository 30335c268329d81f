"""Images too many for memory: worker processes decode them as they are needed.

Two ways to twin views. "decode_once": a worker decodes each JPEG once, shrinks it to fit into a square canvas and
hands it over as uint8; both views are then drawn on the device, for the whole batch at a time (``views.py``).
"per_image", the paper's: a worker cuts both views out of the full-size picture with torchvision's transforms.

The image lies in the canvas's upper left corner, as wide and high as its proportions want; it is never enlarged,
and crops are drawn within it: no crop sees the rest of the canvas. What is lost is detail finer than the
canvas: at the default, 1.75 x the view's size, a photograph of 500 x 375 pixels keeps 78 % of its resolution for
views of 224 pixels.

Which images form which batch is decided by the caller. What a batch holds depends on its rows and keys alone,
never on the number of workers or of processes.
"""

import contextlib
import logging
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from barlow_edu.storage.containers import opened
from barlow_edu.storage.decoding import Batch, Decoder, warn_if_flat
from barlow_edu.storage.interrupts import leave_to_main_process

MODES = ("decode_once", "per_image", "centre")
CANVAS = 1.75  # default side of the canvas, in sides of a view
SAMPLE = 2**26  # bytes: whole photographs, and not all of a disk image that is named as one
MOST_WORKERS = 16  # of one process, when nothing is said
log = logging.getLogger("barlow_edu")


class ImageStream:
    """The images of a split of a class-folder tree, decoded when they are asked for.

    files, labels (N,), classes, name: as of an ``ImageSet``. mode: "decode_once", "per_image" or "centre" (shorter
    side resized to 8/7 of ``size``, then a centre crop: the evaluation's). size: side of a view. canvas: see
    above. workers: processes that decode; 0, none; None, as many as this process has cores, at most 16.
    transforms: two functions of a PIL image, one a view, for "per_image" (``recipe.reference_transforms``).

    An unreadable file is named in a warning, once, listed in ``unreadable``, and replaced by the next readable
    one in the list: the same one every time. Raises ValueError for an unknown mode or missing transforms.
    """

    def __init__(
        self,
        files: Sequence[str | Path],
        labels: Tensor,
        classes: list[str],
        size: int,
        mode: str = "decode_once",
        canvas: int | None = None,
        workers: int | None = None,
        transforms: Sequence[Callable[[Any], Tensor]] = (),
        name: str = "folder",
    ):
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}.")
        if mode == "per_image" and len(transforms) != 2:
            raise ValueError("mode='per_image' needs transforms=, a function for each view.")
        paths = [os.fspath(f) for f in files]
        self.labels, self.classes, self.name, self.mode = labels, classes, name, mode
        self.size, self.canvas = size, canvas or round(CANVAS * size)
        self.workers = _workers() if workers is None else workers
        root = os.path.commonpath({os.path.dirname(os.path.dirname(path)) for path in paths})
        self.root, start = root, len(os.path.join(root, ""))
        # As bytes in one array: a million names would be copied into every worker, one by one.
        self.names = np.array([os.fsencode(path[start:]) for path in paths])
        side = self.canvas if mode == "decode_once" else size
        self._decoder = Decoder(root, self.names, mode, side, transforms)
        self._batches: list[list[tuple[int, int]]] = []  # filled anew each epoch: the workers stay
        self._loader: DataLoader | None = None
        self.unreadable: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.names)

    @property
    def files(self) -> list[str]:
        """The paths of the files, in order."""
        return [os.path.join(self.root, os.fsdecode(name)) for name in self.names]

    def __repr__(self) -> str:
        shape = f"canvas {self.canvas}" if self.mode == "decode_once" else f"{self.size} pixels"
        kind = f"{len(self):,} images streamed, {self.mode}, {shape}, {len(self.classes)} classes"
        return f"ImageStream({self.name!r}, {kind})"

    def fingerprint(self) -> str:
        """Number and names of the files, the first ``SAMPLE`` bytes of 64 of them, and how they are decoded."""
        check = zlib.crc32(self.names.tobytes())
        for name in self.files[:: max(1, len(self) // 64)]:
            # An unreadable file is left out, here as elsewhere.
            with contextlib.suppress(OSError), opened(name) as file:
                check = zlib.crc32(file.read(SAMPLE), check)
        return f"{len(self)} files, {self.mode}, {self._decoder.side}, checksum {check:08x}"

    def on(self, device: torch.device | str) -> Self:
        """The stream itself: its images come to the device batch by batch."""
        return self

    def batches(self, rows: Iterable[Tensor], keys: Iterable[int] | None = None) -> Iterator[Batch]:
        """The images of each tensor of row numbers, in order; workers read ahead.

        keys: one whole number a batch, from which the reference pipeline draws its views (with the row's number);
        default 0, 1, 2, ...
        """
        rows = [batch.tolist() for batch in rows]
        keys = range(len(rows)) if keys is None else keys
        self._batches[:] = [[(r, k) for r in b] for b, k in zip(rows, keys, strict=False)]
        if self._loader is None:
            self._loader = self._open()
        for batch in self._loader:
            self._report(batch.unreadable)
            yield batch

    def load(self, rows: Tensor) -> Batch:
        """One batch, decoded here and now: of the images, whole, on their canvas ("centre": cropped)."""
        mode = "centre" if self.mode == "centre" else "decode_once"
        side = self.size if mode == "centre" else self.canvas
        decoder = Decoder(self.root, self.names, mode, side)
        batch = decoder.__getitems__([(row, 0) for row in rows.tolist()])
        self._report(batch.unreadable)
        warn_if_flat(batch.images, batch.sizes, self.name)
        return batch

    def close(self) -> None:
        """Send the workers home; they come again when they are needed."""
        self._loader = None

    def _open(self) -> DataLoader:
        return DataLoader(
            self._decoder,
            batch_sampler=self._batches,
            num_workers=self.workers,
            collate_fn=Batch._make,  # as it is
            worker_init_fn=leave_to_main_process,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.workers > 0,
            generator=torch.Generator(),  # or each epoch would draw a seed from torch's own
        )

    def _report(self, unreadable: Sequence[tuple[str, str]]) -> None:
        for name, reason in unreadable:
            if name not in self.unreadable:
                self.unreadable[name] = reason
                log.warning("Unreadable, another image stands in for it: %s (%s)", name, reason)


def _workers() -> int:
    import joblib

    cores = joblib.cpu_count() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return max(1, min(MOST_WORKERS, cores))
