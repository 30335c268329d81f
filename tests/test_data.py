"""Image sets: the embedded garments, balanced limits, CIFAR from torchvision's files, class folders."""

import hashlib
import importlib.util
import itertools
import pickle
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import datasets

import barlow_edu as be
from barlow_edu.config import SETTINGS, images_for
from barlow_edu.evaluation.features import labelled_sets
from barlow_edu.storage import downloads, places
from barlow_edu.storage.trees import balanced
from barlow_edu.views import TwinViews

ROOT = Path(__file__).parent.parent
CHECKSUMS = {
    "train": "c7f813f8acf145d45b2b1128b7e49b0028487abdb9b77de6f84d632e41807f10",
    "test": "a0cda3474aea4b5951a96188d7aea3fc76e1b030af67ea12f346057abb71433f",
}


def sha256(images):
    return hashlib.sha256(images.contiguous().numpy().tobytes()).hexdigest()


# garments


@pytest.fixture(scope="module")
def cards():
    return be.load_images("garments", split="test")


@pytest.fixture(scope="module")
def photos():
    """The grey photographs that the cards of the test split were made of."""
    with np.load(places.data_dir() / "garments.npz") as stored:
        return stored["test_images"]


@pytest.mark.parametrize(("split", "count"), [("train", 20_000), ("test", 4_000)])
def test_garments_are_the_same_pixels_everywhere(split, count):
    images = be.load_images("garments", split=split)
    assert images.images.shape == (count, 3, 32, 32)
    assert images.images.dtype == torch.uint8
    assert sha256(images.images) == CHECKSUMS[split]
    assert images.labels.dtype == torch.int64
    assert torch.bincount(images.labels).tolist() == [count // 10] * 10
    assert len(images.classes) == 10
    assert images.name == "garments"


def test_a_root_where_there_is_none_is_refused():
    """Taken for a root and ignored, it would hand out training images as test images."""
    for root in ("test", "my_photographs", Path("x")):
        with pytest.raises(ValueError, match=f"garments take no root, got '{root}': .*split="):
            be.load_images("garments", root, limit=10)


def test_garments_are_the_default_and_val_means_test(cards):
    assert sha256(be.load_images().images) == CHECKSUMS["train"]
    assert torch.equal(be.load_images(split="val").images, cards.images)


def test_another_seed_makes_other_cards_of_the_same_photographs(cards):
    other = be.load_images("garments", split="test", seed=1)
    same = (other.images == cards.images).flatten(1).float().mean(1)
    assert same.max() < 0.6  # of a card's pixels, by chance
    assert torch.equal(other.labels, cards.labels)


def test_what_is_written_into_a_set_is_not_found_in_the_next(cards):
    spoiled = be.load_images("garments", split="test")
    spoiled.images.zero_()
    spoiled.labels.zero_()
    again = be.load_images("garments", split="test")
    assert sha256(again.images) == CHECKSUMS["test"]
    assert again.labels.max() == 9


def test_labels_are_fashion_mnists_own(cards):
    with np.load(places.data_dir() / "garments.npz") as stored:
        assert np.array_equal(stored["test_labels"], cards.labels.numpy())


def resized(photo, factors, i):
    """The opacity (32, 32) of card i in [0, 1], from Pillow and the factors alone."""
    side, (top, left) = int(factors["side"][i]), factors["place"][i].tolist()
    opacity = np.zeros((32, 32))
    small = Image.fromarray(photo).resize((side, side), Image.Resampling.BILINEAR)
    opacity[top : top + side, left : left + side] = np.asarray(small) / 255
    return opacity


@pytest.mark.parametrize("i", range(0, 4000, 211))
def test_pixels_are_what_the_factors_say(cards, photos, i):
    opacity = resized(photos[i], cards.factors, i)
    tint = cards.factors["tint"][i].view(3, 1, 1).double().numpy()
    background = cards.factors["background"][i].view(3, 1, 1).double().numpy()
    card = cards.images[i].double().numpy()
    # the background is dimmed by 60 to 100 per cent, no more is known of it
    low = tint * opacity + 0.6 * background * (1 - opacity)
    high = tint * opacity + background * (1 - opacity)
    assert (card >= low - 1.5).all()
    assert (card <= high + 1.5).all()


def test_the_background_is_a_soft_gradient(cards):
    """Where there is no garment, a row of pixels is a straight line, up to rounding."""
    corners = set()
    for i in range(0, 4000, 97):
        top = int(cards.factors["place"][i, 0])
        row = cards.images[i, :, 0].double()  # the first row
        if top > 0:
            line = torch.lerp(row[:, :1], row[:, -1:], torch.linspace(0, 1, 32).double())
            assert (row - line).abs().max() <= 2
            corners.add(tuple((row[:, -1] - row[:, 0]).tolist()))
    assert len(corners) > 10


def test_factors_span_what_the_design_says(cards):
    f = cards.factors
    assert (f["tint"].min(), f["tint"].max()) == (102, 255)
    assert (f["background"].min(), f["background"].max()) == (0, 102)
    assert (f["side"].min(), f["side"].max()) == (14, 30)
    free = 32 - f["side"].view(-1, 1)
    assert (f["place"] >= 0).all() and (f["place"] <= free).all()
    share = f["place"] / free
    assert abs(share.mean() - 0.5) < 0.02  # anywhere, so in the middle on average
    drawn = torch.cat([f["tint"], f["background"], f["side"].view(-1, 1), share], 1).double()
    correlation = torch.corrcoef(drawn.T) - torch.eye(9)
    assert correlation.abs().max() < 0.1  # nothing tells anything about anything else


def test_the_licence_lies_beside_the_data():
    text = (places.data_dir() / "garments.LICENSE").read_text(encoding="utf-8")
    assert "MIT License" in text and "Zalando" in text and "Fashion-MNIST" in text


def test_missing_garments_say_where_they_belong(tmp_path, monkeypatch):
    monkeypatch.setenv("BARLOW_EDU_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="garments.npz.*BARLOW_EDU_DATA"):
        be.load_images("garments", split="test", seed=77)


def test_data_dir_can_be_moved_and_downloads_move_with_it(tmp_path, monkeypatch):
    assert places.data_dir() == ROOT / "data"
    monkeypatch.setenv("BARLOW_EDU_DATA", str(tmp_path))
    assert places.data_dir() == tmp_path
    assert places.download_dir() == tmp_path / "downloads"


# limits and subsets


def test_limit_is_balanced_seeded_and_keeps_factors(cards):
    some = be.load_images("garments", split="test", limit=103)
    counts = torch.bincount(some.labels, minlength=10)
    assert counts.sum() == len(some) == 103
    assert (counts.min(), counts.max()) == (10, 11)
    assert all(len(v) == 103 for v in some.factors.values())
    again = be.load_images("garments", split="test", limit=103)
    assert torch.equal(some.images, again.images)
    row = (cards.images == some.images[50]).flatten(1).all(1).nonzero().item()
    assert torch.equal(cards.factors["tint"][row], some.factors["tint"][50])
    assert cards.labels[row] == some.labels[50]


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=60),
    st.floats(0, 1),
    st.integers(0, 2**32 - 1),
)
@settings(deadline=None)
def test_balanced_rows(labels, share, seed):
    limit = max(1, round(share * len(labels)))
    labels = torch.tensor(labels)
    rows = balanced(labels, limit, seed)
    assert len(rows) == limit
    assert (rows[1:] > rows[:-1]).all()  # in order, none twice
    assert torch.equal(rows, balanced(labels, limit, seed))
    have, kept = (torch.bincount(x, minlength=5) for x in (labels, labels[rows]))
    full = kept == have  # a class has as many as the largest, one less, or all it has
    assert ((kept >= kept.max() - 1) | full).all()


