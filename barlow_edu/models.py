"""The projector and the Barlow Twins model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from barlow_edu.encoders import build_encoder
from barlow_edu.loss import FORMS, LossTerms, barlow_twins_loss, cross_correlation
from barlow_edu.numerics.batchnorm import batch_statistics
from barlow_edu.storage.files import did_you_mean

# What a model's configuration may hold, with the paper's values.
MODEL_DEFAULTS: dict[str, Any] = {
    "encoder": None,
    "encoder_dim": None,
    "stem": "imagenet",
    "image_size": 224,
    "proj_dim": 8192,
    "proj_hidden": None,
    "proj_layers": 3,
    "lambd": 0.005,
    "form": "auto",
    "joint_views": False,
    # of the relatives, see relatives.py
    "temperature": 0.1,
    "predictor": True,
    "pred_hidden": None,
    "stop_gradient": True,
    "ema": 0.996,
    "invariance_weight": 25.0,
    "variance_weight": 25.0,
    "covariance_weight": 1.0,
    # of the ablations, see ablations.py
    "ablate": {},
}


class Projector(nn.Sequential):
    """The head of the published code: linear layers without bias, batch norm and ReLU between them.

    (N, inputs) -> (N, dim). The last batch norm has no weight or bias: it standardises each dimension, as
    the loss does. ``hidden`` is the width of the inner layers (default: dim), ``layers`` how many linear
    layers there are (paper, section 3: three of 8192). last_norm=False leaves the last batch norm out, as BYOL
    and VICReg do.
    """

    def __init__(
        self,
        inputs: int,
        dim: int,
        hidden: int | None = None,
        layers: int = 3,
        last_norm: bool = True,
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
    with any of
      encoder: a name (see ``encoders.ENCODERS``) or any module from images or vectors to (N, dim) features;
        with only encoder_dim=2048 given, a ResNet-50;
      encoder_dim: dimension of the features; checked, and needed when the encoder is a module;
      stem, image_size: see ``build_encoder``;
      proj_dim=8192, proj_hidden=proj_dim, proj_layers=3: the projector;
      joint_views=False: how the views go through the network. As in the paper's code they go one after the
        other, and batch norm sees one view at a time; True sends both at once, which is a little faster, and
        batch norm's statistics are then those of both views together.
    Settings of another method are accepted and left alone, so that one mapping serves all of them.

    Raises ValueError for an unknown key or a value that does not fit.
    """

    method = ""
    last_norm = True  # whether the projector ends with batch norm

    def __init__(self, config: Mapping[str, Any] | None = None, **overrides: Any):
        super().__init__()
        given = {**(config or {}), **overrides}
        unknown = set(given) - set(MODEL_DEFAULTS)
        if unknown:
            raise ValueError(
                f"Unknown model setting {', '.join(sorted(unknown))}.{did_you_mean(unknown, MODEL_DEFAULTS)} "
                f"Known: {', '.join(MODEL_DEFAULTS)}."
            )
        self.config = {**MODEL_DEFAULTS, **given}
        _check_model_config(self.config)
        self.encoder, self.encoder_dim = _encoder(self.config)
        self.projector = Projector(
            self.encoder_dim,
            self.config["proj_dim"],
            self.config["proj_hidden"],
            self.config["proj_layers"],
            self.last_norm,
        )

    def after_step(self, step: int, total: int) -> None:
        """Called when ``step`` of ``total`` updates are done; here nothing has to happen."""

    def encode(self, x: Tensor) -> Tensor:
        """Images -> features h before the projector, (N, encoder_dim). These are what is kept."""
        features = self.encoder(x)
        if not isinstance(features, Tensor):
            raise ValueError(
                f"The encoder returned a {type(features).__name__}, but it must return a tensor "
                f"(N, {self.encoder_dim}). Wrap it in a module that picks its features."
            )
        if features.ndim != 2 or features.shape[1] != self.encoder_dim:
            raise ValueError(
                f"The encoder returned shape {tuple(features.shape)}, but encoder_dim is "
                f"{self.encoder_dim}: it must return (N, {self.encoder_dim}). Set encoder_dim to its "
                "output, or flatten or pool that."
            )
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
        return self.embed(view1), self.embed(view2)

    @torch.no_grad()
    def cross_correlation(self, view1: Tensor, view2: Tensor) -> Tensor:
        """C (D, D) of two batches of views as training would see it; the model is left as it was."""
        with batch_statistics(self):
            return cross_correlation(*self._embed_both(view1, view2))


class BarlowTwinsModel(TwinModel):
    """Encoder, projector and the Barlow Twins loss in one module; ``config`` as for ``TwinModel``, and

      lambd=0.005, form="auto": the loss.

    The metrics are "loss", "on_diag_loss" (Σ(1 − C_ii)²), "off_diag_loss" (Σ_{i≠j} C_ij², not multiplied by
    lambd) and "cross_corr_diag_mean". Reading none of them costs no device synchronisation.
    """

    method = "barlow_twins"

    def forward(self, view1: Tensor, view2: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Two batches of views -> the loss and its parts."""
        z_a, z_b = self._embed_both(view1, view2)
        terms = barlow_twins_loss(z_a, z_b, self.config["lambd"], self.config["form"])
        return terms.loss, {"loss": terms.loss.detach()} | correlation_metrics(terms)


def correlation_metrics(terms: LossTerms) -> dict[str, Tensor]:
    """What is told of C, detached."""
    return {
        "on_diag_loss": terms.invariance.detach(),
        "off_diag_loss": terms.redundancy.detach(),
        "cross_corr_diag_mean": terms.diagonal.detach().mean(),
    }


def _check_model_config(config: Mapping[str, Any]) -> None:
    widths = ("proj_dim", "proj_hidden", "pred_hidden", "encoder_dim")
    for key in (*widths, "proj_layers", "image_size"):
        value = config[key]
        if value is None and key in widths[1:]:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{key} must be a whole number of at least 1, got {value!r}.")
    if not isinstance(config["lambd"], (int, float)) or not config["lambd"] >= 0:
        raise ValueError(f"lambd must be 0 or more, got {config['lambd']!r}.")
    for key in ("invariance_weight", "variance_weight", "covariance_weight"):
        if not isinstance(config[key], (int, float)) or not config[key] >= 0:
            raise ValueError(f"{key} must be 0 or more, got {config[key]!r}.")
    if not isinstance(config["temperature"], (int, float)) or not config["temperature"] > 0:
        raise ValueError(f"temperature must be above 0, got {config['temperature']!r}.")
    if not isinstance(config["ema"], (int, float)) or not 0 <= config["ema"] <= 1:
        raise ValueError(f"ema must be between 0 and 1, got {config['ema']!r}.")
    for key in ("joint_views", "predictor", "stop_gradient"):
        if not isinstance(config[key], bool):
            raise ValueError(f"{key} must be True or False, got {config[key]!r}.")
    if config["form"] not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, got {config['form']!r}.")


def _encoder(config: Mapping[str, Any]) -> tuple[nn.Module, int]:
    """The encoder a configuration asks for, and its feature dimension."""
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
