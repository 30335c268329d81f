"""Mistyped names: the near one is told, wherever names are taken."""

import importlib

import pytest

import barlow_edu as be
from barlow_edu.storage.spelling import did_you_mean
from barlow_edu.views import TwinViews


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
