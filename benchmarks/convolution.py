"""A training step in bfloat16 on a CPU, with torch's convolutions and with the short way for few pixels.

    python benchmarks/convolution.py            # one thread; stored
    python benchmarks/convolution.py --quick    # a smaller batch; printed and not stored

The two nets have the same weights and take turns on the same views; processor time counts. Where the processor has no
bfloat16 of its own it is emulated, and a configuration's precision=auto takes float32: then this says how
much of an emulated step is saved, and no more.
"""

from __future__ import annotations

import argparse
import copy
from functools import partial

import torch
from common import describe, environment, interleave, table, write

import barlow_edu as be
from barlow_edu.numerics.convolution import shorten_convolutions
from barlow_edu.optim import build_optimizer

CASES = {"small_resnet": "cifar", "resnet18": "imagenet"}


def steps(encoder: str, batch: int) -> dict:
    """Two functions that make one training step each, on 32 x 32 pixels."""
    torch.manual_seed(0)
    options = {"encoder": encoder, "stem": CASES[encoder], "image_size": 32, "proj_dim": 512}
    plain = be.BarlowTwinsModel(options).to(memory_format=torch.channels_last)
    short = copy.deepcopy(plain)
    shorten_convolutions(short)
    views = torch.randn(2, batch, 3, 32, 32)
    views = [view.contiguous(memory_format=torch.channels_last) for view in views]

    def step(model, optimizer):
        with torch.autocast("cpu", torch.bfloat16):
            loss, _ = model(*views)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    both = {"torch's": plain, "short": short}
    return {k: partial(step, m, build_optimizer("adamw", m, 1e-3)) for k, m in both.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    rows, batch = [], 16 if quick else 64
    for encoder, stem in CASES.items():
        times = {k: t["median"] for k, t in interleave(steps(encoder, batch), 1.0, 3).items()}
        gain = 1 - times["short"] / times["torch's"]
        row = {"encoder": f"{encoder}, {stem} stem", "batch": batch}
        rows.append(
            row | {f"{k}, s": f"{t:.2f}" for k, t in times.items()} | {"saved": f"{gain:.0%}"}
        )
    env = environment()
    env["fast bfloat16"] = (
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    )
    has = "the processor's own" if env["fast bfloat16"] else "emulated"
    text = f"""# Convolutions over few pixels: a step in bfloat16

{describe(env)}; bfloat16 is {has}. Made by `python benchmarks/convolution.py`.

Median processor time of a step, forward, backward and AdamW, on 32 x 32 pixels.

{table(rows)}"""
    print(text)
    if not quick:
        write("convolution", text, {"environment": env, "rows": rows})


if __name__ == "__main__":
    main()
