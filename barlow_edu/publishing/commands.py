"""The commands python -m barlow_edu course run | copy | student | instructor | slides | site."""

from __future__ import annotations

import argparse
from pathlib import Path

KINDS = {
    "student": "notebooks to be worked through: exercises open, solutions left out",
    "instructor": "notebooks with everything: solutions open, teaching notes",
}


def add_commands(commands: argparse._SubParsersAction) -> argparse._SubParsersAction:
    """Add ``course`` with its builds to the commands; returns the builds, for more to be added."""
    course = commands.add_parser("course", help="work on the notebooks")
    builds = course.add_subparsers(required=True, metavar="BUILD")
    execute = builds.add_parser("run", help="restart and run notebooks, storing their outputs")
    execute.add_argument("notebooks", nargs="+", type=Path)
    execute.set_defaults(run=_run)
    told = "a folder of your own with notebooks, data and recorded runs"
    copy = builds.add_parser("copy", help=told)
    copy.add_argument("out", type=Path, metavar="DIR", help="a new folder")
    copy.set_defaults(run=_copy)
    for kind, told in KINDS.items():
        version = builds.add_parser(kind, help=told)
        version.add_argument("--out", type=Path, required=True, help="a folder for them")
        version.add_argument("--notebooks", type=Path, default=None, help="where the notebooks are")
        version.add_argument("--zip", action="store_true", help="also pack them as OUT.zip")
        version.set_defaults(run=_build, kind=kind)
    slides = builds.add_parser("slides", help="slides of a notebook, to be opened in a browser")
    slides.add_argument("notebook", metavar="NN", help="its number, or its path")
    slides.add_argument("--out", type=Path, required=True, help="a folder for them")
    slides.set_defaults(run=_slides)
    site = builds.add_parser("site", help="a website of the stored outputs, which needs no network")
    site.add_argument("--out", type=Path, required=True, help="a folder for it")
    site.set_defaults(run=_site)
    return builds


def _run(options: argparse.Namespace) -> None:
    from barlow_edu.publishing import versions as course

    for path in options.notebooks:
        for name, minutes in course.execute([path]).items():
            print(f"{name}: {60 * minutes:.0f} s")


def _copy(options: argparse.Namespace) -> None:
    from barlow_edu.publishing import copies as builds

    size = builds.copy_course(options.out)
    print(f"The course is in {options.out} ({size / 1e6:.0f} MB).")
    print(f"Open it: jupyter lab {options.out / 'notebooks' / '00_start_here.ipynb'}")


def _build(options: argparse.Namespace) -> None:
    from barlow_edu.publishing import copies as builds
    from barlow_edu.publishing import versions as course

    source = options.notebooks or builds.notebooks_dir()
    written = course.build(options.kind, source, options.out)
    builds.add_guides(options.kind, source, options.out)
    print(f"{len(written)} notebooks in {options.out}. Open them: jupyter lab {options.out}")
    if options.zip:
        packed = builds.archive(options.out)
        print(f"{packed} ({packed.stat().st_size / 1e6:.1f} MB) holds the same, to be uploaded.")


def _slides(options: argparse.Namespace) -> None:
    from barlow_edu.publishing import copies as builds
    from barlow_edu.publishing import slides

    notebook = slides.find_notebook(options.notebook, builds.notebooks_dir())
    path, number = slides.write_slides(notebook, options.out)
    print(f"{number} slides in {path}. Open it in a browser; S shows the speaker's notes.")


def _site(options: argparse.Namespace) -> None:
    from barlow_edu.publishing.site import build_site

    site = build_site(options.out)
    print(f"{len(site.pages)} pages, {site.bytes / 1e6:.1f} MB, built in {site.seconds:.0f} s.")
    print(f"Open {site.path / 'index.html'} in a browser.")
