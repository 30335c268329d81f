"""What a configuration takes before it is run: memory, operations, hours, cost.

The network of the configuration is run once forward and back on fake tensors, which have shapes but no memory: so
a plan for eight GPUs takes seconds on a laptop. Every tensor that PyTorch would make is counted, and so is
every floating-point operation of its matrix products and convolutions. What the libraries of a GPU take for
themselves is not in it, nor are gaps between tensors: ``USABLE`` leaves room for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from barlow_edu.config import build_model, load_config
from barlow_edu.loss import cheaper_form
from barlow_edu.numerics.recompute import save_memory
from barlow_edu.scale.memory import (
    MemoryMeter,
    fake_tensors,
    half_precision,
    loss_memory,
    loss_operations,
    optimizer_bytes,
    rounded_gb,
    storage_bytes,
)

USABLE = 0.92  # of a GPU's memory; the rest is for libraries, and for gaps between tensors
IMAGES = {"garments": 20_000, "cifar10": 50_000, "cifar100": 50_000, "folder": 1_281_167}
# Operations a second and GPU in the paper: what 1000 epochs of ImageNet take, over 32 V100 for 124 hours.
PAPER_TFLOPS = 4.53


@dataclass(frozen=True)
class Network:
    """One process's share of a step without the loss, simulated for ``rows`` images.

    parameters: numbers that are trained. fixed: bytes of all weights and buffers. views: bytes of both views.
    kept: bytes kept for the way back. peak: the most bytes there are at a time while it goes forward and back,
    gradients among them. operations: floating-point operations.
    """

    rows: int
    parameters: int
    fixed: int
    views: int
    kept: int
    peak: int
    operations: int


def simulate(config: Mapping[str, Any], rows: int) -> Network:
    """Run the network of a configuration forward and back on ``rows`` fake images, both views."""
    size, half = config["image_size"], config["precision"] != "float32"
    with fake_tensors():
        model = build_model(config).train()
        save_memory(model, config)
        views = [torch.empty(rows, 3, size, size) for _ in range(2)]
        own = [*model.parameters(), *model.buffers()]
        with MemoryMeter().ignore(*own, *views) as meter, FlopCounterMode(display=False) as flops:
            with half_precision(half):
                z = model._embed_both(*views)
            kept = meter.current
            torch.autograd.backward(z, [torch.empty_like(x) for x in z])
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        fixed, seen = storage_bytes(*own), storage_bytes(*views)
    return Network(rows, trained, fixed, seen, kept, meter.peak, flops.get_total_flops())


@dataclass(frozen=True)
class Plan:
    """A configuration on a machine; see :func:`plan`. ``str()`` of it is a table."""

    config: Mapping[str, Any]
    gpus: int
    gpu_memory: float
    images: int
    rate: float
    rate_source: str
    price: float | None
    network: Network
    doubled: Network

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

    def loss(self, form: str, rows: int | None = None) -> tuple[int, int]:
        """Bytes the loss keeps, and its peak, in one process."""
        return loss_memory(rows or self.rows, self.config["proj_dim"], form, self.gpus)

    @property
    def optimizer(self) -> int:
        """Bytes of the optimizer's state."""
        return optimizer_bytes(self.config["optimizer"], self.network.parameters)

    @property
    def gradients(self) -> int:
        """Bytes of the gradients; several processes hold them once more, packed to be sent."""
        return 4 * self.network.parameters * (2 if self.gpus > 1 else 1)

    def peak(self, rows: int) -> int:
        """The most bytes in one process with ``rows`` images, by the line through two simulations."""

        def line(a: int, b: int) -> float:
            return a + (b - a) * (rows - self.rows) / self.rows

        one, two = self.network, self.doubled
        embeddings = 2 * 4 * rows * self.config["proj_dim"]
        fixed = one.fixed + self.optimizer + self.gradients * (self.gpus > 1) // 2
        at_loss = line(one.kept, two.kept) + embeddings + self.loss(self.form, rows)[1]
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
        c = self.config
        return self.gpus * self.network.operations + loss_operations(
            c["batch_size"], c["proj_dim"], self.form
        )

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.images // self.config["batch_size"] * self.config["epochs"]

    @property
    def hours(self) -> float:
        """Hours of the whole run at the rate stated."""
        return self.steps * self.operations / (self.gpus * self.rate * 1e12) / 3600

    @property
    def memory(self) -> dict[str, int]:
        """Bytes in one process, by what they are for; both forms of the loss, and the peak of it all."""
        return {
            "parameters": self.network.fixed,
            "gradients": self.gradients,
            "optimizer": self.optimizer,
            "views": self.network.views,
            "activations": self.network.kept,
            "loss_matrix": self.loss("matrix")[1],
            "loss_gram": self.loss("gram")[1],
            "peak": self.peak(self.rows),
        }

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain numbers: bytes in GB (10⁹), operations, hours, cost."""
        gpu_hours = self.hours * self.gpus
        return {
            "name": self.config["name"],
            "gpus": self.gpus,
            "batch_size": self.config["batch_size"],
            "images_per_gpu": self.rows,
            "parameters": self.network.parameters,
            "form": self.form,
            "memory_gb": {k: rounded_gb(v) for k, v in self.memory.items()},
            "gpu_memory_gb": self.gpu_memory,
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
            "seconds_per_step": self.operations / (self.gpus * self.rate * 1e12),
            "hours": round(self.hours, 3),
            "gpu_hours": round(gpu_hours, 2),
            "cost": None if self.price is None else round(gpu_hours * self.price, 2),
            "simulated": asdict(self.network),
        }

    def __str__(self) -> str:
        from barlow_edu.evaluation.tables import plan_table

        return plan_table(self.as_dict(), self.config)


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
    images = _enough(images if images is not None else _count(config), config)
    rows = config["batch_size"] // gpus
    network, doubled = simulate(config, rows), simulate(config, 2 * rows)
    rate, source = tflops or PAPER_TFLOPS, "as given" if tflops else "the paper's V100s"
    result = Plan(
        config, gpus, gpu_memory, images, rate, source, price_per_gpu_hour, network, doubled
    )
    if images_per_second is not None:
        rate = images_per_second * result.operations / config["batch_size"] / 1e12
        source = f"{images_per_second:g} images a second and GPU, as given"
        result = Plan(**{**vars(result), "rate": rate, "rate_source": source})
    return result


def _check(config, gpus, gpu_memory, tflops, images_per_second, price) -> None:
    if config["method"] != "barlow_twins":
        raise ValueError(
            f"A plan knows the loss of Barlow Twins alone, got method={config['method']!r}. For the network, "
            "which is most of it, plan with --set method=barlow_twins."
        )
    if isinstance(gpus, bool) or not isinstance(gpus, int) or gpus < 1:
        raise ValueError(f"gpus must be a whole number of at least 1, got {gpus!r}.")
    if config["batch_size"] % gpus or config["batch_size"] // gpus < 2:
        fitting = max(1, config["batch_size"] // gpus) * gpus
        raise ValueError(
            f"batch_size={config['batch_size']} does not give {gpus} GPUs an equal share of two images or "
            f"more. Take --set batch_size={max(fitting, 2 * gpus)}, or another number of GPUs."
        )
    if tflops is not None and images_per_second is not None:
        raise ValueError("Give tflops or images_per_second, not both: each says how fast it goes.")
    rates = {"gpu_memory": gpu_memory, "tflops": tflops, "images_per_second": images_per_second}
    for name, value in rates.items():
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be above 0, got {value}.")
    if price is not None and not price >= 0:
        raise ValueError(f"price_per_gpu_hour must be 0 or more, got {price}.")


def _enough(images: int, config: Mapping[str, Any]) -> int:
    """The number of images, if it fills a batch."""
    if images < config["batch_size"]:
        raise ValueError(
            f"batch_size={config['batch_size']} is more than the {images} images there are. Take a smaller "
            "batch (--set batch_size=N), or give the number of images (--images N)."
        )
    return images


def _count(config: Mapping[str, Any]) -> int:
    """Images of an epoch."""
    if config["data"] == "folder" and config["root"] is not None:
        from barlow_edu.storage.trees import scan

        found = len(scan(Path(config["root"]).expanduser()).files)
    else:
        found = IMAGES[config["data"]]
    return min(found, config["limit"] or found)
