"""Encoders by name, the projector, and the Barlow Twins model."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer, resnet18, resnet34, resnet50
from torchvision.models.resnet import BasicBlock, ResNet

from barlow_edu.loss import FORMS, LossTerms, barlow_twins_loss, cross_correlation
from barlow_edu.numerics.batchnorm import batch_statistics
from barlow_edu.numerics.threads import SideBySide
from barlow_edu.settings import SWITCH, Setting, complete
from barlow_edu.storage.libraries import check_encoder, check_features, library_encoder

STEMS = ("imagenet", "cifar")
# The weight with which each residual branch of SmallResNet begins. The paper's code begins at 0, which pays in long
# runs, but a run of minutes never catches up; with 1, as in torchvision, the untrained net is a stronger baseline.
BRANCH_START = 0.3


class SmallResNet(nn.Module):
    """A residual net for 32 x 32 images that two CPU cores can train in minutes.

    A strided 3 x 3 stem, or that of a large net (``stem`` as in ``build_encoder``); then four of torchvision's
    basic blocks, of width, 2 width, 4 width and 8 width channels, of which the last three halve the resolution.
    (N, 3, H, W) -> (N, 8 width) by global average pooling.
    """

    def __init__(self, width: int, stem: str | None = None):
        super().__init__()
        kernel, stride = {None: (3, 2), "cifar": (3, 1), "imagenet": (7, 2)}[stem]
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, kernel, stride, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        if stem == "imagenet":
            self.stem.append(nn.MaxPool2d(3, 2, padding=1))
        widths = [width, width, 2 * width, 4 * width, 8 * width]
        self.blocks = nn.Sequential(*itertools.starmap(_block, itertools.pairwise(widths)))
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
            if isinstance(m, BasicBlock):
                nn.init.constant_(m.bn2.weight, BRANCH_START)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.stem(x)).mean((2, 3))


def _block(inputs: int, outputs: int) -> BasicBlock:
    """One of torchvision's blocks; a wider one halves the resolution."""
    if inputs == outputs:
        return BasicBlock(inputs, outputs)
    shortcut = nn.Conv2d(inputs, outputs, 1, stride=2, bias=False)
    return BasicBlock(inputs, outputs, 2, nn.Sequential(shortcut, nn.BatchNorm2d(outputs)))


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
    """torchvision's vision transformer; patches of 4 pixels for small images, else of 16."""
    patch = 4 if stem == "cifar" else 16
    if image_size % patch:
        near = max(1, round(image_size / patch)) * patch
        raise ValueError(
            f"image_size={image_size} is not a multiple of {patch}, a patch of stem={stem!r}. Take {near}."
        )
    net = VisionTransformer(image_size, patch, 12, heads, hidden_dim=dim, mlp_dim=4 * dim)
    net.heads = nn.Identity()
    return net, dim


ENCODERS: dict[str, Callable[[str, int], tuple[nn.Module, int]]] = {
    "small_resnet": lambda stem, size: (SmallResNet(24), 192),
    "small_resnet_wide": lambda stem, size: (SmallResNet(48), 384),
    "narrow_resnet": lambda stem, size: (SmallResNet(12, stem), 96),  # to compare stems on a CPU
    "resnet18": lambda stem, size: _resnet(resnet18, stem),
    "resnet34": lambda stem, size: _resnet(resnet34, stem),
    "resnet50": lambda stem, size: _resnet(resnet50, stem),
    "vit_tiny": lambda stem, size: _vit(192, 3, stem, size),
    "vit_small": lambda stem, size: _vit(384, 6, stem, size),
}


def build_encoder(
    name: str, stem: str = "imagenet", image_size: int = 224, weights: bool = False
) -> tuple[nn.Module, int]:
    """An encoder by name, randomly initialised, and the dimension of its features.

    The encoder maps float images (N, 3, H, W) to features (N, dim). name: one of ``ENCODERS``, or "timm/NAME",
    "torchvision/NAME", "hf/NAME" (see ``storage/libraries.py``). stem, of our own names: "imagenet" (7 x 7, stride 2,
    max-pool; patches of 16) or "cifar" (3 x 3, stride 1, no max-pool; patches of 4). image_size matters to vision
    transformers only. weights: begin with those that the folder of hf/FOLDER holds, if any. Raises ValueError for an
    unknown name or stem, or a size that does not divide into patches.

    >>> build_encoder("resnet18", stem="cifar")[1]
    512
    """
    check_encoder(name, ENCODERS)
    if stem not in STEMS:
        raise ValueError(f"stem must be one of {', '.join(STEMS)}, got {stem!r}.")
    own = ENCODERS.get(name)
    return own(stem, image_size) if own else library_encoder(name, stem, image_size, weights)


