"""Slides in a real browser, from a file, with no network: formulas set, nothing requested, nothing cut off."""

import pytest

from barlow_edu.publishing import copies as builds
from barlow_edu.publishing import slides

# The height of a slide, and how far a formula or a line of code reaches beyond it.
SEEN = """() => {
  const slide = Reveal.getCurrentSlide();
  const wide = [...slide.querySelectorAll(".katex-display, pre")].filter((e) => !e.closest("aside"));
  return [slide.scrollHeight, ...wide.map((e) => e.scrollWidth - e.clientWidth)];
}"""
LECTURES = ("00", "05", "12", "13")  # the last two have long tables and much code


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
    turned = []
    for _ in range(number):
        turned.append(page.evaluate(SEEN))
        page.keyboard.press("ArrowRight")  # alone is enough
    assert (
        page.evaluate("Reveal.isLastSlide()")
        and page.evaluate("Reveal.getIndices().h") == number - 1
    )
    assert max(height for height, *_ in turned) <= 700
    assert max((beyond for _, *wide in turned for beyond in wide), default=0) <= 2
    assert wrong == []
    context.close()
