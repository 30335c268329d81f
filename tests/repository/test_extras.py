"""Without an extra: the command that needs it says which to install, before it has begun; all else works."""

import sys
import tomllib
from pathlib import Path

import pytest

from barlow_edu.cli import main

ROOT = Path(__file__).parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
    "optional-dependencies"
]
TRAIN = "pretrain garments_quick --out run --set limit=64 batch_size=32"
NEEDS = {  # extra: what it brings, and a command that needs it
    "tensorboard": ("tensorboard", f"{TRAIN} --log tensorboard"),
    "wandb": ("wandb", f"{TRAIN} --log csv wandb"),
    "mlflow": ("mlflow", f"{TRAIN} --log mlflow"),
    "timm": ("timm", f"{TRAIN} encoder=timm/resnet18"),
    "hf": ("transformers", f"{TRAIN} encoder=hf/vit"),
    "datasets": ("datasets", f"{TRAIN} data=hf:owner/name"),
}
DO_WITHOUT = {
    "completion",
    "grading",
}  # the one does nothing then; test_grading.py has what is said of the other


def test_every_extra_is_tried_here():
    assert NEEDS.keys() | DO_WITHOUT == EXTRAS.keys()


@pytest.mark.parametrize("pip", [True, False])
@pytest.mark.parametrize("extra", NEEDS)
def test_without_its_extra_a_command_names_it(extra, pip, tmp_path, monkeypatch, capsys):
    """In an environment that has pip, or as uv makes them."""
    module, command = NEEDS[extra]
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, "pip", sys if pip else None)  # has a __spec__ or is not there
    monkeypatch.chdir(tmp_path)
    assert main(command.split()) == 2
    said = capsys.readouterr().err
    assert said.endswith(
        f'Install it: {"python -m pip" if pip else "uv pip"} install "barlow_edu[{extra}]"\n'
    )
    assert module in said and "doctor" not in said and not (tmp_path / "run").exists()


def test_without_completion_commands_work(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "argcomplete", None)
    assert main(["record", "nowhere", "name"]) == 2 and "nowhere" in capsys.readouterr().err
