"""The course as a static website, from the stored outputs: ``python -m barlow_edu course site --out DIR``.

Sphinx, myst-nb and sphinx-book-theme make the pages; this package writes what they are made from (``notebooks``,
``gallery``, ``pages``, ``reference``) and what the theme lacks (``extension``: docstrings as plain prose). KaTeX sets
the formulas. Nothing on the site comes from elsewhere: it works without a network, and from a folder.
"""

import importlib.util
import io
import shutil
import tempfile
import warnings
from pathlib import Path

import yaml

from barlow_edu.publishing import copies
from barlow_edu.publishing.site import gallery, notebooks, pages, reference
from barlow_edu.storage.files import write_text
from barlow_edu.teaching import playground

NEEDED = ("sphinx", "myst-nb", "sphinx-book-theme")
HERE = Path(__file__).parent
MARK = ".barlow_edu_site"  # names the files that this module wrote, and may therefore replace


def build_site(out: str | Path) -> list[str]:
    """Write the site of the course into the folder ``out``; returns its pages, as paths in ``out``.

    A site that was written there before is replaced, and what else has come into the folder (``.git``, ``CNAME``)
    stays. Raises RuntimeError, saying what to install, without Sphinx and its companions, and with Sphinx's own words
    if there is any warning; FileExistsError if ``out`` holds something else than a site of this course.
    """
    out, mark = Path(out), Path(out, MARK)
    check_installed()
    if out.exists() and any(out.iterdir()) and not mark.exists():
        raise FileExistsError(f"{out} holds something else than a site. Choose another folder.")
    with tempfile.TemporaryDirectory(prefix="barlow_edu_site_") as folder:
        source, html = Path(folder, "source"), Path(folder, "html")
        write_source(source, copies.notebooks_dir())
        run_sphinx(source, html)
        playground.write_beside(html)
        write_text(html / MARK, "\n".join(_files(html)))
        if mark.exists():
            for name in _files(out) & set(mark.read_text(encoding="utf-8").splitlines()):
                (out / name).unlink()
        shutil.copytree(html, out, dirs_exist_ok=True)
    names = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.html"))
    return [name for name in names if not name.startswith("_static/")]


def _files(folder: Path) -> set[str]:
    """The paths of all files in a folder and below, from there."""
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def check_installed() -> None:
    """Raise RuntimeError, saying what to install, if a library is missing."""
    missing = [n for n in NEEDED if not importlib.util.find_spec(n.replace("-", "_"))]
    if missing:
        what, names = ", ".join(missing), " ".join(NEEDED)
        raise RuntimeError(f"The site is built with {what}. Install it: pip install {names}")


def write_source(folder: Path, source: Path) -> None:
    """Write all that Sphinx reads into ``folder``."""
    shutil.copytree(HERE / "static", folder / "_static")
    shutil.copytree(HERE.parent / "vendor" / "katex", folder / "_static" / "katex")
    names = notebooks.write_notebooks(source, folder / "notebooks")
    content = gallery.pages() | reference.pages() | pages.pages(source, names)
    for name, text in content.items():
        write_text(folder / f"{name}.md", text)


def run_sphinx(source: Path, out: Path) -> None:
    """Build HTML in ``out``. Raises RuntimeError with what Sphinx said if it warned or failed."""
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace, patch_docutils

    said = io.StringIO()
    folders = source, None, out, source.parent / "doctrees"
    settings = yaml.safe_load((HERE / "sphinx.yaml").read_text(encoding="utf-8"))
    with patch_docutils(), docutils_namespace(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        app = Sphinx(*folders, "html", confoverrides=settings, status=None, warning=said)
        app.build()
    if said.getvalue().strip() or app.statuscode:
        raise RuntimeError(f"Sphinx warns about the site:\n{said.getvalue().strip()}")
