"""Several processes that train as one: collectives that autograd sees, statistics of the whole batch.

The processes are torchrun's, and what they say to each other goes through torch's own process group: gloo
on CPUs, NCCL on GPUs. Here is only what torch leaves open. Its plain collectives are invisible to autograd,
and those of ``torch.distributed.nn.functional``, which are not, are deprecated.

Every process computes the same loss L of the whole batch. The backward pass of a sum over the processes is
the sum of their gradients, so that each receives W ∂L/∂z for its own rows z, W being the number of
processes. DistributedDataParallel then takes the mean over the processes, and what remains is ∂L/∂θ, the
gradient that one process with the whole batch computes.
"""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.parallel import DistributedDataParallel

NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # torchrun sets them
_alone = False


@contextlib.contextmanager
def process_group(device: str = "auto") -> Iterator[None]:
    """Join the processes that torchrun started, inside; nothing happens in a process on its own.

    device: as in a configuration. On GPUs tensors go through NCCL, and a few numbers of the host through gloo.
    Raises ValueError if the environment is not whole.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or dist.is_initialized():
        yield
        return
    missing = [name for name in NEEDED if name not in os.environ]
    if missing:
        raise ValueError(
            f"WORLD_SIZE={os.environ['WORLD_SIZE']} asks for several processes, but {', '.join(missing)} is "
            "not set. Start with torchrun --nproc-per-node N -m barlow_edu pretrain CONFIG."
        )
    gpu = torch.cuda.is_available() and device != "cpu"
    if gpu:
        torch.cuda.set_device(local_rank())
    from torch.distributed.rendezvous import rendezvous  # some builds of torch come without

    store, number, count = next(rendezvous("env://"))
    # torchrun's store outlives a restart, and with it the addresses of processes that are gone.
    store = dist.PrefixStore(f"restart {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    backend = "cpu:gloo,cuda:nccl" if gpu else "gloo"
    dist.init_process_group(backend, store=store, rank=number, world_size=count)
    try:
        yield
    except Exception:
        raise  # another process may be gone: no farewell that waits for it
    except BaseException:  # Ctrl-C and its like, on which all have agreed
        dist.destroy_process_group()
        raise
    else:
        dist.destroy_process_group()


def active_group(group: dist.ProcessGroup | None = None) -> dist.ProcessGroup | None:
    """The given or torch's default process group; None in a process on its own."""
    if group is None:
        if _alone or not (dist.is_available() and dist.is_initialized()):
            return None
        group = dist.group.WORLD
    return group if group.size() > 1 else None


def rank(group: dist.ProcessGroup | None = None) -> int:
    """This process's number, from 0; 0 in a process on its own."""
    group = active_group(group)
    return 0 if group is None else group.rank()


def world_size(group: dist.ProcessGroup | None = None) -> int:
    """How many processes there are."""
    group = active_group(group)
    return 1 if group is None else group.size()


def local_rank() -> int:
    """This process's number on its own machine: the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", 0))


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Inside, this process computes as if it were the only one; the others do not take part."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def from_first(function: Callable[[], Any]) -> Any:
    """What ``function`` returns in process 0, where alone it is called; or, in all of them, what it raises."""
    if world_size() == 1:
        return function()
    answer: list[Any] = [None, None]
    if rank() == 0:
        try:
            answer[0] = function()
        except Exception as error:
            answer[1] = error
    dist.broadcast_object_list(answer, src=0)
    if answer[1] is not None:
        raise answer[1]
    return answer[0]


def agree(value: int) -> int:
    """The largest of the processes' values, the same in all of them. The device is not waited for."""
    group = active_group()
    if group is None:
        return value
    largest = torch.tensor(value)
    dist.all_reduce(largest, dist.ReduceOp.MAX, group)
    return int(largest)


def check_same(value: str, what: str) -> None:
    """Raises ValueError, in every process, if their values differ: ``what`` names what they are."""
    group = active_group()
    if group is None:
        return
    values: list[Any] = [None] * group.size()
    dist.all_gather_object(values, value, group)
    odd = next((i for i, other in enumerate(values) if other != values[0]), None)
    if odd is not None:
        raise ValueError(
            f"The processes have different {what}: process 0 {values[0]}, process {odd} {values[odd]}."
        )


def data_parallel(model: nn.Module) -> nn.Module:
    """``model`` in DistributedDataParallel: its gradients are averaged over the processes.

    Buffers are not sent around at every step: synchronised batch norm keeps them equal. In a process on its own
    the model is returned as it is.
    """
    if world_size() == 1:
        return model
    gpu = next(model.parameters()).device.type == "cuda"
    known = inspect.signature(DistributedDataParallel).parameters  # torch 2.15 renamed it
    quiet = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    return DistributedDataParallel(
        model,
        device_ids=[local_rank()] if gpu else None,
        gradient_as_bucket_view=True,
        **{quiet: False},
    )


