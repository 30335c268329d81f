"""Streamed class folders: what a canvas holds, who decodes what, unreadable files, exact resuming."""

import json
import logging
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import CONFIG
from torchvision.transforms import functional as F

from barlow_edu.config import images_for, load_config, open_stream
from barlow_edu.data import ImageSet
from barlow_edu.storage.interrupts import SIGNALS, TrainingInterrupted
from barlow_edu.storage.stream import ImageStream
from barlow_edu.training import pretrain
from barlow_edu.views import TwinViews

SHAPES = ((60, 40), (30, 50), (20, 20), (90, 64))  # width, height
BROKEN = 5  # this file of the tree cannot be read


pytestmark = pytest.mark.usefixtures("registered")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Two classes of 20 pictures, of several shapes; number 5 is cut short."""
    root = tmp_path_factory.mktemp("tree")
    rng = np.random.RandomState(0)
    for k in range(40):
        w, h = SHAPES[k % 4]
        coarse = Image.fromarray(rng.randint(0, 256, (4, 4, 3), dtype=np.uint8))
        folder = root / "train" / "ab"[k // 20]
        folder.mkdir(parents=True, exist_ok=True)
        coarse.resize((w, h), Image.Resampling.BICUBIC).save(folder / f"{k:02}.jpg", quality=95)
    broken = root / "train" / "a" / f"{BROKEN:02}.jpg"
    broken.write_bytes(broken.read_bytes()[:100])
    return root


def configuration(tree, **overrides):
    settings = CONFIG | {"data": "folder", "root": str(tree), "stream": True, "views": "imagenet"}
    return load_config(settings | {"workers": 0, "batch_size": 8, "image_size": 16} | overrides)


def picture(tree, k):
    return Image.open(tree / "train" / "ab"[k // 20] / f"{k:02}.jpg").convert("RGB")


# the canvas


def test_a_picture_lies_in_the_corner_of_its_canvas_shrunk_to_fit(tree):
    stream = open_stream(configuration(tree, canvas=30))
    batch = stream.load(torch.tensor([0, 1, 2, 3]))
    assert batch.images.shape == (4, 3, 30, 30) and batch.images.dtype == torch.uint8
    assert batch.sizes.tolist() == [[20, 30], [30, 18], [20, 20], [21, 30]]
    for k in range(4):
        h, w = batch.sizes[k].tolist()
        expected = picture(tree, k)
        if max(expected.size) > 30:
            expected = expected.resize((w, h), Image.Resampling.BICUBIC)
        expected = torch.from_numpy(np.array(expected)).permute(2, 0, 1)
        assert (batch.images[k, :, :h, :w].int() - expected.int()).abs().float().mean() < 2
        assert not batch.images[k, :, h:].any() and not batch.images[k, :, :, w:].any()


def test_a_large_jpeg_is_decoded_small(tmp_path):
    """Pillow's draft mode: a picture of 8 times the canvas comes out nearly the same, much sooner."""
    ramp = np.linspace(0, 255, 1600).astype(np.uint8)
    (tmp_path / "train" / "a").mkdir(parents=True)
    Image.fromarray(np.stack([np.tile(ramp, (1200, 1))] * 3, 2)).save(tmp_path / "train/a/0.jpg")
    batch = open_stream(configuration(tmp_path, canvas=40)).load(torch.tensor([0]))
    assert batch.sizes.tolist() == [[30, 40]]
    expected = torch.linspace(0, 255, 41)[:-1] + 255 / 80
    assert (batch.images[0, :, :30, :].float() - expected).abs().max() < 6


def test_no_view_sees_the_rest_of_the_canvas(tree):
    stream = open_stream(configuration(tree))
    batch = stream.load(torch.arange(16))
    other = batch.images.clone()
    for image, (h, w) in zip(other, batch.sizes.tolist(), strict=True):
        image[:, h:], image[:, :, w:] = 255, 255
    assert not torch.equal(other, batch.images)
    views = TwinViews("imagenet", 16)
    one, two = (
        views.of_batch(batch._replace(images=x), "cpu", torch.Generator().manual_seed(0))
        for x in (batch.images, other)
    )
    assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])


