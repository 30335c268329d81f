"""The cross-correlation matrix, exactly: standardisation, the loss with its gradient in closed form, C as bytes.

A and B, (N, D), are the standardised embeddings of the two views, and C = AᵀB / N. The loss needs Σ_{i≠j} C_ij² =
‖C‖²_F − Σ C_ii², and ‖C‖²_F = ⟨AAᵀ, BBᵀ⟩ / N². So the D x D matrix never has to exist: the "matrix" form builds
it, the "gram" form builds two N x N matrices instead. Both are exact.

Where several ranks hold a shard of the batch each, mean, variance, N and C are those of the whole batch, and so are
the gradients (see ``distributed.py``). The matrix form adds up C over the ranks; the gram form gathers the
embeddings, and each rank builds its own rows of the N x N matrices.
"""

from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from barlow_edu.numerics.distributed import (
    Group,
    add_up,
    check_equal_shapes,
    collect,
    own_rows,
    pooled,
)

ROUNDINGS = 4  # a standard deviation of so many roundings of the mean, or fewer, is noise


class Standardize(torch.autograd.Function):
    """Columns of mean 0 and biased variance 1 over the batch, (N, D) -> (N, D), in float32 or better.

    For the backward pass it keeps only its output and D scales.
    """

    @staticmethod
    def forward(ctx, z: Tensor, eps: float, group: Group) -> Tensor:
        out, scale = _standardize(z, eps, group)
        ctx.group = group
        ctx.save_for_backward(out, scale)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        """The gradient of z, (N, D); the other arguments have none."""
        group = ctx.group
        with full_precision(grad):
            mean = add_up(grad.mean(0), group)
            mean = mean if group is None else mean / group.size()
            return _standardize_backward(grad - mean, *ctx.saved_tensors, group), None, None


class Terms(torch.autograd.Function):
    """Loss, invariance, redundancy (scalars) and diagonal (D,) of embeddings (N, D), (N, D), float32 or better.

    form: "matrix" or "gram". eps is added to the variances. The gradient is in closed form: with G = ∂L/∂C, column i
    of the gradient of view A is (1 / σ_i) [Σ_j G_ij b_j − a_i Σ_j G_ij C_ij]; view B has Gᵀ. So the way back through
    the standardisation costs one matrix product and one correction a view.
    """

    @staticmethod
    def forward(ctx, z_a, z_b, lambd, form: str, group: Group, eps: float) -> tuple[Tensor, ...]:
        n, own, views = _batch_size(z_a, group), own_rows(len(z_a), group), (z_a, z_b)
        if form == "gram":
            if group is not None:  # from here on every rank holds all N rows
                views = [collect(z, group).flatten(0, 1) for z in views]
            (a, scale_a), (b, scale_b) = (_standardize(z, eps) for z in views)
            redundancy, diagonal, *products = _gram(a, b, own, group)
        else:
            (a, scale_a), (b, scale_b) = (_standardize(z, eps, group) for z in views)
            redundancy, diagonal, *products = _matrix(a, b, n, group)
        invariance = (1 - diagonal).square_().sum()
        ctx.lambd, ctx.form, ctx.n, ctx.own, ctx.group = lambd, form, n, own, group
        ctx.save_for_backward(a, b, scale_a, scale_b, diagonal, *products)
        return invariance.add(redundancy, alpha=lambd), invariance, redundancy, diagonal

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_loss, grad_invariance, grad_redundancy, grad_diagonal):
        """The gradients of z_a and z_b, (N, D) each, in closed form; the other arguments have none."""
        a, b, scale_a, scale_b, diagonal, *products = ctx.saved_tensors
        off = grad_redundancy.add(grad_loss, alpha=ctx.lambd)
        on = grad_diagonal.addcmul(1 - diagonal, grad_loss + grad_invariance, value=-2)
        if ctx.group is not None:  # the loss of every rank depends on these rows
            off, on = add_up(torch.cat([off.view(1), on]), ctx.group).split([1, len(on)])
        common = off, on, a, b, scale_a, scale_b, diagonal
        with full_precision(a):
            if ctx.form == "gram":
                grads = _gram_backward(*common, *products, ctx.own, ctx.group)
            else:
                grads = _matrix_backward(*common, *products, ctx.n)
        return *grads, None, None, None, None


def _matrix(a: Tensor, b: Tensor, n: int, group: Group) -> tuple[Tensor, ...]:
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


def _gram(a: Tensor, b: Tensor, own: slice, group: Group) -> tuple[Tensor, ...]:
    """Σ_{i≠j} C_ij², C_ii, and this rank's own rows of AAᵀ and BBᵀ: 2 N² D multiplications."""
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
    grad_a = _standardize_backward(grad_a, own_a, scale_a, group)
    return grad_a, _standardize_backward(grad_b, own_b, scale_b, group)


