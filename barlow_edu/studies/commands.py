"""The command line of the studies: python -m barlow_edu sweep lambda | ablations | relatives."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from barlow_edu.studies.study import Study

HELP = {
    "lambda": "41 values of lambda, as notebook 08 shows them",
    "ablations": "the experiments of notebook 12, three seeds each",
    "relatives": "five methods on one budget, as notebook 13 shows them",
}


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add ``sweep`` with its studies. What follows ``--set`` reaches them read, as ``options.settings``."""
    sweep = commands.add_parser("sweep", help="one short training for every value of a setting")
    studies = sweep.add_subparsers(required=True, metavar="SWEEP")
    runs = {"lambda": _lambda, "ablations": _ablations, "relatives": _relatives}
    for name, run in runs.items():
        study = studies.add_parser(name, help=f"{HELP[name]}; call it again to go on")
        default = "lambda_sweep" if name == "lambda" else name
        study.add_argument("--out", type=Path, help=f"folder (default: runs/{default})")
        study.add_argument(
            "--set",
            nargs="+",
            default=[],
            metavar="KEY=VALUE",
            action="extend",
            help="change settings",
        )
        study.set_defaults(run=run)
        if name == "lambda":
            study.add_argument(
                "--jobs", type=int, default=1, help="trainings at a time (default 1)"
            )
        if name == "ablations":
            study.add_argument("--only", nargs="+", default=[], metavar="EXPERIMENT")


def _lambda(options: argparse.Namespace) -> None:
    from barlow_edu.studies.lambda_sweep import lambda_sweep

    _one_bar()
    sweep = lambda_sweep(options.out, jobs=options.jobs, **options.settings)
    best = max(sweep.rows, key=lambda row: row["knn"])
    print(f"{sweep.path}: kNN is best, {100 * best['knn']:.1f} %, at lambda = {best['lambd']:.3g}.")


def _ablations(options: argparse.Namespace) -> None:
    from barlow_edu.studies.ablations import run_experiments

    _one_bar()
    for study in run_experiments("ablations", options.out, options.only, **options.settings):
        print(f"\n{study.question}")
        _print(study, "knn")


def _relatives(options: argparse.Namespace) -> None:
    from barlow_edu.studies.relatives import compare

    _one_bar()
    _print(compare(options.out, **options.settings), "knn", "linear")


def _one_bar() -> None:
    """A hundred trainings, one bar: what each of them would say is left out."""
    logging.getLogger("barlow_edu").setLevel(logging.WARNING)


def _print(study: Study, *columns: str) -> None:
    """Mean and standard deviation of each point, a line each."""
    print(study.path)
    for name in study.groups:
        scores = {column: study.score(name, column) for column in columns}
        cells = (f"{k} {100 * s.mean:.1f} ± {100 * s.sd:.1f} %" for k, s in scores.items())
        print(f"  {name:30} {'   '.join(cells)}")