def test_views_from_a_canvas_are_views_of_the_picture(tree):
    """Where nothing had to be shrunk: the same draws on the picture itself."""
    stream = open_stream(configuration(tree, canvas=96))
    batch = stream.load(torch.tensor([1]))
    views = TwinViews("imagenet", 16)
    found = views.of_batch(batch, "cpu", torch.Generator().manual_seed(3))
    whole = torch.from_numpy(np.array(picture(tree, 1))).permute(2, 0, 1)[None]
    expected = views(whole, torch.Generator().manual_seed(3))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_boxes_stay_within_each_image_and_fill_it():
    sizes = torch.tensor([[20, 30], [30, 10]]).repeat(500, 1)
    drawn = TwinViews("imagenet", 16).draw(1000, *sizes.unbind(1))
    top, left, h, w = drawn.box.unbind(1)
    assert (top >= 0).all() and (left >= 0).all() and (h >= 1).all() and (w >= 1).all()
    assert ((top + h) <= sizes[:, 0]).all() and ((left + w) <= sizes[:, 1]).all()
    for k in (0, 1):
        assert (top + h)[k::2].max() == sizes[k, 0] and (left + w)[k::2].max() == sizes[k, 1]


def test_a_share_has_the_views_of_the_whole_batch(tree):
    stream = open_stream(configuration(tree))
    views, rows = TwinViews("imagenet", 16), torch.arange(8, 16)
    whole = views.of_batch(stream.load(rows), "cpu", torch.Generator().manual_seed(1))
    for own in (slice(0, 4), slice(4, 8)):
        generator = torch.Generator().manual_seed(1)
        part = views.of_batch(stream.load(rows[own]), "cpu", generator, own, 8)
        for a, b in zip(part, whole, strict=True):
            torch.testing.assert_close(a, b[own], atol=1e-5, rtol=1e-5)


# who decodes what


def collect(stream, rows, keys=None):
    found = list(stream.batches(rows, keys))
    stream.close()
    return found


@pytest.mark.parametrize("pipeline", ["decode_once", "per_image"])
def test_workers_change_nothing(tree, pipeline):
    rows = [torch.tensor([3, 5, 30]), torch.tensor([0]), torch.tensor([39, 1])]
    keys = [7, 8, 9]
    here = collect(open_stream(configuration(tree, pipeline=pipeline)), rows, keys)
    two = collect(open_stream(configuration(tree, pipeline=pipeline, workers=2)), rows, keys)
    for a, b in zip(here, two, strict=True):
        assert torch.equal(a.images, b.images) and torch.equal(a.rows, b.rows)
        assert a.second is b.second is None or torch.equal(a.second, b.second)
    assert [b.rows.tolist() for b in here] == [[3, 6, 30], [0], [39, 1]]
    kind = torch.uint8 if pipeline == "decode_once" else torch.float32
    assert here[0].images.dtype == kind


def test_workers_may_be_spawned(tree):
    """No worker relies on memory it inherited."""
    rows = [torch.tensor([3, 4]), torch.tensor([2])]
    stream = open_stream(configuration(tree, workers=1))
    stream._loader = stream._open()
    stream._loader.multiprocessing_context = "spawn"
    here = collect(open_stream(configuration(tree)), rows)
    for a, b in zip(collect(stream, rows), here, strict=True):
        assert torch.equal(a.images, b.images)


def test_workers_serve_one_epoch_after_the_other(tree):
    stream = open_stream(configuration(tree, workers=1))
    for rows in ([[1, 2], [3]], [[4]], [[2], [1]]):
        rows = [torch.tensor(r) for r in rows]
        assert [b.rows.tolist() for b in stream.batches(rows)] == [r.tolist() for r in rows]
    next(iter(stream.batches([torch.tensor([k]) for k in range(4)])))  # an epoch cut short
    assert [b.rows.tolist() for b in stream.batches([torch.tensor([9])])] == [[9]]
    stream.close()


