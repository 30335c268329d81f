"""The drawing of the machine: what is lit is in colour, the rest is faint, and all of it is there."""

import numpy as np
import pytest

from barlow_edu.teaching.figures import plots
from barlow_edu.teaching.figures.machine import PARTS


def opacity(fig):
    """part -> the opacities of what is drawn of it."""
    drawn = [*fig.axes[0].images, *fig.axes[0].patches]
    return {part: {x.get_alpha() for x in drawn if x.get_gid() == part} for part in PARTS}


@pytest.mark.parametrize("lit", ["C", ("views", "encoder"), tuple(PARTS)])
def test_only_what_is_lit_is_in_colour(lit):
    fig = plots.machine(lit=lit)
    strong = {part for part, alphas in opacity(fig).items() if alphas == {1.0}}
    assert strong == ({lit} if isinstance(lit, str) else set(lit))
    assert all(len(alphas) == 1 for alphas in opacity(fig).values())
    names = {t.get_gid().removeprefix("name of "): t for t in fig.axes[0].texts if t.get_gid()}
    assert set(names) == set(PARTS)
    bold = {part for part, text in names.items() if text.get_weight() == "bold"}
    assert bold == (strong if len(strong) < len(PARTS) else set())


def test_the_views_show_one_card_twice_and_the_goal_is_the_identity():
    pictures = [(x.get_gid(), np.asarray(x.get_array())) for x in plots.machine().axes[0].images]
    card, *views = [x for part, x in pictures if part in ("photograph", "views")]
    assert card.shape == views[0].shape == views[1].shape == (32, 32, 3)
    assert np.abs(views[0] - views[1]).mean() > 0.05
    np.testing.assert_array_equal(dict(pictures)["I"], np.eye(5))


def test_names_do_not_touch_and_the_arrows_run_to_the_right():
    fig = plots.machine(lit=tuple(PARTS)[:-1], title="All but the goal")
    fig.canvas.draw()
    names = [t.get_window_extent() for t in fig.axes[0].texts if t.get_gid()]
    assert all(a.x1 < b.x0 for a, b in zip(names, names[1:], strict=False))
    arrows = [t for t in fig.axes[0].texts if hasattr(t, "arrow_patch") and t.arrow_patch]
    assert len(arrows) == 13 and all(t.xy[0] > t.xyann[0] for t in arrows)


def test_an_unknown_part_is_named_with_the_parts_there_are():
    with pytest.raises(ValueError, match=r"lit names \['decoder'\], the parts are photograph, "):
        plots.machine(lit=("encoder", "decoder"))
