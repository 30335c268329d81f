"""The checkers of notebook 03: right answers pass, and each known mistake gets its own diagnosis."""

import math
from itertools import product

import torch
from PIL import Image, ImageOps
from torchvision.transforms import functional as tv

from barlow_edu.teaching.checks.twins import SIZES, _chances, _crop_draws

T = 128 / 255


def chances(p1, p2):
    return p1 * p2, p1 * (1 - p2) + p2 * (1 - p1), (1 - p1) * (1 - p2)


def chances_by_counting(p1, p2):
    """Go through all four outcomes."""
    found = [0.0, 0.0, 0.0]
    for a, b in product((True, False), repeat=2):
        found[2 - a - b] += (p1 if a else 1 - p1) * (p2 if b else 1 - p2)
    return found


def changed(which, wrong):
    """The right chances, one of them replaced."""

    def answer(p1, p2):
        found = list(chances(p1, p2))
        found[which] = wrong(p1, p2)
        return found

    return answer


RIGHT_CHANCES = {
    "formula": chances,
    "counting": chances_by_counting,
    "tensor": lambda p, q: torch.stack(
        [torch.tensor(x) for x in (p * q, p + q - 2 * p * q, 1 - p - q + p * q)]
    ),
}
WRONG_CHANCES = {
    "same, average probability": lambda p, q: chances((p + q) / 2, (p + q) / 2),
    "percent": lambda p, q: [100 * x for x in chances(p, q)],
    "their order is not": lambda p, q: chances(p, q)[::-1],
    "they multiply": changed(0, lambda p, q: p + q),
    "draws are independent": changed(0, min),
    "square of one": changed(0, lambda p, q: p * p),
    "the average of the two": changed(0, lambda p, q: (p + q) / 2),
    "counts the pairs": changed(1, lambda p, q: p + q),
    "at least one": changed(1, lambda p, q: p + q - p * q),
    "view 1 changed and view 2 not": changed(1, lambda p, q: p * (1 - q)),
    "view 2 changed and view 1 not": changed(1, lambda p, q: q * (1 - p)),
    "pairs with neither in it": changed(1, lambda p, q: 1 - p * q),
    "not the one and not the other": changed(2, lambda p, q: 1 - p * q),
    "chances of staying unchanged": changed(2, lambda p, q: 1 - p - q),
    "add up to 1": changed(2, lambda p, q: p * q),
    "You gave 2": lambda p, q: chances(p, q)[:2],
    "Return three numbers": lambda p, q: "both",
    "the values differ": changed(1, lambda p, q: 0.5),
    "returned nothing": lambda p, q: None,
}


def solarise(x):
    top, threshold = (255, 128) if x.dtype == torch.uint8 else (1, T)
    return torch.where(x >= threshold, top - x, x)


def solarise_by_pillow(x):
    """Every value through Pillow's table."""
    if x.is_floating_point():
        return solarise_by_pillow((x * 255).round().to(torch.uint8)) / 255
    picture = Image.fromarray(x.reshape(16, 16).numpy())
    return tv.pil_to_tensor(ImageOps.solarize(picture, 128)).reshape(x.shape)


def solarise_in_a_loop(x):
    top, least = (255, 128) if x.dtype == torch.uint8 else (1.0, T)
    values = [top - v if v >= least else v for v in x.flatten().tolist()]
    return torch.tensor(values, dtype=x.dtype).view_as(x)


def solarise_above_a_half(x):
    top = 255 if x.dtype == torch.uint8 else 1.0
    return torch.where(x > top / 2, top - x, x)


def solarise_by_the_largest(x):
    top, least = (255, 128) if x.max() > 1 else (1, T)
    return torch.where(x >= least, top - x, x)


def on_bytes(wrong):
    """Right for floats, wrong for bytes."""
    return lambda x: wrong(x) if x.dtype == torch.uint8 else solarise(x)


def where(keep, new):
    return lambda x: torch.where(keep(x), x, new(x))


RIGHT_SOLARISE = {
    "where": solarise,
    "pillow": solarise_by_pillow,
    "loop": solarise_in_a_loop,
    "torchvision": lambda x: tv.solarize(x, 128 if x.dtype == torch.uint8 else T),
    "mask": lambda x: (
        x + (x >= 128) * (255 - 2 * x) if x.dtype == torch.uint8 else x + (x >= T) * (1 - 2 * x)
    ),
}
WRONG_SOLARISE = {
    "Nothing has changed": where(lambda x: x < 128, lambda x: 255 - x),
    "inverted every pixel": lambda x: 1 - x,
    "inverted the dark": where(lambda x: x >= T, lambda x: 1 - x),
    "255 − x is for bytes": where(lambda x: x < T, lambda x: 255 - x),
    "left out the threshold": where(lambda x: x <= T, lambda x: 1 - x),
    "off at black": where(lambda x: x < T, torch.zeros_like),
    "below 0": where(lambda x: x < T, lambda x: -x),
    "bytes did not change": on_bytes(lambda x: x),
    "every byte but 0": on_bytes(where(lambda x: x < T, lambda x: 255 - x)),
    "wraps round": on_bytes(where(lambda x: x < 128, lambda x: 1 - x)),
    "both mistakes": on_bytes(where(lambda x: x < T, lambda x: 1 - x)),
    "floats in": on_bytes(lambda x: solarise(x) / 255),
    "type is not uint8": on_bytes(lambda x: solarise(x).float()),
    "threshold is 0.5": solarise_above_a_half,
    "threshold is 127/255": where(lambda x: x < 127 / 255, lambda x: 1 - x),
    "x.dtype": solarise_by_the_largest,
    "in place": lambda x: x.copy_(solarise(x)),
    "values differ": lambda x: solarise(x) * 0.9,
    "shape": lambda x: solarise(x)[0],
    "returned nothing": lambda x: None,
}


