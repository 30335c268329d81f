"""A sweep over one setting: what is measured of each training, in this process or in several."""

import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch

import barlow_edu as be
from barlow_edu import cli
from barlow_edu.numerics.correlation import from_bytes
from barlow_edu.studies import lambda_sweep as sweeps
from barlow_edu.studies import measure
from barlow_edu.studies.measure import Judges, measure_run, short_run, shrink, train

JUDGES = Judges(60, 40, 30)
ROOT = Path(__file__).parents[2]


def sweep(out, settings, values=(0.1, 0.001), key="lambd", **options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweeps, "JUDGES", JUDGES)
        return sweeps.sweep(out, "lambda_sweep", key, values, progress=False, **settings, **options)


@pytest.fixture(scope="module")
def trained(tiny_world, tiny_settings, tmp_path_factory):
    """A finished sweep of two λ."""
    return sweep(tmp_path_factory.mktemp("sweep") / "trained", tiny_settings)


def test_the_grid_has_41_values_from_1e5_to_1():
    exponents = np.log10(sweeps.LAMBDAS)
    assert len(sweeps.LAMBDAS) >= 41
    assert sweeps.LAMBDAS[0] == 1e-5 and sweeps.LAMBDAS[-1] == 1
    np.testing.assert_allclose(np.diff(exponents), np.diff(exponents).mean(), atol=1e-3)


def test_a_sweep_keeps_c_and_its_numbers(trained):
    assert trained.values.tolist() == [0.001, 0.1] and trained.key == "lambd"
    assert [(c.shape, c.dtype) for c in trained.bytes] == 2 * [((8, 8), np.uint8)]
    assert not np.array_equal(*trained.bytes)
    assert trained.spectra.shape == (2, 8)
    assert set(trained.baselines) == {"pixels", "untrained", "chance"}
    assert trained.config["proj_dim"] == 8 and trained.config["limit"] == 64
    assert sweeps.load_sweep(trained.path).rows == trained.rows


def test_trainings_of_a_seed_share_start_and_batches(trained):
    again, c = train(trained.config_of(0.001, 0), JUDGES)
    changing = ("minutes", "cpu_seconds")
    row = trained.rows[0]
    assert all(row[k] == v for k, v in again.items() if k not in changing)
    np.testing.assert_array_equal(c, trained.bytes[0])


def test_numbers_of_a_row_are_those_of_its_matrix(trained):
    """Σ s² is the squared Frobenius norm; it also follows from the two terms and the diagonal."""
    for row, small in zip(trained.rows, trained.bytes, strict=True):
        c = from_bytes(small)
        assert row["diagonal_mean"] == pytest.approx(np.diag(c).mean(), abs=5e-3)
        np.testing.assert_allclose(row["spectrum"], scipy.linalg.svdvals(c), atol=0.03)
        squares = row["invariance"] - row["dim"] + 2 * row["dim"] * row["diagonal_mean"]
        assert np.square(row["spectrum"]).sum() == pytest.approx(
            row["redundancy"] + squares, rel=2e-3
        )
        assert 1 <= row["effective_rank_z"] <= row["dim"]
        assert 1 <= row["effective_rank_h"] <= row["features"]
        assert row["batch_size"] == JUDGES.twins and 0 <= row["knn"] <= 1


def test_a_run_is_measured_as_numpy_does(trained, tiny_world):
    config = trained.config_of(0.1, 0)
    with short_run(config) as run:
        row, small = measure_run(run, JUDGES)
        model, views = run.load_model(), run.views()
    images = tiny_world["test"].images[: JUDGES.twins]
    twins = views(images, torch.Generator().manual_seed(config["seed"] + 1))
    with torch.no_grad():
        z_a, z_b = (model.train().embed(v).numpy() for v in twins)
    c = np.corrcoef(z_a.T, z_b.T)[:8, 8:]
    np.testing.assert_allclose(from_bytes(small), c, atol=1 / 254 + 1e-4)
    assert row["invariance"] == pytest.approx(np.square(1 - np.diag(c)).sum(), rel=1e-3)
    off = np.square(c).sum() - np.square(np.diag(c)).sum()
    assert row["redundancy"] == pytest.approx(off, rel=1e-3)


def test_the_judges_are_the_images_asked_for(tiny_world):
    config = {"data": "garments", "root": None, "limit": 64, "image_size": 10}
    assert [len(s) for s in JUDGES.images(config)] == [60, 40]
    bank, test = Judges(None, None, shrunk=True).images(config)
    assert (len(bank), len(test)) == (64, 48) and bank.images.shape[-1] == 10
    blocks = tiny_world["test"].images.double().unflatten(3, (10, 2)).unflatten(2, (10, 2))
    np.testing.assert_array_equal(test.images, blocks.mean((3, 5)).float().round())
    assert shrink(test, 10) is test


