"""Shards and data sets: their images are those of the same files in class folders, to the last bit."""

import io
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny import CONFIG, tiny_encoder, tiny_images, write_tree

import barlow_edu as be
from barlow_edu.config import load_config, open_stream
from barlow_edu.storage.stream import ImageStream
from barlow_edu.storage.trees import scan

IMAGES = tiny_images(24)


def png(pixels):
    """The bytes of an image."""
    file = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(file, "PNG")
    return file.getvalue()


def write_shards(folder, labels=True, mode="w"):
    """Two shards by nobody's library but Python's, with what a shard may hold besides."""
    folder.mkdir(parents=True)
    for shard in range(2):
        with tarfile.open(folder / f"part-{shard}.tar", mode) as archive:
            for i in range(12 * shard, 12 * shard + 12):
                files = {
                    f"photos/{i:04}.img.png": png(IMAGES.images[i]),
                    f"photos/{i:04}.json": b"{}",
                }
                files |= {f"photos/{i:04}.cls": b"%d" % (IMAGES.labels[i] + 8)} if labels else {}
                for name, data in files.items():
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))


def as_dataset(labels=True):
    """The same by Hugging Face's library."""
    datasets = pytest.importorskip("datasets")
    rows = {"photo": [{"bytes": png(x), "path": None} for x in IMAGES.images]}
    kinds = {"photo": datasets.Image()}
    if labels:
        rows["kind"] = IMAGES.labels.tolist()
        kinds["kind"] = datasets.ClassLabel(names=["8", "9", "10", "11"])
    return datasets.Dataset.from_dict(rows, datasets.Features(kinds))


def write_saved(folder, labels=True):
    as_dataset(labels).save_to_disk(folder)


def write_parquet(folder, labels=True):
    """Files as most of the hub's data sets have them."""
    data = as_dataset(labels)
    folder.mkdir(parents=True)
    data.to_parquet(folder / "0.parquet")


KINDS = {"shards": write_shards, "saved": write_saved, "parquet": write_parquet}


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory):
    """What the library writes beside the data set does not stay."""
    with pytest.MonkeyPatch.context() as patch:
        if find_spec("datasets"):
            import datasets

            patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


@pytest.fixture(scope="module", params=KINDS)
def root(request, tmp_path_factory):
    """The root of such a container with a training split."""
    root = tmp_path_factory.mktemp(request.param)
    KINDS[request.param](root / "train")
    return root_of(request.param, root)


def root_of(kind, folder):
    return Path(f"hf:{folder}") if kind == "parquet" else folder


def test_images_and_labels_are_those_that_were_put_in(root):
    images = be.load_images("folder", root)
    assert torch.equal(images.images, IMAGES.images) and torch.equal(images.labels, IMAGES.labels)
    assert images.classes == ["8", "9", "10", "11"]  # by their number, not as words


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_reads_any_rows_in_any_order(root, workers):
    config = load_config(
        CONFIG, data="folder", root=str(root), workers=workers, canvas=16, encoder="small_resnet"
    )
    stream, rows = open_stream(config), torch.tensor([23, 0, 11, 12])
    [batch] = stream.batches([rows])
    assert torch.equal(batch.images, IMAGES.images[rows]) and stream.unreadable == {}
    stream.close()


def test_the_fingerprint_is_of_the_bytes(root, monkeypatch):
    whole = ImageStream(*scan(root), 16, workers=0)
    before = whole.fingerprint()
    assert before == whole.fingerprint() != ImageStream(*scan(root).part(20), 16).fingerprint()
    monkeypatch.setattr("barlow_edu.storage.stream.opened", lambda path: io.BytesIO(b"others"))
    assert whole.fingerprint() != before


def test_a_run_trains_on_them_as_on_images_in_memory(root, tmp_path):
    streamed = {"data": "folder", "root": str(root), "canvas": 16, "stream": True, "workers": 0}
    with tiny_encoder():
        one = be.pretrain(CONFIG, tmp_path / "memory", IMAGES, progress=False)
        other = be.pretrain(CONFIG | streamed, tmp_path / "inside", progress=False)
    losses = [[line["loss"] for line in run.metrics] for run in (one, other)]
    assert losses[0] == losses[1] and len(losses[0]) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_without_labels_there_is_one_class_without_a_name(kind, tmp_path):
    KINDS[kind](tmp_path / "train", labels=False)
    tree = scan(root_of(kind, tmp_path))
    assert tree.classes == [""] and len(tree.files) == 24 and not tree.labels.any()


