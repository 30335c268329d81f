"""A Chromium for the browser tests, and where their pictures go, which ``BARLOW_EDU_PICTURES=1`` asks for."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from watched import FLAGS, installed

SCREENSHOTS = Path(__file__).parent.parent / "screenshots"
APT = ["apt-get", "-qq", "-y", "--no-install-recommends"]


def install():
    """Install Debian's Chromium where that is possible. Returns why it was not, or ""."""
    if os.environ.get("BARLOW_EDU_INSTALL") == "no":
        return "BARLOW_EDU_INSTALL=no forbids to install it"
    if not shutil.which("apt-get") or os.geteuid() != 0:
        return "only root can install it, with apt-get"
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in ([*APT, "update"], [*APT, "install", "chromium"]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return "" if done.returncode == 0 else f"apt-get failed: {done.stderr.strip()[-300:]}"


@pytest.fixture(scope="session")
def chromium():
    """Path of a Chromium. Without one the test is skipped, except where CI is set: there it fails."""
    path = installed()
    why = "" if path else install()
    path = path or installed()
    if path:
        return path
    told = f"There is no Chromium ({why}). On Debian: apt-get install chromium."
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        pytest.fail(told)
    pytest.skip(told)


@pytest.fixture(
    scope="module"
)  # playwright holds an event loop, in whose way other tests would come
def browser(chromium):
    """A headless browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def picture(capsys):
    """Save a screenshot of a page or an element, and tell where; nothing unless the environment asks for pictures."""

    def save(what, name):
        if not os.environ.get("BARLOW_EDU_PICTURES"):
            return  # drawing takes a second, and nobody looks at most
        SCREENSHOTS.mkdir(exist_ok=True)
        path = SCREENSHOTS / f"{name}.png"
        what.screenshot(path=path)
        with capsys.disabled():
            print(f"\nscreenshot: {path.relative_to(SCREENSHOTS.parent.parent)}")

    return save
