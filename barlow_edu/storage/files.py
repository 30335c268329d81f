"""Files on disk, safely: written whole or not at all, locked, read with an error that names them."""

import contextlib
import errno
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import yaml

# What the system says when nothing more fits: on the disk, in the user's share of it, in one file.
FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}
log = logging.getLogger("barlow_edu")


class DiskFull(OSError):
    """A file could not be written because nothing more fits on the disk. What was there before is unharmed."""


class FolderInUse(RuntimeError):
    """Another process writes to the folder."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path``; renamed to it when the block ends well, removed when it does not.

    Raises DiskFull, naming ``path``, where the block or the renaming finds the disk full.
    """
    with naming_what_does_not_fit(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def naming_what_does_not_fit(path: Path) -> Iterator[None]:
    """Turn the system's error for a full disk into DiskFull, which names ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL or isinstance(error, DiskFull):
            raise
        raise DiskFull(f"The disk is full: {path} could not be written.") from error


def check_still_there(folder: Path) -> None:
    """Raises FileNotFoundError where writing would make a folder anew that somebody has taken away."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is gone: somebody has renamed or removed it while it was written to. Give it its name back, "
            "and go on with --resume, or begin again."
        )


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all. Raises DiskFull."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as JSON, one value a line. Raises DiskFull."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_yaml(path: Path, content: Any) -> None:
    """Write plain ``content`` as YAML, its keys in their order. Raises DiskFull."""
    write_text(path, yaml.safe_dump(content, sort_keys=False))


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises FileNotFoundError, and ValueError, naming the file, where it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise ValueError(f"{path} is damaged: {error}.") from error


def append(path: Path, text: str) -> None:
    """Add ``text`` to a file: all of it, or, where the disk is full (DiskFull), nothing."""
    with naming_what_does_not_fit(path), open(path, "ab", buffering=0) as out:
        data, size = text.encode(), out.tell()
        try:
            while data:  # a full disk may take a part before it refuses
                data = data[out.write(data) :]
        except OSError:
            out.truncate(size)
            raise


def sync(path: Path) -> None:
    """Wait until a file is on the disk, so that a power cut cannot take it away."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def only_process(folder: Path) -> Iterator[None]:
    """Hold ``folder`` (created if need be) while the block runs. Raises FolderInUse if another process holds it.

    The lock is the operating system's: it ends with the process, however that ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise FolderInUse(
            f"Another process is training in {folder}. Wait for it to end, or choose another folder."
        ) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        log.warning(
            "This file system knows no locks: see to it that one process alone uses %s.", folder
        )
    try:
        yield
    finally:
        lock.release()
