"""The accessibility of built sites, side by side.

    python benchmarks/accessibility_report.py site=DIR            # measure DIR and print a table
    python benchmarks/accessibility_report.py site=DIR --save NAME.json
    python benchmarks/accessibility_report.py before=NAME.json after=DIR --write

DIR is what ``course site --out DIR`` made. Every page of it is opened in Chromium, with all but loopback blocked.
axe-core judges it in light, and its colours again in dark; its width is that of a phone, too. Contrast is that of
the package that is imported: to judge an old version, run this script with ``PYTHONPATH`` set to its checkout, and
``--save`` the result.
"""

import argparse
import collections
import datetime
import importlib.metadata
import json
import platform
import re
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests" / "helpers"))  # as pytest does

import contrast
from watched import FLAGS, IDLE_PLAYERS, NO_ALT, OVERFLOW, SIZES, Watched, installed, served

RESULT = Path(__file__).parent / "results" / "accessibility.md"
COLOURS = ["color-contrast", "link-in-text-block"]  # the rules that a dark page may break alone
LIBRARIES = ("sphinx", "myst-nb", "sphinx-book-theme", "playwright", "axe-playwright-python")
NAMELESS = """() => [...document.querySelectorAll("[role=img], canvas, svg:not([aria-hidden=true])")]
  .filter((i) => i.getClientRects().length && !i.closest("[aria-hidden=true], button[aria-label], .katex")
    && !i.hasAttribute("aria-label") && !i.hasAttribute("aria-labelledby") && !i.querySelector("title")).length"""
EMPTY_ALT = """() => [...document.querySelectorAll("article img, main img")]
  .filter((i) => i.hasAttribute("alt") && !i.alt.trim()).length"""
# From one heading of the text to the next: more than one level down, or no or a second first level.
JUMPS = """() => {
  const headings = (document.querySelector("article") || document).querySelectorAll("h1, h2, h3, h4, h5, h6");
  const levels = [...headings].map((h) => Number(h.tagName[1]));
  const jumps = levels.filter((level, i) => i > 0 && level > levels[i - 1] + 1).length;
  return jumps + (levels.filter((level) => level === 1).length === 1 ? 0 : 1);
}"""


def measure(browser, folder):
    """What there is to say about the site in ``folder``: a mapping that JSON can hold."""
    files = sorted(p.relative_to(folder).as_posix() for p in Path(folder).rglob("*.html"))
    pages = [name for name in files if not name.startswith("_static/")]
    found = collections.Counter({"pages": len(pages)})
    axe, versions = {"light": {}, "dark": {}}, {}
    watched = Watched(browser, "desktop")
    with served(folder) as address:
        for name in pages:
            found["pages with errors"] += bool(watched.open(f"{address}/{name}"))
            versions["axe-core"] = judge(watched.page, axe["light"], {})
            look_at(watched.page, found)
            watched.page.emulate_media(color_scheme="dark")
            watched.page.wait_for_function("document.documentElement.dataset.theme === 'dark'")
            watched.page.wait_for_timeout(500)  # colours fade into each other
            judge(watched.page, axe["dark"], {"runOnly": COLOURS})
            watched.page.emulate_media(color_scheme="light")
    watched.context.close()
    versions |= {name: importlib.metadata.version(name) for name in LIBRARIES}
    versions |= {"Chromium": browser.version, "Python": platform.python_version()}
    told = {"found": found, "axe": axe, "contrast": lowest_contrasts(), "versions": versions}
    return {**told, "date": datetime.date.today().isoformat()}


def judge(page, hits, options):
    """Add what axe-core finds on a page to ``hits``; returns its version."""
    from axe_playwright_python.sync_playwright import Axe

    answer = Axe().run(page, options={"resultTypes": ["violations"], **options}).response
    for hit in answer["violations"]:
        nodes, where = hits.get(hit["id"], (0, 0))
        hits[hit["id"]] = (nodes + len(hit["nodes"]), where + 1)
    return answer["testEngine"]["version"]


