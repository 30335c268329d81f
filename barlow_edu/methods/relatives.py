"""The relatives of Barlow Twins: SimCLR, BYOL, VICReg and SimSiam, behind the same call.

They share the encoder, the views, the loop and the run folder; what differs is the loss, and what keeps the
embeddings from collapsing: negatives (SimCLR), a slow teacher and a predictor (BYOL), a predictor and a
stop-gradient (SimSiam), or terms of the loss itself (VICReg, and Barlow Twins).

In several processes each loss is that of the whole batch: the embeddings of all ranks are gathered, so that SimCLR
has the negatives, and VICReg the variances, of one process. Gradients are scaled as in ``barlow_twins_loss``.
"""

import copy
import math
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from barlow_edu.loss import barlow_twins_loss
from barlow_edu.models import BarlowTwinsModel, TwinModel, correlation_metrics
from barlow_edu.numerics.correlation import at_least_float32, check_embeddings
from barlow_edu.numerics.distributed import active_group, all_gather
from barlow_edu.settings import SWITCH, Setting

VARIANCE_EPSILON = 1e-4  # VICReg, section 4.1
PREDICTOR = {  # the settings of BYOL's and SimSiam's
    "predictor": Setting(True, "byol, simsiam: there is a predictor", choices=SWITCH),
    "pred_hidden": Setting(None, "byol, simsiam: its width; null: the paper's", int, 1, null=True),
    "stop_gradient": Setting(True, "byol, simsiam: no gradient through targets", choices=SWITCH),
}


