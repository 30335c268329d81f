"""The website: built once, every page loaded once, as a dark phone loads it, with all but loopback blocked.

In that one visit a page is judged and photographed on phone and desktop, in dark and light, and asked by axe-core;
what needs keys or paper has its own visit, on a desktop.
"""

import re
import urllib.parse

import pytest
from watched import Watched, served

pytest.importorskip("sphinx_book_theme", reason="pip install sphinx myst-nb sphinx-book-theme")
from barlow_edu.publishing.site import build_site

TO_LOOK_AT = {
    "index.html": "home",
    "notebooks/08_lambda_explorer.html": "notebook_06",
    "notebooks/07_watching_c_become_identity.html": "notebook",
    "runs/lambda_sweep.html": "explorer",
    "runs/garments_quick.html": "run",
    "claims.html": "claims",
    "glossary.html": "glossary",
    "api/loss.html": "api",
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("site") / "html"


@pytest.fixture(scope="session")
def site(folder):
    """The site's pages, built in the folder."""
    return build_site(folder)


@pytest.fixture(scope="session")
def address(site, folder):
    with served(folder) as url:
        yield url


# One span of code and one formula are enough for each look: thousands are what axe-core spends its time on. A look is
# what decides about contrast: colour, size and weight of the letters, and the colour that lies behind them. Of a kind
# is what looks alike both now and when LOOKS was asked for, in the other colours.
LOOKS = """() => {
  const behind = (node) => {
    const colour = getComputedStyle(node).backgroundColor;
    const clear = colour === "rgba(0, 0, 0, 0)" && node.parentElement;
    return clear ? behind(node.parentElement) : colour;
  };
  const look = (span) => {
    const { color, fontSize, fontWeight, opacity } = getComputedStyle(span);
    return [color, fontSize, fontWeight, opacity, behind(span)].join();
  };
  for (const node of document.querySelectorAll(".highlight pre span:not(:has(*)), .katex")) {
    node.look = `${node.look} ${look(node)}`;
  }
}"""
ONE_OF_A_KIND = """() => {
  const again = (selector) => {
    const seen = new Set();
    return [...document.querySelectorAll(selector)].filter((x) => seen.size === seen.add(x.look).size);
  };
  for (const span of again(".highlight pre span:not(:has(*))")) span.replaceWith(...span.childNodes);
  for (const formula of again(".katex")) formula.replaceWith("x");
}"""


def axe_violations(axe, page, rules=()):
    """What axe-core finds on an open page, by all or by some of its rules: rule -> (how often, where)."""
    options = {"resultTypes": ["violations"], "preload": False}  # what passed need not be told
    if rules:
        options["runOnly"] = {"type": "rule", "values": list(rules)}
    return {
        hit["id"]: (len(hit["nodes"]), [node["html"][:100] for node in hit["nodes"][:3]])
        for hit in axe.run(page, options=options).response["violations"]
    }


# The rules that the dark can break: it changes colours and nothing else.
DARK_RULES = ["color-contrast", "link-in-text-block"]


def test_every_page_opens_whole(browser, site, address, picture):
    """Also for axe-core: notebooks and what is to be looked at, in the dark for colours alone."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    watched, problems = Watched(browser, "phone", "dark"), {}
    page = watched.page

    def photograph(name, size, scheme):
        if name in TO_LOOK_AT:
            assert page.evaluate("document.documentElement.dataset.theme") == scheme
            picture(page, f"site_{TO_LOOK_AT[name]}_{size}_{scheme}")

    for name in site:
        shown = name in TO_LOOK_AT
        various = shown or name.startswith("notebooks/")
        watched.dress("phone", "dark")
        seen = watched.judge(f"{address}/{name}")
        photograph(name, "phone", "dark")
        if various:
            page.evaluate(LOOKS)
        for scheme in ("dark", "light") if shown else ("light",):
            seen += watched.turn("desktop", scheme)
            photograph(name, "desktop", scheme)
        if various:  # the last, as it changes the page
            page.evaluate(LOOKS)
            page.evaluate(ONE_OF_A_KIND)
            hits = axe_violations(axe, page)
            watched.turn("desktop" if shown else "phone", "dark")
            hits |= axe_violations(axe, page, DARK_RULES)
            seen += [f"axe: {hit}" for hit in hits.items()]
        if seen:
            problems[name] = seen[:5]
    watched.context.close()
    assert problems == {}


OUTSIDE = "https://example.com"
FAULTS = {
    "picture from elsewhere": (f'<img alt="x" src="{OUTSIDE}/x.png">', "failed: "),
    "script from elsewhere": (f'<script src="{OUTSIDE}/x.js"></script>', "failed: "),
    "font from elsewhere": (
        f"<style>@font-face {{ font-family: x; src: url({OUTSIDE}/x.woff2); }}</style>"
        '<p style="font-family: x">x</p>',
        "failed: ",
    ),
    "frame from elsewhere": (f'<iframe title="x" src="{OUTSIDE}"></iframe>', "failed: "),
    "data fetched from elsewhere": (
        f"<script>fetch('{OUTSIDE}').catch(() => 0)</script>",
        "failed: ",
    ),
    "socket to elsewhere": (
        "<script>new WebSocket('wss://example.com')</script>",
        "wss://example.com",
    ),
    "address in place of a name": ('<img alt="x" src="http://192.0.2.1/x.png">', "failed: "),
    "missing picture": ('<img alt="x" src="no_such.png">', "404: "),
    "missing style": ('<link rel="stylesheet" href="no_such.css">', "404: "),
    "broken picture": ('<img alt="x" src="data:image/png;base64,AAAA">', "missing: "),
    "error on the console": ("<script>console.error('planted')</script>", "console: planted"),
    "exception": ("<script>nothing()</script>", "error: nothing is not defined"),
    "picture without alt text": (
        '<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">',
        "no alt text",
    ),
    "too wide": ('<div style="width: 3000px">x</div>', "pixels too wide"),
    "film without its picture": ('<div class="be-film"></div>', "does not play: be-film"),
}


def test_axe_sees_a_button_without_a_name_and_pale_letters(browser, site, address):
    """Also letters that are like others in the light, and pale in the dark alone."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    watched = Watched(browser, "desktop")
    page = watched.page
    watched.open(f"{address}/glossary.html")
    page.evaluate("document.body.append(document.createElement('button'))")
    spans = "<span class=n>a</span> <span class=n style='color: #eee'>pale</span>"
    spans += " <span class='n dim'>dark</span><style>[data-theme=dark] .dim {color: #222 !important}</style>"
    code = f"<div class=highlight><pre>{spans} <span class=n>again</span></pre></div>"
    page.evaluate(f"""document.querySelector("article").innerHTML += "{code}" """)
    page.evaluate(LOOKS)
    watched.turn("desktop", "dark")
    page.evaluate(LOOKS)
    page.evaluate(ONE_OF_A_KIND)
    assert page.locator("pre:has(.dim) span").all_inner_texts() == ["a", "pale", "dark"]
    _, pale = axe_violations(axe, page, DARK_RULES)["color-contrast"]
    assert len(pale) == 1 and "dim" in pale[0]
    watched.turn("desktop", "light")
    hits = axe_violations(axe, page)
    assert {"button-name", "color-contrast"} <= set(hits)
    assert "pale" in hits["color-contrast"][1][0]
    watched.context.close()


def test_planted_faults_are_seen(browser, site, address, folder):
    page = folder / "planted.html"
    text = (folder / "glossary.html").read_text(encoding="utf-8")
    watched, seen = Watched(browser, "desktop"), {}
    assert watched.judge(f"{address}/glossary.html") == []
    try:
        for fault, (planted, _) in FAULTS.items():
            page.write_text(text.replace("</article>", f"{planted}</article>"), encoding="utf-8")
            seen[fault] = watched.judge(f"{address}/{page.name}?{fault}")
        seen["missing page"] = watched.judge(f"{address}/no_such_page.html")
    finally:
        watched.context.close()
        page.unlink()
    unseen = [f for f, (_, says) in FAULTS.items() if not any(says in x for x in seen[f])]
    assert unseen == [] and seen["missing page"]


OUTLINE = (
    "(x) => { const s = getComputedStyle(x); return [s.outlineStyle, parseFloat(s.outlineWidth)]; }"
)
BEFORE = """(x) => {
  const all = [...document.querySelectorAll("a[href], button, input, summary, [tabindex='0']")];
  for (let i = all.indexOf(x) - 1; document.activeElement === document.body; i -= 1) all[i].focus();
}"""


def reach(page, control):
    """Press Tab from a control before this one, past what scrolls; it gets the focus, and a ring that is seen."""
    page.evaluate("document.activeElement.blur()")
    control.evaluate(BEFORE)
    for _ in range(5):
        page.keyboard.press("Tab")
        if control.evaluate("(x) => x === document.activeElement"):
            break
    assert control.evaluate("(x) => x === document.activeElement")
    style, width = control.evaluate(OUTLINE)
    assert style != "none" and width >= 2


@pytest.mark.parametrize("name", ["notebooks/08_lambda_explorer", "runs/lambda_sweep"])
def test_the_explorer_obeys_the_keyboard(browser, site, address, name):
    watched = Watched(browser, "desktop")
    assert watched.open(f"{address}/{name}.html") == []
    page = watched.page
    slider = page.get_by_role("slider", name="lambda", exact=True)
    for scheme in ("light", "dark"):
        watched.turn("desktop", scheme)
        reach(page, slider)
        told = [slider.get_attribute("aria-valuetext")]
        for key in ("ArrowLeft", "ArrowRight", "Home", "End"):
            page.keyboard.press(key)
            told.append(slider.get_attribute("aria-valuetext"))
        assert told[0] == told[2] and len(set(told)) == 4 - (scheme == "dark")
        assert told[3:] == ["λ = 0.00001", "λ = 1"]
        assert "λ = 1:" in page.locator(".be-lx-readout").first.inner_text()
    assert watched.problems == []
    watched.context.close()


@pytest.mark.parametrize("name", ["notebooks/00_start_here", "runs/garments_quick"])
def test_the_film_obeys_the_keyboard(browser, site, address, name):
    watched = Watched(browser, "desktop")
    assert watched.open(f"{address}/{name}.html") == []
    page, film = watched.page, watched.page.locator(".be-film").first
    slider = film.get_by_role("slider", name="Frame of the film")
    for scheme in ("light", "dark"):
        watched.turn("desktop", scheme)
        reach(page, slider)
        for key in ("ArrowRight", "End", "Home"):
            before = slider.get_attribute("aria-valuetext")
            page.keyboard.press(key)
            told = slider.get_attribute("aria-valuetext")
            assert told != before and told.startswith("step ") and "mean diagonal" in told
            assert told.split(",")[0] in film.locator("canvas").first.get_attribute("aria-label")
        reach(page, film.get_by_role("button", name="Play"))
        page.keyboard.press("Space")
        film.get_by_role("button", name="Pause").wait_for()
        page.keyboard.press("Space")
        film.get_by_role("button", name="Play").wait_for()
        frames = film.get_by_role("button", name="All frames")
        reach(page, frames)
        for pressed in ("true", "false"):
            page.keyboard.press("Enter")
            assert frames.get_attribute("aria-pressed") == pressed
    assert watched.problems == []
    watched.context.close()


def test_nothing_of_the_explorer_needs_a_kernel(browser, site, address):
    watched = Watched(browser, "desktop")
    assert watched.open(f"{address}/notebooks/08_lambda_explorer.html") == []
    text = watched.page.inner_text("main")
    assert "Run this cell" not in text and "Run the cell above" not in text
    panel = watched.page.locator(".be-lx-panel")
    panel.get_by_role("button", name="Play").click()
    watched.page.wait_for_function(
        "() => Number(document.querySelector('.be-lx-live').dataset.frames) > 5", timeout=30_000
    )
    assert "step 0:" not in panel.inner_text()
    watched.context.close()


def dead_links(folder, pages):
    """Links and sources of the pages that lead to no file or place of the site: page -> what it says."""
    texts = {name: (folder / name).read_text(encoding="utf-8") for name in pages}
    places = {name: set(re.findall(r'\bid="([^"]+)"', text)) for name, text in texts.items()}
    found = {}
    for name, text in texts.items():
        for link in set(
            re.findall(r'<(?:a|link|script|img)\b[^>]*?\b(?:href|src)="([^"]*)"', text)
        ):
            if re.match(r"https?:|mailto:|data:", link):
                continue
            path, _, place = urllib.parse.unquote(link).partition("#")
            target = (folder / name).parent / path.partition("?")[0] if path else folder / name
            inside = target.resolve().relative_to(folder.resolve()).as_posix()
            known = not place or inside not in places or place in places[inside]
            known |= inside == "playground.html"  # whose address holds settings
            if not target.is_file() or not known:
                found.setdefault(name, []).append(link)
    return found


def test_every_link_leads_somewhere(site, folder):
    assert dead_links(folder, site) == {}


def test_a_dead_link_is_seen(tmp_path):
    told = '<h1 id="a">x</h1><a href="#a">x</a><a href="#b">x</a><a class="c" href="d.html">x</a>'
    (tmp_path / "page.html").write_text(told, encoding="utf-8")
    assert {p: set(x) for p, x in dead_links(tmp_path, ["page.html"]).items()} == {
        "page.html": {"#b", "d.html"}
    }


# Sizes, in points, of the letters of a page as it is printed; those inside formulas are left out.
POINTS = """() => [...document.querySelectorAll("#formulas-and-vocabulary *")]
  .filter((e) => !e.closest(".katex, .headerlink"))
  .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
  .map((e) => 0.75 * parseFloat(getComputedStyle(e).fontSize))"""


@pytest.mark.parametrize("paper", ["A4", "Letter"])
def test_the_formula_sheet_prints_on_two_pages(browser, address, paper):
    watched = Watched(browser, "desktop")
    assert watched.open(f"{address}/notebooks/formula_sheet.html") == []
    printed = watched.page.pdf(format=paper)
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) == 2
    watched.page.emulate_media(media="print")
    sizes = watched.page.evaluate(POINTS)
    assert len(sizes) > 100 and min(sizes) >= 8.49
    watched.context.close()


def test_search_finds_a_word(browser, address):
    watched = Watched(browser, "desktop")
    watched.open(f"{address}/search.html?q=whitening")
    watched.page.wait_for_selector("#search-results li a", timeout=20_000)
    assert watched.problems == []
    watched.context.close()


def test_solutions_are_folded_and_formulas_are_set(browser, site, address):
    watched = Watched(browser, "desktop")
    [name] = [n for n in site if n.startswith("notebooks/04_")]
    assert watched.open(f"{address}/{name}") == []
    page = watched.page
    folded = page.locator("details:has-text('Show a solution')")
    assert folded.count() > 0
    assert not any(folded.nth(i).evaluate("(d) => d.open") for i in range(folded.count()))
    assert page.locator(".math").count() == page.locator(".math .katex").count() > 0
    watched.context.close()


def test_pages_open_from_a_folder(browser, site, folder):
    watched = Watched(browser, "desktop")
    for name in ("index", "runs/lambda_sweep", "notebooks/00_start_here"):
        assert watched.open((folder / f"{name}.html").as_uri()) == []
    watched.context.close()
