"""Experiments: declared in a file; trainings that several share are done once."""

import pytest
import yaml

from barlow_edu import cli
from barlow_edu.config import load_config
from barlow_edu.studies import ablations as experiments
from barlow_edu.studies import measure
from barlow_edu.studies.ablations import (
    declaration,
    load_experiment,
    run_experiments,
)
from barlow_edu.studies.ledger import ledger

DECLARED = {
    "base": {"config": "lambda_sweep", "proj_dim": 16},
    "seeds": [0, 1],
    "experiments": {
        "terms": {"question": "Which?", "variants": {"both": {}, "one": {"lambd": 0.0}}},
        "width": {"question": "Wide?", "variants": {"usual": None, "wide": {"proj_hidden": 32}}},
    },
}


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """The set "tiny", whose trainings are counted and not done."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(DECLARED))
    monkeypatch.setattr(experiments, "HERE", tmp_path)
    done = []

    def train(config, judges):
        assert judges.shrunk  # features of images at the size of the views
        done.append((config["lambd"], config["proj_hidden"], config["seed"]))
        return {"knn": 0.5 - config["lambd"], "minutes": 1.0, "spectrum": []}, None

    monkeypatch.setattr(measure, "train", train)
    monkeypatch.setattr(measure, "baselines", lambda config, judges: {"pixels": 0.4})
    return done


def test_every_training_is_done_once_and_shared_ones_are_taken_over(trained, tmp_path):
    terms, width = run_experiments("tiny", tmp_path / "out", progress=False)
    assert len(trained) == len(set(trained)) == 6  # of 8 points, the base in two experiments
    assert (terms.variants, width.variants) == (["both", "one"], ["usual", "wide"])
    assert list(terms.column("both", "knn")) == list(width.column("usual", "knn"))
    assert terms.baselines == width.baselines == {"pixels": 0.4}
    assert terms.settings["question"] == "Which?" and terms.path == tmp_path / "out" / "terms"
    run_experiments("tiny", tmp_path / "out", progress=False)
    assert len(trained) == 6


def test_some_experiments_other_seeds_and_settings(trained, tmp_path):
    options = {"seeds": [7], "lambd": 0.25, "progress": False}
    [width] = run_experiments("tiny", tmp_path, ["width"], **options)
    assert trained == [(0.25, None, 7), (0.25, 32, 7)] and width.config["lambd"] == 0.25
    assert width.column("seed").tolist() == [7, 7] and width.path.name == "width"
    assert load_experiment(tmp_path / "width").rows == width.rows


def test_what_does_not_fit_is_named(trained, tmp_path):
    with pytest.raises(ValueError, match="seed differs from training to training"):
        run_experiments("tiny", tmp_path / "out", progress=False, seed=5)
    with pytest.raises(ValueError, match="No experiments 'x'. There are tiny"):
        run_experiments("x")
    with pytest.raises(ValueError, match="No experiment x. There are terms, width"):
        run_experiments("tiny", tmp_path, ["x"])
    with pytest.raises(FileNotFoundError, match="python -m barlow_edu sweep ablations"):
        load_experiment(tmp_path / "nothing")
    assert not trained


def test_every_declared_variant_is_a_configuration():
    for name in (path.stem for path in experiments.HERE.glob("*.yaml")):
        declared = declaration(name)
        base = dict(declared["base"])
        base = load_config(base.pop("config"), **base)
        for experiment in declared["experiments"].values():
            assert experiment["question"].strip()
            for change in experiment["variants"].values():
                config = load_config(base | (change or {}))
                steps = config["epochs"] * (config["limit"] // config["batch_size"])
                if name == "ablations":  # as many steps, or as many images
                    as_many = steps, steps * config["batch_size"] / 64
                    assert pytest.approx(1000, rel=0.01) in as_many


def test_the_records_hold_what_is_declared_or_cannot_bear_on_any_claim():
    """A record from before the present declaration may stand until it is made again, but judges nothing."""
    declared, entries = declaration("ablations"), ledger()
    base = dict(declared["base"])
    base = load_config(base.pop("config"), snapshots=0, **base)
    for name, experiment in declared["experiments"].items():
        record = load_experiment(f"ablations/{name}")
        points = {n: change or {} for n, change in experiment["variants"].items()}
        assert record.variants == list(points)
        present = [record.config_of(p, 0) | {"root": None} for p in points]
        if present == [load_config(base | change) for change in points.values()]:
            for variant in points:
                assert record.column(variant, "seed").tolist() == declared["seeds"]
        else:
            touched = [e for e in entries if any(p.experiment == name for p in e.claim.predictions)]
            assert {e.verdict for e in touched} <= {"cannot bear on it"}


def test_a_training_is_measured(tiny_world, tiny_settings, tmp_path, capsys, monkeypatch):
    once = declaration("ablations") | {"seeds": [0]}
    monkeypatch.setattr(experiments, "declaration", lambda name: once)
    settings = [f"{key}={value}" for key, value in tiny_settings.items()]
    arguments = [
        "sweep",
        "ablations",
        "--out",
        str(tmp_path),
        "--only",
        "norms",
        "--set",
        *settings,
    ]
    assert not cli.main(arguments)
    rows = load_experiment(tmp_path / "norms").rows
    assert len(rows) == 4 and all(0 <= row["knn"] <= 1 for row in rows)
    assert all(0 <= row["untrained_knn"] <= 1 <= row["untrained_effective_rank_z"] for row in rows)
    assert "no hidden norm" in capsys.readouterr().out
