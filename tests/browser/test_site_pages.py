"""The website: built once, every page opened on a desktop and on a phone, with all but loopback blocked."""

import functools
import http.server
import threading
from pathlib import Path

import pytest

pytest.importorskip("sphinx_book_theme", reason="pip install sphinx myst-nb sphinx-book-theme")
from barlow_edu.site import build_site

SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
TO_LOOK_AT = {
    "index.html": "home",
    "notebooks/05_watching_c_become_identity.html": "notebook",
    "runs/lambda_sweep.html": "explorer",
    "runs/garments_quick.html": "run",
    "claims.html": "claims",
    "glossary.html": "glossary",
    "api/loss.html": "api",
}
# Wider than the window, where nothing may scroll by itself.
OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
MISSING = """() => [...document.images].filter((i) => !i.complete || i.naturalWidth === 0)
  .map((i) => i.outerHTML.slice(0, 90))"""
NO_ALT = """() => [...document.querySelectorAll("img")].filter((i) => !i.hasAttribute("alt"))
  .map((i) => i.outerHTML.slice(0, 90))"""
READY = "() => document.readyState === 'complete' && [...document.images].every((i) => i.complete)"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    return build_site(tmp_path_factory.mktemp("site") / "html")


@pytest.fixture(scope="session")
def address(site):
    handler = functools.partial(Quiet, directory=site.path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Watched:
    """A page that writes down what goes wrong on it, and that reaches nothing but loopback."""

    def __init__(self, browser, size, scheme="light", **options):
        width, height = SIZES[size]
        look = {"viewport": {"width": width, "height": height}, "color_scheme": scheme}
        self.context = browser.new_context(**look, **options)
        self.problems = []
        self.context.route("**/*", self._loopback)
        self.page = self.context.new_page()
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("requestfailed", lambda r: self.problems.append(f"failed: {r.url[:120]}"))
        self.page.on("response", self._answered)

    def _loopback(self, route):
        url = route.request.url
        route.continue_() if url.startswith(("http://127.0.0.1", "data:")) else route.abort()

    def _said(self, message):
        if message.type == "error":
            self.problems.append(f"console: {message.text[:200]}")

    def _answered(self, response):
        if response.status >= 400:
            self.problems.append(f"{response.status}: {response.url}")

    def open(self, url):
        """Open a page; returns what went wrong on it."""
        self.problems.clear()
        self.page.goto(url, wait_until="load")
        self.page.wait_for_function(READY)
        missing = [f"missing: {image}" for image in self.page.evaluate(MISSING)]
        return [*self.problems, *missing]


@pytest.mark.parametrize("size", SIZES)
def test_every_page_opens_whole(browser, site, address, size):
    watched, found = Watched(browser, size), {}
    for name in site.pages:
        problems = watched.open(f"{address}/{name}")
        over = watched.page.evaluate(OVERFLOW)
        problems += [f"{over} pixels too wide"] if over > 0 else []
        problems += [f"no alt text: {x}" for x in watched.page.evaluate(NO_ALT)]
        if problems:
            found[name] = problems[:5]
    watched.context.close()
    assert found == {}


def test_a_problem_is_seen(browser, address):
    watched = Watched(browser, "desktop")
    assert watched.open(f"{address}/no_such_page.html")
    watched.page.goto(f"{address}/index.html")
    watched.problems.clear()
    watched.page.set_content('<img src="https://example.com/x.png"><script>nothing()</script>')
    watched.page.wait_for_timeout(300)
    assert any("example.com" in problem for problem in watched.problems)
    assert any("nothing" in problem for problem in watched.problems)
    watched.context.close()


def test_explorer_and_film_work_without_kernel(browser, site, address):
    watched = Watched(browser, "desktop")
    page = watched.page
    assert watched.open(f"{address}/runs/lambda_sweep.html") == []
    slider = page.locator(".be-lx-slider")
    slider.focus()
    before = slider.get_attribute("aria-valuetext")
    page.keyboard.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") != before
    assert watched.open(f"{address}/runs/garments_quick.html") == []
    film = page.locator(".be-film input[type=range]")
    film.focus()
    shown = page.locator(".be-film-readout").inner_text()
    page.keyboard.press("End")
    assert page.locator(".be-film-readout").inner_text() != shown
    watched.context.close()


def test_search_finds_a_word(browser, address):
    watched = Watched(browser, "desktop")
    watched.open(f"{address}/search.html?q=whitening")
    watched.page.wait_for_selector("#search-results li a", timeout=20_000)
    assert watched.problems == []
    watched.context.close()


def test_solutions_are_folded_and_formulas_are_set(browser, site, address):
    watched = Watched(browser, "desktop")
    [name] = [n for n in site.pages if n.startswith("notebooks/04_")]
    assert watched.open(f"{address}/{name}") == []
    page = watched.page
    folded = page.locator("details:has-text('Show a solution')")
    assert folded.count() > 0
    assert not any(folded.nth(i).evaluate("(d) => d.open") for i in range(folded.count()))
    assert page.locator(".be-math").count() == page.locator(".be-math .katex").count() > 0
    watched.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser, site, address, scheme, capsys):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    watched, found = Watched(browser, "desktop", scheme), {}
    for name in [n for n in site.pages if n in TO_LOOK_AT or n.startswith("notebooks/")]:
        watched.open(f"{address}/{name}")
        for hit in axe.run(watched.page).response["violations"]:
            where = [node["html"][:100] for node in hit["nodes"][:3]]
            found.setdefault(hit["id"], {})[name] = (len(hit["nodes"]), where)
    watched.context.close()
    with capsys.disabled():
        print(f"\naxe, {scheme}: {sorted(found) or 'nothing found'}")
    assert found == {}


@pytest.mark.parametrize(
    "size, scheme", [("desktop", "light"), ("desktop", "dark"), ("phone", "dark")]
)
def test_pictures_of_every_kind_of_page(browser, site, address, picture, size, scheme):
    watched = Watched(browser, size, scheme)
    for name, short in TO_LOOK_AT.items():
        assert watched.open(f"{address}/{name}") == []
        assert watched.page.evaluate("document.documentElement.dataset.theme") == scheme
        picture(watched.page, f"site_{short}_{size}_{scheme}")
    watched.context.close()


def test_pages_open_from_a_folder(browser, site):
    watched = Watched(browser, "desktop")
    watched.context.unroute("**/*")
    watched.open((Path(site.path) / "runs" / "lambda_sweep.html").as_uri())
    assert watched.page.locator(".be-lx-slider").count() == 1
    watched.context.close()