def add_up(x: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """Sum over the processes, in place, unseen by autograd: for use inside autograd functions."""
    if group is not None:
        dist.all_reduce(x, group=group)
    return x


def collect(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """Every process's x, (W, *x.shape), unseen by autograd: for use inside autograd functions."""
    out = x.new_empty((group.size(), *x.shape))
    dist.all_gather(list(out), x.contiguous(), group=group)
    return out


def all_reduce(x: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """Sum of x over the processes. The backward pass is the sum of their gradients."""
    group = active_group(group)
    return x if group is None else _AllReduce.apply(x, group)


def all_gather(x: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """All processes' rows one below the other: (n, ...) -> (W n, ...).

    The backward pass hands every process the sum of the gradients of its own rows. Raises ValueError if the
    processes hold different numbers of rows.
    """
    group = active_group(group)
    if group is None:
        return x
    check_equal_shapes(x, group)
    return _AllGather.apply(x, group)


def check_equal_shapes(x: Tensor, group: dist.ProcessGroup) -> None:
    """Raises ValueError, in every process, if their x differ in shape. On a CPU only: a GPU would wait."""
    if x.device.type != "cpu":
        return
    shapes = collect(torch.tensor(x.shape), group).tolist()
    if any(shape != shapes[0] for shape in shapes):
        told = ", ".join(str(tuple(shape)) for shape in shapes)
        raise ValueError(
            f"Every process must hold a share of equal shape, got {told}. Drop the last, partial batch."
        )


class _AllReduce(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, group) -> Tensor:
        ctx.group = group
        return add_up(x.clone(memory_format=torch.contiguous_format), group)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        return add_up(grad.clone(memory_format=torch.contiguous_format), ctx.group), None


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, group) -> Tensor:
        ctx.group, ctx.rows = group, len(x)
        return collect(x, group).flatten(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        grad = add_up(grad.clone(memory_format=torch.contiguous_format), ctx.group)
        return grad[own_rows(ctx.rows, ctx.group)], None


def published_scale(loss: Tensor, processes: int) -> Tensor:
    """The loss, with the gradient that the published code has when it runs on ``processes`` processes: 1/W of it.

    Its all-reduce of C is invisible to autograd, and DistributedDataParallel divides by W all the same. Who takes
    its learning rates over as they are needs this. Adam does not notice a scale, nor does LARS where it adapts
    the step, but for weight decay, which counts W times as much. Biases and batch norm, which LARS leaves alone,
    take steps of 1/W the size: the published rate for them, 0.0048, goes with W = 16, and without this function
    its equal is 0.0048 / 16 = 0.0003. Under plain SGD every step is 1/W.
    """
    return loss if processes == 1 else _Scaled.apply(loss, 1 / processes)


class _Scaled(torch.autograd.Function):
    """The identity, whose gradient is scaled."""

    @staticmethod
    def forward(ctx, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        return grad * ctx.factor, None


def own_rows(rows: int, group: dist.ProcessGroup | None) -> slice:
    """Where this process's rows lie in the whole batch, in which the processes come in order."""
    start = 0 if group is None else group.rank() * rows
    return slice(start, start + rows)


def pooled(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of W equally large samples together, from those of each: (W, D) -> (D,).

    Chan, Golub and LeVeque (1983): the mean of the variances plus the variance of the means.
    """
    both = mean.mean(0)
    return both, variance.mean(0) + (mean - both).square_().mean(0)


def standardize_across(z: Tensor, group: dist.ProcessGroup) -> tuple[Tensor, Tensor]:
    """This process's rows (n, D), standardised along the whole batch, and the (D,) scales 1 / σ.

    As in a process on its own, a column without variance, up to rounding, becomes zero and has scale 0; the
    rows are measured from the batch's first row, so that a large mean costs no digits.
    """
    variance, mean = torch.var_mean(z - z[0], 0, correction=0)
    firsts, means, variances = collect(torch.stack([z[0], mean, variance]), group).unbind(1)
    first = firsts[0]
    mean, variance = pooled((firsts - first).add_(means), variances)
    scale = variance.rsqrt()
    noise = (mean + first).mul_(scale).abs_().ge_(0.25 / torch.finfo(z.dtype).eps)
    scale.masked_fill_(noise.bool() | (variance == 0), 0)
    return (z - first).sub_(mean).mul_(scale), scale
