"""The files around the package agree with each other: environments, citation, test command."""

import ast
import copy
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import barlow_edu
from barlow_edu import cli

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
TEST_COMMAND = "uv run pytest -n 2"

CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
PYTHON = re.compile(r"python=(3\.\d+)")  # as repo2docker reads it, which begins with 3.10 otherwise
CONDA_LEAVES_OUT = {"playwright", "axe-playwright-python"}  # for the browser tests alone


def requirements(lines):
    """{canonical name: Requirement} of lines such as "torch>=2.6"."""
    parsed = [Requirement(line) for line in lines]
    return {canonicalize_name(requirement.name): requirement for requirement in parsed}


def direct_requirements(pyproject):
    return requirements(
        pyproject["project"]["dependencies"] + pyproject["dependency-groups"]["dev"]
    )


def drift(pyproject, environment):
    """What differs between pyproject.toml and environment.yml, as {name: (one, the other)}."""
    wanted = {
        CONDA_NAMES.get(name, name): str(requirement.specifier)
        for name, requirement in direct_requirements(pyproject).items()
        if name not in CONDA_LEAVES_OUT
    }
    lines = [line for line in environment["dependencies"] if isinstance(line, str)]
    lines = [line for line in lines if not PYTHON.fullmatch(line)]
    found = {name: str(line.specifier) for name, line in requirements(lines).items()}
    found.pop("pip", None)  # conda's own way to install this package
    names = sorted(wanted.keys() | found.keys())
    pairs = {name: (wanted.get(name), found.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def replaced(environment, line, *new):
    changed = copy.deepcopy(environment)
    at = changed["dependencies"].index(line)
    changed["dependencies"][at : at + 1] = new
    return changed


def test_environment_and_pyproject_are_in_step():
    assert drift(PYPROJECT, ENVIRONMENT) == {}


@pytest.mark.parametrize(
    ("line", "new", "expected"),
    [
        ("pytorch>=2.6", ["pytorch>=2.7"], {"pytorch": (">=2.6", ">=2.7")}),
        ("pytorch>=2.6", ["pytorch"], {"pytorch": (">=2.6", "")}),
        ("tqdm>=4.66", [], {"tqdm": (">=4.66", None)}),
        ("tqdm>=4.66", ["tqdm>=4.66", "dask>=1"], {"dask": (None, ">=1")}),
        ("python=3.12", ["python>=3.11"], {"python": (None, ">=3.11")}),
        ("ruff>=0.15", [], {"ruff": (">=0.15", None)}),
    ],
)
def test_drift_is_seen(line, new, expected):
    assert drift(PYPROJECT, replaced(ENVIRONMENT, line, *new)) == expected


def test_a_new_dependency_in_pyproject_is_seen():
    changed = copy.deepcopy(PYPROJECT)
    changed["project"]["dependencies"].append("dask>=1")
    assert drift(changed, ENVIRONMENT) == {"dask": (">=1", None)}


def test_environment_installs_this_package_from_conda_forge():
    assert ENVIRONMENT["name"] == PYPROJECT["project"]["name"]
    assert ENVIRONMENT["channels"][0] == "conda-forge"
    assert "pip" in ENVIRONMENT["dependencies"]
    assert {"pip": ["-e ."]} in ENVIRONMENT["dependencies"]


def test_torch_has_no_upper_bound():
    for name in ("torch", "torchvision"):
        specifiers = direct_requirements(PYPROJECT)[name].specifier
        assert [specifier.operator for specifier in specifiers] == [">="]


# What the command line trains with. Whatever else the package depends on may be missing there.
TRAINING = {
    *("torch", "torchvision", "numpy", "pyyaml", "tqdm", "filelock"),
    *(
        "safetensors",
        "scikit-learn",
        "pillow",
        "threadpoolctl",
        "joblib",
    ),  # two come with scikit-learn
}
ALL = set(requirements(PYPROJECT["project"]["dependencies"]))
DEV = set(direct_requirements(PYPROJECT))
# What is imported inside a function, where its user has asked for it.
OPTIONAL = PYPROJECT["project"]["optional-dependencies"]
EXTRAS = {*OPTIONAL, *requirements(sum(OPTIONAL.values(), []))}
MAY_IMPORT = {  # the first that a file's path begins with
    "barlow_edu/publishing/site/": DEV,  # which says itself what to install
    **{f"barlow_edu/{room}": ALL for room in ("teaching/", "publishing/", "doctor.py")},
    "barlow_edu/studies/": TRAINING | {"scipy"},
    "barlow_edu/evaluation/callbacks.py": TRAINING | EXTRAS,
    "barlow_edu/storage/libraries.py": TRAINING | EXTRAS,
    "barlow_edu/storage/containers.py": TRAINING | EXTRAS,
    "barlow_edu/cli.py": TRAINING | EXTRAS,
    "tests/evaluation/test_callbacks.py": DEV | EXTRAS,  # skip what is not installed
    "tests/storage/test_containers.py": DEV | EXTRAS,
    "tests/publishing/test_grading.py": DEV | EXTRAS | {"otter"},  # of otter-grader
    "barlow_edu/": TRAINING,
    "": DEV | {"lightly"},  # the peer of some benchmarks, which skip where it is not installed
}
DISTRIBUTIONS = packages_distributions()
PACKAGE = ROOT / "barlow_edu"
OURS = {p.stem for f in ("tests", "benchmarks") for p in (ROOT / f).rglob("*.py")}


def undeclared(path, source):
    """Distributions that a file imports and may not count on."""
    nodes = list(ast.walk(ast.parse(source)))
    names = [a.name for node in nodes if isinstance(node, ast.Import) for a in node.names]
    names += [n.module for n in nodes if isinstance(n, ast.ImportFrom) and not n.level]
    tops = {name.partition(".")[0] for name in names} - {*sys.stdlib_module_names, "__main__"}
    allowed = next(MAY_IMPORT[begin] for begin in MAY_IMPORT if path.startswith(begin))
    allowed = allowed | {"barlow-edu", "oracles"}
    homes = [[*map(canonicalize_name, DISTRIBUTIONS.get(top, [top]))] for top in tops - OURS]
    return {home[0] for home in homes if not allowed.intersection(home)}  # mlflow has three


def test_what_is_imported_is_declared():
    folders = ("barlow_edu", "tests", "benchmarks", "examples")
    paths = [p for f in folders for p in (ROOT / f).rglob("*.py")]
    texts = {p.relative_to(ROOT).as_posix(): p.read_text(encoding="utf-8") for p in paths}
    missing = {path: undeclared(path, text) for path, text in texts.items()}
    assert {path: names for path, names in missing.items() if names} == {}


@pytest.mark.parametrize(
    ("path", "source", "missing"),
    [
        ("barlow_edu/storage/x.py", "import os, torch\nfrom PIL import Image", set()),
        ("barlow_edu/storage/x.py", "def f():\n    import matplotlib.pyplot", {"matplotlib"}),
        ("barlow_edu/teaching/x.py", "import matplotlib, sphinx.application", {"sphinx"}),
        ("barlow_edu/publishing/site/x.py", "from sphinx import application", set()),
        ("tests/x.py", "import pytest, tiny, barlow_edu\nfrom dask import x", {"dask"}),
    ],
)
def test_an_import_that_is_not_declared_is_seen(path, source, missing):
    assert undeclared(path, source) == missing


def constraints():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_constraints_are_names_and_versions_only():
    for line in constraints():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", line), line


def test_constraints_leave_the_graphics_card_to_torch():
    assert not [line for line in constraints() if re.match(r"nvidia|cuda|triton", line, re.I)]


@pytest.mark.parametrize("name", sorted(direct_requirements(PYPROJECT)))
def test_constraints_hold_every_direct_dependency_in_its_range(name):
    [version] = requirements(constraints())[name].specifier
    assert version.version in direct_requirements(PYPROJECT)[name].specifier


def test_constraints_begin_with_the_command_that_installs_them():
    head = (ROOT / "constraints.txt").read_text(encoding="utf-8").split("\n\n")[0]
    assert "pip install -c constraints.txt -e . --group dev" in head


def test_versions_agree():
    assert "version" in PYPROJECT["project"]["dynamic"]  # written in the package alone
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    [newest, *_] = re.findall(r"^## (\S+)", changes, re.MULTILINE)
    assert CITATION["version"] == newest == barlow_edu.__version__


def test_the_race_on_the_site_is_the_recorded_one():
    """Three seeds an arm, each for all of its ten minutes; the means before, on the way and at the end."""
    record = json.loads((ROOT / "benchmarks/results/race.json").read_text(encoding="utf-8"))
    site = (ROOT / "barlow_edu/publishing/site/using.md").read_text(encoding="utf-8")
    [[pixels]] = record["rows"].pop("pixels")
    assert f"pixels have {100 * pixels['knn']:.1f} %" in " ".join(site.split())
    assert {"lightly", "lightly, our net", "ours"} <= set(record["rows"])
    for races in record["rows"].values():
        assert len(races) == 3
        assert all(
            race[i]["minute"] == pytest.approx(i, abs=0.2) for race in races for i in range(11)
        )
        means = [100 * sum(race[i]["knn"] for race in races) / 3 for i in (0, 1, 5, 10)]
        steps = sum(race[-1]["steps"] for race in races) / 3
        assert f"| {' | '.join(f'{x:.1f}' for x in means)} | {steps:,.0f} |" in site


def test_citation_names_this_software_and_the_paper():
    assert CITATION["cff-version"] == "1.2.0"
    assert CITATION["type"] == "software"
    assert CITATION["license"] == PYPROJECT["project"]["license"] == "MIT"
    assert CITATION["authors"] == [{"name": "The barlow_edu authors"}]
    [paper] = CITATION["references"]
    names = [author["family-names"] for author in paper["authors"]]
    assert names == ["Zbontar", "Jing", "Misra", "LeCun", "Deny"]
    assert paper["year"] == 2021
    assert paper["identifiers"][0]["value"] == "arXiv:2103.03230"


def test_readme_and_ci_run_the_same_test_command():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").strip().splitlines()
    assert script[-1] == TEST_COMMAND
    assert f"pip install uv && {TEST_COMMAND}" in (ROOT / "README.md").read_text(encoding="utf-8")


WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8"))


def commands(job):
    return [step["run"] for step in WORKFLOW["jobs"][job]["steps"] if "run" in step]


class Worker:
    """What xdist's scheduler asks of one; it writes down the tests that it is sent."""

    shutting_down, gateway = False, SimpleNamespace(id="gw")

    def __init__(self):
        self.sent = []

    def send_runtest_some(self, tests):
        self.sent += tests

    def shutdown(self):
        self.shutting_down = True


def test_two_workers_begin_with_what_takes_longest(monkeypatch):
    pytest.importorskip("xdist")
    top = runpy.run_path(ROOT / "conftest.py")
    assert all((ROOT / name).exists() for name in top["LONG"])
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    files = ["tests/test_cli.py"] * 4 + ["tests/test_data.py"] * 5 + ["notebooks/04_x.ipynb"] * 3
    files += ["tests/browser/test_site_pages.py"] * 3 + ["notebooks/05_x.ipynb"] * 6
    items = [SimpleNamespace(path=ROOT / f, nodeid=f"{f}::{i}") for i, f in enumerate(files)]
    top["pytest_collection_modifyitems"](items)
    given = {"dist": "load", "tx": ["2*popen"]}
    option = SimpleNamespace(loadscopereorder=True)
    config = SimpleNamespace(option=option, getoption=given.get, getvalue=given.get)
    schedule = top["pytest_xdist_make_scheduler"](config, None)
    workers = Worker(), Worker()
    for worker in workers:
        schedule.add_node(worker)
        schedule.add_node_collection(worker, [item.nodeid for item in items])
    schedule.schedule()
    for i in range(
        sum(len(w.sent) for w in workers)
    ):  # the second finishes all it has, the first nothing
        if i < len(workers[1].sent):
            schedule.mark_test_complete(workers[1], workers[1].sent[i])
    sent = [[items[i].nodeid.partition("::")[0] for i in worker.sent] for worker in workers]
    begun = [list(dict.fromkeys(files)) for files in sent]
    assert begun[0] == ["tests/browser/test_site_pages.py"]
    assert begun[1][:2] == ["notebooks/05_x.ipynb", "notebooks/04_x.ipynb"]
    assert begun[1][2] == "tests/test_data.py"


def test_the_workflow_runs_ci_run():
    assert commands("test") == [".ci/run"]


def test_the_workflow_knows_every_python_and_every_system():
    matrix = WORKFLOW["jobs"]["test"]["strategy"]["matrix"]
    named = [
        c.rsplit(" ", 1)[1]
        for c in PYPROJECT["project"]["classifiers"]
        if re.search(r":: 3\.\d+$", c)
    ]
    assert matrix["python"] == named
    assert PYPROJECT["project"]["requires-python"] == f">={named[0]}"
    assert {m.split("-")[0] for m in matrix["os"]} == {"ubuntu", "macos", "windows"}


def test_the_workflow_resolves_afresh_every_week_and_tries_the_lowest_versions():
    assert WORKFLOW[True]["schedule"]  # YAML reads the key "on" as true
    [command] = commands("lowest")
    assert "--resolution lowest-direct" in command and command.endswith("pytest")
    assert WORKFLOW["jobs"]["lowest"]["env"]["UV_PYTHON"] == PYPROJECT["project"][
        "requires-python"
    ].lstrip(">=")


def stub(folder, name, body):
    """A shell script that stands for a program."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def run_ci(tmp_path, **options):
    """Run a copy of .ci/run from elsewhere, with the stubs in tmp_path/bin as its programs."""
    clone = tmp_path / "a clone"
    (clone / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "run", clone / ".ci" / "run")
    for name in ("dirname", "bash", "cat"):
        os.symlink(shutil.which(name), tmp_path / "bin" / name)
    environment = {"PATH": str(tmp_path / "bin"), "LOG": str(tmp_path / "log")}
    done = subprocess.run(
        [clone / ".ci" / "run"], cwd=tmp_path, env=environment, capture_output=True, **options
    )
    return done, (tmp_path / "log").read_text().replace(str(clone), "CLONE").splitlines()


needs_sh = pytest.mark.skipif(sys.platform == "win32", reason="the stubs are shell scripts")
UV_STUB = 'echo "uv $* in $PWD" >> "$LOG"; cat >> "$LOG"'


@pytest.fixture
def stubs(tmp_path):
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


@needs_sh
def test_ci_run_uses_the_uv_that_is_there(tmp_path, stubs):
    stub(stubs, "uv", UV_STUB)
    done, log = run_ci(tmp_path, input=b"never read\n")
    assert done.returncode == 0
    assert log == [f"{TEST_COMMAND} in CLONE"]


@needs_sh
def test_ci_run_installs_uv_where_it_is_missing(tmp_path, stubs):
    warn = 'echo "WARNING: running pip as root" >&2'
    stub(stubs, "python3", f'echo "python $*" >> "$LOG"; {warn}')
    done, log = run_ci(tmp_path)
    assert done.returncode == 0
    assert log == ["python -m pip install uv", f"python -m {TEST_COMMAND}"]


@needs_sh
def test_ci_run_works_without_stdin(tmp_path, stubs):
    stub(stubs, "uv", UV_STUB)
    done, log = run_ci(tmp_path, preexec_fn=lambda: os.close(0))
    assert done.returncode == 0
    assert log == [f"{TEST_COMMAND} in CLONE"]


@needs_sh
def test_ci_run_fails_when_a_test_fails(tmp_path, stubs):
    stub(stubs, "uv", UV_STUB + "; exit 3")
    assert run_ci(tmp_path)[0].returncode == 3


@needs_sh
def test_ci_run_fails_when_uv_cannot_be_installed(tmp_path, stubs):
    stub(stubs, "python3", 'echo "python $*" >> "$LOG"; exit 1')
    done, log = run_ci(tmp_path)
    assert done.returncode == 1
    assert log == ["python -m pip install uv"]


# --- one click ----------------------------------------------------------------------------------

CONTAINER = ROOT / ".devcontainer"
DOCKERFILE = (CONTAINER / "Dockerfile").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
INSTALL = (PACKAGE / "publishing" / "site" / "install.md").read_text(encoding="utf-8")


def steps(kind):
    """What the Dockerfile's lines of one kind say."""
    return re.findall(rf"^{kind} (.+)$", DOCKERFILE, re.MULTILINE)


def test_the_container_is_for_a_python_that_we_test_and_not_for_root():
    [image], [user] = steps("FROM"), steps("USER")
    versions = WORKFLOW["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert image in {f"python:{version}-slim" for version in versions}
    assert f"useradd --create-home --uid 1000 {user}" in DOCKERFILE and user != "root"
    made = DOCKERFILE.index("useradd")
    assert made < DOCKERFILE.index("USER ") < DOCKERFILE.index("COPY ") < DOCKERFILE.index("-e .")
    assert "UV_TORCH_BACKEND=cpu" in DOCKERFILE  # without 3 GB of GPU libraries


def test_conda_and_binder_take_a_python_that_we_test():
    [version] = [m[1] for line in ENVIRONMENT["dependencies"] if (m := PYTHON.match(str(line)))]
    assert version in WORKFLOW["jobs"]["test"]["strategy"]["matrix"]["python"]


def test_binder_is_left_its_conda_environment():
    # repo2docker takes a Dockerfile, or a folder of that name, before environment.yml
    for name in ("Dockerfile", "binder", ".binder", "postBuild", "requirements.txt"):
        assert not (ROOT / name).exists(), name


def test_what_the_container_starts_is_a_command_of_ours():
    [words] = [json.loads(line) for line in steps("CMD")]
    options = cli._parser().parse_args(words[1:])
    assert words[0] in PYPROJECT["project"]["scripts"] and options.folder == Path("mine")
    assert options.no_browser and options.lab == ["--ip=0.0.0.0"]
    [port] = steps("EXPOSE")
    assert f"-p {port}:{port} -v barlow_edu:/course/{options.folder} barlow_edu" in INSTALL
    for line in re.findall(r"^#   (docker .+)$", DOCKERFILE, re.MULTILINE):
        assert f"`{line}`" in INSTALL


def test_the_devcontainer_builds_that_dockerfile():
    config = json.loads((CONTAINER / "devcontainer.json").read_text(encoding="utf-8"))
    assert (CONTAINER / config["build"]["dockerfile"]).read_text(encoding="utf-8") == DOCKERFILE
    assert (CONTAINER / config["build"]["context"]).resolve() == ROOT
    assert [config["remoteUser"]] == steps("USER")
    assert [f.split("/")[-1] for f in config["features"]] == ["git:1"]  # slim images have no git
    assert [str(port) for port in config["forwardPorts"]] == steps("EXPOSE")
    assert config["postCreateCommand"] == "uv pip install -e . --group dev && barlow-edu doctor"
    python = config["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"]
    assert f"VIRTUAL_ENV={Path(python).parents[1].as_posix()} " in DOCKERFILE


def test_the_image_leaves_out_what_git_does():
    left_out = (CONTAINER / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    known = {line.strip("/") for line in ignored} | {".git"}
    assert {line.removeprefix("**/") for line in left_out} <= known


def test_a_fork_changes_one_line_of_the_readme():
    lines = README.splitlines()
    [badges] = [i for i, line in enumerate(lines) if "YOUR_NAME" in line and "badge" in line]
    named = [i for i, line in enumerate(lines) if "YOUR_NAME" in line]
    assert named == [badges - 1, badges]
    parts = re.findall(r"\[!\[.+?\]\(\S+?\)\]\((\S+?)\)", lines[badges])
    assert len(parts) == 3 and all("YOUR_NAME/barlow_edu" in link for link in parts)
    for link in parts[:2]:
        assert f"`{link}`" in INSTALL and (ROOT / link[link.index("notebooks/") :]).is_file()
    assert parts[2].endswith("workflows/test.yml")


def test_the_shell_completes_commands_and_configurations(tmp_path):
    pytest.importorskip("argcomplete")
    told = {}
    for line in ("barlow-edu pre", "barlow-edu pretrain garments_", "barlow-edu course st"):
        environment = os.environ | {
            "_ARGCOMPLETE": "1",
            "COMP_LINE": line,
            "_ARGCOMPLETE_IFS": "\n",
        }
        environment |= {
            "COMP_POINT": str(len(line)),
            "_ARGCOMPLETE_STDOUT_FILENAME": f"{tmp_path / 'told'}",
        }
        code = "import sys; from barlow_edu.cli import main; sys.exit(main())"
        subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
        told[line] = {word.strip() for word in (tmp_path / "told").read_text().split("\n")}
    assert list(told.values()) == [
        {"pretrain"},
        {"garments_quick", "garments_hero", "garments_wide"},
        {"start", "student"},
    ]
