"""Files: written whole or not at all; JSON and YAML read with an error that names them; mistyped names."""

import importlib

import pytest

import barlow_edu as be
from barlow_edu.storage import files
from barlow_edu.storage.files import did_you_mean
from barlow_edu.views import TwinViews


def test_replacing_replaces_when_the_block_ends_well(tmp_path):
    target = tmp_path / "new folder" / "a.txt"
    with files.replacing(target) as temporary:
        temporary.write_text("one")
        assert not target.exists()
    assert target.read_text() == "one"
    assert [p.name for p in target.parent.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_replacing_leaves_the_old_file_when_the_block_fails(tmp_path, error):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(error), files.replacing(target) as temporary:
        temporary.write_text("half of the new")
        raise error
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_json_and_yaml_are_read_as_they_were_written(tmp_path):
    content = {"name": "λ", "rows": [1, 2.5, None, True]}
    files.write_json(tmp_path / "a" / "b.json", content)
    assert files.read_json(tmp_path / "a" / "b.json") == content
    assert (tmp_path / "a" / "b.json").read_text(encoding="utf-8").endswith("}\n")
    files.write_yaml(tmp_path / "c.yaml", {"b": 1, "a": [2, 3]})
    assert (tmp_path / "c.yaml").read_text(encoding="utf-8") == "b: 1\na:\n- 2\n- 3\n"
    files.write_text(tmp_path / "d.txt", "γ")
    assert (tmp_path / "d.txt").read_bytes() == "γ".encode()


@pytest.mark.parametrize("content", [b"", b"\0\0\0\0", b'{"a": 1', b"\xff\xfe"])
def test_a_damaged_json_file_is_named(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json is damaged: .*\.$"):
        files.read_json(tmp_path / "a.json")


def test_the_nearest_name_is_told_and_nothing_where_none_is_near():
    assert did_you_mean("lamda", ("lambd", "lr")) == " Did you mean lambd?"
    assert did_you_mean({"xyzzy", "epoch", 3}, ("epochs", "seed")) == " Did you mean epochs?"
    assert did_you_mean("xyzzy", ("epochs", "seed")) == ""
    assert did_you_mean("", ("epochs",)) == did_you_mean([], ("epochs",)) == ""


@pytest.mark.parametrize(
    ("call", "meant"),
    [
        (lambda: be.load_config(lamda=0.1), "lambd"),
        (lambda: be.load_config("garment_quick"), "garments_quick"),
        (lambda: be.load_config(augment={"brigthness": 0.1}), "brightness"),
        (lambda: be.BarlowTwinsModel(lamda=0.1), "lambd"),
        (lambda: TwinViews("cifar", solarize=0.1), "solarise"),
        (lambda: be.load_run("cifar10_cp"), "cifar10_cpu"),
        (lambda: be.barlow_twin_loss, "barlow_twins_loss"),
        (lambda: be.planer, "planner"),
    ],
)
def test_a_mistyped_name_is_answered_with_the_near_one(call, meant):
    with pytest.raises((ValueError, OSError, AttributeError), match=f"Did you mean {meant}?"):
        call()


@pytest.mark.parametrize("name, home", be._MODULES.items())
def test_modules_are_there_without_being_imported_one_by_one(name, home):
    assert getattr(be, name) is importlib.import_module(f"barlow_edu.{home}")
