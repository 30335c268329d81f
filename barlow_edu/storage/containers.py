"""Images that lie inside larger files: WebDataset's shards, and data sets that Hugging Face's library reads.

Such an image has a path, too: that of its container, two slashes, and where it lies. So it is listed, shuffled,
decoded by workers and named in warnings as any other file. A shard is a plain tar, read where it lies, in any order.
A data set is hf:NAME, of the hub (the library downloads it once) or of a folder, and each of its splits a container.
"""

import functools
import io
import re
import tarfile
from pathlib import Path
from typing import Any, BinaryIO

from tqdm.auto import tqdm

from barlow_edu.storage.libraries import missing

HUB = "hf:"
# SHARD.tar//OFFSET+SIZE NAME, or hf:NAME:SPLIT//ROW. No path of a scan has two slashes: it is in normal form.
INSIDE = re.compile(r"(.+)//(\d+)(?:\+(\d+) [^/]*)?")


def data_and_root(data: Any, root: Any) -> dict[str, Any]:
    """Both settings; ``data: hf:NAME`` is a folder whose root is hf:NAME. Raises ValueError for another root."""
    if not str(data).startswith(HUB):
        return {"data": data, "root": root}
    if root is not None:
        raise ValueError(f"data={data} takes no root, got '{root}': give root=null.")
    folder = Path(data.removeprefix(HUB)).expanduser()
    return {"data": "folder", "root": f"{HUB}{folder.resolve()}" if folder.is_dir() else data}


def packed(folder: Path, suffixes: tuple[str, ...]) -> tuple[list, list[int], list[str]] | None:
    """Paths, labels and classes of the images in a folder's containers; None for a folder that has none.

    In a shard every image with one of ``suffixes`` counts, its class in the ``.cls`` beside it. Of a data set, also
    one that ``save_to_disk`` wrote, the first column of images and the first of class labels. Without labels all are
    of one class without a name. Raises ValueError for a damaged or compressed shard, or a data set without images.
    """
    saved = (folder / "state.json").exists() and (folder / "dataset_info.json").exists()
    source = f"{HUB}{folder.as_posix()}:train" if saved else folder.as_posix()
    if source.startswith(HUB):
        images, *labels = _rows(source)
        return [f"{source}//{i}" for i in range(len(images))], *labels
    if not (shards := sorted(folder.glob("*.tar"))):
        return None
    files, names = [], []
    for shard in tqdm(shards, desc="reading shards", unit="shard", disable=len(shards) < 20):
        try:
            with tarfile.open(shard, "r:") as archive:
                members = [member for member in archive if member.isfile()]
                labels = [m for m in members if m.name.endswith(".cls")]
                classes = {_key(m): archive.extractfile(m).read(99) for m in labels}
        except (tarfile.TarError, EOFError) as error:
            raise ValueError(
                f"{shard} cannot be read as a plain tar ({error}). Write it again, without compression."
            ) from None
        images = [m for m in members if m.name.lower().endswith(suffixes)]
        files += [f"{shard}//{m.offset_data}+{m.size} {Path(m.name).name}" for m in images]
        names += [classes.get(_key(m), b"").decode().strip() for m in images]
    order = sorted(set(names), key=lambda name: (int(name) if name.isdecimal() else -1, name))
    return files, [order.index(name) for name in names], order


def opened(path: str) -> BinaryIO:
    """The bytes of an image, which may lie inside a container."""
    if not (inside := INSIDE.fullmatch(path)):
        return open(path, "rb")
    container, place, size = inside.groups()
    if size is None:
        [image] = _rows(container)[0][int(place)].values()
        return open(image["path"], "rb") if image["bytes"] is None else io.BytesIO(image["bytes"])
    with open(container, "rb") as shard:
        shard.seek(int(place))
        return io.BytesIO(shard.read(int(size)))


def _key(member: tarfile.TarInfo) -> str:
    """What a sample's files have in common: the name up to the first dot after the last slash."""
    folder, slash, name = member.name.rpartition("/")
    return folder + slash + name.partition(".")[0]


def hub_split(source: str, names: tuple[str, ...]) -> Path:
    """The first of these splits that ``hf:NAME`` has, as a container. Raises ValueError if there is none."""
    splits = _splits(source)
    for name in names:
        for split in {name, name.replace("val", "validation")} & {*splits}:  # as the hub calls it
            return Path(f"{source}:{split}")
    raise ValueError(f"{source} has no split {' or '.join(names)}, only {', '.join(splits)}.")


@functools.cache  # by process: every worker opens the data set itself
def _splits(source: str) -> Any:
    """The splits of a data set by name; where only one was saved, it is the training split."""
    name = Path(source.removeprefix(HUB)).expanduser()
    try:
        from datasets import load_dataset, load_from_disk

        if (name / "state.json").exists():
            return {"train": load_from_disk(name)}
        saved = (name / "dataset_dict.json").exists()
        return load_from_disk(name) if saved else load_dataset(name.as_posix())
    except ImportError as error:
        raise missing("datasets", f"{source} is read by datasets, which is not here") from error
    except Exception as error:  # of a library that we do not know
        reason = (str(error) or type(error).__name__).partition("\n")[0].rstrip(".")
        remedy = "hf:OWNER/NAME, a data set on Hugging Face's hub, or hf:FOLDER with images or parquet files"
        raise ValueError(f"{source} cannot be loaded: {reason}. Give {remedy}.") from error


@functools.cache
def _rows(source: str) -> tuple[Any, list[int], list[str]]:
    """The images of a split, {column: {"bytes", "path"}} by row; their labels and classes."""
    name, _, split = source.rpartition(":")
    data = _splits(name)[split]
    from datasets import ClassLabel, Image  # which is there

    images = [name for name, kind in data.features.items() if isinstance(kind, Image)]
    if not images:
        raise ValueError(f"{source} has no column of images, only {', '.join(data.features)}.")
    labels, classes = [0] * len(data), [""]
    for name, kind in data.features.items():
        if isinstance(kind, ClassLabel) and classes == [""]:
            numbers = [-1 if i is None else i for i in data[name][:]]
            if min(numbers) >= 0:  # -1 is a class that nobody knows
                labels, classes = numbers, kind.names
    data = data.select_columns(images[:1]).cast_column(images[0], Image(decode=False))
    return data, labels, classes
