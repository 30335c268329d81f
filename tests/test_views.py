"""The twin views against torchvision: whole pipelines, and what is drawn."""

import math
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from photographs import photographs, seeded
from scipy import stats
from torchvision import transforms
from torchvision.transforms.v2 import functional as tv

from barlow_edu.numerics import pixels
from barlow_edu.numerics.pixels import JITTER_ORDERS, ViewParameters
from barlow_edu.recipe import PRESETS, ViewRecipe
from barlow_edu.views import TwinViews

CLOSE = {"rtol": 0, "atol": 1e-5}
MODES = {"bilinear": tv.InterpolationMode.BILINEAR, "bicubic": tv.InterpolationMode.BICUBIC}


def rows(drawn, keep):
    """The parameters of some images."""
    return ViewParameters(**{f.name: getattr(drawn, f.name)[keep] for f in fields(drawn)})


# --- the whole pipeline, image by image ---------------------------------------------------------


def torchvision_view(image, p, recipe, size):
    """One view of one uint8 image by torchvision's operations, with the parameters in row 0 of p."""
    p = {f.name: getattr(p, f.name)[0].tolist() for f in fields(p)}
    x = tv.to_dtype(image, torch.float32, scale=True)
    x = tv.resized_crop(x, *p["box"], [size, size], MODES[recipe.interpolation], antialias=True)
    x = x.clamp(0, 1)
    if p["flip"]:
        x = tv.horizontal_flip(x)
    if p["jitter"]:
        names = "brightness", "contrast", "saturation", "hue"
        for k in JITTER_ORDERS[p["order"]]:
            x = getattr(tv, f"adjust_{names[k]}")(x, p[names[k]])
    if p["grey"]:
        x = tv.rgb_to_grayscale(x, num_output_channels=len(x))
    if p["blur"]:
        x = tv.gaussian_blur(x, [2 * pixels.blur_radius(size) + 1] * 2, [p["sigma"]] * 2)
    if p["solarise"]:
        x = tv.solarize(x, recipe.solarise_threshold)
    if len(x) == 1:
        return (x - sum(recipe.mean) / 3) / (sum(recipe.std) / 3)
    return tv.normalize(x, recipe.mean, recipe.std)


LOCAL = ViewRecipe(scale=((0.4, 1.0), (0.05, 0.4)))  # a global and a local view


@pytest.mark.parametrize("preset", [*PRESETS, LOCAL])
@pytest.mark.parametrize(
    "height, width, size, channels", [(32, 32, 32, 3), (50, 75, 40, 3), (28, 28, 28, 1)]
)
def test_a_pair_is_torchvisions_image_by_image(preset, height, width, size, channels):
    n = 96
    images = photographs(n, height, width, channels, seed=1)
    twin = TwinViews(preset, size)
    got = twin(images, seeded(7))
    g = seeded(7)
    drawn = [twin.draw(n, height, width, which, g) for which in (0, 1)]
    for out, p in zip(got, drawn, strict=True):
        expected = [
            torchvision_view(image, rows(p, [i]), twin.recipe, size)
            for i, image in enumerate(images)
        ]
        difference = (out - torch.stack(expected)).abs()
        assert difference.quantile(0.99) < 1e-5
        # A value within rounding of the threshold may be solarised by one and not by the other.
        assert (difference > 1e-4).float().mean() < 1e-4


def test_every_order_of_the_jitter_is_torchvisions():
    twin = TwinViews("cifar", jitter=1.0, grey=0.0, solarise=(0.0, 0.0))
    images = photographs(48)
    drawn = replace(twin.draw(48, 32, 32, generator=seeded()), order=torch.arange(48) % 24)
    expected = [
        torchvision_view(x, rows(drawn, [i]), twin.recipe, 32) for i, x in enumerate(images)
    ]
    got = twin.apply(images, drawn)
    torch.testing.assert_close(got, torch.stack(expected), rtol=0, atol=1e-4)


# --- what is drawn ------------------------------------------------------------------------------

DRAWS = 3000


