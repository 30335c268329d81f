"""The course as folders and archives to hand on: a copy to work in, and builds to upload."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

from barlow_edu import __version__
from barlow_edu.storage.files import replacing
from barlow_edu.storage.places import data_dir

# What is for teachers alone and lies beside the notebooks. No student build and no copy holds it.
INSTRUCTORS_ONLY = ("EXAM_ANSWERS.md",)
GUIDES = ("INSTRUCTOR_GUIDE.md", "FORMULA_SHEET.md", *INSTRUCTORS_ONLY)
FOR_STUDENTS = ("FORMULA_SHEET.md",)
NOT_COPIED = ("downloads", "*.part", "checkpoint*.pt", ".lock", ".ipynb_checkpoints", "__pycache__")
# Archives of equal content are equal files: every entry bears this date.
DATE = (2020, 1, 1, 0, 0, 0)

README = """# The barlow_edu course

Version {version}. Start with `notebooks/00_start_here.ipynb`.

* In a terminal, in this folder: `jupyter lab notebooks/00_start_here.ipynb`
* Does everything work? `python -m barlow_edu doctor`
* The package is needed beside these files: `pip install barlow_edu-{version}-py3-none-any.whl`, with the wheel
  that you were given, or `pip install -e .` in a clone of the repository.

Nothing here needs a network. `data/` holds the photographs of `garments` and the recorded runs: a notebook that
is run in this folder reads them here, and what you record or download is kept here, too.

MIT licence. The garments: `data/garments.LICENSE`.
"""

STUDENT_README = """# The barlow_edu course: notebooks for students

1. Install the package, version {version}, once, with the wheel that you were given:
   `pip install barlow_edu-{version}-py3-none-any.whl`. On a JupyterHub this may be done already. Data and
   recorded runs come with it. From then on nothing needs a network, or a GPU.
2. In a terminal, in this folder: `python -m barlow_edu doctor` says whether all is well, and what to do if not.
3. `jupyter lab 00_start_here.ipynb` opens the first notebook. Every notebook ends with a link to the next.

Run the cells from top to bottom with Shift+Enter. An exercise is a cell that says what to write. Its checker tells
what is off; three hints stand above it. It may be left open: go on with the next cell. *Run all* stops there.

`FORMULA_SHEET.md` has all symbols. In JupyterLab: right click, *Open With*, *Markdown Preview*.
"""


def notebooks_dir() -> Path:
    """The notebooks: those of the checkout, else those that came with the installed package.

    Raises FileNotFoundError if there are neither.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package.parent / "notebooks", package / "_notebooks"):
        if any(folder.glob("[0-9][0-9]_*.ipynb")):
            return folder
    raise FileNotFoundError(
        "This installation of barlow_edu holds no notebooks. Install its wheel, or work in a clone."
    )


def copy_course(out: Path) -> int:
    """Put notebooks, data, recorded runs and a README into the folder ``out``; returns the bytes written.

    Raises FileExistsError if ``out`` holds anything already: a learner's work is never overwritten.
    """
    out = _empty(out)
    source, data = notebooks_dir(), data_dir()
    unfinished = out.with_name(f".{out.name}.{os.getpid()}.part")
    leave = shutil.ignore_patterns(*NOT_COPIED)
    only_notebooks = shutil.ignore_patterns(*NOT_COPIED, *INSTRUCTORS_ONLY, "runs")
    try:
        shutil.copytree(source, unfinished / "notebooks", ignore=only_notebooks)
        for name in ("runs", "figures"):
            if (data / name).is_dir():
                shutil.copytree(data / name, unfinished / "data" / name, ignore=leave)
        for name in ("garments.npz", "garments.LICENSE"):
            shutil.copy(data / name, unfinished / "data" / name)
        _write(unfinished / "README.md", README)
        if out.exists():
            out.rmdir()
        os.replace(unfinished, out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return sum(file.stat().st_size for file in out.rglob("*") if file.is_file())


def add_guides(kind: str, source: Path, out: Path) -> None:
    """Put beside the notebooks of a build what goes with them.

    instructor: the guide, the formula sheet and the answers to the exam. student: the sheet and a README.
    """
    for name in GUIDES if kind == "instructor" else FOR_STUDENTS:
        if (source / name).is_file():
            shutil.copy(source / name, out / name)
    if kind == "student":
        _write(out / "README.md", STUDENT_README)


def archive(folder: Path) -> Path:
    """Pack ``folder`` as the ZIP file of its name beside it, with the folder's name at the top of every path.

    Equal folders make equal files. Raises FileExistsError if there is such a file.
    """
    folder = Path(folder).resolve()
    target = folder.with_name(folder.name + ".zip")
    if target.exists():
        raise FileExistsError(f"{target} exists. Remove it first, or choose another folder.")
    files = sorted(
        f for f in folder.rglob("*") if f.is_file() and ".ipynb_checkpoints" not in f.parts
    )
    with replacing(target) as temporary, zipfile.ZipFile(temporary, "w") as packed:
        for file in files:
            entry = zipfile.ZipInfo(f"{folder.name}/{file.relative_to(folder).as_posix()}", DATE)
            entry.external_attr = 0o644 << 16
            packed.writestr(entry, file.read_bytes(), zipfile.ZIP_DEFLATED, compresslevel=9)
    return target


def _empty(out: Path) -> Path:
    """The folder as an absolute path; FileExistsError if something is there."""
    out = Path(out).expanduser().resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(
            f"{out} exists and is not an empty folder. Nothing was copied; choose another name."
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    return out


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text.format(version=__version__), encoding="utf-8")
