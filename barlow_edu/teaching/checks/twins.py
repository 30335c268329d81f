"""Checkers for notebook 03, making twins."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import torch
from torch import Tensor

from barlow_edu.teaching.checks.base import Shaped, attempt, checker, judge, judge_parts, tell
from barlow_edu.teaching.checks.mistakes import BRIGHT, SOLARISED

SIZES = (32, 47)


@checker
def pair_chances(function: Callable[[float, float], tuple[float, float, float]]) -> None:
    """Check a function p1, p2 -> chances that both views, exactly one, neither is changed."""
    worlds = ((0.7, 0.2), (1.0, 0.1), (0.0, 0.2))
    names = "three numbers: both, exactly one, neither"
    judge_parts(function, worlds, _chances, _CHANCES, names, look=_all_at_once)


def _all_at_once(chances: Tensor, *p: float) -> None:
    def same(other: Tensor) -> bool:
        return torch.allclose(chances, other, atol=1e-9)

    right, average = _chances(*p), sum(p) / 2
    if not same(right):
        tell({
            "You gave both views the same, average probability. That is what calling one augment "
            "function twice does; here each view has its own.": same(_chances(average, average)),
            "These are percent. Give chances between 0 and 1.": same(100 * right),
            "The numbers are right, their order is not: both, exactly one, neither.":
                any(same(right[list(order)]) for order in permutations(range(3))),
        })  # fmt: skip


def _chances(p1: float, p2: float) -> Tensor:
    both = p1 * p2
    return torch.tensor([both, p1 + p2 - 2 * both, (1 - p1) * (1 - p2)], dtype=torch.float64)


_CHANCES = {
    "At p1 = {0}, p2 = {1}, the chance of both": {
        "You added the probabilities. For two independent draws they multiply.": lambda p, q: p + q,
        "The smaller probability would be right if the rarer event always came with the other. "
        "The draws are independent: multiply.": min,
        "You took the square of one probability. Each view has its own.": lambda p, q: p * p,
        "That is the average of the two. For both at once they multiply.": lambda p, q: (p + q) / 2,
    },
    "At p1 = {0}, p2 = {1}, the chance of exactly one": {
        "The sum counts the pairs in which both are changed, twice. Take them away, twice.": lambda p, q: p + q,
        "That is the chance of at least one. Take away the pairs in which both are changed.":
            lambda p, q: p + q - p * q,
        "You counted view 1 changed and view 2 not. The other way round counts too.": lambda p, q: p * (1 - q),
        "You counted view 2 changed and view 1 not. The other way round counts too.": lambda p, q: q * (1 - p),
        "That is the chance of not both, which has the pairs with neither in it.": lambda p, q: 1 - p * q,
    },
    "At p1 = {0}, p2 = {1}, the chance of neither": {
        "That is the chance of not both. Neither means: not the one and not the other.": lambda p, q: 1 - p * q,
        "You took away the sum. Multiply the two chances of staying unchanged, 1 − p each.": lambda p, q: 1 - p - q,
        "The three chances must add up to 1: one of these three always happens.": lambda p, q: p * q,
    },
}  # fmt: skip


@checker
def solarise_any(function: Callable[[Tensor], Tensor]) -> None:
    """Check a function that solarises images, floats in [0, 1] or bytes, and keeps their type."""
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    judge(function, [(levels / 255,)], _solarised, _FLOATS, "The solarised float image", 1e-6)
    between = torch.linspace(127.6, 127.9, 256).view(1, 1, 16, 16) / 255  # above 0.5, below 128/255
    answer = attempt(function, between)
    tell({
        "Your threshold is 0.5. Byte 128 is 128/255 = 0.50196: take that, or floats between the two turn over.":
            torch.is_tensor(answer) and torch.allclose(answer.double(), 1 - between.double(), atol=1e-6)
    })  # fmt: skip
    dark = levels % 2  # bytes 0 and 1, which look like floats to who asks for the largest value
    judge(function, [(levels,), (dark,)], _solarised, _BYTES, "The solarised byte image", 1e-6)
    kind = getattr(attempt(function, levels), "dtype", None)
    told = (
        "The values of the byte image are right, but its type is not uint8 any more. Keep the type."
    )
    tell({told: kind != torch.uint8})


def _solarised(x: Tensor) -> Tensor:
    top, threshold = (255, 128) if x.dtype == torch.uint8 else (1, BRIGHT)
    return torch.where(x >= threshold, top - x, x)


_FLOATS = {
    "You left out the threshold itself: byte 128 turns over too, so >= and not >.":
        lambda x: torch.where(x > BRIGHT, 1 - x, x),
    "You turned values below 0: bright ones become 1 − x, not −x.": lambda x: torch.where(x >= BRIGHT, -x, x),
    "Your threshold is 127/255. Byte 128 is the first to turn over: 128/255.":
        lambda x: torch.where(x >= 127 / 255, 1 - x, x),
} | SOLARISED  # fmt: skip
_BYTES = {
    "A byte image of 0 and 1 was taken for floats. Ask for its type, x.dtype, not for its largest value.":
        lambda x: torch.where(x > 0, 1 - x, x) if x.max() == 1 else Shaped([0]),
    "Floats are right, but bytes did not change. 128 is the threshold for them.": lambda x: x,
    "Floats are right, bytes are not: every byte but 0 is above 128/255. Their threshold is 128.":
        lambda x: torch.where(x > 0, 255 - x, x),
    "Floats are right, bytes are not: 1 − x wraps round below 0. Their inverse is 255 − x.":
        lambda x: torch.where(x >= 128, 1 - x, x),
    "Floats are right, bytes are not: both mistakes at once. Threshold 128, inverse 255 − x.":
        lambda x: torch.where(x > 0, 1 - x, x),
    "You gave floats in [0, 1] back for bytes. What comes in as bytes goes out as bytes.":
        lambda x: _solarised(x) / 255,
}  # fmt: skip


@checker
def crop_box(function: Callable[..., Tensor]) -> None:
    """Check f(area, aspect, size, u, v), four of them (N,) tensors -> boxes (N, 4) of whole pixels."""
    draws = _crop_draws()
    worlds = [(*draws[:2], size, *draws[2:]) for size in SIZES]
    judge(function, worlds, _box, _BOX, "The box", 1e-9, look=_one_box_a_row)


def _one_box_a_row(answer, area: Tensor, *_):
    one = "Return one tensor (N, 4). torch.stack([top, left, height, width], 1) makes it."
    tell({one: isinstance(answer, (tuple, list))})
    return answer


def _crop_draws() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """area, aspect, u, v of seven boxes; two are too long for the picture, one is drawn at its far end."""
    area = torch.tensor([0.25, 0.5, 0.9, 0.08, 0.35, 1.0, 0.62], dtype=torch.float64)
    aspect = torch.tensor([1.3, 0.8, 1.3, 0.76, 1.1, 0.76, 1.0], dtype=torch.float64)
    u = torch.tensor([0.1, 0.99, 0.4, 0.7, 0.55, 0.3, 0.93], dtype=torch.float64)
    v = torch.tensor([0.999, 0.2, 0.6, 0.05, 0.87, 0.8, 0.31], dtype=torch.float64)
    return area, aspect, u, v


def _roots(area: Tensor, aspect: Tensor) -> tuple[Tensor, Tensor]:
    """Height and width as shares of the picture's side."""
    return (area / aspect).sqrt(), (area * aspect).sqrt()


