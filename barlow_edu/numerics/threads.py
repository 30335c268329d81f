"""Two threads that each do a part of their own, and threads that sleep while they wait for each other.

OpenMP's threads meet at the end of every operation that they share, hundreds of times a step. GNU's library lets
those that are early spin for milliseconds before they sleep. Where another program keeps a core busy one is always
late: the others spin away their share of the processor, and then the late one waits for a core. A step takes ten
times as long, and more. Two views that go through the network side by side meet once.
"""

import copy
import ctypes
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch  # loads the OpenMP library that it computes with
from threadpoolctl import threadpool_info
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

# These draw nothing, and remember nothing but batch norm's averages.
LEAVES = "Conv2d Linear BatchNorm1d BatchNorm2d ReLU MaxPool2d AdaptiveAvgPool2d Identity"


def wait_asleep() -> None:
    """From now on threads that wait for others sleep. This changes no result, and cannot be taken back.

    It works when torch is there already, as in a notebook. Then it is too late for GOMP_SPINCOUNT, which GNU's
    library reads when it is loaded. But it spins a thousandth as long while it has more threads than there are
    processors (``do_spin`` in its source), and here it gets a team of that size, which never works.
    """
    for library in threadpool_info():
        openmp = ctypes.CDLL(library["filepath"])
        if library["user_api"] != "openmp" or openmp.omp_get_max_threads() == 1:
            continue
        if hasattr(openmp, "kmp_set_blocktime"):  # LLVM's and Intel's have a function for it
            openmp.kmp_set_blocktime(0)
        elif hasattr(openmp, "GOMP_parallel"):
            started = threading.Event()
            threading.Thread(target=_idle_team, args=(openmp, started), daemon=True).start()
            started.wait()


def _idle_team(openmp: ctypes.CDLL, started: threading.Event) -> None:
    """Start one more thread than there are processors, let each do next to nothing, and keep them."""
    nothing = ctypes.cast(openmp.omp_get_num_threads, ctypes.c_void_p)
    openmp.GOMP_parallel(nothing, None, openmp.omp_get_num_procs() + 1, 0)
    started.set()
    threading.Event().wait()  # the team lives as long as the thread that started it


def can_go_side_by_side(network: nn.Module) -> bool:
    """Whether two batches that go through ``network`` at once give what they give one after the other."""
    modules = list(network.modules())
    ours = all(type(m).__module__.startswith(("torch", "barlow_edu")) for m in modules)
    leaves = {type(m).__name__ for m in modules if not list(m.children())}
    return ours and leaves <= set(LEAVES.split())


class SideBySide:
    """A network on two batches at once, (N, ...) and (N, ...) -> (N, D) and (N, D), each in a thread of its own.

    Each gets half of torch's threads. Values and gradients are those of one batch after the other with so many
    threads, and so are batch norm's running averages. Gradients reach parameters alone, and by ``backward``. For
    networks that ``can_go_side_by_side``.

    >>> network = nn.Linear(3, 2)
    >>> x = torch.rand(4, 3)
    >>> [torch.equal(z, network(x)) for z in SideBySide(network)(x, x)]
    [True, True]
    """

    def __init__(self, network: nn.Module):
        # The second thread has a network of the same parameters, with running averages of its own.
        second = copy.deepcopy(network, {id(p): p for p in network.parameters()})
        self.networks, self.other = (network, second), ThreadPoolExecutor(1)
        norms = ([m for m in n.modules() if isinstance(m, _BatchNorm)] for n in self.networks)
        self.norms = [pair for pair in zip(*norms, strict=True) if pair[0].track_running_stats]

    def __call__(self, x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
        return _Both.apply(self, next(self.networks[0].parameters()), x1, x2)

    def run(self, function: Callable[..., Any], ours: tuple, others: tuple) -> tuple[Any, Any]:
        """``function(*ours)`` in this thread and ``function(*others)`` in the other, at the same time."""
        threads = torch.get_num_threads()
        try:
            future = self.other.submit(_with_threads, threads // 2, function, others)
            return _with_threads(threads - threads // 2, function, ours), future.result()
        finally:
            torch.set_num_threads(threads)

    def embed(self, x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
        """Both outputs, each with the graph that leads to it."""
        # A cache of weights in bfloat16 would be shared, and summed up in whatever order they come.
        half = torch.get_autocast_dtype("cpu"), torch.is_autocast_enabled("cpu"), False

        def forward(network: nn.Module, x: Tensor) -> Tensor:
            with torch.enable_grad(), torch.autocast("cpu", *half):
                return network(x)

        # Batch norm's kernel updates averages behind autograd's back, and so do we: by .data.
        for first, second in self.norms:
            second.train(first.training)
            second.running_mean.data.zero_()
            second.running_var.data.zero_()
        outputs = self.run(forward, (self.networks[0], x1), (self.networks[1], x2))
        for first, second in self.norms:
            if first.training:
                first.num_batches_tracked += 1
                for name in ("running_mean", "running_var"):
                    average = getattr(first, name).data.mul_(1 - first.momentum)
                    average.add_(getattr(second, name).data)
        return outputs


def _with_threads(threads: int, function: Callable[..., Any], arguments: tuple) -> Any:
    torch.set_num_threads(max(1, threads))  # counts for the calling thread
    return function(*arguments)


class _Both(torch.autograd.Function):
    """Two graphs as one node of a third; a parameter among the inputs says that there is something to derive."""

    @staticmethod
    def forward(ctx, both: SideBySide, parameter: Tensor, x1: Tensor, x2: Tensor):
        ctx.both, ctx.outputs = both, both.embed(x1, x2)
        return tuple(z.detach() for z in ctx.outputs)

    @staticmethod
    def backward(ctx, *grads: Tensor):
        z1, z2 = ctx.outputs
        # Both add to the same gradients; a sum of two has the same bits in either order.
        ctx.both.run(torch.autograd.backward, (z1, grads[0]), (z2, grads[1]))
        return None, None, None, None
