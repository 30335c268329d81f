"""Pretraining: one loop that one can read from top to bottom."""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from barlow_edu.checkpoints import NEWEST, TrainingState, find_checkpoints, remove_checkpoints
from barlow_edu.config import load_config
from barlow_edu.data import ImageSet
from barlow_edu.devices import Computer, describe_environment
from barlow_edu.files import DiskFull, only_process
from barlow_edu.interrupts import StopRequest, TrainingInterrupted
from barlow_edu.optim import set_learning_rate, warmup_cosine
from barlow_edu.runs import Run, RunWriter, build_views
from barlow_edu.streaming import ImageStream, images_for, shares

log = logging.getLogger("barlow_edu")


class TrainingDiverged(RuntimeError):
    """The loss or the weights are no longer finite; the last good checkpoint is kept."""


def pretrain(
    config: str | Path | Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    data: ImageSet | ImageStream | str | None = None,
    resume: bool = False,
    progress: bool = True,
    on_snapshot: Callable[[int, Tensor], None] | None = None,
    **overrides: Any,
) -> Run:
    """Pretrain an encoder, with Barlow Twins or with ``config["method"]``, and keep everything in a run folder.

    config: a configuration's name, a YAML file or a mapping; ``overrides`` replace single settings. out: the
    run folder (default ``runs/NAME``, or the next free ``runs/NAME-2``...). data: images, or the name of an
    image set, to use instead of ``config["data"]``. resume: go on from the folder's last good checkpoint;
    on the same machine, with as many threads, the run ends with the same bits as one that was never stopped.
    on_snapshot(step, c) is called whenever a snapshot of C, (d, d), is taken.

    The last, partial batch of an epoch is dropped: C of fewer samples has a higher floor. Ctrl-C and SIGTERM
    let the step end, save, and raise TrainingInterrupted, a KeyboardInterrupt that says how to go on. Raises
    ValueError for settings that do not fit, FileExistsError if ``out`` holds a run and resume is False,
    FolderInUse if another process trains there, DiskFull if nothing more can be written, and
    TrainingDiverged if the loss stops being finite.
    """
    if isinstance(data, str):
        overrides, data = {**overrides, "data": data}, None
    config = load_config(config, **overrides)
    folder = _run_folder(config["name"], out, resume)
    data = data if data is not None else images_for(config)
    plan = _plan(config, len(data))
    computer = Computer.choose(config)
    state = TrainingState(config, computer, data)
    with only_process(folder):
        environment = describe_environment(computer.device) | computer.describe()
        environment |= {"data": data.name, "images": len(data), "minutes": 0.0}
        try:
            writer = _open(folder, state, plan, resume, environment)
            Loop(config, plan, computer, state, writer, data, progress, on_snapshot).run()
            environment |= {"minutes": round(state.minutes, 2)}
            writer.environment(environment | _unreadable(data))
            writer.weights(state.model)
        except DiskFull as error:
            raise DiskFull(f"{error} Free some space. {_how_to_go_on(folder)}") from error
    return Run(folder)


def _open(
    folder: Path, state: TrainingState, plan: Plan, resume: bool, environment: Mapping[str, Any]
) -> RunWriter:
    """Begin the run folder, or take it up where the last good checkpoint left it."""
    if resume:
        state.load(folder)
    else:
        _refuse_a_run(folder)  # again: it may have been begun since
        remove_checkpoints(folder)
    writer = RunWriter(folder)
    writer.rewind(state.step if resume else -1)
    if state.step < plan.total:
        writer.unfinish()
    if not resume:
        state.save(folder)  # from now on the run can be resumed, whatever happens
    writer.start(state.config, environment)
    return writer


@dataclass(frozen=True)
class Plan:
    """How many steps there are, and at which of them something happens."""

    per_epoch: int
    total: int
    warmup: int
    checkpoint_every: int
    snapshots: frozenset[int]


