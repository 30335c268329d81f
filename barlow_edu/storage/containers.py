"""Images that lie inside larger files: WebDataset's shards, and data sets that Hugging Face's library has saved.

Such an image has a path, too: that of its container, two slashes, and where it lies. So it is listed, shuffled,
decoded by workers and named in warnings as any other file. A shard is a plain tar, read where it lies, in any order.
"""

import functools
import io
import re
import tarfile
from pathlib import Path
from typing import Any, BinaryIO

from tqdm.auto import tqdm

# SHARD.tar//OFFSET+SIZE NAME, or FOLDER//ROW. No path of a scan has two slashes: they are in their normal form.
INSIDE = re.compile(r"(.+)//(\d+)(?:\+(\d+) [^/]*)?")


def packed(folder: Path, suffixes: tuple[str, ...]) -> tuple[list, list[int], list[str]] | None:
    """Paths, labels and classes of the images in a folder's containers; None for a folder that has none.

    In a shard every image with one of ``suffixes`` counts, and its class stands in the ``.cls`` beside it. Of a data
    set that ``save_to_disk`` wrote, the first column of images counts, and the first of class labels. Without
    labels all images are of one class without a name.
    Raises ValueError for a shard that is compressed or damaged, and for a data set without images.
    """
    if (folder / "state.json").exists() and (folder / "dataset_info.json").exists():
        images, *labels = _saved(str(folder))
        return [f"{folder}//{i}" for i in range(len(images))], *labels
    if not (shards := sorted(folder.glob("*.tar"))):
        return None
    files, names = [], []
    for shard in tqdm(shards, desc="reading shards", unit="shard", disable=len(shards) < 20):
        try:
            with tarfile.open(shard, "r:") as archive:
                members, classes = _members(archive, suffixes)
        except (tarfile.TarError, EOFError) as error:
            raise ValueError(
                f"{shard} cannot be read as a plain tar ({error}). Write it again, without compression."
            ) from None
        files += [f"{shard}//{m.offset_data}+{m.size} {Path(m.name).name}" for m in members]
        names += [classes.get(_key(m), "") for m in members]
    order = sorted(set(names), key=lambda name: (int(name) if name.isdecimal() else -1, name))
    return files, [order.index(name) for name in names], order


def opened(path: str) -> BinaryIO:
    """The bytes of an image, which may lie inside a container."""
    if not (inside := INSIDE.fullmatch(path)):
        return open(path, "rb")
    container, place, size = inside.groups()
    if size is None:
        [image] = _saved(container)[0][int(place)].values()
        return open(image["path"], "rb") if image["bytes"] is None else io.BytesIO(image["bytes"])
    with open(container, "rb") as shard:
        shard.seek(int(place))
        return io.BytesIO(shard.read(int(size)))


def _members(archive: tarfile.TarFile, suffixes: tuple[str, ...]) -> tuple[list, dict[str, str]]:
    """The images in a shard, and the class of each key that has one."""
    files = [member for member in archive if member.isfile()]
    labels = [m for m in files if m.name.endswith(".cls")]
    classes = {_key(m): archive.extractfile(m).read(99).decode().strip() for m in labels}
    return [m for m in files if m.name.lower().endswith(suffixes)], classes


def _key(member: tarfile.TarInfo) -> str:
    """What a sample's files have in common: the name up to the first dot after the last slash."""
    folder, slash, name = member.name.rpartition("/")
    return folder + slash + name.partition(".")[0]


@functools.cache  # by process: every worker opens the data set itself
def _saved(folder: str) -> tuple[Any, list[int], list[str]]:
    """The images of a saved data set, {column: {"bytes", "path"}} by row; their labels and classes."""
    try:
        from datasets import ClassLabel, Image, load_from_disk
    except ImportError:
        raise ImportError(
            f"{folder} is a data set of Hugging Face's library, which is not installed: pip install datasets"
        ) from None
    data = load_from_disk(folder)
    images = [name for name, kind in data.features.items() if isinstance(kind, Image)]
    if not images:
        raise ValueError(f"{folder} has no column of images, only {', '.join(data.features)}.")
    labels, classes = [0] * len(data), [""]
    for name, kind in data.features.items():
        if isinstance(kind, ClassLabel) and classes == [""]:
            numbers = [-1 if i is None else i for i in data[name][:]]
            if min(numbers) >= 0:  # -1 is a class that nobody knows
                labels, classes = numbers, kind.names
    return (
        data.select_columns(images[:1]).cast_column(images[0], Image(decode=False)),
        labels,
        classes,
    )
