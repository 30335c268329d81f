"""Checkpoints: all that changes while training, sealed by a checksum; the last two are kept."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from barlow_edu.config import DEFAULTS, build_model
from barlow_edu.data import ImageSet
from barlow_edu.numerics.batchnorm import synchronize_batch_norm
from barlow_edu.numerics.convolution import shorten_convolutions
from barlow_edu.numerics.devices import Computer
from barlow_edu.numerics.distributed import from_first, world_size
from barlow_edu.numerics.recompute import save_memory
from barlow_edu.optim import build_optimizer
from barlow_edu.storage.files import replacing, sync
from barlow_edu.storage.stream import ImageStream

CHECKPOINT_FORMAT = 2
NEWEST, PREVIOUS, DAMAGED = "checkpoint.pt", "checkpoint_previous.pt", "checkpoint_damaged.pt"
# When a run is resumed.
MAY_DIFFER = ("epochs", "name", "device", "root", "checkpoint_every", "workers")
MAY_DIFFER += ("checkpoint_activations",)
log = logging.getLogger("barlow_edu")


class CheckpointDamaged(ValueError):
    """A checkpoint is cut short or altered."""


class TrainingState:
    """All that changes while training.

    model, optimizer, step, minutes; generator, from which the views and the order of the images are drawn;
    and order_from, its state at the beginning of the epoch, from which the order can be drawn again. The
    learning rate, and the seed of whatever a module draws (dropout), follow from the step.
    """

    def __init__(self, config: Mapping[str, Any], computer: Computer, data: ImageSet | ImageStream):
        self.config = dict(config)
        self.computer = computer
        self.data = fingerprint(data)
        self.model = build_model(config).to(computer.device)
        if computer.channels_last:
            self.model.to(memory_format=torch.channels_last)
        if computer.device.type == "cpu" and computer.bfloat16 and not config["compile"]:
            shorten_convolutions(self.model)
        if world_size() > 1:
            synchronize_batch_norm(self.model, computer.device)
        save_memory(self.model, config)
        keys = ("optimizer", "lr", "weight_decay", "bias_lr", "momentum")
        name, *settings = (config[k] for k in keys)
        self.optimizer = build_optimizer(name, self.model, *settings)
        self.generator = torch.Generator().manual_seed(config["seed"])
        self.order_from = self.generator.get_state()
        self.step = 0
        self.minutes = 0.0

    def order(self, images: int, new_epoch: bool) -> Tensor:
        """The order of the images, (images,), in a new epoch or in the one that is under way."""
        if new_epoch:
            self.order_from = self.generator.get_state()
            return torch.randperm(images, generator=self.generator)
        generator = torch.Generator()
        generator.set_state(self.order_from)
        return torch.randperm(images, generator=generator)

    def module_seed(self) -> int:
        """The seed of what modules draw in this step."""
        return (self.config["seed"] * 1_000_003 + self.step) % 2**63

    def is_finite(self) -> bool:
        """Whether every weight and running average is a number."""
        return all(bool(torch.isfinite(x).all()) for x in self.model.state_dict().values())

    def save(self, folder: Path) -> None:
        """Write the checkpoint; the one before it is kept. Raises DiskFull, and leaves both unharmed."""
        content = {
            "format": CHECKPOINT_FORMAT,
            "config": self.config,
            "data": self.data,
            "step": self.step,
            "minutes": self.minutes,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "order_from": self.order_from,
        }
        write_checkpoint(folder, content)

    def load(self, folder: Path) -> None:
        """Take up the last good checkpoint. Process 0 reads it for all; how many there were does not matter.

        Raises FileNotFoundError if there is none, and ValueError if none is whole or it does not fit.
        """
        # What is sent to other processes is sent from the host.
        device = self.computer.device if world_size() == 1 else "cpu"
        found = from_first(lambda: read_checkpoint(folder, device))
        for key, value in self.config.items():
            if key not in MAY_DIFFER and found["config"].get(key, DEFAULTS.get(key)) != value:
                raise ValueError(
                    f"The run in {folder} was started with {key}={found['config'].get(key)!r}, not "
                    f"{value!r}. Resume with the same setting, or start in another folder."
                )
        if found["data"] != self.data:
            raise ValueError(
                f"The run in {folder} was started on other images: {found['data']}, not {self.data}. "
                "Resume with the same images, or start in another folder."
            )
        self.step, self.minutes = found["step"], found["minutes"]
        self.model.load_state_dict(found["model"])
        self.optimizer.load_state_dict(found["optimizer"])
        self.generator.set_state(found["generator"].cpu())
        self.order_from = found["order_from"].cpu()


def fingerprint(data: ImageSet | ImageStream) -> str:
    """Shape of the images and a checksum of 64 of them: enough to notice that a run goes on with others."""
    if isinstance(data, ImageStream):
        return data.fingerprint()
    sample = data.images[:: max(1, len(data) // 64)].contiguous().numpy()
    return f"{' x '.join(map(str, data.images.shape))}, checksum {zlib.crc32(sample):08x}"


def write_checkpoint(folder: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` as the newest checkpoint; the one that was the newest becomes the previous.

    At any moment one of them is whole, whatever happens to the process, the disk or the power.
    """
    newest = folder / NEWEST
    # First into memory: torch's own error for a full disk is not the system's.
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    with replacing(newest) as temporary:
        temporary.write_bytes(_sealed(buffer.getbuffer()))
        sync(temporary)
        if (folder / "metrics.jsonl").exists():
            sync(folder / "metrics.jsonl")  # so that its lines up to here are there if this is
        if newest.exists():
            os.replace(newest, folder / PREVIOUS)


