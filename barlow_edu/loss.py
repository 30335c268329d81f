"""The Barlow Twins loss, exact, in two forms.

With embeddings standardised along the batch, A and B of shape (N, D), the cross-correlation matrix is
C = AᵀB / N and the loss (Zbontar et al., ICML 2021, eq. 1 and 2) is

    L = Σ_i (1 − C_ii)² + λ Σ_{i≠j} C_ij².

The second sum equals ‖C‖²_F − Σ C_ii², and ‖C‖²_F = ⟨AAᵀ, BBᵀ⟩ / N². So the D x D matrix never has to
exist: the "gram" form builds two N x N matrices instead. Both forms are exact; "auto" takes the cheaper.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

FORMS = ("auto", "matrix", "gram")


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


def standardize(z: Tensor, eps: float = 0.0) -> Tensor:
    """Shift and scale each column of ``z`` to mean 0 and (biased) variance 1 over the batch.

    Shapes: (N, D) -> (N, D). ``eps`` is added to the variance: 0 is the paper's formula, 1e-5 is what
    the published code's batch normalisation does. A column without variance, up to rounding, becomes
    zero and gets no gradient. Half-precision input is computed and returned in float32.
    """
    _check_embedding(z)
    return _Standardize.apply(_at_least_float32(z), eps)


def cross_correlation(z_a: Tensor, z_b: Tensor) -> Tensor:
    """Cross-correlation matrix C of two batches of embeddings (paper, eq. 2).

    Shapes: (N, D), (N, D) -> (D, D). C_ij is the Pearson correlation, over the batch, of dimension i of
    view A with dimension j of view B: both use the biased standard deviation, and the sum is divided by
    N, so C_ii of two equal views is exactly 1. A dimension without variance has correlation 0.

    Raises ValueError if the inputs are not 2-D, differ in shape, hold fewer than two samples, or are not
    floating point.
    """
    _check_pair(z_a, z_b)
    with torch.autocast(z_a.device.type, enabled=False):
        return standardize(z_a).T @ standardize(z_b) / len(z_a)


def barlow_twins_loss(
    z_a: Tensor, z_b: Tensor, lambd: float = 0.005, form: str = "auto"
) -> LossTerms:
    """Barlow Twins loss L = Σ_i (1 − C_ii)² + lambd Σ_{i≠j} C_ij² (paper, eq. 1).

    Shapes: (N, D), (N, D) -> LossTerms of scalars and a (D,) diagonal. ``form`` is "matrix" (builds C,
    D x D), "gram" (builds two N x N matrices) or "auto" (the cheaper of the two; same value). Statistics
    and products are float32 or better, also under autocast.

    Raises ValueError for bad shapes (see :func:`cross_correlation`), lambd < 0, or an unknown form.
    """
    _check_pair(z_a, z_b)
    if not lambd >= 0:
        raise ValueError(f"lambd must be 0 or more, got {lambd}. The paper uses 0.005.")
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}.")
    if form == "auto":
        form = cheaper_form(*z_a.shape)
    with torch.autocast(z_a.device.type, enabled=False):
        terms = _GramTerms if form == "gram" else _MatrixTerms
        redundancy, diagonal = terms.apply(standardize(z_a), standardize(z_b))
        invariance = (1 - diagonal).square().sum()
        return LossTerms(invariance + lambd * redundancy, invariance, redundancy, diagonal)


def cheaper_form(batch_size: int, dim: int) -> str:
    """The form that needs fewer multiplications, forward and backward: 4 N² D against 3 N D²."""
    return "gram" if 4 * batch_size < 3 * dim else "matrix"


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
    def forward(ctx, z: Tensor, eps: float) -> Tensor:
        mean = z.mean(0)
        out = z - mean
        variance = out.square().mean(0)
        # Rounding leaves a constant column with a variance of about (machine epsilon * value)².
        rounding = (4 * torch.finfo(z.dtype).eps * mean.abs()).square()
        scale = torch.where(variance > rounding, (variance + eps).rsqrt(), 0.0)
        scale = torch.where(torch.isnan(variance), variance, scale)
        out *= scale
        ctx.save_for_backward(out, scale)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        out, scale = ctx.saved_tensors
        along = torch.linalg.vecdot(out, grad, dim=0) / len(out)
        result = torch.addcmul(grad, out, along, value=-1)
        return result.sub_(grad.mean(0)).mul_(scale), None


class _GramTerms(torch.autograd.Function):
    """Σ_{i≠j} C_ij² and C_ii through AAᵀ and BBᵀ: 2 N² D multiplications forward, 2 N² D backward."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        gram_a, gram_b = a @ a.T, b @ b.T  # (N, N)
        diagonal = torch.linalg.vecdot(a, b, dim=0) / len(a)
        ctx.save_for_backward(a, b, gram_a, gram_b, diagonal)
        frobenius = torch.linalg.vecdot(gram_a, gram_b).sum() / len(a) ** 2
        return frobenius - diagonal.square().sum(), diagonal

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_redundancy: Tensor, grad_diagonal: Tensor):
        a, b, gram_a, gram_b, diagonal = ctx.saved_tensors
        factor = 2 * grad_redundancy / len(a)
        column = (grad_diagonal / len(a)).addcmul_(diagonal, factor, value=-1)
        factor = factor / len(a)
        with torch.autocast(a.device.type, enabled=False):
            grad_a = ((gram_b * factor) @ a).addcmul_(b, column)
            grad_b = ((gram_a * factor) @ b).addcmul_(a, column)
        return grad_a, grad_b


class _MatrixTerms(torch.autograd.Function):
    """Σ_{i≠j} C_ij² and C_ii through C itself: N D² multiplications forward, 2 N D² backward."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        c = (a.T @ b).div_(len(a))  # (D, D)
        diagonal = c.diagonal().clone()
        c.fill_diagonal_(0)
        ctx.save_for_backward(a, b, c)
        # Row by row: one float32 sum over millions of squares would lose the third digit.
        return torch.linalg.vector_norm(c, dim=1).square().sum(), diagonal

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_redundancy: Tensor, grad_diagonal: Tensor):
        a, b, c = ctx.saved_tensors
        grad_c = c * (2 * grad_redundancy / len(a))
        grad_c.diagonal().copy_(grad_diagonal / len(a))
        with torch.autocast(a.device.type, enabled=False):
            return b @ grad_c.T, a @ grad_c


def _at_least_float32(z: Tensor) -> Tensor:
    return z.float() if z.dtype in (torch.float16, torch.bfloat16) else z


def _check_embedding(z: Tensor) -> None:
    if z.ndim != 2:
        raise ValueError(f"Embeddings must be 2-D (N, D), got shape {tuple(z.shape)}.")
    if not z.is_floating_point():
        raise ValueError(f"Embeddings must be floating point, got {z.dtype}. Call .float() first.")
    if len(z) < 2:
        raise ValueError(f"Correlation needs at least two samples, got shape {tuple(z.shape)}.")


def _check_pair(z_a: Tensor, z_b: Tensor) -> None:
    if z_a.shape != z_b.shape:
        raise ValueError(
            f"Both views need the same shape, got {tuple(z_a.shape)} and {tuple(z_b.shape)}."
        )
    _check_embedding(z_a)
    _check_embedding(z_b)
