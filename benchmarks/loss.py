"""Time and memory of the loss against the plain D x D form, forward and backward.

    python benchmarks/loss.py            # the whole table, about ten minutes, 8 GB of memory
    python benchmarks/loss.py --threads 1    # processor time, fair on a busy machine too
    python benchmarks/loss.py --quick    # a few shapes, printed and not stored

The plain form is how the loss is usually written: batch-normalise both views, one D x D matrix, its
diagonal, a copy of everything off the diagonal, sums of squares, and autograd through all of it. The
contenders take turns, and the least time of each counts. Memory is measured in a fresh process for each.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import torch
from common import describe, environment, interleave, milliseconds, table, write
from torch import Tensor, nn

from barlow_edu.loss import barlow_twins_loss, cheaper_form

LAMBD = 0.005
BATCHES = (64, 128, 256, 512, 1024, 2048)
DIMS = (128, 512, 2048, 8192)
SHAPES = [(n, d) for d in DIMS for n in BATCHES] + [(256, 16384)]
QUICK = [(256, 128), (1024, 512), (256, 2048), (256, 8192)]
MEMORY_SHAPE = (256, 16384)
BARS = {(256, 8192): 10.0, (256, 16384): 30.0}


class PlainLoss(nn.Module):
    """The usual D x D form, with the batch normalisation that the published code has."""

    def __init__(self, d: int):
        super().__init__()
        self.normalise = nn.BatchNorm1d(d, affine=False)

    def forward(self, z_a: Tensor, z_b: Tensor) -> Tensor:
        n, d = z_a.shape
        c = self.normalise(z_a).T @ self.normalise(z_b) / n
        on = (c.diagonal() - 1).square().sum()
        off = c.flatten()[:-1].view(d - 1, d + 1)[:, 1:].flatten().square().sum()
        return on + LAMBD * off


def our_loss(form: str, z_a: Tensor, z_b: Tensor) -> Tensor:
    return barlow_twins_loss(z_a, z_b, LAMBD, form).loss


NAMES = ("plain", "auto", "matrix", "gram")


def contender(name: str, d: int):
    """The function of both views that is measured."""
    return PlainLoss(d) if name == "plain" else partial(our_loss, name)


def embeddings(n: int, d: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    shared, *noise = torch.randn(3, n, d, generator=g)
    return tuple((shared + 0.5 * e).requires_grad_() for e in noise)


def step(loss, z_a: Tensor, z_b: Tensor) -> None:
    z_a.grad = z_b.grad = None
    loss(z_a, z_b).backward()


def measure(n: int, d: int, seconds: float) -> dict:
    """One row: the pair that is compared takes turns; the two forms follow, for information."""
    z = embeddings(n, d)
    run = {name: partial(step, contender(name, d), *z) for name in NAMES}
    times = interleave({k: run[k] for k in ("plain", "auto")}, seconds)
    times |= interleave({k: run[k] for k in ("matrix", "gram")}, seconds / 4, rounds=1)
    return {
        "N": n,
        "D": d,
        "times": times,
        "auto is": cheaper_form(n, d),
        "ratio": times["plain"]["min"] / times["auto"]["min"],
        "ratio of medians": times["plain"]["median"] / times["auto"]["median"],
    }


def show(row: dict) -> dict[str, object]:
    times = {f"{k} ms": milliseconds(t["min"]) for k, t in row["times"].items()}
    bar = BARS.get((row["N"], row["D"]), 1.0)
    return {
        "N": row["N"],
        "D": row["D"],
        **times,
        "auto is": row["auto is"],
        "plain / auto": f"{row['ratio']:.2f}",
        "of medians": f"{row['ratio of medians']:.2f}",
        "bar": f"{bar:g}",
    }


def memory_in_use(field: str) -> int:
    """VmRSS (now) or VmHWM (the peak) of this process in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) * 1024


def peak_memory(name: str) -> int:
    """Bytes that one forward and backward pass adds to the process at its peak. Inputs are not counted."""
    step(contender(name, 16), *embeddings(8, 16))  # thread pools and libraries are loaded now
    z = embeddings(*MEMORY_SHAPE)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = memory_in_use("VmRSS")
    step(contender(name, MEMORY_SHAPE[1]), *z)
    return memory_in_use("VmHWM") - before


def memory_table() -> dict[str, int]:
    """Peak bytes of every contender, each in a fresh process."""
    peaks = {}
    for name in NAMES:
        command = [sys.executable, __file__, "--peak-memory", name]
        peaks[name] = int(subprocess.run(command, check=True, capture_output=True).stdout)
    return peaks


def report(env: dict, rows: list[dict], peaks: dict[str, int]) -> str:
    n, d = MEMORY_SHAPE
    clock = "processor" if env["threads"] == 1 else "wall"
    memory = [
        {"form": k, "peak MiB": f"{v / 2**20:.0f}", "share": f"1/{peaks['plain'] / v:.1f}"}
        for k, v in peaks.items()
    ]
    return "\n\n".join(
        [
            "# The loss: time and memory",
            f"{describe(env)}. Made by `python benchmarks/loss.py --threads {env['threads']}`.",
            f"Forward and backward, float32, least of several turns in milliseconds of {clock} time.",
            table([show(row) for row in rows]),
            f"Peak memory of one forward and backward pass at N = {n}, D = {d}, inputs not counted. "
            "The bar is 1/20 of the plain form.",
            table(memory),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few shapes; nothing is stored")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=4.0, help="time for each shape, at least")
    parser.add_argument("--peak-memory", choices=NAMES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak_memory:
        print(peak_memory(options.peak_memory))
        return
    rows = []
    for n, d in QUICK if options.quick else SHAPES:
        rows.append(measure(n, d, options.seconds))
        print(show(rows[-1]), flush=True)
    env, peaks = environment(), memory_table()
    text = report(env, rows, peaks)
    print("\n" + text)
    if not options.quick:
        name = "loss_1_thread" if options.threads == 1 else "loss"
        write(name, text, {"environment": env, "rows": rows, "peak_bytes": peaks})


if __name__ == "__main__":
    main()
