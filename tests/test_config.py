"""Configurations: those that come with the package load, what is wrong is named."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from barlow_edu.config import (
    CONFIG_DIR,
    DEFAULTS,
    build_model,
    build_views,
    config_names,
    load_config,
)
from barlow_edu.models import BarlowTwinsModel


@pytest.mark.parametrize("name", config_names())
def test_every_packaged_configuration_loads(name):
    config = load_config(name)
    assert config["name"] == name  # so that its run folder is found
    assert set(config) == set(DEFAULTS)
    with torch.device("meta"):  # some are large
        assert isinstance(build_model(config), BarlowTwinsModel)
    assert build_views(config).size == config["image_size"]
    given = yaml.safe_load((CONFIG_DIR / f"{name}.yaml").read_text(encoding="utf-8"))
    assert {key: config[key] for key in given} == given


def test_a_model_follows_its_seed_and_leaves_the_random_state_alone():
    state = torch.get_rng_state()
    models = [build_model(load_config(proj_dim=8, seed=seed)) for seed in (0, 0, 1)]
    assert torch.equal(state, torch.get_rng_state())
    a, b, c = (model.encoder.stem[0].weight for model in models)
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_there_are_packaged_configurations():
    assert "garments_quick" in config_names()


def test_a_mapping_a_file_and_overrides_say_the_same(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("lr: 0.1\nepochs: 3\n")
    expected = {**DEFAULTS, "lr": 0.1, "epochs": 3}
    assert load_config(path) == load_config(str(path)) == expected
    assert load_config({"lr": 0.1, "epochs": 3}) == expected
    assert load_config({"lr": 0.5}, lr=0.1, epochs=3) == expected
    assert load_config() == DEFAULTS


def test_a_name_comes_before_a_file_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("garments_quick").write_text("lr: 0.1")
    assert load_config("garments_quick") == load_config(CONFIG_DIR / "garments_quick.yaml")


def test_the_given_mapping_is_left_alone():
    given = {"augment": {"scale": (0.5, 1.0)}}
    config = load_config(given, lr=0.1)
    config["augment"]["hue"] = 0.3
    assert given == {"augment": {"scale": (0.5, 1.0)}}
    assert load_config()["augment"] == {}
    assert DEFAULTS["augment"] == {}


def test_a_complete_configuration_survives_yaml():
    """Whatever Python types are given: a run writes its configuration and reads it again."""
    config = load_config(
        lr=np.float64(0.1),
        epochs=np.int64(3),
        root=Path("some/folder"),
        augment={"scale": (0.5, 1.0), "hue": np.float32(0.5)},
    )
    assert load_config(yaml.safe_load(yaml.safe_dump(config))) == config
    assert config["root"] == str(Path("some/folder"))
    assert config["augment"] == {"scale": [0.5, 1.0], "hue": 0.5}


def test_augment_may_be_null():
    assert load_config(augment=None)["augment"] == {}


def test_a_file_may_hold_such_numbers(tmp_path):
    (tmp_path / "a.yaml").write_text("lr: 1e-3  # λ is in the comment\nlambd: 5e-3\n", "utf-8")
    config = load_config(tmp_path / "a.yaml")
    assert (config["lr"], config["lambd"]) == (0.001, 0.005)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"learning_rate": 1}, "Unknown setting learning_rate. Known: name, "),
        ({"a": 1, "b": 2}, "Unknown setting a, b"),
        ({1: 2}, "Unknown setting 1"),
        ({"device": "gpu"}, "device must be auto, cpu, cuda, .* got 'gpu'"),
        ({"encoder": nn.Identity()}, r"encoder must be text, got Identity\(\)"),
        (
            {"encoder": "resnet51"},
            "No encoder 'resnet51'. Choose one of small_resnet, .*, or a module",
        ),
        ({"augment": {"flip": 50}}, "flip is a probability"),
        ({"augment": {"blurr": 1}}, "augment.blurr. Did you mean blur. Known: scale, ratio"),
        ({"augment": {"hue": [0.1, 0.2]}}, "augment.hue must be a number, got .0.1, 0.2"),
        ({"augment": {"ratio": [0.3]}}, "augment.ratio must be a list of 2 numbers, got .0.3"),
        (
            {"augment": {"ratio": [[1, 2], [1, 2]]}},
            "augment.ratio must be a list of 2 numbers, got",
        ),
        (
            {"augment": {"scale": [[0.4, 1], 1]}},
            "scale must be a list of 2 numbers, or one for each",
        ),
        (
            {"augment": {"scale": [[0.4, 1]]}},
            "augment.scale must be a list of 2 numbers, or one for",
        ),
        ({"augment": {"scale": [[0.4, 1], [1, 0.4]]}}, "the smaller first, got 1 and 0.4"),
        ({"augment": {"flip": True}}, "augment.flip must be a number, got True"),
        ({"augment": {"interpolation": "nearest"}}, "interpolation must be .*got 'nearest'"),
    ],
)
def test_what_is_impossible_is_named(given, message):
    """What each setting may be: test_settings.py."""
    with pytest.raises(ValueError, match=message) as caught:
        load_config(given)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("name", ["nowhere", "some/where.yaml", "", ".", "x" * 300])
def test_a_missing_configuration_is_named(name):
    with pytest.raises(OSError, match=name[:20] or "No configuration ''"):
        load_config(name)


def test_a_missing_configuration_names_those_that_are_there():
    with pytest.raises(FileNotFoundError, match="No configuration 'nowhere'.*garments_quick"):
        load_config("nowhere")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"lr: [1", "bad.yaml is not readable: while parsing"),
        (b"\xff\xfe\x00\x80", "bad.yaml is not readable: .*utf-8"),
        (b"", "bad.yaml is not readable: there are no settings as 'key: value' lines"),
        (b"lr: 1\nlr: 2", "bad.yaml is not readable: lr is given twice"),
        (b"- lr", "there are no settings"),
        (b"just words", "there are no settings"),
        (b"lr: !!python/object/apply:os.getcwd []", "not readable: could not determine"),
    ],
)
def test_a_file_that_is_no_configuration_is_named(content, message, tmp_path):
    (tmp_path / "bad.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_config(tmp_path / "bad.yaml")
