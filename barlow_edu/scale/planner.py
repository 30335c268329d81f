"""What a configuration takes before it is run: memory, operations, hours, cost.

The network of the configuration is run once forward and back on fake tensors, which have shapes but no memory: so
a plan for eight GPUs takes seconds on a laptop. Every tensor that PyTorch would make is counted, and so is every
floating-point operation of its matrix products and convolutions. What is not counted is what ``USABLE`` leaves.
"""

import bisect
import json
import weakref
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from barlow_edu.config import Schedule, build_model, load_config
from barlow_edu.loss import cheaper_form
from barlow_edu.numerics.recompute import save_memory
from barlow_edu.settings import Setting, complete
from barlow_edu.storage.trees import scan

USABLE = 0.92  # of a GPU's memory; the rest is for libraries, and for gaps between tensors
IMAGES = {"garments": 20_000, "cifar10": 50_000, "cifar100": 50_000, "folder": 1_281_167}
# Training images a second of a ResNet-50 in mixed precision, of each of eight GPUs, as published, and GB of one.
# V100, A100: NVIDIA's DeepLearningExamples, ResNet-50 v1.5 for PyTorch (container 21.03). H100 (SXM5): the same code
# without channels last, on synthetic images, in Lambda's deeplearning-benchmark: it can do more.
GPUS = {"v100": (8_322 / 8, 16), "a100": (16_621 / 8, 80), "h100": (22_088 / 8, 80)}
RESNET50 = 24.3e9  # operations for one of these images, forward and back, counted as here


class MemoryMeter(TorchDispatchMode):
    """Counts the bytes of all tensors that are made inside, and forgets those that are freed.

    current: bytes alive now. peak: the most there were at a time. Each storage counts once, however many views
    it has; what was there before does not count. Used as a context manager, on real tensors or on fake ones.
    """

    def __init__(self):
        super().__init__()
        self.current = self.peak = 0
        self._alive: dict[int, weakref.ref] = {}

    def ignore(self, *tensors: Tensor) -> "MemoryMeter":
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


def loss_memory(rows: int, dim: int, form: str, processes: int = 1) -> tuple[int, int]:
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
    return 4 * (held + 3 * d), 4 * (peak + 6 * d)  # float32


def loss_operations(batch_size: int, dim: int, form: str) -> int:
    """Floating-point operations of the loss, forward and backward, of all processes together.

    Matrix products alone, two operations a multiplication: 4 N² D multiplications (gram) or 3 N D² (matrix).
    """
    n, d = batch_size, dim
    return 2 * (4 * n * n * d if form == "gram" else 3 * n * d * d)


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
    settings = {k: v for k, v in config.items() if k != "epochs"}  # plans differ in these
    return _run_on_fake_tensors(json.dumps(settings), rows)


@cache  # it takes seconds, and plans are compared
def _run_on_fake_tensors(settings: str, rows: int) -> Network:
    config = json.loads(settings)
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
        fixed, seen = (sum(x.nbytes for x in tensors) for tensors in (own, views))
    return Network(rows, trained, fixed, seen, saved, meter.peak, flops.get_total_flops())


# The machine: options of the command ``plan``, and of the function.
MACHINE = {
    "gpus": Setting(1, "how many", int, 1),
    "gpu": Setting("a100", "whose memory and published rate count", choices=GPUS),
    "gpu_memory": Setting(None, "GB of one, in place of gpu's", float, 1e-9, null=True),
    "tflops": Setting(None, "10^12 operations/s that one really does", float, 1e-9, null=True),
    "images_per_second": Setting(None, "in its place: measured, of one", float, 1e-9, null=True),
    "price_per_gpu_hour": Setting(None, "for the cost, in any currency", float, 0, null=True),
    "images": Setting(None, "of an epoch, where no root tells", int, 1, null=True),
}


