"""A study keeps what was trained, in one folder, and goes on where it stopped. Here one test trains."""

import json
from functools import partial

import numpy as np
import pytest
from PIL import Image

from barlow_edu.config import load_config
from barlow_edu.runs import load_run
from barlow_edu.studies.measure import Judges, train
from barlow_edu.studies.study import Study, follow, load_study

CONFIG = load_config("lambda_sweep", proj_dim=16)
POINTS = {"both": {}, "one": {"lambd": 0.0}}


class Trainer:
    """Trains nothing; numbers follow from the settings. Stops, where it is told to, as Ctrl-C does."""

    def __init__(self, stop_after=None):
        self.configs, self.stop_after = [], stop_after

    def __call__(self, config):
        if len(self.configs) == self.stop_after:
            raise KeyboardInterrupt
        self.configs.append(config)
        knn = 0.5 - config["lambd"] + 0.01 * config["seed"] ** 2 * (1 + 10 * config["lambd"])
        row = {"knn": knn, "minutes": 0.5, "spectrum": [2.0, config["lambd"]]}
        return row, np.full((2, 2), len(self.configs), np.uint8)


def begin(path, points=POINTS, seeds=(0, 1), key="variant", config=CONFIG, **declared):
    return Study.begin(path, config, points, seeds, key, **declared)


def filled(path, train=None, matrices=False, **options):
    study = begin(path, **options)
    list(study.fill(train or Trainer(), matrices))
    return Study(path)


@pytest.fixture
def study(tmp_path):
    return filled(tmp_path / "study", question="Which?")


def test_a_study_is_one_folder(study):
    assert sorted(f.name for f in study.path.iterdir()) == [
        "environment.json", "rows.json", "study.yaml",
    ]  # fmt: skip
    pairs = [(row["variant"], row["seed"]) for row in study.rows]
    assert pairs == [("both", 0), ("both", 1), ("one", 0), ("one", 1)]
    assert study.groups == study.variants == study.methods == ["both", "one"]
    assert study.settings["question"] == "Which?" and study.settings["seeds"] == [0, 1]
    assert study.environment["minutes"] == 2 and study.environment["data"] == "garments"
    assert study.environment["threads"] == 1 and study.environment["torch"]
    assert "spectrum" not in study.rows[0] and not study.bytes
    assert repr(study) == "Study('study', 4 trainings over variant)"


def test_a_points_settings_reach_its_training(tmp_path):
    train = Trainer()
    filled(tmp_path, train)
    trained = [(c["lambd"], c["seed"]) for c in train.configs]
    lambd = CONFIG["lambd"]
    assert trained == [(lambd, 0), (0.0, 0), (lambd, 1), (0.0, 1)]  # seed by seed
    assert all(c["proj_dim"] == 16 for c in train.configs)


def test_steps_follow_from_the_configuration_of_a_point(tmp_path):
    study = begin(tmp_path, {"a": {}, "b": {"batch_size": 32, "epochs": 6}})
    assert study.steps("a") == 3 * (10_000 // 64) and study.steps("b") == 6 * (10_000 // 32)


def test_where_the_key_is_a_setting_the_point_is_its_value(tmp_path):
    train = Trainer()
    study = filled(tmp_path, train, True, points={0.1: {}, 0.001: {}}, key="lambd")
    assert [c["lambd"] for c in train.configs] == [0.1, 0.001, 0.1, 0.001]  # in the given order
    assert study.values.tolist() == [0.001, 0.001, 0.1, 0.1] == study.column("lambd").tolist()
    assert [c[0, 0] for c in study.bytes] == [2, 4, 1, 3]
    np.testing.assert_allclose(study.spectra, [[2, x] for x in study.values])
    np.testing.assert_allclose(study.matrix(1), np.full((2, 2), (4 - 127) / 127), rtol=1e-6)


def test_what_was_interrupted_goes_on(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        filled(tmp_path, Trainer(stop_after=3), matrices=True)
    half = Study(tmp_path)
    assert len(half.rows) == len(half.bytes) == 3 and half.environment["minutes"] == 1.5
    train = Trainer()
    whole = filled(tmp_path, train, matrices=True)
    assert [(c["lambd"], c["seed"]) for c in train.configs] == [(0.0, 1)]
    assert [row for row in whole.rows if row in half.rows] == half.rows and len(whole.rows) == 4


def test_two_processes_give_the_same_as_one(tmp_path):
    """Real trainings, on a folder of images: what a test puts in place of them is not known to other processes."""
    noise = np.random.default_rng(0).integers(0, 256, (2, 2, 16, 16, 16, 3), np.uint8)
    for split, classes in zip(("train", "test"), noise, strict=True):
        for label, images in enumerate(classes):
            folder = tmp_path / "images" / split / str(label)
            folder.mkdir(parents=True)
            for i, image in enumerate(images):
                Image.fromarray(image).save(folder / f"{i}.png")
    tiny = {"data": "folder", "root": str(tmp_path / "images"), "limit": 32, "image_size": 8}
    tiny |= {"batch_size": 16, "proj_dim": 8, "epochs": 1, "precision": "float32"}
    studies = []
    for jobs in (1, 2):
        study = begin(tmp_path / str(jobs), config=CONFIG | tiny, seeds=(0,))
        follow(study.fill(partial(train, judges=Judges(32, 32, 16)), True, jobs), 2, progress=False)
        studies.append(study)
    for a, b in zip(*(study.rows for study in studies), strict=True):
        assert {**a, "minutes": 0, "cpu_seconds": 0} == {**b, "minutes": 0, "cpu_seconds": 0}
    np.testing.assert_array_equal(*(study.bytes for study in studies))


def test_more_points_and_seeds_are_added_to_what_is_there(tmp_path):
    points = {0.1: {}, 0.001: {}}
    filled(tmp_path, points=points, key="lambd", seeds=(1,))
    study = filled(tmp_path, points={0.01: {}}, key="lambd", seeds=(0,))
    assert [(r["lambd"], r["seed"]) for r in study.rows] == [(0.001, 1), (0.01, 0), (0.1, 1)]
    assert list(study.points) == [0.001, 0.01, 0.1] and study.settings["seeds"] == [0, 1]


def test_a_study_that_was_cut_between_two_files_can_be_read(tmp_path):
    """The matrices are written first: one too many is ignored, and its training is done again."""
    whole = filled(tmp_path, matrices=True)
    file = tmp_path / "rows.json"
    results = json.loads(file.read_text())
    file.write_text(json.dumps({**results, "rows": results["rows"][1:]}))
    cut = Study(tmp_path)
    assert cut.rows == whole.rows[1:]
    np.testing.assert_array_equal(cut.bytes, whole.bytes[1:])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"config": CONFIG | {"proj_dim": 8}}, "'both' with proj_dim=16, not 8"),
        ({"points": {"both": {"epochs": 9}}}, "'both' with epochs=3, not 9. Choose another folder"),
        ({"key": "lr", "points": {0.1: {}}}, "a study over variant, not lr"),
        ({"rates": [0.2]}, "with other rates"),
    ],
)
def test_a_folder_with_other_settings_is_refused(tmp_path, options, said):
    filled(tmp_path, rates=[0.1])
    before = {f.name: f.read_bytes() for f in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=said):
        begin(tmp_path, **({"rates": [0.1]} | options))
    assert before == {f.name: f.read_bytes() for f in tmp_path.iterdir()}


