"""One table of settings: each is refused, read, explained and spelled as its kind asks for."""

import importlib
import math
import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import barlow_edu as be
from barlow_edu.config import GROUPS, SETTINGS, read_pairs, settings_help, settings_table
from barlow_edu.settings import Setting, complete, did_you_mean, read_settings, read_yaml
from barlow_edu.views import TwinViews

WRONG = {
    int: ["many", 1.5, True, [1], {}, math.nan, math.inf, 10**400],
    float: ["much", True, [0.1], {}, math.nan, math.inf, 10**400],
    str: [3, True, "", ["a"], {}, nn.Identity()],
    dict: ["word", 3, [1], True],
    bool: ["yes", 0, 1, 1.0, []],
}


def impossible():
    """For every setting: values of a wrong kind, and numbers below and above."""
    for name, setting in SETTINGS.items():
        switch = False in setting.choices
        values = list(WRONG[bool if switch else setting.kind]) + (
            [] if setting.null or setting.kind is dict else [None]
        )
        if setting.kind in (int, float):
            values += [setting.low - 1]
            values += [setting.high + 1] if setting.high < math.inf else []
        yield from (pytest.param(name, value, id=f"{name}-{value}") for value in values)


@pytest.mark.parametrize(("name", "value"), impossible())
def test_what_is_impossible_is_named_with_what_is_possible(name, value):
    with pytest.raises(ValueError) as caught:
        be.load_config({name: value})
    message, setting = str(caught.value), SETTINGS[name]
    assert message.startswith(f"{name} ") and message.endswith(".")
    if not isinstance(value, nn.Module):
        assert f"{name} must be {setting.allowed}, got " in message
        assert setting.choices == () or all(str(choice) in message for choice in setting.choices)
        for bound in (setting.low, setting.high):
            assert str(bound) in message or math.isinf(bound)


@pytest.mark.parametrize("name", SETTINGS)
def test_defaults_and_bounds_are_possible_and_read_from_text(name):
    setting = SETTINGS[name]
    values = [setting.default, *setting.choices, *([None] if setting.null else [])]
    values += [b for b in (setting.low, setting.high) if math.isfinite(b)]
    for value in values:
        setting.check(name, value)
        text = "null" if value is None else str(value)
        assert setting.read(name, text) == value or setting.kind is dict
        assert complete({name: setting}, {name: value}) == {name: value}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_explained_where_one_looks(name):
    setting = SETTINGS[name]
    assert len(setting.help.splitlines()) == 1 and len(setting.help) > 10
    assert [name in group for group in GROUPS.values()].count(True) == 1 or name in (
        "predictor",
        "pred_hidden",
        "stop_gradient",
    )
    [row] = [row for row in settings_table().splitlines() if row.startswith(f"| `{name}` ")]
    assert row.endswith(f"| {setting.allowed} | {setting.help} |")
    [row] = [row for row in settings_help().splitlines() if row.startswith(f"  {name}=")]
    assert row.endswith(setting.help)


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("root=2024", "2024"),
        ("root=no", "no"),
        ("root=1e3", "1e3"),
        ("root=~/images", "~/images"),
        ("root=a: b", "a: b"),
        ("root=x # y", "x # y"),
        ("root=a=b", "a=b"),
        ("root=[1", "[1"),
        ("root=null", None),
        ("name=3", "3"),
        ("lr=1e-3", 1e-3),
        ("lr=5.e-1", 0.5),
        ("lr=fast", "fast"),
        ("epochs=1e3", 1000),
        ("epochs=1.5", 1.5),
        ("seed=9007199254740993", 9007199254740993),
        ("limit=null", None),
        ("limit=", None),
        ("limit=~", None),
        ("stream=auto", "auto"),
        ("stream=yes", True),
        ("channels_last=False", False),
        ("compile=1", "1"),
        ("augment={hue: 1e-1, scale: [0.2, 1]}", {"hue": 0.1, "scale": [0.2, 1]}),
        ("augment=null", None),
        ("root=2024-13-45", "2024-13-45"),
        ("root=2024-01-01", "2024-01-01"),
        ("root==", "="),
        ("root=<<", "<<"),
        ("root=12:30:45", "12:30:45"),
        ("root=0777", "0777"),
        ("root=0x1F", "0x1F"),
        ("root=.inf", ".inf"),
        ("epochs=012", 12),
        ("lr=1:30", "1:30"),
        ("learning_rate=1", "1"),
    ],
)
def test_a_value_is_read_by_the_kind_of_its_setting(pair, value, tmp_path):
    name = pair.partition("=")[0]
    read = read_pairs([pair])
    assert read == {name: value} and type(read[name]) is type(value)
    if name in SETTINGS and "#" not in pair and not set(pair) & set(":[{"):
        assert read_settings(SETTINGS, pair.replace("=", ": ", 1)) == read  # and so in a file


