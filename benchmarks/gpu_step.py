"""Time and peak memory of one training step on a GPU: ours, the official code's style, and the bare arithmetic.

    python benchmarks/gpu_step.py --out DIR            # ResNet-50, 3 x 8192, 224 pixels; about ten minutes
    python benchmarks/gpu_step.py --out DIR --no-compile --no-largest    # about two
    python benchmarks/gpu_step.py --tiny               # a smoke test of this file, on any machine

"ours": model, loss in one of its forms, LARS, as the training loop runs them, with and without torch.compile.
"official style": backbone and projector one after the other for each view, the last batch norm inside the loss, C by
a matrix product under autocast, the off-diagonal entries copied out; the same optimizer. "bare": the encoder's two
forward and backward passes and the head's matrix products, no loss, no batch norm in the head, no optimizer: what no
implementation can do without. The bar is 1.1 x bare. bfloat16 and channels last throughout; views are made once,
beforehand. The contenders take turns. Peak memory is PyTorch's own count; beside it stands what
``barlow_edu plan`` foretells.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import describe, environment, table
from torch import Tensor, nn

from barlow_edu.config import load_config
from barlow_edu.models import BarlowTwinsModel, Projector, build_encoder
from barlow_edu.numerics.devices import Computer
from barlow_edu.numerics.optim import build_optimizer
from barlow_edu.scale.planner import plan

BAR = 1.1
FULL = {"encoder": "resnet50", "image_size": 224, "proj_dim": 8192}
TINY = {"encoder": "small_resnet", "image_size": 32, "proj_dim": 64}


class Official(nn.Module):
    """The step of the published code, in its order."""

    def __init__(self, encoder: str, image_size: int, proj_dim: int, lambd: float = 0.0051):
        super().__init__()
        self.backbone, dim = build_encoder(encoder, "imagenet", image_size)
        self.projector = Projector(dim, proj_dim, last_norm=False)
        self.bn = nn.BatchNorm1d(proj_dim, affine=False)
        self.lambd = lambd

    def forward(self, y1: Tensor, y2: Tensor) -> Tensor:
        z1 = self.projector(self.backbone(y1))
        z2 = self.projector(self.backbone(y2))
        c = self.bn(z1).T @ self.bn(z2)
        c = c / len(y1)
        on = (torch.diagonal(c) - 1).pow(2).sum()
        n = len(c)
        off = c.flatten()[:-1].view(n - 1, n + 1)[:, 1:].flatten().pow(2).sum()
        return on + self.lambd * off


class Bench:
    """Contenders at one batch size on one device."""

    def __init__(self, settings: dict, batch: int, device: torch.device):
        self.settings, self.batch, self.device = settings, batch, device
        config = load_config(None, **settings, device=str(device), precision="bfloat16")
        self.computer = Computer.choose(config)
        size = settings["image_size"]
        images = torch.randn(2, batch, 3, size, size)
        self.views = [self.computer.place(x) for x in images]

    def _ready(self, model: nn.Module) -> nn.Module:
        model = model.to(self.device).train()
        return model.to(memory_format=torch.channels_last)

    def _stepping(self, model: nn.Module, loss_of: Callable, compiled: bool) -> Callable[[], None]:
        optimizer = build_optimizer("lars", model, 0.2, 1.5e-6, 0.0003)
        call = torch.compile(model) if compiled else model

        def step() -> None:
            with self.computer.autocast():
                loss = loss_of(call(*self.views))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

        return step

    def ours(self, form: str, compiled: bool = False) -> Callable[[], None]:
        """The training loop's step."""
        model = BarlowTwinsModel(**self.settings, stem="imagenet", form=form)
        return self._stepping(self._ready(model), lambda out: out[0], compiled)

    def official(self, compiled: bool = False) -> Callable[[], None]:
        """The published code's step."""
        return self._stepping(self._ready(Official(**self.settings)), lambda loss: loss, compiled)

    def bare(self, compiled: bool = False) -> Callable[[], None]:
        """The encoder's passes and the head's products."""
        encoder, dim = build_encoder(
            self.settings["encoder"], "imagenet", self.settings["image_size"]
        )
        encoder = self._ready(encoder)
        call, wide = torch.compile(encoder) if compiled else encoder, self.settings["proj_dim"]
        half = {"device": self.device, "dtype": torch.bfloat16}
        shapes = ((dim, wide), (wide, wide), (wide, wide))
        weights = [torch.randn(a, b, **half) / a**0.5 for a, b in shapes]
        inputs = [torch.randn(self.batch, a, **half) for a, _ in shapes]
        grads = [torch.randn(self.batch, b, **half) for _, b in shapes]

        def step() -> None:
            for view in self.views:
                with self.computer.autocast():
                    features = call(view)
                features.backward(torch.ones_like(features))
                for x, w, g in zip(inputs, weights, grads, strict=True):
                    _ = x @ w, g @ w.T, x.T @ g  # forward, gradient of the input, of the weights
            for p in encoder.parameters():
                p.grad = None

        return step


def timed(step: Callable[[], None], device: torch.device) -> float:
    """Seconds of one step."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def peak_gb(step: Callable[[], None], device: torch.device) -> float | None:
    """Peak memory of one step in GB (10⁹), of all that is allocated; None on a CPU."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    step()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) / 1e9