# the paper's pipeline


def test_reference_views_are_torchvisions(tree):
    """Without chance: the whole picture, resized and normalised."""
    fixed = {"scale": [1.0, 1.0], "ratio": [1.5, 1.5], "flip": 0.0, "jitter": 0.0, "grey": 0.0}
    fixed |= {"blur": [0.0, 0.0], "solarise": [0.0, 1.0]}
    stream = open_stream(configuration(tree, pipeline="per_image", augment=fixed))
    batch = next(iter(stream.batches([torch.tensor([0, 4])])))  # 60 x 40: the shape asked for
    mean, std = TwinViews("imagenet").recipe.mean, TwinViews("imagenet").recipe.std
    for i, k in enumerate((0, 4)):
        small = picture(tree, k).resize((16, 16), Image.Resampling.BICUBIC)
        one = F.normalize(F.to_tensor(small), mean, std)
        two = F.normalize(F.to_tensor(F.solarize(small, 128)), mean, std)
        assert torch.allclose(batch.images[i], one) and torch.allclose(batch.second[i], two)


def test_reference_views_depend_on_key_and_row_alone(tree):
    stream = open_stream(configuration(tree, pipeline="per_image"))
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    a, b, c = stream.batches(
        [torch.tensor([1, 2]), torch.tensor([2, 1]), torch.tensor([1])], [4, 4, 5]
    )
    assert torch.equal(a.images[0], b.images[1]) and torch.equal(a.second[1], b.second[0])
    assert not torch.equal(a.images[0], c.images[0])
    assert torch.equal(torch.random.get_rng_state(), before)  # no one else's draws are used up


# unreadable files


def test_an_unreadable_file_is_named_once_and_its_neighbour_stands_in(tree, caplog):
    stream = open_stream(configuration(tree))
    with caplog.at_level(logging.WARNING, "barlow_edu"):
        for _ in range(2):
            [batch] = stream.batches([torch.tensor([BROKEN, 9])])
            assert batch.rows.tolist() == [BROKEN + 1, 9]
    told = [r.getMessage() for r in caplog.records]
    assert len(told) == 1 and "05.jpg" in told[0] and "another image stands in" in told[0]
    assert list(stream.unreadable) == [str(tree / "train" / "a" / "05.jpg")]


