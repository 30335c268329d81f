"""Ten numbers of a card, against pictures of which one knows them, and against what was drawn."""

import pytest
import torch

from barlow_edu.data import load_images
from barlow_edu.teaching.cards import MEASURES, factor, measure


def card(top, left, height, width, colour=(0.9, 0.3, 0.3), ground=(0.1, 0.1, 0.3)):
    """One card with a box of one colour on a ground of another, (1, 3, 32, 32)."""
    x = torch.tensor(ground)[:, None, None].repeat(1, 32, 32)
    x[:, top : top + height, left : left + width] = torch.tensor(colour)[:, None, None]
    return x[None]


def test_a_box_has_the_place_the_shape_and_the_colours_that_it_has():
    values = dict(zip(MEASURES, measure(card(2, 18, 16, 8))[0].tolist(), strict=True))
    assert values["height"] == pytest.approx(9.5 / 31, abs=1e-3)
    assert values["left or\nright"] == pytest.approx(21.5 / 31, abs=1e-3)
    assert values["size"] == pytest.approx(16 * 8 / 32**2, abs=2e-3)
    assert values["shape"] == pytest.approx(
        torch.tensor((16**2 - 1) / (8**2 - 1)).log().item(), abs=1e-2
    )
    assert values["garment\nred"] == pytest.approx(0.6, abs=1e-2)
    assert values["backgr.\nblue"] == pytest.approx(0.2, abs=1e-2)
    assert values["backgr.\nlight"] == pytest.approx(0.5 / 3, abs=1e-2)


def test_measures_of_real_cards_follow_what_was_drawn():
    images = load_images("garments", limit=300)
    seen, ground = measure(images.images / 255), factor(images, "background")
    red = torch.corrcoef(torch.stack([seen[:, 1].double(), ground[:, 0] - ground[:, 1]]))[0, 1]
    size = torch.corrcoef(torch.stack([seen[:, 8].double(), factor(images, "side")[:, 0]]))[0, 1]
    assert red > 0.95 and size > 0.3
    assert factor(images, "tint").mean(1).abs().max() < 1e-9
