"""Several processes that train as one: collectives that autograd sees, statistics of the whole batch.

torchrun starts the processes, and they talk through torch's own process group: gloo on CPUs, NCCL on GPUs. Here is
only what torch leaves open: its plain collectives are invisible to autograd, and those of
``torch.distributed.nn.functional``, which are not, are deprecated.

Each of W processes (W is the world size) holds a shard of the batch, and all compute the same loss L of the whole
batch. The backward pass of a sum over the processes is the sum of their gradients, so each rank receives W ∂L/∂z
for its own rows z. DistributedDataParallel then takes the mean over the ranks, and what remains is ∂L/∂θ, the
gradient that one process with the whole batch computes.
"""

import contextlib
import inspect
import os
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.parallel import DistributedDataParallel

Group: TypeAlias = "dist.ProcessGroup | None"  # text: some builds of torch come without the class
NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # torchrun sets them
_alone = False


class PeerLost(RuntimeError):
    """Another process of the group has ended, and this one cannot go on without it."""


@contextlib.contextmanager
def process_group(device: str = "auto") -> Iterator[None]:
    """Inside, this process belongs to the group that torchrun started; on its own it just goes on.

    device: as in a configuration. On GPUs tensors go through NCCL, and a few numbers of the host through gloo.
    Raises ValueError if torchrun's variables are set only in part, and PeerLost.
    """
    joins = int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized()
    if joins:
        _join(device)
    together = True
    try:
        yield  # all ranks have agreed on Ctrl-C and its like
    except Exception as error:
        together = False  # another process may be gone: no farewell that waits for it
        # The libraries say it with the line of their source where they noticed.
        lost = isinstance(error, RuntimeError) and re.search("gloo/|NCCL|TCPStore", str(error))
        if not lost or not dist.is_initialized():
            raise
        raise PeerLost(
            f"Process {rank()} cannot go on: another of the {world_size()} processes has ended, or cannot be "
            "reached. See what that one said last, then start all of them again with --resume."
        ) from error
    finally:
        if joins and together:
            dist.destroy_process_group()


