"""The command line: python -m barlow_edu doctor | pretrain CONFIG | evaluate RUN | plan CONFIG | course ..."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from barlow_edu.publishing.commands import add_course
from barlow_edu.scale.commands import add_commands as add_scale


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. What the user got wrong is told in one sentence."""
    options = _parser().parse_args(arguments)
    # Read when torch is loaded: threads that wait for each other soon sleep, which a busy machine needs.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal without ± is no reason to lose a result
            stream.reconfigure(errors="replace")
    try:
        if hasattr(options, "set"):
            options.settings = _settings(options.set)
        return options.run(options) or 0
    except KeyboardInterrupt as stop:
        if _is_first():
            print(f"\n{stop}" if str(stop) else "\nStopped.", file=sys.stderr)
        return 128 + getattr(stop, "signum", signal.SIGINT)  # 130 for Ctrl-C, 143 for SIGTERM
    except (ValueError, OSError, RuntimeError) as error:
        print(f"barlow_edu: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m barlow_edu", description="Barlow Twins: learn it, run it."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    doctor = commands.add_parser("doctor", help="check that everything the course needs works")
    doctor.set_defaults(run=_doctor)
    _pretrain_parser(commands)
    _evaluate_parser(commands)
    add_scale(commands)
    _record_parser(commands)
    _sweep_parser(commands)
    add_course(commands)
    return parser


def _set_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", action="extend", help="change settings"
    )


def _pretrain_parser(commands: argparse._SubParsersAction) -> None:
    pretrain = commands.add_parser("pretrain", help="pretrain an encoder")
    pretrain.add_argument("config", help="a configuration's name or a YAML file")
    pretrain.add_argument("--out", type=Path, help="run folder (default: runs/NAME)")
    resume = pretrain.add_mutually_exclusive_group()
    resume.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    told = "go on if there is a checkpoint, else begin: for jobs that are started again"
    resume.add_argument("--auto-resume", action="store_true", help=told)
    _set_option(pretrain)
    pretrain.set_defaults(run=_pretrain)


def _record_parser(commands: argparse._SubParsersAction) -> None:
    told = "keep a run among the recorded ones (data/runs/NAME)"
    record = commands.add_parser("record", help=told)
    record.add_argument("run_folder", metavar="RUN")
    record.add_argument("name", metavar="NAME")
    record.add_argument("--no-weights", action="store_true", help="leave the weights out")
    record.set_defaults(run=_record)


def _sweep_parser(commands: argparse._SubParsersAction) -> None:
    sweep = commands.add_parser("sweep", help="one short training for every value of a setting")
    sweeps = sweep.add_subparsers(required=True, metavar="SWEEP")
    told = {
        "lambda": "41 values of lambda, as notebook 06 shows them",
        "ablations": "the experiments of notebook 10, three seeds each",
        "relatives": "five methods on one budget, as notebook 11 shows them",
    }
    made = {
        name: sweeps.add_parser(name, help=f"{what}; call it again to go on")
        for name, what in told.items()
    }
    for name, run in (("lambda", _sweep), ("ablations", _ablations), ("relatives", _relatives)):
        default = "lambda_sweep" if name == "lambda" else name
        made[name].add_argument("--out", type=Path, help=f"folder (default: runs/{default})")
        _set_option(made[name])
        made[name].set_defaults(run=run)
    jobs = "trainings at a time (default 1)"
    made["lambda"].add_argument("--jobs", type=int, default=1, help=jobs)
    made["ablations"].add_argument("--only", nargs="+", default=[], metavar="EXPERIMENT")


def _evaluate_parser(commands: argparse._SubParsersAction) -> None:
    evaluate = commands.add_parser("evaluate", help="kNN and linear probe of a run, with baselines")
    evaluate.add_argument("run_folder", metavar="RUN", help="a run folder or a recorded run's name")
    evaluate.add_argument("--data", help="another image set: transfer")
    evaluate.add_argument("--root", help="its folder")
    evaluate.add_argument("--device", help="auto, cpu, cuda, ... (default: the run's)")
    evaluate.add_argument("--k", type=int, default=200, help="neighbours (default 200)")
    evaluate.add_argument(
        "--temperature", type=float, default=0.1, help="of the vote (default 0.1)"
    )
    evaluate.add_argument("--no-linear", action="store_true", help="skip the linear probe")
    evaluate.add_argument("--seeds", type=int, default=1, help="draws; gives standard deviations")
    few = "linear probes with N labels a class (default 1 5 10 100)"
    evaluate.add_argument("--few", type=int, nargs="*", metavar="N", help=few)
    tune = "train the whole encoder on, with N labels a class (default 10 100 all); minutes"
    evaluate.add_argument("--fine-tune", type=_labels, nargs="*", metavar="N", help=tune)
    labels = "also train the same encoder with all labels (default: the run's epochs); minutes"
    evaluate.add_argument(
        "--supervised",
        type=int,
        nargs="?",
        const=True,
        default=False,
        metavar="EPOCHS",
        help=labels,
    )
    evaluate.add_argument("--save", action="store_true", help="keep it in RUN/evaluation.json")
    evaluate.add_argument("--json", action="store_true", help="print JSON")
    evaluate.set_defaults(run=_evaluate)


