"""Checkpoints: whatever a run needs to go on, sealed by a checksum; the last two are kept."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from barlow_edu.storage.files import replacing, sync

FORMAT = 2
NEWEST, PREVIOUS, DAMAGED = "checkpoint.pt", "checkpoint_previous.pt", "checkpoint_damaged.pt"
log = logging.getLogger("barlow_edu")


class CheckpointDamaged(ValueError):
    """A checkpoint is cut short or altered."""


class TrainingDiverged(RuntimeError):
    """The loss or the weights are no longer finite; the last good checkpoint is still there.

    >>> raise TrainingDiverged("The loss is nan at step 20.")
    Traceback (most recent call last):
        ...
    barlow_edu.storage.checkpoints.TrainingDiverged: The loss is nan at step 20.
    """


def write_checkpoint(folder: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` as the newest checkpoint; the one that was the newest becomes the previous.

    At any moment one of them is whole, whatever happens to the process, the disk or the power. content: tensors,
    numbers and text, in dictionaries and lists. Raises DiskFull, and leaves both as they were.
    """
    newest = folder / NEWEST
    # First into memory: torch's own error for a full disk is not the system's.
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **content}, buffer)
    with replacing(newest) as temporary:
        temporary.write_bytes(_sealed(buffer.getbuffer()))
        sync(temporary)
        if (folder / "metrics.jsonl").exists():
            sync(folder / "metrics.jsonl")  # so that its lines up to here are there if this is
        if newest.exists():
            os.replace(newest, folder / PREVIOUS)


def read_checkpoint(folder: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The newest checkpoint that is whole, its tensors on ``device``.

    A damaged one is named in a warning and put aside. Raises FileNotFoundError if there is no checkpoint,
    CheckpointDamaged, naming them, if none is whole, and ValueError for a file that is no checkpoint of ours.
    """
    damaged = []
    for path in find_checkpoints(folder):
        try:
            content = _read(path, device)
        except CheckpointDamaged as error:
            damaged.append(str(error))
            continue
        for text in damaged:
            log.warning("%s Going on from %s, step %d.", text, path, content["step"])
            os.replace(folder / NEWEST, folder / DAMAGED)  # or it would push out the good one
        return content
    raise CheckpointDamaged(f"{' '.join(damaged)} Start again in another folder.")


def find_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, newest first. Raises FileNotFoundError if there is none."""
    paths = [folder / name for name in (NEWEST, PREVIOUS) if (folder / name).exists()]
    if not paths:
        raise FileNotFoundError(
            f"Nothing to resume: {folder / NEWEST} is missing. Start with resume=False, in an empty folder."
        )
    return paths


def remove_checkpoints(folder: Path) -> None:
    """Remove what an earlier run may have left."""
    for name in (NEWEST, PREVIOUS, DAMAGED):
        (folder / name).unlink(missing_ok=True)


# A checkpoint is a zip archive. Its seal, the SHA-256 of all that stands before it, is the archive's comment:
# torch.load reads the file with or without it. Without a comment an archive ends in a record of 22 bytes.
_SEAL = b"sha256:"
_SEAL_LENGTH = len(_SEAL) + 64
_END, _NO_COMMENT = b"PK\5\6", b"\0\0"


def _sealed(archive: memoryview) -> bytes:
    """The archive with the seal as its comment; the last two bytes of an archive are the comment's length."""
    if archive[-2:] != _NO_COMMENT:
        raise RuntimeError("torch.save no longer writes an archive without a comment.")
    content = bytes(archive[:-2]) + _SEAL_LENGTH.to_bytes(2, "little")
    return content + _SEAL + hashlib.sha256(content).hexdigest().encode()


def _read(path: Path, device: torch.device | str) -> dict[str, Any]:
    """Raises CheckpointDamaged, and ValueError for what was never a checkpoint of this version."""
    content = path.read_bytes()
    seal, body = content[-_SEAL_LENGTH:], memoryview(content)[:-_SEAL_LENGTH]
    foreign = ValueError(
        f"{path} is not a checkpoint of this version of barlow_edu. Move it away, or train in another folder."
    )
    if seal != _SEAL + hashlib.sha256(body).hexdigest().encode():
        if content[-22:-18] == _END and content[-2:] == _NO_COMMENT:  # whole, and never sealed
            raise foreign
        raise CheckpointDamaged(f"{path} is damaged: its checksum is not right.")
    try:
        saved = torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:  # it holds more than tensors, numbers and text
        raise foreign from error
    if not isinstance(saved, dict) or saved.get("format") != FORMAT:
        raise foreign
    return saved