class Projector(nn.Sequential):
    """The head of the published code: linear layers without bias, batch norm and ReLU between them.

    (N, inputs) -> (N, dim). The last batch norm has no weight or bias: it standardises each dimension, as
    the loss does. ``hidden`` is the width of the inner layers (default: dim), ``layers`` how many linear
    layers there are (paper, section 3: three of 8192). last_norm=False leaves the last batch norm out, as BYOL
    and VICReg do.

    >>> Projector(192, 512)(torch.rand(4, 192)).shape
    torch.Size([4, 512])
    """

    def __init__(
        self, inputs: int, dim: int, hidden: int | None = None, layers: int = 3, last_norm=True
    ):
        widths = [inputs] + [hidden or dim] * (layers - 1) + [dim]
        parts: list[nn.Module] = []
        for i, o in zip(widths[:-1], widths[1:], strict=True):
            parts += [nn.Linear(i, o, bias=False), nn.BatchNorm1d(o), nn.ReLU(inplace=True)]
        parts[-2:] = [nn.BatchNorm1d(dim, affine=False)] if last_norm else []
        super().__init__(*parts)


class TwinModel(nn.Module):
    """What Barlow Twins and its relatives share: encoder, projector, and a call that takes two views.

    ``model(view1, view2)`` returns the scalar loss and a dictionary of detached 0-d tensors. config: a mapping
    with any of ``settings``. encoder: a name (see ``ENCODERS``) or any module from images or vectors to (N, dim)
    features, which needs encoder_dim=dim; with only encoder_dim=2048, a ResNet-50. joint_views: as in the paper's
    code the views pass one after the other, and batch norm sees one at a time; True sends both at once, which is a
    little faster, and batch norm's statistics are then those of both together. Settings of other methods are
    accepted and ignored, so that one mapping serves all methods.

    Raises ValueError for an unknown key or a value that does not fit.
    """

    method = ""
    last_norm = True  # whether the projector ends with batch norm
    side_by_side: SideBySide | None = None  # for training: both views at once, on several threads
    settings: ClassVar = {
        "encoder": Setting(None, "network from images to features, by name", object, null=True),
        "encoder_dim": Setting(None, "width of the features, to be checked", int, 1, null=True),
        "stem": Setting("imagenet", "first layers, for large or small images", choices=STEMS),
        "image_size": Setting(224, "pixels of a view's side", int, 8),
        "proj_dim": Setting(8192, "D, the width of the embeddings", int, 1),
        "proj_hidden": Setting(None, "width between; null: proj_dim", int, 1, null=True),
        "proj_layers": Setting(3, "linear layers of the projector", int, 1),
        "joint_views": Setting(False, "both views in one pass of the network", choices=SWITCH),
    }
    known: ClassVar = dict(settings)  # of all methods

    def __init_subclass__(cls, **options: Any) -> None:
        """A method's own settings are known from now on."""
        super().__init_subclass__(**options)
        TwinModel.known.update(cls.settings)

    def __init__(self, config: Mapping[str, Any] | None = None, **overrides: Any):
        super().__init__()
        table = {**TwinModel.known, **self.settings}
        self.config = complete(table, {**(config or {}), **overrides})
        self.encoder, self.encoder_dim = _encoder(self.config)
        shape = (self.config[key] for key in ("proj_dim", "proj_hidden", "proj_layers"))
        self.projector = Projector(self.encoder_dim, *shape, self.last_norm)

    def after_step(self, step: int, total: int) -> None:
        """Called after each of ``total`` updates; most methods have nothing to do."""

    def encode(self, x: Tensor) -> Tensor:
        """Images -> features h, (N, encoder_dim), before the projector: what one uses after training."""
        features = self.encoder(x)
        check_features(features, "The encoder", self.encoder_dim)
        return features

    def embed(self, x: Tensor) -> Tensor:
        """Images -> embeddings z after the projector, (N, proj_dim). The loss sees these."""
        return self.projector(self.encode(x))

    def _embed_both(self, view1: Tensor, view2: Tensor) -> tuple[Tensor, Tensor]:
        if len(view1) != len(view2):
            raise ValueError(f"The views differ in batch size: {len(view1)} and {len(view2)}.")
        if self.config["joint_views"]:
            z_a, z_b = self.embed(torch.cat((view1, view2))).chunk(2)
            return z_a, z_b
        if self.side_by_side and torch.get_num_threads() > 1 and torch.is_grad_enabled():
            return self.side_by_side(view1, view2)
        return self.embed(view1), self.embed(view2)

    @torch.no_grad()
    def cross_correlation(self, view1: Tensor, view2: Tensor) -> Tensor:
        """C, (D, D), of two batches of views, as training would see it; the model stays as it was."""
        with batch_statistics(self):
            return cross_correlation(*self._embed_both(view1, view2))