def _labels(text: str) -> int | str:
    """Labels a class: a number, or "all"."""
    return text if text == "all" else int(text)


def _is_first() -> bool:
    """Whether this is the process that speaks for all that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def _doctor(options: argparse.Namespace) -> int:
    from barlow_edu import doctor

    return doctor.run(sys.stdout)


def _pretrain(options: argparse.Namespace) -> None:
    from barlow_edu.config import load_config
    from barlow_edu.training import pretrain

    config = load_config(load_config(options.config) | options.settings)
    resume = "auto" if options.auto_resume else options.resume
    run = pretrain(config, options.out, resume=resume)
    if not _is_first():
        return
    last = run.metrics[-1]
    print(f"{run.path}: loss {last['loss']:.2f} after {last['step']} steps.")
    print(f"Next: python -m barlow_edu evaluate {run.path}")


def _sweep(options: argparse.Namespace) -> None:
    from barlow_edu.studies.lambda_sweep import lambda_sweep

    logging.getLogger("barlow_edu").setLevel(logging.WARNING)  # forty trainings, one bar
    sweep = lambda_sweep(options.out, jobs=options.jobs, **options.settings)
    best = max(sweep.rows, key=lambda row: row["knn"])
    print(f"{sweep.path}: kNN is best, {100 * best['knn']:.1f} %, at lambda = {best['lambd']:.3g}.")


def _ablations(options: argparse.Namespace) -> None:
    from barlow_edu.studies.ablations import run_experiments

    logging.getLogger("barlow_edu").setLevel(logging.WARNING)  # a hundred trainings, one bar
    found = run_experiments("ablations", options.out, options.only, **options.settings)
    for experiment in found:
        print(f"\n{experiment.question}  ({experiment.path})")
        for name in experiment.variants:
            knn = experiment.score(name)
            print(f"  {name:30} kNN {100 * knn.mean:.1f} ± {100 * knn.sd:.1f} %")


def _relatives(options: argparse.Namespace) -> None:
    from barlow_edu.studies.relatives import compare

    logging.getLogger("barlow_edu").setLevel(logging.WARNING)  # thirty trainings, one bar
    found = compare(options.out, **options.settings)
    print(found.path)
    for name in found.methods:
        cells = [f"{key} {_percent(found.score(name, key))}" for key in ("knn", "linear")]
        print(f"  {name:14} {'   '.join(cells)}")


def _percent(score) -> str:
    return f"{100 * score.mean:.1f} ± {100 * score.sd:.1f} %"


def _record(options: argparse.Namespace) -> None:
    from barlow_edu.runs import load_run, record

    kept = record(load_run(options.run_folder), options.name, options.no_weights)
    print(f"{kept.path} holds the record of {options.run_folder}.")


def _settings(pairs: Sequence[str]) -> dict:
    from barlow_edu.config import read_pairs

    return read_pairs(pairs)


def _evaluate(options: argparse.Namespace) -> None:
    from barlow_edu.evaluation import (
        FEW_LABELS,
        FINE_TUNING,
        evaluate,
        evaluation_table,
        load_sets,
    )
    from barlow_edu.runs import load_run

    run = load_run(options.run_folder)
    train, test = load_sets(run, options.data, options.root)
    results = evaluate(
        run,
        train=train,
        test=test,
        linear=not options.no_linear,
        k=options.k,
        temperature=options.temperature,
        save=options.save,
        seeds=options.seeds,
        few=FEW_LABELS if options.few == [] else options.few or (),
        fine_tuning=FINE_TUNING if options.fine_tune == [] else options.fine_tune or (),
        supervised=options.supervised,
        progress=None,
        device=options.device,
    )
    print(json.dumps(results, indent=1) if options.json else evaluation_table(results))
