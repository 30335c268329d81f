"""Class-folder trees: every format, every colour mode, files that cannot be read, sizes, limits."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import barlow_edu as be
from barlow_edu.storage import decoding
from barlow_edu.storage.trees import balanced


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

    def stumble(path):
        if path == bad:
            raise TypeError("'<' not supported between instances of 'str' and 'int'")
        return real(path)

    monkeypatch.setattr(Image, "open", stumble)
    with pytest.warns(UserWarning, match="Skipped 1 unreadable images"):
        assert be.load_images("folder", tree).skipped == (str(bad),)


def test_a_tree_of_unreadable_files_is_refused(tmp_path):
    path = tmp_path / "train" / "a" / "0.png"
    path.parent.mkdir(parents=True)
    path.write_text("nothing")
    with pytest.raises(ValueError, match="None of 1 files could be read.*0.png"):
        be.load_images("folder", tmp_path)


@pytest.mark.parametrize("names", [[], ["a"], ["a/readme.txt"], [".hidden/1.png"], ["1.png"]])
def test_an_empty_tree_is_refused(tmp_path, names):
    (tmp_path / "train").mkdir()
    for name in names:
        path = tmp_path / "train" / name
        if path.suffix:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"")
        else:
            path.mkdir()
    with pytest.raises(ValueError, match="holds no images in class folders.*CLASS.*image.png"):
        be.load_images("folder", tmp_path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No folder .*nowhere.*train.*CLASS"):
        be.load_images("folder", tmp_path / "nowhere")


def test_hidden_files_and_folders_are_no_images(tree):
    put(tree / "train" / "a" / ".1.png")
    put(tree / "train" / "a" / ".thumbnails" / "1.png")
    put(tree / "train" / ".ipynb_checkpoints" / "1.png")
    (tree / "train" / "a" / "notes.txt").write_text("not an image")
    images = be.load_images("folder", tree)
    assert images.classes == ["a", "b"]
    assert len(images) == 2


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
    decoded, decode = [], decoding._decode
    monkeypatch.setattr(decoding, "_decode", lambda *a: decoded.append(a) or decode(*a))
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
