"""The Barlow Twins loss, exact, in two forms.

With embeddings standardised along the batch, A and B of shape (N, D), the cross-correlation matrix is
C = AᵀB / N and the loss (Zbontar et al., ICML 2021, eq. 1 and 2) is

    L = Σ_i (1 − C_ii)² + λ Σ_{i≠j} C_ij².

The second sum equals ‖C‖²_F − Σ C_ii², and ‖C‖²_F = ⟨AAᵀ, BBᵀ⟩ / N². So the D x D matrix never has to
exist: the "gram" form builds two N x N matrices instead. Both forms are exact; "auto" takes the cheaper.

Where several processes hold a share of the batch each, mean, variance, N and C are those of the whole batch,
and so are the gradients (see ``distributed.py``). The matrix form adds up C, D x D, over the processes; the gram
form gathers the embeddings, and each process builds its own rows of the N x N matrices.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from barlow_edu.numerics.distributed import (
    active_group,
    add_up,
    all_reduce,
    check_equal_shapes,
    collect,
    own_rows,
    standardize_across,
)

if TYPE_CHECKING:  # some builds of torch come without
    from torch.distributed import ProcessGroup

FORMS = ("auto", "matrix", "gram")
SENDING = 500  # what it costs to send a number, in multiplications: some hundred on most machines


class LossTerms(NamedTuple):
    """The loss and its parts. All are differentiable.

    loss: scalar, invariance + lambd * redundancy.
    invariance: scalar, Σ_i (1 − C_ii)².
    redundancy: scalar, Σ_{i≠j} C_ij², not yet multiplied by lambd.
    diagonal: (D,), the correlations C_ii.
    """

    loss: Tensor
    invariance: Tensor
    redundancy: Tensor
    diagonal: Tensor


def standardize(z: Tensor, eps: float = 0.0, group: ProcessGroup | None = None) -> Tensor:
    """Shift and scale each column of ``z`` to mean 0 and (biased) variance 1 over the batch.

    Shapes: (N, D) -> (N, D). The batch is that of all processes in ``group`` (default: torch's default group, if
    there is one), each with N rows. ``eps`` is added to the variance: 0 is the paper's formula, 1e-5 is what
    the published code's batch normalisation does. A column without variance, up to rounding, becomes
    zero and gets no gradient. Half-precision input is computed and returned in float32.
    """
    group = active_group(group)
    _check_embedding(z, group)
    return _Standardize.apply(_at_least_float32(z), eps, group)


def cross_correlation(z_a: Tensor, z_b: Tensor, group: ProcessGroup | None = None) -> Tensor:
    """Cross-correlation matrix C of two batches of embeddings (paper, eq. 2).

    Shapes: (N, D), (N, D) -> (D, D). C_ij is the Pearson correlation, over the batch, of dimension i of
    view A with dimension j of view B: both use the biased standard deviation, and the sum is divided by
    N, so C_ii of two equal views is 1. A dimension without variance has correlation 0. Where several
    processes hold N rows each, C is that of all their rows, the same in each process.

    Raises ValueError if the inputs are not 2-D, differ in shape, hold fewer than two samples, or are not
    floating point.
    """
    group = active_group(group)
    _check_pair(z_a, z_b, group)
    with _full_precision(z_a):
        c = standardize(z_a, group=group).T @ standardize(z_b, group=group)
        return all_reduce(c, group) / _rows(z_a, group)


def barlow_twins_loss(
    z_a: Tensor,
    z_b: Tensor,
    lambd: float = 0.005,
    form: str = "auto",
    group: ProcessGroup | None = None,
) -> LossTerms:
    """Barlow Twins loss L = Σ_i (1 − C_ii)² + lambd Σ_{i≠j} C_ij² (paper, eq. 1).

    Shapes: (N, D), (N, D) -> LossTerms of scalars and a (D,) diagonal. ``form`` is "matrix" (builds C,
    D x D), "gram" (builds two N x N matrices) or "auto" (the cheaper of the two; same value). Statistics
    and products are float32 or better, also under autocast.

    In several processes (``group``, default: torch's default group, if there is one) each gives its own N rows,
    and gets the loss of all rows. The gradient of its rows comes multiplied by the number of processes W:
    DistributedDataParallel divides by W, and what remains is the gradient of one process with the whole batch.
    The published code's gradients are 1/W of these; ``distributed.published_scale`` reproduces that.

    Raises ValueError for bad shapes (see :func:`cross_correlation`), lambd < 0, or an unknown form.
    """
    group = active_group(group)
    _check_pair(z_a, z_b, group)
    if not lambd >= 0:
        raise ValueError(f"lambd must be 0 or more, got {lambd}. The paper uses 0.005.")
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}.")
    if form == "auto":
        processes = 1 if group is None else group.size()
        form = cheaper_form(processes * len(z_a), z_a.shape[1], processes)
    with _full_precision(z_a):
        z_a, z_b = _at_least_float32(z_a), _at_least_float32(z_b)
        return LossTerms(*_BarlowTwins.apply(z_a, z_b, lambd, form, group))


def cheaper_form(batch_size: int, dim: int, processes: int = 1) -> str:
    """The form that costs less, forward and backward, for N = ``batch_size`` rows in all W ``processes`` together.

    Each process multiplies 4 N² D / W times in the gram form, 3 N D² / W times in the matrix form. The gram form
    gathers 2 N D numbers, the matrix form adds up D² (a ring sends them twice); a number sent counts SENDING
    multiplications.
    """
    sent = 2 * SENDING * (processes - 1)  # both sides times W / D
    gram, matrix = (4 * batch_size + sent) * batch_size, (3 * batch_size + sent) * dim
    return "gram" if gram < matrix else "matrix"


def loss_floor(batch_size: int, dim: int, lambd: float) -> float:
    """The lowest loss that any embeddings of shape (batch_size, dim) can reach.

    Centring leaves C with rank at most r = min(N − 1, D), so ‖C‖²_F ≥ (tr C)² / r: with fewer samples than
    dimensions C cannot be the identity. Minimising over the trace gives, with K = D²/r − D,
    L ≥ D λ K / (D + λ K) for λ ≤ 1 (a Welch bound). For λ > 1 switching dimensions off is cheaper and the
    bound stays at its value for λ = 1, D − r. Zero when D < N.

    Raises ValueError if batch_size < 2, dim < 1 or lambd < 0.
    """
    if batch_size < 2 or dim < 1 or not lambd >= 0:
        raise ValueError(
            "loss_floor needs batch_size >= 2, dim >= 1 and lambd >= 0, "
            f"got batch_size={batch_size}, dim={dim}, lambd={lambd}."
        )
    rank = min(batch_size - 1, dim)
    excess = min(lambd, 1.0) * (dim / rank - 1)
    return dim * excess / (1 + excess)


class _Standardize(torch.autograd.Function):
    """Column-wise standardisation that keeps only its output and D scales for the backward pass."""

    @staticmethod
    def forward(ctx, z: Tensor, eps: float, group: ProcessGroup | None) -> Tensor:
        out, scale = _standardize(z, eps, group)
        ctx.group = group
        ctx.save_for_backward(out, scale)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        group = ctx.group
        with _full_precision(grad):
            mean = add_up(grad.mean(0), group)
            mean = mean if group is None else mean / group.size()
            return _standardize_backward(grad - mean, *ctx.saved_tensors, group), None, None


class _BarlowTwins(torch.autograd.Function):
    """Loss, invariance, redundancy and diagonal, with the gradient in closed form.

    With G = ∂L/∂C, column i of the gradient of view A is (1 / σ_i) [Σ_j G_ij b_j − a_i Σ_j G_ij C_ij]; view B
    has Gᵀ. So the way back through the standardisation costs one matrix product and one correction a view.
    """

    @staticmethod
    def forward(ctx, z_a, z_b, lambd: float, form: str, group) -> tuple[Tensor, ...]:
        n, own, views = _rows(z_a, group), slice(None), (z_a, z_b)
        if form == "gram":
            if group is not None:  # from here on every process holds all N rows
                own = own_rows(len(z_a), group)
                views = [collect(z, group).flatten(0, 1) for z in views]
            (a, scale_a), (b, scale_b) = map(_standardize, views)
            redundancy, diagonal, *products = _gram(a, b, own, group)
        else:
            (a, scale_a), (b, scale_b) = (_standardize(z, group=group) for z in views)
            redundancy, diagonal, *products = _matrix(a, b, n, group)
        invariance = (1 - diagonal).square_().sum()
        ctx.lambd, ctx.form, ctx.n, ctx.own, ctx.group = lambd, form, n, own, group
        ctx.save_for_backward(a, b, scale_a, scale_b, diagonal, *products)
        return invariance.add(redundancy, alpha=lambd), invariance, redundancy, diagonal

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_loss, grad_invariance, grad_redundancy, grad_diagonal):
        a, b, scale_a, scale_b, diagonal, *products = ctx.saved_tensors
        off = grad_redundancy.add(grad_loss, alpha=ctx.lambd)
        on = grad_diagonal.addcmul(1 - diagonal, grad_loss + grad_invariance, value=-2)
        if ctx.group is not None:  # every process's loss depends on these rows
            off, on = add_up(torch.cat([off.view(1), on]), ctx.group).split([1, len(on)])
        common = off, on, a, b, scale_a, scale_b, diagonal
        with _full_precision(a):
            if ctx.form == "gram":
                grads = _gram_backward(*common, *products, ctx.own, ctx.group)
            else:
                grads = _matrix_backward(*common, *products, ctx.n)
        return *grads, None, None, None


def _matrix(a: Tensor, b: Tensor, n: int, group) -> tuple[Tensor, ...]:
    """Σ_{i≠j} C_ij², C_ii and C of n rows: N D² multiplications."""
    c = add_up(a.T @ b, group).div_(n)  # (D, D)
    diagonal = c.diagonal().clone()
    c.fill_diagonal_(0)
    # Row by row: one float32 sum over millions of squares would lose the third digit.
    redundancy = torch.linalg.vector_norm(c, dim=1).square_().sum()
    c.diagonal().copy_(diagonal)
    return redundancy, diagonal, c


def _matrix_backward(off, on, a, b, scale_a, scale_b, diagonal, c, n):
    """Gradients of z_a and z_b, given those of redundancy (off) and C_ii (on): 2 N D² multiplications."""
    grad_c = c * (off * (2 / n))
    grad_c.diagonal().copy_(on / n)
    along = grad_c * c
    along_a, along_b = along.sum(1).mul_(scale_a), along.sum(0).mul_(scale_b)
    del along  # D x D: make room for the next one
    grad_a = (b @ (grad_c.T * scale_a)).addcmul_(a, along_a, value=-1)
    grad_b = (a @ grad_c.mul_(scale_b)).addcmul_(b, along_b, value=-1)
    return grad_a, grad_b


def _gram(a: Tensor, b: Tensor, own: slice, group) -> tuple[Tensor, ...]:
    """Σ_{i≠j} C_ij², C_ii, and this process's own rows of AAᵀ and BBᵀ: 2 N² D multiplications."""
    gram_a, gram_b = a[own] @ a.T, b[own] @ b.T  # (N, N)
    diagonal = torch.linalg.vecdot(a, b, dim=0).div_(len(a))
    frobenius = add_up(torch.linalg.vecdot(gram_a, gram_b).sum(), group).div_(len(a) ** 2)
    return frobenius - diagonal.square().sum(), diagonal, gram_a, gram_b


def _gram_backward(off, on, a, b, scale_a, scale_b, diagonal, gram_a, gram_b, own, group):
    """Gradients of z_a and z_b, given those of redundancy (off) and C_ii (on): 2 N² D multiplications."""
    factor = off * (2 / len(a) ** 2)
    column = (on / len(a)).addcmul_(diagonal, factor, value=-len(a))
    own_a, own_b = a[own], b[own]
    grad_a = ((gram_b * factor) @ a).addcmul_(own_b, column)
    grad_b = ((gram_a * factor) @ b).addcmul_(own_a, column)
    # Both are combinations of columns of a and b, so they have mean zero already.
    return (
        _standardize_backward(grad_a, own_a, scale_a, group),
        _standardize_backward(grad_b, own_b, scale_b, group),
    )


def _standardize(z: Tensor, eps: float = 0.0, group=None) -> tuple[Tensor, Tensor]:
    """Standardised columns (N, D), and the (D,) scales 1 / σ: 0 where a column has no variance."""
    if group is not None:
        out, scale = standardize_across(z, group)
        keep = scale.square().mul_(eps).add_(1).rsqrt_()
        return out.mul_(keep), scale.mul_(keep)
    first = z[0]
    # Less its first row a constant column is exactly zero, and a large mean costs no digits. What follows
    # is the fused kernel of batch normalisation; it returns scale 0 for variance 0.
    out, mean, scale = torch.native_batch_norm(z - first, None, None, None, None, True, 0.0, 0.0)
    # A deviation of a few roundings of the mean is noise: 0 switches such a column off, 1 keeps it.
    keep = mean.add_(first).mul_(scale).abs_().lt_(0.25 / torch.finfo(z.dtype).eps)
    if eps:
        keep.mul_(scale.square().mul_(eps).add_(1).rsqrt_())
    return out.mul_(keep), scale.mul_(keep)


def _standardize_backward(grad: Tensor, out: Tensor, scale: Tensor, group=None) -> Tensor:
    """Gradient with respect to z, in the place of ``grad``, whose columns must have mean zero."""
    along = add_up(torch.linalg.vecdot(out, grad, dim=0), group).div_(_rows(out, group))
    return grad.addcmul_(out, along, value=-1).mul_(scale)


def _rows(z: Tensor, group) -> int:
    """N: the rows of all processes together."""
    return len(z) if group is None else len(z) * group.size()


def _full_precision(z: Tensor):
    """Autocast off, where it is on: entering it costs as much as a small matrix product."""
    if torch.is_autocast_enabled(z.device.type):
        return torch.autocast(z.device.type, enabled=False)
    return nullcontext()


def _at_least_float32(z: Tensor) -> Tensor:
    return z.float() if z.dtype in (torch.float16, torch.bfloat16) else z


def _check_embedding(z: Tensor, group=None) -> None:
    _check_type(z)
    if z.ndim != 2 or z.shape[1] == 0:
        raise ValueError(f"Embeddings must be 2-D (N, D), got shape {tuple(z.shape)}.")
    if group is not None:
        check_equal_shapes(z, group)
    if _rows(z, group) < 2:
        raise ValueError(f"Correlation needs at least two samples, got shape {tuple(z.shape)}.")


def _check_type(z: Tensor) -> None:
    if not isinstance(z, Tensor):
        raise ValueError(
            f"Embeddings must be tensors, got a {type(z).__name__}. Call torch.as_tensor first."
        )
    if not z.is_floating_point():
        raise ValueError(f"Embeddings must be floating point, got {z.dtype}. Call .float() first.")


def _check_pair(z_a: Tensor, z_b: Tensor, group=None) -> None:
    _check_type(z_a)
    _check_type(z_b)
    if z_a.shape != z_b.shape:
        raise ValueError(
            f"Both views need the same shape, got {tuple(z_a.shape)} and {tuple(z_b.shape)}."
        )
    if z_a.dtype != z_b.dtype and torch.float64 in (z_a.dtype, z_b.dtype):
        raise ValueError(
            f"Both views need the same precision, got {z_a.dtype} and {z_b.dtype}. Convert one of them."
        )
    _check_embedding(z_a, group)
