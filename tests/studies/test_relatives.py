"""The comparison of five methods: same start and batches, tuned on held-out images, one folder that goes on."""

import json

import numpy as np
import pytest
import scipy.stats
import torch
from tiny import CONFIG, tiny_encoder, tiny_images

from barlow_edu import cli
from barlow_edu.studies import relatives as comparison
from barlow_edu.studies.costs import saved_bytes, step_costs

SIZES = {key: CONFIG[key] for key in ("encoder", "image_size", "proj_dim", "precision")}
SETTINGS = {**SIZES, "limit": 64, "batch_size": 16, "epochs": 1}
TUNING = {"images": 40, "held_out": 24, "epochs": 1, "seed": 0}
SETS = {"train": tiny_images(100, size=20), "test": tiny_images(48, size=20, seed=1)}


def load(name, root, split, limit):
    return SETS[split] if limit is None else SETS[split].subset(slice(limit))


@pytest.fixture(scope="module", autouse=True)
def small():
    """Images and an encoder of a few parameters."""
    with tiny_encoder(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "_load", load)
        patch.setattr(comparison, "K", 5)
        patch.setattr("barlow_edu.studies.costs.load_images", load)
        yield


def compare(out, **options):
    return comparison.compare(
        out, rates=(0.001, 0.02), seeds=(0, 1), tuning=TUNING, progress=False, **SETTINGS, **options
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return compare(tmp_path_factory.mktemp("comparison") / "made")


def test_a_comparison_is_one_folder(made):
    files = ["comparison.json", "environment.json", "settings.yaml", "tuning.json"]
    assert sorted(f.name for f in made.path.iterdir()) == files
    assert made.methods == ["barlow_twins", "simclr", "byol", "vicreg", "simsiam"]
    assert len(made.rows) == 10 and made.environment["threads"] == 1
    assert made.settings["own"]["simclr"] == {"temperature": 0.2}
    assert comparison.load_comparison(made.path).rows == made.rows
    assert set(made.baselines) == {"pixels", "random encoder"}
    for row in made.rows:
        assert 0 <= row["knn"] <= 1 and 0 <= row["linear"] <= 1
        assert row["step"] == 4 and row["embedding_rank"] >= 1


def test_the_rate_with_the_best_held_out_accuracy_is_taken(made):
    for method, chosen in made.tuning["chosen"].items():
        tried = [row for row in made.tuning["tried"] if row["method"] == method]
        assert [row["lr"] for row in tried] == [0.001, 0.02]
        best = max(tried, key=lambda row: row["knn"])
        assert chosen == best["lr"] == made.column(method, "lr")[0]


def test_tuning_sees_neither_the_test_images_nor_those_it_trains_on():
    fit, held = comparison._held_out("garments", None, TUNING)
    assert (len(fit), len(held)) == (40, 24)
    rows = {tuple(x.flatten().tolist()) for x in fit.images}
    assert not rows & {tuple(x.flatten().tolist()) for x in held.images}
    train = {tuple(x.flatten().tolist()) for x in SETS["train"].images}
    assert all(tuple(x.flatten().tolist()) in train for x in held.images)


def test_intervals_are_students(made):
    knn = made.column("simclr", "knn")
    expected = scipy.stats.t.interval(0.95, 1, knn.mean(), scipy.stats.sem(knn))
    if knn.std() > 0:
        assert made.interval("simclr", "knn") == pytest.approx(expected)
    low, high = made.interval("simclr", "linear", "byol")
    difference = made.column("simclr", "linear") - made.column("byol", "linear")
    assert (low + high) / 2 == pytest.approx(difference.mean())
    score = made.score("simclr", "knn")
    assert (score.mean, score.sd) == pytest.approx((knn.mean(), knn.std(ddof=1)))


def test_a_stopped_comparison_goes_on_with_the_same_numbers(made, tmp_path):
    folder = tmp_path / "stopped"
    folder.mkdir()
    for file in made.path.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    found = json.loads((folder / "comparison.json").read_text())
    lost = found["rows"].pop()
    (folder / "comparison.json").write_text(json.dumps(found))
    again = compare(folder).rows[-1]
    changing = ("cpu_seconds", "minutes")
    assert {k: v for k, v in again.items() if k not in changing} == {
        k: v for k, v in lost.items() if k not in changing
    }
    with pytest.raises(ValueError, match=r"other settings \(config\). Choose another folder"):
        compare(folder, weight_decay=0.5)


@pytest.mark.parametrize("name, value", [("method", "byol"), ("lr", 0.1), ("seed", 1)])
def test_what_the_comparison_varies_cannot_be_set(tmp_path, name, value):
    with pytest.raises(ValueError, match=f"{name} differs from training to training"):
        compare(tmp_path / "x", **{name: value})
    assert not (tmp_path / "x").exists()


def test_unknown_names_are_told(made, tmp_path):
    with pytest.raises(KeyError, match="No method 'dino'. There are barlow_twins, simclr"):
        made.column("dino", "knn")
    with pytest.raises(KeyError, match="No column 'accuracy'. There are method, seed"):
        made.column("byol", "accuracy")
    with pytest.raises(FileNotFoundError, match="Make one: python -m barlow_edu sweep relatives"):
        comparison.load_comparison(tmp_path / "nowhere")


def test_the_command_prints_a_line_a_method(made, monkeypatch, capsys):
    monkeypatch.setattr(comparison, "compare", lambda out, **settings: made)
    assert cli.main(["sweep", "relatives", "--out", "x", "--set", "epochs=1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == made.methods
    assert all("kNN" in line or "knn" in line for line in lines[1:])


def test_images_are_shrunk_to_the_size_of_the_views():
    shrunk = comparison._shrunk(SETS["test"], 10)
    blocks = SETS["test"].images.double().unflatten(3, (10, 2)).unflatten(2, (10, 2))
    np.testing.assert_array_equal(shrunk.images, blocks.mean((3, 5)).float().round())
    assert comparison._shrunk(SETS["test"], 20) is SETS["test"]


# costs


def test_saved_bytes_are_counted_once_and_without_the_model():
    net = torch.nn.Linear(3, 4, bias=False)
    x = torch.ones(10, 3)
    assert (
        saved_bytes(lambda: net(x).sum(), net) == 10 * 3 * 4
    )  # the input, for the weight's gradient

    def exp():
        y = net(x).exp()  # keeps y
        return (y * y).sum()  # keeps y again

    assert saved_bytes(exp, net) == 10 * 3 * 4 + 10 * 4 * 4


def test_costs_of_a_step(made):
    assert {c["parameters"] for m, c in made.costs.items() if m not in ("byol", "simsiam")} == {
        made.costs["barlow_twins"]["parameters"]
    }
    byol = made.costs["byol"]
    assert byol["teacher_parameters"] == made.costs["vicreg"]["parameters"]
    assert all(c["cpu_seconds"] > 0 and c["saved_bytes"] > 10_000 for c in made.costs.values())
    config = made.settings["config"]
    assert set(step_costs({"a": config}, rounds=1)["a"]) == set(byol)
