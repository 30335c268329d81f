"""The comparison of five methods: same start and batches, tuned on held-out images, one folder that goes on."""

import json

import pytest
from sklearn.model_selection import ParameterGrid

from barlow_edu import cli
from barlow_edu.config import load_config
from barlow_edu.studies import measure as measuring
from barlow_edu.studies import relatives as comparison
from barlow_edu.studies.measure import held_out

TUNING = {"images": 40, "held_out": 24, "epochs": 1, "seed": 0}
pytestmark = pytest.mark.usefixtures("tiny_world")


KNOBS = {
    "barlow_twins": {"lr": [0.001, 0.02], "lambd": [0.1]},
    "simclr": {"lr": [0.02], "temperature": [0.1, 0.2]},
    "byol": {"lr": [0.02], "ema": [0.9, 0.99]},
}


def compare(out, settings, **options):
    plan = {"knobs": KNOBS, "seeds": (0, 1), "tuning": TUNING}
    return comparison.compare(out, progress=False, **plan, **settings, **options)


@pytest.fixture(scope="module")
def compared(tiny_world, tiny_settings, tmp_path_factory):
    """A finished comparison."""
    return compare(tmp_path_factory.mktemp("comparison") / "compared", tiny_settings)


def test_a_comparison_is_one_folder(compared):
    assert compared.methods == ["barlow_twins", "simclr", "byol"]
    assert len(compared.rows) == 6 and compared.key == "method"
    assert compared.settings["knobs"] == KNOBS and compared.settings["tuning"] == TUNING
    assert comparison.load_comparison(compared.path).rows == compared.rows
    assert set(compared.baselines) == {"pixels", "untrained", "chance"}
    for row in compared.rows:
        assert 0 <= row["knn"] <= 1 and 0 <= row["linear"] <= 1
        assert row["step"] == 4 and row["embedding_rank"] >= 1
    assert compared.config_of("byol", 1)["method"] == "byol"


def test_each_trained_number_stands_beside_that_of_its_own_start(compared):
    """All methods start a seed from the same encoder, and it is not the trained one."""
    for name in ("knn", "linear", "effective_rank_h"):
        starts = [compared.column(m, f"untrained_{name}").tolist() for m in compared.methods]
        assert starts[0] == starts[1] == starts[2]
    assert compared.column("simclr", name).tolist() != starts[1]
    assert compared.column("byol", "untrained_knn")[0] == compared.baselines["untrained"]


def test_the_best_of_all_combinations_on_held_out_images_is_taken(compared):
    tried = compared.tuning["tried"]
    assert [(r["method"], r["lr"]) for r in tried[:2]] == [
        ("barlow_twins", x) for x in (0.001, 0.02)
    ]
    assert {r["temperature"] for r in tried if r["method"] == "simclr"} == {0.1, 0.2}
    for method, chosen in compared.tuning["chosen"].items():
        own = [row for row in tried if row["method"] == method]
        assert len(own) == 2 and chosen.keys() == KNOBS[method].keys()
        best = max(own, key=lambda row: row["knn"])
        assert chosen.items() <= best.items()
        for name, value in chosen.items():
            assert set(compared.column(method, name)) == {value}
            assert compared.config_of(method, 0)[name] == value


def test_every_method_has_as_many_trials_of_full_length_as_any_other():
    trials = {m: [len(v) for v in knobs.values()] for m, knobs in comparison.KNOBS.items()}
    assert len(trials) == 5 and {tuple(counts) for counts in trials.values()} == {(3, 3)}
    plan, config = comparison.TUNING, load_config("relatives")
    steps = plan["epochs"] * (plan["images"] // config["batch_size"])
    whole = config["epochs"] * (config["limit"] // config["batch_size"])
    assert steps == pytest.approx(whole, rel=0.05)
    for method, knobs in comparison.KNOBS.items():
        for change in ParameterGrid(knobs):
            load_config(config, method=method, **change)


def test_tuning_sees_neither_the_test_images_nor_those_it_trains_on(tiny_world):
    config = {"data": "garments", "root": None}
    fit, held = held_out(config, TUNING)
    assert (len(fit), len(held)) == (40, 24)
    rows = {tuple(x.flatten().tolist()) for x in fit.images}
    assert not rows & {tuple(x.flatten().tolist()) for x in held.images}
    train = {tuple(x.flatten().tolist()) for x in tiny_world["train"].images}
    assert all(tuple(x.flatten().tolist()) in train for x in held.images)


def test_the_test_images_are_looked_at_once_the_rates_are_chosen(
    tiny_settings, tmp_path, monkeypatch
):
    def load(name, root, split, limit):
        if split == "test":
            raise KeyboardInterrupt
        return whole("garments", None, split, limit)

    whole = measuring.load_cached
    monkeypatch.setattr(measuring, "load_cached", load)
    with pytest.raises(KeyboardInterrupt):
        compare(tmp_path, tiny_settings)
    stopped = comparison.load_comparison(tmp_path)
    assert len(stopped.tuning["tried"]) == 6 and not stopped.rows


def test_a_stopped_comparison_goes_on_with_the_same_numbers(compared, tiny_settings, tmp_path):
    for file in compared.path.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    found = json.loads((tmp_path / "rows.json").read_text())
    lost = found["rows"].pop()
    tried = found["tuning"]["tried"].pop()
    (tmp_path / "rows.json").write_text(json.dumps(found))
    again = compare(tmp_path, tiny_settings)
    for before, after in ((lost, again.rows[-1]), (tried, again.tuning["tried"][-1])):
        assert {**before, "cpu_seconds": 0, "minutes": 0} == {
            **after,
            "cpu_seconds": 0,
            "minutes": 0,
        }
    assert again.rows[:-1] == compared.rows[:-1] and again.baselines == compared.baselines
    with pytest.raises(ValueError, match="weight_decay=0.0001, not 0.5. Choose another folder"):
        compare(tmp_path, tiny_settings, weight_decay=0.5)


@pytest.mark.parametrize("name, value", [("method", "byol"), ("lr", 0.1), ("seed", 1)])
def test_what_the_comparison_varies_cannot_be_set(tmp_path, name, value):
    with pytest.raises(ValueError, match=f"{name} differs from training to training"):
        compare(tmp_path / "x", {name: value})
    assert not (tmp_path / "x").exists()


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(KeyError, match="No method 'dino'. There are barlow_twins, simclr"):
        comparison.load_comparison().column("dino", "knn")
    with pytest.raises(FileNotFoundError, match="Make one: python -m barlow_edu sweep relatives"):
        comparison.load_comparison(tmp_path / "nowhere")


def test_the_command_prints_a_line_a_method(compared, monkeypatch, capsys):
    monkeypatch.setattr(comparison, "compare", lambda out, **settings: compared)
    assert cli.main(["sweep", "relatives", "--out", "x", "--set", "epochs=1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == compared.methods
    assert all("knn" in line and "linear" in line for line in lines[1:])