def read_checkpoint(folder: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The newest checkpoint that is whole.

    A damaged one is named in a warning and put aside. Raises FileNotFoundError if there is no checkpoint and
    CheckpointDamaged, naming them, if none is whole.
    """
    damaged = []
    for path in find_checkpoints(folder):
        try:
            found = _read(path, device)
        except CheckpointDamaged as error:
            damaged.append(str(error))
            continue
        for text in damaged:
            log.warning("%s Going on from %s, step %d.", text, path, found["step"])
            os.replace(folder / NEWEST, folder / DAMAGED)  # or it would push out the good one
        return found
    raise CheckpointDamaged(f"{' '.join(damaged)} Start again in another folder.")


def find_checkpoints(folder: Path) -> list[Path]:
    """Newest first. Raises FileNotFoundError if there is none."""
    paths = [folder / name for name in (NEWEST, PREVIOUS) if (folder / name).exists()]
    if not paths:
        raise FileNotFoundError(
            f"Nothing to resume: {folder / NEWEST} is missing. Start with resume=False, in an empty folder."
        )
    return paths


def remove_checkpoints(folder: Path) -> None:
    """What an earlier run may have left."""
    for name in (NEWEST, PREVIOUS, DAMAGED):
        (folder / name).unlink(missing_ok=True)


# A checkpoint is a zip archive. Its seal, the SHA-256 of all that stands before it, is the archive's comment:
# torch.load reads the file with or without it.
_SEAL = b"sha256:"
_SEAL_LENGTH = len(_SEAL) + 64


def _sealed(archive: memoryview) -> bytes:
    """The archive with the seal as its comment; the last two bytes of an archive are the comment's length."""
    if archive[-2:] != b"\0\0":
        raise RuntimeError("torch.save no longer writes an archive without a comment.")
    content = bytes(archive[:-2]) + _SEAL_LENGTH.to_bytes(2, "little")
    return content + _SEAL + hashlib.sha256(content).hexdigest().encode()


def _read(path: Path, device: torch.device | str) -> dict[str, Any]:
    """Raises CheckpointDamaged, and ValueError for what was never a checkpoint of this version."""
    content = path.read_bytes()
    seal = content[-_SEAL_LENGTH:]
    content = memoryview(content)[:-_SEAL_LENGTH]
    if seal != _SEAL + hashlib.sha256(content).hexdigest().encode():
        raise CheckpointDamaged(f"{path} is damaged: its checksum is not right.")
    found = torch.load(path, map_location=device, weights_only=True)
    if not isinstance(found, dict) or found.get("format") != CHECKPOINT_FORMAT:
        raise ValueError(f"{path} is not a checkpoint of this version of barlow_edu.")
    return found
