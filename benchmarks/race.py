"""Accuracy against time: CIFAR-10 for ten minutes of wall time, kNN after every minute.

    uv run --with lightly python benchmarks/race.py --root CIFAR --out DIR            # 2.5 hours: 4 arms, 3 seeds
    uv run --with lightly python benchmarks/race.py --root CIFAR --out DIR --minutes 2 --seeds 1    # a look

The arms take turns, each in a process of its own, on all threads. "lightly" is its published Barlow Twins example.
"lightly, our net" is its loop, views and loss with our encoder, optimizer and schedule to the clock, and the 512
dimensions of our recorded recipe; "lightly, our settings" also has our dimensions, batch and λ. "ours" is
``pretrain cifar10_cpu`` by the clock with the settings of OURS and views of 24 pixels. kNN is taken on the same 2,000
test images with the same bank of 10,000, and the clock stands still meanwhile.
CIFAR: a class-folder tree or torchvision's files. What is finished in DIR is not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import torch
from common import describe, environment, table
from pretrain import CASES, Lightly
from torch import Tensor

import barlow_edu as be
from barlow_edu.config import Schedule, build_model, load_config
from barlow_edu.evaluation.features import extract_features, pixel_features
from barlow_edu.numerics.devices import Computer
from barlow_edu.numerics.optim import warmup_cosine
from barlow_edu.numerics.stopwatch import Stopwatch
from barlow_edu.state import TrainingState
from barlow_edu.storage.run_folder import RunWriter
from barlow_edu.training import Loop

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # by which lightly's views are normalised
NET = {"encoder": "small_resnet", "stem": "cifar", "optimizer": "adamw", "lr": 0.005}
WORKERS = 2  # of lightly's DataLoader: the fastest number in pretrain.py on two cores without fast bfloat16
# Chosen on held-out training images in trials of four minutes; views of 16 pixels at first, or of 32 at last, were no
# better there. One run of ten minutes with 16 pixels for its first half ended at 49.9 %.
OURS = {"proj_dim": 64, "proj_hidden": 256, "lambd": 0.1, "batch_size": 128}


class Clock:
    """Seconds of training; it stands still while somebody looks at what was learnt."""

    def __init__(self):
        self.began = time.perf_counter()

    def __call__(self) -> float:
        return time.perf_counter() - self.began


def lightlys(settings: dict, images, scheduled: bool, minutes: float, clock: Clock):
    """An encoder, how its images are normalised, and its training: a step a turn, until the time is over."""
    contender = Lightly(settings, images)
    contender.loss.lambda_param = settings.get("lambd", contender.loss.lambda_param)
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in IMAGENET)

    def steps() -> Iterator[None]:
        for _ in contender.steps(WORKERS):
            yield
            if scheduled:
                factor = warmup_cosine(clock(), 60 * minutes, 3 * minutes)
                for group in contender.optimizer.param_groups:
                    group["lr"] = settings["lr"] * factor
            if clock() >= 60 * minutes:
                return

    return contender.model[0], lambda x: (x.float() / 255 - mean) / std, steps()


def ours(settings: dict, images, minutes: float, seed: int, clock: Clock, folder: str):
    """The same of our loop, which has its own clock."""
    record = {"log_every": 10**9, "checkpoint_every": 10**9, "snapshots": 0}
    config = load_config("cifar10_cpu", minutes=minutes, seed=seed, **settings, **record)
    state = TrainingState(config, build_model(config), Computer.choose(config), "")
    loop = Loop(config, Schedule.of(config, len(images)), state, images, RunWriter(folder))

    def steps() -> Iterator[None]:
        for _ in loop.steps():
            before = clock.began
            yield
            if clock.began != before:  # it stood still, and so does the loop's
                loop.stopwatch = Stopwatch(clock() / 60)

    return state.model.encoder, be.TwinViews("cifar").normalize, steps()


ARMS: dict[str, Callable] = {
    "lightly": lambda *a, **k: lightlys(CASES["lightly's example"], *a, scheduled=False, **k),
    "lightly, our net": lambda *a, **k: lightlys(
        NET | {"proj_dim": 512, "batch_size": 128}, *a, scheduled=True, **k
    ),
    "lightly, our settings": lambda *a, **k: lightlys(NET | OURS, *a, scheduled=True, **k),
    "ours": lambda *a, **k: ours(OURS | {"image_size": 24}, *a, **k),
}


def accuracy(features: Callable[[Tensor], Tensor], bank, held_out) -> float:
    """kNN of the held-out images in the bank."""
    sets = [x for s in (bank, held_out) for x in (features(s.images), s.labels)]
    return be.knn_accuracy(*sets)


def race(arm: str, seed: int, minutes: float, root: str | None, every: float) -> list[dict]:
    """One arm: a row {minute, steps, knn} after every minute, the first before any step."""
    train, bank = be.load_images("cifar10", root), be.load_images("cifar10", root, limit=10_000)
    held_out = be.load_images("cifar10", root, "test", limit=2_000)
    if arm == "pixels":
        return [{"minute": 0, "steps": 0, "knn": accuracy(pixel_features, bank, held_out)}]
    torch.manual_seed(seed)
    clock, done, rows = Clock(), 0, []
    with tempfile.TemporaryDirectory() as folder:
        own = {"seed": seed, "folder": folder} if arm == "ours" else {}
        encoder, normalize, turns = ARMS[arm](train, minutes=minutes, clock=clock, **own)

        def look() -> None:
            stopped = time.perf_counter()
            row = {"minute": clock() / 60, "steps": done}
            knn = accuracy(lambda x: extract_features(encoder, x, normalize), bank, held_out)
            rows.append(row | {"knn": knn})
            print(f"{arm}, seed {seed}: {json.dumps(rows[-1])}", file=sys.stderr, flush=True)
            clock.began += time.perf_counter() - stopped

        look()
        clock.began = time.perf_counter()
        for _ in turns:
            done += 1
            if clock() >= 60 * every * len(rows):
                look()
        if rows[-1]["steps"] < done:
            look()
    return rows


def report(races: dict[str, list[list[dict]]]) -> str:
    """kNN in per cent, a line an arm: the mean of its seeds before, on the way, and at the end."""
    lines = []
    for arm, runs in races.items():
        length = min(map(len, runs))
        means = [100 * statistics.mean(run[i]["knn"] for run in runs) for i in range(length)]
        last = [100 * run[-1]["knn"] for run in runs]
        spread = f" ± {statistics.stdev(last):.1f}" if len(last) > 1 else ""
        steps = round(statistics.mean(run[-1]["steps"] for run in runs))
        way = " ".join(f"{x:.1f}" for x in means[1:-1])
        cells = {"start": f"{means[0]:.1f}", "on the way": way, "end": f"{means[-1]:.1f}{spread}"}
        lines.append({"arm": arm, "seeds": len(runs), "steps": steps, **cells})
    return table(lines)


def plot(races: dict[str, list[list[dict]]], path: Path) -> None:
    """kNN over minutes, a line a run."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for i, (arm, runs) in enumerate(races.items()):
        for run in runs:
            x, y = [r["minute"] for r in run], [100 * r["knn"] for r in run]
            label = arm if run is runs[0] else None
            draw = axes.axhline if len(x) == 1 else axes.plot
            draw(*((y[0],) if len(x) == 1 else (x, y)), color=f"C{i}", label=label)
    axes.set(xlabel="minutes of training", ylabel="kNN, %", title="CIFAR-10, the same machine")
    axes.legend(frameon=False)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--root", help="CIFAR-10: class folders or torchvision's files")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--every", type=float, default=1, help="minutes between two looks")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arm", choices=["pixels", *ARMS], action="append", help="only this one")
    parser.add_argument("--one", nargs=2, metavar=("ARM", "SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    how = (options.minutes, options.root, options.every)
    if options.one:
        print(json.dumps(race(options.one[0], int(options.one[1]), *how)))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    races: dict[str, list[list[dict]]] = {}
    for seed in range(options.seeds):
        for arm in options.arm or ["pixels", *ARMS]:
            if arm == "pixels" and seed:
                continue
            path = options.out / f"{arm.replace(', ', '_').replace(' ', '_')}_{seed}.json"
            if not path.exists():
                command = [sys.executable, *sys.argv, "--one", arm, str(seed)]
                printed = subprocess.check_output(command, text=True)
                path.write_text(printed.splitlines()[-1] + "\n")
            races.setdefault(arm, []).append(json.loads(path.read_text()))
    machine = environment() | {"lightly": version("lightly")}
    rows = {"environment": machine, "minutes": options.minutes, "rows": races}
    (options.out / "race.json").write_text(json.dumps(rows, indent=1) + "\n")
    head = f"# CIFAR-10, {options.minutes:g} minutes\n\n{describe(machine)}, lightly {machine['lightly']}."
    about = "kNN in per cent of 2,000 test images, bank of 10,000 training images."
    text = "\n\n".join([head, about, report(races)])
    (options.out / "race.md").write_text(text + "\n")
    plot(races, options.out / "race.svg")
    print(text)


if __name__ == "__main__":
    main()