@pytest.mark.parametrize(
    "options, said",
    [
        ({"jobs": 0}, "jobs must be 1 or more, got 0"),
        ({"lambd": 1.0}, "lambd differs from training to training"),
        ({"seed": 3}, "seed differs from training to training"),
        ({"values": []}, "needs values"),
        ({"seeds": []}, "needs values"),
        ({"values": [0.1, -1]}, "lambd must be a number of at least 0"),
        ({"key": "views"}, "a number, got 'views'"),
        ({"key": "lambda"}, "a number, got 'lambda'"),
        ({"key": "seed"}, "a number, got 'seed'"),
    ],
)
def test_what_makes_no_sweep_is_refused(tmp_path, options, said):
    given = {"config": "lambda_sweep", "key": "lambd", "values": [0.1], **options}
    with pytest.raises(ValueError, match=said):
        sweeps.sweep(tmp_path / "x", **given)
    assert not (tmp_path / "x").exists()


def test_another_setting_and_several_seeds(tiny_world, tiny_settings, tmp_path):
    settings = {k: v for k, v in tiny_settings.items() if k != "proj_dim"}
    study = sweep(tmp_path / "dims", settings, [8, 4], "proj_dim", seeds=(0, 1))
    pairs = [(row["proj_dim"], row["seed"]) for row in study.rows]
    assert pairs == [(4, 0), (4, 1), (8, 0), (8, 1)]
    assert study.values.tolist() == [4, 4, 8, 8] == study.column("dim").tolist()
    assert study.matrix(0).shape == (4, 4) and study.matrix(3).shape == (8, 8)
    assert study.rows[0]["invariance"] != study.rows[1]["invariance"]


def test_as_many_trainings_at_a_time_as_are_asked_for(tmp_path, monkeypatch):
    asked = []

    def fill(study, train, matrices, jobs):
        asked.append(jobs)
        study.write()
        yield "trained"

    monkeypatch.setattr(sweeps.Study, "fill", fill)
    monkeypatch.setattr(measure, "baselines", lambda config, judges: {})
    sweep(tmp_path, {}, jobs=2)
    assert asked == [2]


def test_the_command_makes_a_sweep(tiny_world, tiny_settings, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sweeps, "LAMBDAS", (0.01,))
    settings = [f"{key}={value}" for key, value in tiny_settings.items()]
    folder = tmp_path / "by_command"
    assert cli.main(["sweep", "lambda", "--out", str(folder), "--set", *settings]) == 0
    assert sweeps.load_sweep(folder).values.tolist() == [0.01]
    assert sweeps.load_sweep(folder).config["proj_dim"] == 8
    assert "kNN is best" in capsys.readouterr().out
    assert cli.main(["sweep", "lambda", "--jobs", "0"]) == 2


def test_the_recorded_sweep_is_complete_small_and_consistent():
    recorded = sweeps.load_sweep()
    assert recorded.values.tolist() == list(sweeps.LAMBDAS) == list(recorded.points)
    assert sum(file.stat().st_size for file in recorded.path.iterdir()) < 1_000_000
    assert np.shape(recorded.bytes) == (41, 64, 64) and np.max(recorded.bytes) <= 254
    n, d = recorded.column("batch_size"), recorded.column("dim")
    assert set(n) == {1024} and set(d) == {64}
    diagonal = d * (2 * recorded.column("diagonal_mean") - 1) + recorded.column("invariance")
    frobenius = np.square(recorded.spectra).sum(1)
    np.testing.assert_allclose(frobenius, recorded.column("redundancy") + diagonal, rtol=2e-3)
    assert ((recorded.column("knn") > 0.1) & (recorded.column("knn") < 1)).all()
    assert recorded.environment["commit"] and recorded.environment["minutes"] > 1


def test_the_recorded_sweep_can_be_gone_on_with(tmp_path, monkeypatch):
    """It was written by a version with fewer settings; nothing is left to train."""
    folder = shutil.copytree(sweeps.load_sweep().path, tmp_path / "copy")
    monkeypatch.setattr(measure, "train", lambda config, judges: pytest.fail("trained again"))
    assert sweeps.lambda_sweep(folder, progress=False).rows == sweeps.load_sweep().rows


def test_neighbours_are_the_nearest_in_the_features_of_a_second_training(tmp_path, monkeypatch):
    """The file names test images whose features have the highest cosine, by numpy, and never the query itself."""
    monkeypatch.setattr(sweeps, "JUDGES", JUDGES)
    study = sweeps.sweep(tmp_path / "s", "lambda_sweep", "lambd", [0.01], limit=256, epochs=1)
    script = runpy.run_path(str(ROOT / "benchmarks" / "record_neighbours.py"))
    path = script["record_neighbours"](study, judges=JUDGES)
    record = sweeps.recorded_neighbours(study)
    assert path.parent == study.path and [r["lambd"] for r in record["rows"]] == [0.01]
    test = JUDGES.images(study.config)[1]
    with short_run({**study.config, "lambd": 0.01}) as run:
        h = be.extract_features(
            run.load_model().encoder, test.images, run.views().normalize
        ).numpy()
    h /= np.linalg.norm(h, axis=1, keepdims=True)
    for query, close in zip(record["queries"], record["rows"][0]["nearest"], strict=True):
        cosines = h @ h[query]
        cosines[query] = -1
        assert query not in close and len(close) == 12
        np.testing.assert_allclose(np.sort(cosines)[::-1][:12], cosines[close], atol=1e-5)
    kinds = [int(test.labels[q]) for q in record["queries"]]
    assert kinds == [k for k in script["KINDS"] if k in test.labels]
