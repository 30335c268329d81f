"""Choose the settings of the CIFAR-10 recipe for one CPU thread, on images held out of the training split.

    python benchmarks/tune_cifar.py --root FOLDER [--out data/runs/NAME/tuning.json]

Every setting trains on the same images for the same number of epochs; the score is the kNN accuracy (cosine,
k = 200, temperature 0.1) of the held-out images among the training ones, features before the projector. The
test split is never loaded. A setting that is in the output file already is not run again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from barlow_edu.config import load_config
from barlow_edu.data import ImageSet
from barlow_edu.evaluation.features import extract_features
from barlow_edu.evaluation.probes import KNN_K, KNN_TEMPERATURE, knn_accuracy
from barlow_edu.loss import loss_floor
from barlow_edu.storage.files import write_json
from barlow_edu.studies.measure import short_run
from barlow_edu.studies.relatives import held_out

START = dict(
    data="cifar10", views="cifar", augment={"scale": [0.2, 1.0], "solarise": [0.0, 0.0]},
    encoder="small_resnet", proj_dim=512, lambd=0.005, batch_size=128, optimizer="adamw", lr=0.005,
    weight_decay=1e-4, snapshots=0,
)  # fmt: skip
# What is changed in START, one thing at a time; the first is START itself, the last what chance alone does.
TRIED = [
    {},
    {"encoder": "small_resnet_wide"},
    {"lr": 0.01},
    {"lambd": 0.0125},
    {"augment": {"scale": [0.08, 1.0], "solarise": [0.0, 0.0]}},
    {"image_size": 24},
    {"image_size": 20},
    {"seed": 1},
]


def main() -> None:
    """Run what is missing and keep the table after every setting."""
    options = _options()
    plan = {"images": options.images, "held_out": options.validation, "seed": 0}
    fit, held = held_out({"data": "cifar10", "root": options.root}, plan)
    table = {
        "what": "kNN accuracy of held-out training images; the test split was not used",
        "data": fit.name,
        "train_images": len(fit),
        "validation_images": len(held),
        "epochs": options.epochs,
        "k": KNN_K,
        "temperature": KNN_TEMPERATURE,
        "threads": torch.get_num_threads(),
        "start": START,
        "tried": [],
    }
    if options.out.exists():
        table["tried"] = json.loads(options.out.read_text())["tried"]
    done = [row["changed"] for row in table["tried"]]
    for changed in TRIED:
        if changed not in done:
            row = _try(changed, fit, held, options.epochs)
            table["tried"].append(row)
            print(json.dumps(row), flush=True)
            write_json(options.out, table)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", required=True, help="CIFAR-10: class folders or torchvision's")
    parser.add_argument("--out", type=Path, default=Path("tuning.json"))
    parser.add_argument("--images", type=int, default=15_000)
    parser.add_argument("--validation", type=int, default=5_000)
    parser.add_argument("--epochs", type=int, default=3)
    return parser.parse_args()


def _try(changed: dict, fit: ImageSet, held: ImageSet, epochs: int) -> dict:
    """One short run and its score."""
    config = load_config(START | changed, epochs=epochs, name="tuning")
    with short_run(config, fit) as run:
        encoder, normalize = run.load_model().encoder, run.views().normalize
        features = [extract_features(encoder, s.images, normalize) for s in (fit, held)]
        last, minutes = run.metrics[-1], run.environment["minutes"]
    floor = loss_floor(config["batch_size"], config["proj_dim"], config["lambd"])
    return {
        "changed": changed,
        "knn": knn_accuracy(features[0], fit.labels, features[1], held.labels),
        "loss": last["loss"],
        "floor": round(float(floor), 3),
        "cross_corr_diag_mean": last["cross_corr_diag_mean"],
        "minutes": minutes,
    }


if __name__ == "__main__":
    main()
