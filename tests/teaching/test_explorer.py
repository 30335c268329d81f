"""The explorer carries the record unchanged, and says the same on every run."""

import base64
import io
import json
import shutil
import struct
import zlib
from html.parser import HTMLParser

import anywidget
import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

import barlow_edu as be
from barlow_edu.studies.lambda_sweep import load_sweep, recorded_neighbours
from barlow_edu.teaching import explorer as module
from barlow_edu.teaching.explorer import LambdaExplorer
from barlow_edu.teaching.figures.drawing import colour_table


@pytest.fixture(scope="module")
def explorer():
    return LambdaExplorer()


def unpack(data):
    """What explorer.js reads: (header, C of every λ)."""
    raw = zlib.decompress(data)
    (length,) = struct.unpack("<I", raw[:4])
    header = json.loads(raw[4 : 4 + length])
    frames = np.frombuffer(raw[4 + length :], dtype=np.uint8)
    return header, frames.reshape(len(header["lambdas"]), header["dims"], header["dims"])


def test_everything_is_sent_once_and_unchanged(explorer):
    header, frames = unpack(explorer.data)
    sweep = load_sweep()
    np.testing.assert_array_equal(frames, sweep.bytes)
    np.testing.assert_allclose(header["lambdas"], sweep.values, rtol=1e-3)
    np.testing.assert_allclose(header["knn_h"], 100 * sweep.column("knn"), rtol=1e-3)
    np.testing.assert_allclose(header["knn_z"], 100 * sweep.column("knn_z"), rtol=1e-3)
    np.testing.assert_allclose(header["spectrum"], sweep.spectra, rtol=1e-3)
    weighted = [row["lambd"] * row["redundancy"] for row in sweep.rows]
    np.testing.assert_allclose(header["weighted"], weighted, rtol=1e-3)
    off = np.array(header["rms"]) ** 2 * header["dim"] * (header["dim"] - 1)
    np.testing.assert_allclose(off, sweep.column("redundancy"), rtol=3e-3)
    assert len(explorer.data) < 300_000
    assert isinstance(explorer, anywidget.AnyWidget) and explorer.trait_metadata("data", "sync")


def test_neighbours_are_those_of_the_record(explorer):
    """Each place of the sent picture holds the test image that the record names, and its kind."""
    near = unpack(explorer.data)[0]["near"]
    record = recorded_neighbours(load_sweep())
    test = be.load_images("garments", split="test", limit=2000)
    sprite = Image.open(io.BytesIO(base64.b64decode(near["sprite"].partition(",")[2])))
    sprite = np.asarray(sprite.convert("RGB"), dtype=float)
    rows = (
        record["queries"]
        + np.array([r["nearest"] for r in record["rows"]])[..., :6].flatten().tolist()
    )
    places = near["queries"] + np.array(near["nearest"]).flatten().tolist()
    for row, place in zip(rows, places, strict=True):
        y, x = (near["side"] * k for k in divmod(place, near["columns"]))
        tile = sprite[y : y + near["side"], x : x + near["side"]]
        original = test.images[row].permute(1, 2, 0).numpy()
        assert np.abs(tile - original).mean() < 12, row  # as WebP compresses it
        assert near["names"][place] == test.classes[test.labels[row]]
    assert near["lambdas"] == [r["lambd"] for r in record["rows"]]
    assert set(near["lambdas"]) <= set(load_sweep().values)


def test_without_a_record_of_neighbours_there_are_none(tmp_path):
    folder = shutil.copytree(load_sweep().path, tmp_path / "sweep")
    (folder / "neighbours.json").unlink()
    assert unpack(module.pack(load_sweep(folder)))[0]["near"] is None


def test_the_picture_is_an_ordinary_png_with_the_data_inside(explorer):
    picture = Image.open(io.BytesIO(explorer.png))
    picture.load()  # checks the checksums
    assert picture.text["Description"] == explorer.spec["alt"]
    at, found = 8, {}
    while at < len(explorer.png):
        length, name = struct.unpack(">I4s", explorer.png[at : at + 8])
        found[name] = explorer.png[at + 8 : at + 8 + length]
        crc = struct.unpack(">I", explorer.png[at + 8 + length : at + 12 + length])[0]
        assert crc == zlib.crc32(name + found[name])
        at += 12 + length
    assert found[b"beLx"] == explorer.data and list(found)[-1] == b"IEND"


