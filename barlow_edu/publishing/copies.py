"""The course as folders and archives to hand on: a copy to work in, and builds to upload."""

import os
import shutil
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from barlow_edu import __version__
from barlow_edu.publishing.html import filled
from barlow_edu.publishing.notebook import NUMBERED, paths, read_whole
from barlow_edu.storage.files import replacing, write_text
from barlow_edu.storage.places import data_dir

# What is for teachers alone and lies beside the notebooks. No student build, no copy and no wheel holds it.
INSTRUCTORS_ONLY = ("EXAM_ANSWERS.md", "INSTRUCTOR_GUIDE.md")
NOT_COPIED = ("downloads", "*.part", "checkpoint*.pt", ".*", "__pycache__")
# Archives of equal content are equal files: every entry bears this date.
DATE = (2020, 1, 1, 0, 0, 0)


def notebooks_dir() -> Path:
    """The notebooks: those of the checkout, else the students' version that came with the installed package.

    Raises FileNotFoundError if there are neither.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package.parent / "notebooks", package / "_notebooks"):
        if any(folder.glob(NUMBERED)):
            return folder
    raise FileNotFoundError(
        "This installation of barlow_edu holds no notebooks. Install its wheel, or work in a clone."
    )


def new_folder(out: Path) -> Path:
    """``out``, whole. Raises FileExistsError if anything is there: a learner's work is never overwritten."""
    out = Path(out).expanduser().resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(
            f"{out} exists and is not an empty folder. Nothing was written; choose another one."
        )
    return out


def copy_course(out: Path) -> int:
    """Put notebooks, data, recorded runs and a README into the new folder ``out``; returns the bytes written.

    Raises FileExistsError as ``new_folder``, ValueError if a notebook is not a full run.
    """
    out, source, data = new_folder(out), notebooks_dir(), data_dir()
    for path in paths(source):
        read_whole(path)
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".", dir=out.parent) as unfinished:
        course = Path(unfinished, out.name)
        books = {path.name: path.read_bytes() for path in paths(source)}
        put(books | beside("copy", source), course / "notebooks")
        leave = shutil.ignore_patterns(*NOT_COPIED)
        for name in ("runs", "figures"):
            if (data / name).is_dir():
                shutil.copytree(data / name, course / "data" / name, ignore=leave)
        for name in ("garments.npz", "garments.LICENSE"):
            shutil.copy(data / name, course / "data" / name)
        write_text(course / "README.md", filled("README.copy.md", version=__version__))
        if out.exists():  # and is empty: the copy takes its place in one move, whole or not at all
            out.rmdir()
        os.replace(course, out)
    return sum(file.stat().st_size for file in out.rglob("*") if file.is_file())


def beside(kind: str, source: Path) -> dict[str, bytes]:
    """What goes with the notebooks of a build ("copy", "student", "instructor"), by its name there.

    The formula sheet; for instructors the guide and the answers to the exam, for students a README.
    """
    names = ("FORMULA_SHEET.md",) + INSTRUCTORS_ONLY * (kind == "instructor")
    files = {name: (source / name).read_bytes() for name in names if (source / name).is_file()}
    if kind == "student":
        files["README.md"] = filled("README.student.md", version=__version__).encode()
    return files


def put(files: Mapping[str, bytes], folder: Path) -> None:
    """Write what ``beside`` returns, each file whole or not at all."""
    for name, content in files.items():
        with replacing(folder / name) as temporary:
            temporary.write_bytes(content)


def archive(folder: Path, files: Iterable[Path]) -> Path:
    """Pack ``files`` of ``folder`` as the ZIP file of its name beside it; returns its path.

    The folder's name stands at the top of every path. Equal files make equal archives. Raises FileExistsError if
    there is such a file.
    """
    folder = Path(folder).resolve()
    target = folder.with_name(folder.name + ".zip")
    if target.exists():
        raise FileExistsError(f"{target} exists. Remove it first, or choose another folder.")
    with replacing(target) as temporary, zipfile.ZipFile(temporary, "w") as archived:
        for file in sorted(Path(f).resolve() for f in files):
            entry = zipfile.ZipInfo(f"{folder.name}/{file.relative_to(folder).as_posix()}", DATE)
            entry.external_attr = 0o644 << 16
            archived.writestr(entry, file.read_bytes(), zipfile.ZIP_DEFLATED, compresslevel=9)
    return target