class Plan:
    """A configuration on a machine; see :func:`plan`. ``str()`` of it is a table.

    images, steps: of an epoch, of the whole run. rows: images of a step in one process. form: of the loss, as
    training would take it. network: a step in one process. operations: floating-point operations of a step, of all
    processes together. rate: 10¹² operations a second of one GPU. seconds_per_step, hours: at that rate. gradients,
    optimizer: bytes of both in one process; several processes hold gradients once more, packed to be sent.
    """

    def __init__(self, config: Mapping[str, Any], machine: Mapping[str, Any], images: int):
        self.config, self.machine, self.images = config, machine, images
        self.gpus, batch = machine["gpus"], config["batch_size"]
        self.rows, self.steps = batch // self.gpus, Schedule.of(config, images, self.gpus).total
        if self.rows < 2:
            raise ValueError(
                f"batch_size={batch} leaves {self.gpus} GPUs less than two images each. Take --set "
                f"batch_size={2 * self.gpus} or more, or fewer GPUs."
            )
        self.network, self._doubled = (simulate(config, n * self.rows) for n in (1, 2))
        self.form = config["form"]
        if self.form == "auto":
            self.form = cheaper_form(batch, config["proj_dim"], self.gpus)
        trained = self.network.parameters
        self.gradients = 4 * trained * (2 if self.gpus > 1 else 1)
        # In float32: two numbers a parameter for AdamW, the momentum for SGD and LARS.
        self.optimizer = 4 * trained * (2 if config["optimizer"] == "adamw" else 1)
        loss = loss_operations(batch, config["proj_dim"], self.form)
        self.operations = self.gpus * self.network.operations + loss
        self.rate, self.rate_source = self._rate()
        self.seconds_per_step = self.operations / (self.gpus * self.rate * 1e12)
        self.hours = self.steps * self.seconds_per_step / 3600

    def _rate(self) -> tuple[float, str]:
        """10¹² operations a second of one GPU, and who says so."""
        speed, given, gpu = (self.machine[k] for k in ("images_per_second", "tflops", "gpu"))
        if speed is not None:
            rate = speed * self.operations / self.config["batch_size"] / 1e12
            return rate, f"{speed:g} images a second and GPU, as given"
        if given is not None:
            return given, "as given"
        source = f"ResNet-50 on {gpu.upper()}, as published; small networks reach less"
        return GPUS[gpu][0] * RESNET50 / 1e12, source

    def loss_peak(self, form: str, rows: int) -> int:
        """The most bytes that the loss has at a time, in one process with ``rows`` images."""
        return loss_memory(rows, self.config["proj_dim"], form, self.gpus)[1]

    def peak(self, rows: int) -> int:
        """The most bytes in one process with ``rows`` images, by the line through two simulations."""
        one, two = self.network, self._doubled

        def line(name: str) -> float:
            a, b = getattr(one, name), getattr(two, name)
            return a + (b - a) * (rows - self.rows) / self.rows

        fixed = one.fixed + self.optimizer + self.gradients * (self.gpus > 1) // 2
        embeddings = 2 * 4 * rows * self.config["proj_dim"]
        at_loss = line("saved") + embeddings + self.loss_peak(self.form, rows)
        return round(fixed + line("views") + max(line("peak"), at_loss))

    @cached_property
    def largest_rows(self) -> int:
        """The most images of an epoch that a process can take in a step; 0 if not even two fit."""
        limit = USABLE * 1e9 * self.machine["gpu_memory"]
        # The peak grows with the rows, so that halving finds the last that fits; one image has no C.
        largest = bisect.bisect(range(self.images + 1), limit, lo=2, key=self.peak) - 1
        return largest if largest > 1 else 0

    def _memory(self) -> dict[str, tuple[str, int]]:
        """What the memory of one process is for: key -> in words, bytes."""
        return {
            "parameters": ("weights and buffers", self.network.fixed),
            "gradients": ("gradients", self.gradients),
            "optimizer": ("optimizer", self.optimizer),
            "views": ("both views", self.network.views),
            "activations": ("kept for the way back", self.network.saved),
            "loss_matrix": ("loss, matrix form", self.loss_peak("matrix", self.rows)),
            "loss_gram": ("loss, gram form", self.loss_peak("gram", self.rows)),
            "peak": ("peak", self.peak(self.rows)),
        }

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain numbers: bytes in GB (10⁹), operations, hours, cost."""
        gpu_hours, price = self.hours * self.gpus, self.machine["price_per_gpu_hour"]
        return {
            "name": self.config["name"],
            "gpus": self.gpus,
            "batch_size": self.config["batch_size"],
            "images_per_gpu": self.rows,
            "parameters": self.network.parameters,
            "form": self.form,
            "memory_gb": {k: round(size / 1e9, 3) for k, (_, size) in self._memory().items()},
            "gpu_memory_gb": self.machine["gpu_memory"],
            "fits": self.rows <= self.largest_rows,
            "largest_batch": self.largest_rows * self.gpus,
            "images": self.images,
            "epochs": self.config["epochs"],
            "steps": self.steps,
            "operations_per_image": round(self.operations / self.config["batch_size"]),
            "operations_per_step": self.operations,
            "operations": self.operations * self.steps,
            "tflops_per_gpu": self.rate,
            "rate_source": self.rate_source,
            "seconds_per_step": self.seconds_per_step,
            "hours": round(self.hours, 3),
            "gpu_hours": round(gpu_hours, 2),
            "cost": None if price is None else round(gpu_hours * price, 2),
            "simulated": asdict(self.network),
        }

    def __str__(self) -> str:
        p, c = self.as_dict(), self.config
        each = f" = {self.gpus} x {self.rows:,}" if self.gpus > 1 else ""
        memory = {
            name + " (taken)" * (key == f"loss_{self.form}"): f"{size / 1e9:>10.3f}"
            for key, (name, size) in self._memory().items()
        }
        work = {
            "operations an image": f"{p['operations_per_image'] / 1e9:>10.2f} GFLOP",
            "operations a step": f"{self.operations / 1e12:>10.3f} TFLOP",
            "steps": f"{self.steps:>10,} ({p['epochs']} epochs of {self.images:,} images)",
            "rate of one GPU": f"{self.rate:>10.2f} TFLOP/s ({self.rate_source})",
            "seconds a step": f"{self.seconds_per_step:>10.3f}",
            "hours": f"{p['hours']:>10.2f}",
            "GPU hours": f"{p['gpu_hours']:>10.1f}",
        }
        if p["cost"] is not None:
            work["cost"] = f"{p['cost']:>10,.2f}"
        batch = p["largest_batch"]
        lines = [
            f"{p['name']}: {c['encoder']} at {c['image_size']} pixels, projector {c['proj_dim']}, batch "
            f"{p['batch_size']:,}{each}, {p['parameters'] / 1e6:.1f} million parameters",
            f"\nMemory of one GPU, simulated{'':17}GB",
            *(f"  {name:32}{size}" for name, size in memory.items()),
            f"  of {p['gpu_memory_gb']:g} GB: {'fits' if p['fits'] else 'DOES NOT FIT'}",
            f"  {'largest batch that fits':32}{batch or 'none':>10}",
            "\nWork",
            *(f"  {name:32}{amount}" for name, amount in work.items()),
        ]
        if not p["fits"]:
            smaller = f"--set batch_size={batch}" if batch else "a smaller encoder or proj_dim"
            lines.append(
                f"\nTo make it fit: {smaller}, --set checkpoint_activations=true (a third more operations), more "
                "GPUs (--gpus), or GPUs with more memory."
            )
        return "\n".join(lines)


def plan(config: str | Path | Mapping[str, Any], **options: Any) -> Plan:
    """Memory, operations, hours and cost of a configuration on ``gpus`` GPUs of ``gpu_memory`` GB.

    options: those of ``MACHINE``, and settings that replace the configuration's. A process on a CPU counts as a
    GPU. Hours follow from a rate: ``tflops`` or ``images_per_second`` of one GPU; without either, what is published
    of a ResNet-50 on the ``gpu`` (v100, a100, h100). The authors' own runs reached 18 and 26 % of that on V100s.
    images: of an epoch; default, those of the data set, or of the folder ``root``; without, ImageNet's 1,281,167.

    Raises ValueError for numbers that cannot be, a batch that does not divide by the GPUs or is more than the
    images, and for another method than Barlow Twins.

    >>> plan("garments_wide", epochs=10).steps
    1560
    """
    machine = complete(MACHINE, {k: v for k, v in options.items() if k in MACHINE})
    config = load_config(config, **{k: v for k, v in options.items() if k not in MACHINE})
    if config["method"] != "barlow_twins":
        raise ValueError(
            f"A plan knows the loss of Barlow Twins alone, got method={config['method']!r}. For the network, "
            "which is most of it, plan with --set method=barlow_twins."
        )
    if machine["tflops"] is not None and machine["images_per_second"] is not None:
        raise ValueError("Give tflops or images_per_second, not both: each says how fast it goes.")
    machine["gpu_memory"] = machine["gpu_memory"] or GPUS[machine["gpu"]][1]
    return Plan(config, machine, machine["images"] or _count(config))


def _count(config: Mapping[str, Any]) -> int:
    """Images of an epoch."""
    count = IMAGES[config["data"]]
    if config["data"] == "folder" and config["root"] is not None:
        count = len(scan(Path(config["root"]).expanduser()).files)
    return min(count, config["limit"] or count)
