"""Encoders by name: a small residual net for CPUs, and torchvision's ResNets and vision transformers."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torchvision.models import VisionTransformer, resnet18, resnet34, resnet50
from torchvision.models.resnet import BasicBlock, ResNet

STEMS = ("imagenet", "cifar")
BRANCH_START = 0.3  # of SmallResNet's residual branches


class SmallResNet(nn.Module):
    """A residual net for 32 x 32 images that two CPU cores can train in minutes.

    A strided 3 x 3 stem, or with ``stem`` one of the large nets' (see ``build_encoder``); then four of
    torchvision's basic blocks at width, 2 width, 4 width, 8 width; the last three halve the resolution.
    (N, channels, H, W) -> (N, 8 width) by global average pooling.
    """

    def __init__(self, width: int = 24, channels: int = 3, stem: str | None = None):
        super().__init__()
        self.dim = 8 * width
        kernel, stride = {None: (3, 2), "cifar": (3, 1), "imagenet": (7, 2)}[stem]
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        if stem == "imagenet":
            self.stem.append(nn.MaxPool2d(3, 2, padding=1))
        widths = [width, width, 2 * width, 4 * width, 8 * width]
        self.blocks = nn.Sequential(
            *(_block(a, b, 1 if a == b else 2) for a, b in zip(widths, widths[1:], strict=False))
        )
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.stem(x)).mean((2, 3))


def _block(inputs: int, outputs: int, stride: int) -> BasicBlock:
    shortcut = None
    if stride != 1 or inputs != outputs:
        shortcut = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
        )
    return BasicBlock(inputs, outputs, stride, shortcut)


def _initialise(net: nn.Module) -> None:
    """He initialisation for convolutions; residual branches start small.

    The paper's code starts them at zero. That pays in long runs, but a run of minutes never catches up;
    torchvision's default of one makes the untrained net a stronger baseline.
    """
    for m in net.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
        if isinstance(m, BasicBlock):
            nn.init.constant_(m.bn2.weight, BRANCH_START)


def _resnet(build: Callable[..., ResNet], stem: str) -> tuple[nn.Module, int]:
    """torchvision's ResNet without its classifier; with a 3 x 3 stem and no max-pool for small images."""
    net = build(weights=None, zero_init_residual=True)  # as in the paper's code
    dim = net.fc.in_features
    net.fc = nn.Identity()
    if stem == "cifar":
        net.conv1 = nn.Conv2d(3, 64, 3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
        net.maxpool = nn.Identity()
    return net, dim


def _vit(dim: int, heads: int, stem: str, image_size: int) -> tuple[nn.Module, int]:
    """torchvision's vision transformer, 12 layers; patches of 4 pixels for small images, else of 16."""
    patch = 4 if stem == "cifar" else 16
    if image_size % patch:
        near = max(1, round(image_size / patch)) * patch
        raise ValueError(
            f"image_size={image_size} is not a multiple of {patch}, a patch of stem={stem!r}. Take {near}."
        )
    net = VisionTransformer(
        image_size=image_size,
        patch_size=patch,
        num_layers=12,
        num_heads=heads,
        hidden_dim=dim,
        mlp_dim=4 * dim,
    )
    net.heads = nn.Identity()
    return net, dim


def _small(width: int, stem: str | None = None) -> tuple[nn.Module, int]:
    net = SmallResNet(width, stem=stem)
    return net, net.dim


ENCODERS: dict[str, Callable[[str, int], tuple[nn.Module, int]]] = {
    "small_resnet": lambda stem, size: _small(24),
    "small_resnet_wide": lambda stem, size: _small(48),
    "narrow_resnet": lambda stem, size: _small(12, stem),  # to compare stems on a CPU
    "resnet18": lambda stem, size: _resnet(resnet18, stem),
    "resnet34": lambda stem, size: _resnet(resnet34, stem),
    "resnet50": lambda stem, size: _resnet(resnet50, stem),
    "vit_tiny": lambda stem, size: _vit(192, 3, stem, size),
    "vit_small": lambda stem, size: _vit(384, 6, stem, size),
}


def build_encoder(
    name: str, stem: str = "imagenet", image_size: int = 224
) -> tuple[nn.Module, int]:
    """An encoder by name, randomly initialised, and the dimension of its features.

    The encoder maps float images (N, 3, H, W) to features (N, dim). stem: "imagenet" (7 x 7, stride 2, max-pool;
    patches of 16) or "cifar" (3 x 3, stride 1, no max-pool; patches of 4). image_size matters to vision
    transformers only. Raises ValueError for an unknown name or stem, or a size that does not divide into patches.
    """
    if not isinstance(name, str) or name not in ENCODERS:
        raise ValueError(
            f"No encoder {name!r}. Choose one of {', '.join(ENCODERS)}, or pass a module."
        )
    if stem not in STEMS:
        raise ValueError(f"stem must be one of {', '.join(STEMS)}, got {stem!r}.")
    return ENCODERS[name](stem, image_size)
