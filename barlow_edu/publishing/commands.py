"""The commands report, export, and course start | run | copy | student | instructor | slides | site."""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

KINDS = {
    "student": "notebooks to be worked through: exercises open, solutions left out",
    "instructor": "notebooks with everything: solutions open, teaching notes",
}


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add ``report``, ``export``, and ``course`` with its builds to the commands."""
    report = commands.add_parser("report", help="one HTML page of a run, which needs nothing else")
    report.add_argument("--out", type=Path, metavar="FILE", help="default: report_NAME.html")
    text = "leave out what needs the run's images: spectra and neighbours"
    report.add_argument("--no-images", dest="images", action="store_false", help=text)
    text = "add weights for other libraries and a model card to a run's folder"
    export = commands.add_parser("export", help=text)
    for command, run in ((report, _report), (export, _export)):
        command.add_argument("run_folder", metavar="RUN", help="a run folder or a recorded run")
        command.set_defaults(run=run)
    course = commands.add_parser("course", help="work on the notebooks")
    builds = course.add_subparsers(required=True, metavar="BUILD")

    def command(name: str, run: Callable, what: str) -> Callable:
        build = builds.add_parser(name, help=what)
        build.set_defaults(run=run, kind=name, grader=None)
        return build.add_argument

    add = command("start", _start, "a folder of your own with the notebooks, opened in JupyterLab")
    text = "the folder (default: barlow_edu_course); what is in it stays as it is"
    add("folder", nargs="?", type=Path, default="barlow_edu_course", help=text)
    add("--no-browser", action="store_true", help="JupyterLab opens no browser")
    text = "an option of JupyterLab, such as --lab=--allow-root; more than once for more"
    add("--lab", action="append", default=[], metavar="OPTION", help=text)
    add("--no-lab", action="store_true", help="only put the notebooks there")
    add = command("run", _run, "restart and run notebooks, storing their outputs")
    add("notebooks", nargs="+", type=Path)
    add = command("copy", _copy, "a folder of your own with notebooks, data and recorded runs")
    add("out", type=Path, metavar="DIR", help="a new folder")
    for kind, what in KINDS.items():
        add = command(kind, _build, what)
        add("--notebooks", type=Path, help="where the notebooks are")
        add("--zip", action="store_true", help="also pack them as OUT.zip")
        add("--out", type=Path, required=True, help="a folder for them")
        if kind == "student":
            text = "points and tests for this grader; every notebook is an assignment"
            add("--for", dest="grader", choices=("nbgrader", "otter"), help=text)
    add = command("slides", _slides, "slides of a notebook, to be opened in a browser")
    add("notebook", metavar="NN", help="its number, or its path")
    add("--out", type=Path, required=True, help="a folder for them")
    add = command("site", _site, "a website of the stored outputs, which needs no network")
    add("--out", type=Path, required=True, help="a folder for it")


def _report(options: argparse.Namespace) -> None:
    from barlow_edu.publishing import report

    print(f"Written: {report.write_report(options.run_folder, options.out, options.images)}")


def _export(options: argparse.Namespace) -> None:
    from barlow_edu.publishing import report

    print(f"Written: {', '.join(map(str, report.export(options.run_folder)))}")


def _start(options: argparse.Namespace) -> None:
    from barlow_edu.publishing import copies, versions

    folder = options.folder.expanduser().resolve()
    written = versions.build("student", copies.notebooks_dir(), folder, keep=True)
    new = sum(path.suffix == ".ipynb" for path in written)
    print(f"Your notebooks are in {folder}: {new} new, all others as you left them.")
    if not options.no_lab:
        from jupyterlab.labapp import main

        os.chdir(folder)
        first = "--LabApp.default_url=/lab/tree/00_start_here.ipynb"
        main([first, *["--no-browser"] * options.no_browser, *options.lab])


def _run(options: argparse.Namespace) -> None:
    from barlow_edu.publishing import versions

    for path in options.notebooks:
        begin = time.perf_counter()
        versions.execute(path)
        print(f"{path.stem}: {time.perf_counter() - begin:.0f} s")


def _copy(options: argparse.Namespace) -> None:
    from barlow_edu.publishing import copies

    size = copies.copy_course(options.out)
    print(f"The course is in {options.out} ({size / 1e6:.0f} MB).")
    print(f"Open it: jupyter lab {options.out / 'notebooks' / '00_start_here.ipynb'}")


def _build(options: argparse.Namespace) -> None:
    from barlow_edu.publishing import copies, versions

    source = options.notebooks or copies.notebooks_dir()
    if options.grader:
        from barlow_edu.publishing import grading

        if options.zip:
            raise ValueError("--zip would pack the tests with the notebooks. Leave it out.")
        print(grading.build(options.grader, source, options.out))
        return
    written = versions.build(options.kind, source, options.out)
    number = sum(path.suffix == ".ipynb" for path in written)
    print(f"{number} notebooks in {options.out}. Open them: jupyter lab {options.out}")
    if options.zip:
        packed = copies.archive(options.out, written)
        print(f"{packed} ({packed.stat().st_size / 1e6:.1f} MB) holds the same, to be uploaded.")


def _slides(options: argparse.Namespace) -> None:
    from barlow_edu.publishing import copies, slides

    notebook = slides.find_notebook(options.notebook, copies.notebooks_dir())
    path, number = slides.write_slides(notebook, options.out)
    print(f"{number} slides in {path}. Open it in a browser; S shows the speaker's notes.")


def _site(options: argparse.Namespace) -> None:
    from barlow_edu.publishing.site import build_site

    pages = build_site(options.out)
    print(f"{len(pages)} pages. Open {options.out / 'index.html'} in a browser.")
