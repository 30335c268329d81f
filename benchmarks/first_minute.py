"""The first minute of a learner: imports, the command line's help, and the first C that moves.

    python benchmarks/first_minute.py    # under two minutes; each line in a process of its own

Seconds of the wall clock, and of the processor, which other programs lengthen less. Bars: barlow_edu with torch at
most 1.2 x torch; the help 0.3 s; 20 s from pretrain to the first C after a step.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time

from common import describe, environment, table, write

FIRST_C = """
import barlow_edu as be, tempfile, time
be.pretrain, be.load_images  # imports are counted above
began = time.perf_counter(), time.process_time()
class Seen(Exception): pass
def look(step, c):
    if step:
        print(time.perf_counter() - began[0], time.process_time() - began[1])
        raise Seen
with tempfile.TemporaryDirectory() as folder:
    try: be.pretrain("garments_quick", folder, on_snapshot=look)
    except Seen: pass
"""
LINES = {
    "import torch": ["-c", "import torch"],
    "import torch, barlow_edu": ["-c", "import torch, barlow_edu"],
    "import torch, torchvision": ["-c", "import torch, torchvision"],
    "barlow_edu.pretrain, all that training needs": ["-c", "import barlow_edu as be; be.pretrain"],
    "barlow-edu --help": ["-m", "barlow_edu", "--help"],
    "pretrain to the first C after a step": ["-c", FIRST_C],
}


def run(arguments: list[str]) -> tuple[float, float]:
    """Wall and processor seconds; of what the process prints where it prints two numbers."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, *arguments]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if arguments[-1] == FIRST_C:
        wall, processor = map(float, told.split())
        return wall, processor
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    found = {name: [] for name in LINES}
    for _ in range(3):  # in turn
        for name, arguments in LINES.items():
            found[name].append(run(arguments))
    medians = {n: [statistics.median(x) for x in zip(*t, strict=True)] for n, t in found.items()}
    torch_alone = medians["import torch"][1]
    rows = [
        {
            "": n,
            "wall s": f"{w:.2f}",
            "processor s": f"{p:.2f}",
            "x torch": f"{p / torch_alone:.2f}",
        }
        for n, (w, p) in medians.items()
    ]
    env = environment()
    head = f"# The first minute\n\n{describe(env)}. Made by `python benchmarks/first_minute.py`."
    print(table(rows))
    write("first_minute", f"{head}\n\n{table(rows)}", {"environment": env, "seconds": found})


if __name__ == "__main__":
    main()
