"""Random pictures to be augmented, and generators with a seed."""

import torch
from torchvision.transforms.v2 import functional as tv


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def photographs(n=8, height=32, width=32, channels=3, seed=0):
    """Random uint8 pictures with smooth parts, hard edges, and pure black, white and grey ones."""
    g = seeded(seed)
    coarse = torch.rand(n, channels, 5, 5, generator=g)
    x = tv.resize(coarse, [height, width]).mul(300).sub(20).clamp(0, 255)
    x = x + 60 * torch.randn(n, 1, height, width, generator=g) * (torch.arange(n) % 2).view(
        -1, 1, 1, 1
    )
    x = x.clamp(0, 255).to(torch.uint8)
    if n >= 6:
        x[3], x[4], x[5] = 0, 255, x[5, :1]
    return x


def floats(*args, **kwargs):
    return photographs(*args, **kwargs) / 255