def look_at(page, found):
    """Count images, headings and players of a page, and whether it fits on a phone."""
    found["images"] += page.evaluate("document.images.length")
    found["images without alt text"] += len(page.evaluate(NO_ALT)) + page.evaluate(EMPTY_ALT)
    found["drawings without a name"] += page.evaluate(NAMELESS)
    found["heading jumps"] += page.evaluate(JUMPS)
    found["players that do not start"] += len(page.evaluate(IDLE_PLAYERS))
    for size, (width, height) in SIZES.items():
        page.set_viewport_size({"width": width, "height": height})
        found[f"pages wider than a {size}"] += page.evaluate(OVERFLOW) > 0
    width, height = SIZES["desktop"]
    page.set_viewport_size({"width": width, "height": height})


def lowest_contrasts():
    """Where pairs of colours stand -> the lowest ratio among them, and the ratio that they need."""
    return {
        place: (min(contrast.contrast(*pair) for pair in named.values()), need)
        for place, (need, named) in contrast.pairs().items()
    }


def table(sites):
    """The table of several measurements, by their names."""
    rows = [["", *sites], ["measured on", *(s["date"] for s in sites.values())]]
    keys = list(dict.fromkeys(key for s in sites.values() for key in s["found"]))
    rows += [[key, *(str(s["found"].get(key, 0)) for s in sites.values())] for key in keys]
    for scheme in ("light", "dark"):
        rules = sorted({rule for s in sites.values() for rule in s["axe"][scheme]})
        told = [
            [f"axe, {scheme}: {rule}", *(places(s["axe"][scheme], rule) for s in sites.values())]
            for rule in rules
        ]
        rows += told or [[f"axe, {scheme}", *("none" for _ in sites)]]
    for place in next(iter(sites.values()))["contrast"]:
        pairs = [s["contrast"][place] for s in sites.values()]
        wanted = (
            f" (needs {pairs[-1][1]})" if pairs[-1][1] > 1 else " (carried by more than colour)"
        )
        rows.append([f"contrast, {place}{wanted}", *(f"{ratio:.1f}" for ratio, _ in pairs)])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---|" + "---:|" * len(sites), *lines[1:]])


def places(hits, rule):
    """How often and on how many pages a rule was broken."""
    nodes, where = hits.get(rule, (0, 0))
    return f"{nodes} on {where} pages" if nodes else "0"


def text(sites, note):
    """The recorded file."""
    versions = "; ".join(
        f"{n}: " + ", ".join(f"{k} {v}" for k, v in s["versions"].items()) for n, s in sites.items()
    )
    return (
        "# Accessibility of the website\n\n"
        "Every page, opened in Chromium with all but loopback blocked, and judged by axe-core: all its rules in "
        "light, those about colour again in dark. A phone is 390 pixels wide. Contrast is the lowest ratio of WCAG "
        "2.2 among the pairs of colours of a place. Made by "
        "`python benchmarks/accessibility_report.py before=… after=… --write`.\n\n"
        f"{table(sites)}\n\n{note}{versions}.\n"
    )


def main():
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("sites", nargs="+", metavar="NAME=WHERE")
    parser.add_argument("--save", metavar="FILE", help="keep what was found in the last site")
    parser.add_argument("--write", action="store_true", help=f"record the table in {RESULT.name}")
    parser.add_argument("--note", default="", help="what else is to be recorded, below the table")
    wanted = parser.parse_args()
    sites = {}
    chromium = installed()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        for name, where in (re.split("=", site, maxsplit=1) for site in wanted.sites):
            path = Path(where)
            known = path.suffix == ".json"
            sites[name] = json.loads(path.read_text("utf-8")) if known else measure(browser, path)
        browser.close()
    if wanted.save:
        Path(wanted.save).write_text(json.dumps(sites[name], indent=1), encoding="utf-8")
    if wanted.write:
        RESULT.write_text(text(sites, f"{wanted.note}\n\n".lstrip()), encoding="utf-8")
    print(table(sites))


if __name__ == "__main__":
    main()
