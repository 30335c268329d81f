"""The protocol on a run: against the probes one by one, its seeds, its file."""

import json
import shutil

import pytest
import torch
from PIL import Image
from tiny import CONFIG, tiny_images

import barlow_edu as be
from barlow_edu.data import ImageSet
from barlow_edu.evaluation import load_sets
from barlow_edu.evaluation.probes import choose_regularization
from barlow_edu.evaluation.results import add_to_run, evaluation_table
from barlow_edu.evaluation.supervised import Budget, supervised_encoder
from barlow_edu.training import pretrain

pytestmark = pytest.mark.usefixtures("registered")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "a"
    return pretrain(CONFIG, out, tiny_images(), progress=False)


@pytest.fixture(scope="module")
def sets():
    return tiny_images(120), tiny_images(60, seed=1)


def test_an_evaluation_stands_beside_pixels_and_a_random_encoder(run, sets):
    train, test = sets
    found = be.evaluate(run, train, test, k=5)
    assert list(found["rows"]) == ["pixels", "random encoder", "trained encoder"]
    assert (found["train_images"], found["test_images"], found["k"]) == (120, 60, 5)
    assert (found["data"], found["temperature"]) == ("tiny", 0.1)
    pixels = [be.pixel_features(s.images) for s in sets]
    for name, model in [("random", run.load_model(weights=False)), ("trained", run.load_model())]:
        row, normalized = found["rows"][f"{name} encoder"], run.views().normalize
        a, b = (model.encode(normalized(s.images)).detach() for s in sets)
        assert row["knn"] == pytest.approx(
            be.knn_accuracy(a, train.labels, b, test.labels, 5), 1e-3
        )
        assert row["linear"] == pytest.approx(
            be.linear_probe(a, train.labels, b, test.labels), 1e-3
        )
        assert row["effective_rank"] == pytest.approx(be.effective_rank(b), 1e-3)
        assert row["rankme"] == pytest.approx(be.rankme(b), 1e-3)
        assert row["alpha"] == pytest.approx(be.spectrum_decay(b).alpha, 1e-3)
        assert row["regularization"] == [choose_regularization(a, train.labels)]
    near, generator = found["identity"], torch.Generator().manual_seed(1)
    order = torch.randperm(60, generator=generator)  # all of them; then their views
    twins = run.views()(test.images[order], generator)
    assert (near["pairs"], near["dim"]) == (60, 8)
    for state, weights in (("untrained", False), ("trained", True)):
        c = run.load_model(weights).cross_correlation(*twins)
        assert near[state] == pytest.approx(be.distance_to_identity(c, 60)._asdict(), abs=1e-3)
    row = found["rows"]["pixels"]
    knn = be.knn_accuracy(pixels[0], train.labels, pixels[1], test.labels, 5)
    assert row["knn"] == pytest.approx(knn, abs=1e-4)
    assert not (run.path / "evaluation.json").exists()


def test_the_spectrum_is_that_of_the_first_test_images(run, sets, monkeypatch):
    monkeypatch.setattr(be.evaluation, "SPECTRUM_IMAGES", 30)
    row = be.evaluate(run, *sets, linear=False)["rows"]["pixels"]
    expected = be.effective_rank(be.pixel_features(sets[1].images[:30]))
    assert row["effective_rank"] == pytest.approx(expected, abs=1e-3)


def test_every_seed_splits_the_training_images_in_its_own_way(run, sets, monkeypatch):
    seeds = []

    def choose(features, labels, seed):
        seeds.append(seed)
        return 0.1

    monkeypatch.setattr(be.probes, "choose_regularization", choose)
    be.evaluate(run, *sets, seeds=2)
    assert seeds == [0, 1] * 3


def test_an_evaluation_is_kept_where_that_is_wanted(run, sets):
    found = be.evaluate(run, *sets, linear=False, save=True)
    assert json.loads((run.path / "evaluation.json").read_text()) == found
    assert be.Run(run.path).evaluation == found
    wanted = {"knn", "effective_rank", "rankme", "alpha", "seeds"}
    assert all(set(row) == wanted for row in found["rows"].values())


def test_a_run_can_be_named_by_its_folder(run, sets):
    by_path = be.evaluate(str(run.path), *sets, linear=False)
    assert by_path == be.evaluate(run, *sets, linear=False)


def test_a_run_is_not_tried_on_other_images_unasked(run):
    """It was trained on images that were handed over, which its configuration cannot load."""
    with pytest.raises(ValueError, match="trained on 'tiny', but .* loads 'garments'. Give train="):
        be.evaluate(run)


def test_a_run_is_tried_on_its_own_images_by_default(tmp_path):
    settings = {"image_size": 32, "limit": 40, "epochs": 1}
    run = pretrain(CONFIG, tmp_path / "run", "garments", progress=False, **settings)
    found = be.evaluate(run, linear=False, test=be.load_images(split="test", limit=100))
    assert (found["train_images"], found["test_images"]) == (40, 100)


