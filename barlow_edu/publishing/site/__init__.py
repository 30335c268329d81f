"""The course as a static website, from the stored outputs: ``python -m barlow_edu course site --out DIR``.

Sphinx, myst-nb and sphinx-book-theme make the pages; this package writes what they are made from (``notebooks``,
``gallery``, ``pages``, ``reference``) and what the theme lacks (``extension``: formulas by KaTeX, docstrings as plain
prose). Nothing on the site comes from elsewhere: it works without a network, and from a folder.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from barlow_edu.publishing import copies as builds
from barlow_edu.publishing.site import gallery, notebooks, pages, reference

NEEDED = {
    "sphinx": "sphinx",
    "myst_nb": "myst-nb",
    "sphinx_book_theme": "sphinx-book-theme",
}
HERE = Path(__file__).parent
CONF = """
project = "barlow_edu"
author = "The barlow_edu authors"
copyright = "The barlow_edu authors, MIT licence"
language = "en"
extensions = ["myst_nb", "sphinx.ext.autodoc", "barlow_edu.publishing.site.extension"]
html_theme = "sphinx_book_theme"
html_title = "barlow_edu"
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_css_files = ["katex/katex.min.css", "site.css"]
html_js_files = ["katex/katex.min.js", "site.js"]
html_math_renderer = "katex"
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"use_download_button": False, "use_fullscreen_button": False,
    "show_toc_level": 2, "navigation_with_keys": False, "back_to_top_button": False, "navbar_persistent": []}
html_context = {"default_mode": "auto"}
nb_execution_mode = "off"
nb_merge_streams = True
nb_code_prompt_show = "Show code of the {type}"
myst_enable_extensions = ["amsmath", "dollarmath", "deflist"]
myst_heading_anchors = 4
autodoc_member_order = "bysource"
add_module_names = False
toc_object_entries_show_parents = "hide"
"""


class Site(NamedTuple):
    """Where a site is, its pages, the bytes of all its files and the seconds that it took."""

    path: Path
    pages: list[str]
    bytes: int
    seconds: float


def build_site(out: str | Path, source: Path | None = None) -> Site:
    """Write the site into the folder ``out``; ``source``: the notebooks, default those of the course.

    A site that is there already is replaced. Raises RuntimeError, saying what to install, without Sphinx and its
    companions, and with Sphinx's own words if there is any warning; FileExistsError if ``out`` holds something else
    than a site.
    """
    out, begin = Path(out), time.perf_counter()
    check_installed()
    if out.exists() and any(out.iterdir()) and not (out / ".buildinfo").exists():
        raise FileExistsError(f"{out} holds something else than a site. Choose another folder.")
    with tempfile.TemporaryDirectory(prefix="barlow_edu_site_") as folder:
        write_source(Path(folder) / "source", source or builds.notebooks_dir())
        run_sphinx(Path(folder) / "source", Path(folder) / "html")
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(Path(folder) / "html", out)
    files = [path for path in out.rglob("*") if path.is_file()]
    found = sorted(p.relative_to(out).as_posix() for p in files if p.suffix == ".html")
    found = [name for name in found if not name.startswith("_static/")]
    size = sum(path.stat().st_size for path in files)
    return Site(out, found, size, time.perf_counter() - begin)


def check_installed() -> None:
    """Raise RuntimeError, saying what to install, if a library is missing."""
    missing = [name for module, name in NEEDED.items() if not importlib.util.find_spec(module)]
    if missing:
        raise RuntimeError(
            f"The site is built with {', '.join(missing)}. Install what is missing: "
            f"pip install {' '.join(NEEDED.values())}"
        )


def write_source(folder: Path, source: Path) -> None:
    """Write all that Sphinx reads into ``folder``."""
    folder.mkdir(parents=True)
    (folder / "conf.py").write_text(CONF, encoding="utf-8")
    static = folder / "_static"
    static.mkdir()
    shutil.copytree(HERE.parent / "vendor" / "katex", static / "katex")
    for name in ("site.css", "site.js", "favicon.svg"):
        shutil.copy(HERE / name, static / name)
    names = notebooks.write_notebooks(source, folder / "notebooks")
    runs = gallery.write_gallery(folder / "runs")
    reference.write_api(folder / "api")
    guides = pages.write_guides(source, folder / "notebooks")
    pages.write_ledger(folder, runs)
    pages.write_glossary(folder, names)
    pages.write_home(folder, source, names, guides)


def run_sphinx(source: Path, out: Path) -> None:
    """Build HTML in ``out``. Raises RuntimeError with what Sphinx said if it warned or failed."""
    import io
    import warnings

    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace, patch_docutils

    said = io.StringIO()
    doctrees = str(source.parent / "doctrees")
    with patch_docutils(), docutils_namespace(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        app = Sphinx(
            str(source), str(source), str(out), doctrees, "html", status=None, warning=said
        )
        app.build()
    text = said.getvalue().strip()
    if text or app.statuscode:
        raise RuntimeError(f"Sphinx warns about the site:\n{text}")
