"""The embedded image set: grey garment photographs (Fashion-MNIST), composed onto coloured cards."""

import copy
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from barlow_edu.storage.places import data_dir

Composed = tuple[np.ndarray, dict[str, np.ndarray]]  # images, and what was drawn for each
GARMENT_CLASSES = (
    "T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot",
)  # fmt: skip


def garments(train: bool, seed: int) -> tuple[Tensor, Tensor, list[str], str, dict[str, Tensor]]:
    """20,000 training cards, uint8 (N, 3, 32, 32), or 4,000 to test; labels, classes, name, factors of ``compose``.

    Raises FileNotFoundError if the file is missing.
    """
    # A copy: what is written into one set of images must not appear in the next.
    return copy.deepcopy(_garments("train" if train else "test", seed))


@lru_cache(maxsize=4)
def _garments(split: str, seed: int) -> tuple:
    path = data_dir() / "garments.npz"
    if not path.exists():
        raise FileNotFoundError(
            f"The embedded images are missing: {path}. Restore data/garments.npz from the repository, or "
            "point BARLOW_EDU_DATA to the folder that holds it."
        )
    with np.load(path) as stored:
        photos, labels = stored[f"{split}_images"], stored[f"{split}_labels"]
    cards, factors = compose(photos, np.random.RandomState([seed, split == "test"]))
    factors = {key: torch.from_numpy(values) for key, values in factors.items()}
    cards, labels = torch.from_numpy(cards), torch.from_numpy(labels.astype(np.int64))
    return cards, labels, list(GARMENT_CLASSES), "garments", factors


def compose(photos: np.ndarray, rng: np.random.RandomState, card: int = 32) -> Composed:
    """Grey photographs, uint8 (N, 28, 28), on cards, uint8 (N, 3, card, card), and what was drawn for each.

    Every photograph is resized by 0.45 to 0.95 of the card, placed anywhere, tinted (0.4 to 1.0 a channel) and
    blended onto a dim background (0 to 0.4 a channel) with a soft gradient between its corners. The arithmetic is
    integer, so every machine computes the same pixels.
    factors: tint (N, 3) and background (N, 3) in 0..255, side (N,) and place (N, 2; top, left) in pixels.
    """
    alpha, factors = place(photos, rng, card)
    # Bilinear weights of the four corners, in integers that sum to (card - 1)².
    far = np.arange(card, dtype=np.int32)
    near = far[::-1]
    weights = np.stack([np.outer(a, b) for a in (near, far) for b in (near, far)])
    corners = factors.pop("corners").astype(np.int32)
    tint, background = (factors[key].astype(np.int32) for key in ("tint", "background"))
    cards = np.empty((len(photos), 3, card, card), np.uint8)
    for start in range(0, len(photos), 256):  # a few at a time: fast in the cache, small in memory
        rows = slice(start, start + 256)
        shade = np.tensordot(corners[rows], weights, 1)[:, None]  # (n, 1, card, card), per cent
        dim = background[rows, :, None, None] * shade // (100 * (card - 1) ** 2)
        garment = alpha[rows, None].astype(np.int32)
        cards[rows] = (dim * (255 - garment) + tint[rows, :, None, None] * garment + 127) // 255
    return cards, factors


def place(photos: np.ndarray, rng: np.random.RandomState, card: int) -> Composed:
    """How much of every pixel is garment, uint8 (N, card, card), and the factors of ``compose``.

    To these comes "corners" (N, 4): the brightness of the background there, in per cent.
    """
    n = len(photos)
    side = rng.randint(round(0.45 * card), round(0.95 * card) + 1, n)
    where = (rng.randint(0, 1 << 16, (n, 2)) * (card - side + 1)[:, None]) >> 16
    tint = rng.randint(102, 256, (n, 3))  # 0.4 to 1.0
    background = rng.randint(0, 103, (n, 3))  # 0 to 0.4
    corners = rng.randint(60, 101, (n, 4))
    alpha = np.zeros((n, card, card), np.uint8)
    for a, photo, s, (top, left) in zip(alpha, photos, side, where, strict=True):
        small = Image.fromarray(photo).resize((s, s), Image.Resampling.BILINEAR)
        a[top : top + s, left : left + s] = small
    factors = {"tint": tint, "background": background, "side": side, "place": where}
    return alpha, {**factors, "corners": corners}
