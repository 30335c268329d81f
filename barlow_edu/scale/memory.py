"""How much memory tensors take, counted while they come and go: real ones, or fake ones that take none."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class MemoryMeter(TorchDispatchMode):
    """Counts the bytes of all tensors that are made inside, and forgets those that are freed.

    current: bytes alive now. peak: the most there were at a time. Each storage counts once, however many views
    it has; what was there before does not count. Used as a context manager, on real tensors or on fake ones.
    """

    def __init__(self):
        super().__init__()
        self.current = self.peak = 0
        self._alive: dict[int, weakref.ref] = {}

    def ignore(self, *tensors: Tensor) -> MemoryMeter:
        """Do not count these, though an operation may return them; returns the meter."""
        for tensor in tensors:
            self._watch(tensor, 0)
        return self

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = tree_leaves((args, kwargs))
        self.ignore(*(x for x in given if isinstance(x, Tensor)))
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._watch(tensor, tensor.untyped_storage().nbytes())
        self.peak = max(self.peak, self.current)
        return out

    def _watch(self, tensor: Tensor, size: int) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._alive:
            return

        def freed(_):
            del self._alive[key]
            self.current -= size

        self._alive[key] = weakref.ref(storage, freed)
        self.current += size


def storage_bytes(*tensors: Tensor) -> int:
    """Bytes of the tensors' storages, each once."""
    sizes = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}
    return sum(sizes.values())


def loss_memory(
    rows: int, dim: int, form: str, processes: int = 1, element: int = 4
) -> tuple[int, int]:
    """Bytes that ``barlow_twins_loss`` keeps for the way back, and the most it has at a time, in one process.

    rows: n, of this process; N = n W of all. form "matrix" keeps a, b and C: 2 n D + D², and has two more
    D x D on the way back. "gram" keeps a, b and its rows of AAᵀ and BBᵀ: 2 N D + 2 n N (with one process
    N = n), and on the way back one more n x N or n x D. Three vectors of D are kept too. The embeddings
    themselves do not count.
    """
    n, d, total = rows, dim, rows * processes
    if form == "gram":
        held = 2 * total * d + 2 * n * total
        peak = held + max(n * total + 2 * n * d, 3 * n * d)
    else:
        held = 2 * n * d + d * d
        peak = max(held + 2 * d * d + n * d, held + d * d + 2 * n * d)
    return element * (held + 3 * d), element * (peak + 6 * d)


def loss_operations(batch_size: int, dim: int, form: str) -> int:
    """Floating-point operations of the loss, forward and backward, of all processes together.

    Matrix products alone, two operations a multiplication: 4 N² D multiplications (gram) or 3 N D² (matrix).
    """
    n, d = batch_size, dim
    return 2 * (4 * n * n * d if form == "gram" else 3 * n * d * d)


def optimizer_bytes(name: str, parameters: int) -> int:
    """Bytes of an optimizer's state in float32: two numbers a parameter for AdamW, momentum for SGD and LARS."""
    return 4 * parameters * (2 if name == "adamw" else 1)


def fake_tensors():
    """A context in which tensors have shapes and types but no memory.

    They are PyTorch's fake tensors: tensors of the meta device that claim to lie on a CPU, so that autocast
    treats them as it treats real ones.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    return FakeTensorMode()


def rounded_gb(size: float) -> float:
    """Bytes as gigabytes (10⁹), three digits after the point."""
    return round(size / 1e9, 3)


def half_precision(enabled: bool) -> torch.autocast:
    """bfloat16 autocast as the training loop has it, on a CPU."""
    return torch.autocast("cpu", torch.bfloat16, enabled=enabled)
