"""The sdist makes a wheel, and the wheel works in an environment and a folder that know nothing of the checkout.

The environment is a new one. It sees the libraries (torch and the others) of the environment that runs the tests,
but not its barlow_edu: a path file does not bring in the path files of the folder it names.
"""

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from barlow_edu import __version__
from barlow_edu.publishing.copies import INSTRUCTORS_ONLY
from barlow_edu.publishing.notebook import read, tagged

pytest.importorskip("hatchling", reason="the build backend is not installed")
ROOT = Path(__file__).parents[2]
NOTEBOOKS = {p.name for p in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")}


def run(*arguments, cwd, status=0):
    """What a process prints; it must end with ``status`` and must not see this checkout."""
    environment = {k: v for k, v in os.environ.items() if k != "BARLOW_EDU_DATA"}
    done = subprocess.run(
        [str(a) for a in arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist, and the wheel that was built from nothing but the unpacked sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, cwd=ROOT)
    [sdist] = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as packed:
        packed.extractall(folder / "unpacked", filter="data")
    [source] = (folder / "unpacked").iterdir()
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=source)
    [wheel] = folder.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def python(built, tmp_path_factory):
    """The Python of a new environment with the wheel, and a folder to work in."""
    home = tmp_path_factory.mktemp("elsewhere")
    venv.create(home / "env", with_pip=True)
    scripts = "Scripts" if os.name == "nt" else "bin"
    python = home / "env" / scripts / ("python.exe" if os.name == "nt" else "python")
    run(python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", built[1], cwd=home)
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(run(python, "-c", ask, cwd=home).strip())
    libraries = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    (site / "libraries_of_the_tests.pth").write_text("\n".join(libraries), encoding="utf-8")
    return python


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


def test_the_wheel_holds_each_thing_once(built):
    names = zipfile.ZipFile(built[1]).namelist()
    assert len(names) == len(set(names))
    assert {Path(n).name for n in names if n.endswith(".ipynb")} == NOTEBOOKS
    assert sum(n.endswith("garments.npz") for n in names) == 1
    # nothing of tests, downloads or runs in progress
    tops = {n.split("/")[0] for n in names}
    assert tops == {"barlow_edu", f"barlow_edu-{__version__}.dist-info"}
    assert not [n for n in names if "checkpoint" in n.rsplit("/", 1)[-1] and n.endswith(".pt")]


def test_the_wheel_holds_the_students_notebooks_and_nothing_for_teachers(built):
    with zipfile.ZipFile(built[1]) as wheel:
        inside = [n for n in wheel.namelist() if n.startswith("barlow_edu/_notebooks/")]
        books = {Path(n).name: json.loads(wheel.read(n)) for n in inside if n.endswith(".ipynb")}
        texts = {n: wheel.read(n).decode(errors="replace") for n in inside}
    assert {Path(n).name for n in inside} == {*books, "FORMULA_SHEET.md"}
    for name, book in books.items():
        original = read(ROOT / "notebooks" / name)
        hidden = [c.source for tag in ("solution", "instructor") for c in tagged(original, tag)]
        sources = ["".join(cell["source"]) for cell in book["cells"]]
        assert hidden and not set(hidden) & set(sources), name
        opened = [s for s in sources if 'raise NotImplementedError("Exercise ' in s]
        assert len(opened) == len(tagged(original, "exercise")) > 0
    exam = (ROOT / "notebooks" / "EXAM_ANSWERS.md").read_text(encoding="utf-8")
    lines = [line for line in exam.splitlines() if len(line) > 60]
    assert lines and not [n for n, text in texts.items() for line in lines if line in text]


def test_sdist_and_wheel_stay_below_the_limit_of_a_registry(built):
    assert all(path.stat().st_size < 60e6 for path in built)  # registries take 100 MB a file


def test_import_and_data_of_the_installed_package(python, work):
    code = """
import sys, barlow_edu as be
from barlow_edu.storage.places import data_dir
images = be.load_images("garments", limit=100)
run = be.load_run("garments_quick")
print(be.__file__, be.__version__, images, len(run.snapshots) > 10, data_dir(), sep="|")
print(sorted({"matplotlib", "IPython", "ipywidgets"} & set(sys.modules)))
"""
    said, brought_in = run(python, "-c", code, cwd=work).splitlines()
    file, version, images, snapshots, folder = said.split("|")
    env = str(python.parent.parent.resolve())
    assert str(Path(file).resolve()).startswith(env)
    assert str(Path(folder).resolve()).startswith(env)
    assert version == __version__
    assert images.startswith("ImageSet('garments', 100 images of 3 x 32 x 32")
    assert snapshots == "True"
    assert brought_in == "[]"


def test_doctor_is_content(python, work):
    said = run(python, "-m", "barlow_edu", "doctor", cwd=work)
    assert "garments" in said


def test_course_copy(python, work):
    said = run(python, "-m", "barlow_edu", "course", "copy", "my course", cwd=work)
    assert "00_start_here.ipynb" in said
    copy = work / "my course"
    assert {p.name for p in (copy / "notebooks").glob("*.ipynb")} == NOTEBOOKS
    assert not [n for n in INSTRUCTORS_ONLY if (copy / "notebooks" / n).exists()]
    assert (copy / "README.md").read_text(encoding="utf-8").count(__version__) > 1
    code = (
        "import barlow_edu as be; from barlow_edu.storage.places import data_dir; "
        "print(data_dir()); be.load_run('garments_quick').metrics"
    )
    found = run(python, "-c", code, cwd=copy / "notebooks").strip()
    assert Path(found).resolve() == (copy / "data").resolve()  # a run recorded there stays there


def test_course_copy_never_overwrites(python, work):
    (work / "taken").mkdir()
    (work / "taken" / "homework.txt").write_text("mine")
    said = run(python, "-m", "barlow_edu", "course", "copy", "taken", cwd=work, status=2)
    assert "Nothing was written" in said
    assert [p.name for p in (work / "taken").iterdir()] == ["homework.txt"]


def test_what_is_for_teachers_needs_a_clone(python, work):
    said = run(python, "-m", "barlow_edu", "course", "instructor", "--out", "i", cwd=work, status=2)
    assert "Work in a clone of the repository" in said and not (work / "i").exists()


def test_start_from_the_wheel(python, work):
    for new in (len(NOTEBOOKS), 0):
        said = run(python, "-m", "barlow_edu", "course", "start", "mine", "--no-lab", cwd=work)
        assert f"{new} new" in said
    assert {p.name for p in (work / "mine").glob("*.ipynb")} == NOTEBOOKS


def test_a_student_build_from_the_wheel(python, work):
    run(python, "-m", "barlow_edu", "course", "student", "--out", "s", "--zip", cwd=work)
    names = zipfile.ZipFile(work / "s.zip").namelist()
    assert "s/00_start_here.ipynb" in names and "s/README.md" in names
    assert not [n for n in names if Path(n).name in INSTRUCTORS_ONLY]
