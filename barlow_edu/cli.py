"""The command line: python -m barlow_edu doctor | pretrain CONFIG | evaluate RUN | record RUN NAME | ...

Each wing adds its own commands. Nothing here imports what may be missing before a command needs it, so that
``doctor`` and ``--help`` always answer.
"""

import argparse
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from barlow_edu import __version__, doctor
from barlow_edu.publishing.commands import add_commands as add_publishing
from barlow_edu.scale.commands import add_commands as add_scale
from barlow_edu.studies.commands import add_commands as add_studies

MISSING = "Find out what is missing: python -m barlow_edu doctor"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. A user's mistake is answered in one sentence.

    >>> main(["record", "nowhere", "name"])
    2
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal without ± is no reason to lose a result
            stream.reconfigure(errors="replace")
    try:
        parser = _parser()
        with contextlib.suppress(ImportError):  # an extra, which acts in a completing shell alone
            import argcomplete

            argcomplete.autocomplete(parser)
        options = parser.parse_args(arguments)
        if hasattr(options, "set"):
            from barlow_edu.config import read_pairs

            options.settings = read_pairs(options.set)
        return options.run(options) or 0
    except KeyboardInterrupt as stop:
        if _is_first():
            print(f"\n{stop}" if str(stop) else "\nStopped.", file=sys.stderr)
        return 128 + getattr(stop, "signum", signal.SIGINT)  # 130 for Ctrl-C, 143 for SIGTERM
    except Exception as error:
        if "BARLOW_EDU_TRACEBACK" in os.environ:
            raise
        print(f"barlow_edu: {_sentence(error)}", file=sys.stderr)
        return 2


def _sentence(error: Exception) -> str:
    """What an error says to the user. Those of the system are a number, a word and a path."""
    if isinstance(error, ImportError):
        return f"{error}. {MISSING}"
    if isinstance(error, OSError) and error.filename is not None:
        advice = "Check the path, and whether you may write there."
        return f"{error.filename}: {error.strerror}. {advice}"
    full = isinstance(error, RuntimeError) and "allocate" in str(error)  # torch's own
    if full or isinstance(error, MemoryError):
        sizes = "batch_size, image_size, canvas or proj_dim"
        return f"There is not enough memory. Take a smaller {sizes}."
    if not isinstance(error, (ValueError, OSError, RuntimeError)):  # nobody has thought of it
        name = type(error).__name__
        return f"{name}: {error}. The environment variable BARLOW_EDU_TRACEBACK=1 shows where."
    return str(error)


