"""The figures draw what they were given, say it without colour, and survive a strict replay."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import matplotlib as mpl
import nbformat
import numpy as np
import pytest
import scipy.linalg
import torch
from matplotlib.colors import to_rgb
from nbclient import NotebookClient
from PIL import Image
from sklearn.isotonic import IsotonicRegression

from barlow_edu.teaching import embed
from barlow_edu.teaching.figures import drawing, plots

RNG = np.random.default_rng(0)
C4 = np.array([[0.9, 0.1, -0.2, 0], [0, 0.8, 0, 0], [0.3, 0, 1, -0.7], [0, 0, 0, -0.004]])
SNAPSHOTS = {s: np.eye(16) * s / 50 + RNG.normal(size=(16, 16)) * 0.1 for s in range(0, 60, 10)}
METRICS = [
    {
        "step": s,
        "loss": 40 * 0.9**s + 1,
        "on_diag_loss": 30 * 0.9**s,
        "cross_corr_diag_mean": s / 60,
    }
    for s in range(60)
]
PICTURES = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)

FIGURES = {
    "correlation": lambda bad=0.0: plots.correlation(C4 + bad, title="C"),
    "correlation_strip": lambda bad=0.0: plots.correlation_strip({0: C4, 5: C4 + bad}),
    "curves": lambda bad=0.0: plots.curves([*METRICS, {**METRICS[0], "loss": 1 + bad}], floor=0.5),
    "twins": lambda bad=0.0: plots.twins(PICTURES / 255 + bad, PICTURES, PICTURES, title="Twins"),
    "images": lambda bad=0.0: plots.images(PICTURES / 255 + bad, titles="abcde", columns=3),
    "bars": lambda bad=0.0: plots.bars(
        {"a": 0.4 + bad, "b": (0.6, 0.01)}, highlight="b", title="t"
    ),
    "spectrum": lambda bad=0.0: plots.spectrum({"a": [3, 2, 1 + bad], "b": [1, 0.1, 0]}),
    "staircase": lambda bad=0.0: plots.staircase([0, 1, 2], np.eye(3) + bad, np.eye(3), [3, 2, 1]),
    "heatmaps": lambda bad=0.0: plots.heatmaps({"A": C4, "B": C4[:2] + bad}),
    "line": lambda bad=0.0: plots.line([1, 2, 4], {"y": [1, 2, 3 + bad]}, "x", "y", marks={"m": 2}),
}


def texts(fig):
    """All text in a figure, drawn once so that tick labels exist."""
    fig.canvas.draw()
    found = fig.findobj(mpl.text.Text)
    return [text for text in found if text.get_visible() and text.get_text().strip()]


def words(fig):
    return " | ".join(text.get_text() for text in texts(fig))


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_readable_small_and_leaves_nothing_behind(name):
    before = dict(mpl.rcParams)
    fig = FIGURES[name]()
    assert dict(mpl.rcParams) == before
    if "matplotlib.pyplot" in sys.modules:
        assert not sys.modules["matplotlib.pyplot"].get_fignums()
    assert min(text.get_fontsize() for text in texts(fig)) >= 9
    assert fig.get_figwidth() <= 7
    png = embed.to_png(fig, "alt")
    assert len(png) < 60_000
    assert Image.open(io.BytesIO(png)).text["Description"] == "alt"


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", FIGURES)
def test_nan_and_infinity_are_refused(name, bad):
    with pytest.raises(ValueError, match="NaN or infinity"):
        FIGURES[name](bad)


def test_importing_the_package_or_the_figures_does_not_import_pyplot():
    code = "import sys, barlow_edu; assert 'matplotlib' not in sys.modules; import barlow_edu.teaching.figures.plots"
    code += "; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("make", [np.asarray, torch.tensor])
def test_correlation_draws_c_on_a_fixed_scale_with_its_numbers(make):
    fig = plots.correlation(make(C4), title="Mine")
    image = fig.axes[0].images[0]
    assert image.get_clim() == (-1, 1)
    np.testing.assert_array_equal(image.get_array(), C4)
    off = [C4[i, j] for i in range(4) for j in range(4) if i != j]
    rms = np.sqrt(np.mean(np.square(off)))
    assert fig.axes[0].get_title() == f"mean diagonal 0.67, off-diagonal RMS {rms:.2f}"
    cells = [text.get_text() for text in fig.axes[0].texts]
    assert len(cells) == 16 and cells[2] == "−0.20" and cells[15] == "0.00"  # no "−0.00"
    values = fig.axes[1].lines[1].get_ydata()
    np.testing.assert_allclose(values, scipy.linalg.svdvals(C4), atol=1e-12)
    assert set(fig.axes[1].lines[0].get_ydata()) == {1}
    for word in ("Mine", "dimension of view A", "dimension of view B", "target: all 1"):
        assert word in words(fig)


def test_correlation_of_many_dimensions_keeps_its_diagonal_and_counts_lost_values():
    c = np.zeros((512, 512))
    c[:10, :10] = 1  # rank one: 511 values are zero
    fig = plots.correlation(c + 0)
    np.testing.assert_array_equal(fig.axes[0].images[0].get_array(), c[::3, ::3])
    assert "511 values below 0.001" in words(fig) and "1 in 3" in words(fig)
    fig = plots.correlation(np.eye(512))
    picture = Image.open(io.BytesIO(embed.to_png(fig))).convert("L")
    box = fig.axes[0].get_window_extent().transformed(mpl.transforms.Affine2D().scale(2))
    rows = slice(int(picture.height - box.y1) + 4, int(picture.height - box.y0) - 4)
    inside = np.asarray(picture)[rows, int(box.x0) + 4 : int(box.x1) - 4]
    assert (inside.min(1) < 60).all()  # the diagonal is an unbroken line


def test_correlation_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"square .*\(3, 4\)"):
        plots.correlation(C4[:3])
    with pytest.raises(ValueError, match=r"2 dimension.*\(4,\)"):
        plots.correlation(C4[0])


def test_strip_takes_the_first_and_last_moment_or_those_asked_for():
    fig = plots.correlation_strip(SNAPSHOTS)
    assert [ax.get_title() for ax in fig.axes[:4]] == ["step 0", "step 20", "step 30", "step 50"]
    fig = plots.correlation_strip(SNAPSHOTS, steps=[10, 50], titles=["early", "late"])
    assert [ax.get_title() for ax in fig.axes[:2]] == ["early", "late"]
    for ax, step in zip(fig.axes[:2], [10, 50], strict=True):
        assert ax.images[0].get_clim() == (-1, 1)
        np.testing.assert_array_equal(ax.images[0].get_array(), SNAPSHOTS[step])
    with pytest.raises(ValueError, match=r"\[7\].*recorded: \[0, 10"):
        plots.correlation_strip(SNAPSHOTS, steps=[0, 7])
    with pytest.raises(ValueError, match="1 titles for 2 moments"):
        plots.correlation_strip(SNAPSHOTS, steps=[0, 10], titles=["one"])


def test_curves_split_the_loss_into_its_two_parts_and_show_the_floor():
    fig = plots.curves(METRICS, floor=0.9)
    left, right = fig.axes
    loss, invariance, redundancy, floor = (np.asarray(line.get_ydata()) for line in left.lines)
    np.testing.assert_allclose(loss, [row["loss"] for row in METRICS])
    np.testing.assert_allclose(redundancy, loss - invariance)
    assert set(floor) == {0.9} and left.get_yscale() == "log"
    assert set(right.lines[1].get_ydata()) == {1.0} and right.get_yscale() == "linear"
    assert len({line.get_linestyle() + str(line._dash_pattern) for line in left.lines}) == 4
    for word in ("loss", "invariance", "λ · redundancy", "floor 0.9", "target"):
        assert word in words(fig)


def test_curves_take_a_run_and_name_what_exists():
    right = plots.curves(SimpleNamespace(metrics=METRICS)).axes[1]
    np.testing.assert_allclose(right.lines[0].get_ydata(), np.arange(60) / 60)
    with pytest.raises(ValueError, match="'loss'.* there are: speed, step"):
        plots.curves([{"step": 0, "speed": 9}])


def test_twins_and_images_place_each_picture():
    fig = plots.twins(PICTURES / 255, PICTURES.flip(-1), originals=PICTURES, n=4)
    canvas = fig.axes[0].images[0].get_array()
    for row, expected in enumerate([PICTURES, PICTURES, PICTURES.flip(-1)]):
        for k in range(4):
            y, x = row * 10, k * 10
            tile = expected[k].permute(1, 2, 0).double().numpy() / 255
            np.testing.assert_allclose(canvas[y : y + 8, x : x + 8], tile, atol=1e-6)
    for word in ("original", "view 1", "view 2"):
        assert word in words(fig)
    assert "e" in words(plots.images(PICTURES, titles="abcde", columns=3))
    grey = plots.images(PICTURES[:, :1], n=2).axes[0].images[0].get_array()
    assert grey.shape[2] == 3 and (grey[:8, :8, 0] == grey[:8, :8, 2]).all()


def test_pictures_outside_their_range_or_number_are_refused():
    with pytest.raises(ValueError, match="denormalize"):
        plots.images(PICTURES / 255 * 2 - 1)
    with pytest.raises(ValueError, match="'view 1': 3, 'view 2': 5"):
        plots.twins(PICTURES[:3], PICTURES)
    with pytest.raises(ValueError, match="2 titles for 5"):
        plots.images(PICTURES, titles="ab")
    with pytest.raises(ValueError, match="1 or 3"):
        plots.images(torch.zeros(2, 4, 8, 8))


def test_bars_carry_their_numbers_and_the_highlight_is_seen_without_colour():
    fig = plots.bars({"pixels": 0.452, "trained": (0.571, 0.005)}, highlight="trained")
    first, second = (bar for bar in fig.axes[0].patches)
    assert first.get_width() == pytest.approx(45.2) and second.get_width() == pytest.approx(57.1)
    assert second.get_hatch() and not first.get_hatch()
    assert "45.2 %" in words(fig) and "57.1 ± 0.5 %" in words(fig)
    assert "12.3 x" in words(plots.bars({"gram": 12.3}, unit="x"))
    ticks = plots.bars({"nearly all": 0.98, "none": 0.0}).axes[0].get_xticks()
    assert ticks.max() == 100 and ticks.min() == 0  # a share has no 120 %
    with pytest.raises(ValueError, match="divide by 100"):
        plots.bars({"a": 57.1})
    with pytest.raises(ValueError, match="'c' is not in the table"):
        plots.bars({"a": 0.5}, highlight="c")


def test_spectrum_sorts_and_keeps_zeros_on_the_paper():
    fig = plots.spectrum({"a": [1.0, 4.0, 0.0]})
    np.testing.assert_allclose(fig.axes[0].lines[0].get_ydata(), [4, 1, 4e-6])
    assert fig.axes[0].get_yscale() == "log"


def test_staircase_pairs_measured_and_theory():
    times = np.linspace(0, 10, 50)
    theory = np.stack([1 / (1 + np.exp(a - times)) for a in (3, 6)], 1)
    loss = 4 - theory.sum(1)
    fig = plots.staircase(times, theory + 0.01, theory, loss)
    solid = [line for line in fig.axes[0].lines if line.get_linestyle() == "-"]
    dashed = [line for line in fig.axes[0].lines if line.get_linestyle() != "-"]
    for j in range(2):
        np.testing.assert_allclose(solid[j].get_ydata(), theory[:, j] + 0.01)
        np.testing.assert_allclose(dashed[j].get_ydata(), theory[:, j])
        assert dashed[j].get_color() == drawing.ink(solid[j].get_color())
    assert "mode 1" in words(fig) and "theory (dashed)" in words(fig)
    film = plots.staircase(times, theory, theory, loss, now=4.5)
    above, below = film.axes
    seen = times[times <= 4.5]
    np.testing.assert_allclose(above.lines[0].get_xdata(), seen)
    np.testing.assert_allclose(above.lines[1].get_xdata(), times)  # the theory knows the future
    np.testing.assert_allclose(below.lines[0].get_ydata(), loss[: len(seen)])
    assert "mode 0" in words(film) and "mode 1" not in words(film)  # that one has yet to come
    with pytest.raises(ValueError, match="one row a time"):
        plots.staircase(times, theory[:9], theory, loss)


def test_heatmaps_share_one_scale():
    fig = plots.heatmaps({"A": C4 * 3, "B": C4})
    assert [ax.images[0].get_clim() for ax in fig.axes[:2]] == [(-5, 5), (-5, 5)]
    assert plots.heatmaps({"A": C4}, vmax=1).axes[0].images[0].get_clim() == (-1, 1)
    assert plots.heatmaps({"zero": np.zeros((2, 2))}).axes[0].images[0].get_clim() == (-1, 1)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_titles_of_heatmaps_lie_inside_the_figure(n):
    fig = plots.heatmaps({f"AAᵀ / {k}": np.eye(5) for k in range(n)})
    fig.savefig(io.BytesIO())  # lays the figure out
    assert all(ax.title.get_window_extent().y1 < fig.bbox.y1 for ax in fig.axes[:n])


def test_line_draws_scales_marks_and_labels():
    x = [16, 64, 256]
    fig = plots.line(
        x, {"a": [1, 2, 3], "b": [3, 2, 1]}, "N", "RMS", logx=True, marks={"paper": 64}
    )
    ax = fig.axes[0]
    assert ax.get_xscale() == "log" and ax.get_yscale() == "linear"
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), [3, 2, 1])
    assert ax.lines[0].get_marker() != ax.lines[1].get_marker()
    for word in ("N", "RMS", "a", "b", "paper"):
        assert word in [text.get_text() for text in texts(fig)]
    with pytest.raises(ValueError, match="a has 2 values for 3"):
        plots.line(x, {"a": [1, 2]}, "x", "y")


def test_labels_at_line_ends_are_spread_as_little_as_needed():
    heights, gap = RNG.uniform(size=12), 0.06
    placed = np.array(drawing.spread(list(heights), gap))
    order = np.argsort(heights)
    steps = gap * np.arange(12)
    expected = IsotonicRegression().fit_transform(np.arange(12), heights[order] - steps) + steps
    np.testing.assert_allclose(placed[order], expected)
    assert drawing.spread([0.1, 0.9], 0.05) == pytest.approx([0.1, 0.9])


# Colours as seen with a missing cone type: Machado, Oliveira and Fernandes (2009), severity 1.0,
# applied to linear RGB.
PROTANOPIA = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216]]
PROTANOPIA += [[-0.003882, -0.048116, 1.051998]]
DEUTERANOPIA = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413]]
DEUTERANOPIA += [[-0.011820, 0.042940, 0.968881]]


def lab(color, seen_by):
    """CIE L*a*b* (D65) of a colour as a person with that vision sees it."""
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = (np.array(seen_by) @ linear).clip(0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.cbrt(np.array(to_xyz) @ linear / [0.9505, 1, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", [np.eye(3), PROTANOPIA, DEUTERANOPIA])
def test_colours_stay_apart_for_colour_blind_readers(vision):
    seen = [lab(color, vision) for color in drawing.PALETTE]
    for a, b in zip(seen, seen[1:], strict=False):
        assert np.linalg.norm(a - b) > 30  # a difference of 2 is just noticeable
    ends = [lab(drawing.DIVERGING(x), vision) for x in (0.1, 0.3, 0.5, 0.7, 0.9)]
    for i, a in enumerate(ends):
        for b in ends[i + 1 :]:
            assert np.linalg.norm(a - b) > 20
    assert len(set(map(str, drawing.DASHES))) == len(drawing.DASHES) >= 5


@pytest.mark.parametrize("color", drawing.PALETTE)
def test_label_ink_is_readable_on_white(color):
    rgb = np.array(drawing.ink(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    assert 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05) >= 4.5  # WCAG 2, level AA


def test_film_sheet_holds_every_frame_and_the_numbers():
    made = plots.film(SNAPSHOTS, title="Film")
    picture = Image.open(io.BytesIO(made.png))
    place, cell = made.layout, made.layout["tile"] // 16
    rgb = np.asarray(picture.convert("RGB"))
    for k, c in enumerate(SNAPSHOTS.values()):
        line, column = divmod(k, place["columns"])
        x = place["origin"][0] + column * place["pitch"][0] + cell // 2
        y = place["origin"][1] + line * place["pitch"][1] + cell // 2
        tile = rgb[y : y + place["tile"] : cell, x : x + place["tile"] : cell][:16, :16]
        expected = drawing.DIVERGING((c.clip(-1, 1) + 1) / 2)[..., :3] * 255
        assert np.abs(tile - expected).max() < 14  # one step of the scale
    numbers = json.loads(picture.text["film"])
    c = SNAPSHOTS[30]
    assert numbers["diagonal"][3] == pytest.approx(np.trace(c) / 16, abs=1e-4)
    off = c[~np.eye(16, dtype=bool)]
    assert numbers["rms"][3] == pytest.approx(np.sqrt((off**2).mean()), abs=1e-4)
    np.testing.assert_allclose(numbers["spectrum"][3], scipy.linalg.svdvals(c), rtol=5e-3)


def test_film_stays_small_and_its_html_depends_on_no_measured_value():
    noise = {s: RNG.normal(size=(128, 128)) * 0.3 for s in range(80)}
    made = plots.film(noise)
    assert len(made.steps) == 36 and made.steps[0] == 0 and made.steps[-1] == 79
    assert made.frames.shape == (36, 64, 64) and "first 64 of 128" in made.player()
    assert 4 / 3 * len(made.png) + len(made.player()) < 300_000
    other = plots.film({s: c + 0.01 for s, c in noise.items()})
    assert other.player() == made.player() and other.png != made.png
    assert repr(other) == repr(made)
    assert not re.search(r"https?:|<link|src=", made.player())  # nothing is fetched


def test_film_refuses_what_it_cannot_show(tmp_path):
    with pytest.raises(ValueError, match="no snapshots"):
        plots.film({})
    with pytest.raises(ValueError, match="differ in shape"):
        plots.film({0: np.eye(3), 1: np.eye(4)})
    with pytest.raises(ValueError, match="C at step 1 holds NaN"):
        plots.film({0: np.eye(3), 1: np.eye(3) * np.nan})
    saved = plots.film(SNAPSHOTS).save(tmp_path / "film.png")
    assert Image.open(saved).size[0] == 1400


def test_alt_text_is_required():
    for alt in ("", "  "):
        with pytest.raises(ValueError, match="alt"):
            plots.show(plots.correlation(C4), alt=alt)


CELLS = [
    "import os, numpy as np\nfrom barlow_edu import plots\n"
    "rng = np.random.default_rng(int(os.environ.get('SEED', 0)))\n"
    "c = np.eye(8) + 0.1 * rng.normal(size=(8, 8))\n"
    "plots.show(plots.correlation(c), alt='C is \"nearly\" the identity & square.')",
    "plots.film({0: c, 10: np.eye(8)}, title='A film')",
    "plots.show(plots.line([0, 1], {'a': [0, c[0, 0]]}, 'x', 'y'), alt='A rising line.')",
]


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    path = tmp_path_factory.mktemp("notebook") / "figures.ipynb"
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    NotebookClient(made, kernel_name="python3").execute()
    nbformat.write(made, path)
    return path


def test_notebook_stores_picture_alt_text_and_player(notebook):
    shown, played, _ = (cell.outputs for cell in nbformat.read(notebook, 4).cells)
    assert len(shown) == len(played) == 2
    alt = 'C is "nearly" the identity & square.'
    assert shown[0].metadata["image/png"]["alt"] == alt
    assert shown[0].data["text/plain"] == f"<Figure: {alt}>"
    picture = Image.open(io.BytesIO(base64.b64decode(shown[0].data["image/png"])))
    assert picture.width == 2 * shown[0].metadata["image/png"]["width"] == 1400
    assert "C is &quot;nearly&quot; the identity &amp; square." in shown[1].data["text/html"]
    assert played[0].metadata["image/png"]["alt"].startswith("A film: 2 small heatmaps of C")
    assert 'class="be-film"' in played[1].data["text/html"]


def test_strict_nbval_accepts_other_data_and_refuses_other_words(notebook):
    changed = notebook.with_name("changed.ipynb")
    changed.write_text(notebook.read_text().replace("<Figure: A rising", "<Figure: A falling"))
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", notebook.parent]
    command += ["-p", "no:cacheprovider", "--nbval", "--nbval-current-env", changed]
    environment = {**os.environ, "SEED": "5"}
    replay = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert "1 failed, 2 passed" in replay.stdout
    assert "<Figure: A falling line.>" in replay.stdout


BROWSER = next(
    filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), ""
)


@pytest.mark.skipif(not BROWSER, reason="no Chromium on this machine")
def test_exported_page_plays_by_keyboard_without_network(notebook):
    from nbconvert import HTMLExporter
    from playwright.sync_api import sync_playwright

    page_path = notebook.with_suffix(".html")
    page_path.write_text(HTMLExporter().from_filename(notebook)[0], encoding="utf-8")
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_context(offline=True).new_page()
        page.goto(page_path.as_uri(), wait_until="domcontentloaded")
        page.wait_for_selector(".be-film-readout")
        alts = page.evaluate("[...document.images].map((image) => image.alt)")
        drawn = "document.querySelector('.be-film-c').toDataURL()"
        first, before = page.inner_text(".be-film-readout"), page.evaluate(drawn)
        page.focus(".be-film input")
        page.keyboard.press("ArrowRight")
        second, after = page.inner_text(".be-film-readout"), page.evaluate(drawn)
        spoken = page.get_attribute(".be-film input", "aria-valuetext")
        browser.close()
    assert alts[0] == 'C is "nearly" the identity & square.' and alts[1].startswith("A film: 2")
    assert first.startswith("step 0, mean diagonal") and before != after
    assert second == spoken == "step 10, mean diagonal 1.00, off-diagonal RMS 0.00"


def test_c_is_watched_in_one_place_and_every_moment_stays(monkeypatch):
    shown = []
    monkeypatch.setattr(
        "IPython.display.display", lambda data, **place: shown.append((data, place))
    )
    draw = plots.Watch("C of a test")
    for step in (0, 5):
        draw(step, torch.eye(4) * (1 + step))
    assert [place["update"] for _, place in shown] == [False, True]
    assert (
        len({place["display_id"] for _, place in shown}) == 1
    )  # the second takes the first one's place
    assert shown[0][0]["image/png"] != shown[1][0]["image/png"]
    assert (
        shown[0][0]["text/plain"] == shown[1][0]["text/plain"] == "<C of a test>"
    )  # nbval compares it
    assert list(draw.snapshots) == [0, 5]
    np.testing.assert_array_equal(draw.snapshots[5], 6 * np.eye(4))
    with pytest.raises(ValueError, match="step 7"):
        draw(7, torch.full((4, 4), torch.nan))


def test_a_flipbook_holds_its_figures_in_rows_and_plays_them_without_a_kernel():
    figures = [plots.heatmaps({"C": np.full((4, 4), level)}, vmax=1) for level in (-1, 0, 1)]
    book = plots.Flipbook(figures, ["low", "none", "high"], "Three levels")
    sheet, layout = Image.open(io.BytesIO(book.png)).convert("RGB"), book.layout
    assert sheet.size == layout["size"]
    wide, high = book.frame
    colours = []
    for k in range(3):
        line, column = divmod(k, layout["columns"])
        x, y = column * layout["pitch"][0], line * layout["pitch"][1]
        colours.append(sheet.getpixel((x + wide // 3, y + high // 2)))
    blue, white, red = colours
    assert blue[2] > blue[0] + 50
    assert red[0] > red[2] + 50
    assert min(white) > 200
    assert "high" in book.alt
    assert "low" in book.alt
    html = book.player()
    assert html == plots.Flipbook(figures[::-1], ["low", "none", "high"], "Three levels").player()
    assert "&quot;captions&quot;: [&quot;low&quot;, &quot;none&quot;, &quot;high&quot;]" in html
    with pytest.raises(ValueError, match="3 figures and 2 captions"):
        plots.Flipbook(figures, ["a", "b"], "T")
    with pytest.raises(ValueError, match="0 figures"):
        plots.Flipbook([], [], "T")


def test_on_the_circle_a_dimension_points_where_its_angle_is_and_a_push_starts_at_its_tip():
    angle = torch.tensor([20.0, 110.0]).deg2rad() + torch.arange(3)[:, None] * 2 * torch.pi / 3
    z = 2**0.5 * angle.cos()
    ax = plots.circle({"A": z, "B": 3 * z}, {"A": 0.1 * z}).axes[0]
    arrows, pushes, hollow = ax.collections
    expected = [[np.cos(a), np.sin(a)] for a in np.deg2rad([20, 110])]
    np.testing.assert_allclose(np.stack([arrows.U, arrows.V], 1), expected, atol=1e-6)
    np.testing.assert_allclose(np.stack([hollow.U, hollow.V], 1), expected, atol=1e-6)
    np.testing.assert_allclose(pushes.get_offsets(), expected, atol=1e-6)
    np.testing.assert_allclose(
        np.stack([pushes.U, pushes.V], 1), 0.1 * np.array(expected), atol=1e-6
    )
    assert [text.get_text() for text in ax.texts] == ["A0", "A1", "B0", "B1"]
    with pytest.raises(ValueError, match="4 images: a circle needs three"):
        plots.circle({"A": torch.zeros(4, 2)})