def test_a_tree_of_unreadable_files_ends_in_an_error(tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    for k in range(3):
        (tmp_path / "train" / "a" / f"{k}.jpg").write_bytes(b"no picture")
    stream = open_stream(configuration(tmp_path))
    with pytest.raises(RuntimeError, match="3 files in a row cannot be read(.|\n)*1.jpg"):
        stream.load(torch.tensor([1]))


# choosing


def test_what_fits_is_loaded_and_what_does_not_is_streamed(tree, monkeypatch):
    assert isinstance(images_for(configuration(tree)), ImageStream)
    auto = configuration(tree, stream="auto")
    with pytest.warns(UserWarning, match="05.jpg"):
        assert isinstance(images_for(auto), ImageSet)
    monkeypatch.setattr("barlow_edu.config.IN_MEMORY", 1000)
    assert isinstance(images_for(auto), ImageStream)
    with pytest.warns(UserWarning, match="05.jpg"):
        assert isinstance(images_for(configuration(tree, stream=False)), ImageSet)
    reference = configuration(tree, stream="auto", pipeline="per_image")
    assert images_for(reference).mode == "per_image"
    with pytest.raises(ValueError, match="pipeline=per_image works on files, but stream=False"):
        images_for(configuration(tree, stream=False, pipeline="per_image"))
    with pytest.raises(ValueError, match="data=folder and root=PATH.*got data=garments"):
        images_for(load_config(stream=True))


def test_a_limit_keeps_the_classes_balanced(tree):
    stream = open_stream(configuration(tree, limit=10))
    assert len(stream) == 10 and stream.labels.bincount().tolist() == [5, 5]
    assert stream.classes == ["a", "b"]


def test_the_fingerprint_tells_other_files_and_other_pipelines(tree, tmp_path):
    one = open_stream(configuration(tree)).fingerprint()
    assert one == open_stream(configuration(tree, workers=2)).fingerprint()
    assert one != open_stream(configuration(tree, limit=10)).fingerprint()
    assert one != open_stream(configuration(tree, canvas=20)).fingerprint()
    assert one != open_stream(configuration(tree, pipeline="per_image")).fingerprint()
    moved = tmp_path / "elsewhere"
    moved.symlink_to(tree)
    assert one == open_stream(configuration(moved)).fingerprint()


def test_the_fingerprint_does_without_files_that_cannot_be_read(tmp_path):
    for name in "abc":
        (tmp_path / name).mkdir()
        Image.new("RGB", (9, 9)).save(tmp_path / name / "1.png")
    stream = open_stream(configuration(tmp_path))
    whole = stream.fingerprint()
    (tmp_path / "b" / "1.png").unlink()
    (tmp_path / "b" / "1.png").mkdir()
    assert whole != stream.fingerprint() == stream.fingerprint()


# training


def weights(run):
    return torch.cat([p.flatten() for p in run.load_model().state_dict().values()])


@pytest.mark.parametrize("pipeline", ["decode_once", "per_image"])
def test_a_streamed_run_resumes_exactly(tree, tmp_path, pipeline):
    config = configuration(tree, pipeline=pipeline, snapshots=99)
    whole = pretrain(config, tmp_path / "whole", progress=False)

    def stop_at_seven(step, c):
        if step == 7:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(TrainingInterrupted, match="saved at step 7"):
        pretrain(config, tmp_path / "cut", progress=False, on_snapshot=stop_at_seven)
    cut = pretrain(config | {"workers": 1}, tmp_path / "cut", resume=True, progress=False)
    assert torch.equal(weights(whole), weights(cut))
    assert whole.metrics[-1]["loss"] == cut.metrics[-1]["loss"]
    environment = json.loads((whole.path / "environment.json").read_text())
    assert environment["images"] == 40 and environment["unreadable"] == 1


def test_a_folder_trains_the_same_in_memory_and_streamed(tree, tmp_path):
    whole = tmp_path / "tree"
    shutil.copytree(tree, whole)
    (whole / "train" / "a" / f"{BROKEN:02}.jpg").unlink()
    runs = [
        pretrain(configuration(whole, stream=s, epochs=1), tmp_path / f"{s}", progress=False)
        for s in (False, True)
    ]
    assert torch.equal(*map(weights, runs))


def test_the_two_pipelines_see_different_views_of_the_same_order(tree, tmp_path):
    runs = [
        pretrain(configuration(tree, pipeline=p, epochs=1), tmp_path / p, progress=False)
        for p in ("decode_once", "per_image")
    ]
    assert not torch.equal(*map(weights, runs))
    assert all(np.isfinite(run.metrics[-1]["loss"]) for run in runs)


def test_signals_to_workers_do_not_end_the_training(tree):
    stream = open_stream(configuration(tree, workers=1))
    batches = stream.batches(torch.arange(40).split(2))
    next(batches)
    (worker,) = stream._loader._iterator._workers
    for signum in SIGNALS:  # as a terminal and SLURM send them: to all processes
        os.kill(worker.pid, signum)
    assert len(list(batches)) == 19 and worker.is_alive()
    stream.close()


def test_a_stream_of_centre_crops_is_not_trained_on(tree, tmp_path):
    config = configuration(tree)
    with pytest.raises(ValueError, match="mode 'centre' holds the evaluation's crops"):
        pretrain(config, tmp_path / "run", open_stream(config, mode="centre"), progress=False)
    assert not (tmp_path / "run").exists()
