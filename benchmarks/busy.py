"""What it costs to train beside another program: in a script, on the command line and in a Jupyter kernel.

    python benchmarks/busy.py                        # about five minutes on an idle machine
    python benchmarks/busy.py --steps 10 --rounds 1 --place kernel    # a look

Each place trains the first steps of garments_wide, on all threads, torch imported first: with the machine to
itself, beside a process that only spins, and beside another training on one thread. They take turns, and it is
the wall clock that counts. The bar is 2.5 x the time with the machine to itself.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

from common import describe, environment, table, write

BAR = 2.5
PREPARE = """
import time, tempfile, torch
import barlow_edu as be
from barlow_edu.cli import main
def seconds(how, steps):
    limit = 128 * steps
    with tempfile.TemporaryDirectory() as out:
        began = time.perf_counter()
        if how == "command line":
            main(f"pretrain garments_wide --out {out} --set limit={limit} epochs=1".split())
        else:
            be.pretrain("garments_wide", out, limit=limit, epochs=1, progress=how == "kernel")
        print("seconds", time.perf_counter() - began, flush=True)
"""
SPIN = "while True: pass"
TRAIN = f"{PREPARE}\nwhile True: seconds('script', 30)"


def process(code: str, **options) -> subprocess.Popen:
    """Another Python that runs ``code``."""
    return subprocess.Popen([sys.executable, "-c", code], text=True, **options)


@contextlib.contextmanager
def neighbour(code: str | None, **environ: str) -> Iterator[Callable[[], contextlib.ExitStack]]:
    """A process that is asleep but for the time inside what is yielded; with no code there is none."""
    if code is None:
        yield contextlib.ExitStack
        return
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    other = process(code, env={**os.environ, **environ}, **quiet)
    other.send_signal(signal.SIGSTOP)

    def awake() -> contextlib.ExitStack:
        stack = contextlib.ExitStack()
        other.send_signal(signal.SIGCONT)
        stack.callback(other.send_signal, signal.SIGSTOP)
        return stack

    try:
        yield awake
    finally:
        other.kill()
        other.wait()


@contextlib.contextmanager
def child(how: str) -> Iterator[Callable[[int], float]]:
    """A process that trains when it is asked to: steps -> seconds."""
    loop = f"{PREPARE}\nimport sys\nfor line in sys.stdin: seconds({how!r}, int(line))"
    pipes = {name: subprocess.PIPE for name in ("stdin", "stdout")}
    with process(loop, stderr=subprocess.DEVNULL, **pipes) as trainer:

        def train(steps: int) -> float:
            print(steps, file=trainer.stdin, flush=True)
            lines = iter(trainer.stdout.readline, "")
            return next(float(x.split()[1]) for x in lines if x.startswith("seconds"))

        yield train
        trainer.stdin.close()


@contextlib.contextmanager
def kernel(how: str) -> Iterator[Callable[[int], float]]:
    """A Jupyter kernel that trains when it is asked to."""
    from jupyter_client.manager import run_kernel

    with run_kernel() as client:

        def execute(code: str) -> str:
            texts: list[str] = []

            def keep(message: dict) -> None:
                texts.append(message["content"].get("text", ""))

            client.execute_interactive(code, output_hook=keep, timeout=None)
            return "".join(texts)

        execute(PREPARE)

        def train(steps: int) -> float:
            return float(execute(f"seconds({how!r}, {steps})").rpartition("seconds")[2])

        yield train


PLACES = {"script": child, "command line": child, "kernel": kernel}


def measure(places: list[str], steps: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of every turn, by place and neighbour."""
    found: dict[str, dict[str, list[float]]] = {}
    with contextlib.ExitStack() as stack:
        neighbours = {
            "alone": stack.enter_context(neighbour(None)),
            "beside a spinner": stack.enter_context(neighbour(SPIN)),
            "beside a training": stack.enter_context(neighbour(TRAIN, OMP_NUM_THREADS="1")),
        }
        for place in places:
            with PLACES[place](place) as train:
                train(2)  # imports, and whatever is loaded at first
                times = found[place] = {name: [] for name in neighbours}
                for _ in range(rounds):
                    for name, awake in neighbours.items():
                        with awake():
                            times[name].append(train(steps))
                        print(f"{place}, {name}: {times[name][-1]:.1f} s", flush=True)
    return found


def rows(found: dict[str, dict[str, list[float]]]) -> list[dict[str, object]]:
    """A line a place: median seconds, and how many times those with the machine to itself."""
    lines = []
    for place, times in found.items():
        median = {name: statistics.median(x) for name, x in times.items()}
        alone = median["alone"]
        cells = {n: f"{s:.1f} s ({s / alone:.1f} x)" for n, s in median.items() if n != "alone"}
        lines.append({"place": place, "alone": f"{alone:.1f} s", **cells})
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--place", choices=PLACES, action="append", help="only this one")
    options = parser.parse_args()
    places = options.place or list(PLACES)
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("IPYTHONDIR", folder)
        found = measure(places, options.steps, options.rounds)
    text = table(rows(found))
    print(text)
    if places == list(PLACES) and options.rounds > 1:
        env = environment()
        head = f"# Beside another program\n\n{describe(env)}. Made by `python benchmarks/busy.py`."
        about = f"Seconds of {options.steps} steps of garments_wide, medians; the bar is {BAR} x."
        write("busy", "\n\n".join([head, about, text]), {"environment": env, "seconds": found})


if __name__ == "__main__":
    main()