def _standardize(z: Tensor, eps: float = 0.0, group: Group = None) -> tuple[Tensor, Tensor]:
    """This rank's rows, standardised along the whole batch, (N, D), and the (D,) scales 1 / σ.

    A column without variance, up to rounding, becomes zero and has scale 0.
    """
    first = z[0]
    # Less the batch's first row a constant column is exactly zero, and a large mean costs no digits.
    if group is None:
        # The fused kernel of batch normalisation; it returns scale 0 for variance 0.
        nothing = (None, None, None, None)
        out, mean, scale = torch.native_batch_norm(z - first, *nothing, True, 0.0, 0.0)
    else:
        variance, mean = torch.var_mean(z - first, 0, correction=0)
        firsts, means, variances = collect(torch.stack([first, mean, variance]), group).unbind(1)
        first = firsts[0]
        mean, variance = pooled((firsts - first).add_(means), variances)
        scale = variance.rsqrt().masked_fill_(variance == 0, 0)
        out = (z - first).sub_(mean).mul_(scale)
    # A deviation of a few roundings of the mean is noise: 0 switches such a column off, 1 keeps it.
    limit = 1 / (ROUNDINGS * torch.finfo(z.dtype).eps)
    keep = (mean + first).mul_(scale).abs_().lt_(limit)
    if eps:
        keep.mul_(scale.square().mul_(eps).add_(1).rsqrt_())
    return out.mul_(keep), scale.mul_(keep)


def _standardize_backward(grad: Tensor, out: Tensor, scale: Tensor, group: Group) -> Tensor:
    """Gradient with respect to z, in the place of ``grad``, whose columns must have mean zero."""
    along = add_up(torch.linalg.vecdot(out, grad, dim=0), group).div_(_batch_size(out, group))
    return grad.addcmul_(out, along, value=-1).mul_(scale)


def _batch_size(z: Tensor, group: Group) -> int:
    """N: the rows of all ranks together."""
    return len(z) if group is None else len(z) * group.size()


def full_precision(z: Tensor):
    """Autocast off, where it is on: entering it costs as much as a small matrix product."""
    if torch.is_autocast_enabled(z.device.type):
        return torch.autocast(z.device.type, enabled=False)
    return nullcontext()


def at_least_float32(z: Tensor) -> Tensor:
    """Half precision as float32, all else as it is."""
    return z.float() if z.dtype in (torch.float16, torch.bfloat16) else z


def check_embeddings(*views: Tensor, group: Group = None) -> list[Tensor]:
    """The views in float32 or better.

    Raises ValueError unless all are float tensors of one shape (N, D), with N of 2 or more over all ranks. Precisions
    may differ, but not between float64 and others.
    """
    for z in views:
        if not isinstance(z, Tensor) or not z.is_floating_point():
            kind = z.dtype if isinstance(z, Tensor) else f"a {type(z).__name__}"
            raise ValueError(
                f"Embeddings must be floating point tensors, got {kind}. Give torch.as_tensor(z).float()."
            )
    shapes = list(dict.fromkeys(tuple(z.shape) for z in views))
    dtypes = list(dict.fromkeys(z.dtype for z in views))
    if len(shapes) > 1:
        raise ValueError(f"Both views need the same shape, got {shapes[0]} and {shapes[1]}.")
    if len(dtypes) > 1 and torch.float64 in dtypes:
        raise ValueError(
            f"Both views need the same precision, got {dtypes[0]} and {dtypes[1]}. Convert one of them."
        )
    if len(shapes[0]) != 2 or shapes[0][1] == 0:
        raise ValueError(f"Embeddings must be 2-D (N, D), got shape {shapes[0]}.")
    if group is not None:
        check_equal_shapes(views[0], group)
    if _batch_size(views[0], group) < 2:
        raise ValueError(f"Correlation needs at least two samples, got shape {shapes[0]}.")
    return [at_least_float32(z) for z in views]


def to_bytes(c: np.ndarray | Tensor) -> np.ndarray:
    """Correlations as uint8: −1 becomes 0, 0 becomes 127, 1 becomes 254. What leaves [−1, 1] is cut off.

    >>> to_bytes(np.array([-1.0, -0.3, 0.0, 1.2])).tolist()
    [0, 89, 127, 254]
    """
    return np.rint(np.clip(np.asarray(c, dtype=np.float64), -1, 1) * 127 + 127).astype(np.uint8)


def from_bytes(values: np.ndarray) -> np.ndarray:
    """The inverse of ``to_bytes``, float32, exact to 1/254.

    >>> from_bytes(np.array([0, 127, 254], dtype=np.uint8)).tolist()
    [-1.0, 0.0, 1.0]
    """
    return (values.astype(np.float32) - 127) / 127
