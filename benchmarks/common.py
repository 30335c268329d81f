"""What the benchmarks share: interleaved timing, the environment line, tables, result files."""

from __future__ import annotations

import datetime
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"


def interleave(
    contenders: dict[str, Callable[[], object]], seconds: float = 2.0, rounds: int = 3
) -> dict[str, dict[str, float]]:
    """Time the contenders in turn, at least ``rounds`` times each and until ``seconds`` are over.

    Taking turns lets a busy moment of the machine hit all of them. With one thread it is the thread's
    processor time that counts, so other processes do not. Returns for every name the least and the median
    time in seconds. One round is run first and not counted.
    """
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    for run in contenders.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    end = time.perf_counter() + seconds
    while len(next(iter(times.values()))) < rounds or time.perf_counter() < end:
        for name, run in contenders.items():
            start = clock()
            run()
            times[name].append(clock() - start)
    return {name: {"min": min(t), "median": statistics.median(t)} for name, t in times.items()}


def environment() -> dict[str, str | int]:
    """Processor, threads, versions and date."""
    import torchvision

    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "date": datetime.date.today().isoformat(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def describe(env: dict) -> str:
    """The environment in one line."""
    return (
        f"{env['processor']}, {env['threads']} thread(s), Python {env['python']}, "
        f"torch {env['torch']}, torchvision {env['torchvision']}, {env['date']}"
    )


def table(rows: list[dict[str, object]]) -> str:
    """Rows with equal keys as a markdown table, columns aligned."""
    cells = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (w + 1) + ":" for w in widths) + "|")
    return "\n".join(lines)


def milliseconds(seconds: float) -> str:
    """Three significant digits."""
    value = 1e3 * seconds
    return f"{value:.3f}" if value < 1 else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def write(name: str, text: str, record: dict) -> None:
    """results/NAME.md and results/NAME.json."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text + "\n")
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
