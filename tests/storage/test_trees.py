"""Folders of images: what is taken, every format and colour mode, files that cannot be read, sizes, limits."""

import itertools
import logging
import os
import socket
import stat
import struct
import tempfile
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import barlow_edu as be
from barlow_edu.config import images_for, load_config, open_stream
from barlow_edu.storage import decoding
from barlow_edu.storage.trees import balanced, scan
from barlow_edu.views import TwinViews


def put(path, color="red", size=(32, 32), mode="RGB", **options):
    """Save one image of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).convert(mode).save(path, **options)


@pytest.fixture
def tree(tmp_path):
    """Two classes, a folder to add to."""
    put(tmp_path / "train" / "b" / "1.png", "red")
    put(tmp_path / "train" / "a" / "1.png", "blue")
    return tmp_path


def test_classes_are_the_sorted_folders(tree):
    images = be.load_images("folder", tree)
    assert images.classes == ["a", "b"]
    assert images.labels.tolist() == [0, 1]
    assert images.images[:, :, 5, 7].tolist() == [[0, 0, 255], [255, 0, 0]]
    assert images.images.dtype == torch.uint8
    assert images.skipped == ()


@pytest.mark.parametrize("suffix", ["png", "jpg", "JPEG", "bmp", "webp", "tif", "tiff", "ppm"])
def test_every_format_is_read(tmp_path, suffix):
    put(tmp_path / "train" / "a" / f"1.{suffix}", (200, 100, 50), (16, 24))
    images = be.load_images("folder", tmp_path).images
    assert images.shape == (1, 3, 24, 16)
    difference = images.float() - torch.tensor([200.0, 100, 50]).view(1, 3, 1, 1)
    assert difference.abs().max() <= 8  # lossy formats


@pytest.mark.parametrize(
    ("mode", "suffix", "expected"),
    [
        ("L", "png", [127, 127, 127]),  # ITU-R 601: 0.299 R + 0.587 G + 0.114 B
        ("L", "jpg", [127, 127, 127]),
        ("LA", "png", [127, 127, 127]),
        ("RGBA", "png", [204, 102, 51]),
        ("P", "png", [204, 102, 51]),  # a colour of the web palette
        ("CMYK", "jpg", [204, 102, 51]),
        ("CMYK", "tif", [204, 102, 51]),
        ("1", "png", None),
    ],
)
def test_every_colour_mode_becomes_rgb(tmp_path, mode, suffix, expected):
    put(tmp_path / "train" / "a" / f"1.{suffix}", (204, 102, 51), mode=mode)
    pixels = be.load_images("folder", tmp_path).images[0].flatten(1).float()
    if expected is None:  # black and white only: dithered
        assert set(pixels.flatten().tolist()) == {0.0, 255.0}
    else:
        assert (pixels - torch.tensor(expected).view(3, 1)).abs().max() <= 3


def test_sixteen_bit_images_keep_their_shades(tmp_path):
    ramp = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
    (tmp_path / "train" / "a").mkdir(parents=True)
    Image.fromarray(ramp).save(tmp_path / "train" / "a" / "1.png")
    found = be.load_images("folder", tmp_path).images[0].numpy()
    assert np.abs(found / 255 - ramp / 65535).max() < 1 / 255


def test_an_unreadable_file_is_skipped_and_reported(tree):
    bad = tree / "train" / "a" / "0.jpg"
    bad.write_bytes(b"not an image")
    cut = tree / "train" / "b" / "2.png"
    noise = np.random.RandomState(0).randint(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(cut)
    cut.write_bytes(cut.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="Skipped 2 unreadable images") as caught:
        images = be.load_images("folder", tree)
    assert str(bad) in str(caught[0].message)
    assert images.skipped == (str(bad), str(cut))
    assert images.labels.tolist() == [0, 1]  # the labels still belong to the images
    assert images.images[:, :, 5, 7].tolist() == [[0, 0, 255], [255, 0, 0]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert be.load_images("folder", tree, limit=4).skipped == images.skipped


def test_a_file_on_which_pillow_stumbles_is_skipped(tree, monkeypatch):
    """Found by writing random bytes into TIFF files: not all that Pillow raises is an OSError."""
    real, bad = Image.open, tree / "train" / "a" / "1.png"

    def stumble(file, **options):
        if file.name == str(bad):
            raise TypeError("'<' not supported between instances of 'str' and 'int'")
        return real(file, **options)

    monkeypatch.setattr(Image, "open", stumble)
    with pytest.warns(UserWarning, match="Skipped 1 unreadable images"):
        assert be.load_images("folder", tree).skipped == (str(bad),)


def test_a_tree_of_unreadable_files_is_refused(tmp_path):
    path = tmp_path / "train" / "a" / "0.png"
    path.parent.mkdir(parents=True)
    path.write_text("nothing")
    with pytest.raises(ValueError, match="None of 1 files could be read.*0.png"):
        be.load_images("folder", tmp_path)


@pytest.mark.parametrize("names", [[], ["a"], ["a/readme.txt"], [".hidden/1.png"], ["readme.txt"]])
def test_an_empty_tree_is_refused(tmp_path, names):
    (tmp_path / "train").mkdir()
    for name in names:
        path = tmp_path / "train" / name
        if path.suffix:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"")
        else:
            path.mkdir()
    with pytest.raises(
        ValueError, match="train: 0 images in .*Put images into class folders.*CLASS.*png"
    ):
        be.load_images("folder", tmp_path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No folder .*nowhere.*train.*CLASS"):
        be.load_images("folder", tmp_path / "nowhere")


def test_hidden_files_and_folders_are_no_images(tree):
    put(tree / "train" / "a" / ".1.png")
    put(tree / "train" / "a" / ".thumbnails" / "1.png")
    for name in (".ipynb_checkpoints", "@eaDir", "__MACOSX", "lost+found", "$RECYCLE.BIN"):
        put(tree / "train" / name / "1.png")
        put(tree / "train" / "a" / name / "1.png")
    (tree / "train" / "a" / "notes.txt").write_text("not an image")
    images = be.load_images("folder", tree)
    assert images.classes == ["a", "b"]
    assert len(images) == 2


def test_a_class_may_be_a_link_and_two_classes_may_share_a_folder(tree, tmp_path_factory):
    pool = tmp_path_factory.mktemp("elsewhere")
    put(pool / "deep" / "1.png")
    (tree / "train" / "c").symlink_to(pool)
    (tree / "train" / "d").symlink_to(pool)
    images = be.load_images("folder", tree)
    assert images.classes == ["a", "b", "c", "d"] and images.labels.tolist() == [0, 1, 2, 3]


def test_folders_inside_a_class_belong_to_it(tree):
    put(tree / "train" / "b" / "deep" / "deeper" / "1.png")
    assert be.load_images("folder", tree).labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize(("there", "asked"), [("val", "test"), ("test", "val")])
def test_val_and_test_stand_for_each_other(tmp_path, there, asked):
    put(tmp_path / there / "a" / "1.png")
    assert len(be.load_images("folder", tmp_path, asked)) == 1
    with pytest.raises(FileNotFoundError):
        be.load_images("folder", tmp_path, "train")


def test_test_comes_before_val_when_both_are_there(tmp_path):
    put(tmp_path / "val" / "a" / "1.png", "blue")
    put(tmp_path / "test" / "a" / "1.png", "red")
    for split, color in [("test", [255, 0, 0]), ("val", [0, 0, 255])]:
        assert be.load_images("folder", tmp_path, split).images[0, :, 0, 0].tolist() == color


def test_differing_sizes_are_an_error_that_names_the_remedy(tree):
    put(tree / "train" / "a" / "2.png", "blue", (48, 40))
    with pytest.raises(ValueError, match=r"differ in shape.*\(32, 32\).*\(40, 48\).*size=128"):
        be.load_images("folder", tree)


@pytest.mark.parametrize(("width", "height"), [(64, 32), (32, 64), (33, 70), (16, 16), (9, 200)])
def test_size_resizes_the_shorter_side_and_crops_the_centre(tmp_path, width, height):
    picture = Image.new("RGB", (width, height), "white")
    long, short = max(width, height), min(width, height)
    edge = (long - short) // 2 - 2  # what is cut off is black
    if edge > 0:
        box = (edge, height) if width > height else (width, edge)
        picture.paste("black", (0, 0, *box))
        far = (width - edge, 0) if width > height else (0, height - edge)
        picture.paste("black", (*far, width, height))
    path = tmp_path / "train" / "a" / "1.png"
    path.parent.mkdir(parents=True)
    picture.save(path)
    images = be.load_images("folder", tmp_path, size=32).images
    assert images.shape == (1, 3, 32, 32)
    assert (images[..., 3:-3, 3:-3] > 250).all()


def test_the_seed_decides_which_files_a_limit_keeps(tmp_path):
    for i in range(20):
        put(tmp_path / "train" / "a" / f"{i:02}.png", (i, 0, 0), (4, 4))
    kept = [be.load_images("folder", tmp_path, limit=5, seed=seed) for seed in (0, 0, 1)]
    first, again, other = (images.images[:, 0, 0, 0].tolist() for images in kept)
    assert first == again == sorted(first)
    assert first != other


def test_a_limit_decodes_no_more_files_than_it_keeps(tmp_path, monkeypatch):
    for i in range(20):
        put(tmp_path / "train" / f"c{i % 4}" / f"{i:02}.png", (i, 0, 0), (4, 4))
    whole = be.load_images("folder", tmp_path)
    decoded, decode = [], decoding.read
    monkeypatch.setattr(decoding, "read", lambda *a: decoded.append(a) or decode(*a))
    part = be.load_images("folder", tmp_path, limit=6)
    assert len(decoded) == len(part) == 6
    rows = balanced(whole.labels, 6, 0)
    assert torch.equal(part.images, whole.images[rows])
    assert torch.equal(part.labels, whole.labels[rows])


def test_many_files_are_decoded_in_order(tmp_path, monkeypatch):
    for i in range(30):
        put(tmp_path / "train" / f"c{i % 3}" / f"{i:02}.png", (i, 2 * i, 3 * i), (4, 4))
    images = be.load_images("folder", tmp_path)
    numbers = images.images[:, 0, 0, 0]
    assert torch.equal(numbers % 3, images.labels.to(torch.uint8))
    assert sorted(numbers.tolist()) == list(range(30))


# good, broken and odd entries


def _link(path, target):
    path.symlink_to(target)


def _special(path, kind):
    if kind == "socket":  # its whole path must be short
        here = os.getcwd()
        os.chdir(path.parent)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
        os.chdir(here)
    else:
        os.mkfifo(path)


# Kind of entry -> (how it is created as ``path``, readable images it holds, unreadable ones).
ENTRIES = {
    "png": (lambda p: put(p.with_suffix(".png"), size=(9, 12)), 1, 0),
    "grey JPEG": (lambda p: put(p.with_suffix(".JPG"), mode="L", size=(20, 8)), 1, 0),
    "in a folder": (lambda p: put(p / "deep" / "1.webp"), 1, 0),
    "folder named as an image": (lambda p: put(p.with_suffix(".jpg") / "1.png"), 1, 0),
    "link to an image": (lambda p: put(p / ".x.png") or _link(p / "y.png", p / ".x.png"), 1, 0),
    "link to a folder": (
        lambda p: put(p / ".pool" / "1.png") or _link(p / "in", p / ".pool"),
        1,
        0,
    ),
    "two links to a folder": (
        lambda p: (
            put(p / ".pool" / "1.png") or _link(p / "a", p / ".pool") or _link(p / "b", p / ".pool")
        ),
        1,
        0,
    ),
    "not an image": (lambda p: p.with_suffix(".png").write_bytes(b"no"), 0, 1),
    "empty file": (lambda p: p.with_suffix(".jpg").write_bytes(b""), 0, 1),
    "PostScript": (lambda p: Image.new("RGB", (9, 9)).save(p.with_suffix(".png"), "EPS"), 0, 1),
    "GIF": (lambda p: Image.new("RGB", (9, 9)).save(p.with_suffix(".png"), "GIF"), 0, 1),
    "text": (lambda p: p.with_suffix(".txt").write_text("x"), 0, 0),
    "no ending": (lambda p: p.write_text("x"), 0, 0),
    "hidden": (lambda p: put(p.with_name(f".{p.name}.png")), 0, 0),
    "thumbnails": (lambda p: put(p / "@eaDir" / "0.jpg" / "thumb.jpg"), 0, 0),
    "pipe": (lambda p: _special(p.with_suffix(".png"), "pipe"), 0, 0),
    "socket": (lambda p: _special(p.with_suffix(".bmp"), "socket"), 0, 0),
    "device": (lambda p: _link(p.with_suffix(".png"), "/dev/zero"), 0, 0),
    "dangling link": (lambda p: _link(p.with_suffix(".png"), "nowhere"), 0, 0),
    "link to itself": (lambda p: _link(p.with_suffix(".png"), p.with_suffix(".png").name), 0, 0),
    "link to the class": (lambda p: _link(p, p.parent), 0, 0),
    "link to the split": (lambda p: _link(p, p.parent.parent), 0, 0),
    "link to the root": (lambda p: _link(p, p.parent.parent.parent), 0, 0),
    "link to everything": (lambda p: _link(p, "/"), 0, 0),
}
TREES = st.lists(st.lists(st.sampled_from(sorted(ENTRIES)), max_size=5), min_size=1, max_size=3)


def stream_of(root, **overrides):
    settings = {"data": "folder", "root": str(root), "stream": True, "workers": 0, "image_size": 16}
    return open_stream(load_config(settings | overrides))


@given(TREES)
@settings(max_examples=60, deadline=None)
def test_memory_and_stream_agree_on_every_tree(classes):
    readable = [sum(ENTRIES[kind][1] for kind in kinds) for kinds in classes]
    broken = sum(ENTRIES[kind][2] for kinds in classes for kind in kinds)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for k, kinds in enumerate(classes):
            for i, kind in enumerate(kinds):
                (Path(folder) / "train" / f"c{k}").mkdir(parents=True, exist_ok=True)
                ENTRIES[kind][0](Path(folder) / "train" / f"c{k}" / f"{i}")
            (Path(folder) / "train" / f"c{k}").mkdir(parents=True, exist_ok=True)
        if sum(readable) == 0:
            with pytest.raises(ValueError, match="0 images in|None of [0-9]+ files"):
                be.load_images("folder", folder, size=8)
            return
        stream, images = stream_of(folder), be.load_images("folder", folder, size=8)
        assert images.labels.bincount(minlength=len(classes)).tolist() == readable
        assert images.classes == stream.classes == [f"c{k}" for k in range(len(classes))]
        batch = stream.load(torch.arange(len(stream)))
        assert set(stream.unreadable) == set(images.unreadable)
        assert len(images.unreadable) == broken and len(stream) == len(images) + broken
        unread = [stream.files.index(name) for name in images.unreadable]
        rows = torch.tensor([i for i in range(len(stream)) if i not in unread])
        assert torch.equal(batch.rows[rows], rows)
        assert torch.equal(stream.labels[rows], images.labels)
        assert f"{len(stream)} files" in stream.fingerprint()


def test_one_line_says_what_was_taken_and_what_not(tree, caplog):
    (tree / "train" / "c").mkdir()
    (tree / "train" / "a" / "notes.txt").write_text("x")
    (tree / "train" / "a" / "x.gif").write_bytes(b"")
    (tree / "train" / "a" / "y.GIF").write_bytes(b"")
    _link(tree / "train" / "b" / "z.png", "nowhere")
    _link(tree / "train" / "b" / "up", tree)
    put(tree / "train" / "loose.png")
    put(tree / "train" / "@eaDir" / "1.png")
    with caplog.at_level(logging.INFO, "barlow_edu"):
        scan(tree)
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        f"{tree / 'train'}: 2 images in 3 classes; left out: *.gif (2), hidden or the system's (1), *.txt (1), "
        "neither file nor folder (1), links that lead back (1), in no class folder (1); no images in: c"
    )


def test_a_tree_with_nothing_strange_in_it_is_no_warning(tree, caplog):
    put(tree / "train" / "a" / ".DS_Store.png")
    with caplog.at_level(logging.INFO, "barlow_edu"):
        scan(tree)
    assert [r.levelno for r in caplog.records] == [logging.INFO]


def test_a_link_that_leads_nowhere_is_called_so_whatever_its_name(tree, caplog):
    """It may have been a class, of a disk that is not there."""
    _link(tree / "train" / "whales", "nowhere")
    (tree / "train" / "a\nb").mkdir()
    with caplog.at_level(logging.INFO, "barlow_edu"):
        scan(tree)
    [record] = caplog.records
    assert record.getMessage().endswith(
        "3 classes; left out: neither file nor folder (1); no images in: a b"
    )


def test_train_and_test_may_be_written_in_capitals(tmp_path):
    """Taken for classes they would be trained on together."""
    for split, colour in (("Train", "red"), ("TEST", "blue")):
        put(tmp_path / split / "a" / "1.PNG", colour)
    for split, colour in (("train", [255, 0, 0]), ("test", [0, 0, 255])):
        images = be.load_images("folder", tmp_path, split)
        assert images.classes == ["a"] and images.images[0, :, 0, 0].tolist() == colour
    put(tmp_path / "train" / "b" / "1.png", "green")
    assert be.load_images("folder", tmp_path).classes == ["b"]


def test_a_huge_file_with_an_images_name_takes_no_memory(tree):
    with open(tree / "train" / "a" / "2.png", "wb") as file:
        file.truncate(2**34)  # of nothing, on the disk
    stream = stream_of(tree)
    tracemalloc.start()
    assert (
        stream.fingerprint().startswith("3 files") and len(stream.load(torch.arange(3)).rows) == 3
    )
    assert tracemalloc.get_traced_memory()[1] < 2**28
    tracemalloc.stop()


@pytest.mark.parametrize("folder", ["train", "."])
@pytest.mark.parametrize("in_classes", [True, False])
def test_images_need_neither_split_nor_class(tmp_path, folder, in_classes):
    for name in ("a/1.png", "b/1.png") if in_classes else ("1.png", "2.png"):
        put(tmp_path / folder / name)
    if not in_classes:
        (tmp_path / folder / "empty").mkdir()
    images, stream = be.load_images("folder", tmp_path), stream_of(tmp_path)
    assert images.classes == stream.classes == (["a", "b"] if in_classes else [""])
    assert images.labels.tolist() == stream.labels.tolist() == ([0, 1] if in_classes else [0, 0])
    with pytest.raises(FileNotFoundError, match="No folder .*test.*CLASS"):
        be.load_images("folder", tmp_path, "test")


def test_no_image_starts_a_program(tmp_path, monkeypatch):
    """Pillow hands PostScript to ``gs``; a stand-in on the path tells whether it did."""
    gs, trace = tmp_path / "bin" / "gs", tmp_path / "trace"
    gs.parent.mkdir()
    gs.write_text(f"#!/bin/sh\necho started >> {trace}\n")
    gs.chmod(gs.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{gs.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # it looks once, and remembers
    put(tmp_path / "train" / "a" / "1.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "train" / "a" / "e.png", "EPS")
    with pytest.warns(UserWarning, match="e.png"):
        assert len(be.load_images("folder", tmp_path)) == 1
    stream_of(tmp_path).load(torch.arange(2))
    assert not trace.exists()


# ranges, shapes, orientation


@pytest.mark.parametrize(
    ("kind", "top", "suffix"),
    [
        (np.int32, 255, "tif"),
        (np.int32, 2**20 - 1, "tif"),
        (np.uint16, 4095, "png"),
        (np.uint16, 1023, "tif"),
        (np.uint16, 65535, "png"),
        (np.float32, 1, "tif"),
        (np.float32, 255, "tif"),
    ],
)
def test_values_are_scaled_by_the_range_of_the_file(tmp_path, kind, top, suffix):
    ramp = np.linspace(0, top, 1024).reshape(32, 32).astype(kind)
    (tmp_path / "train" / "a").mkdir(parents=True)
    Image.fromarray(ramp).save(tmp_path / "train" / "a" / f"1.{suffix}")
    pixels = be.load_images("folder", tmp_path).images[0].double().numpy()
    assert np.abs(pixels / 255 - ramp / top).max() < 1 / 255


@pytest.mark.parametrize(
    "values", [[-5, 200], [0, 1e4], [0, np.nan], [0, np.inf], [0, 1.02], [-0.01, 1], [0, 3]]
)
def test_values_out_of_every_range_are_refused(tmp_path, values):
    put(tmp_path / "train" / "a" / "1.png", size=(2, 1))
    Image.fromarray(np.array([values], np.float32)).save(tmp_path / "train" / "a" / "2.tif")
    with pytest.warns(UserWarning, match="2.tif .*save it with 8 bits a channel"):
        assert len(be.load_images("folder", tmp_path)) == 1


def deep_png(pixels):
    """A PNG of 16 bits a channel, which Pillow cannot write: uint16 pixels (H, W, channels)."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    kind = {2: 4, 3: 2, 4: 6}[pixels.shape[2]]
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_colours_of_sixteen_bits_are_taken_where_they_use_them(tmp_path, channels, bits):
    """Of these Pillow hands over the upper eight bits: of 12 bits in 16 four would be left."""
    ramp = np.linspace(0, 2**bits - 1, 1024 * channels).reshape(32, 32, channels).astype(np.uint16)
    if channels != 3:
        ramp[..., -1] = 65535  # opaque
    put(tmp_path / "train" / "a" / "1.png", size=(32, 32))
    (tmp_path / "train" / "a" / "2.png").write_bytes(deep_png(ramp))
    if bits < 16:
        with pytest.warns(UserWarning, match="2.png .*14 or less in use: save it with 8 bits"):
            assert len(be.load_images("folder", tmp_path)) == 1
        return
    pixels = be.load_images("folder", tmp_path).images[1, 0].numpy()
    assert np.abs(pixels / 255 - ramp[..., 0] / 65535).max() < 1 / 128


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_of_several_pictures_the_first_is_taken_and_transparency_ignored(tmp_path, suffix):
    path = tmp_path / "train" / "a" / f"1.{suffix}"
    path.parent.mkdir(parents=True)
    first, second = (Image.new("RGBA", (8, 8), colour) for colour in ("red", "blue"))
    first.putalpha(99)
    first.save(path, save_all=True, append_images=[second], lossless=True)
    red = torch.tensor([255, 0, 0]).view(3, 1, 1).expand(3, 8, 8)
    assert torch.equal(be.load_images("folder", tmp_path).images[0].long(), red)
    assert torch.equal(stream_of(tmp_path).load(torch.tensor([0])).images[0, :, :8, :8].long(), red)