def test_a_file_takes_quoted_text_and_comments():
    text = "root: 'x # y'  # why\nname: no\nlr: 1e-3\naugment: {hue: 1e-1}\nother: 1e-1\n"
    expected = {"root": "x # y", "name": "no", "lr": 1e-3, "augment": {"hue": 0.1}, "other": 0.1}
    assert read_settings(SETTINGS, text) == expected


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["lr"], "--set takes KEY=VALUE, got 'lr'."),
        (["=3"], "--set takes KEY=VALUE, got '=3'."),
        (["lr=1", "epochs=2", "lr=1"], "--set gives lr twice."),
        (["augment={hue"], "augment: '{hue' is not YAML"),
        (["augment={hue: 1, hue: 2}"], "augment: .* hue is given twice"),
    ],
)
def test_pairs_that_cannot_be_read_are_named(pairs, message):
    with pytest.raises(ValueError, match=message):
        read_pairs(pairs)


@pytest.mark.parametrize(
    "text", ["<<: {lr: 1}", "base: &b {lr: 1}\n<<: *b", "augment: {<<: {hue: 1}}"]
)
def test_what_takes_others_in_is_an_error(text):
    with pytest.raises(yaml.YAMLError, match="<< takes others in: write them out"):
        read_settings(SETTINGS, text)


@given(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1))
def test_a_text_setting_is_taken_literally_whatever_it_looks_like(text):
    """By --set always; in a file where YAML takes the line for a plain text at all, or quoted."""
    assert read_pairs([f"root={text}"]) == {"root": None if text == "null" else text}
    quoted = "'" + text.replace("'", "''") + "'"
    assert read_settings(SETTINGS, f"root: {quoted}") == read_pairs([f"root={text}"])
    if re.fullmatch(r"[\w.+:/=<~-]*\w", text, re.ASCII) and not re.match("-$|[?:-] ", text):
        assert read_settings(SETTINGS, f"root: {text}") == read_pairs([f"root={text}"])


@pytest.mark.parametrize("text", ["lr: 1\nepochs: 2\nlr: 1\n", "augment: {hue: 1, hue: 2}"])
def test_a_key_that_stands_twice_in_a_file_is_named(text):
    with pytest.raises(yaml.YAMLError, match="(lr|hue) is given twice"):
        read_settings(SETTINGS, text)


NO_NAMES = [
    "../../x",
    "a/b",
    "a\\b",
    ".hidden",
    ".",
    "..",
    "/a/x",
    "c:x",
    "a\0b",
    "a\nb",
    " ",
    "\udcff",
]


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_name_is_that_of_a_folder(name):
    with pytest.raises(ValueError, match="name must be that of a folder.*got"):
        be.load_config(name=name)


def test_dicts_and_lists_of_numbers_are_looked_into():
    inner = {"pair": Setting((0, 1), "two numbers", tuple), "n": Setting(1, "a count", int, 0)}
    table = {"outer": Setting({}, "a dict", dict, inside=inner)}
    assert complete(table, {"outer": {"pair": (1, 2)}}) == {"outer": {"pair": [1, 2]}}
    for value, message in [
        ({"pair": [1]}, r"outer.pair must be a list of 2 numbers, got \[1\]"),
        ({"pair": [1, True]}, "outer.pair must be"),
        ({"n": -1}, "outer.n must be a whole number of at least 0, got -1"),
        ({"m": 1, "k": 1}, "Unknown setting outer.k, outer.m. Known: pair, n"),
    ]:
        with pytest.raises(ValueError, match=message):
            complete(table, {"outer": value})


def test_a_long_value_is_not_printed_whole():
    with pytest.raises(ValueError, match="lr must be .*, got a list.$"):
        be.load_config(lr=[0] * 1000)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("-2.5e+2", -250.0),
        (".5e1", 5.0),
        ("[0.2, 1e-1]", [0.2, 0.1]),
        ("resnet18", "resnet18"),
        ("1e", "1e"),
        ("e5", "e5"),
        ("2e3x", "2e3x"),
    ],
)
def test_yaml_numbers_are_what_they_look_like(text, value):
    read = read_yaml(text)
    assert read == value and type(read) is type(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_is_read_as_python_writes_it(value):
    number = Setting(0.0, "any number", float)
    for text, expected in ((repr(value), value), (f"{value:.3e}", float(f"{value:.3e}"))):
        assert read_yaml(text) == number.read("x", text) == expected


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
        (lambda: be.load_config(ablate={"term": "both"}), "terms"),
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
    assert getattr(be, name) is importlib.import_module(home)
