"""Where a run is computed: device, precision, memory layout, and the machine around them."""

import contextlib
import datetime
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from barlow_edu.numerics.distributed import local_rank


def named_device(name: str) -> torch.device:
    """The device of that name, here or not; "auto" may always be the CPU. Raises ValueError for what is no name."""
    try:
        device = torch.device("cpu" if name == "auto" else name)
    except (RuntimeError, TypeError):
        device = None
    if str(device).split(":")[0] not in ("cpu", "cuda", "mps") or str(device).startswith("cpu:"):
        raise ValueError(f"device must be auto, cpu, cuda, cuda:NUMBER, or mps, got {name!r}.")
    return device


def choose_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" is the first of CUDA, MPS and CPU that is there.

    A GPU without a number is, under torchrun, the one of this process. Raises ValueError for a name that is none,
    and for a device that torch does not find here.

    >>> choose_device("cpu")
    device(type='cpu')
    """
    mps = torch.backends.mps.is_available()
    there = {"cuda": torch.cuda.is_available(), "mps": mps, "cpu": True}
    if name == "auto":
        name = next(kind for kind in there if there[kind])
    device = named_device(name)
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    if not there[device.type] or (device.index or 0) >= count:
        what = {"cuda": "no GPU", "mps": "no Apple GPU"}[device.type]
        what = f"only {count} GPUs" if there[device.type] else what
        raise ValueError(f"device={name!r}, but torch finds {what}. Take 'auto' or 'cpu'.")
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", local_rank())
    return device


def device_of(module: nn.Module) -> torch.device:
    """Where the module's parameters are; the CPU if it has none."""
    return next((p.device for p in module.parameters()), torch.device("cpu"))


@dataclass(frozen=True)
class Computer:
    """Where and in which precision to compute, and why.

    half: the type of the forward pass, None for float32. A GPU without bfloat16 gets float16, its gradients scaled
    so that small ones do not vanish. An Apple GPU (MPS) gets float32: its bfloat16 is no faster. It has no float64,
    and needs none: crops are drawn in float64 on the CPU, and probes and spectra are computed there.
    """

    device: torch.device
    half: torch.dtype | None
    channels_last: bool
    reason: str

    @classmethod
    def choose(cls, config: Mapping[str, Any]) -> "Computer":
        """The device and precision a configuration asks for; "auto" goes by what the machine can do."""
        device = choose_device(config["device"])
        able, layout = _fast_bfloat16(device), config["channels_last"]
        precision, why = config["precision"], "as configured"
        if precision == "auto":
            precision = "bfloat16" if able else "float16" if device.type == "cuda" else "float32"
            why = f"this device {'computes it fast' if able else 'has no fast bfloat16'}"
        half = None if precision == "float32" else getattr(torch, precision)
        # oneDNN and cuDNN compute half-precision convolutions faster with channels last, and a CPU without AVX-512
        # also those of float32: small_resnet by 1.4 on an AVX2 machine (benchmarks/roofline.py).
        if layout == "auto":
            layout = half is not None or device.type == "cpu"
        return cls(device, half, layout, why)

    @classmethod
    def of(cls, module: nn.Module) -> "Computer":
        """The device a module is on, in the precision and the layout that suit it."""
        auto = dict.fromkeys(("precision", "channels_last"), "auto")
        return cls.choose({"device": str(device_of(module)), **auto})

    @property
    def precision(self) -> str:
        """The type of the forward pass, the layout, and why."""
        half = str(self.half or torch.float32).removeprefix("torch.")
        return f"{half}, channels {'last' if self.channels_last else 'first'} ({self.reason})"

    def describe(self) -> dict[str, Any]:
        """Hardware, versions and precision, for environment.json."""
        gpu = self.device.type == "cuda"
        return {
            "date": datetime.date.today().isoformat(),
            "device": torch.cuda.get_device_name(self.device) if gpu else self.device.type,
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "commit": _commit(),
            "precision": self.precision,
        }

    def autocast(self) -> torch.autocast:
        """The context of a forward pass."""
        return torch.autocast(self.device.type, self.half, enabled=self.half is not None)

    def scaler(self) -> torch.amp.GradScaler:
        """What keeps gradients of float16 from vanishing; in other precisions it does nothing."""
        return torch.amp.GradScaler(self.device.type, enabled=self.half is torch.float16)

    def place(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) on the device, in its preferred layout."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        # Only CUDA orders copies that nobody waits for; elsewhere the memory may be used again too early.
        non_blocking = self.device.type == "cuda"
        return x.to(self.device, memory_format=layout, non_blocking=non_blocking)

    def seed(self, seed: int) -> None:
        """Seed torch's own generators, from which modules such as dropout draw."""
        # Not torch.manual_seed: it asks every kind of device, and queues up for those not yet in use.
        torch.default_generator.manual_seed(seed)
        if self.device.type != "cpu":
            getattr(torch, self.device.type).manual_seed(seed)

    @contextlib.contextmanager
    def repeatable(self, threads: int) -> Iterator[None]:
        """Inside, the same seeds give the same run, on ``threads`` of the processor; all is left as it was before.

        On a GPU cuDNN is held to its deterministic kernels: those it picks by timing them differ in the last
        bits from one run to the next.
        """
        cudnn = torch.backends.cudnn
        before = cudnn.deterministic, cudnn.benchmark
        threads_before = torch.get_num_threads()
        gpus = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=gpus):
            cudnn.deterministic, cudnn.benchmark = True, False
            torch.set_num_threads(threads)
            try:
                yield
            finally:
                cudnn.deterministic, cudnn.benchmark = before
                torch.set_num_threads(threads_before)


def _fast_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    try:  # no public name for this yet
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    except AttributeError:
        return False


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(x.split(":")[1].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The checkout's commit, if the package runs from one."""
    command = ["git", "-C", str(Path(__file__).parents[1]), "rev-parse", "--short", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
