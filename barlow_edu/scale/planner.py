"""What a configuration takes before it is run: memory, operations, hours, cost.

The network of the configuration is run once forward and back on fake tensors, which have shapes but no memory: so
a plan for eight GPUs takes seconds on a laptop. Every tensor that PyTorch would make is counted, and so is
every floating-point operation of its matrix products and convolutions. What the libraries of a GPU take for
themselves is not in it, nor are gaps between tensors: ``USABLE`` leaves room for them.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from barlow_edu.config import build_model, load_config
from barlow_edu.loss import cheaper_form
from barlow_edu.numerics.recompute import save_memory
from barlow_edu.storage.trees import scan

USABLE = 0.92  # of a GPU's memory; the rest is for libraries, and for gaps between tensors
IMAGES = {"garments": 20_000, "cifar10": 50_000, "cifar100": 50_000, "folder": 1_281_167}
# Operations a second and GPU in the paper: what 1000 epochs of ImageNet take, over 32 V100 for 124 hours.
PAPER_TFLOPS = 4.53
MEMORY_ROWS = {
    "parameters": "weights and buffers",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "views": "both views",
    "activations": "kept for the way back",
    "loss_matrix": "loss, matrix form",
    "loss_gram": "loss, gram form",
    "peak": "peak",
}


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


@dataclass(frozen=True)
class Network:
    """One process's share of a step without the loss, simulated for a number of images.

    parameters: numbers that are trained. fixed: bytes of all weights and buffers. views: bytes of both views.
    saved: bytes kept for the way back. peak: the most bytes there are at a time while it goes forward and back,
    gradients among them. operations: floating-point operations.
    """

    rows: int
    parameters: int
    fixed: int
    views: int
    saved: int
    peak: int
    operations: int


def simulate(config: Mapping[str, Any], rows: int) -> Network:
    """Run the network of a configuration forward and back on ``rows`` fake images, both views."""
    size, half = config["image_size"], config["precision"] != "float32"
    # Fake tensors are of the meta device but claim to lie on a CPU, so that autocast treats them as real ones.
    with FakeTensorMode():
        model = build_model(config).train()
        save_memory(model, config)
        views = [torch.empty(rows, 3, size, size) for _ in range(2)]
        own = [*model.parameters(), *model.buffers()]
        with MemoryMeter().ignore(*own, *views) as meter, FlopCounterMode(display=False) as flops:
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                z = model._embed_both(*views)
            saved = meter.current
            torch.autograd.backward(z, [torch.empty_like(x) for x in z])
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        fixed, seen = storage_bytes(*own), storage_bytes(*views)
    return Network(rows, trained, fixed, seen, saved, meter.peak, flops.get_total_flops())


@dataclass(frozen=True)
class Plan:
    """A configuration on a machine; see :func:`plan`. ``str()`` of it is a table."""

    config: Mapping[str, Any]
    gpus: int
    gpu_memory: float
    images: int
    tflops: float | None
    images_per_second: float | None
    price: float | None
    network: Network
    doubled: Network  # the same network with twice the images: memory is a line through the two

    @property
    def rows(self) -> int:
        """Images of a step in one process."""
        return self.config["batch_size"] // self.gpus

    @property
    def form(self) -> str:
        """The form of the loss that training would take."""
        if self.config["form"] != "auto":
            return self.config["form"]
        return cheaper_form(self.config["batch_size"], self.config["proj_dim"], self.gpus)

    def loss_peak(self, form: str, rows: int) -> int:
        """The most bytes that the loss has at a time, in one process with ``rows`` images."""
        return loss_memory(rows, self.config["proj_dim"], form, self.gpus)[1]

    @property
    def gradients(self) -> int:
        """Bytes of the gradients; several processes hold them once more, packed to be sent."""
        return 4 * self.network.parameters * (2 if self.gpus > 1 else 1)

    def peak(self, rows: int) -> int:
        """The most bytes in one process with ``rows`` images, by the line through two simulations."""

        def line(a: int, b: int) -> float:
            return a + (b - a) * (rows - self.rows) / self.rows

        one, two = self.network, self.doubled
        fixed = one.fixed + optimizer_bytes(self.config["optimizer"], one.parameters)
        fixed += self.gradients * (self.gpus > 1) // 2
        embeddings = 2 * 4 * rows * self.config["proj_dim"]
        at_loss = line(one.saved, two.saved) + embeddings + self.loss_peak(self.form, rows)
        return round(fixed + line(one.views, two.views) + max(line(one.peak, two.peak), at_loss))

    @cached_property
    def largest_rows(self) -> int:
        """The most images a process can take in a step; 0 if not even two fit."""
        limit, low, high = USABLE * 1e9 * self.gpu_memory, 1, 2
        while self.peak(high) <= limit and high < self.images:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.peak(middle) <= limit else (low, middle)
        return low if low > 1 else 0

    @property
    def operations(self) -> int:
        """Floating-point operations of a step, of all processes together."""
        loss = loss_operations(self.config["batch_size"], self.config["proj_dim"], self.form)
        return self.gpus * self.network.operations + loss

    @property
    def rate(self) -> tuple[float, str]:
        """10¹² operations a second of one GPU, and where that is from."""
        if self.images_per_second is not None:
            rate = self.images_per_second * self.operations / self.config["batch_size"] / 1e12
            return rate, f"{self.images_per_second:g} images a second and GPU, as given"
        return (self.tflops, "as given") if self.tflops else (PAPER_TFLOPS, "the paper's V100s")

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.images // self.config["batch_size"] * self.config["epochs"]

    @property
    def seconds_per_step(self) -> float:
        """Seconds of a step at the rate stated."""
        return self.operations / (self.gpus * self.rate[0] * 1e12)

    @property
    def hours(self) -> float:
        """Hours of the whole run at the rate stated."""
        return self.steps * self.seconds_per_step / 3600

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain numbers: bytes in GB (10⁹), operations, hours, cost."""
        (rate, source), gpu_hours = self.rate, self.hours * self.gpus
        memory = {  # bytes in one process, by what they are for
            "parameters": self.network.fixed,
            "gradients": self.gradients,
            "optimizer": optimizer_bytes(self.config["optimizer"], self.network.parameters),
            "views": self.network.views,
            "activations": self.network.saved,
            "loss_matrix": self.loss_peak("matrix", self.rows),
            "loss_gram": self.loss_peak("gram", self.rows),
            "peak": self.peak(self.rows),
        }
        return {
            "name": self.config["name"],
            "gpus": self.gpus,
            "batch_size": self.config["batch_size"],
            "images_per_gpu": self.rows,
            "parameters": self.network.parameters,
            "form": self.form,
            "memory_gb": {key: round(size / 1e9, 3) for key, size in memory.items()},
            "gpu_memory_gb": self.gpu_memory,
            "fits": self.rows <= self.largest_rows,
            "largest_batch": self.largest_rows * self.gpus,
            "images": self.images,
            "epochs": self.config["epochs"],
            "steps": self.steps,
            "operations_per_image": round(self.operations / self.config["batch_size"]),
            "operations_per_step": self.operations,
            "operations": self.operations * self.steps,
            "tflops_per_gpu": rate,
            "rate_source": source,
            "seconds_per_step": self.seconds_per_step,
            "hours": round(self.hours, 3),
            "gpu_hours": round(gpu_hours, 2),
            "cost": None if self.price is None else round(gpu_hours * self.price, 2),
            "simulated": asdict(self.network),
        }

    def __str__(self) -> str:
        p, c, wide = self.as_dict(), self.config, 32
        each = f" = {self.gpus} x {self.rows:,}" if self.gpus > 1 else ""
        lines = [
            f"{p['name']}: {c['encoder']} at {c['image_size']} pixels, projector {c['proj_dim']}, "
            f"batch {p['batch_size']:,}{each}, {p['parameters'] / 1e6:.1f} million parameters",
            "",
            f"Memory of one GPU, simulated{'':17}GB",
        ]
        for key, name in MEMORY_ROWS.items():
            name += " (taken)" if key == f"loss_{self.form}" else ""
            lines.append(f"  {name:{wide}}{p['memory_gb'][key]:>10.3f}")
        fits = "fits" if p["fits"] else "DOES NOT FIT"
        lines += [
            f"  of {self.gpu_memory:g} GB: {fits}",
            f"  {'largest batch that fits':{wide}}{p['largest_batch'] or 'none':>10}",
            "",
            "Work",
            f"  {'operations an image':{wide}}{p['operations_per_image'] / 1e9:>10.2f} GFLOP",
            f"  {'operations a step':{wide}}{self.operations / 1e12:>10.3f} TFLOP",
            f"  {'steps':{wide}}{self.steps:>10,} ({p['epochs']} epochs of {self.images:,} images)",
            f"  {'rate of one GPU':{wide}}{self.rate[0]:>10.2f} TFLOP/s ({self.rate[1]})",
            f"  {'seconds a step':{wide}}{self.seconds_per_step:>10.3f}",
            f"  {'hours':{wide}}{p['hours']:>10.2f}",
            f"  {'GPU hours':{wide}}{p['gpu_hours']:>10.1f}",
        ]
        if p["cost"] is not None:
            lines.append(f"  {'cost':{wide}}{p['cost']:>10,.2f}")
        if not p["fits"]:
            batch = p["largest_batch"]
            smaller = f"--set batch_size={batch}, " if batch else "a smaller encoder or proj_dim, "
            lines += [
                "",
                f"To make it fit: {smaller}--set checkpoint_activations=true (a third more operations), more GPUs "
                "(--gpus), or GPUs with more memory.",
            ]
        return "\n".join(lines)