def test_a_shard_beside_class_folders_is_left_out_aloud(tmp_path, caplog):
    write_shards(tmp_path / "train")
    (tmp_path / "train" / "cat").mkdir()
    (tmp_path / "train" / "cat" / "1.png").write_bytes(png(IMAGES.images[0]))
    assert scan(tmp_path).classes == ["cat"] and "left out: *.tar (2)" in caplog.text


def test_what_cannot_be_read_is_named_with_what_to_do(tmp_path):
    write_shards(tmp_path / "packed", mode="w:gz")
    with pytest.raises(
        ValueError, match=r"part-0.tar cannot be read as a plain tar .* without compression"
    ):
        scan(tmp_path / "packed")
    write_shards(tmp_path / "cut")
    for shard in (tmp_path / "cut").glob("*.tar"):
        data = bytearray(shard.read_bytes())
        at = data.index(b"PNG")
        data[at - 1 : at + 60] = bytes(61)
        shard.write_bytes(data)
    with pytest.warns(
        UserWarning, match=r"Skipped 2 unreadable images: .*part-0.tar//\d+\+\d+ 0000.img.png"
    ):
        assert len(be.load_images("folder", tmp_path / "cut", size=16)) == 22
    (tmp_path / "empty").mkdir()
    tarfile.open(tmp_path / "empty" / "x.tar", "w").close()
    with pytest.raises(ValueError, match="no images in its shards"):
        scan(tmp_path / "empty")


def test_a_data_set_without_images_is_named(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "text")
    with pytest.raises(ValueError, match="no column of images, only text"):
        scan(tmp_path / "text")


def test_without_the_library_a_data_set_says_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    for name in ("state.json", "dataset_info.json"):  # of what save_to_disk wrote
        (tmp_path / name).touch()
    for root in (tmp_path, Path("hf:nobody/nothing")):
        needs = rf"{root}\b.* is read by datasets, which .*pip install \"barlow_edu\[datasets\]\""
        with pytest.raises(RuntimeError, match=needs):
            scan(root)


def test_by_name_a_folder_of_images_is_the_same_set(tmp_path):
    pytest.importorskip("datasets")
    tree = write_tree(tmp_path / "tree")
    for split in ("train", "test"):
        ours, theirs = (
            be.load_images(*of, split=split, size=16) for of in (("folder", tree), (f"hf:{tree}",))
        )
        assert torch.equal(ours.images, theirs.images) and torch.equal(ours.labels, theirs.labels)
        assert ours.classes == theirs.classes


def test_by_name_what_was_saved_is_read_too(tmp_path):
    datasets = pytest.importorskip("datasets")
    write_saved(tmp_path / "one")
    datasets.DatasetDict(train=as_dataset(), validation=as_dataset()).save_to_disk(tmp_path / "two")
    for name, split in (("one", "train"), ("two", "train"), ("two", "val"), ("two", "test")):
        images = be.load_images(f"hf:{tmp_path / name}", split=split)
        assert torch.equal(images.images, IMAGES.images) and images.classes[0] == "8"
    with pytest.raises(ValueError, match="one has no split test or val, only train"):
        be.load_images(f"hf:{tmp_path / 'one'}", split="test")


def test_a_run_knows_the_name_and_is_evaluated_by_it(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    write_tree(tmp_path / "tree")
    monkeypatch.chdir(tmp_path)
    with tiny_encoder():
        run = be.pretrain(CONFIG, tmp_path / "run", "hf:tree", progress=False, epochs=1)
        assert run.environment["root"] == f"hf:{tmp_path / 'tree'}"
        monkeypatch.chdir(run.path)
        assert be.evaluate(run.path, linear=False, k=5)["train_images"] == 48


def test_a_name_that_is_none_is_told_with_what_to_give(monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)  # does not ask five times
    for name in ("nobody/nothing", "/no/folder"):
        with pytest.raises(ValueError, match=f"hf:{name} cannot be loaded: .+. Give hf:OWNER/NAME"):
            be.load_images(f"hf:{name}")
    with pytest.raises(ValueError, match="takes no root, got 'x': give root=null"):
        be.load_config(data="hf:nobody/nothing", root="x")
