"""The playground in a real Chromium: a file on disk, no network."""

import re
import time

import pytest
from watched import OVERFLOW, Watched

from barlow_edu.teaching import playground

BAR = 30  # frames a second that are promised
SECONDS = 30  # until it has visibly learned
BUSY = 60  # milliseconds a step on a machine that has other things to do: there the seconds cannot be judged
ROOM = "() => document.documentElement.scrollHeight - innerHeight"
FRAMES = """() => new Promise((done) => {
  const root = document.querySelector("#playground"), from = Number(root.dataset.frames), start = performance.now();
  setTimeout(() => done((Number(root.dataset.frames) - from) / (performance.now() - start) * 1000), 2000);
})"""
SEEN = """(ids) => ids.every((id) => {
  const box = document.getElementById(id).getBoundingClientRect();
  return box.width > 0 && box.top >= 0 && box.bottom <= innerHeight && box.left >= 0 && box.right <= innerWidth;
})"""
DRAWN = """(canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return new Set(new Uint32Array(data.buffer)).size;
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    return playground.write(tmp_path_factory.mktemp("playground") / "playground.html").as_uri()


@pytest.fixture
def opened(browser, address):
    """Open the page in a window of its own: its page and its root; there must be no error in the end."""
    windows = []

    def open_page(hash_="", size="desktop", **options):
        watched = Watched(browser, size, **options)
        if size == "desktop":
            watched.page.set_viewport_size({"width": 1366, "height": 768})
        windows.append(watched)
        watched.page.goto(address + hash_)
        watched.page.locator("#playground[data-ready]").wait_for(timeout=60_000)
        train_until(watched.page, "d.knn && d.distance", 60)  # the first frame is drawn
        return watched.page

    yield open_page
    problems = [problem for watched in windows for problem in watched.problems]
    for watched in windows:
        watched.context.close()
    assert problems == []


def data(page, *keys):
    got = page.locator("#playground").evaluate("(root) => ({...root.dataset})")
    return [float(got[key]) for key in keys]


def train_until(page, condition, seconds):
    page.wait_for_function(
        f"() => {{ const d = document.querySelector('#playground').dataset; return {condition}; }}",
        timeout=1000 * seconds,
    )


def test_it_learns_within_half_a_minute_at_thirty_frames_a_second(opened, picture, capsys):
    page = opened()
    [before] = data(page, "distance")
    assert page.evaluate(ROOM) <= 0 and page.evaluate(OVERFLOW) <= 0  # nothing to scroll
    idle = page.evaluate(FRAMES)
    page.get_by_role("button", name="Train").click()
    rate = page.evaluate(FRAMES)
    began = time.monotonic()
    train_until(page, f"+d.distance < {before / 2} && +d.knn > +d.untrained + 0.03", 200)
    seconds = time.monotonic() - began
    page.get_by_role("button", name="Pause").click()
    distance, knn, untrained, step = data(page, "distance", "knn", "untrained", "step")
    each = 1000 * seconds / step
    with capsys.disabled():
        print(
            f"\nplayground: {rate:.0f} frames a second while training (idle: {idle:.0f}); after {seconds:.0f} s and "
            f"{step:.0f} steps ({each:.0f} ms each) "
            f"distance {before:.2f} -> {distance:.2f}, kNN {100 * untrained:.1f} -> {100 * knn:.1f} %"
        )
    assert rate >= min(BAR, 0.5 * idle)
    assert seconds <= SECONDS or each > BUSY
    for name in ("c", "loss", "spectrum", "knn", "twins", "near", "map"):
        assert page.locator(f"#{name}").evaluate(DRAWN) > 5, f"nothing is drawn in {name}"
    picture(page, "playground")


def test_it_is_read_in_the_dark_and_by_axe(opened, picture):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    for scheme in ("light", "dark"):
        page = opened("#story=collapse", scheme=scheme)
        found = axe.run(page).response["violations"]
        assert [(hit["id"], hit["nodes"][0]["html"][:90]) for hit in found] == []
        picture(page, f"playground_{scheme}")
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator("#theme").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before


def test_a_thumb_on_a_phone_sees_slider_and_c_together(opened, picture):
    page = opened(size="phone", has_touch=True)
    assert page.evaluate(OVERFLOW) <= 0
    for y in (0, 500, 1500):
        page.evaluate(f"scrollTo(0, {y})")
        if y:
            assert page.evaluate(SEEN, ["c", "dial-lambda"])
    small = (
        "(all) => all.filter((x) => x.offsetParent && x.getBoundingClientRect().height < 18)"
        ".map((x) => x.outerHTML)"
    )
    assert page.locator("button, select, input").evaluate_all(small) == []
    page.evaluate("scrollTo(0, 0)")
    picture(page, "playground_phone")
    box = page.locator("#dial-lambda").bounding_box()
    page.touchscreen.tap(box["x"] + 0.2 * box["width"], box["y"] + box["height"] / 2)
    page.wait_for_function("location.hash.includes('lambda=')", timeout=20_000)  # it may be busy


def test_the_keyboard_alone_is_enough(opened):
    page = opened()
    page.keyboard.press("Tab")
    seen = [page.evaluate("document.activeElement.id")]
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id"))
    wanted = {"play", "step", "reset", "speed", "dial-lambda", "dial-dim", "dial-crop", "map"}
    assert wanted <= set(seen)
    page.locator("#step").focus()
    page.keyboard.press("Enter")
    train_until(page, "d.step === '1'", 20)
    page.locator("#dial-dim").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.querySelector('#c').width === 32")
    assert page.url.endswith("#dim=32")
    page.locator("#play").focus()
    page.keyboard.press("Space")
    train_until(page, "+d.step > 3", 30)


def test_the_address_holds_the_settings(opened):
    page = opened("#lambda=0.001&dim=32&norm=false&seed=3")
    assert page.locator("#dial-lambda").get_attribute("aria-valuetext") == "0.001"
    assert page.locator("#c").evaluate("(c) => c.width") == 32
    assert not page.locator("#dial-norm").is_checked()
    page.locator("#dial-norm").check()
    page.locator("#dial-method").select_option("vicreg")
    assert set(page.url.split("#")[1].split("&")) == {
        "lambda=0.001", "dim=32", "seed=3", "method=vicreg",
    }  # fmt: skip
    page.evaluate("location.hash = '#dim=8'")
    page.wait_for_function("() => document.querySelector('#c').width === 8")


def test_a_story_asks_first_and_explains_afterwards(opened, picture):
    page = opened("#width=4")
    page.get_by_role("button", name="Too few samples").click()
    story = page.locator("#story")
    assert (
        "Your prediction?" in story.inner_text() and "floor" not in story.locator("p").inner_text()
    )
    assert page.locator("#dial-batch").get_attribute("aria-valuetext") == "16"
    page.wait_for_timeout(300)
    assert data(page, "step") == [0]
    story.get_by_role("button", name=re.compile("diverges")).click()
    story.locator(".why").wait_for(timeout=90_000)
    assert "It went otherwise" in story.inner_text()
    assert page.evaluate(ROOM) <= 0
    picture(page, "playground_story")
    story.get_by_role("button", name="Next story").click()
    assert "λ = 10" in story.inner_text()
    story.get_by_role("button", name="Close").click()
    assert not story.is_visible()


def test_motion_is_calm_for_who_asks_for_it(opened):
    page = opened(reduced_motion="reduce")
    page.get_by_role("button", name="Train").click()
    page.wait_for_timeout(1500)
    changes = page.evaluate("""() => new Promise((done) => {
      let count = 0;
      const observer = new MutationObserver(() => { count += 1; });
      observer.observe(document.querySelector("#c"), { attributeFilter: ["aria-label"] });
      setTimeout(() => done(count), 2000);
    })""")
    assert 1 <= changes <= 5
