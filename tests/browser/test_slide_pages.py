"""Slides in a real browser, from a file, with no network: formulas set, nothing requested, nothing cut off."""

import pytest

from barlow_edu import builds, slides

HEIGHT = """() => Reveal.getSlides().map((slide) => {
  const before = slide.style.display;
  slide.style.display = "block";
  const height = slide.scrollHeight;
  slide.style.display = before;
  return height;
})"""


@pytest.fixture(scope="module")
def deck(tmp_path_factory):
    notebook = slides.find_notebook("4", builds.notebooks_dir())
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
    assert page.locator(".katex").count() > 50
    assert page.locator(".katex-error").count() == 0
    assert max(page.evaluate(HEIGHT)) <= 700
    page.keyboard.press("ArrowRight")
    assert page.evaluate("Reveal.getIndices().h") == 1
    assert wrong == []
    context.close()