def measure(bench: Bench, compiled: bool, rounds: int) -> list[dict]:
    """Every contender built, warmed up and measured alone, so that peak memory is its own."""
    makers = {
        "ours, gram": lambda: bench.ours("gram", compiled),
        "ours, matrix": lambda: bench.ours("matrix", compiled),
        "official style": lambda: bench.official(compiled),
        "bare": lambda: bench.bare(compiled),
    }
    seconds: dict[str, list[float]] = {name: [] for name in makers}
    peaks: dict[str, float | None] = {}
    for _ in range(2):  # in turn, twice: a clock that changes hits all of them
        for name, make in makers.items():
            step = make()
            for _ in range(3):
                step()
            seconds[name] += [timed(step, bench.device) for _ in range(rounds)]
            peaks[name] = peak_gb(step, bench.device)
            del step
            if bench.device.type == "cuda":
                torch.cuda.empty_cache()
    least = {name: statistics.median(times) for name, times in seconds.items()}
    return [
        {
            "step": name,
            "batch": bench.batch,
            "compile": compiled,
            "seconds": least[name],
            "images_per_second": bench.batch / least[name],
            "of_bare": least[name] / least["bare"],
            "peak_gb": peaks[name],
        }
        for name in makers
    ]


def fits(settings: dict, batch: int, device: torch.device) -> bool:
    """Whether two of our steps run at this batch size."""
    try:
        step = Bench(settings, batch, device).ours("auto")
        for _ in range(2):
            step()
        torch.cuda.synchronize(device)
        return True
    except torch.OutOfMemoryError:
        return False
    finally:
        step = None
        torch.cuda.empty_cache()


def largest(settings: dict, device: torch.device, unit: int = 64) -> int:
    """The largest batch, a multiple of ``unit``, that fits; found by trying."""
    low, high = 4, 8
    while fits(settings, high * unit, device):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(settings, middle * unit, device) else (low, middle)
    return low * unit


def planned(settings: dict, batch: int) -> float:
    """Peak memory in GB that the planner foretells."""
    found = plan(settings | {"batch_size": batch, "optimizer": "lars", "precision": "bfloat16"})
    return found.as_dict()["memory_gb"]["peak"]


def show(row: dict, foretold: dict[int, float]) -> dict[str, object]:
    peak = row["peak_gb"]
    return {
        "step": row["step"],
        "batch": row["batch"],
        "compile": "on" if row["compile"] else "off",
        "ms": f"{1e3 * row['seconds']:.1f}",
        "images/s": f"{row['images_per_second']:,.0f}",
        "x bare": f"{row['of_bare']:.2f}",
        "peak GB": "-" if peak is None else f"{peak:.2f}",
        "planned GB": f"{foretold[row['batch']]:.2f}" if "ours" in row["step"] else "-",
    }


def report(rows: list[dict], foretold: dict[int, float], device: torch.device, notes: list[str]):
    """The table as text."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    best = min((r["of_bare"] for r in rows if "ours" in r["step"]), default=float("nan"))
    return "\n\n".join(
        [
            "# One training step on a GPU",
            f"{name}; {describe(environment())}. Made by `python benchmarks/gpu_step.py`.",
            "Median of several steps; x bare: against the bare arithmetic with the same setting of compile. "
            "'planned' is the planner's peak for the form that is cheaper.",
            table([show(row, foretold) for row in rows]),
            f"Ours at best {best:.2f} x bare; the bar is {BAR:g}.",
            *notes,
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="folder for gpu_step.md and gpu_step.json")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=8, help="timed steps, twice (default 8)")
    parser.add_argument("--no-compile", action="store_true", help="torch.compile off alone")
    parser.add_argument("--no-largest", action="store_true", help="one batch size alone")
    parser.add_argument("--tiny", action="store_true", help="a tiny net on the CPU, in seconds")
    options = parser.parse_args()
    if not options.tiny and not torch.cuda.is_available():
        raise SystemExit("gpu_step: torch finds no GPU. With --tiny the file is tried on a CPU.")
    device = torch.device("cpu" if options.tiny else "cuda")
    settings = TINY if options.tiny else FULL
    batches, notes = [8 if options.tiny else options.batch], []
    rounds = 2 if options.tiny else options.rounds
    if not options.tiny and not options.no_largest:
        batches.append(largest(settings, device))
        foreseen = plan(
            settings | {"batch_size": options.batch, "optimizer": "lars"},
            gpu_memory=torch.cuda.get_device_properties(device).total_memory / 1e9,
        ).largest_rows
        notes.append(f"Largest batch that fits: {batches[-1]} (tried), {foreseen} (planned).")
    modes = [False] if options.tiny or options.no_compile else [False, True]
    rows = []
    for batch in batches:
        bench = Bench(settings, batch, device)
        for compiled in modes:
            rows += measure(bench, compiled, rounds)
            print(f"batch {batch}, compile {'on' if compiled else 'off'}: measured", flush=True)
        del bench
    foretold = {batch: planned(settings, batch) for batch in batches}
    if options.tiny:
        notes.append("A smoke test of the benchmark: these numbers mean nothing.")
    text = report(rows, foretold, device, notes)
    print(text)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "gpu_step.md").write_text(text + "\n")
        record = {"environment": environment(), "rows": rows, "planned_gb": foretold}
        (options.out / "gpu_step.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