def test_balanced_rows_depend_on_the_seed():
    labels = torch.arange(1000) % 10
    assert not torch.equal(balanced(labels, 100, 0), balanced(labels, 100, 1))


@pytest.mark.parametrize("limit", [0, -1, 4001, 10.0, True, "10"])
def test_a_limit_out_of_range_is_refused(limit):
    with pytest.raises(ValueError, match=f"between 1 and 4000, got {limit!r}"):
        be.load_images("garments", split="test", limit=limit)


@pytest.mark.parametrize("rows", [[3, 1], slice(1, 4), torch.tensor([5])])
def test_subset_keeps_rows_together(cards, rows):
    part = cards.subset(rows)
    assert torch.equal(part.images, cards.images[rows])
    assert torch.equal(part.labels, cards.labels[rows])
    assert torch.equal(part.factors["side"], cards.factors["side"][rows])
    assert part.classes == cards.classes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"images": torch.rand(4, 3, 8, 8)},
            r"uint8 \(N, 3, H, W\), got torch.float32 of",
        ),
        ({"images": torch.zeros(4, 8, 8, 3, dtype=torch.uint8)}, r"of shape \(4, 8, 8, 3\)"),
        ({"images": torch.zeros(4, 1, 8, 8, dtype=torch.uint8)}, r"for one channel: images.expand"),
        ({"images": np.zeros((4, 3, 8, 8), np.uint8)}, "must be a tensor, .* got uint8 of shape"),
        ({"images": [[1, 2], [3, 4]]}, "must be a tensor, .* got <class 'list'> of shape"),
        ({"images": None}, "must be a tensor, .* got <class 'NoneType'> of"),
        ({"labels": torch.arange(3)}, "4 images need as many labels, got 3"),
        ({"sizes": torch.ones(2, 2)}, "4 images need as many sizes, got 2"),
        ({"factors": {"tint": torch.ones(5)}}, "4 images need as many tint, got 5"),
        ({"labels": torch.arange(4, dtype=torch.int32)}, "int64 tensor .* got tensor"),
        ({"labels": torch.arange(4) > 1}, "int64 tensor .* got tensor"),
        ({"labels": None}, "int64 tensor .* got None"),
        ({"labels": [0, 1, 2, 3]}, "labels must be whole numbers, .* got \\[0, 1, 2, 3\\]"),
        ({"labels": torch.rand(4)}, "int64 tensor .* got tensor"),
        ({"labels": torch.zeros(4, 1).long()}, r"shape \(N,\), got tensor\(\[\[0"),
        ({"labels": torch.tensor([0, 1, -1, 0])}, "numbers of classes, 0 to 3, got -1 to 1"),
        ({"labels": torch.tensor([0, 1, 4, 0])}, "numbers of classes, 0 to 3, got 0 to 4"),
    ],
)
def test_an_image_set_of_something_else_is_refused(change, message):
    good = {"images": torch.zeros(4, 3, 8, 8, dtype=torch.uint8), "labels": torch.arange(4)}
    with pytest.raises(ValueError, match=message):
        be.ImageSet(**good | change, classes=list("abcd"), name="mine")


