"""The commands ``plan`` and ``linear``: what a configuration takes, and the paper's linear evaluation."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add ``plan`` and ``linear``. What follows ``--set`` reaches them read, as ``options.settings``."""
    text = "memory, operations, hours and cost of a configuration, before it is run"
    # An option that is not given is not there: its default is the planner's.
    plan = commands.add_parser("plan", help=text, argument_default=argparse.SUPPRESS)
    plan.add_argument("config", help="a configuration's name or a YAML file")
    plan.add_argument("--gpus", type=int, help="how many (default: as few as the batch fits on)")
    gpu = "v100, a100 or h100 (default a100): its memory, and its published rate for a ResNet-50"
    plan.add_argument("--gpu", help=gpu)
    plan.add_argument("--gpu-memory", type=float, help="GB of one, in place of --gpu's")
    plan.add_argument("--tflops", type=float, help="what one GPU really does, 10^12 operations/s")
    plan.add_argument("--images-per-second", type=float, help="instead: measured, of one GPU")
    plan.add_argument("--price-per-gpu-hour", type=float, help="for the cost, in any currency")
    plan.add_argument("--images", type=int, help="images of an epoch, where no root tells")
    plan.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", action="extend", help="change settings"
    )
    plan.set_defaults(run=_plan)
    text = "linear evaluation or fine-tuning as the paper does it, on streamed class folders"
    linear = commands.add_parser("linear", help=text)
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
    linear.set_defaults(run=_linear)
    for command in (plan, linear):
        command.add_argument("--json", action="store_true", default=False, help="print JSON")


def _plan(options: argparse.Namespace) -> None:
    from barlow_edu.scale.planner import MACHINE, plan

    given = {name: value for name, value in vars(options).items() if name in MACHINE}
    result = plan(options.config, **given, **options.settings)
    batch, most = result.config["batch_size"], result.largest_rows
    if "gpus" not in given and 0 < most < batch:
        fitting = (n for n in range(-(-batch // most), batch // 2 + 1) if batch % n == 0)
        result = plan(options.config, gpus=next(fitting, 1), **given, **options.settings)
    print(json.dumps(result.as_dict(), indent=1) if options.json else result)


def _linear(options: argparse.Namespace) -> None:
    from barlow_edu.config import open_stream
    from barlow_edu.numerics.devices import choose_device
    from barlow_edu.scale.imagenet_linear import PROTOCOLS, LinearEvaluation

    tuned = options.fine_tune or options.percent < 100
    if options.encoder_lr is not None and not tuned:
        raise ValueError("--encoder-lr trains the encoder on: give --fine-tune, or --percent.")
    names = ("percent", "epochs", "lr", "batch_size", "encoder_lr")
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    protocol = replace(PROTOCOLS["1 %" if tuned else "linear"], **given)
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
    encoder = encoder.to(choose_device(config["device"]))
    results = LinearEvaluation(encoder, train, test, protocol, options.out).run(progress=None)
    print(json.dumps(results, indent=1) if options.json else _table(results))


def _table(results: Mapping[str, Any]) -> str:
    """The result in a few lines."""
    p = results["protocol"]
    how = "the encoder trained on" if p["encoder_lr"] else "the encoder frozen"
    lines = [
        f"Linear classifier, {how}: {p['percent']:g} % of the labels ({results['train_images']:,} images), "
        f"{p['epochs']} epochs, batch {p['batch_size']}, lr {p['lr']:g}",
        f"  top-1 {100 * results['top1']:.1f} %   top-5 {100 * results['top5']:.1f} %   "
        f"({results['test_images']:,} test images, centre crops, last epoch)",
    ]
    if results["unreadable"]:
        lines.append(f"  {results['unreadable']} unreadable files were left out")
    return "\n".join(lines)


def _encoder(source: str) -> tuple[Any, dict[str, Any]]:
    """Encoder and configuration of a run or of a published file."""
    from barlow_edu.config import load_config
    from barlow_edu.runs import load_run
    from barlow_edu.scale.official import load_official

    if Path(source).is_file():
        model = load_official(source)
        return getattr(model, "encoder", model), load_config("imagenet_resnet50")
    run = load_run(source)
    # What the run's own file leaves out (it may be older) is as it was by default.
    settings = {name: value for name, value in run.config.items() if name != "name"}
    return run.load_model().encoder, load_config(settings)
