"""A sweep keeps what was measured, one folder, and goes on where it stopped."""

import json
import subprocess
import sys

import numpy as np
import pytest
import scipy.linalg
import torch
import yaml

from barlow_edu import cli, data
from barlow_edu.runs import load_run
from barlow_edu.studies import lambda_sweep as sweeps
from barlow_edu.studies import short_runs

TINY = {"limit": 64, "batch_size": 32, "proj_dim": 8, "log_every": 1, "precision": "float32"}
SMALLER = {key: value for key, value in TINY.items() if key != "proj_dim"}
COUNTS = (60, 50, 40)


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    monkeypatch.setattr(sweeps, "IMAGES", COUNTS)


def sweep(out, lambdas, **options):
    settings = {**TINY, **options}
    return sweeps.sweep(out, "lambda_sweep", "lambd", lambdas, progress=False, **settings)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished sweep of two λ."""
    folder = tmp_path_factory.mktemp("sweep") / "made"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweeps, "IMAGES", COUNTS)
        return sweep(folder, [0.1, 0.001])


def test_the_grid_has_41_values_from_1e5_to_1():
    exponents = np.log10(sweeps.LAMBDAS)
    assert len(sweeps.LAMBDAS) >= 41
    assert sweeps.LAMBDAS[0] == 1e-5 and sweeps.LAMBDAS[-1] == 1
    np.testing.assert_allclose(np.diff(exponents), np.diff(exponents).mean(), atol=1e-3)


@pytest.mark.parametrize("shape", [(3,), (2, 5, 5)])
def test_bytes_keep_zero_and_one_exactly_and_the_rest_within_1_in_254(shape):
    c = np.random.default_rng(0).uniform(-1, 1, shape)
    np.testing.assert_allclose(
        short_runs.from_bytes(short_runs.to_bytes(c)), c, atol=1 / 254 + 1e-6
    )
    exact = np.array([-1, 0, 1.0])
    np.testing.assert_array_equal(short_runs.from_bytes(short_runs.to_bytes(exact)), exact)
    np.testing.assert_array_equal(short_runs.to_bytes(torch.tensor([-3.0, 1.2])), [0, 254])


def test_a_sweep_is_one_folder_sorted_by_lambda(made):
    assert sorted(f.name for f in made.path.iterdir()) == [
        "config.yaml",
        "environment.json",
        "matrices.npz",
        "sweep.json",
    ]
    assert made.values.tolist() == [0.001, 0.1] == made.config["sweep"]["values"]
    assert [(c.shape, c.dtype) for c in made.bytes] == 2 * [((8, 8), np.uint8)]
    assert made.spectra.shape == (2, 8)
    assert made.environment["data"] == "garments" and made.environment["torch"]
    assert set(made.baselines) == {"pixels", "untrained", "chance"}
    assert made.config["proj_dim"] == 8 and made.config["limit"] == 64
    assert sweeps.load_sweep(made.path).rows == made.rows
    assert repr(made) == "Sweep('made', 2 trainings over lambd)"


def test_the_lambdas_share_start_and_batches_but_not_the_result(made):
    assert not np.array_equal(made.bytes[0], made.bytes[1])
    config = {key: value for key, value in made.config.items() if key != "sweep"}
    with short_runs.one_thread():
        again = sweeps.train_one({**config, "lambd": 0.001}, "lambd", COUNTS)
    assert {k: v for k, v in again[0].items() if k != "minutes"} == {
        k: v for k, v in made.rows[0].items() if k != "minutes"
    }


def test_numbers_of_a_row_are_those_of_its_matrix(made):
    """Σ s² is the squared Frobenius norm; it also follows from the two terms and the diagonal."""
    for row, small in zip(made.rows, made.bytes, strict=True):
        c = short_runs.from_bytes(small)
        assert row["diagonal_mean"] == pytest.approx(np.diag(c).mean(), abs=5e-3)
        np.testing.assert_allclose(row["spectrum"], scipy.linalg.svdvals(c), atol=0.03)
        squares = row["invariance"] - row["dim"] + 2 * row["dim"] * row["diagonal_mean"]
        assert np.square(row["spectrum"]).sum() == pytest.approx(
            row["redundancy"] + squares, rel=2e-3
        )
        assert 1 <= row["effective_rank_z"] <= row["dim"]
        assert 1 <= row["effective_rank_h"] <= row["features"]
        assert row["batch_size"] == COUNTS[2] and 0 <= row["knn"] <= 1


def test_measure_against_numpy(made, tmp_path):
    from barlow_edu.training import pretrain

    config = {key: value for key, value in made.config.items() if key != "sweep"}
    config["lambd"] = 0.1
    run = pretrain(config, tmp_path / "run", data.load_images("garments", limit=64), progress=False)
    row, small = short_runs.measure(run, COUNTS)
    model, views = run.load_model(), run.views()
    images = data.load_images("garments", split="test", limit=COUNTS[1]).images[: COUNTS[2]]
    twins = views(images, torch.Generator().manual_seed(config["seed"] + 1))
    with torch.no_grad():
        z_a, z_b = (model.train().embed(v).numpy() for v in twins)
    c = np.corrcoef(z_a.T, z_b.T)[:8, 8:]
    np.testing.assert_allclose(short_runs.from_bytes(small), c, atol=1 / 254 + 1e-4)
    assert row["invariance"] == pytest.approx(np.square(1 - np.diag(c)).sum(), rel=1e-3)
    off = np.square(c).sum() - np.square(np.diag(c)).sum()
    assert row["redundancy"] == pytest.approx(off, rel=1e-3)


def test_a_sweep_goes_on_with_what_is_missing(made, tmp_path, monkeypatch):
    folder = tmp_path / "grows"
    trained = []

    def train(config, key, counts, stop_at=0.1):
        lambd = config[key]
        if lambd == stop_at:
            raise KeyboardInterrupt
        trained.append(lambd)
        return {**made.rows[0], "lambd": lambd, "minutes": 0.5}, made.bytes[0]

    monkeypatch.setattr(sweeps, "train_one", train)
    with pytest.raises(KeyboardInterrupt):
        sweep(folder, [0.001, 0.01, 0.1, 1])
    assert trained == [0.001, 0.01]
    half = sweeps.load_sweep(folder)
    assert half.values.tolist() == [0.001, 0.01] and len(half.bytes) == 2
    monkeypatch.setattr(sweeps, "train_one", lambda *a: train(*a, stop_at=None))
    whole = sweep(folder, [0.1, 1, 0.001])
    assert trained == [0.001, 0.01, 0.1, 1]
    assert whole.values.tolist() == [0.001, 0.01, 0.1, 1] == whole.config["sweep"]["values"]
    assert whole.environment["minutes"] == 2
    assert sweep(folder, [0.01]).values.tolist() == whole.values.tolist()
    assert trained == [0.001, 0.01, 0.1, 1]


def test_a_sweep_that_was_cut_between_two_files_can_be_read(made, tmp_path):
    """The matrices are written first: one too many is ignored, and its λ is run again."""
    for name in ("config.yaml", "environment.json", "matrices.npz"):
        (tmp_path / name).write_bytes((made.path / name).read_bytes())
    rows = json.loads((made.path / "sweep.json").read_text())
    (tmp_path / "sweep.json").write_text(json.dumps({**rows, "rows": rows["rows"][:1]}))
    assert sweeps.load_sweep(tmp_path).values.tolist() == [0.001]


def test_two_processes_give_the_same_as_one(made, tmp_path):
    both = sweep(tmp_path / "two", [0.001, 0.1], jobs=2)
    for one, two in zip(made.rows, both.rows, strict=True):
        assert {**one, "minutes": 0} == {**two, "minutes": 0}
    np.testing.assert_array_equal(made.bytes, both.bytes)


def test_other_settings_need_another_folder(made):
    with pytest.raises(ValueError, match="proj_dim=8, not 16"):
        sweep(made.path, [0.1], proj_dim=16)
    with pytest.raises(ValueError, match="a sweep over lambd, not lr"):
        sweeps.sweep(made.path, "lambda_sweep", "lr", [0.1], progress=False, **TINY)


@pytest.mark.parametrize(
    "options, told",
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
def test_what_makes_no_sweep_is_refused(tmp_path, options, told):
    given = {"config": "lambda_sweep", "key": "lambd", "values": [0.1], **options}
    with pytest.raises(ValueError, match=told):
        sweeps.sweep(tmp_path / "x", **given)
    assert not (tmp_path / "x").exists()


def test_another_setting_and_several_seeds(tmp_path):
    made = sweeps.sweep(
        tmp_path / "dims", "lambda_sweep", "proj_dim", [8, 4], (0, 1), progress=False, **SMALLER
    )
    assert [(row["proj_dim"], row["seed"]) for row in made.rows] == [(4, 0), (4, 1), (8, 0), (8, 1)]
    assert made.values.tolist() == [4, 4, 8, 8] == made.column("dim").tolist()
    assert made.config["sweep"] == {"key": "proj_dim", "values": [4, 8], "seeds": [0, 1]}
    assert made.matrix(0).shape == (4, 4) and made.matrix(3).shape == (8, 8)
    assert made.rows[0]["invariance"] != made.rows[1]["invariance"]


def test_a_sweep_is_no_run(made, monkeypatch):
    with pytest.raises(ValueError, match="holds a sweep.*load_sweep"):
        load_run(made.path)


def test_nearest_is_nearest_on_the_logarithmic_scale(made):
    assert made.nearest(0.009) == 0 and made.nearest(0.011) == 1
    with pytest.raises(ValueError, match="above 0, got 0"):
        made.nearest(0)
    with pytest.raises(KeyError, match="No column 'spectrum'. There are lambd, "):
        made.column("spectrum")


def test_a_missing_sweep_says_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="python -m barlow_edu sweep lambda --out"):
        sweeps.load_sweep(tmp_path)


def test_the_command_makes_a_sweep(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sweeps, "LAMBDAS", (0.01,))
    settings = [f"{key}={value}" for key, value in TINY.items()]
    folder = tmp_path / "by_command"
    assert cli.main(["sweep", "lambda", "--out", str(folder), "--set", *settings]) == 0
    assert sweeps.load_sweep(folder).values.tolist() == [0.01]
    assert yaml.safe_load((folder / "config.yaml").read_text())["proj_dim"] == 8
    assert "kNN is best" in capsys.readouterr().out
    assert cli.main(["sweep", "lambda", "--jobs", "0"]) == 2


def test_a_sweep_needs_nothing_of_jupyter_or_plotting():
    blocked = ["IPython", "ipywidgets", "anywidget", "matplotlib", "seaborn"]
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked}))\n"
    code += "import barlow_edu.studies.lambda_sweep, barlow_edu.teaching.live"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_recorded_sweep_is_complete_small_and_consistent():
    recorded = sweeps.load_sweep()
    assert recorded.values.tolist() == list(sweeps.LAMBDAS) == recorded.config["sweep"]["values"]
    assert sum(file.stat().st_size for file in recorded.path.iterdir()) < 1_000_000
    assert np.shape(recorded.bytes) == (41, 64, 64) and np.max(recorded.bytes) <= 254
    n, d = recorded.column("batch_size"), recorded.column("dim")
    assert set(n) == {1024} and set(d) == {64}
    diagonal = d * (2 * recorded.column("diagonal_mean") - 1) + recorded.column("invariance")
    frobenius = np.square(recorded.spectra).sum(1)
    np.testing.assert_allclose(frobenius, recorded.column("redundancy") + diagonal, rtol=2e-3)
    assert ((recorded.column("knn") > 0.1) & (recorded.column("knn") < 1)).all()
    assert recorded.environment["commit"] and recorded.environment["minutes"] > 1
