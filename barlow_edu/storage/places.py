"""Where data, downloads and recorded runs are."""

import os
from pathlib import Path


def data_dir() -> Path:
    """The folder with the embedded data and the recorded runs.

    The environment variable BARLOW_EDU_DATA, else ``data/`` of the checkout, else ``data/`` of a copy of the
    course (``course copy``) that the process works in, else what came with the installed package.
    """
    if "BARLOW_EDU_DATA" in os.environ:
        return Path(os.environ["BARLOW_EDU_DATA"]).expanduser()
    package = Path(__file__).resolve().parent.parent
    here = Path.cwd()
    for course in (package.parent, here, here.parent):
        if (course / "data" / "garments.npz").exists() and (course / "notebooks").is_dir():
            return course / "data"
    return package / "_data"


def recorded_folder(path: str | Path, holds: str) -> Path | None:
    """The folder at ``path``, or else the record of that name, if there is a file ``holds`` in it."""
    folders = (Path(path), data_dir() / "runs" / str(path))
    return next((folder for folder in folders if (folder / holds).exists()), None)


def download_dir() -> Path:
    """Where downloads go: ``downloads`` in the checkout's data folder, or in the user's cache."""
    if "BARLOW_EDU_DATA" in os.environ or data_dir().name == "data":
        return data_dir() / "downloads"
    return Path.home() / ".cache" / "barlow_edu"