def test_an_image_set_says_what_it_is(cards):
    assert repr(cards) == "ImageSet('garments', 4,000 images of 3 x 32 x 32, 10 classes)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "mnist"}, "No image set 'mnist'. Choose one of garments, cifar10"),
        ({"split": "dev"}, "split must be train or test .*'dev'"),
        ({"name": "folder"}, "needs root="),
        ({"split": "test", "size": 64}, "garments comes in 32 x 32 pixels, got size=64"),
    ],
)
def test_what_cannot_be_loaded_is_told(arguments, message):
    with pytest.raises(ValueError, match=message):
        be.load_images(**arguments)


def test_another_package_adds_an_image_set_by_an_entry_point(tmp_path, monkeypatch):
    code = "import torch, barlow_edu as be\ndef dots(root, split, limit, size, seed):\n"
    code += "    images = torch.full((limit or 40, 3, 8, 8), len(split), dtype=torch.uint8)\n"
    code += "    return be.ImageSet(images, torch.arange(len(images)) % 2, ['a', 'b'], 'dots')\n"
    (tmp_path / "dotted.py").write_text(code, "utf-8")
    about = tmp_path / "dotted-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Name: dotted\nVersion: 1.0\n", "utf-8")
    (about / "entry_points.txt").write_text("[barlow_edu.data]\ndots = dotted:dots\n", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    # As a new process reads it.
    found = importlib.util.spec_from_file_location("anew", be.data.__file__)
    monkeypatch.setitem(sys.modules, "anew", anew := importlib.util.module_from_spec(found))
    found.loader.exec_module(anew)
    assert (*be.data.NAMES, "dots") == anew.NAMES and SETTINGS["data"].choices is be.data.NAMES
    # What that process would accept, and train and evaluate on.
    for name in ("OTHERS", "NAMES"):
        monkeypatch.setattr(be.data, name, getattr(anew, name))
    monkeypatch.setitem(SETTINGS, "data", replace(SETTINGS["data"], choices=anew.NAMES))
    config = be.load_config(data="dots", limit=20)
    shapes = [(20, len("train")), (20, len("train")), (40, len("test"))]
    sets = images_for(config), *labelled_sets(config)
    assert [(len(s), s.images.max()) for s in sets] == shapes


# CIFAR


def make_cifar(folder, monkeypatch, name="cifar10", per_file=4):
    """A small archive in torchvision's format; returns its path and the pixels of the test split."""
    cls = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    base, rng = folder / cls.base_folder, np.random.RandomState(0)
    base.mkdir(parents=True)
    key = "labels" if name == "cifar10" else "fine_labels"
    sums, pixels = {}, {}
    for file, _ in cls.train_list + cls.test_list:
        pixels[file] = rng.randint(0, 256, (per_file, 3072), dtype=np.uint8)
        sums[file] = dump(base / file, {"data": pixels[file], key: list(range(per_file))})
    classes = {cls.meta["key"]: [f"class {i}" for i in range(per_file)]}
    sums["meta"] = dump(base / cls.meta["filename"], classes)
    monkeypatch.setattr(cls, "train_list", [[f, sums[f]] for f, _ in cls.train_list])
    monkeypatch.setattr(cls, "test_list", [[f, sums[f]] for f, _ in cls.test_list])
    monkeypatch.setattr(cls, "meta", {**cls.meta, "md5": sums["meta"]})
    archive = folder / Path(downloads.ARCHIVES[name][1]).name
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(base, cls.base_folder)
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    monkeypatch.setitem(downloads.ARCHIVES, name, (md5, *downloads.ARCHIVES[name][1:]))
    return archive, pixels[cls.test_list[0][0]].reshape(-1, 3, 32, 32)


def dump(path, content):
    path.write_bytes(pickle.dumps(content))
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_unpacked_from_an_archive_that_is_there(name, tmp_path, monkeypatch):
    archive, pixels = make_cifar(tmp_path / "made", monkeypatch, name)
    root = tmp_path / "root"
    root.mkdir()
    archive.rename(root / archive.name)
    test = be.load_images(name, root, "test")
    assert np.array_equal(test.images.numpy(), pixels)
    assert test.labels.tolist() == [0, 1, 2, 3]
    assert test.classes == [f"class {i}" for i in range(4)]
    assert test.name == {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}[name]
    assert len(be.load_images(name, root, "train")) == (20 if name == "cifar10" else 4)


def test_cifar_files_of_torchvision_need_no_archive(tmp_path, monkeypatch):
    archive, pixels = make_cifar(tmp_path, monkeypatch)
    archive.unlink()
    assert np.array_equal(be.load_images("cifar10", tmp_path, "test").images.numpy(), pixels)


def test_cifar_cut_short_while_unpacking_is_unpacked_again(tmp_path, monkeypatch):
    _, pixels = make_cifar(tmp_path, monkeypatch)
    folder = tmp_path / datasets.CIFAR10.base_folder
    (folder / "data_batch_3").write_bytes(b"half")
    (folder / "test_batch").unlink()
    assert np.array_equal(be.load_images("cifar10", tmp_path, "test").images.numpy(), pixels)


def test_without_a_network_cifar_says_which_file_goes_where(tmp_path, monkeypatch):
    monkeypatch.setenv("BARLOW_EDU_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError) as caught:
        be.load_images("cifar10")
    told = str(caught.value)
    assert "cifar-10-python.tar.gz (MD5 c58f30108f718f92721af3b95e74349a)" in told
    assert f"into {tmp_path / 'downloads'}" in told
    assert "root=" in told and "'garments' needs no download" in told


@pytest.mark.parametrize(
    ("suffix", "label"), [("jpg", "CIFAR-10 (JPEG copy)"), ("png", "CIFAR-10 (class folders)")]
)
def test_a_tree_of_cifar_is_labelled_as_what_it_is(suffix, label, tmp_path):
    for name in ("cat", "airplane"):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32), "red").save(tmp_path / "train" / name / f"1.{suffix}")
    images = be.load_images("cifar10", tmp_path)
    assert images.name == label
    assert images.classes == ["airplane", "cat"]
    # a tree without the split is not completed by a download
    with pytest.raises(FileNotFoundError, match=r"No folder .*test"):
        be.load_images("cifar10", tmp_path, "test")


# what training asks of images


def test_training_asks_an_image_set_for_what_it_asks_of_a_stream(cards):
    views, rows = TwinViews("cifar", 16), torch.tensor([5, 3, 8, 1])
    assert isinstance(cards.on("cpu"), be.ImageSet) and cards.unreadable == cards.skipped == ()
    assert cards.fingerprint() == "4000 x 3 x 32 x 32, checksum e1525403"
    one, two = cards.batches(rows.split(2), itertools.count())
    assert one.rows.tolist() == [5, 3] and two.rows.tolist() == [8, 1]
    whole = views.of_batch(cards.load(rows), "cpu", torch.Generator().manual_seed(0))
    expected = views(cards.images[rows], torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(whole, expected, strict=True))
    shard = slice(2, 4)
    part = views.of_batch(two, "cpu", torch.Generator().manual_seed(0), shard, 4)
    assert all(torch.equal(a, b[shard]) for a, b in zip(part, whole, strict=True))