def test_a_set_without_contrast_is_called_so(tmp_path, caplog):
    put(tmp_path / "train" / "a" / "1.png", (0, 8, 15))
    be.load_images("folder", tmp_path)
    stream_of(tmp_path).load(torch.tensor([0]))
    assert [r.getMessage()[:54] for r in caplog.records] == [
        "folder: all values lie between 0 and 15 of 255, next t"
    ] * 2


@pytest.mark.parametrize("shape", [(1, 60_000), (60_000, 1)])
def test_a_strip_takes_little_memory(tmp_path, shape, monkeypatch):
    put(tmp_path / "train" / "a" / "1.png", size=shape)
    areas, resize = [], Image.Image.resize

    def watched(image, size, *rest, **more):
        areas.append(size[0] * size[1])
        return resize(image, size, *rest, **more)

    monkeypatch.setattr(Image.Image, "resize", watched)
    assert be.load_images("folder", tmp_path, size=64).images.shape == (1, 3, 64, 64)
    centre = open_stream(
        load_config(data="folder", root=str(tmp_path), image_size=64, workers=0), mode="centre"
    )
    assert centre.load(torch.tensor([0])).images.shape == (1, 3, 64, 64)
    assert len(areas) == 2 and max(areas) <= 4 * 73 * 73


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_orientation_that_a_camera_noted_is_ignored_as_torchvision_does(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3))
    (tmp_path / "train" / "a").mkdir(parents=True)
    picture.save(tmp_path / "train" / "a" / "1.png", exif=exif)
    expected = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    assert torch.equal(be.load_images("folder", tmp_path).images[0], expected)
    assert torch.equal(stream_of(tmp_path).load(torch.tensor([0])).images[0, :, :6, :4], expected)


