"""The course as folders and archives to hand on: a copy to work in, and builds to upload."""

import os
import shutil
import zipfile
from collections.abc import Iterable
from pathlib import Path

from barlow_edu import __version__
from barlow_edu.publishing.notebook import NUMBERED, paths, read_whole
from barlow_edu.storage.files import replacing, write_text
from barlow_edu.storage.places import data_dir

# What is for teachers alone and lies beside the notebooks. No student build, no copy and no wheel holds it.
INSTRUCTORS_ONLY = ("EXAM_ANSWERS.md", "INSTRUCTOR_GUIDE.md")
GUIDES = {"student": ("FORMULA_SHEET.md",), "instructor": ("FORMULA_SHEET.md", *INSTRUCTORS_ONLY)}
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


def copy_course(out: Path) -> int:
    """Put notebooks, data, recorded runs and a README into the folder ``out``; returns the bytes written.

    Raises FileExistsError if ``out`` holds anything already: a learner's work is never overwritten; ValueError if a
    notebook is not a full run.
    """
    out = Path(out).expanduser().resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(
            f"{out} exists and is not an empty folder. Nothing was copied; choose another name."
        )
    source, data = notebooks_dir(), data_dir()
    for path in paths(source):
        read_whole(path)
    sheets = [p for p in beside("student", source).values() if isinstance(p, Path)]
    unfinished = out.with_name(f".{out.name}.{os.getpid()}.part")
    leave = shutil.ignore_patterns(*NOT_COPIED)
    try:
        for file in [*paths(source), *sheets]:  # whatever else lies there is somebody's own
            target = unfinished / "notebooks" / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
        for name in ("runs", "figures"):
            if (data / name).is_dir():
                shutil.copytree(data / name, unfinished / "data" / name, ignore=leave)
        for name in ("garments.npz", "garments.LICENSE"):
            shutil.copy(data / name, unfinished / "data" / name)
        write_text(unfinished / "README.md", _readme("copy"))
        if out.exists():  # and is empty: the copy takes its place in one move, whole or not at all
            out.rmdir()
        os.replace(unfinished, out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return sum(file.stat().st_size for file in out.rglob("*") if file.is_file())


def beside(kind: str, source: Path) -> dict[str, Path | str]:
    """What goes with the notebooks of a build, by its name there: a file to copy, or a text to write.

    Pictures, and for instructors the guide, the formula sheet and the answers to the exam; for students the sheet and
    a README.
    """
    files = [p for p in (source / "images").rglob("*") if p.is_file() and not p.is_symlink()]
    files += [source / name for name in GUIDES[kind] if (source / name).is_file()]
    content: dict[str, Path | str] = {p.relative_to(source).as_posix(): p for p in files}
    if kind == "student":
        content["README.md"] = _readme("student")
    return content


def put(content: Path | str, target: Path) -> None:
    """Write what ``beside`` names, whole or not at all."""
    text = content.read_bytes() if isinstance(content, Path) else content.encode()
    with replacing(target) as temporary:
        temporary.write_bytes(text)


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


def _readme(kind: str) -> str:
    text = Path(__file__).with_name(f"README.{kind}.md").read_text(encoding="utf-8")
    return text.format(version=__version__)
