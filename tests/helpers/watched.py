"""A website under watch, for ``browser/test_site_pages.py`` and ``accessibility_report.py``."""

import contextlib
import functools
import http.server
import shutil
import threading
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Containers run as root with a small /dev/shm. Whatever is not on loopback goes to a proxy that is not there, and no
# name but loopback's is resolved. Routes would do the same, but then Chromium caches nothing.
FLAGS = [
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--proxy-server=127.0.0.1:9",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
]
NEAR = ("http://127.0.0.1:", "data:", "file:")
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
# Wider than the window, where nothing may scroll by itself.
OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
MISSING = """() => [...document.images].filter((i) => !i.complete || i.naturalWidth === 0)
  .map((i) => i.outerHTML.slice(0, 90))"""
NO_ALT = """() => [...document.querySelectorAll("img")].filter((i) => !i.hasAttribute("alt"))
  .map((i) => i.outerHTML.slice(0, 90))"""
# Films and explorers put a canvas in their place once they have found and read their picture.
IDLE_PLAYERS = """() => [...document.querySelectorAll(".be-film, .be-lx-player, .be-lx-panel")]
  .filter((player) => !player.querySelector("canvas")).map((player) => player.className)"""
# Colours fade when the theme changes, one after another: at once, until nothing fades any more.
FADED = """() => {
  const fading = document.getAnimations().filter((one) => one instanceof CSSTransition);
  for (const one of fading) one.finish();
  return !fading.length;
}"""
THEMED = "(scheme) => [scheme, undefined].includes(document.documentElement.dataset.theme)"
READY = "() => document.readyState === 'complete' && [...document.images].every((i) => i.complete)"


def installed():
    """Path of a Chromium on this machine, or None: the system's, or the one playwright fetched."""
    from playwright.sync_api import sync_playwright

    for name in NAMES:
        if shutil.which(name):
            return shutil.which(name)
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).exists() else None


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_GET(self):
        if self.path != "/favicon.ico":  # which Chromium asks for where a page names no icon
            return super().do_GET()
        self.send_response(204)
        self.end_headers()

    def end_headers(self):
        if "/_static/" in self.path:  # what all pages share is asked for once
            self.send_header("Cache-Control", "max-age=3600")
        super().end_headers()


@contextlib.contextmanager
def served(folder):
    """Serve a folder on loopback. Yields its address."""
    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Watched:
    """A page that writes down what goes wrong on it; with FLAGS it reaches nothing but loopback and files."""

    def __init__(self, browser, size, scheme="light", **options):
        width, height = SIZES[size]
        look = {"viewport": {"width": width, "height": height}, "color_scheme": scheme}
        self.context = browser.new_context(**look, **options)
        self.problems = []
        self.page = self.context.new_page()
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("requestfailed", self._failed)
        self.page.on("response", self._answered)
        self.page.on("websocket", lambda socket: self.problems.append(f"socket: {socket.url}"))

    def _failed(self, request):
        # The icon of a page may be on its way still when the next page is opened, which calls it back.
        icon = request.url.endswith("favicon.svg") and request.url.startswith(NEAR)
        if not (icon and request.failure == "net::ERR_ABORTED"):
            self.problems.append(f"failed: {request.url[:120]}")

    def _said(self, message):
        if message.type == "error":
            self.problems.append(f"console: {message.text[:200]}")

    def _answered(self, response):
        if response.status >= 400:
            self.problems.append(f"{response.status}: {response.url}")

    def open(self, url):
        """Open a page, wait until its films and explorers stand; returns what went wrong on it."""
        self.page.goto("about:blank")  # what the last page still waits for is called back now
        self.problems.clear()
        self.page.goto(url, wait_until="load")
        return self._faults()

    def judge(self, url):
        """Open a page; returns what went wrong, what is wider than the window, and what has no alt text."""
        return [*self.open(url), *self._unfit()]

    def dress(self, size, scheme):
        """The window and the colours of pages that are opened next."""
        width, height = SIZES[size]
        self.page.set_viewport_size({"width": width, "height": height})
        self.page.emulate_media(color_scheme=scheme)

    def turn(self, size, scheme):
        """Show the open page in another window and other colours; returns what ``judge`` would say now."""
        self.dress(size, scheme)
        self.page.wait_for_function(THEMED, arg=scheme)
        self.page.wait_for_function(FADED)
        return [*self._faults(), *self._unfit()]

    def _faults(self):
        self.page.wait_for_function(READY)
        idle = self._idle_players()
        missing = [f"missing: {image}" for image in self.page.evaluate(MISSING)]
        return [*self.problems, *missing, *idle]

    def _unfit(self):
        over = self.page.evaluate(OVERFLOW)
        wide = [f"{over} pixels too wide"] if over > 0 else []
        return [*wide, *(f"no alt text: {x}" for x in self.page.evaluate(NO_ALT))]

    def _idle_players(self):
        """Players that have not started after two seconds."""
        for _ in range(20):
            idle = self.page.evaluate(IDLE_PLAYERS)
            if not idle:
                return []
            self.page.wait_for_timeout(100)
        return [f"does not play: {name}" for name in idle]