def same_distribution(ours, theirs):
    """Two-sample Kolmogorov-Smirnov. With these seeds it either passes or not: no flakiness."""
    one, other = torch.as_tensor(ours).numpy(), torch.as_tensor(theirs).numpy()
    return stats.ks_2samp(one, other, method="asymp").pvalue > 1e-3


@pytest.mark.parametrize("height, width", [(32, 32), (100, 60), (40, 160)])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.3, 1.0)])
def test_crop_boxes_are_distributed_as_torchvisions(height, width, scale):
    recipe = ViewRecipe(scale=scale)
    twin = TwinViews(recipe)
    ours = twin.draw(DRAWS, height, width, generator=seeded(1)).box.float()
    image = torch.empty(3, height, width)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        params = transforms.RandomResizedCrop.get_params
        theirs = [params(image, list(scale), list(recipe.ratio)) for _ in range(DRAWS)]
    theirs = torch.tensor(theirs).float()
    for column in range(4):
        assert same_distribution(ours[:, column], theirs[:, column])
    for a, b in [(2, 3), (0, 2), (1, 3)]:  # area, and how far down and right boxes of a size go
        assert same_distribution(ours[:, a] * ours[:, b], theirs[:, a] * theirs[:, b])
    top, left, h, w = ours.unbind(1)
    assert min(top.min(), left.min()) >= 0 and min(h.min(), w.min()) >= 1
    assert (top + h).max() <= height and (left + w).max() <= width


def test_each_view_is_cropped_from_its_own_range_as_torchvision_does():
    g = seeded(1)
    boxes = [TwinViews(LOCAL).draw(DRAWS, 100, 60, which, g).box.float() for which in (0, 1)]
    for ours, scale in zip(boxes, LOCAL.scale, strict=True):
        with torch.random.fork_rng():
            torch.manual_seed(2)
            get_params = transforms.RandomResizedCrop.get_params
            theirs = [get_params(torch.empty(3, 100, 60), scale, LOCAL.ratio) for _ in range(DRAWS)]
        theirs = torch.tensor(theirs).float()
        assert same_distribution(ours[:, 2:].prod(1), theirs[:, 2:].prod(1))
    assert boxes[1][:, 2:].prod(1).max() <= 0.42 * 6000 < boxes[0][:, 2:].prod(1).mean()


@pytest.mark.parametrize("height, width", [(4, 401), (401, 4), (5, 400), (400, 7), (1, 50)])
def test_elongated_images_fall_back_to_torchvisions_central_crop(height, width):
    drawn = TwinViews(scale=(0.9, 1.0)).draw(5, height, width, generator=seeded())
    image = torch.empty(3, height, width)
    expected = transforms.RandomResizedCrop.get_params(image, [0.9, 1.0], [3 / 4, 4 / 3])
    assert drawn.box.tolist() == [list(expected)] * 5


def test_a_square_that_never_fits_falls_back_to_the_whole_image():
    drawn = TwinViews(scale=(1.2, 1.3)).draw(5, 30, 30, generator=seeded())
    assert drawn.box.tolist() == [[0, 0, 30, 30]] * 5


def test_jitter_is_distributed_as_torchvisions():
    r = ViewRecipe(brightness=0.4, contrast=1.3, saturation=0.2, hue=0.1)
    ours = TwinViews(r).draw(DRAWS, 32, 32, generator=seeded(3))
    jitter = transforms.ColorJitter(r.brightness, r.contrast, r.saturation, r.hue)
    ranges = jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue
    with torch.random.fork_rng():
        torch.manual_seed(4)
        theirs = [jitter.get_params(*ranges) for _ in range(DRAWS)]
    orders, *values = zip(*theirs, strict=True)
    names = "brightness", "contrast", "saturation", "hue"
    for name, value, (low, high) in zip(names, values, ranges, strict=True):
        drawn = getattr(ours, name)
        assert same_distribution(drawn, value)
        assert low <= drawn.min() and drawn.max() <= high
    counts = torch.zeros(2, 24)
    for order in orders:
        counts[1, JITTER_ORDERS.index(tuple(order.tolist()))] += 1
    counts[0] = torch.bincount(ours.order, minlength=24)
    assert stats.chi2_contingency(counts.numpy()).pvalue > 1e-3


