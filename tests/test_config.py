"""Configurations: those that come with the package load, what is wrong is named."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from barlow_edu import config as config_module
from barlow_edu.config import (
    CONFIG_DIR,
    DEFAULTS,
    build_model,
    build_views,
    config_names,
    load_config,
    read_yaml,
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


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        ("-2.5e+2", -250.0),
        (".5e1", 5.0),
        ("5.e-1", 0.5),
        ("0.1", 0.1),
        ("10", 10),
        ("true", True),
        ("null", None),
        ("[0.2, 1e-1]", [0.2, 0.1]),
        ("{hue: 1e-1}", {"hue": 0.1}),
        ("resnet18", "resnet18"),
        ("1e", "1e"),
        ("e5", "e5"),
        ("2e3x", "2e3x"),
    ],
)
def test_yaml_numbers_are_what_they_look_like(text, value):
    found = read_yaml(text)
    assert found == value and type(found) is type(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_is_read_as_python_writes_it(value):
    assert read_yaml(repr(value)) == value
    assert read_yaml(f"{value:.3e}") == float(f"{value:.3e}")


def test_a_file_may_hold_such_numbers(tmp_path):
    (tmp_path / "a.yaml").write_text("lr: 1e-3  # λ is in the comment\nlambd: 5e-3\n", "utf-8")
    config = load_config(tmp_path / "a.yaml")
    assert (config["lr"], config["lambd"]) == (0.001, 0.005)


IMPOSSIBLE = [
    ({"learning_rate": 1}, "Unknown setting learning_rate. Known: name, "),
    ({"a": 1, "b": 2}, "Unknown setting a, b"),
    ({1: 2}, "Unknown setting 1"),
    ({"stream": 1}, "stream must be one of auto, True, False, got 1"),
    ({"compile": 0}, "compile must be one of True, False, got 0"),
    ({"device": "gpu"}, "device must be auto, cpu, cuda, .* got 'gpu'"),
    ({"augment": {"flip": 50}}, "flip is a probability"),
    # choices
    ({"method": "dino"}, "method must be one of barlow_twins, simclr, .*got 'dino'"),
    ({"temperature": 0}, "temperature must be at least 0.001, got 0"),
    ({"ema": 1.5}, "ema must be between 0 and 1, got 1.5"),
    ({"predictor": "no"}, "predictor must be one of True, False, got 'no'"),
    ({"stop_gradient": 2}, "stop_gradient must be one of True, False, got 2"),
    ({"pred_hidden": 0}, "pred_hidden must be at least 1, got 0"),
    ({"variance_weight": -1}, "variance_weight must be at least 0, got -1"),
    ({"data": "mnist"}, "data must be one of garments, cifar10, .*got 'mnist'"),
    ({"views": "mnist"}, "views must be one of imagenet, .*got 'mnist'"),
    ({"views": ["cifar"]}, r"views must be one of .*got \['cifar'\]"),
    ({"stream": "yes"}, "stream must be one of auto, True, False, got 'yes'"),
    ({"pipeline": "dali"}, "pipeline must be one of decode_once, per_image, got 'dali'"),
    ({"canvas": 4}, "canvas must be at least 8, got 4"),
    ({"workers": -1}, "workers must be at least 0, got -1"),
    ({"stem": "big"}, "stem must be one of imagenet, cifar, got 'big'"),
    ({"optimizer": "adam"}, "optimizer must be one of adamw, sgd, lars, got 'adam'"),
    ({"precision": "float16"}, "precision must be one of auto, float32, bfloat16"),
    ({"channels_last": "yes"}, "channels_last must be one of auto, True, False, got 'yes'"),
    ({"form": "fast"}, "form must be one of auto, matrix, gram, got 'fast'"),
    ({"encoder": "resnet51"}, "encoder must be one of small_resnet, .*got 'resnet51'"),
    ({"encoder": ["resnet18"]}, r"encoder must be one of .*got \['resnet18'\]"),
    ({"encoder": nn.Identity()}, r"got Identity\(\).*add yours to barlow_edu.encoders.ENCODERS"),
    # numbers
    ({"lr": 0}, "lr must be at least 1e-12, got 0"),
    ({"lr": -1.0}, "lr must be at least"),
    ({"lr": "big"}, "lr must be a number, got 'big'"),
    ({"lr": math.nan}, "lr must be at least 1e-12, got nan"),
    ({"lr": math.inf}, "lr must be a number, got inf"),
    ({"lr": None}, "lr must be a number, got None"),
    ({"bias_lr": -1}, "bias_lr must be at least 0, got -1"),
    ({"momentum": 1.5}, "momentum must be between 0 and 1, got 1.5"),
    ({"final_lr": "x"}, "final_lr must be a number, got 'x'"),
    ({"lambd": -0.1}, "lambd must be at least 0, got -0.1"),
    ({"weight_decay": [1]}, r"weight_decay must be a number, got \[1\]"),
    ({"warmup_epochs": -1}, "warmup_epochs must be at least 0, got -1"),
    ({"epochs": 0}, "epochs must be at least 1, got 0"),
    ({"epochs": 1.5}, "epochs must be a whole number, got 1.5"),
    ({"epochs": True}, "epochs must be a number, got True"),
    ({"batch_size": 1}, "batch_size must be at least 2, got 1"),
    ({"limit": 0}, "limit must be at least 1, got 0"),
    ({"limit": "all"}, "limit must be a number, got 'all'"),
    ({"limit": 10.0}, "limit must be a whole number, got 10.0"),
    ({"seed": -1}, "seed must be between 0 and .*got -1"),
    ({"seed": 2**64}, "seed must be between 0 and"),
    ({"seed": None}, "seed must be a number, got None"),
    ({"log_every": 0}, "log_every must be at least 1, got 0"),
    ({"snapshots": -1}, "snapshots must be at least 0, got -1"),
    ({"probe_size": 1}, "probe_size must be at least 2, got 1"),
    ({"image_size": 4}, "image_size must be at least 8, got 4"),
    ({"proj_dim": 0}, "proj_dim must be at least 1, got 0"),
    ({"proj_dim": None}, "proj_dim must be a number, got None"),
    ({"proj_hidden": 0.5}, "proj_hidden must be a whole number, got 0.5"),
    # text
    ({"name": 3}, "name must be text, got 3"),
    ({"name": ""}, "name must be text, got ''"),
    ({"device": None}, "device must be text, got None"),
    ({"root": 3}, "root must be a folder, got 3"),
    # views
    ({"augment": {"blurr": 1}}, "augment has no 'blurr'. Did you mean blur. Known: scale, ratio"),
    ({"augment": [1]}, r"augment must hold 'key: value' pairs, got \[1\]"),
    ({"augment": {"hue": "much"}}, "augment: hue must be like 0.1, got 'much'"),
    ({"augment": {"hue": [0.1, 0.2]}}, r"augment: hue must be like 0.1, got \[0.1, 0.2\]"),
    ({"augment": {"scale": 0.3}}, r"augment: scale must be like \[0.08, 1.0\], got 0.3"),
    ({"augment": {"scale": [0.3]}}, r"augment: scale must be like .*got \[0.3\]"),
    ({"augment": {"scale": [0.3, "x"]}}, r"augment: scale must be like .*got \[0.3, 'x'\]"),
    ({"augment": {"flip": True}}, "augment: flip must be like 0.5, got True"),
    ({"augment": {"interpolation": "nearest"}}, "interpolation must be .*got 'nearest'"),
    ({"augment": {"interpolation": 3}}, "augment: interpolation must be like bicubic, got 3"),
]


@pytest.mark.parametrize(("given", "message"), IMPOSSIBLE)
def test_what_is_impossible_is_named_with_what_is_possible(given, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_config(given)
    assert str(caught.value).endswith(".")


def test_every_number_has_bounds():
    numbers = {k for k, v in DEFAULTS.items() if type(v) in (int, float)}
    assert numbers <= set(config_module.BOUNDS)


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
        (b"lr: [1", "bad.yaml is not readable YAML"),
        (b"\xff\xfe\x00\x80", "bad.yaml is not readable YAML"),
        (b"", "bad.yaml must hold settings as 'key: value' lines"),
        (b"- lr", "must hold settings"),
        (b"just words", "must hold settings"),
        (b"lr: !!python/object/apply:os.getcwd []", "not readable YAML"),
    ],
)
def test_a_file_that_is_no_configuration_is_named(content, message, tmp_path):
    (tmp_path / "bad.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_config(tmp_path / "bad.yaml")
