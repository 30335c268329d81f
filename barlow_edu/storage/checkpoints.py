"""Checkpoints: whatever a run needs to go on, in zip archives with checksums; the last two are kept."""

import io
import logging
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from barlow_edu.storage.files import replacing, sync

FORMAT = 2
NEWEST, PREVIOUS, DAMAGED = "checkpoint.pt", "checkpoint_previous.pt", "checkpoint_damaged.pt"
NAMES = [NEWEST, PREVIOUS, DAMAGED]
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
        temporary.write_bytes(buffer.getbuffer())
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


def _read(path: Path, device: torch.device | str) -> dict[str, Any]:
    """Raises CheckpointDamaged, and ValueError for what was never a checkpoint of this version."""
    content = io.BytesIO(path.read_bytes())
    try:  # torch.save writes a zip archive, with a checksum of each record, and torch.load looks at none
        whole = zipfile.ZipFile(content).testzip() is None
    except Exception:  # one wrong bit, and it may seem encrypted, or be no archive at all
        whole = False
    damaged = CheckpointDamaged(f"{path} is damaged: its checksum is not right.")
    if not whole:
        raise damaged
    foreign = ValueError(
        f"{path} is not a checkpoint of this version of barlow_edu. Move it away, or train in another folder."
    )
    try:
        saved = torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:  # it holds more than tensors, numbers and text
        raise foreign from error
    except RuntimeError as error:
        if "PytorchStreamReader" not in str(error):
            raise  # there is no memory for it, perhaps
        raise damaged from error  # torch's reader is stricter about the archive's directory
    if not isinstance(saved, dict) or saved.get("format") != FORMAT:
        raise foreign
    return saved