def share_is(mask, p):
    """The share of True is p, within four standard deviations; exactly, for 0 and 1."""
    return abs(mask.float().mean().item() - p) <= 4 * math.sqrt(p * (1 - p) / len(mask))


@pytest.mark.parametrize("preset", PRESETS)
def test_each_operation_has_its_probability_in_each_view(preset):
    twin = TwinViews(preset)
    r, g = twin.recipe, seeded(5)
    for which in (0, 1):
        drawn = twin.draw(20_000, 32, 32, which, g)
        assert share_is(drawn.flip, r.flip)
        assert share_is(drawn.jitter, r.jitter)
        assert share_is(drawn.grey, r.grey)
        assert share_is(drawn.blur, r.blur[which])
        assert share_is(drawn.solarise, r.solarise[which])
        low, high = r.blur_sigma
        assert stats.kstest(drawn.sigma.numpy(), "uniform", (low, high - low)).pvalue > 1e-3


def test_draws_of_different_parameters_are_independent():
    drawn = TwinViews("imagenet").draw(20_000, 32, 32, 1, seeded(6))
    values = [getattr(drawn, f.name).double() for f in fields(drawn) if f.name != "box"]
    values += list(drawn.box[:, 2:3].double().T)
    c = torch.corrcoef(torch.stack(values)).fill_diagonal_(0)
    assert c.abs().max() < 4.5 / math.sqrt(20_000)


# --- reproducible, and alone --------------------------------------------------------------------


def test_the_same_seed_gives_the_same_views():
    twin, images = TwinViews("imagenet"), photographs(16)
    one, again, other = (twin(images, seeded(s)) for s in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not torch.equal(*one)  # two views, not one twice


def test_a_generator_moves_on():
    twin, images, g = TwinViews("cifar"), photographs(16), seeded()
    assert not torch.equal(twin(images, g)[0], twin(images, g)[0])


def test_without_a_generator_the_global_seed_counts():
    twin, images = TwinViews("cifar"), photographs(4)
    with torch.random.fork_rng():
        torch.manual_seed(11)
        one = twin(images)
        torch.manual_seed(11)
        again = twin(images)
    assert torch.equal(torch.stack(one), torch.stack(again))


def test_a_generator_leaves_the_global_one_alone_and_images_unchanged():
    images = photographs(16)
    before, state = images.clone(), torch.get_rng_state()
    TwinViews("imagenet")(images, seeded())
    TwinViews("imagenet").normalize(images)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, before)


# --- properties ---------------------------------------------------------------------------------

quick = settings(max_examples=40, deadline=None)
shapes = st.tuples(
    st.integers(1, 9), st.sampled_from([1, 3]), st.integers(4, 40), st.integers(4, 40)
)


@quick
@given(shapes, st.sampled_from(sorted(PRESETS)), st.integers(4, 40), st.integers(0, 999))
def test_views_have_the_right_shape_and_range(shape, preset, size, seed):
    n, channels, height, width = shape
    twin = TwinViews(preset, size)
    for view in twin(photographs(n, height, width, channels, seed), seeded(seed)):
        assert view.shape == (n, channels, size, size)
        assert view.dtype == torch.float32 and view.is_contiguous()
        assert torch.isfinite(view).all()
        mean, std = twin.recipe.mean, twin.recipe.std
        raw = twin.denormalize(view)
        assert raw.min() >= 0 and raw.max() <= 1
        if channels == 3:  # nothing was left to clip: the view itself was within [0, 1]
            unclipped = view * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1)
            torch.testing.assert_close(raw, unclipped, **CLOSE)


