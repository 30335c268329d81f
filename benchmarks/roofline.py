"""How near a step of training comes to what the processor can do, and which way through the network is fastest.

    python benchmarks/roofline.py             # some minutes
    python benchmarks/roofline.py --quick     # one round, batch 64, nothing stored; --compile also compiles

The peak is that of a product of two large matrices, in the same run and on as many threads. A step is two views
forward and backward, the loss and the optimizer, on lightly's example: ResNet-18, 32 pixels, 2048 dimensions, or
with ``--encoder small_resnet`` on that of the course. Its operations are counted by torch. The ways take turns.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from common import describe, environment, interleave, table, write
from torch.utils.flop_counter import FlopCounterMode

from barlow_edu.models import BarlowTwinsModel
from barlow_edu.numerics.devices import Computer
from barlow_edu.numerics.optim import build_optimizer
from barlow_edu.numerics.threads import SideBySide

NETS = {"resnet18": "imagenet", "small_resnet": "cifar"}  # encoder -> stem
NET = {"image_size": 32, "proj_dim": 2048}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def step(batch: int, precision: str, last: bool, joint=False, beside=False, compiled=False):
    """A function that does one step."""
    torch.manual_seed(0)
    layout = torch.channels_last if last else torch.contiguous_format
    model = BarlowTwinsModel(NET, joint_views=joint).to(memory_format=layout).train()
    if beside:
        model.side_by_side = SideBySide(torch.nn.Sequential(model.encoder, model.projector))
    views = [torch.randn(batch, 3, 32, 32).to(memory_format=layout) for _ in range(2)]
    optimizer = build_optimizer("sgd", model, 0.06)
    half = torch.bfloat16 if precision == "bfloat16" else None
    computer = Computer(torch.device("cpu"), half, last, "")
    call = torch.compile(model) if compiled else model

    def run() -> None:
        with computer.autocast():
            loss = call(*views)[0]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return run


def peak(precision: str, n: int = 2048, seconds: float = 2.0) -> float:
    """Operations a second of a product of two n x n matrices, the best of some."""
    a, b = (torch.randn(n, n).to(DTYPES[precision]) for _ in range(2))
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        a @ b
        best = max(best, 2 * n**3 / (time.perf_counter() - began))
    return best


def ways(batch: int, precision: str, compile_too: bool) -> dict[str, Callable[[], None]]:
    """What is compared; the first is the way of most code."""
    both = {
        "one view after the other": {},
        "the same, channels last": {"last": True},
        "both views in one batch": {"joint": True},
        "the same, channels last ": {"joint": True, "last": True},
        "side by side": {"beside": True},
        "side by side, channels last": {"beside": True, "last": True},
    }
    if compile_too:
        both["compiled, channels last"] = {"compiled": True, "last": True}
    return {n: step(batch, precision, **({"last": False} | w)) for n, w in both.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round; nothing is stored")
    parser.add_argument("--compile", action="store_true", help="also torch.compile (minutes)")
    parser.add_argument("--precision", choices=DTYPES, default=None)
    parser.add_argument("--encoder", choices=("resnet18", "small_resnet"), default="resnet18")
    options = parser.parse_args()
    NET.update({"encoder": options.encoder, "stem": NETS[options.encoder]})
    settings = {"device": "cpu", "precision": "auto", "channels_last": "auto"}
    fast = str(Computer.choose(settings).half or "torch.float32").removeprefix("torch.")
    precision = options.precision or fast
    batch, rounds = (64, 1) if options.quick else (256, 5)
    contenders = ways(batch, precision, options.compile)
    with FlopCounterMode(display=False) as counter:
        contenders["one view after the other"]()
    operations = counter.get_total_flops()
    before = peak(precision)
    times = interleave(contenders, seconds=0.0, rounds=rounds)
    best = max(before, peak(precision))
    first = next(iter(times.values()))["median"]
    rows = [
        {
            "way": name.strip(),
            "s a step": f"{t['median']:.3f}",
            "x the first": f"{first / t['median']:.2f}",
            "GFLOP/s": f"{operations / t['median'] / 1e9:.0f}",
            "of the peak": f"{operations / t['median'] / best:.0%}",
        }
        for name, t in times.items()
    ]
    about = (
        f"{options.encoder}, batch {batch}, {precision}: {operations / 1e9:.0f} GFLOP a step; "
        f"the peak is {best / 1e9:.0f} GFLOP/s."
    )
    print(about, table(rows), sep="\n\n")
    if not options.quick:
        env = environment()
        made = f"Made by `python benchmarks/roofline.py --encoder {options.encoder}`."
        head = f"# A step of {options.encoder} and the roofline\n\n{describe(env)}. {made}"
        record = {"environment": env, "seconds": times, "operations": operations, "peak": best}
        write(f"roofline_{options.encoder}", "\n\n".join([head, about, table(rows)]), record)


if __name__ == "__main__":
    main()
