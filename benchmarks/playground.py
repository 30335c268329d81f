"""Steps a second of the playground in a real browser, by backend and size; and its memory over minutes.

uv run python benchmarks/playground.py [--minutes 10]
"""

import argparse
import base64
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
from watched import FLAGS, installed

from barlow_edu.teaching import playground

SIZES = [
    {"encoder": "conv", "width": 4, "batch": 64},
    {"encoder": "conv", "width": 8, "batch": 128},
    {"encoder": "conv", "width": 16, "batch": 128},
    {"encoder": "conv", "width": 16, "batch": 256},
    {"encoder": "mlp", "width": 16, "batch": 128},
    {"encoder": "mlp", "width": 32, "batch": 128},
]
STEPS = """async ([data, size, simd, seconds]) => {
  matmul.startMatmul(simd);
  window.pictures ??= await images.unpackImages(data);
  const it = new trainer.Trainer(window.pictures, size, 1000);
  it.train();
  const start = performance.now();
  let steps = 0;
  while (performance.now() - start < 1000 * seconds || steps < 2) { it.train(); steps += 1; }
  return [steps * 1000 / (performance.now() - start), it.network.parameters(), matmul.used() / 1e6];
}"""


def speeds(browser, seconds: float) -> None:
    """Print a table of steps a second."""
    page = browser.new_page()
    page.add_script_tag(content=playground.bundle("worker"))
    data = base64.b64encode(playground.images()).decode()
    print("| encoder | width | N | weights | MB | WebAssembly SIMD | JavaScript |")
    print("|---|---|---|---|---|---|---|")
    for size in SIZES:
        fast, weights, megabytes = page.evaluate(STEPS, [data, size, True, seconds])
        slow, *_ = page.evaluate(STEPS, [data, size, False, seconds / 2])
        row = (*size.values(), f"{weights:,}", round(megabytes), f"{fast:.1f}", f"{slow:.1f}")
        print("|", " | ".join(map(str, row)), "|", flush=True)


def memory(browser, minutes: int) -> None:
    """Train for minutes; print steps and the browser's resident memory at each."""
    path = playground.write(Path(tempfile.mkdtemp()) / "playground.html")
    page = browser.new_page()
    page.goto(path.as_uri() + "#play=1")
    root = page.locator("#playground")
    for minute in range(minutes + 1):
        heap = page.evaluate("performance.memory.usedJSHeapSize") / 1e6
        step = root.get_attribute("data-step")
        print(f"minute {minute}: step {step}, page {heap:.1f} MB, processes {resident():.0f} MB")
        page.wait_for_timeout(60_000 if minute < minutes else 0)


def resident() -> float:
    """Megabytes of all renderer processes on Linux."""
    total = 0.0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"--type=renderer" in (process / "cmdline").read_bytes():
                total += int((process / "statm").read_text().split()[1]) * 4096 / 1e6
        except OSError:
            continue
    return total


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=int, default=0, help="watch the memory as long")
    parser.add_argument("--seconds", type=float, default=4, help="for each size")
    options = parser.parse_args()
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=installed(), args=[*FLAGS, "--enable-precise-memory-info"]
        )
        if options.minutes:
            memory(chromium, options.minutes)
        else:
            speeds(chromium, options.seconds)
        chromium.close()
