"""What every test needs: no network, the quick tier, a home folder that can be written.

It stands at the top so that it holds for notebooks, too, and from whatever folder pytest is called.
"""

import os
import runpy
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

TESTS = Path(__file__).parent / "tests"
OFFLINE = TESTS / "helpers" / "offline"
# What takes minutes, as measured, the longest first; of the rest a file takes the longer the more tests it has.
LONG = (
    "tests/browser/test_site_pages.py",
    "tests/publishing/test_copies.py",
    "tests/teaching/test_playground.py",
    "notebooks",
    "tests/browser",
    "tests/publishing",
    "tests/repository/test_wheel.py",
)


def pytest_configure(config):
    """Set up this process, and through the environment every process it starts."""
    path = [str(OFFLINE), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(path))
    os.environ["BARLOW_EDU_TIER"] = "quick"  # what the notebooks' stored outputs were made with
    if "PYTEST_XDIST_WORKER" in os.environ:  # of several processes each keeps one core busy
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts background jobs
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        tempfile.TemporaryFile(dir=Path.home()).close()
    except (OSError, RuntimeError):  # Jupyter, IPython and matplotlib all write there
        os.environ["HOME"] = tempfile.mkdtemp(prefix="barlow_edu_home_")
    if not hasattr(sys.modules.get("sitecustomize"), "refuse_network"):
        runpy.run_path(str(OFFLINE / "sitecustomize.py"))  # this process started without it
    # A path in addopts would be relative to the folder in which pytest is called.
    if config.getoption("nbval_sanitize_with", None) is None:
        config.option.nbval_sanitize_with = str(TESTS / "nbval.cfg")


def pytest_collection_modifyitems(items):
    """Where several processes share the tests, the longest files begin: in the end no process is alone with one."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        tests = Counter(item.path for item in items)
        items.sort(key=lambda item: (_rank(item.path), -tests[item.path], item.path))


def _rank(path):
    places = [i for i, long in enumerate(LONG) if path.is_relative_to(TESTS.parent / long)]
    return min(places, default=len(LONG))


def pytest_collection_finish(session):
    """Build matplotlib's font cache before the notebooks do: it may warn on their stderr."""
    if any(item.path.suffix == ".ipynb" for item in session.items):
        import matplotlib.font_manager  # noqa: F401


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With ``-n 2`` a file stays on one worker: the cells of a notebook share a kernel, and tests their fixtures."""
    if config.getoption("dist") not in ("load", "worksteal"):
        return None
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False  # the order is that of pytest_collection_modifyitems
    return LoadFileScheduling(config, log)
