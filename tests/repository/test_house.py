"""The house: who may import whom, and how large it may grow. Read from the syntax trees."""

import ast
import importlib.util
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import barlow_edu as be

PACKAGE = Path(__file__).parents[2] / "barlow_edu"
FLOORS = """numerics settings | loss recipe storage | models views data | methods state | config | runs
    | training evaluation scale | studies | teaching | publishing doctor | cli | __main__"""
FLOOR = {room: i for i, rooms in enumerate(FLOORS.split("|")) for room in rooms.split()}
BESIDE = sorted(
    p for folder in ("benchmarks", "examples") for p in PACKAGE.parent.glob(f"{folder}/*.py")
)
CORE = ["recipe", "views", "models", "loss", "data", "state", "training", "evaluation"]
MOST_ENTRIES, MOST_LINES, MOST_CORE_LINES = 24, 15_727, 1_500


def modules(package):
    """Name within the package -> source of every module; a folder's ``__init__`` has the folder's name."""
    paths = {path.relative_to(package).with_suffix(""): path for path in package.rglob("*.py")}
    named = {".".join(p.parts).removesuffix(".__init__"): f for p, f in paths.items()}
    return {
        name: path.read_text(encoding="utf-8") for name, path in named.items() if name != "__init__"
    }


def arrows(source, known):
    """(module, name) of everything that a module takes from the package; name is None for the module itself."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, "an import names its module in full"
            taken = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            taken = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        for name in taken:
            if name.startswith("barlow_edu."):
                inside = name.removeprefix("barlow_edu.")
                home, _, last = inside.rpartition(".")
                yield (inside, None) if inside in known else (home, last)


def faults(sources):
    """What breaks the rules in a package, one sentence each."""
    graph, found = {}, []
    taken = {m: set(arrows(source, sources)) for m, source in sources.items()}
    for module, names in taken.items():
        graph[module] = {home for home, _ in names if home}
        for home in graph[module]:
            one, other = (name.partition(".")[0] for name in (module, home))
            if one != other and FLOOR.get(one, -1) <= FLOOR.get(other, 99):
                found.append(f"{module} imports {home}, which is not on a floor below")
        for home, name in names:
            if name and home:
                if name.startswith("_"):
                    found.append(f"{module} takes {home}.{name}, which is private")
                if name in {n for _, n in taken.get(home, ())}:
                    found.append(f"{module} takes {name} from {home}, which is not its home")
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        found.append(f"a circle: {' -> '.join(circle.args[1])}")
    return found


def test_imports_lead_downwards_to_the_home_of_a_public_name():
    assert faults(modules(PACKAGE)) == []


@pytest.mark.parametrize("path", BESIDE, ids=lambda p: p.stem)
def test_what_stands_beside_the_package_imports_names_that_there_are(path):
    """A benchmark is run by hand, months later: nobody would see that a name has moved."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("barlow_edu"):
            home = importlib.import_module(node.module)
            for name in (alias.name for alias in node.names):
                submodule = f"{node.module}.{name}"
                assert hasattr(home, name) or importlib.util.find_spec(submodule), submodule


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        ("loss", "from barlow_edu.training import pretrain", "not on a floor below"),
        ("training", "def f():\n    import barlow_edu.evaluation", "not on a floor below"),
        ("nowhere", "from barlow_edu.loss import f", "not on a floor below"),
        ("cli", "from barlow_edu.nowhere import f", "not on a floor below"),
        ("cli", "import torch\nfrom barlow_edu.loss import f", None),
        ("cli", "from barlow_edu.loss import _f", "private"),
        ("cli", "from barlow_edu.models import f", "not its home"),
        ("scale.a", "from barlow_edu.scale import b", "a circle: scale."),
        ("cli", "from barlow_edu import __version__, doctor", None),
    ],
)
def test_a_fault_of_the_house_is_seen(module, source, fault):
    house = {"loss": "", "models": "from barlow_edu.loss import f", "evaluation": "", "doctor": ""}
    house |= {"training": "", "scale.b": "from barlow_edu.scale import a", module: source}
    assert [fault in text for text in faults(house)] == ([True] if fault else [])


def test_the_house_is_small():
    entries = [p.name for p in PACKAGE.iterdir() if p.name != "__pycache__"]
    lines = {m: source.count("\n") for m, source in modules(PACKAGE).items()}
    core = sum(lines.get(m, 0) for m in CORE)
    assert len(entries) <= MOST_ENTRIES
    assert sum(lines.values()) <= MOST_LINES
    assert core <= MOST_CORE_LINES


def test_editors_see_the_names_that_there_are():
    """Each import of ``__init__.py`` that editors read leads to the thing that ``be`` hands out, in its home."""
    for name, target in (be._HOMES | be._MODULES).items():
        home, _, last = target.rpartition(".")
        source = PACKAGE.joinpath(*home.split(".")[1:])
        path = source / "__init__.py" if source.is_dir() else source.with_suffix(".py")
        defined = {getattr(node, "name", "") for node in ast.parse(path.read_text("utf-8")).body}
        module = source / last if (source / last).is_dir() else source / f"{last}.py"
        assert last in defined if name in be._HOMES else module.exists(), target
        assert getattr(be, name).__name__ in (last, target)
    assert len(be._HOMES) >= 40 and len(be._MODULES) >= 30
    assert (PACKAGE / "py.typed").is_file()
