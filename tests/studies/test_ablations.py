"""Recorded experiments: declared in a file, resumable, shared trainings trained once."""

import json

import pytest
import yaml
from tiny import tiny_encoder

from barlow_edu import cli
from barlow_edu.config import load_config
from barlow_edu.studies import ablations as experiments
from barlow_edu.studies.ablations import (
    declaration,
    experiment_sets,
    load_experiment,
    run_experiments,
)

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

    def train_one(config, key):
        done.append((config["lambd"], config["proj_hidden"], config["seed"]))
        knn = 0.5 - config["lambd"] + 0.01 * config["seed"] ** 2 * (1 + 10 * config["lambd"])
        row = {key: config[key], "seed": config["seed"], "knn": knn, "minutes": 1.0, "spectrum": []}
        return row, None

    monkeypatch.setattr(experiments, "train_one", train_one)
    monkeypatch.setattr(experiments, "baselines", lambda config: {"pixels": 0.4})
    return done


def test_every_training_is_done_once_and_shared_ones_are_taken_over(trained, tmp_path):
    found = run_experiments("tiny", tmp_path / "out", progress=False)
    assert len(trained) == len(set(trained)) == 6  # of 8 points, the base in two experiments
    assert [x.variants for x in found] == [["both", "one"], ["usual", "wide"]]
    assert list(found[0].column("both", "knn")) == list(found[1].column("usual", "knn"))
    run_experiments("tiny", tmp_path / "out", progress=False)
    assert len(trained) == 6


def test_the_seed_cannot_be_set_for_all(trained, tmp_path):
    with pytest.raises(ValueError, match="seed differs from training to training"):
        run_experiments("tiny", tmp_path / "out", progress=False, seed=5)
    assert not trained


def test_what_was_interrupted_goes_on(trained, tmp_path, monkeypatch):
    good = experiments.train_one

    def stopped(config, key):
        if len(trained) == 2:
            raise KeyboardInterrupt
        return good(config, key)

    monkeypatch.setattr(experiments, "train_one", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_experiments("tiny", tmp_path / "out", progress=False)
    monkeypatch.setattr(experiments, "train_one", good)
    assert len(load_experiment(tmp_path / "out" / "terms").rows) == 2
    run_experiments("tiny", tmp_path / "out", ["terms"], progress=False)
    assert len(trained) == 4


def test_scores_and_differences_go_by_seed(trained, tmp_path):
    [terms] = run_experiments("tiny", tmp_path / "out", ["terms"], progress=False)
    lambd = load_config("lambda_sweep")["lambd"]
    assert terms.score("one").mean == pytest.approx(0.505)
    difference = terms.difference("one", "both")
    assert difference.mean == pytest.approx(lambd - 0.005 * 10 * lambd)
    assert difference.sd == pytest.approx(0.1 * lambd / 2**0.5)  # not that of either alone
    with pytest.raises(KeyError, match="No variant 'x'. There are both, one"):
        terms.score("x")
    with pytest.raises(KeyError, match="No column 'x'"):
        terms.score("one", "x")
    terms.rows.pop()
    with pytest.raises(ValueError, match="the seeds"):
        terms.difference("one", "both")


def test_a_folder_with_other_settings_is_refused(trained, tmp_path):
    run_experiments("tiny", tmp_path / "out", ["terms"], progress=False)
    with pytest.raises(ValueError, match="holds the experiment with proj_dim=16, not 8"):
        run_experiments("tiny", tmp_path / "out", ["terms"], progress=False, proj_dim=8)
    changed = DECLARED | {
        "experiments": {"terms": {"question": "?", "variants": {"both": {"lambd": 1.0}}}}
    }
    (experiments.HERE / "tiny.yaml").write_text(yaml.safe_dump(changed))
    with pytest.raises(ValueError, match="holds another 'both'"):
        run_experiments("tiny", tmp_path / "out", ["terms"], progress=False)


def test_what_is_not_there_is_named(trained, tmp_path):
    with pytest.raises(ValueError, match="No experiments 'x'. There are tiny"):
        run_experiments("x")
    with pytest.raises(ValueError, match="No experiment x. There are terms, width"):
        run_experiments("tiny", tmp_path, ["x"])
    with pytest.raises(FileNotFoundError, match="python -m barlow_edu sweep"):
        load_experiment(tmp_path / "nothing")


def test_the_folder_names_no_path_of_the_machine(trained, tmp_path):
    run_experiments("tiny", tmp_path / "out", ["terms"], progress=False, root=str(tmp_path))
    kept = "".join(p.read_text() for p in (tmp_path / "out" / "terms").iterdir())
    assert str(tmp_path) not in kept


def test_every_declared_variant_is_a_configuration():
    for name in experiment_sets():
        declared = declaration(name)
        base = dict(declared["base"])
        base = load_config(base.pop("config"), **base)
        for experiment in declared["experiments"].values():
            assert experiment["question"].strip()
            for change in experiment["variants"].values():
                load_config(base | (change or {}))


def test_a_training_is_measured(tmp_path, capsys):
    with tiny_encoder():
        settings = ["encoder=tiny", "limit=64", "epochs=1", "batch_size=16", "image_size=8"]
        out = str(tmp_path / "out")
        arguments = ["sweep", "ablations", "--out", out, "--only", "norms", "--set", *settings]
        assert not cli.main(arguments)
    rows = json.loads((tmp_path / "out" / "norms" / "rows.json").read_text())["rows"]
    assert len(rows) == 12 and all(0 <= row["knn"] <= 1 for row in rows)
    assert "no hidden norm" in capsys.readouterr().out
