"""Slides in a real browser, from a file, with no network: formulas set, nothing requested, nothing cut off."""

import pytest

from barlow_edu.publishing import copies as builds
from barlow_edu.publishing import slides

# Turn all slides; of each its height, and how far a formula or a line of code reaches beyond it.
TURNED = """() => {
  const seen = [];
  for (let i = 0; i < Reveal.getTotalSlides(); i++) {
    const slide = Reveal.getCurrentSlide();
    const wide = [...slide.querySelectorAll(".katex-display, pre")].filter((e) => !e.closest("aside"));
    seen.push([slide.scrollHeight, ...wide.map((e) => e.scrollWidth - e.clientWidth)]);
    Reveal.next();
  }
  return seen;
}"""
LECTURES = ("00", "01", "05", "08", "12", "13")  # the last two have long tables and much code


@pytest.fixture(scope="module", params=LECTURES)
def deck(request, tmp_path_factory):
    notebook = slides.find_notebook(request.param, builds.notebooks_dir())
    return slides.write_slides(notebook, tmp_path_factory.mktemp("slides"))


def test_slides_open_offline_and_the_keyboard_turns_them(browser, deck):
    path, number = deck
    context = browser.new_context(viewport={"width": 1100, "height": 700}, offline=True)
    page = context.new_page()
    wrong = []
    page.on("console", lambda message: message.type == "error" and wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("requestfailed", lambda request: wrong.append(request.url))
    page.on(
        "request",
        lambda request: request.url.startswith(("file:", "data:")) or wrong.append(request.url),
    )
    page.goto(path.as_uri(), timeout=120_000)
    page.wait_for_function("window.Reveal && Reveal.isReady()", timeout=120_000)
    assert page.evaluate("Reveal.getTotalSlides()") == number
    assert page.locator(".katex").count() > 5
    assert page.locator(".katex-error").count() == 0
    page.keyboard.press("ArrowRight")
    assert page.evaluate("Reveal.getIndices().h") == 1
    page.keyboard.press("Home")
    turned = page.evaluate(TURNED)
    assert page.evaluate("Reveal.isLastSlide()") and len(turned) == number
    assert max(height for height, *_ in turned) <= 700
    assert max((beyond for _, *wide in turned for beyond in wide), default=0) <= 2
    assert wrong == []
    context.close()
