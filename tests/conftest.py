"""What every test needs: no network, the quick tier, a home folder that can be written."""

import os
import runpy
import signal
import sys
import tempfile
from pathlib import Path

OFFLINE = Path(__file__).parent / "helpers" / "offline"


def pytest_configure(config):
    """Set up this process, and through the environment every process it starts."""
    path = [str(OFFLINE), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(path)
    os.environ["BARLOW_EDU_TIER"] = "quick"  # what the notebooks' stored outputs were made with
    # Where the machine has other work, OpenMP's threads spend their time waiting for each other. A short wait
    # before they sleep costs next to nothing on an idle machine, and is several times faster on a busy one.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts background jobs
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        tempfile.TemporaryFile(dir=Path.home()).close()
    except (OSError, RuntimeError):  # Jupyter, IPython and matplotlib all write there
        os.environ["HOME"] = tempfile.mkdtemp(prefix="barlow_edu_home_")
    if not hasattr(sys.modules.get("sitecustomize"), "refuse_network"):
        runpy.run_path(str(OFFLINE / "sitecustomize.py"))  # this process started without it


def pytest_collection_finish(session):
    """Build matplotlib's font cache before the notebooks do: it may warn on their stderr."""
    if any(item.path.suffix == ".ipynb" for item in session.items):
        import matplotlib.font_manager  # noqa: F401
