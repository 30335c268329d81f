"""The Barlow Twins loss (Zbontar et al., ICML 2021, equations 1 and 2): first plain, then fast.

Let A and B, (N, D), be the embeddings of the two views, each column standardised along the batch. Their
cross-correlation matrix is C = AᵀB / N, (D, D), and the loss is

    L = Σ_i (1 − C_ii)² + λ Σ_{i≠j} C_ij².

``plain_loss`` says just that. ``barlow_twins_loss`` has the same value, with the gradient in closed form
(``numerics/correlation.py``): many times faster where D is large, and exact over several processes.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from barlow_edu.numerics import correlation
from barlow_edu.numerics.batchnorm import warn_unsynchronized
from barlow_edu.numerics.distributed import Group, active_group, all_reduce, world_size


def plain_loss(z_a: Tensor, z_b: Tensor, lambd: float = 0.005) -> Tensor:
    """The loss as one reads it in the paper, differentiated by autograd: (N, D), (N, D) -> scalar.

    For one process, and for embeddings whose columns all vary: a constant column gives NaN.

    >>> z = torch.tensor([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]])  # the second dimension repeats the first
    >>> round(plain_loss(z, z, lambd=0.5).item(), 4)  # C is all ones
    1.0
    """
    a = (z_a - z_a.mean(0)) / z_a.std(0, correction=0)
    b = (z_b - z_b.mean(0)) / z_b.std(0, correction=0)
    c = a.T @ b / len(a)
    diagonal = torch.eye(len(c), dtype=torch.bool, device=c.device)
    invariance = (1 - c[diagonal]).square().sum()
    redundancy = c[~diagonal].square().sum()
    return invariance + lambd * redundancy


FORMS = ("auto", "matrix", "gram")
SENDING = 500  # what sending a number costs, in multiplications: some hundreds on most machines


class LossTerms(NamedTuple):
    """The loss and its parts, all of them differentiable: three scalars, and the diagonal of C.

    >>> LossTerms._fields
    ('loss', 'invariance', 'redundancy', 'diagonal')
    """

    loss: Tensor  # invariance + lambd * redundancy
    invariance: Tensor  # Σ_i (1 − C_ii)²
    redundancy: Tensor  # Σ_{i≠j} C_ij², not yet multiplied by lambd
    diagonal: Tensor  # (D,), the correlations C_ii


def standardize(z: Tensor, eps: float = 0.0, group: Group = None) -> Tensor:
    """Shift and scale each column of ``z`` to mean 0 and (biased) variance 1 over the batch: (N, D) -> (N, D).

    The batch is that of all processes in ``group``. ``eps`` is added to the variance: 0 is the paper's formula, 1e-5
    is what the published code's batch normalisation adds. A column that varies by no more than rounding becomes zero
    and gets no gradient. Half precision becomes float32. Raises ValueError as :func:`cross_correlation` does.

    >>> standardize(torch.tensor([[1.0, 5.0], [3.0, 5.0]])).tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """
    group = active_group(group)
    [z] = correlation.check_embeddings(z, group=group)
    return correlation.Standardize.apply(z, eps, group)


def cross_correlation(z_a: Tensor, z_b: Tensor, group: Group = None) -> Tensor:
    """Cross-correlation matrix C of two batches of embeddings (paper, eq. 2): (N, D), (N, D) -> (D, D).

    C_ij is the Pearson correlation, over the batch, of dimension i of view A with dimension j of view B: the standard
    deviation is the biased one and the sum is divided by N, so C_ii of two equal views is 1. A dimension without
    variance has correlation 0. Where several processes hold N rows each, C is that of all their rows.

    Raises ValueError if the inputs are not 2-D, not floating point, of unequal shapes, or of fewer than two rows.

    >>> z_a = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> cross_correlation(z_a, z_a.flip(1)).tolist()  # the same dimensions, in the other order
    [[0.0, 1.0], [1.0, 0.0]]
    """
    group = active_group(group)
    views = correlation.check_embeddings(z_a, z_b, group=group)
    with correlation.full_precision(z_a):
        a, b = (correlation.Standardize.apply(z, 0.0, group) for z in views)
        return all_reduce(a.T @ b, group) / (world_size(group) * len(a))


def barlow_twins_loss(
    z_a: Tensor, z_b: Tensor, lambd=0.005, form: str = "auto", group: Group = None, eps=0.0
) -> LossTerms:
    """Barlow Twins loss L = Σ_i (1 − C_ii)² + lambd Σ_{i≠j} C_ij² (paper, eq. 1).

    Shapes: (N, D), (N, D) -> LossTerms of scalars and a (D,) diagonal. ``form`` is "matrix" (builds C, D x D), "gram"
    (builds two N x N matrices) or "auto" (the cheaper of the two). Both are exact. Statistics and products are
    float32 or better, also under autocast. ``eps`` is added to the variances, as in ``standardize``.

    With several processes (``group``, default: torch's default group, if there is one) each passes its own N rows
    and gets the loss of all W N rows. The gradient of its own rows comes multiplied by W: DistributedDataParallel
    divides by W, and the gradient of one process with the whole batch remains. (The published code has 1/W of it:
    see ``distributed.published_scale``.) Raises ValueError for bad shapes, lambd < 0, or an unknown form.

    >>> z = torch.tensor([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]])
    >>> [round(term.item(), 4) for term in barlow_twins_loss(z, z, lambd=0.5)[:3]]
    [1.0, 0.0, 2.0]
    """
    group = active_group(group)
    views = correlation.check_embeddings(z_a, z_b, group=group)
    if not lambd >= 0:
        raise ValueError(f"lambd must be 0 or more, got {lambd}. The paper uses 0.005.")
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}.")
    if group is not None:
        warn_unsynchronized(z_a)
    if form == "auto":
        form = cheaper_form(world_size(group) * len(z_a), z_a.shape[1], world_size(group))
    with correlation.full_precision(z_a):
        return LossTerms(*correlation.Terms.apply(*views, lambd, form, group, eps))


def cheaper_form(batch_size: int, dim: int, world_size: int = 1) -> str:
    """The form that costs less, forward and backward, for N = ``batch_size`` rows in all W processes together.

    In the gram form each process does 4 N² D / W multiplications and gathers 2 N D numbers; in the matrix form it
    does 3 N D² / W and adds up D² numbers, which a ring sends twice.

    >>> cheaper_form(256, 8192), cheaper_form(2048, 128)
    ('gram', 'matrix')
    """
    sent = 2 * SENDING * (world_size - 1)  # both sides times W / D
    gram, matrix = (4 * batch_size + sent) * batch_size, (3 * batch_size + sent) * dim
    return "gram" if gram < matrix else "matrix"


def loss_floor(batch_size: int, dim: int, lambd: float) -> float:
    """The lowest loss that any embeddings of shape (batch_size, dim) can reach.

    Centring leaves C with rank at most r = min(N − 1, D), so ‖C‖²_F ≥ (tr C)² / r: with fewer samples than
    dimensions C cannot be the identity. Minimising over the trace gives, with K = D²/r − D, L ≥ D λ K / (D + λ K)
    for λ ≤ 1 (a Welch bound). For λ > 1 it is cheaper to switch dimensions off, and the bound is D − r.
    Raises ValueError if batch_size < 2, dim < 1 or lambd < 0.

    >>> loss_floor(256, 128, 0.005), round(loss_floor(256, 8192, 0.005), 1)
    (0.0, 1103.2)
    """
    if batch_size < 2 or dim < 1 or not lambd >= 0:
        got = f"batch_size={batch_size}, dim={dim}, lambd={lambd}"
        raise ValueError(f"loss_floor needs batch_size >= 2, dim >= 1 and lambd >= 0, got {got}.")
    rank = min(batch_size - 1, dim)
    excess = min(lambd, 1.0) * (dim / rank - 1)
    return dim * excess / (1 + excess)
