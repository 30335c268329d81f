"""A run that takes a second: few images, an encoder of a few parameters, no randomness but the seeds."""

import contextlib

import torch
from PIL import Image
from torch import nn

from barlow_edu.data import ImageSet
from barlow_edu.models import ENCODERS

# 80 images of 16 x 16 in batches of 16: 5 steps an epoch
CONFIG = {
    "name": "tiny",
    "encoder": "tiny",
    "image_size": 16,
    "proj_dim": 8,
    "batch_size": 16,
    "epochs": 2,
    "lr": 0.01,
    "precision": "float32",
    "log_every": 2,
    "snapshots": 4,
    "snapshot_dims": 6,
    "probe_size": 32,
}


class TinyEncoder(nn.Module):
    """Two strided convolutions with batch norm: (N, 3, H, W) -> (N, 12)."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 12, 3, stride=2, bias=False),
            nn.BatchNorm2d(12),
            nn.ReLU(),
        )

    def forward(self, x):
        return self.body(x).mean((2, 3))


@contextlib.contextmanager
def tiny_encoder():
    """The encoder under the name "tiny", and one thread: small tensors gain nothing from more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    ENCODERS["tiny"] = lambda stem, size: (TinyEncoder(), 12)
    yield
    del ENCODERS["tiny"]
    torch.set_num_threads(threads)


def tiny_images(n=85, size=16, seed=0, classes=4):
    """Each class has a colour and a place of its own; the rest is noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    images = torch.randint(0, 60, (n, 3, size, size), generator=generator)
    for k in range(classes):
        half = slice(0, size // 2) if k % 2 else slice(size // 2, size)
        images[labels == k, k % 3, half] += 150
    return ImageSet(images.to(torch.uint8), labels, [str(k) for k in range(classes)], "tiny")


def write_tree(root, train=48, test=24, seed=0):
    """``tiny_images`` as a class-folder tree of files, of differing sizes."""
    for split, n, draw in (("train", train, seed), ("test", test, seed + 1)):
        images = tiny_images(n, seed=draw)
        for i, (pixels, label) in enumerate(zip(images.images, images.labels, strict=True)):
            path = root / split / f"class{label}" / f"{i:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
            picture.resize((16 + i % 3, 16)).save(path)
    return root
