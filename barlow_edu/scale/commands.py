"""The command line of the linear evaluation: python -m barlow_edu linear RUN_OR_FILE --root PATH ..."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command ``linear``."""
    told = "linear evaluation or fine-tuning as the paper does it, on streamed class folders"
    linear = commands.add_parser("linear", help=told)
    linear.add_argument("source", metavar="RUN", help="a run, or a published file of weights")
    linear.add_argument("--root", type=Path, help="class folders (default: the run's)")
    linear.add_argument("--percent", type=float, default=100, help="labels: 100, or 10 or 1")
    tune = "train the encoder on too (always with less than 100 %%)"
    linear.add_argument("--fine-tune", action="store_true", help=tune)
    linear.add_argument("--epochs", type=int, help="default 100; fine-tuning 20")
    linear.add_argument("--batch-size", type=int, help="default 256")
    linear.add_argument("--lr", type=float, help="of the classifier (default 0.3; fine-tuning 0.5)")
    linear.add_argument("--encoder-lr", type=float, help="fine-tuning (default 0.002)")
    linear.add_argument("--size", type=int, help="pixels (default: the run's; 224 for a file)")
    linear.add_argument("--workers", type=int, help="processes that decode images")
    linear.add_argument("--out", type=Path, help="kept there after every epoch, to go on")
    linear.add_argument("--json", action="store_true", help="print JSON")
    linear.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Evaluate and print."""
    import torch

    from barlow_edu.config import open_stream
    from barlow_edu.scale.imagenet_linear import LinearEvaluation

    encoder, config = _encoder(options.source)
    root = options.root or config["root"]
    if root is None:
        raise ValueError(
            "Which images? Give --root PATH, a folder with train/CLASS/image and val/CLASS/image files."
        )
    config = config | {"data": "folder", "root": str(root)}
    config |= {"limit": None, "canvas": None, "workers": options.workers}
    config |= {"image_size": options.size or config["image_size"]}
    train = open_stream(config, "train", "decode_once")
    test = open_stream(config, "val", "centre")
    encoder = encoder.to("cuda" if torch.cuda.is_available() else "cpu")
    evaluation = LinearEvaluation(encoder, train, test, protocol(options), options.out)
    found = evaluation.run(progress=None)
    print(json.dumps(found, indent=1) if options.json else table(found))


def protocol(options: argparse.Namespace):
    """The protocol that the options describe."""
    from barlow_edu.scale.imagenet_linear import PROTOCOLS

    tuned = options.fine_tune or options.percent < 100
    given = {"percent": options.percent, "epochs": options.epochs, "lr": options.lr}
    given |= {"batch_size": options.batch_size, "encoder_lr": options.encoder_lr}
    given = {k: v for k, v in given.items() if v is not None}
    if options.encoder_lr is not None and not tuned:
        raise ValueError("--encoder-lr trains the encoder on: give --fine-tune, or --percent.")
    return replace(PROTOCOLS["1 %" if tuned else "linear"], **given)


def table(found: Mapping[str, Any]) -> str:
    """The result in a few lines."""
    p = found["protocol"]
    how = "the encoder trained on" if p["encoder_lr"] else "the encoder frozen"
    lines = [
        f"Linear classifier, {how}: {p['percent']:g} % of the labels ({found['train_images']:,} images), "
        f"{p['epochs']} epochs, batch {p['batch_size']}, lr {p['lr']:g}",
        f"  top-1 {100 * found['top1']:.1f} %   top-5 {100 * found['top5']:.1f} %   "
        f"({found['test_images']:,} test images, centre crops, last epoch)",
    ]
    if found["unreadable"]:
        lines.append(f"  {found['unreadable']} unreadable files were left out")
    return "\n".join(lines)


def _encoder(source: str) -> tuple[nn.Module, dict[str, Any]]:
    """Encoder and configuration of a run or of a published file."""
    from barlow_edu.config import load_config
    from barlow_edu.runs import load_run
    from barlow_edu.scale.official import load_official

    if Path(source).is_file():
        found = load_official(source)
        return getattr(found, "encoder", found), load_config("imagenet_resnet50")
    run = load_run(source)
    # What the run's own file leaves out (it may be older) is as it was by default.
    return run.load_model().encoder, load_config(
        {k: v for k, v in run.config.items() if k != "name"}
    )