def simclr_loss(z_a: Tensor, z_b: Tensor, temperature: float = 0.1) -> Tensor:
    """NT-Xent, the loss of SimCLR (Chen et al., ICML 2020, eq. 1): (N, D), (N, D) -> scalar.

    Every embedding has to find its twin among the 2 N − 1 others, by a softmax over cosine / temperature;
    the loss is the mean of −log p over all 2 N. Log 2 N − 1 means chance. Raises ValueError for bad shapes
    or temperature <= 0.

    >>> round(float(simclr_loss(torch.eye(4), torch.eye(4))), 4)  # twins alike, all others at right angles
    0.0003
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}. SimCLR takes 0.1.")
    z_a, z_b = _pair(z_a, z_b)
    with torch.autocast(z_a.device.type, enabled=False):
        z = F.normalize(torch.cat((z_a, z_b)), dim=1)  # (2 N, D)
        similarity = z @ z.T / temperature
        similarity.fill_diagonal_(-math.inf)  # not itself
        twin = torch.arange(len(z), device=z.device).roll(len(z_a))
        return F.cross_entropy(similarity, twin)


def negative_cosine(p: Tensor, target: Tensor) -> Tensor:
    """Mean over the batch of −cos(p, target): (N, D), (N, D) -> scalar between −1 and 1.

    SimSiam's loss of one side (Chen and He, CVPR 2021, eq. 1). Gradients flow to both: give
    ``target.detach()`` for the stop-gradient. Raises ValueError for bad shapes.
    """
    p, target = _pair(p, target)
    with torch.autocast(p.device.type, enabled=False):
        return -F.cosine_similarity(p, target, dim=1).mean()


def byol_loss(p: Tensor, target: Tensor) -> Tensor:
    """Mean squared distance of the normalised vectors, 2 − 2 cos(p, target): (N, D), (N, D) -> scalar.

    The loss of one side (Grill et al., NeurIPS 2020, eq. 2). Gradients flow to both, see ``negative_cosine``.

    >>> byol_loss(torch.eye(4), 2 * torch.eye(4))
    tensor(0.)
    """
    return 2 + 2 * negative_cosine(p, target)


class VICRegTerms(NamedTuple):
    """The loss of VICReg and its parts, scalars, not yet multiplied by their weights."""

    loss: Tensor
    invariance: Tensor
    variance: Tensor
    covariance: Tensor


def vicreg_loss(
    z_a: Tensor,
    z_b: Tensor,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
) -> VICRegTerms:
    """VICReg (Bardes et al., ICLR 2022, eq. 1 to 6, as the published code scales it).

    (N, D), (N, D) -> VICRegTerms. Invariance: mean of (z_a − z_b)² over all N D entries (the paper's eq. 5 has
    the sum over D; its code has the mean). Variance: mean over dimensions of max(0, 1 − √(Var + 0.0001)), mean
    of the two views (the paper adds them; its code halves). Covariance: Σ_{i≠j} Cov_ij² / D, added over the
    views. Var and Cov are divided by N − 1. The keyword arguments are the weights of the terms.

    Raises ValueError for bad shapes or a negative weight.

    >>> vicreg_loss(torch.eye(4), torch.eye(4)).variance  # 1 − √(1/4 + 0.0001)
    tensor(0.4999)
    """
    weights = {"invariance": invariance, "variance": variance, "covariance": covariance}
    for name, weight in weights.items():
        if not weight >= 0:
            raise ValueError(f"The weight of {name} must be 0 or more, got {weight}.")
    z_a, z_b = _pair(z_a, z_b)
    with torch.autocast(z_a.device.type, enabled=False):
        distance = F.mse_loss(z_a, z_b)
        centred = [z - z.mean(0) for z in (z_a, z_b)]
        variances = [x.square().sum(0) / (len(x) - 1) for x in centred]
        hinge = sum((1 - (v + VARIANCE_EPSILON).sqrt()).relu().mean() for v in variances) / 2
        off = sum(_off_diagonal(x, v) for x, v in zip(centred, variances, strict=True))
        loss = invariance * distance + variance * hinge + covariance * off
    return VICRegTerms(loss, distance, hinge, off)


def _off_diagonal(x: Tensor, variances: Tensor) -> Tensor:
    """Σ_{i≠j} Cov_ij² / D of centred x (N, D), from the smaller of its two Gram matrices.

    ‖XᵀX‖² = ‖XXᵀ‖²: the sum of all squares is the same, see notebook 13.
    """
    n, d = x.shape
    gram = x @ x.T if n < d else x.T @ x
    everything = torch.linalg.vector_norm(gram, dim=1).square().sum() / (n - 1) ** 2
    return (everything - variances.square().sum()) / d


def build_predictor(dim: int, hidden: int) -> nn.Sequential:
    """Linear, batch norm, ReLU, linear: (N, dim) -> (N, dim). ``hidden`` is the width between."""
    first, last = nn.Linear(dim, hidden, bias=False), nn.Linear(hidden, dim)
    return nn.Sequential(first, nn.BatchNorm1d(hidden), nn.ReLU(inplace=True), last)


class SimCLRModel(TwinModel):
    """Encoder, projector and NT-Xent; config as for ``TwinModel``.

    The embeddings are compared with all others of the batch: its size is part of the method. Metrics, here
    and below: "loss", those of C that Barlow Twins has, and "embedding_std" (see ``embedding_std``).

    >>> SimCLRModel(encoder="small_resnet", proj_dim=16).config["temperature"]
    0.1
    """

    method = "simclr"
    settings: ClassVar = {"temperature": Setting(0.1, "simclr: softmax temperature", float, 1e-3)}

    def forward(self, view1: Tensor, view2: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        z_a, z_b = self._embed_both(view1, view2)
        loss = simclr_loss(z_a, z_b, self.config["temperature"])
        return loss, _watch(loss, z_a, z_b)


class VICRegModel(TwinModel):
    """Encoder, projector without its last batch norm, and VICReg's loss; config as for ``TwinModel``.

    Metrics also hold the loss's three terms, "invariance", "variance" and "covariance", without their weights.

    >>> model = VICRegModel(encoder="small_resnet", proj_dim=16)
    >>> model(torch.rand(4, 3, 32, 32), torch.rand(4, 3, 32, 32))[1]["variance"].shape
    torch.Size([])
    """

    method = "vicreg"
    settings: ClassVar = {
        "invariance_weight": Setting(25.0, "vicreg: weight of the distance of the twins", float, 0),
        "variance_weight": Setting(25.0, "vicreg: weight of the variance term", float, 0),
        "covariance_weight": Setting(1.0, "vicreg: weight of the covariance term", float, 0),
    }
    last_norm = False

    def forward(self, view1: Tensor, view2: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        z_a, z_b = self._embed_both(view1, view2)
        names = ("invariance", "variance", "covariance")
        terms = vicreg_loss(z_a, z_b, *(self.config[f"{name}_weight"] for name in names))
        parts = {name: getattr(terms, name).detach() for name in names}
        return terms.loss, _watch(terms.loss, z_a, z_b) | parts


class SimSiamModel(TwinModel):
    """Encoder, projector and predictor; each view predicts the other's embedding, through which no gradient flows.

    config as for ``TwinModel``. The predictor is a bottleneck: its inner width is proj_dim / 4 unless pred_hidden
    says otherwise (paper: 512 of 2048). Switch predictor or stop_gradient off to see the collapse. The loss is the
    mean of the two negative cosines, between −1 and 1. The paper keeps the predictor's learning rate constant; here
    it follows the schedule of all others.

    >>> SimSiamModel(encoder="small_resnet", proj_dim=16).predictor[0]
    Linear(in_features=16, out_features=4, bias=False)
    """

    method = "simsiam"
    settings: ClassVar = PREDICTOR

    def __init__(self, config: Mapping[str, Any] | None = None, **overrides: Any):
        super().__init__(config, **overrides)
        self.predictor = _predictor(self.config, max(1, self.config["proj_dim"] // 4))

    def forward(self, view1: Tensor, view2: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        z_a, z_b = self._embed_both(view1, view2)
        targets = (z_a.detach(), z_b.detach()) if self.config["stop_gradient"] else (z_a, z_b)
        p_a, p_b = self.predictor(z_a), self.predictor(z_b)
        loss = (negative_cosine(p_a, targets[1]) + negative_cosine(p_b, targets[0])) / 2
        return loss, _watch(loss, z_a, z_b)


class BYOLModel(TwinModel):
    """Encoder, projector, predictor, and a teacher: a slow average of encoder and projector, without gradient.

    config as for ``TwinModel``. ema is the share of the teacher that stays at the first step; it rises to 1 by a
    half cosine. The predictor's inner width is pred_hidden, or proj_hidden, or proj_dim (paper: 4096 of both).
    Switch the predictor off to see the collapse; stop_gradient=False takes the teacher away: the targets are the
    network's own embeddings, and gradient flows through them. The projector has no last batch norm. The loss is the
    sum of both sides, between 0 and 8. Grill et al., 2020.

    >>> model = BYOLModel(encoder="small_resnet", proj_dim=16)
    >>> any(p.requires_grad for p in model.teacher_encoder.parameters())
    False
    """

    method = "byol"
    settings: ClassVar = {
        **PREDICTOR,
        "ema": Setting(
            0.996, "byol: share of the teacher that stays at the first step", float, 0, 1
        ),
    }
    last_norm = False

    def __init__(self, config: Mapping[str, Any] | None = None, **overrides: Any):
        super().__init__(config, **overrides)
        own = self.config
        self.predictor = _predictor(own, own["proj_hidden"] or own["proj_dim"])
        self.teacher_encoder = copy.deepcopy(self.encoder).requires_grad_(False)
        self.teacher_projector = copy.deepcopy(self.projector).requires_grad_(False)

    def forward(self, view1: Tensor, view2: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        z_a, z_b = self._embed_both(view1, view2)
        targets = self._teach(view1, view2) if self.config["stop_gradient"] else (z_a, z_b)
        p_a, p_b = self.predictor(z_a), self.predictor(z_b)
        loss = byol_loss(p_a, targets[1]) + byol_loss(p_b, targets[0])
        return loss, _watch(loss, z_a, z_b)

    @torch.no_grad()
    def _teach(self, view1: Tensor, view2: Tensor) -> tuple[Tensor, Tensor]:
        if self.config["joint_views"]:
            both = self.teacher_projector(self.teacher_encoder(torch.cat((view1, view2))))
            return both.chunk(2)
        return tuple(self.teacher_projector(self.teacher_encoder(v)) for v in (view1, view2))

    @torch.no_grad()
    def after_step(self, step: int, total: int) -> None:
        """The teacher takes a step towards the network; ``step`` of ``total`` updates are done.

        Batch norm's running averages are not averaged: the teacher's own batches make them.
        """
        keep = momentum(self.config["ema"], step - 1, total)
        pairs = ((self.teacher_encoder, self.encoder), (self.teacher_projector, self.projector))
        for teacher, network in pairs:
            weights = list(teacher.parameters())
            torch._foreach_lerp_(weights, list(network.parameters()), 1 - keep)


def momentum(base: float, step: int, total: int) -> float:
    """1 − (1 − base) (cos(π step / total) + 1) / 2: from base to 1 (Grill et al., 2020, section 3.2)."""
    return 1 - (1 - base) * (math.cos(math.pi * min(1.0, step / max(1, total))) + 1) / 2


def embedding_std(z: Tensor) -> Tensor:
    """Standard deviation over the batch of z / |z|, mean over dimensions, times √D: (N, D) -> scalar.

    About 1 when the embeddings point everywhere, 0 when all point the same way: a complete collapse. On a line
    they still look alive; see ``spectra.rankme``. Chen and He, 2021, section 4.1.
    """
    unit = F.normalize(all_gather(at_least_float32(z)), dim=1)
    return unit.std(0, correction=0).mean() * z.shape[1] ** 0.5


METHODS: dict[str, type[TwinModel]] = {
    model.method: model
    for model in (BarlowTwinsModel, SimCLRModel, BYOLModel, VICRegModel, SimSiamModel)
}


def _predictor(config: Mapping[str, Any], hidden: int) -> nn.Module:
    if not config["predictor"]:
        return nn.Identity()
    return build_predictor(config["proj_dim"], config["pred_hidden"] or hidden)


@torch.no_grad()
def _watch(loss: Tensor, z_a: Tensor, z_b: Tensor) -> dict[str, Tensor]:
    """What every method logs: C costs two small products more."""
    terms = barlow_twins_loss(z_a, z_b, 0.0)
    seen = {"loss": loss.detach()} | correlation_metrics(terms)
    return seen | {"embedding_std": embedding_std(z_a)}


def _pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float32 or better, rows of all ranks. Raises ValueError unless (N, D) both, N of 2 or more, floats."""
    return tuple(map(all_gather, check_embeddings(a, b, group=active_group())))
