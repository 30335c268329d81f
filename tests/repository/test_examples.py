"""Every example in a docstring is run, and every public name has one."""

import doctest
import re
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

import barlow_edu as be

PACKAGE = Path(be.__file__).parent
EXAMPLE = re.compile(r"^ *>>> ", re.MULTILINE)
FILES = [p for p in sorted(PACKAGE.rglob("*.py")) if EXAMPLE.search(p.read_text(encoding="utf-8"))]
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def examples(thing, name):
    """Examples in the docstrings of a module, class or function, and of what it defines."""
    home = sys.modules[getattr(thing, "__module__", name)]  # left to find, the search takes long
    return [found for found in doctest.DocTestFinder().find(thing, name, home) if found.examples]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_examples_print_what_they_say(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.set_printoptions(
        profile="default"
    )  # a page that was run in this process may print in its own way
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    module = import_module(".".join(parts).removesuffix(".__init__"))
    runner = doctest.DocTestRunner(verbose=False, optionflags=FLAGS)
    assert examples(module, module.__name__), "its examples are in no public docstring"
    for example in examples(module, module.__name__):
        runner.run(example, out=lambda text: pytest.fail(text, pytrace=False))


def test_every_public_name_has_an_example():
    without = {name for name in be.__all__ if not examples(getattr(be, name), name)}
    assert without == set()


def test_a_missing_example_is_seen():
    def f():
        """Do nothing."""

    assert examples(f, "f") == []
    f.__doc__ += "\n\n>>> 1 + 1\n2\n"
    assert len(examples(f, "f")) == 1