def test_splits_with_other_classes_are_refused(run, sets):
    train, test = sets
    other = ImageSet(test.images, test.labels, ["0", "1", "3", "4"], "tiny")
    with pytest.raises(
        ValueError, match=r"The classes differ: \['0', '1', '2', '3'\] for training"
    ):
        be.evaluate(run, train, other)


# seeds and the slow parts


@pytest.fixture(scope="module")
def whole(run, sets):
    short = Budget(steps=30, epochs=1, batch_size=32, lr=0.01)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(be.evaluation, "BUDGETS", dict.fromkeys(be.evaluation.BUDGETS, vars(short)))
        options = {"few": (1, 3), "fine_tuning": (2, "all"), "supervised": 1}
        return be.evaluate(run, *sets, k=5, seeds=2, **options)


def test_seeds_change_what_the_protocol_says(whole, run, sets):
    train, test = sets
    rows, normalize = whole["rows"], run.views().normalize
    assert "knn" not in rows["pixels"]["sd"] and "knn" not in rows["trained encoder"]["sd"]
    knn, ranks = [], []
    for seed in (0, 1):
        encoder = be.config.build_model(run.config | {"seed": seed}).eval().encoder
        a, b = (be.extract_features(encoder, s.images, normalize) for s in sets)
        knn.append(be.knn_accuracy(a, train.labels, b, test.labels, 5))
        ranks.append(be.effective_rank(b))
    assert rows["random encoder"]["knn"] == pytest.approx(sum(knn) / 2, abs=1e-4)
    # Another seed is another encoder.
    assert rows["random encoder"]["effective_rank"] == pytest.approx(sum(ranks) / 2, abs=1e-3)
    assert abs(ranks[0] - ranks[1]) > 0.01
    assert all(row["seeds"] == 2 for row in rows.values())
    assert whole["protocol"]["seeds"] == [0, 1]


def test_few_labels_stand_in_every_row(whole, run, sets):
    a, b = (be.pixel_features(s.images) for s in sets)
    expected = be.few_label_probe(a, sets[0].labels, b, sets[1].labels, (1, 3), (0, 1))
    for n, score in expected.items():
        assert whole["rows"]["pixels"]["few"][str(n)] == pytest.approx(score._asdict(), abs=1e-4)
    assert all(list(row["few"]) == ["1", "3"] for row in whole["rows"].values())


def test_the_supervised_encoder_is_trained_once_a_seed_and_told_with_its_budget(whole, run, sets):
    records = whole["supervised"]
    assert [r["seed"] for r in records] == [0, 1]
    assert {(r["epochs"], r["steps"], r["images"]) for r in records} == {(1, 7, 120)}
    assert records[1]["accuracy"] == supervised_encoder(run, *sets, 1, seed=1)[1]["accuracy"]


def test_fine_tuning_stands_beside_training_from_scratch(whole):
    found = whole["fine_tuning"]
    assert list(found) == ["budget", "2", "all"]
    assert set(found["2"]) == set(found["all"]) == set(found["budget"])
    assert found["all"]["pretrained"]["seeds"] == 2
    assert found["all"]["pretrained"]["mean"] > 0.5  # four classes, told apart by their colour


def test_the_table_has_every_part(whole):
    text = evaluation_table(whole)
    for part in ("RankMe", "labels a class:", "random init", "over 2 seeds", "supervised encoder"):
        assert part in text
    assert len({len(line) for line in text.splitlines()[1:6]}) == 1  # aligned


def test_a_shorter_evaluation_does_not_wipe_out_the_longer(run, sets, whole, tmp_path):
    copy = be.Run(shutil.copytree(run.path, tmp_path / "copy"))
    (copy.path / "evaluation.json").write_text(json.dumps(whole))
    found = be.evaluate(copy, *sets, k=5, linear=False, save=True)
    kept = be.Run(copy.path).evaluation
    assert kept["fine_tuning"] == whole["fine_tuning"]
    assert "supervised encoder" in kept["rows"]
    row = kept["rows"]["trained encoder"]
    assert row["few"] == whole["rows"]["trained encoder"]["few"]
    assert row["seeds"] == 1 and "sd" not in row
    assert found["rows"]["trained encoder"].keys() < row.keys()


def test_a_run_that_was_renamed_meanwhile_is_not_made_anew(whole, tmp_path):
    with pytest.raises(FileNotFoundError, match="gone: somebody has renamed or removed it"):
        add_to_run(be.Run(tmp_path / "gone"), whole)
    assert not (tmp_path / "gone").exists()


def test_other_numbers_of_images_replace_it(run, sets, whole, tmp_path):
    copy = be.Run(shutil.copytree(run.path, tmp_path / "copy"))
    (copy.path / "evaluation.json").write_text(json.dumps(whole))
    found = be.evaluate(copy, sets[0], tiny_images(40, seed=1), k=5, linear=False, save=True)
    assert be.Run(copy.path).evaluation == found