class BarlowTwinsModel(TwinModel):
    """Encoder, projector and the Barlow Twins loss in one module; ``config`` as for ``TwinModel``.

    A call returns the loss and its metrics: "loss", "on_diag_loss" (Σ(1 − C_ii)²), "off_diag_loss" (Σ_{i≠j} C_ij²,
    not multiplied by lambd) and "cross_corr_diag_mean". They wait for the device only when they are read.

    >>> model = BarlowTwinsModel(encoder="small_resnet", proj_dim=16, lambd=0.01)
    >>> loss, metrics = model(torch.rand(4, 3, 32, 32), torch.rand(4, 3, 32, 32))
    >>> loss.shape, sorted(metrics)
    (torch.Size([]), ['cross_corr_diag_mean', 'loss', 'off_diag_loss', 'on_diag_loss'])
    """

    method = "barlow_twins"
    settings: ClassVar = {
        "lambd": Setting(0.005, "weight of the redundancy term", float, 0),
        "form": Setting("auto", "the loss by C, or by Gram matrices", choices=FORMS),
        "eps": Setting(0.0, "added to the variances in the loss; published: 1e-5", float, 0),
    }

    @property
    def last_norm(self) -> bool:
        """Whether the projector ends with batch norm; not where the loss has an eps, which would be added twice."""
        return not self.config["eps"]

    def forward(self, view1: Tensor, view2: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Two batches of views -> the loss and its parts."""
        z_a, z_b = self._embed_both(view1, view2)
        lambd, form, eps = (self.config[key] for key in ("lambd", "form", "eps"))
        terms = barlow_twins_loss(z_a, z_b, lambd, form, eps=eps)
        return terms.loss, {"loss": terms.loss.detach()} | correlation_metrics(terms)


def correlation_metrics(terms: LossTerms) -> dict[str, Tensor]:
    """The two sums of the loss and the mean of C's diagonal, detached."""
    return {
        "on_diag_loss": terms.invariance.detach(),
        "off_diag_loss": terms.redundancy.detach(),
        "cross_corr_diag_mean": terms.diagonal.detach().mean(),
    }


def _encoder(config: Mapping[str, Any]) -> tuple[nn.Module, int]:
    """The encoder that a configuration asks for, and the width of its features."""
    encoder, dim = config["encoder"], config["encoder_dim"]
    if isinstance(encoder, nn.Module):
        if dim is None:
            raise ValueError("With a module as encoder, give encoder_dim, the width of its output.")
        return encoder, dim
    if encoder is None and dim not in (None, 2048):
        raise ValueError(
            f"encoder_dim={dim} alone does not say which encoder. Give encoder, a name or a module; "
            "only 2048 stands for ResNet-50."
        )
    net, actual = build_encoder(encoder or "resnet50", config["stem"], config["image_size"])
    if dim not in (None, actual):
        raise ValueError(
            f"encoder_dim={dim} does not match {encoder}, whose features have {actual} dimensions. "
            f"Leave encoder_dim out or set it to {actual}."
        )
    return net, actual
