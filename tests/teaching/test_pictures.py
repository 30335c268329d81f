"""Neighbours, maps and profiles: what is drawn where, and what is refused."""

import math

import numpy as np
import pytest
import torch

from barlow_edu.teaching.figures import pictures, plots


def texts(fig):
    return [t.get_text() for ax in fig.axes for t in ax.texts]


def row_of(n=2, k=3, size=8):
    images = torch.arange(n * (k + 1)).float().view(n, k + 1, 1, 1, 1) / (n * (k + 1))
    return images[:, 0].expand(n, 3, size, size), images[:, 1:].expand(n, k, 3, size, size)


def test_plots_offers_them():
    for name in ("clouds", "neighbours", "scatter", "profile", "table"):
        assert getattr(plots, name) is getattr(pictures, name) and name in plots.__all__


def test_neighbours_stand_beside_their_query_in_order():
    queries, found = row_of()
    fig = plots.neighbours(queries, found)
    canvas = fig.axes[0].images[0].get_array()
    for i in range(2):
        line = canvas[4 + i * (8 + 4) - 4 + 4]  # through the pictures of this row
        values = [float(v) for v in line[::10, 0]]
        expected = [queries[i, 0, 0, 0], 1.0, *found[i, :, 0, 0, 0]]
        assert values == pytest.approx([float(e) for e in expected], abs=1e-6)


def test_wrong_kinds_are_marked_by_more_than_colour():
    queries, found = row_of()
    names = [["boot", "bag", "boot"], ["bag", "bag", "bag"]]
    fig = plots.neighbours(queries, found, ["boot", "bag"], names)
    assert texts(fig).count("✗ bag") == 1
    assert len(fig.axes[0].patches) == 1
    assert fig.axes[0].patches[0].get_linestyle() == "--"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda q, f: (q[:1], f), "1 queries and neighbours of 2"),
        (lambda q, f: (q, f, ["a", "b"]), "or for neither"),
        (lambda q, f: (q, f, ["a"], [["b"] * 3] * 2), "Names for 2 queries with 3"),
        (lambda q, f: (q, f, ["a", "b"], [["b"] * 3, ["b"]]), "Names for 2 queries with 3"),
        (lambda q, f: (q * math.nan, f), "NaN"),
    ],
)
def test_neighbours_that_do_not_fit_are_told(change, message):
    with pytest.raises(ValueError, match=message):
        plots.neighbours(*change(*row_of()))


def test_every_class_has_a_look_and_its_name_above():
    points, labels = np.random.default_rng(0).normal(size=(200, 2)), np.arange(200) % 10
    names = [f"kind {k}" for k in range(10)]
    ax = plots.scatter(points, labels, names, "rank", "accuracy").axes[0]
    looks = {
        (tuple(c.get_facecolor()[0]), c.get_paths()[0].vertices.tobytes()) for c in ax.collections
    }
    assert len(looks) == 10
    assert [t.get_text() for t in ax.get_legend().get_texts()] == names
    for k, drawn in enumerate(ax.collections):
        assert np.allclose(drawn.get_offsets(), points[labels == k])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("rank", "accuracy")


@pytest.mark.parametrize(
    ("points", "labels", "message"),
    [
        (torch.zeros(4, 3), torch.zeros(4), r"must be \(N, 2\), .*got \(4, 3\)"),
        (torch.zeros(4, 2), torch.zeros(3), r"got \(4, 2\), and 3 labels"),
        (torch.zeros(4, 2), torch.full((4,), 2), "below 2, got .* from 2 to 2"),
        (torch.zeros(4, 2), torch.full((4,), -1), "from -1 to -1"),
    ],
)
def test_a_map_that_does_not_fit_is_told(points, labels, message):
    with pytest.raises(ValueError, match=message):
        plots.scatter(points, labels, ["a", "b"], "x", "y")


def test_a_profile_has_a_line_a_value_and_a_place_a_stage():
    table = {"stem": {"tint": 0.5, "class": 0.1}, "h": {"tint": -7.0, "class": 0.4}}
    ax = plots.profile(table).axes[0]
    lines = {line.get_label(): line.get_ydata().tolist() for line in ax.lines}
    assert lines == {"tint": [0.5, -0.1], "class": [0.1, 0.4]}
    assert [t.get_text() for t in ax.get_xticklabels()] == ["stem", "h"]
    assert {"tint", "class"} <= set(texts(ax.figure))


def test_stages_with_other_values_are_told():
    with pytest.raises(ValueError, match="Every stage needs the values"):
        plots.profile({"a": {"x": 1.0}, "b": {"y": 1.0}})


def test_a_table_writes_every_number_where_its_names_are():
    ax = plots.table([[0.5, -0.25], [1, 0]], ["a", "b"], ["x", "y"], "T", low=-1.0).axes[0]
    written = {
        (round(t.get_position()[0]), round(t.get_position()[1])): t.get_text() for t in ax.texts
    }
    assert written == {(0, 0): "0.50", (1, 0): "−0.25", (0, 1): "1.00", (1, 1): "0.00"}
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b"]
    with pytest.raises(ValueError, match=r"3 columns are named, values are \(2, 2\)"):
        plots.table([[0, 1], [1, 0]], ["a", "b"], ["x", "y", "z"])


def test_clouds_stand_on_one_scale_beside_their_matrix():
    points = np.array([[0.0, 1.0], [2.0, -1.0], [9.0, 0.0]])
    fig = plots.clouds({"one": points, "two": -points}, np.eye(2))
    one, two, matrix = fig.axes
    assert one.lines[0].get_xydata().tolist() == points.tolist()
    assert two.lines[0].get_xydata().tolist() == (-points).tolist()
    assert [ax.get_title() for ax in fig.axes] == ["one", "two", "C"]
    assert one.get_xlim() == two.get_xlim() == two.get_ylim() == (-4, 4)
    assert matrix.images[0].get_array().tolist() == np.eye(2).tolist()
    with pytest.raises(ValueError, match=r"\(N, 2\).*\(3, 3\)"):
        plots.clouds({"one": np.eye(3)})