def box(area, aspect, size, u, v, free=1, whole=torch.round, clamp=True):
    h, w = whole(size * (area / aspect).sqrt()), whole(size * (area * aspect).sqrt())
    if clamp:
        h, w = h.clamp(max=size), w.clamp(max=size)
    top, left = (u * (size - h + free)).floor(), (v * (size - w + free)).floor()
    return torch.stack([top, left, h, w], 1)


def box_in_a_loop(area, aspect, size, u, v):
    rows = []
    for a, r, p, q in zip(area.tolist(), aspect.tolist(), u.tolist(), v.tolist(), strict=True):
        h = min(size, round(math.sqrt(a * size * size / r)))
        w = min(size, round(math.sqrt(a * size * size * r)))
        rows.append([int(p * (size - h + 1)), int(q * (size - w + 1)), h, w])
    return torch.tensor(rows)


def with_sides(h, w):
    """The box with other rules for its sides."""

    def answer(area, aspect, size, u, v):
        a, b = (f(area, aspect).mul(size).round().clamp(1, size) for f in (h, w))
        return torch.stack([(u * (size - a + 1)).floor(), (v * (size - b + 1)).floor(), a, b], 1)

    return answer


def with_place(place):
    """The box with another rule for its place, from the free pixels and the draw."""

    def answer(area, aspect, size, u, v):
        right = box(area, aspect, size, u, v)
        right[:, 0] = place(size - right[:, 2], u, size)
        right[:, 1] = place(size - right[:, 3], v, size)
        return right

    return answer


def reordered(*order):
    return lambda *args: box(*args)[:, list(order)]


def not_rounded(area, aspect, size, u, v):
    h, w = (size * x.sqrt().clamp(max=1) for x in (area / aspect, area * aspect))
    return torch.stack([u * (size - h + 1), v * (size - w + 1), h, w], 1)


def corners(*args):
    top, left, h, w = box(*args).unbind(1)
    return torch.stack([top, left, top + h, left + w], 1)


RIGHT_BOX = {
    "tensors": box,
    "loop": box_in_a_loop,
    "long": lambda *args: box(*args).long(),
    "torchvision's formula": lambda area, aspect, size, u, v: box(
        area, aspect.log().exp(), size, u, v
    ),
}
WRONG_BOX = {
    "Height and width have changed": with_sides(
        lambda a, r: (a * r).sqrt(), lambda a, r: (a / r).sqrt()
    ),
    "root is missing": with_sides(lambda a, r: a / r, lambda a, r: a * r),
    "aspect wants a root": with_sides(lambda a, r: a.sqrt() / r, lambda a, r: a.sqrt() * r),
    "longer than the picture": lambda *args: box(*args, clamp=False),
    "leave the picture": with_place(lambda free, u, size: (u * size).floor()),
    "never touches the far edge": lambda *args: box(*args, free=0),
    "half the chance": with_place(lambda free, u, size: (u * free).round()),
    "u and v have": lambda area, aspect, size, u, v: box(area, aspect, size, v, u),
    "on a diagonal": lambda area, aspect, size, u, v: box(area, aspect, size, u, u),
    "top, left, height, width.": reordered(0, 1, 3, 2),
    "rows before columns": reordered(1, 0, 3, 2),
    "too small": lambda *args: box(*args, whole=torch.floor),
    "Pixels are whole": not_rounded,
    "bottom and right": corners,
    "centred crop": with_place(lambda free, u, size: free // 2),
    "centred crop. u": with_place(lambda free, u, size: (free / 2).round()),
    "upper left": with_place(lambda free, u, size: 0),
    "One box a row": lambda *args: box(*args).T,
    "one tensor": lambda *args: tuple(box(*args).unbind(1)),
    "raised": lambda area, aspect, size, u, v: box(math.sqrt(area), aspect, size, u, v),
    "values differ": lambda *args: box(*args) + 1,
}

RIGHT = {"pair_chances": RIGHT_CHANCES, "solarise_any": RIGHT_SOLARISE, "crop_box": RIGHT_BOX}
WRONG = {"pair_chances": WRONG_CHANCES, "solarise_any": WRONG_SOLARISE, "crop_box": WRONG_BOX}


def test_the_chances_are_those_of_many_draws():
    draws = torch.rand(200_000, 2, generator=torch.Generator().manual_seed(0))
    count = (draws < torch.tensor([0.7, 0.2])).sum(1)
    shares = torch.stack([(count == k).double().mean() for k in (2, 1, 0)])
    torch.testing.assert_close(_chances(0.7, 0.2), shares, rtol=0, atol=0.005)


def test_no_two_mistakes_give_the_same_boxes():
    """Otherwise a learner could be told of a mistake that is not theirs."""
    area, aspect, u, v = _crop_draws()
    shaped = [f for d, f in WRONG_BOX.items() if d not in ("One box a row", "one tensor", "raised")]
    results = [f(area, aspect, SIZES[0], u, v) for f in (box, *shaped)]
    for i, one in enumerate(results):
        for other in results[:i]:
            assert not torch.equal(one, other)


def test_the_hidden_boxes_stay_inside_and_touch_the_far_edge():
    top, left, h, w = box(*_crop_draws()[:2], SIZES[0], *_crop_draws()[2:]).unbind(1)
    assert (top + h <= SIZES[0]).all() and (left + w <= SIZES[0]).all()
    assert ((top + h == SIZES[0]) & (h < SIZES[0])).any() and (
        (left + w == SIZES[0]) & (w < SIZES[0])
    ).any()
