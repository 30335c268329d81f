"""Recipes: the paper's values, what is refused, and the reference pipeline."""

import pytest
import torch
from photographs import photographs
from PIL import ImageFilter
from torchvision.transforms import functional as pil

from barlow_edu.recipe import PRESETS, ViewRecipe, reference_transforms


def test_imagenet_is_the_papers_asymmetric_recipe():
    r = PRESETS["imagenet"]
    assert (r.blur, r.solarise) == ((1.0, 0.1), (0.0, 0.2))
    assert (r.scale, r.flip, r.jitter, r.grey) == ((0.08, 1.0), 0.5, 0.8, 0.2)
    assert (r.brightness, r.contrast, r.saturation, r.hue) == (0.4, 0.4, 0.2, 0.1)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("flip", 50, "flip is a probability, between 0 and 1, got 50"),
        ("blur", (1.0, -0.1), "blur is a probability, between 0 and 1, got -0.1"),
        ("scale", (1.0, 0.3), "scale .* the smaller first, got 1.0 and 0.3"),
        ("scale", ((0.4, 1.0), (0.0, 0.4)), "scale .* the smaller first, got 0.0 and 0.4"),
        ("ratio", (0, 1), "ratio must be two numbers above 0"),
        ("blur_sigma", (0.0, 2.0), "blur_sigma must be two numbers above 0"),
        ("contrast", -0.4, "contrast must be 0 or more, got -0.4"),
        ("std", (0.2, 0.0, 0.2), "std must be above 0"),
        ("interpolation", "nearest", "bilinear or bicubic, got 'nearest'"),
    ],
)
def test_a_recipe_that_cannot_be_is_named(field, value, message):
    """Some of these would give views of NaN, others quietly another recipe than the one meant."""
    with pytest.raises(ValueError, match=message):
        ViewRecipe(**{field: value})


def test_the_reference_pipeline_has_the_operations_of_each_view_and_normalises():
    """Where every probability is 0 or 1 nothing is left to chance."""
    still = {"scale": (1, 1), "ratio": (1, 1), "jitter": 0, "grey": 0, "blur_sigma": (2, 2)}
    still |= {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    picture = pil.to_pil_image(photographs(2)[1])

    def views(blur, solarise):
        recipe = ViewRecipe(**still, flip=1, blur=(blur, 0), solarise=(0, solarise))
        return [view(picture) * 0.25 + 0.5 for view in reference_transforms(recipe, 32)]

    x = pil.to_tensor(pil.hflip(picture))
    sharp, bright = x.diff(dim=2).abs().mean(), torch.where(x >= 128 / 255, 1 - x, x)
    plain, blurred, solarised = views(0, 0), views(1, 0), views(0, 1)
    for view, expected in [
        (plain[0], x),
        (plain[1], x),
        (blurred[1], x),
        (solarised[0], x),
        (solarised[1], bright),
    ]:
        torch.testing.assert_close(view, expected, rtol=0, atol=1e-5)
    assert blurred[0].diff(dim=2).abs().mean() < 0.5 * sharp


def test_each_view_of_the_reference_pipeline_has_its_own_range_of_crops():
    scales = (0.4, 1.0), (0.1, 0.4)
    for given, expected in [(scales, scales), (scales[0], scales[:1] * 2)]:
        views = reference_transforms(ViewRecipe(scale=given), 8)
        assert tuple(view.transforms[0].scale for view in views) == expected


def test_the_reference_blur_draws_its_width_from_the_whole_range(monkeypatch):
    widths = []
    monkeypatch.setattr(
        ImageFilter, "GaussianBlur", lambda width: widths.append(width) or ImageFilter.BoxBlur(0)
    )
    view, _ = reference_transforms(ViewRecipe(blur=(1, 0), blur_sigma=(0.5, 1.5)), 8)
    picture = pil.to_pil_image(photographs(1)[0])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(100):
            view(picture)
    assert 0.5 <= min(widths) < 0.55 and 1.45 < max(widths) <= 1.5
