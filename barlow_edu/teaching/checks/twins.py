"""Checkers for notebook 02, making twins."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import torch
from torch import Tensor

from barlow_edu.teaching.checks.base import NotRight, attempt, checker, compare

CHECKERS = ("pair_chances", "solarise_any", "crop_box")

NAMES = ("both", "exactly one", "neither")
SIZE = 32


@checker
def pair_chances(function: Callable[[float, float], tuple[float, float, float]]) -> None:
    """Check a function p1, p2 -> chances that both views, exactly one, neither is changed."""
    for p1, p2 in ((0.7, 0.2), (1.0, 0.1), (0.0, 0.2)):
        found = _three_numbers(attempt(function, p1, p2))
        right = _chances(p1, p2)
        _explain_whole(found, right, (p1, p2))
        mistakes = _chance_mistakes(p1, p2)
        for name, value, chance in zip(NAMES, found, right, strict=True):
            compare(value, chance, mistakes[name], f"At p1 = {p1}, p2 = {p2}, the chance of {name}")


@checker
def solarise_any(function: Callable[[Tensor], Tensor]) -> None:
    """Check a function that solarises images, floats in [0, 1] or bytes, and keeps their type."""
    as_bytes = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    x = as_bytes / 255
    inverted = (255 - as_bytes) / 255
    bright = as_bytes >= 128
    right = torch.where(bright, inverted, x)
    mistakes = {
        "Nothing changed. Floats in [0, 1] never reach 128: there the threshold is 128/255.": x,
        "You inverted every value. Only those at or above the threshold turn over.": inverted,
        "You inverted the dark values. Solarising turns the bright ones over.": torch.where(
            bright, x, inverted
        ),
        "255 − x is for bytes. For floats in [0, 1] the inverse of x is 1 − x.": torch.where(
            bright, 255 - x, x
        ),
        "You left out the threshold itself: byte 128 turns over too, so >= and not >.": torch.where(
            as_bytes > 128, inverted, x
        ),
        "You set bright values to black. Solarising turns them over: x becomes 1 − x.": (
            torch.where(bright, 0, x)
        ),
        "You turned values below 0: bright ones become 1 − x, not −x.": torch.where(bright, -x, x),
    }
    compare(attempt(function, x), right, mistakes, "The solarised float image", 1e-6)
    _check_bytes(attempt(function, as_bytes), as_bytes)


@checker
def crop_box(function: Callable[..., Tensor]) -> None:
    """Check f(area, aspect, size, u, v), four of them (N,) tensors -> boxes (N, 4) of whole pixels."""
    area, aspect, u, v = _crop_draws()
    answer = attempt(function, area, aspect, SIZE, u, v)
    if isinstance(answer, (tuple, list)):
        raise NotRight(
            "Return one tensor (N, 4). torch.stack([top, left, height, width], 1) makes it."
        )
    right = _box(area, aspect, u, v)
    if getattr(answer, "shape", None) == (4, len(area)):
        raise NotRight("Your boxes are columns, (4, N). One box a row: torch.stack(..., 1).")
    compare(answer, right, _crop_mistakes(area, aspect, u, v), "The box", 1e-9)


def _three_numbers(answer: object) -> Tensor:
    try:
        found = torch.as_tensor(answer, dtype=torch.float64).flatten()
    except (TypeError, ValueError, RuntimeError) as error:
        raise NotRight("Return three numbers: both, exactly one, neither.") from error
    if len(found) != 3:
        raise NotRight(f"Return three numbers: both, exactly one, neither. You gave {len(found)}.")
    return found


def _explain_whole(found: Tensor, right: Tensor, p: tuple[float, float]) -> None:
    """Mistakes that change all three numbers at once."""
    if torch.allclose(found, right, atol=1e-9):
        return
    if torch.allclose(found, _chances(sum(p) / 2, sum(p) / 2), atol=1e-9):
        raise NotRight(
            "You gave both views the same, average probability. That is what calling one augment "
            "function twice does; here each view has its own."
        )
    if torch.allclose(found, 100 * right, atol=1e-6):
        raise NotRight("These are percent. Give chances between 0 and 1.")
    if any(torch.allclose(found, right[list(o)], atol=1e-9) for o in permutations(range(3))):
        raise NotRight("The numbers are right, their order is not: both, exactly one, neither.")


def _chances(p1: float, p2: float) -> Tensor:
    both = p1 * p2
    return torch.tensor([both, p1 + p2 - 2 * both, (1 - p1) * (1 - p2)], dtype=torch.float64)


def _chance_mistakes(p1: float, p2: float) -> dict[str, dict[str, float]]:
    both = p1 * p2
    return {
        "both": {
            "You added the probabilities. For two independent draws they multiply.": p1 + p2,
            "The smaller probability would be right if the rarer event always came with the other. "
            "The draws are independent: multiply.": min(p1, p2),
            "You took the square of one probability. Each view has its own.": p1 * p1,
            "That is the average of the two. For both at once they multiply.": (p1 + p2) / 2,
        },
        "exactly one": {
            "The sum counts the pairs in which both are changed, twice. Take them away, twice.": p1
            + p2,
            "That is the chance of at least one. Take away the pairs in which both are changed.": (
                p1 + p2 - both
            ),
            "You counted view 1 changed and view 2 not. The other way round counts too.": p1
            * (1 - p2),
            "You counted view 2 changed and view 1 not. The other way round counts too.": p2
            * (1 - p1),
            "That is the chance of not both, which has the pairs with neither in it.": 1 - both,
        },
        "neither": {
            "That is the chance of not both. Neither means: not the one and not the other.": 1
            - both,
            "You took away the sum. Multiply the two chances of staying unchanged, 1 − p each.": (
                1 - p1 - p2
            ),
            "The three chances must add up to 1: one of these three always happens.": both,
        },
    }


def _check_bytes(answer: object, x: Tensor) -> None:
    """Diagnose what became of a byte image."""
    bright = x >= 128
    right = torch.where(bright, 255 - x, x)
    mistakes = {
        "Floats are right, but bytes did not change. 128 is the threshold for them.": x,
        "Floats are right, bytes are not: every byte but 0 is above 128/255. Their threshold is 128.": (
            torch.where(x > 0, 255 - x, x)
        ),
        "Floats are right, bytes are not: 1 − x wraps round below 0. Their inverse is 255 − x.": (
            torch.where(bright, 1 - x, x)
        ),
        "Floats are right, bytes are not: both mistakes at once. Threshold 128, inverse 255 − x.": (
            torch.where(x > 0, 1 - x, x)
        ),
        "You gave floats in [0, 1] back for bytes. What comes in as bytes goes out as bytes.": (
            right / 255
        ),
    }
    compare(answer, right, mistakes, "The solarised byte image", 1e-6)
    if getattr(answer, "dtype", None) != torch.uint8:
        raise NotRight(
            "The values of the byte image are right, but its type is not uint8 any more. Keep the type."
        )


def _crop_draws() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """area, aspect, u, v of seven boxes; two are too long for the picture, one is drawn at its far end."""
    area = torch.tensor([0.25, 0.5, 0.9, 0.08, 0.35, 1.0, 0.62], dtype=torch.float64)
    aspect = torch.tensor([1.3, 0.8, 1.3, 0.76, 1.1, 0.76, 1.0], dtype=torch.float64)
    u = torch.tensor([0.1, 0.99, 0.4, 0.7, 0.55, 0.3, 0.93], dtype=torch.float64)
    v = torch.tensor([0.999, 0.2, 0.6, 0.05, 0.87, 0.8, 0.31], dtype=torch.float64)
    return area, aspect, u, v


def _sides(area: Tensor, aspect: Tensor, whole=torch.round) -> tuple[Tensor, Tensor]:
    """Height and width, cut to the picture."""
    height, width = SIZE * (area / aspect).sqrt(), SIZE * (area * aspect).sqrt()
    return whole(height).clamp(1, SIZE), whole(width).clamp(1, SIZE)


def _place(height: Tensor, width: Tensor, u: Tensor, v: Tensor, free: int = 1) -> Tensor:
    top, left = (u * (SIZE - height + free)).floor(), (v * (SIZE - width + free)).floor()
    return torch.stack([top, left, height, width], 1)


def _box(area: Tensor, aspect: Tensor, u: Tensor, v: Tensor) -> Tensor:
    return _place(*_sides(area, aspect), u, v)


def _crop_mistakes(area: Tensor, aspect: Tensor, u: Tensor, v: Tensor) -> dict[str, Tensor]:
    right = _box(area, aspect, u, v)
    height, width = _sides(area, aspect)
    long = [(SIZE * x.sqrt()).round() for x in (area / aspect, area * aspect)]
    anywhere = torch.stack([(u * SIZE).floor(), (v * SIZE).floor(), height, width], 1)
    rounded = [(u * (SIZE - height)).round(), (v * (SIZE - width)).round(), height, width]
    exact = [SIZE * x.sqrt().clamp(max=1) for x in (area / aspect, area * aspect)]
    return {
        "Height and width have changed places: aspect is width / height.": _place(
            width, height, u, v
        ),
        "The root is missing: area is a share of size², so a side is √area · size.": _place(
            *((SIZE * x).round().clamp(1, SIZE) for x in (area / aspect, area * aspect)), u, v
        ),
        "The aspect wants a root too, or width / height becomes aspect².": _place(
            *((SIZE * x).round().clamp(1, SIZE) for x in (area.sqrt() / aspect, area.sqrt() * aspect)),
            u,
            v,
        ),
        "Some of your boxes are longer than the picture. Cut the sides to size.": _place(*long, u, v),
        "Some of your boxes leave the picture: the top may be at most size − height.": anywhere,
        "Your box never touches the far edge: there are size − height + 1 places for it.": _place(
            height, width, u, v, free=0
        ),
        "Rounding gives the first and the last place half the chance of the others. Use the floor of "
        "u · (size − height + 1).": torch.stack(rounded, 1),
        "u and v have changed places: u is for the top, v for the left edge.": _place(
            height, width, v, u
        ),
        "You used u for both edges: then all boxes lie on a diagonal. v is for the left edge.": _place(
            height, width, u, u
        ),
        "The order of the four is top, left, height, width.": right[:, [0, 1, 3, 2]],
        "The order of the four is top, left, height, width, rows before columns.": right[
            :, [1, 0, 3, 2]
        ],
        "Round the sides to the nearest pixel. Cutting off makes every box a little too small.": (
            _place(*_sides(area, aspect, torch.floor), u, v)
        ),
        "Pixels are whole: round the sides, and take the floor of the place.": torch.stack(
            [u * (SIZE - exact[0] + 1), v * (SIZE - exact[1] + 1), *exact], 1
        ),
        "The box ends where you say it is high: give height and width, not bottom and right.": (
            torch.cat([right[:, :2], right[:, :2] + right[:, 2:]], 1)
        ),
    }  # fmt: skip