def _plan(config: Mapping[str, Any], images: int) -> Plan:
    per_epoch = images // config["batch_size"]
    if per_epoch == 0:
        raise ValueError(
            f"batch_size={config['batch_size']} is more than the {images} images there are. "
            "Take a smaller batch or more images."
        )
    total = per_epoch * config["epochs"]
    count = config["snapshots"]
    # Most happens early: snapshot times grow as a square, and the last step is always there.
    times = {round(total * (i / max(1, count - 1)) ** 2) for i in range(count)}
    times |= {total} if count else set()
    warmup = round(per_epoch * config["warmup_epochs"])
    return Plan(per_epoch, total, warmup, config["checkpoint_every"] or per_epoch, frozenset(times))


@dataclass
class Loop:
    """The training loop over one plan."""

    config: Mapping[str, Any]
    plan: Plan
    computer: Computer
    state: TrainingState
    writer: RunWriter
    data: ImageSet | ImageStream
    progress: bool
    on_snapshot: Callable[[int, Tensor], None] | None

    def run(self) -> None:
        """Train from the state's step to the plan's last."""
        state, plan = self.state, self.plan
        self._prepare()
        bar = tqdm(
            total=plan.total,
            initial=state.step,
            unit="step",
            desc=self.config["name"],
            disable=not self.progress,
        )
        with bar, self.computer.repeatable(), StopRequest() as stop:
            if state.step == 0:
                self._take_snapshot()
            while state.step < plan.total:
                for batch in self._batches():
                    metrics, lr = self._step(batch)
                    self._log(metrics, lr, bar)
                    if state.step in plan.snapshots:
                        self._take_snapshot()
                    finished = state.step == plan.total
                    if finished or stop.signum or state.step % plan.checkpoint_every == 0:
                        self._checkpoint()
                    if stop.signum and not finished:
                        self._stop(stop.signum)

    def _prepare(self) -> None:
        state = self.state
        self.streamed = isinstance(self.data, ImageStream)
        self.images = None if self.streamed else self.data.images.to(self.computer.device)
        self.views = build_views(self.config)
        self.probe = self._twins_to_watch()
        self.model = torch.compile(state.model) if self.config["compile"] else state.model
        self.clock, self.timed_step = time.perf_counter(), state.step
        self.began, self.minutes_before = self.clock, state.minutes
        state.model.train()
        told = self.computer.describe()["precision"]
        log.info("%s, %d steps, %s", self.data, self.plan.total, told)

    def _rest_of_epoch(self) -> Iterator[Tensor]:
        """The batches of this epoch that are still to come, each as rows of the images."""
        n, done = self.config["batch_size"], self.state.step % self.plan.per_epoch
        order = self.state.order(len(self.data), new_epoch=done == 0)
        order = order if self.streamed else order.to(self.images.device)
        yield from shares(order, n)[done:]

    def _batches(self) -> Iterator[Any]:
        """The rest of the epoch: rows of the images in memory, or what the stream's workers made of them."""
        if not self.streamed:
            return self._rest_of_epoch()
        first = self.state.module_seed()
        return self.data.batches(self._rest_of_epoch(), itertools.count(first))

    def _twins(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Both views of a batch of ``_batches``."""
        if self.streamed:
            return self.data.twins(batch, self.views, self.state.generator, self.computer.device)
        return self.views(self.images[batch], self.state.generator)

    def _step(self, batch: Any) -> tuple[Mapping[str, Tensor], float]:
        """One update. Nothing in it waits for the device."""
        state, plan = self.state, self.plan
        self.computer.seed(state.module_seed())
        view1, view2 = self._twins(batch)
        factor = warmup_cosine(state.step, plan.total, plan.warmup, self.config["final_lr"])
        lr = set_learning_rate(state.optimizer, factor)
        with self.computer.autocast():
            loss, metrics = self.model(self.computer.place(view1), self.computer.place(view2))
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        state.optimizer.step()
        state.step += 1
        state.model.after_step(state.step, plan.total)
        return metrics, lr

    def _log(self, metrics: Mapping[str, Tensor], lr: float, bar: tqdm) -> None:
        bar.update()
        step, last = self.state.step, self.state.step == self.plan.total
        if step % self.config["log_every"] and not last and step != 1:
            return
        values = dict(zip(metrics, torch.stack([*metrics.values()]).tolist(), strict=True))
        if not math.isfinite(values["loss"]):
            self._give_up(f"The loss is {values['loss']} at step {step}")
        now, before = time.perf_counter(), self.clock
        rate = (step - self.timed_step) * self.config["batch_size"] / (now - before)
        self.clock, self.timed_step = now, step
        values |= {"lr": lr, "epoch": step / self.plan.per_epoch, "images_per_second": rate}
        self.writer.metrics(step, values)
        told = {"loss": f"{values['loss']:.4g}"}
        if self.state.model.method == "barlow_twins":
            told["invariance"] = f"{values['on_diag_loss']:.1f}"
            told["redundancy"] = f"{self.config['lambd'] * values['off_diag_loss']:.1f}"
        bar.set_postfix(told, images=f"{rate:.0f}/s", refresh=False)

    def _twins_to_watch(self) -> tuple[Tensor, Tensor]:
        """Two views of a fixed batch, from a generator of their own: C is always looked at on these."""
        generator = torch.Generator().manual_seed(self.config["seed"] + 1)
        count = min(self.config["probe_size"], len(self.data))
        rows = torch.randperm(len(self.data), generator=generator)[:count]
        if self.streamed:
            batch = self.data.load(rows)
            return self.data.twins(batch, self.views, generator, self.computer.device)
        return self.views(self.images[rows.to(self.images.device)], generator)

    def _take_snapshot(self) -> None:
        if not self.plan.snapshots:
            return
        began = time.perf_counter()
        dims = self.config["snapshot_dims"]
        with self.computer.autocast():
            c = self.state.model.cross_correlation(*map(self.computer.place, self.probe))
        c = c[:dims, :dims].float().cpu()
        self.writer.snapshot(self.state.step, c)
        if self.on_snapshot is not None:
            self.on_snapshot(self.state.step, c)
        self.clock += time.perf_counter() - began

    def _checkpoint(self) -> None:
        began = time.perf_counter()
        if not self.state.is_finite():
            self._give_up(f"A weight is no longer finite at step {self.state.step}")
        self.state.minutes = self.minutes_before + (began - self.began) / 60
        self.state.save(self.writer.path)
        self.clock += time.perf_counter() - began

    def _stop(self, signum: int) -> None:
        where = f"Stopped and saved at step {self.state.step} of {self.plan.total}."
        raise TrainingInterrupted(f"{where} {_how_to_go_on(self.writer.path)}", signum)

    def _give_up(self, what: str) -> None:
        raise TrainingDiverged(
            f"{what}. The last good checkpoint is {self.writer.path / NEWEST}. Try a "
            f"lower lr (it is {self.config['lr']}), a longer warm-up, or precision='float32'."
        )


def _unreadable(data: ImageSet | ImageStream) -> dict[str, int]:
    """For environment.json: how many files could not be read."""
    files = data.unreadable if isinstance(data, ImageStream) else data.skipped
    return {"unreadable": len(files)} if files else {}


def _how_to_go_on(folder: Path) -> str:
    return (
        "To go on: pretrain(...) as before with "
        f"out={str(folder)!r} and resume=True, or on the command line "
        f'python -m barlow_edu pretrain "{folder / "config.yaml"}" --out "{folder}" --resume'
    )


def _run_folder(name: str, out: str | Path | None, resume: bool) -> Path:
    """The folder of a new run, or of the one to resume."""
    if out is not None or resume:
        folder = Path(out) if out is not None else Path("runs") / name
        if resume:
            find_checkpoints(folder)
        else:
            _refuse_a_run(folder)
        return folder
    folder, number = Path("runs") / name, 1
    while (folder / "config.yaml").exists():
        number += 1
        folder = Path("runs") / f"{name}-{number}"
    return folder


def _refuse_a_run(folder: Path) -> None:
    if (folder / "config.yaml").exists():
        raise FileExistsError(
            f"{folder} holds a run already. Give resume=True to go on with it, or another folder."
        )
