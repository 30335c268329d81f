"""Images a second of both input pipelines, with one worker and two: decoded once, and the paper's per image.

    python benchmarks/input.py --root PATH    # about two minutes; PATH/train/CLASS/*.jpg, 128 x 128 pixels
    python benchmarks/input.py --quick        # synthetic pictures alone; printed and not stored

"decode once": a worker decodes and shrinks a picture onto its canvas, uint8; the batched views are then made where
the network is, so they count apart, here on one core of the processor. "per image": a worker cuts both
views out of the full-size picture with torchvision's transforms on PIL images, float32. Rates are by processor time,
which other processes on the machine hardly touch; for two workers the clock is told too.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import describe, environment, table, write
from PIL import Image

from barlow_edu.config import build_views, load_config, open_stream

BATCH = 64
PIPELINES = ("decode_once", "per_image")


def synthetic(root: Path, count: int = 128) -> None:
    """Smooth random JPEGs of 500 x 375 with some noise: about as many bytes as a photograph of ImageNet."""
    rng = np.random.RandomState(0)
    folder = root / "train" / "a"
    folder.mkdir(parents=True)
    for i in range(count):
        coarse = Image.fromarray(rng.randint(0, 256, (9, 12, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC), dtype=np.int16)
        noisy = (smooth + rng.randint(-24, 25, smooth.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{i}.jpg", quality=90)


def rows(stream, batches: int) -> list[torch.Tensor]:
    """Batches of different pictures, from the front again when they run out."""
    order = torch.randperm(len(stream), generator=torch.Generator().manual_seed(0))
    return list(order.repeat(batches * BATCH // len(order) + 1)[: batches * BATCH].split(BATCH))


def alone(stream, batches: int) -> float:
    """Images a second of processor time of one process."""
    work = rows(stream, batches + 1)
    list(stream.batches(work[:1]))
    start = time.process_time()
    for _ in stream.batches(work[1:]):
        pass
    return batches * BATCH / (time.process_time() - start)


def in_workers(stream, batches: int) -> tuple[float, float]:
    """Images a second of ``stream.workers`` workers: by their processor time, and by the clock."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    for _ in stream.batches(rows(stream, batches)):
        pass
    seconds = time.perf_counter() - start
    stream.close()
    gc.collect()  # the loader waits for its workers to end
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - spent.ru_utime - spent.ru_stime
    return stream.workers * batches * BATCH / busy, batches * BATCH / seconds


def views_alone(config: dict, batches: int) -> float:
    """Images a second of processor time for both views of decoded images, one thread."""
    stream, views = open_stream(config), build_views(config)
    work = [stream.load(r) for r in rows(stream, 2)]
    generator = torch.Generator().manual_seed(0)
    views.of_batch(work[0], "cpu", generator)
    start = time.thread_time()
    for i in range(batches):
        views.of_batch(work[i % 2], "cpu", generator)
    return batches * BATCH / (time.thread_time() - start)


def measure(name: str, root: Path, size: int, batches: int) -> list[dict]:
    """One row a pipeline."""
    found = []
    for pipeline in PIPELINES:
        settings = {"data": "folder", "root": str(root), "image_size": size, "views": "imagenet"}
        settings |= {"pipeline": pipeline, "stream": True}
        config = load_config(settings, workers=0)
        row = {"images": name, "views": size, "pipeline": pipeline}
        row["canvas"] = open_stream(config).canvas if pipeline == "decode_once" else None
        row["one"] = alone(open_stream(config), batches)
        two = open_stream(load_config(settings, workers=2))
        row["two"], row["two_clock"] = in_workers(two, batches)
        row["views_alone"] = views_alone(config, 3) if pipeline == "decode_once" else None
        found.append(row)
        print(f"{name}, {pipeline}: {row['one']:.0f} and {row['two']:.0f} images/s", flush=True)
    return found


def show(row: dict, reference: dict) -> dict[str, object]:
    """A row of the table; ``reference`` is the per-image pipeline on the same images."""
    both = (
        row["one"] if row["views_alone"] is None else 1 / (1 / row["one"] + 1 / row["views_alone"])
    )
    return {
        "images": row["images"],
        "views": row["views"],
        "pipeline": row["pipeline"].replace("_", " "),
        "1 worker, images/s": f"{row['one']:,.0f}",
        "2 workers": f"{row['two']:,.0f}",
        "2 workers, clock": f"{row['two_clock']:,.0f}",
        "views on 1 core": "in it" if row["views_alone"] is None else f"{row['views_alone']:,.0f}",
        "both on 1 core": f"{both:,.0f}",
        "workers' share / per image": f"{row['one'] / reference['one']:.1f} x",
        "all / per image": f"{both / reference['one']:.1f} x",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--root", type=Path, help="class folders of small photographs")
    parser.add_argument("--quick", action="store_true", help="two batches; nothing is stored")
    parser.add_argument("--batches", type=int, default=6, help=f"of {BATCH} images (default 6)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    batches, found = 2 if options.quick else options.batches, []
    with tempfile.TemporaryDirectory() as folder:
        synthetic(Path(folder))
        if options.root is not None:
            found += measure("Imagenette, 128 x 128", options.root, 128, batches)
        found += measure("synthetic, 500 x 375", Path(folder), 224, batches)
    lines = [show(row, found[i - i % 2 + 1]) for i, row in enumerate(found)]
    env = environment() | {"cores": os.cpu_count(), "load": [round(x, 1) for x in os.getloadavg()]}
    text = "\n\n".join(
        [
            "# Input: images a second of both pipelines",
            f"{describe(env)}; {env['cores']} cores, load {env['load'][0]} when it ended. Made by "
            "`python benchmarks/input.py --root PATH`.",
            f"Batches of {BATCH}; both views of every image. Rates are by processor time: what as many free "
            "cores would do. The clock's column is with whatever else ran meanwhile (see the load). 'Decode once' "
            "leaves the views to the device; their rate on one core of a processor stands beside it.",
            table(lines),
        ]
    )
    print(text)
    if not options.quick and options.root is not None:
        write("input", text, {"environment": env, "rows": found})


if __name__ == "__main__":
    main()
