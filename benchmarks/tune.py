"""Choose the settings of a CPU recipe on images held out of the training split.

    python benchmarks/tune.py garments|cifar10 [--root FOLDER] [--work FOLDER] [--out data/runs/NAME/tuning.json]

Every setting trains on the same images; the scores are the kNN accuracy (cosine, k = 200, temperature 0.1) of the
held-out images among the training ones, features before the projector, and how near C of the held-out pairs is to the
identity. The test split is never loaded. A setting that is in the output file already is not run again, and one that
was stopped goes on in --work.
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
from barlow_edu.evaluation.spectra import distance_to_identity
from barlow_edu.storage.files import write_json
from barlow_edu.studies.measure import held_out
from barlow_edu.training import pretrain

SHARED = {"encoder": "small_resnet", "optimizer": "adamw", "lr": 0.005, "snapshots": 0}
# START; then what is changed in it, the first nothing. garments_quick is START with hidden layers of 256.
GARMENTS = (
    {"data": "garments", "views": "garments", "augment": {"scale": [0.5, 1.0]}, "image_size": 24}
    | {"proj_dim": 64, "lambd": 0.2, "batch_size": 256, "epochs": 14},
    [
        {},
        {"image_size": 32, "epochs": 8},
        {"image_size": 20, "epochs": 10},
        {"epochs": 8},
        {"batch_size": 128},
        {"proj_hidden": 256},
        {"lr": 0.01},
        {"lr": 0.0025},
        {"lambd": 0.1},
        {"lambd": 0.4},
        {"proj_dim": 128},
        {"augment": {"scale": [0.3, 1.0]}},
        {"weight_decay": 0.01},
        {"seed": 1},  # what chance alone does
    ],
)
CIFAR = (
    {"data": "cifar10", "views": "cifar", "augment": {"scale": [0.2, 1.0], "solarise": [0, 0]}}
    | {"proj_dim": 512, "lambd": 0.005, "batch_size": 128, "epochs": 3},
    [
        {},
        {"encoder": "small_resnet_wide"},
        {"lr": 0.01},
        {"lambd": 0.0125},
        {"augment": {"scale": [0.08, 1.0], "solarise": [0.0, 0.0]}},
        {"image_size": 24},
        {"image_size": 20},
        {"seed": 1},  # what chance alone does
    ],
)
TRIED = {"garments": GARMENTS, "cifar10": CIFAR}


def main() -> None:
    """Run what is missing and keep the table after every setting."""
    options = _options()
    start, tried = TRIED[options.data]
    if options.only:
        tried = [tried[i] for i in options.only]
    plan = {"images": options.images, "held_out": options.validation, "seed": 0}
    fit, held = held_out({"data": options.data, "root": options.root}, plan)
    for i, changed in enumerate(tried):
        table = {
            "what": "held-out training images: kNN accuracy, and C of pairs; the test split was not used",
            "data": fit.name,
            "train_images": len(fit),
            "validation_images": len(held),
            "k": KNN_K,
            "temperature": KNN_TEMPERATURE,
            "threads": torch.get_num_threads(),
            "start": SHARED | start,
            "tried": [],
        }
        if options.out.exists():
            table["tried"] = json.loads(options.out.read_text())["tried"]
        if changed in [row["changed"] for row in table["tried"]]:
            continue
        config = load_config(SHARED | start | changed, name=f"tuning-{i}")
        folder = options.work / json.dumps(changed).replace("/", "").replace(" ", "").replace(
            '"', ""
        )
        row = {"changed": changed} | _try(config, fit, held, folder)
        print(json.dumps(row), flush=True)
        if options.out.exists():
            table["tried"] = json.loads(options.out.read_text())["tried"]
        table["tried"].append(row)
        write_json(options.out, table)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", choices=TRIED)
    parser.add_argument("--root", help="CIFAR-10: class folders or torchvision's")
    parser.add_argument("--work", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=Path("tuning.json"))
    parser.add_argument("--images", type=int, default=15_000)
    parser.add_argument("--validation", type=int, default=5_000)
    parser.add_argument("--only", type=int, nargs="*", help="numbers of the settings to try")
    return parser.parse_args()


def _try(config: dict, fit: ImageSet, held: ImageSet, folder: Path) -> dict:
    """One run and its scores."""
    run = pretrain(config, folder, fit, resume="auto")
    model, views = run.load_model(), run.views()
    sets = [extract_features(model.encoder, s.images, views.normalize) for s in (fit, held)]
    twins = views(held.images[:2048], torch.Generator().manual_seed(1))
    near = distance_to_identity(model.cross_correlation(*twins), len(twins[0]))
    return {
        "knn": knn_accuracy(sets[0], fit.labels, sets[1], held.labels),
        **{k: round(v, 4) for k, v in near._asdict().items()},
        "loss": run.metrics[-1]["loss"],
        "minutes": run.environment["minutes"],
    }


if __name__ == "__main__":
    main()
