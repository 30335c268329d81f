"""The command line of the studies: python -m barlow_edu sweep lambda | ablations | relatives | evidence | ledger."""

import argparse
import logging
from pathlib import Path
from typing import Any


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add ``sweep`` with its studies. What follows ``--set`` reaches them read, as ``options.settings``."""
    sweep = commands.add_parser("sweep", help="one short training for every value of a setting")
    studies = sweep.add_subparsers(required=True, metavar="SWEEP")
    for name, (run, folder, text) in TRAINED.items():
        study = studies.add_parser(name, help=f"{text}; call it again to go on")
        study.add_argument("--out", type=Path, help=f"folder (default: {folder})")
        study.add_argument("--jobs", type=int, default=1, help="trainings at a time (default 1)")
        change = {"nargs": "+", "default": [], "action": "extend", "metavar": "KEY=VALUE"}
        study.add_argument("--set", help="change settings", **change)
        if name == "ablations":
            study.add_argument("--only", nargs="+", default=[], metavar="EXPERIMENT")
        study.set_defaults(run=run)
    text = "judge the claims by a folder of records; nothing is trained"
    judged = studies.add_parser("ledger", help=text)
    judged.add_argument("runs", type=Path, nargs="?", help="folder (default: the recorded)")
    judged.set_defaults(run=_ledger)


def _lambda(options: argparse.Namespace) -> None:
    from barlow_edu.studies.lambda_sweep import lambda_sweep

    _one_bar()
    sweep = lambda_sweep(options.out, jobs=options.jobs, **options.settings)
    best = max(sweep.rows, key=lambda row: row["knn"])
    print(f"{sweep.path}: kNN is best, {100 * best['knn']:.1f} %, at lambda = {best['lambd']:.3g}.")


def _ablations(options: argparse.Namespace) -> None:
    from barlow_edu.studies.ablations import run_experiments

    _one_bar()
    settings = {"only": options.only, "jobs": options.jobs, **options.settings}
    for study in run_experiments("ablations", options.out, **settings):
        print(f"\n{study.settings['question']}")
        _print(study, "knn")


def _relatives(options: argparse.Namespace) -> None:
    from barlow_edu.studies.relatives import compare

    _one_bar()
    _print(compare(options.out, jobs=options.jobs, **options.settings), "knn", "linear")


def _evidence(options: argparse.Namespace) -> None:
    runs = options.out or Path("runs")
    for name, run in (("ablations", _ablations), ("relatives", _relatives)):
        run(argparse.Namespace(**vars(options) | {"out": runs / name, "only": []}))
    _ledger(argparse.Namespace(runs=runs))


def _ledger(options: argparse.Namespace) -> None:
    from barlow_edu.studies.ledger import ledger, record_of

    if options.runs is not None and not options.runs.is_dir():
        raise FileNotFoundError(f"No folder {options.runs}. Give one that holds records.")
    for i, entry in enumerate(ledger(lambda name: record_of(name, options.runs)), 1):
        print(f"{i:2} {entry.claim.text} {entry.verdict.capitalize()}.")
        print(f"   at 95 % each: {entry.raw}; corrected for their number: {entry.corrected}")
        print(*(f"   {reason}\n" for reason in entry.obstacles), sep="", end="")


def _one_bar() -> None:
    """A hundred trainings, one bar: what each of them would say is left out."""
    logging.getLogger("barlow_edu").setLevel(logging.WARNING)


def _print(study: Any, *columns: str) -> None:
    """Mean and standard deviation of each point, a line each."""
    print(study.path)
    for name in study.groups:
        scores = {column: study.score(name, column) for column in columns}
        cells = (f"{k} {100 * s.mean:.1f} ± {100 * s.sd:.1f} %" for k, s in scores.items())
        print(f"  {name:30} {'   '.join(cells)}")


# The command, where it keeps what it trains, and what that is.
TRAINED = {
    "lambda": (_lambda, "runs/lambda_sweep", "41 values of lambda, as notebook 08 shows them"),
    "ablations": (_ablations, "runs/ablations", "the experiments of notebook 12, eight seeds each"),
    "relatives": (_relatives, "runs/relatives", "five methods on one budget, for notebook 13"),
    "evidence": (_evidence, "runs", "ablations and relatives, then the ledger of notebook 12"),
}