def plan(
    config: str | Path | Mapping[str, Any],
    gpus: int = 1,
    gpu_memory: float = 80.0,
    tflops: float | None = None,
    images_per_second: float | None = None,
    price_per_gpu_hour: float | None = None,
    images: int | None = None,
    **overrides: Any,
) -> Plan:
    """Memory, operations, hours and cost of a configuration on ``gpus`` GPUs of ``gpu_memory`` GB.

    A process on a CPU counts as a GPU. Hours follow from a rate: tflops, the 10¹² operations a second that one
    GPU really does, or images_per_second, of one GPU; without either, the paper's own V100 rate. price: of an
    hour of one GPU, in any currency. images: of an epoch; default, those of the data set, or of the folder
    ``root``; without a root, ImageNet's 1,281,167.

    Raises ValueError for numbers that cannot be, a batch that does not divide by the GPUs, and for another
    method than Barlow Twins.
    """
    config = load_config(config, **overrides)
    _check(config, gpus, gpu_memory, tflops, images_per_second, price_per_gpu_hour)
    images, batch = images if images is not None else _count(config), config["batch_size"]
    if images < batch:
        raise ValueError(
            f"batch_size={batch} is more than the {images} images there are. Take a smaller batch "
            "(--set batch_size=N), or give the number of images (--images N)."
        )
    networks = (simulate(config, rows) for rows in (batch // gpus, 2 * (batch // gpus)))
    rates = (tflops, images_per_second, price_per_gpu_hour)
    return Plan(config, gpus, gpu_memory, images, *rates, *networks)


def _check(config, gpus, gpu_memory, tflops, images_per_second, price) -> None:
    batch = config["batch_size"]
    if config["method"] != "barlow_twins":
        raise ValueError(
            f"A plan knows the loss of Barlow Twins alone, got method={config['method']!r}. For the network, "
            "which is most of it, plan with --set method=barlow_twins."
        )
    if isinstance(gpus, bool) or not isinstance(gpus, int) or gpus < 1:
        raise ValueError(f"gpus must be a whole number of at least 1, got {gpus!r}.")
    if batch % gpus or batch // gpus < 2:
        raise ValueError(
            f"batch_size={batch} does not give {gpus} GPUs an equal share of two images or more. Take "
            f"--set batch_size={max(batch // gpus, 2) * gpus}, or another number of GPUs."
        )
    if tflops is not None and images_per_second is not None:
        raise ValueError("Give tflops or images_per_second, not both: each says how fast it goes.")
    rates = {"gpu_memory": gpu_memory, "tflops": tflops, "images_per_second": images_per_second}
    for name, value in rates.items():
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be above 0, got {value}.")
    if not (price is None or price >= 0):
        raise ValueError(f"price_per_gpu_hour must be 0 or more, got {price}.")


def _count(config: Mapping[str, Any]) -> int:
    """Images of an epoch."""
    count = IMAGES[config["data"]]
    if config["data"] == "folder" and config["root"] is not None:
        count = len(scan(Path(config["root"]).expanduser()).files)
    return min(count, config["limit"] or count)
