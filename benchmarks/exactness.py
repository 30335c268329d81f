"""Loss and gradients over several processes against one process: this package's, and the usual ways.

    python benchmarks/exactness.py [--processes 1 2 4]

Prints the table, and writes it to results/exactness.md and .json. The same rows are asserted in
tests/numerics/test_distributed.py.
"""

import argparse

from common import describe, environment, table, write

from barlow_edu.scale.exactness import BATCH, DIM, LAMBDA, PRACTICE, WAYS, all_gradients, compare
from barlow_edu.scale.processes import run_processes

HEAD = """# Exactness over several processes

One batch of {batch} images is shared out over processes (gloo, float64), so that each holds different ones: later
images have more contrast, and the shares differ more than random ones would. A small model
with two convolutions, a projector of {dim} dimensions and three batch norms goes through
DistributedDataParallel, batch norm synchronised in every row; lambda is {lambd}. Compared with one process that
holds the whole batch: the loss of process 0, the largest difference in any entry of any parameter's gradient, and
length and direction (cosine) of the whole gradient.

{table}

{environment}

"Done by" names code that makes the loss in this way, as far as it was read; nothing of it was run here.
"""


def exactness_table(processes):
    """One row a way and number of processes. The reference is one process with the matrix form."""
    reference, rows = all_gradients(), []
    for count in processes:
        results = reference if count == 1 else run_processes(all_gradients, count)[0]
        for way in WAYS:
            row = {"processes": count, "way": way, "practice": PRACTICE.get(way, "this package")}
            rows.append(row | compare(results[way], reference["barlow_edu, matrix form"]))
    return rows


def shown(row):
    """A row of numbers as text."""
    return {
        "processes": row["processes"],
        "way": row["way"],
        "done by": row["practice"],
        "loss off by": f"{row['loss']:.1e}",
        "gradient off by": f"{row['largest']:.1e}",
        "length": f"{row['length']:.3f}",
        "cosine": f"{row['cosine']:.3f}",
    }


def main():
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    rows = exactness_table(parser.parse_args().processes)
    env = environment()
    text = HEAD.format(
        batch=BATCH,
        dim=DIM,
        lambd=LAMBDA,
        table=table([shown(row) for row in rows]),
        environment=describe(env),
    )
    print(text)
    write("exactness", text.strip(), {"environment": env, "rows": rows})


if __name__ == "__main__":
    main()