def _boxes(
    sides: Callable = _roots, whole=torch.round, clamp=True, place: Callable | None = None
) -> Callable:
    """A function like the learner's, with its own sides (as shares) and its own place (free pixels, draw, size)."""
    place = place or (lambda free, draw, size: (draw * (free + 1)).floor())

    def box(area: Tensor, aspect: Tensor, size: int, u: Tensor, v: Tensor) -> Tensor:
        long = [whole(size * side) for side in sides(area, aspect)]
        height, width = (side.clamp(1, size) for side in long) if clamp else long
        return torch.stack(
            [place(size - height, u, size), place(size - width, v, size), height, width], 1
        )

    return box


_box = _boxes()
_BOX = {
    "Your boxes are columns, (4, N). One box a row: torch.stack(..., 1).": lambda a, *_: Shaped([4, len(a)]),
    "Height and width have changed places: aspect is width / height.": _boxes(lambda a, r: _roots(a, r)[::-1]),
    "The root is missing: area is a share of size², so a side is √area · size.": _boxes(lambda a, r: (a / r, a * r)),
    "The aspect wants a root too, or width / height becomes aspect².":
        _boxes(lambda a, r: (a.sqrt() / r, a.sqrt() * r)),
    "Some of your boxes are longer than the picture. Cut the sides to size.": _boxes(clamp=False),
    "Some of your boxes leave the picture: the top may be at most size − height.":
        _boxes(place=lambda free, draw, size: (draw * size).floor()),
    "Your box is always in the middle: that is a centred crop. u and v say where it stands.":
        _boxes(place=lambda free, draw, size: (free / 2).floor()),
    "Your box is always in the middle: that is a centred crop. u and v say where it stands. ":
        _boxes(place=lambda free, draw, size: (free / 2).round()),
    "Your box is always in the upper left corner. u and v say where it stands.":
        _boxes(place=lambda free, draw, size: 0 * free),
    "Your box never touches the far edge: there are size − height + 1 places for it.":
        _boxes(place=lambda free, draw, size: (draw * free).floor()),
    "Rounding gives the first and the last place half the chance of the others. Use the floor of "
    "u · (size − height + 1).": _boxes(place=lambda free, draw, size: (draw * free).round()),
    "u and v have changed places: u is for the top, v for the left edge.":
        lambda a, r, size, u, v: _box(a, r, size, v, u),
    "You used u for both edges: then all boxes lie on a diagonal. v is for the left edge.":
        lambda a, r, size, u, v: _box(a, r, size, u, u),
    "The order of the four is top, left, height, width.": lambda *given: _box(*given)[:, [0, 1, 3, 2]],
    "The order of the four is top, left, height, width, rows before columns.":
        lambda *given: _box(*given)[:, [1, 0, 3, 2]],
    "Round the sides to the nearest pixel. Cutting off makes every box a little too small.":
        _boxes(whole=torch.floor),
    "Pixels are whole: round the sides, and take the floor of the place.":
        _boxes(whole=lambda side: side, place=lambda free, draw, size: draw * (free + 1)),
    "The box ends where you say it is high: give height and width, not bottom and right.":
        lambda *given: torch.cat([_box(*given)[:, :2], _box(*given)[:, :2] + _box(*given)[:, 2:]], 1),
}  # fmt: skip