@quick
@given(shapes, st.sampled_from(sorted(PRESETS)), st.integers(0, 999))
def test_a_recipe_that_does_nothing_gives_back_the_image(shape, preset, seed):
    n, channels, side, _ = shape
    still = {"scale": (1, 1), "ratio": (1, 1), "flip": 0, "jitter": 0, "grey": 0}
    still |= {"blur": (0, 0), "solarise": (0, 0)}
    for interpolation in MODES:
        twin = TwinViews(preset, side, **still, interpolation=interpolation)
        images = photographs(n, side, side, channels, seed)
        for view in twin(images, seeded(seed)):
            assert torch.equal(view, twin.normalize(images))
            back = twin.denormalize(view).mul(255).round().to(torch.uint8)
            assert torch.equal(back, images)


@quick
@given(st.integers(2, 12), st.integers(0, 999), st.sampled_from(sorted(PRESETS)))
def test_an_image_does_not_notice_its_neighbours(n, seed, preset):
    twin = TwinViews(preset)
    images, others = photographs(n, seed=seed), photographs(n, seed=seed + 1)
    keep = seed % n
    others[keep] = images[keep]
    one, two = (twin(batch, seeded(seed)) for batch in (images, others))
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a[keep], b[keep])


@pytest.mark.parametrize("preset", PRESETS)
def test_an_image_alone_gets_the_same_view_as_in_a_batch(preset):
    twin, images = TwinViews(preset), photographs(12)
    drawn = twin.draw(12, 32, 32, 1, seeded(8))
    whole = twin.apply(images, drawn)
    for i in range(12):
        alone = twin.apply(images[i : i + 1], rows(drawn, [i]))
        torch.testing.assert_close(alone[0], whole[i], **CLOSE)


def test_an_empty_batch_gives_empty_views():
    for view in TwinViews("imagenet")(torch.empty(0, 3, 32, 32, dtype=torch.uint8), seeded()):
        assert view.shape == (0, 3, 32, 32)


def test_normalize_is_torchvisions():
    images = photographs()
    for name, r in PRESETS.items():
        expected = tv.normalize(tv.to_dtype(images, torch.float32, scale=True), r.mean, r.std)
        torch.testing.assert_close(TwinViews(name).normalize(images), expected, **CLOSE)


# --- grey images --------------------------------------------------------------------------------


def test_grey_images_get_brightness_and_contrast_but_no_colour():
    twin = TwinViews("cifar", brightness=0.0, contrast=0.0, hue=0.5, saturation=0.9, jitter=1.0)
    still = TwinViews("cifar", jitter=0.0)
    images = photographs(8, channels=1)
    for a, b in zip(twin(images, seeded()), still(images, seeded()), strict=True):
        torch.testing.assert_close(a, b, **CLOSE)
    bright = TwinViews("cifar", jitter=1.0)(images, seeded())
    for a, b in zip(bright, still(images, seeded()), strict=True):
        assert ((a - b).abs().amax((1, 2, 3)) > 1e-2)[[0, 1, 2]].all()


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "images, named",
    [
        (torch.zeros(3, 32, 32, dtype=torch.uint8), r"\(3, 32, 32\)"),
        (torch.zeros(2, 4, 8, 8, dtype=torch.uint8), r"\(2, 4, 8, 8\)"),
        (torch.zeros(2, 32, 32, 3, dtype=torch.uint8), r"\(2, 32, 32, 3\)"),
        (torch.zeros(2, 3, 8, 8), r"uint8 .*float32.* \* 255"),
    ],
)
def test_bad_images_are_named(images, named):
    twin = TwinViews()
    for function in (twin, twin.normalize):
        with pytest.raises(ValueError, match=named):
            function(images)


def test_bad_options_are_named():
    with pytest.raises(ValueError, match="'imagnet'.* imagenet, "):
        TwinViews("imagnet")
    with pytest.raises(ValueError, match="blurr.* Known: .*solarise"):
        TwinViews("cifar", blurr=0.5)
    for size in (0, 32.0, True):
        with pytest.raises(ValueError, match=f"size .* got {size}"):
            TwinViews("cifar", size=size)


def test_an_override_changes_one_field_only():
    twin = TwinViews("imagenet", hue=0.3)
    assert twin.recipe == replace(PRESETS["imagenet"], hue=0.3)
    assert TwinViews(ViewRecipe(grey=0.9)).recipe.grey == 0.9