def test_settings_that_make_no_other_training_may_differ(tmp_path):
    filled(tmp_path, question="Which?")
    other = CONFIG | {"device": "cpu", "root": str(tmp_path), "name": "again"}
    assert not begin(tmp_path, config=other, question="And now?").missing()


def test_a_study_of_a_version_with_other_settings_can_go_on(tmp_path):
    """A setting that did not exist then has its default; one that is gone is passed over."""
    filled(tmp_path, config={k: v for k, v in CONFIG.items() if k != "momentum"} | {"gone": 1})
    assert not begin(tmp_path).missing()
    with pytest.raises(ValueError, match="momentum=0.9, not 0.5"):
        begin(tmp_path, config=CONFIG | {"momentum": 0.5})


def test_trainings_with_the_same_settings_are_taken_over(tmp_path):
    first = filled(tmp_path / "first")
    first.results["baselines"] = {"pixels": 0.4}
    second = begin(
        tmp_path / "second", {"usual": {}, "zero": {"lambd": 0.0}, "wide": {"proj_hidden": 32}}
    )
    second.take_over([first])
    assert second.missing() == [("wide", 0), ("wide", 1)] and second.baselines == {"pixels": 0.4}
    assert second.column("zero", "knn").tolist() == first.column("one", "knn").tolist()
    assert {row["variant"] for row in Study(tmp_path / "second").rows} == {"usual", "zero"}


def test_chosen_settings_reach_the_training_and_its_row(tmp_path):
    train, study = Trainer(), begin(tmp_path)
    study.results["tuning"] = {"tried": [{"minutes": 1.0}], "chosen": {"one": {"lr": 0.25}}}
    list(study.fill(train))
    assert [c["lr"] for c in train.configs] == [CONFIG["lr"], 0.25] * 2
    again = Study(tmp_path)
    assert again.column("one", "lr").tolist() == [0.25, 0.25]
    assert again.environment["minutes"] == 3 and again.tuning == study.tuning


def test_the_folder_names_no_path_of_the_machine(tmp_path):
    filled(tmp_path / "out", config=CONFIG | {"root": str(tmp_path)})
    assert str(tmp_path) not in "".join(p.read_text() for p in (tmp_path / "out").iterdir())


def test_scores_are_of_all_seeds(study):
    values = [0.5, 0.51]  # as the Trainer has them
    assert study.column("one", "knn").tolist() == pytest.approx(values)
    assert study.score("one") == pytest.approx((0.505, np.std(values, ddof=1), 2))
    with pytest.raises(KeyError, match="No variant 'x'. There are both, one"):
        study.score("x")
    with pytest.raises(KeyError, match="No column 'x'. There are variant, seed"):
        study.score("one", "x")


def test_nearest_is_nearest_on_the_logarithmic_scale(tmp_path):
    study = filled(tmp_path, points={0.001: {}, 0.1: {}}, key="lambd", seeds=(0,), matrices=True)
    assert study.nearest(0.009) == 0 and study.nearest(0.011) == 1
    with pytest.raises(ValueError, match="above 0, got 0"):
        study.nearest(0)
    with pytest.raises(KeyError, match="No column 'spectrum'. There are lambd, "):
        study.column("spectrum")


def test_what_is_not_a_study_says_how_to_make_one(tmp_path, study):
    with pytest.raises(FileNotFoundError, match="python -m barlow_edu sweep lambda --out"):
        load_study(tmp_path / "nothing", "lambda")
    with pytest.raises(ValueError, match="holds a study, not a run"):
        load_run(study.path)