def test_colours_are_those_of_the_figures():
    table = np.frombuffer(bytes.fromhex(colour_table()), dtype=np.uint8).reshape(255, 3)
    scale = mpl.cm.ScalarMappable(
        mpl.colors.Normalize(-1, 1), mpl.colormaps["RdBu_r"].resampled(81)
    )
    expected = scale.to_rgba((np.arange(255) - 127) / 127, bytes=True)[:, :3]
    np.testing.assert_array_equal(table, expected)
    assert min(table[127]) > 240  # zero is almost white


def test_the_strip_shows_five_recorded_matrices_and_the_curves(explorer):
    fig = explorer.figure()
    heatmaps = [ax for ax in fig.axes if ax.images and ax.get_title()]
    assert [ax.get_title() for ax in heatmaps][0] == "λ = 0.00001"
    assert [ax.get_title() for ax in heatmaps][-1] == "λ = 1"
    for ax, row in zip(heatmaps, (0, 10, 20, 30, 40), strict=True):
        np.testing.assert_allclose(ax.images[0].get_array(), explorer.sweep.matrix(row))
    for i, factor, names in (
        (-2, 100, ("knn_z", "knn")),
        (-1, 1, ("effective_rank_z", "effective_rank_h")),
    ):
        lines = {line.get_label(): line.get_ydata() for line in fig.axes[i].lines}
        for label, name in zip(("embeddings z", "features h"), names, strict=True):
            np.testing.assert_allclose(lines[label], factor * explorer.sweep.column(name))
    assert "pixels" in {text.get_text() for text in fig.findobj(mpl.text.Text)}


class Tags(HTMLParser):
    """All tags of a page with their attributes."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def test_the_page_needs_nothing_else(explorer, tmp_path):
    page = explorer.save(tmp_path / "page.html").read_text(encoding="utf-8")
    tags = Tags(page).found
    sources = [v for _, attributes in tags for k, v in attributes.items() if k in ("src", "href")]
    assert len(sources) == 1 and sources[0].startswith("data:image/png;base64,")
    assert base64.b64decode(sources[0].split(",")[1]) == explorer.png
    outside = page.replace("http://www.w3.org/2000/svg", "")
    outside = outside.replace("url(${near.sprite})", "")  # which travels with the data
    assert "http" not in outside and "@import" not in outside and "url(" not in outside
    assert [a["alt"] for t, a in tags if t == "img"] == [explorer.spec["alt"]]
    assert page.count("</script>") == 1
    assert explorer.save(tmp_path / "page.png").read_bytes() == explorer.png


def test_nothing_measured_stands_in_what_nbval_compares(explorer, monkeypatch):
    """Other accuracies and matrices of the same λ give the same HTML and text."""
    sweep = load_sweep()
    for row in sweep.rows:
        row["knn"], row["effective_rank_z"] = 0.5, 7.0
    sweep.bytes = [254 - c for c in sweep.bytes]
    other = LambdaExplorer(sweep)
    assert other.data != explorer.data
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **_: shown.append(data))
    explorer._ipython_display_()
    other._ipython_display_()
    for one, two in zip(shown[:3], shown[3:], strict=True):
        assert one["text/plain"] == two["text/plain"] and "0x" not in one["text/plain"]
        assert one.get("text/html") == two.get("text/html")
    assert [sorted(data)[0] for data in shown[:3]] == [
        "image/png",
        "text/html",
        "application/vnd.jupyter.widget-view+json",
    ]


@pytest.mark.parametrize("change", [{"key": "lr"}, {"value": 0.0}, {"value": 1.0}])
def test_another_sweep_is_refused(change):
    sweep = load_sweep()
    sweep.key = change.get("key", "lambd")
    sweep.rows[0][sweep.key] = change.get("value", 1e-5)
    if sweep.key == "lr":
        for row in sweep.rows:
            row["lr"] = row["lambd"]
    with pytest.raises(ValueError, match="needs a sweep over lambd, one training a value, above 0"):
        LambdaExplorer(sweep)


def test_lambda_can_be_read_and_set(explorer):
    matrices = [explorer.sweep.matrix(i).astype(float) for i in range(41)]
    far = [np.linalg.norm(c - np.eye(64)) if c.trace() > 32 else np.inf for c in matrices]
    assert explorer.index == np.argmin(far)  # it begins at the C that is nearest to the identity
    explorer.lambd = 1e-5
    assert explorer.index == 0 and explorer.lambd == 1e-5
    explorer.index = 40
    assert explorer.lambd == 1


@pytest.mark.parametrize(
    "value, text", [(1e-5, "0.00001"), (0.001778, "0.00178"), (1, "1"), (0.5, "0.5")]
)
def test_lambdas_are_written_without_exponents(value, text):
    assert module.plain(value) == text
