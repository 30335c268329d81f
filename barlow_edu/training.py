"""Pretraining: a run from its configuration to its folder. The loop itself is in ``loop.py``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from barlow_edu.config import images_for, load_config
from barlow_edu.data import ImageSet
from barlow_edu.loop import Loop, Plan, _plan, how_to_go_on
from barlow_edu.loop import TrainingDiverged as TrainingDiverged
from barlow_edu.numerics.devices import Computer, describe_environment
from barlow_edu.numerics.distributed import check_same, from_first, process_group, rank, world_size
from barlow_edu.runs import Run, RunWriter
from barlow_edu.state import (
    NEWEST,
    PREVIOUS,
    TrainingState,
    find_checkpoints,
    remove_checkpoints,
)
from barlow_edu.storage.files import DiskFull, only_process
from barlow_edu.storage.interrupts import (
    TrainingInterrupted as TrainingInterrupted,  # for who calls pretrain
)
from barlow_edu.storage.stream import ImageStream


def pretrain(
    config: str | Path | Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    data: ImageSet | ImageStream | str | None = None,
    resume: bool | str = False,
    progress: bool = True,
    on_snapshot: Callable[[int, Tensor], None] | None = None,
    **overrides: Any,
) -> Run:
    """Pretrain an encoder, with Barlow Twins or with ``config["method"]``, and keep everything in a run folder.

    config: a configuration's name, a YAML file or a mapping; ``overrides`` replace single settings. out: the
    run folder (default ``runs/NAME``, or the next free ``runs/NAME-2``...). data: images, or the name of an
    image set, to use instead of ``config["data"]``. resume: go on from the folder's last good checkpoint;
    on the same machine, with as many threads, the run ends with the same bits as one that was never stopped.
    resume="auto" goes on if there is something to go on from, and else begins: for jobs that are started again.
    on_snapshot(step, c) is called whenever a snapshot of C, (d, d), is taken.

    Under torchrun the processes train as one: batch_size is that of all of them together, each takes its share of
    every batch, batch norm and C are those of the whole batch, and process 0 alone writes. Views and order do not
    depend on the number of processes, so that a run may be resumed on another number of them.

    The last, partial batch of an epoch is dropped: C of fewer samples has a higher floor. Ctrl-C, SIGTERM and
    SIGUSR1, to any of the processes, let the step end, save, and raise TrainingInterrupted, a KeyboardInterrupt
    that says how to go on; after SIGUSR1 a SLURM job is requeued.

    Raises ValueError for settings that do not fit, FileExistsError if ``out`` holds a run and resume is False,
    FolderInUse if another process trains there, DiskFull if nothing more can be written, and TrainingDiverged if
    the loss stops being finite.
    """
    if isinstance(data, str):
        overrides, data = {**overrides, "data": data}, None
    config = load_config(config, **overrides)
    with process_group(config["device"]):
        folder, resume = from_first(lambda: _run_folder(config["name"], out, resume))
        data = data if data is not None else images_for(config)
        _check_images(data)
        return _pretrain(config, folder, data, resume, progress, on_snapshot)


def _pretrain(config, folder: Path, data, resume: bool, progress: bool, on_snapshot) -> Run:
    """The run of this process, alone or one of several."""
    plan = _plan(config, len(data), world_size())
    computer = Computer.choose(config)
    state = TrainingState(config, computer, data)
    check_same(state.data, "images (is a copy on one machine not whole?)")
    environment = describe_environment(computer.device) | computer.describe()
    environment |= {"data": data.name, "images": len(data), "minutes": 0.0}
    environment |= {"processes": world_size()} if world_size() > 1 else {}
    with _held(folder):
        try:
            writer = _open(folder, state, plan, resume, environment)
            Loop(config, plan, computer, state, writer, data, progress, on_snapshot).run()
            environment |= {"minutes": round(state.minutes, 2)}
            from_first(lambda: _finish(writer, state, environment | _unreadable(data)))
        except DiskFull as error:
            raise DiskFull(f"{error} Free some space. {how_to_go_on(folder)}") from error
    return Run(folder)


def _check_images(data: object) -> None:
    if not isinstance(data, (ImageSet, ImageStream)):
        raise ValueError(
            f"data must be an ImageSet, an ImageStream or the name of an image set, got a {type(data).__name__}. "
            "Of a uint8 tensor (N, 3, H, W) make ImageSet(images, labels, classes, name)."
        )
    if isinstance(data, ImageStream) and data.mode == "centre":
        raise ValueError(
            "A stream of mode 'centre' holds the evaluation's crops. Train on one of mode 'decode_once' or "
            "'per_image'."
        )


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """The folder is this run's: process 0 holds it for all."""
    with contextlib.ExitStack() as stack:
        from_first(lambda: stack.enter_context(only_process(folder)))
        yield


def _open(
    folder: Path, state: TrainingState, plan: Plan, resume: bool, environment: Mapping[str, Any]
) -> RunWriter | None:
    """Begin the run folder, or take it up where the last good checkpoint left it. Process 0 gets the writer."""
    if resume:
        state.load(folder)
        _refuse_to_shorten(folder, state, plan)
    from_first(lambda: _begin(folder, state, plan, resume, environment))
    return RunWriter(folder) if rank() == 0 else None


def _begin(folder, state, plan, resume, environment) -> None:
    if not resume:
        _refuse_a_run(folder)  # again: it may have been begun since
        remove_checkpoints(folder)
    writer = RunWriter(folder)
    writer.rewind(state.step if resume else -1)
    if state.step < plan.total:
        writer.unfinish()
    if not resume:
        state.save(folder)  # from now on the run can be resumed, whatever happens
    writer.start(state.config, environment)


def _refuse_to_shorten(folder: Path, state: TrainingState, plan: Plan) -> None:
    if state.step > plan.total:
        raise ValueError(
            f"The run in {folder} has done {state.step} steps, and epochs={state.config['epochs']} are only "
            f"{plan.total}. Resume with epochs={-(-state.step // plan.per_epoch)} or more, or start in another "
            "folder."
        )


def _finish(writer: RunWriter, state: TrainingState, environment: Mapping[str, Any]) -> None:
    writer.environment(environment)
    writer.weights(state.model)


def _unreadable(data: ImageSet | ImageStream) -> dict[str, int]:
    """For environment.json: how many files could not be read."""
    files = data.unreadable if isinstance(data, ImageStream) else data.skipped
    return {"unreadable": len(files)} if files else {}


def _run_folder(name: str, out: str | Path | None, resume: bool | str) -> tuple[Path, bool]:
    """The folder of a new run, or of the one to resume; and whether it is resumed."""
    if resume not in (True, False, "auto"):
        raise ValueError(f"resume must be True, False or 'auto', got {resume!r}.")
    if out is not None or resume:
        folder = Path(out) if out is not None else Path("runs") / name
        if resume == "auto":
            resume = any((folder / c).exists() for c in (NEWEST, PREVIOUS))
        if resume:
            find_checkpoints(folder)
        else:
            _refuse_a_run(folder)
        return folder, bool(resume)
    folder, number = Path("runs") / name, 1
    while (folder / "config.yaml").exists():
        number += 1
        folder = Path("runs") / f"{name}-{number}"
    return folder, False


def _refuse_a_run(folder: Path) -> None:
    if (folder / "config.yaml").exists():
        raise FileExistsError(
            f"{folder} holds a run already. Give resume=True (--resume on the command line) to go on with it, or "
            "another folder."
        )