def test_transfer_is_kept_apart(run, sets, tmp_path):
    copy = be.Run(shutil.copytree(run.path, tmp_path / "copy"))
    first = be.evaluate(copy, *sets, linear=False, save=True)
    others = [ImageSet(s.images.flip(1), s.labels, s.classes, "flipped") for s in sets]
    second = be.evaluate(copy, *others, linear=False, save=True)
    kept = be.Run(copy.path).evaluation
    assert kept == first | {"transfer": {"flipped": second}}
    assert second["data"] == "flipped"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"few": (31,)}, "between 1 and 30, .* smallest class, .* got 31"),
        ({"few": ("all",)}, "got 'all'"),
        ({"fine_tuning": (0,)}, "got 0"),
        ({"supervised": 0}, "supervised must be True or at least 1 epoch, got 0"),
        ({"supervised": -3}, "supervised must be True or at least 1 epoch, got -3"),
        ({"fine_tuning": ("most",)}, "got 'most'"),
    ],
)
def test_what_cannot_be_asked_is_told_before_the_work(run, sets, options, message, monkeypatch):
    monkeypatch.setattr(be.evaluation, "Protocol", None)
    with pytest.raises(ValueError, match=message):
        be.evaluate(run, *sets, **options)


def test_images_of_one_class_need_labels(run):
    images = tiny_images(40)
    one = ImageSet(images.images, torch.zeros(40, dtype=torch.long), ["all"], "heap")
    with pytest.raises(ValueError, match="labelled images of at least two classes, and heap has 1"):
        be.evaluate(run, one, one)


def test_each_row_is_kept_as_soon_as_it_is_there(run, sets, tmp_path, monkeypatch):
    copy = be.Run(shutil.copytree(run.path, tmp_path / "copy"))
    (copy.path / "evaluation.json").unlink(missing_ok=True)

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(be.evaluation, "supervised_encoder", fail)
    with pytest.raises(KeyboardInterrupt):
        be.evaluate(copy, *sets, linear=False, supervised=1, save=True)
    rows = ["pixels", "random encoder", "trained encoder"]
    assert list(be.Run(copy.path).evaluation["rows"]) == rows


def test_the_log_says_what_is_being_done_where_there_is_no_terminal(run, sets, caplog):
    caplog.set_level("INFO", "barlow_edu")
    be.evaluate(run, *sets, k=5, few=(1,), progress=None)
    lines = caplog.messages
    assert [line for line in lines if line.startswith("Evaluating")] == [
        f"Evaluating: {name}" for name in ("pixels", "random encoder", "trained encoder")
    ]
    assert lines.count("linear probe, seed 0") == lines.count("few labels, seed 0") == 3
    caplog.clear()
    be.evaluate(run, *sets, k=5, linear=False)
    assert not caplog.messages


def test_the_table_says_which_images(run, sets):
    found = be.evaluate(run, *sets, k=5, linear=False)
    assert found["trained_on"] == "tiny" and "trained on other" not in evaluation_table(found)
    others = [ImageSet(s.images, s.labels, s.classes, "copy") for s in sets]
    text = evaluation_table(be.evaluate(run, *others, k=5, linear=False))
    assert text.startswith("copy: 120 training and 60 test images")
    assert "The run was trained on other images: tiny" in text


def save_tree(root, seed):
    """Eight pictures a class and split."""
    for i, split in enumerate(("train", "test")):
        images = tiny_images(16, seed=seed + i, classes=2)
        for row, (picture, label) in enumerate(zip(images.images, images.labels, strict=True)):
            path = root / split / str(int(label)) / f"{row}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(path)
    return root


@pytest.mark.parametrize("way", ["memory", "decode_once", "per_image"])
def test_a_folder_of_other_pictures_is_not_taken_for_the_runs_own(tmp_path, way):
    """Both are called "folder": the fingerprint tells them apart, that of the files where the run streamed."""
    own, other = (save_tree(tmp_path / name, seed) for name, seed in (("own", 0), ("other", 5)))
    settings = {"data": "folder", "root": str(own), "epochs": 1, "batch_size": 8, "workers": 0}
    settings |= {"stream": True, "pipeline": way} if way != "memory" else {}
    run = pretrain(CONFIG | settings, tmp_path / "run", progress=False)
    assert [len(s) for s in load_sets(run)] == [16, 16] and load_sets(run)[1].name == "folder"
    assert {s.name for s in load_sets(run, root=str(other))} == {f"folder in {other}"}
    shutil.rmtree(own)
    other.rename(own)
    with pytest.raises(ValueError, match="trained on 'folder', but .* 'folder in .*own'. Give"):
        load_sets(run)


def test_the_device_is_the_runs_unless_another_is_asked_for(run, sets, tmp_path):
    copy = be.Run(shutil.copytree(run.path, tmp_path / "copy"))
    copy.config["device"] = "cuda:77"
    with pytest.raises(ValueError, match="device='cuda:77', but torch finds"):
        be.evaluate(copy, *sets)
    assert be.evaluate(copy, *sets, linear=False, device="cpu")["k"] == 200


def test_a_class_without_images_does_not_forbid_few_labels(run, sets):
    """A class folder has to be there in both splits, even if it is empty."""
    train, test = (ImageSet(s.images, s.labels, [*s.classes, "empty"], s.name) for s in sets)
    rows = be.evaluate(run, train, test, linear=False, few=(1,))["rows"]
    assert 0 < rows["pixels"]["few"]["1"]["mean"] <= 1
