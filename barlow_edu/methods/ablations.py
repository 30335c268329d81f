"""Barlow Twins with one thing taken away or added: the paper's ablations (its tables 5 and 6).

What changes stands in the configuration's ``ablate``, for instance ``ablate: {hidden_bn: false}``. Everything else,
views, encoder, loop and record, is that of ``BarlowTwinsModel``.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from barlow_edu.loss import LossTerms, barlow_twins_loss
from barlow_edu.methods.relatives import build_predictor
from barlow_edu.models import BarlowTwinsModel, correlation_metrics
from barlow_edu.numerics.correlation import at_least_float32
from barlow_edu.numerics.distributed import all_reduce, world_size
from barlow_edu.settings import SWITCH, Setting, complete

STANDARDISE = ("batch", "both", "features", "none")
ABLATE = {
    "hidden_bn": Setting(True, "batch norm inside the projector", choices=SWITCH),
    "standardise": Setting("batch", "see ablated_loss", choices=STANDARDISE),
    "terms": Setting("both", "see ablated_loss", choices=("both", "invariance", "redundancy")),
    "predictor": Setting(False, "behind the first view's projector", choices=SWITCH),
    "stop_gradient": Setting(False, "through the second view", choices=SWITCH),
}


def ablated_loss(
    z_a: Tensor, z_b: Tensor, lambd: float, standardise: str = "batch", terms: str = "both"
) -> LossTerms:
    """The loss with another normalisation, or with one of its terms alone: (N, D), (N, D) -> LossTerms.

    standardise: "batch" is the paper's loss; "features" scales every embedding (a row) to length √D in its place, and
    C = Z_AᵀZ_B / N of these; "both" does this first and standardises along the batch then; "none" takes the
    embeddings as they are. terms: which of the two enters ``loss``; the parts are there in any case.
    """
    z_a, z_b = at_least_float32(z_a), at_least_float32(z_b)
    if standardise in ("features", "both"):
        z_a, z_b = (F.normalize(z, dim=1) * z.shape[1] ** 0.5 for z in (z_a, z_b))
    loss = barlow_twins_loss if standardise in ("batch", "both") else _raw
    parts = loss(z_a, z_b, lambd)
    alone = {"invariance": parts.invariance, "redundancy": lambd * parts.redundancy}
    return parts._replace(loss=alone.get(terms, parts.loss))


def _raw(z_a: Tensor, z_b: Tensor, lambd: float) -> LossTerms:
    """The loss of C = Z_AᵀZ_B / N, of all ranks, without centring or scaling."""
    c = all_reduce(z_a.T @ z_b) / (len(z_a) * world_size())
    diagonal = c.diagonal()
    invariance = (1 - diagonal).square().sum()
    redundancy = c.square().sum() - diagonal.square().sum()
    return LossTerms(invariance + lambd * redundancy, invariance, redundancy, diagonal)


class AblatedBarlowTwins(BarlowTwinsModel):
    """``BarlowTwinsModel`` with ``ablate``, a mapping with any of

      hidden_bn=True: False leaves the batch norms between the projector's layers out (paper, table 5: 71.2
        in place of 71.4) and gives the layers biases in their place;
      standardise="batch", terms="both": see ``ablated_loss`` (without batch normalisation in both places 53.4;
        along the features too 69.8; invariance alone 57.3, redundancy alone 0.1);
      predictor=False: True puts BYOL's predictor behind the first view's projector (table 6: 70.2);
      stop_gradient=False: True lets no gradient through the second view (70.5; with the predictor 61.3).

    The last batch norm of the projector is there only where the loss standardises along the batch alone. The setting
    ``eps`` has no effect here.
    """

    settings: ClassVar = {
        "ablate": Setting({}, "what is changed, as {hidden_bn: false}", dict, inside=ABLATE)
    }

    def __init__(self, config: Mapping[str, Any] | None = None, **overrides: Any):
        super().__init__(config, **overrides)
        if not self.ablate["hidden_bn"]:
            self.projector = _without_hidden_norm(self.projector)
        dim = self.config["proj_dim"]
        self.predictor = build_predictor(dim, dim) if self.ablate["predictor"] else nn.Identity()

    @property
    def ablate(self) -> dict[str, Any]:
        """What is taken away or added, with the defaults."""
        return complete(ABLATE, self.config["ablate"], "ablate.")

    @property
    def last_norm(self) -> bool:
        """Whether the projector ends with batch norm."""
        return self.ablate["standardise"] == "batch"

    def forward(self, view1: Tensor, view2: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        z_a, z_b = self._embed_both(view1, view2)
        ablate = self.ablate
        if ablate["stop_gradient"]:
            z_b = z_b.detach()
        how = ablate["standardise"], ablate["terms"]
        terms = ablated_loss(self.predictor(z_a), z_b, self.config["lambd"], *how)
        return terms.loss, {"loss": terms.loss.detach()} | correlation_metrics(terms)


def _without_hidden_norm(projector: nn.Sequential) -> nn.Sequential:
    """The projector without the batch norms that have weights; its layers but the last get biases."""
    layers = [m for m in projector if not (isinstance(m, nn.BatchNorm1d) and m.affine)]
    for i, m in enumerate(layers[:-2]):
        if isinstance(m, nn.Linear):
            layers[i] = nn.Linear(m.in_features, m.out_features)
    return nn.Sequential(*layers)
