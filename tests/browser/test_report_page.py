"""The report of a run in a real browser, opened from its file: whole, offline, and readable on a phone."""

import pytest
from watched import Watched

import barlow_edu as be
from barlow_edu.publishing.report import write_report


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "garments_hero.html"
    return write_report(be.load_run("garments_hero"), out).as_uri()


@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_a_report_opens_whole_and_its_film_plays(browser, report, picture, size):
    watched = Watched(browser, size, "light")
    assert watched.judge(report) == []
    page = watched.page
    picture(page, f"report_{size}")
    readout = page.locator(".be-film-readout")
    before = readout.inner_text()
    slider = page.locator(".be-film-bar input")
    slider.focus()
    page.keyboard.press("Home" if "step 0" not in before else "End")
    assert readout.inner_text() != before
    assert page.locator("h2").all_inner_texts()[-3:] == [
        "Neighbours",
        "Where it ran",
        "Configuration",
    ]
    if size == "desktop":
        axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
        assert [hit["id"] for hit in axe.run(page).response["violations"]] == []
    watched.context.close()