class _HelpWithSettings(argparse.Action):
    """The usual help, and then every setting and configuration; the table is loaded only now."""

    def __call__(self, parser: argparse.ArgumentParser, *_) -> None:
        from barlow_edu.config import settings_help

        parser.print_help()
        print(f"\n{settings_help()}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    about = "Barlow Twins: learn it, run it."
    parser = argparse.ArgumentParser(prog="python -m barlow_edu", description=about)
    parser.add_argument("--version", action="version", version=f"barlow_edu {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    doctoring = commands.add_parser("doctor", help="check that everything the course needs works")
    doctoring.set_defaults(run=lambda _: doctor.run())
    text = "train Barlow Twins in a browser: one HTML file, no kernel, no network"
    playground = commands.add_parser("playground", help=text)
    add = playground.add_argument
    add("--out", type=Path, default="playground.html", help="the file (playground.html)")
    add("--no-open", action="store_true", help="write it, and do not open a browser")
    playground.set_defaults(run=_playground)
    _add_pretrain(commands)
    _add_evaluate(commands)
    record = commands.add_parser("record", help="keep a run as a recorded one (data/runs/NAME)")
    record.add_argument("run_folder", metavar="RUN")
    record.add_argument("name", metavar="NAME")
    record.add_argument("--no-weights", action="store_true", help="leave the weights out")
    record.set_defaults(run=_record)
    for add_more in (add_scale, add_studies, add_publishing):
        add_more(commands)
    return parser


def _add_pretrain(commands: argparse._SubParsersAction) -> None:
    pretrain = commands.add_parser("pretrain", help="pretrain an encoder", add_help=False)
    add = pretrain.add_argument
    text = "show this, all settings and all configurations"
    add("-h", "--help", nargs=0, action=_HelpWithSettings, help=text)
    config = add("config", help="a configuration's name or a YAML file")
    folder = Path(__file__).with_name("configs")
    config.completer = lambda **_: [path.stem for path in folder.glob("*.yaml")]
    add("--out", type=Path, help="run folder (default: runs/NAME)")
    resume = pretrain.add_mutually_exclusive_group()
    resume.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    text = "go on if there is a checkpoint, else begin: for jobs that are started again"
    resume.add_argument("--auto-resume", action="store_true", help=text)
    add("--minutes", type=float, help="train so long, whatever the epochs")
    loggers = ("csv", "tensorboard", "wandb", "mlflow")
    text = "log there, too; all but csv are extras: pip install 'barlow_edu[tensorboard]'"
    add("--log", nargs="+", default=[], choices=loggers, help=text)
    probe = "kNN and a linear probe on test images, every K epochs"
    add("--probe", type=int, metavar="K", help=probe)
    change = {"nargs": "+", "default": [], "action": "extend", "metavar": "KEY=VALUE"}
    add("--set", help="change settings, which are listed below", **change)
    pretrain.set_defaults(run=_pretrain)


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
    evaluate = commands.add_parser("evaluate", help="kNN and linear probe of a run, with baselines")
    add = evaluate.add_argument
    add("run_folder", metavar="RUN", help="a run folder or a recorded run's name")
    add("--data", help="another image set: transfer")
    add("--root", help="its folder")
    add("--device", help="auto, cpu, cuda, ... (default: the run's)")
    add("--k", type=int, default=200, help="neighbours (default 200)")
    add("--temperature", type=float, default=0.1, help="of the vote (default 0.1)")
    add("--no-linear", dest="linear", action="store_false", help="skip the linear probe")
    add("--seeds", type=int, default=1, help="draws; gives standard deviations")
    few = "linear probes with N labels a class (default 1 5 10 100)"
    add("--few", type=int, nargs="*", metavar="N", default=(), help=few)
    tune = "train the whole encoder on, with N labels a class (default 10 100 all); minutes"
    add("--fine-tune", type=_labels, nargs="*", metavar="N", default=(), help=tune)
    labels = "also train the same encoder with all labels (default: the run's epochs); minutes"
    add("--supervised", type=int, nargs="?", const=True, default=False, metavar="N", help=labels)
    add("--save", action="store_true", help="keep it in RUN/evaluation.json")
    add("--json", action="store_true", help="print JSON")
    evaluate.set_defaults(run=_evaluate)


def _labels(text: str) -> int | str:
    """Labels a class: a number, or "all"."""
    if text != "all" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor 'all'")
    return text if text == "all" else int(text)


def _is_first() -> bool:
    """Whether this is the process that speaks for all that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def _playground(options: argparse.Namespace) -> None:
    import webbrowser

    from barlow_edu.teaching import playground

    path = playground.write(options.out).resolve()
    opened = not options.no_open and webbrowser.open(path.as_uri())
    print(f"{path}: {'opened' if opened else 'open it'} in a browser.")


def _pretrain(options: argparse.Namespace) -> None:
    from barlow_edu.config import load_config
    from barlow_edu.evaluation.callbacks import LOGGERS, Lines, OnlineProbe
    from barlow_edu.evaluation.features import labelled_sets
    from barlow_edu.training import pretrain

    if options.minutes is not None:
        options.settings["minutes"] = options.minutes
    config = load_config(load_config(options.config) | options.settings)
    resume = "auto" if options.auto_resume else options.resume
    shown = sys.stderr.isatty()  # where no terminal is, lines that `tail -f` can follow
    callbacks = [LOGGERS[name]() for name in options.log] + [Lines()] * (not shown)
    if options.probe is not None:
        callbacks.append(OnlineProbe(*labelled_sets(config), options.probe, linear=True))
    run = pretrain(config, options.out, resume=resume, progress=shown, callbacks=callbacks)
    if _is_first():
        last = run.metrics[-1]
        print(f"{run.path}: loss {last['loss']:.2f} after {last['step']} steps.")
        print(f"Next: python -m barlow_edu evaluate {run.path}")


def _record(options: argparse.Namespace) -> None:
    from barlow_edu.runs import load_run, record

    run = record(load_run(options.run_folder), options.name, options.no_weights)
    print(f"{run.path} holds the record of {options.run_folder}.")


def _evaluate(options: argparse.Namespace) -> None:
    from barlow_edu.evaluation import FEW_LABELS, FINE_TUNING, evaluate, load_sets
    from barlow_edu.evaluation.results import evaluation_table
    from barlow_edu.runs import load_run

    run = load_run(options.run_folder)
    train, test = load_sets(run, options.data, options.root)
    same = ("linear", "k", "temperature", "save", "seeds", "supervised", "device")
    results = evaluate(
        run,
        train,
        test,
        few=FEW_LABELS if options.few == [] else options.few,
        fine_tuning=FINE_TUNING if options.fine_tune == [] else options.fine_tune,
        progress=None,
        **{name: getattr(options, name) for name in same},
    )
    print(json.dumps(results, indent=1) if options.json else evaluation_table(results))
