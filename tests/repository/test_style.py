"""The style of the repository: ruff, docstrings, what is tracked, what an import brings in."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import notebook_guard
import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "barlow_edu"
MAX_BYTES = 12_000_000
INHERITED = {"forward"}  # methods that torch documents: the class says what they compute

# Written in pieces, so that this file keeps its own rules.
REGISTRIES = re.compile(
    "|".join(
        [
            "index" + "-url",
            "find" + "-links",
            r"pypi\." + "org",
            r"python" + r"hosted\.org",
            r"pytorch\.org" + "/whl",
            r"anaconda\." + "org",
            r"npmjs\." + "(org|com)",
        ]
    )
)
JUPYTER = ["IPython", "ipywidgets", "anywidget", "jupyterlab", "nbformat", "nbclient"]
PLOTTING = ["matplotlib", "seaborn"]


@pytest.mark.parametrize("arguments", [["check"], ["format", "--check", "--diff"]])
def test_ruff_is_content(arguments):
    run = [sys.executable, "-m", "ruff", *arguments, "--no-cache", "."]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["bad.py", "bad.ipynb"])
def test_ruff_looks_at_notebooks_too(name, tmp_path):
    source = "import os"
    if name.endswith("ipynb"):
        cell = f'{{"cell_type": "code", "source": "{source}", "metadata": {{}}, "outputs": []}}'
        source = f'{{"cells": [{cell}], "metadata": {{}}, "nbformat": 4, "nbformat_minor": 4}}'
    (tmp_path / name).write_text(source)
    config = f"--config={ROOT / 'pyproject.toml'}"
    run = [sys.executable, "-m", "ruff", "check", "--no-cache", config, str(tmp_path)]
    done = subprocess.run(run, capture_output=True, text=True)
    assert "F401" in done.stdout


def tracked():
    """Paths of the files in git's index."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("not a git checkout")
    run = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
    listed = subprocess.run(run, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def found_in(content, patterns):
    """(line number, match) of each pattern in a file's bytes; binary files hold no text."""
    if b"\0" in content:
        return []
    text = notebook_guard.BASE64.sub("base64,", content.decode("utf-8"))
    lines = enumerate(text.splitlines(), start=1)
    return [(i, hit[0]) for i, line in lines for p in patterns for hit in [p.search(line)] if hit]


def test_tracked_files_hold_no_machine_paths_and_no_registries():
    # notebooks hold images as long lines of base64: their guard looks for machine paths
    patterns = {".ipynb": [REGISTRIES]}
    both = [REGISTRIES, notebook_guard.MACHINE_PATH]
    found = {
        path.relative_to(ROOT).as_posix(): hits
        for path in tracked()
        if (hits := found_in(path.read_bytes(), patterns.get(path.suffix, both)))
    }
    assert found == {}


@pytest.mark.parametrize(
    "line",
    [
        "pip install --index" + "-url https://example.com torch",
        "https://pypi." + "org/simple",
        "see /" + "home/someone/notes",
        "open('/" + "tmp/x')",
        "C:" + "\\Users\\someone",
    ],
)
def test_machine_paths_and_registries_are_seen(line):
    content = f"first\n{line}\n".encode()
    assert [i for i, _ in found_in(content, [REGISTRIES, notebook_guard.MACHINE_PATH])] == [2]


def test_tracked_files_are_small_and_no_lock_is_among_them():
    paths = tracked()
    assert [path.name for path in paths if path.stat().st_size > MAX_BYTES] == []
    assert not [path for path in paths if path.name == "uv.lock"]


def undocumented(source):
    """Public functions, classes and methods without a docstring, and "module" if it has none."""
    tree = ast.parse(source)
    definition = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    nodes = [node for node in tree.body if isinstance(node, definition)]
    for owner in [node for node in nodes if isinstance(node, ast.ClassDef)]:
        if not owner.name.startswith("_"):
            nodes += [node for node in owner.body if isinstance(node, definition)]
    public = [node for node in nodes if not node.name.startswith("_")]
    public = [node for node in public if node.name not in INHERITED]
    missing = [node.name for node in public if not ast.get_docstring(node)]
    return missing + ([] if ast.get_docstring(tree) else ["module"])


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix()
)
def test_everything_public_has_a_docstring(path):
    assert undocumented(path.read_text(encoding="utf-8")) == []


def test_a_missing_docstring_is_seen():
    source = "def f(): pass\ndef _g(): pass\nclass A:\n  def h(self): pass\n  def _i(self): pass"
    assert undocumented(source) == ["f", "A", "h", "module"]
    assert undocumented('"Module."\nasync def f():\n  "Do."\nclass _A:\n  def h(self): pass') == []


def import_without(blocked, modules):
    """Import `modules` in a fresh Python that refuses `blocked`. Returns the process."""
    code = f"""
import importlib, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise AssertionError(f"imports {{name}}")

sys.meta_path.insert(0, Refuse())
for name in {modules!r}:
    importlib.import_module(name)
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_training_needs_nothing_of_jupyter_or_plotting():
    names = ["training", "evaluation", "runs", "models", "data", "views", "doctor", "cli"]
    names += ["studies.lambda_sweep", "studies.ledger", "teaching.live"]
    modules = ["barlow_edu", *(f"barlow_edu.{name}" for name in names)]
    done = import_without(JUPYTER + PLOTTING, modules)
    assert done.returncode == 0, done.stderr


def test_a_forbidden_import_is_seen():
    done = import_without(["wsgiref"], ["wsgiref.headers"])
    assert done.returncode == 1
    assert "imports wsgiref" in done.stderr
