"""Batch norm over several processes, on any device and in any precision.

torch's own SyncBatchNorm refuses tensors on a CPU. The one here is built on plain collectives; GPUs get torch's,
which has kernels of its own. Both are exact: the statistics are those of the samples of all ranks together, and
the gradient flows through the collective. Parameters, buffers and their names are those of nn.BatchNorm.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from barlow_edu.numerics.distributed import active_group, all_gather, pooled, rank

UNSYNCHRONIZED = (
    "A batch norm takes its statistics over each rank's shard, the loss over the whole batch: this is not the "
    "training of one process. Call be.synchronize_batch_norm(model, device) before DistributedDataParallel."
)
_looked = False
log = logging.getLogger("barlow_edu")


def synchronize_batch_norm(model: nn.Module, device: torch.device | str = "cpu") -> nn.Module:
    """``model``, whose batch norms now take their statistics over all ranks; parameters stay the same objects.

    >>> type(synchronize_batch_norm(nn.BatchNorm1d(3))).__name__
    'SynchronizedBatchNorm1d'
    """
    if torch.device(device).type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for m in model.modules():
        if type(m) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
            m.__class__ = _CLASSES[type(m)]
    return model


def warn_unsynchronized(z: Tensor) -> None:
    """Log, once a process, that ``z`` went through a batch norm of one rank's shard alone; autograd's graph tells."""
    global _looked
    if _looked or z.grad_fn is None:
        return
    _looked, seen, waiting = True, set(), [z.grad_fn]
    while waiting:
        node = waiting.pop()
        # Each of torch's own kernels has such a node; those that are synchronised have others.
        own = re.match("(Native|Cudnn|Miopen)BatchNormBackward", node.name())
        if own and getattr(node, "_saved_training", True):
            return log.warning(UNSYNCHRONIZED) if rank() == 0 else None
        seen.add(node)
        waiting += {before for before, _ in node.next_functions} - seen - {None}


@contextmanager
def untracked(model: nn.Module) -> Iterator[None]:
    """Inside, batch norm leaves its running averages as they are; what it computes is the same."""
    averages = [(m, dict(m._buffers)) for m in model.modules() if isinstance(m, _BatchNorm)]
    for m, buffers in averages:  # copies take the updates: without any, other kernels would run
        m._buffers.update({k: None if v is None else v.clone() for k, v in buffers.items()})
    try:
        yield
    finally:
        for m, buffers in averages:
            m._buffers.update(buffers)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; every part goes back to the mode it was in."""
    modes = {m: m.training for m in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for m, training in modes.items():
            m.training = training


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Inside, ``model`` evaluates, but batch norm uses the batch's statistics and leaves its averages alone."""
    with evaluating(model), untracked(model):
        for m in model.modules():
            if isinstance(m, _BatchNorm):
                m.train()
        yield


class _Synchronized(_BatchNorm):
    """nn.BatchNorm whose statistics, while it trains on several ranks, are those of all of them."""

    def forward(self, x: Tensor) -> Tensor:
        """Standardise with the statistics of all ranks: (N, C, ...) -> (N, C, ...)."""
        group = active_group()
        if group is None or not (self.training or self.running_mean is None):
            return super().forward(x)
        self._check_input_dim(x)
        n = x.numel() // x.shape[1] * group.size()
        if n == 1:
            raise ValueError(
                f"Batch norm needs more than one value a channel, got {tuple(x.shape)}."
            )
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        variance, mean = torch.var_mean(wide, [0, *range(2, x.ndim)], correction=0)
        mean, variance = pooled(*all_gather(torch.stack([mean, variance])[None], group).unbind(1))
        if self.training and self.track_running_stats:  # of the unbiased variance, as nn.BatchNorm
            self.num_batches_tracked.add_(1)
            momentum = self.momentum
            if momentum is None:  # a plain average of all batches
                momentum = 1 / float(self.num_batches_tracked)
            unbiased = variance.detach() * (n / (n - 1))
            self.running_mean.lerp_(mean.detach().to(self.running_mean.dtype), momentum)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)
        shape = (1, -1, *[1] * (x.ndim - 2))
        scale = (variance + self.eps).rsqrt()
        out = (wide - mean.view(shape)) * scale.view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out.to(x.dtype)


_CLASSES = {
    norm: type(
        f"Synchronized{norm.__name__}",
        (_Synchronized, norm),
        {"__doc__": f"nn.{norm.__name__} with the statistics of all ranks while it trains."},
    )
    for norm in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
}
# Under these names pickle finds them.
SynchronizedBatchNorm1d, SynchronizedBatchNorm2d, SynchronizedBatchNorm3d = _CLASSES.values()
