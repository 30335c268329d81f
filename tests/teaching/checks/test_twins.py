"""The checkers of notebook 03: right answers pass, and each known mistake gets its own diagnosis."""

import torch
from PIL import Image, ImageOps
from torchvision.transforms import functional as tv
from torchvision.transforms import v2

from barlow_edu.views import TwinViews

T = 128 / 255


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
    "you treat them as floats": on_bytes(where(lambda x: x < T, lambda x: 1 - x)),
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


def paper(blur, solarise, size=32, grey=0.2, flip=0.5, jitter=0.8, crop=True):
    """One view of the paper's recipe in torchvision's words."""
    jitter_op = v2.ColorJitter(0.4, 0.4, 0.2, 0.1)
    return v2.Compose(
        [
            v2.RandomResizedCrop(size, antialias=True)
            if crop
            else v2.Resize((size, size), antialias=True),
            v2.RandomHorizontalFlip(flip),
            v2.RandomApply([jitter_op], jitter),
            v2.RandomGrayscale(grey),
            v2.RandomApply([v2.GaussianBlur(5, (0.1, 2.0))], blur),
            v2.RandomSolarize(128, solarise),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )


def with_twin_views():
    """The package's recipe, a batch of one at a time."""
    recipe = TwinViews("imagenet", 32)
    return [lambda x, k=k: recipe.denormalize(recipe(x[None])[k])[0].clamp(0, 1) for k in (0, 1)]


RIGHT_PAIR = {
    "torchvision": lambda: (paper(1.0, 0.0), paper(0.1, 0.2)),
    "the package": with_twin_views,
}
WRONG_PAIR = {
    "views 1 and 2 are solarised": lambda: (paper(1.0, 0.1), paper(0.1, 0.1)),
    "no sharper": lambda: (paper(0.55, 0.0), paper(0.55, 0.2)),
    "not floats (3, 32, 32)": lambda: (paper(1.0, 0.0, size=24), paper(0.1, 0.2, size=24)),
    "are grey": lambda: (paper(1.0, 0.0, grey=0.0), paper(0.1, 0.2)),
    "are flipped": lambda: (paper(1.0, 0.0), paper(0.1, 0.2, flip=0.0)),
    "left in their colours": lambda: (paper(1.0, 0.0, jitter=0.0), paper(0.1, 0.2)),
    "Where is the random crop": lambda: (paper(1.0, 0.0, crop=False), paper(0.1, 0.2)),
    "two transforms": lambda: paper(1.0, 0.0),
    "not in [0, 1]": lambda: 2 * (lambda x: x[:, :32, :32].float(),),
}

STILL = {"jitter": 0.0, "grey": 0.0, "solarise": (0.0, 0.0)}
RIGHT_RECIPE = {
    "small crops": lambda: TwinViews("garments", scale=(0.08, 0.4), **STILL),
    "small and soft": lambda: TwinViews("garments", scale=(0.08, 0.4), blur=(1.0, 1.0), **STILL),
}
WRONG_RECIPE = {
    "A colour has a correlation of 0.0": lambda: TwinViews("garments"),
    "A colour has a correlation of 0.5": lambda: TwinViews("shortcut"),
    "still agree by 0.8": lambda: TwinViews("garments", **STILL),
    "still agree by 1.00": lambda: TwinViews(
        "garments", scale=(0.99, 1.0), ratio=(1.0, 1.0), flip=0.0, **STILL
    ),
    "Return be.TwinViews": lambda: {"scale": (0.08, 0.4)},
}

RIGHT = {"solarise_any": RIGHT_SOLARISE, "my_pair": RIGHT_PAIR, "my_recipe": RIGHT_RECIPE}
WRONG = {"solarise_any": WRONG_SOLARISE, "my_pair": WRONG_PAIR, "my_recipe": WRONG_RECIPE}
