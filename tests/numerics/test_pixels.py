"""Each operation on pixels against torchvision's, on the same parameters."""

import pytest
import torch
from photographs import floats, photographs, seeded
from torchvision.transforms.v2 import functional as tv

from barlow_edu.numerics import pixels
from barlow_edu.views import TwinViews

CLOSE = {"rtol": 0, "atol": 1e-5}
MODES = {"bilinear": tv.InterpolationMode.BILINEAR, "bicubic": tv.InterpolationMode.BICUBIC}


@pytest.mark.parametrize("interpolation", MODES)
@pytest.mark.parametrize(
    "height, width, size", [(32, 32, 32), (64, 64, 32), (20, 20, 32), (48, 70, 24), (200, 90, 16)]
)
def test_crop_is_resized_crop(height, width, size, interpolation):
    images = photographs(8, height, width)
    box = TwinViews(size=size, scale=(0.02, 1)).draw(8, height, width, generator=seeded()).box
    box[0] = torch.tensor([0, 0, height, width])
    box[1] = torch.tensor([height - 1, width - 1, 1, 1])  # one pixel, in a corner
    flip = torch.arange(8) % 3 == 0
    got = pixels.crop(images, box, flip, size, interpolation)
    for image, b, f, out in zip(images / 255, box.tolist(), flip, got, strict=True):
        expected = tv.resized_crop(image, *b, [size, size], MODES[interpolation], antialias=True)
        expected = expected.clamp(0, 1)
        torch.testing.assert_close(out, tv.horizontal_flip(expected) if f else expected, **CLOSE)


def test_crop_is_what_pillow_makes_of_8_bit_images():
    """Within one grey level: Pillow rounds after each of its two passes."""
    images = photographs(4, 64, 64) // 2 + 64  # bicubic overshoot stays in range: no clipping
    box = torch.tensor([[3, 5, 40, 50], [0, 0, 64, 64], [10, 30, 20, 16], [7, 0, 57, 33]])
    for mode, resample in MODES.items():
        got = pixels.crop(images, box, torch.zeros(4, dtype=torch.bool), 32, mode)
        for image, b, out in zip(images, box.tolist(), got, strict=True):
            picture = tv.resized_crop(tv.to_pil_image(image), *b, [32, 32], resample)
            expected = tv.to_dtype(tv.pil_to_tensor(picture), torch.float32, scale=True)
            torch.testing.assert_close(out, expected, rtol=0, atol=1.5 / 255)


def test_crop_makes_several_views_of_each_image():
    images = photographs(3)
    drawn = [TwinViews().draw(3, 32, 32, generator=seeded(s)) for s in (1, 2)]
    box, flip = (torch.cat([getattr(d, k) for d in drawn]) for k in ("box", "flip"))
    both = pixels.crop(images, box, flip, 32)
    for part, d in zip(both.chunk(2), drawn, strict=True):
        torch.testing.assert_close(part, pixels.crop(images, d.box, d.flip, 32), rtol=0, atol=1e-6)


FACTORS = torch.tensor([0.0, 0.3, 0.6, 0.999, 1.0, 1.4, 1.9, 2.5])
SHIFTS = torch.tensor([-0.5, -0.3, -0.1, 0.0, 0.05, 0.2, 0.4, 0.5])


@pytest.mark.parametrize(
    "ours, theirs, values",
    [
        (pixels.adjust_brightness, tv.adjust_brightness, FACTORS),
        (pixels.adjust_contrast, tv.adjust_contrast, FACTORS),
        (pixels.adjust_saturation, tv.adjust_saturation, FACTORS),
        (pixels.adjust_hue, tv.adjust_hue, SHIFTS),
    ],
)
@pytest.mark.parametrize("channels", [3, 1])
def test_colour_operation_is_torchvisions(ours, theirs, values, channels):
    x = floats(64, channels=channels)
    values = values.repeat(8)
    expected = torch.stack([theirs(i, v.item()) for i, v in zip(x, values, strict=True)])
    torch.testing.assert_close(ours(x.clone(), values), expected, **CLOSE)


@pytest.mark.parametrize("shift", [0.0, 1 / 12, 1 / 6, 1 / 3, -0.5])
def test_hue_at_the_corners_of_the_colour_cube(shift):
    """Ties between channels are where a formula for the hue goes wrong."""
    levels = torch.tensor([0.0, 0.25, 0.5, 1.0])
    x = torch.cartesian_prod(levels, levels, levels).T.reshape(1, 3, 8, 8).contiguous()
    got = pixels.adjust_hue(x.clone(), torch.tensor([shift]))
    torch.testing.assert_close(got, tv.adjust_hue(x, shift), **CLOSE)


def test_grey_is_torchvisions():
    x = floats()
    torch.testing.assert_close(pixels.grey(x), tv.rgb_to_grayscale(x), **CLOSE)


@pytest.mark.parametrize("height, width", [(32, 32), (96, 96), (40, 64)])
def test_blur_is_torchvisions(height, width):
    x = floats(8, height, width)
    sigma = torch.linspace(0.1, 2.0, 8)
    kernel = [2 * pixels.blur_radius(width) + 1] * 2
    expected = [tv.gaussian_blur(i, kernel, [s.item()] * 2) for i, s in zip(x, sigma, strict=True)]
    torch.testing.assert_close(pixels.gaussian_blur(x, sigma), torch.stack(expected), **CLOSE)


def test_blur_kernel_has_the_papers_size_at_224():
    assert 2 * pixels.blur_radius(224) + 1 == 23


def test_solarise_is_torchvisions_on_every_grey_level():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    expected = tv.solarize(levels, 128)
    assert torch.equal(pixels.solarise(levels / 255).mul(255).round().to(torch.uint8), expected)
    x = floats()
    torch.testing.assert_close(pixels.solarise(x, 0.3), tv.solarize(x, 0.3), **CLOSE)


def test_a_single_pixel_can_be_blurred():
    x = torch.rand(4, 3, 1, 1)
    torch.testing.assert_close(pixels.gaussian_blur(x, torch.ones(4)), x)
