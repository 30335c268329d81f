"""Train every fourth λ of a sweep again, and record whom its features take for neighbours, for the lambda explorer.

    python benchmarks/record_neighbours.py [data/runs/lambda_sweep]

Writes neighbours.json into the sweep's folder: for a test image of each of eight kinds the rows of the twelve nearest
among the other test images, by the cosine of h; kNN accuracy beside it, since a second training on another machine is
not the first one bit for bit, and where that took place.
"""

import argparse
import json
from functools import partial

from barlow_edu.evaluation.features import extract_features
from barlow_edu.evaluation.probes import knn_accuracy, nearest
from barlow_edu.storage.files import write_text
from barlow_edu.studies.lambda_sweep import JUDGES, RECORD, load_sweep
from barlow_edu.studies.measure import short_run

KINDS = (0, 1, 2, 3, 5, 7, 8, 9)  # of the test images that ask for their neighbours


def record_neighbours(sweep, every=4, judges=JUDGES):
    """Train and write; returns the file's path."""
    bank, test = judges.images(sweep.config)
    labels = test.labels.tolist()
    queries = [labels.index(kind) for kind in KINDS if kind in labels]
    rows, path = [], sweep.path / "neighbours.json"
    for value in sweep.values[::every].tolist():
        with short_run({**sweep.config, "lambd": value}) as run:
            about, features = run.environment, partial(extract_features, run.load_model().encoder)
            voting, h = (features(s.images, run.views().normalize) for s in (bank, test))
        close = nearest(h, h[queries], 13)[1][:, 1:]  # the nearest of all is the query
        knn = knn_accuracy(voting, bank.labels, h, test.labels)
        rows.append({"lambd": value, "knn": round(knn, 4), "nearest": close.tolist()})
        # On one line, and after each training: half of a record is a record.
        write_text(path, json.dumps({"environment": about, "queries": queries, "rows": rows}))
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sweep", nargs="?", default=RECORD, help="its folder, or a record's name")
    print(record_neighbours(load_sweep(parser.parse_args().sweep)))