def _join(device: str) -> None:
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

    store, rank, world_size = next(rendezvous("env://"))
    # torchrun's store outlives a restart, and with it the addresses of processes that are gone.
    store = dist.PrefixStore(f"restart {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    backend = "cpu:gloo,cuda:nccl" if gpu else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size)


def active_group(group: Group = None) -> Group:
    """The given process group, or torch's default one; None in a process on its own."""
    if group is None and not _alone and dist.is_available() and dist.is_initialized():
        group = dist.group.WORLD
    return group if group is not None and group.size() > 1 else None


def rank() -> int:
    """The number of this process, from 0; 0 in a process on its own."""
    group = active_group()
    return 0 if group is None else group.rank()


def world_size(group: Group = None) -> int:
    """How many processes train together; 1 for a process on its own."""
    group = active_group(group)
    return 1 if group is None else group.size()


def local_rank() -> int:
    """The number of this process on its own machine, which is the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", 0))


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Inside, this process computes as if it were the only one, and the others take no part."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def from_first(function: Callable[[], Any]) -> Any:
    """Call ``function`` on rank 0 only. Every rank gets what it returns, or raises what it raises."""
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
    """The largest value of all ranks, known to each of them; nobody waits for the device."""
    group = active_group()
    if group is None:
        return value
    largest = torch.tensor(value)
    dist.all_reduce(largest, dist.ReduceOp.MAX, group)
    return int(largest)


def check_same(value: str, what: str) -> None:
    """Raises ValueError, on every rank, if the ranks' values differ. ``what`` says in words what they are."""
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
    """``model`` in DistributedDataParallel, which averages its gradients over the ranks.

    Buffers are not sent around at every step: synchronised batch norm keeps them equal. A process on its own
    gets the model back as it is.
    """
    if world_size() == 1:
        return model
    gpu = next(model.parameters()).device.type == "cuda"
    known = inspect.signature(DistributedDataParallel).parameters  # torch 2.15 renamed it
    quiet = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options = {"device_ids": [local_rank()] if gpu else None, quiet: False}
    options["gradient_as_bucket_view"] = True  # or all gradients would be there twice
    return DistributedDataParallel(model, **options)


def add_up(x: Tensor, group: Group) -> Tensor:
    """Sum of x over the ranks, in place, unseen by autograd: for use inside autograd functions."""
    if group is not None:
        dist.all_reduce(x, group=group)
    return x


def collect(x: Tensor, group: "dist.ProcessGroup") -> Tensor:
    """The x of all ranks, (W, *x.shape), unseen by autograd: for use inside autograd functions."""
    out = x.new_empty((group.size(), *x.shape))
    dist.all_gather(list(out), x.contiguous(), group=group)
    return out


def all_reduce(x: Tensor, group: Group = None) -> Tensor:
    """Sum of x over the ranks. The backward pass is the sum of their gradients."""
    group = active_group(group)
    return x if group is None else _AllReduce.apply(x, group)


def all_gather(x: Tensor, group: Group = None) -> Tensor:
    """The rows of all ranks one below the other: (n, ...) -> (W n, ...).

    The backward pass hands every rank the sum of the gradients of its own rows. Raises ValueError if the shards
    differ in shape.
    """
    group = active_group(group)
    if group is None:
        return x
    check_equal_shapes(x, group)
    # Zeros stand where the rows of the others belong, and the sum fills them in.
    below, above = group.rank() * len(x), (group.size() - 1 - group.rank()) * len(x)
    zeros = [x.new_zeros(n, *x.shape[1:]) for n in (below, above)]
    return _AllReduce.apply(torch.cat([zeros[0], x, zeros[1]]), group)


def check_equal_shapes(x: Tensor, group: "dist.ProcessGroup") -> None:
    """Raises ValueError, on every rank, if their x differ in shape. Only on a CPU: a GPU would have to wait."""
    if x.device.type != "cpu":
        return
    shapes = collect(torch.tensor(x.shape), group).tolist()
    if any(shape != shapes[0] for shape in shapes):
        listed = ", ".join(str(tuple(shape)) for shape in shapes)
        raise ValueError(
            f"Every process must hold a shard of equal shape, got {listed}. Drop the last, partial batch."
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


def published_scale(loss: Tensor, world_size: int) -> Tensor:
    """The same loss, with 1 / world_size of its gradient: that of the published code on so many processes.

    The all-reduce of C in that code is invisible to autograd, and DistributedDataParallel divides by W all the
    same. Whoever takes over its learning rates as they are needs this. Adam does not notice a scale, nor does LARS
    where it adapts the step, except that weight decay then counts W times as much. Biases and batch norm, which
    LARS does not adapt, take steps of 1/W the size: the published rate for them, 0.0048, goes with W = 16, and
    without this function its equal is 0.0048 / 16 = 0.0003. Under plain SGD every step is 1/W.

    >>> x = torch.tensor(3.0, requires_grad=True)
    >>> loss = published_scale(x.square(), world_size=16)
    >>> loss.item(), torch.autograd.grad(loss, x)[0].item()  # 9, and 6 / 16
    (9.0, 0.375)
    """
    # With equal ends every point between them is the loss, and autograd sees one end, with its weight.
    return torch.lerp(loss.detach(), loss, 1 / world_size)


def own_rows(rows: int, group: Group) -> slice:
    """Where the rows of this rank lie in the whole batch, in which the ranks come in order."""
    start = 0 if group is None else group.rank() * rows
    return slice(start, start + rows)


def pooled(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of W equally large samples together, from those of each: (W, D) -> (D,).

    Chan, Golub and LeVeque (1983): the mean of the variances plus the variance of the means.
    """
    both = mean.mean(0)
    return both, variance.mean(0) + (mean - both).square_().mean(0)
