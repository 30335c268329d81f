"""Views a second on one core: the batched twin views against torchvision's per-image pipelines.

    python benchmarks/views.py            # about three minutes
    python benchmarks/views.py --quick    # printed and not stored

Both pipelines of torchvision have the same recipe as the preset. "PIL" is the usual one: transforms v1 on
PIL images, then ToTensor and Normalize. "tensor" is transforms v2 on uint8 tensors. Images are decoded
beforehand for all. The contenders take turns on the same images, and the least time of each counts.
"""

from __future__ import annotations

import argparse

import torch
from common import describe, environment, interleave, milliseconds, table, write
from torch import Tensor
from torchvision import transforms as v1
from torchvision.transforms import InterpolationMode, v2

from barlow_edu.numerics import pixels
from barlow_edu.recipe import ViewRecipe
from barlow_edu.views import TwinViews

BATCH = 256
SIZE = 32
BAR = 8.0
# name -> preset, overrides
CASES = {
    "cifar": ("cifar", {}),
    "garments": ("garments", {}),
    "imagenet, no blur": ("imagenet", {"blur": (0.0, 0.0)}),
    "imagenet, blur": ("imagenet", {}),
}


def photographs(n: int) -> Tensor:
    """Smooth coloured random pictures, uint8 (n, 3, SIZE, SIZE): speed hardly depends on content."""
    g = torch.Generator().manual_seed(0)
    coarse = torch.rand(n, 3, 8, 8, generator=g)
    return v2.functional.resize(coarse, [SIZE, SIZE]).mul(255).to(torch.uint8)


def torchvision_pipeline(module, r: ViewRecipe, which: int, finish: list):
    """The recipe as torchvision's per-image transforms, from ``module`` (v1 or v2)."""
    crop = {"interpolation": getattr(InterpolationMode, r.interpolation.upper()), "antialias": True}
    steps = [
        module.RandomResizedCrop(SIZE, r.scale, r.ratio, **crop),
        module.RandomHorizontalFlip(r.flip),
        module.RandomApply(
            [module.ColorJitter(r.brightness, r.contrast, r.saturation, r.hue)], r.jitter
        ),
        module.RandomGrayscale(r.grey),
    ]
    if r.blur[which] > 0:
        kernel = 2 * pixels.blur_radius(SIZE) + 1
        steps.append(module.RandomApply([module.GaussianBlur(kernel, r.blur_sigma)], r.blur[which]))
    if r.solarise[which] > 0:
        steps.append(module.RandomSolarize(128, r.solarise[which]))
    return module.Compose([*steps, *finish, module.Normalize(r.mean, r.std)])


def contenders(preset: str, overrides: dict, images: Tensor) -> dict:
    """Functions that each make both views of all the images."""
    twin = TwinViews(preset, SIZE, **overrides)
    to_float = [v2.ToDtype(torch.float32, scale=True)]
    on_pil = [torchvision_pipeline(v1, twin.recipe, which, [v1.ToTensor()]) for which in (0, 1)]
    on_tensor = [torchvision_pipeline(v2, twin.recipe, which, to_float) for which in (0, 1)]
    pictures = [v1.functional.to_pil_image(image) for image in images]
    return {
        "ours": lambda: twin(images),
        "PIL": lambda: [torch.stack([f(p) for p in pictures]) for f in on_pil],
        "tensor": lambda: [torch.stack([f(x) for x in images]) for f in on_tensor],
    }


def measure(name: str, seconds: float) -> dict:
    times = interleave(contenders(*CASES[name], photographs(BATCH)), seconds)
    rates = {k: 2 * BATCH / t["min"] for k, t in times.items()}
    return {
        "preset": name,
        "views a second": rates,
        "ratio PIL": rates["ours"] / rates["PIL"],
        "ratio tensor": rates["ours"] / rates["tensor"],
        "times": times,
    }


def show(row: dict) -> dict[str, object]:
    return {
        "preset": row["preset"],
        **{f"{k}, views/s": f"{v:,.0f}" for k, v in row["views a second"].items()},
        "ours / PIL": f"{row['ratio PIL']:.1f}",
        "ours / tensor": f"{row['ratio tensor']:.1f}",
        "bar": f"{BAR:g}",
    }


def profile(seconds: float) -> list[dict]:
    """Time of each operation for one batch, with draws of the imagenet preset."""
    twin = TwinViews("imagenet", SIZE)
    r, images = twin.recipe, photographs(BATCH)
    p = twin.draw(BATCH, SIZE, SIZE, which=1, generator=torch.Generator().manual_seed(0))
    x = pixels.crop(images, p.box, p.flip, SIZE)
    operations = {
        "draw": lambda: twin.draw(BATCH, SIZE, SIZE),
        "crop, resize, flip": lambda: pixels.crop(images, p.box, p.flip, SIZE),
        "jitter": lambda: pixels.jitter(x.clone(), p),
        "brightness": lambda: pixels.adjust_brightness(x.clone(), p.brightness),
        "contrast": lambda: pixels.adjust_contrast(x.clone(), p.contrast),
        "saturation": lambda: pixels.adjust_saturation(x.clone(), p.saturation),
        "hue": lambda: pixels.adjust_hue(x.clone(), p.hue),
        "grey": lambda: pixels.grey(x),
        "blur": lambda: pixels.gaussian_blur(x, p.sigma),
        "solarise": lambda: pixels.solarise(x, r.solarise_threshold),
        "normalise": lambda: twin._scale(x.clone()),
        "copy": lambda: x.clone(),
        "one view, whole": lambda: twin.apply(images, p),
    }
    times = interleave(operations, seconds)
    return [
        {
            "operation": k,
            "ms": milliseconds(t["min"]),
            "µs an image": f"{1e6 * t['min'] / BATCH:.1f}",
        }
        for k, t in times.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one second each; nothing is stored")
    parser.add_argument(
        "--seconds", type=float, default=30.0, help="time for each preset, at least"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    seconds = 1.0 if options.quick else options.seconds
    rows = [measure(name, seconds) for name in CASES]
    operations = profile(min(seconds, 5.0))
    env = environment()
    text = "\n\n".join(
        [
            "# Twin views: views a second on one core",
            f"{describe(env)}. Made by `python benchmarks/views.py`.",
            f"{BATCH} images of {SIZE} x {SIZE}, two views each. PIL and tensor are torchvision's "
            "per-image pipelines. Times are processor time, least of several turns.",
            table([show(row) for row in rows]),
            f"Each operation alone on {BATCH} images; one view, the imagenet preset's second.",
            table(operations),
        ]
    )
    print(text)
    if not options.quick:
        write("views", text, {"environment": env, "rows": rows, "operations": operations})


if __name__ == "__main__":
    main()
