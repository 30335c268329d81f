"""Files: safe writing, class-folder trees in every format, downloads that fail in every way."""

import hashlib
import http.server
import tarfile
import threading
import time
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import barlow_edu as be
from barlow_edu.data import _balanced
from barlow_edu.storage import files

# replacing()


def test_replacing_replaces_when_the_block_ends_well(tmp_path):
    target = tmp_path / "new folder" / "a.txt"
    with files.replacing(target) as temporary:
        temporary.write_text("one")
        assert not target.exists()
    assert target.read_text() == "one"
    assert [p.name for p in target.parent.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_replacing_leaves_the_old_file_when_the_block_fails(tmp_path, error):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(error), files.replacing(target) as temporary:
        temporary.write_text("half of the new")
        raise error
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


# class-folder trees


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
    decoded, decode = [], files._decode
    monkeypatch.setattr(files, "_decode", lambda *a: decoded.append(a) or decode(*a))
    part = be.load_images("folder", tmp_path, limit=6)
    assert len(decoded) == len(part) == 6
    rows = _balanced(whole.labels, 6, 0)
    assert torch.equal(part.images, whole.images[rows])
    assert torch.equal(part.labels, whole.labels[rows])


def test_many_files_are_decoded_in_order(tmp_path, monkeypatch):
    for i in range(30):
        put(tmp_path / "train" / f"c{i % 3}" / f"{i:02}.png", (i, 2 * i, 3 * i), (4, 4))
    images = be.load_images("folder", tmp_path)
    numbers = images.images[:, 0, 0, 0]
    assert torch.equal(numbers % 3, images.labels.to(torch.uint8))
    assert sorted(numbers.tolist()) == list(range(30))


# downloads


class Host:
    """A web server on this machine whose manners can be chosen.

    manners: "good"; "missing" (404); "wrong" (another file); "cut" (ends after half of what was asked for);
    "slow" (a trickle for half a second, then the rest); "noise" (does not speak HTTP); "whole" (ignores ranges).
    """

    def __init__(self, content, manners="good"):
        self.content, self.manners, self.asked = content, manners, []
        host = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                host.answer(self)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def url(self, name):
        return f"http://127.0.0.1:{self.server.server_port}/{name}"

    def answer(self, request):
        given = request.headers.get("Range")
        self.asked.append(given)
        start = int(given[len("bytes=") : -1]) if given and self.manners != "whole" else 0
        body = self.content[start:] if self.manners != "wrong" else b"x" * len(self.content)
        if self.manners == "noise":
            request.wfile.write(b"what?\r\n\r\n")
        elif self.manners == "missing":
            request.send_error(404)
        elif start and start >= len(self.content):
            request.send_error(416)
        else:
            request.send_response(206 if start else 200)
            request.send_header("Content-Length", str(len(body)))
            request.end_headers()
            self.send(request, body)
        request.close_connection = True

    def send(self, request, body):
        try:
            if self.manners == "slow" and len(self.asked) == 1:
                for i in range(25):
                    request.wfile.write(body[i : i + 1])
                    time.sleep(0.02)
                body = body[25:]
            request.wfile.write(body[: len(body) // 2] if self.manners == "cut" else body)
        except ConnectionError:  # the client has left
            pass

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def archive(tmp_path):
    """The bytes of an archive with one file."""
    (tmp_path / "hello.txt").write_text("hello")
    (tmp_path / "noise").write_bytes(np.random.RandomState(0).bytes(20_000))
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "hello.txt", "hello.txt")
        tar.add(tmp_path / "noise", "noise")
    return (tmp_path / "a.tar.gz").read_bytes()


@pytest.fixture
def serve(archive, monkeypatch):
    """serve("missing", "good") starts hosts with these manners and makes them the hosts of "toy"."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(files, "PATIENCE", 0.1)
    monkeypatch.setattr(files, "SLOW", 500)  # a trickle is slower, a busy machine is not
    hosts = []

    def start(*manners):
        hosts.extend(Host(archive, m) for m in manners)
        md5 = hashlib.md5(archive).hexdigest()
        urls = [host.url(f"toy-{i}.tar.gz" if i else "toy.tar.gz") for i, host in enumerate(hosts)]
        monkeypatch.setitem(files.ARCHIVES, "toy", (md5, *urls))
        return hosts

    yield start
    for host in hosts:
        host.close()


def fetched(folder):
    """Fetch "toy" into folder and say whether its content is right and nothing half is left."""
    files.fetch_archive("toy", folder)
    names = sorted(p.name for p in folder.iterdir())
    return names == ["hello.txt", "noise", "toy.tar.gz"] and (
        (folder / "hello.txt").read_text() == "hello"
    )


def test_an_archive_is_downloaded_checked_and_unpacked_once(tmp_path, serve):
    first, mirror = serve("good", "good")
    assert fetched(tmp_path / "down")
    assert fetched(tmp_path / "down")  # what is there is not asked for again
    assert first.asked == [None]
    assert mirror.asked == []


@pytest.mark.parametrize("manners", ["missing", "wrong", "noise"])
def test_the_mirror_takes_over_when_the_first_host_fails(tmp_path, serve, manners):
    first, mirror = serve(manners, "good")
    assert fetched(tmp_path / "down")
    assert first.asked == mirror.asked == [None]


def test_the_mirror_continues_where_the_first_host_ended(tmp_path, serve, archive):
    first, mirror = serve("cut", "good")
    assert fetched(tmp_path / "down")
    assert first.asked == [None]
    assert mirror.asked == [f"bytes={len(archive) // 2}-"]


def test_the_mirror_takes_over_when_the_first_host_is_slow(tmp_path, serve):
    first, mirror = serve("slow", "good")
    assert fetched(tmp_path / "down")
    assert first.asked == [None]
    [range_] = mirror.asked
    assert range_.startswith("bytes=")  # and continues what had come


def test_a_slow_host_gets_a_second_chance_when_the_mirror_fails(tmp_path, serve):
    first, mirror = serve("slow", "missing")
    assert fetched(tmp_path / "down")
    assert len(first.asked) == 2 and first.asked[1].startswith("bytes=")
    assert len(mirror.asked) == 1


def test_a_host_that_is_fast_enough_is_kept(tmp_path, serve, monkeypatch):
    monkeypatch.setattr(files, "SLOW", 1)  # byte a second
    first, mirror = serve("slow", "good")
    assert fetched(tmp_path / "down")
    assert mirror.asked == []


def test_a_partial_file_of_an_earlier_attempt_is_continued(tmp_path, serve, archive):
    [host] = serve("good")
    (tmp_path / "down").mkdir()
    (tmp_path / "down" / "toy.tar.gz.part").write_bytes(archive[:1000])
    assert fetched(tmp_path / "down")
    assert host.asked == ["bytes=1000-"]


def test_a_host_that_ignores_ranges_sends_the_whole_file(tmp_path, serve, archive):
    [host] = serve("whole")
    (tmp_path / "down").mkdir()
    (tmp_path / "down" / "toy.tar.gz.part").write_bytes(archive[:1000])
    assert fetched(tmp_path / "down")


def test_a_complete_partial_file_needs_no_host(tmp_path, serve, archive):
    [host] = serve("good")
    (tmp_path / "down").mkdir()
    (tmp_path / "down" / "toy.tar.gz.part").write_bytes(archive)
    assert fetched(tmp_path / "down")
    assert host.asked == []


def test_a_partial_file_that_is_too_long_is_thrown_away(tmp_path, serve, archive):
    first, mirror = serve("good", "good")
    (tmp_path / "down").mkdir()
    (tmp_path / "down" / "toy.tar.gz.part").write_bytes(b"x" * len(archive))
    assert fetched(tmp_path / "down")
    assert mirror.asked == [None]


def test_a_connection_that_ends_early_is_continued_next_time(tmp_path, serve, archive):
    [host] = serve("cut")
    with pytest.raises(FileNotFoundError, match="the connection ended after 10,"):
        files.fetch_archive("toy", tmp_path / "down")
    host.manners = "good"
    assert fetched(tmp_path / "down")
    assert host.asked == [None, f"bytes={len(archive) // 2}-"]


def test_a_wrong_checksum_is_refused_and_not_kept(tmp_path, serve):
    serve("wrong", "wrong")
    with pytest.raises(FileNotFoundError, match="MD5 sum is not the published one"):
        files.fetch_archive("toy", tmp_path / "down")
    assert list((tmp_path / "down").iterdir()) == []


def test_a_wrong_archive_put_there_by_hand_is_refused(tmp_path, serve):
    serve("missing")
    (tmp_path / "down").mkdir()
    (tmp_path / "down" / "toy.tar.gz").write_bytes(b"an error page, say")
    with pytest.raises(FileNotFoundError, match="that is there does not have this MD5 sum"):
        files.fetch_archive("toy", tmp_path / "down")


def test_a_wrong_archive_put_there_by_hand_is_replaced(tmp_path, serve):
    serve("good")
    (tmp_path / "down").mkdir()
    (tmp_path / "down" / "toy.tar.gz").write_bytes(b"an error page, say")
    assert fetched(tmp_path / "down")


def test_every_host_that_failed_is_named(tmp_path, serve):
    hosts = serve("missing", "noise")
    with pytest.raises(FileNotFoundError) as caught:
        files.fetch_archive("toy", tmp_path / "down")
    told = str(caught.value)
    assert all(f"127.0.0.1:{host.server.server_port}" in told for host in hosts)
    assert "put toy.tar.gz (MD5 " in told and f"into {tmp_path / 'down'}" in told