def test_views_in_memory_are_the_streams(tmp_path):
    """Red, green and blue thirds, of several shapes: crops come from the whole picture in both."""
    for i, (w, h) in enumerate([(90, 30), (60, 40), (120, 24)]):
        thirds = Image.new("RGB", (w, h), "red")
        thirds.paste((0, 255, 0), (w // 3, 0, w, h))
        thirds.paste((0, 0, 255), (2 * w // 3, 0, w, h))
        (tmp_path / "train" / "a").mkdir(parents=True, exist_ok=True)
        thirds.save(tmp_path / "train" / "a" / f"{i}.png")
    settings = {"data": "folder", "root": str(tmp_path), "image_size": 16, "workers": 0}
    memory, stream = (images_for(load_config(settings, stream=s)) for s in (False, True))
    assert isinstance(memory, be.ImageSet) and memory.images.shape == (3, 3, 28, 28)
    plain = {"flip": 0.0, "jitter": 0.0, "grey": 0.0, "blur": (0.0, 0.0), "solarise": (0.0, 0.0)}
    views, rows = TwinViews("imagenet", 16, **plain), torch.arange(3).repeat(40)
    both = [
        views.of_batch(batch, "cpu", torch.Generator().manual_seed(0))
        for images in (memory, stream)
        for batch in images.batches([rows], itertools.count())
    ]
    for a, b in zip(*both, strict=True):
        assert torch.equal(a, b)
    colours = views.denormalize(both[0][0]).mean((0, 2, 3))
    assert (colours > 0.15).all(), colours
