"""Pretraining: a run from its configuration to its folder, and the loop that trains it."""

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from barlow_edu.config import (
    DEFAULTS,
    Schedule,
    build_model,
    build_views,
    images_for,
    watched_images,
    with_encoder,
)
from barlow_edu.data import ImageSet
from barlow_edu.numerics import distributed
from barlow_edu.numerics.devices import Computer
from barlow_edu.numerics.optim import set_learning_rate, warmup_cosine
from barlow_edu.numerics.stopwatch import Stopwatch
from barlow_edu.runs import Run
from barlow_edu.state import TrainingState
from barlow_edu.storage.checkpoints import NEWEST, TrainingDiverged
from barlow_edu.storage.decoding import Batch
from barlow_edu.storage.interrupts import USR1, StopRequest, TrainingInterrupted, requeue
from barlow_edu.storage.run_folder import RunWriter, choose_folder, open_run, resume_hint
from barlow_edu.storage.stream import ImageStream

log = logging.getLogger("barlow_edu")


def pretrain(
    config: str | Path | Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    data: ImageSet | ImageStream | str | None = None,
    resume: bool | str = False,
    progress: bool = True,
    on_snapshot: Callable[[int, Tensor], None] | None = None,
    callbacks: Sequence[Any] = (),
    **overrides: Any,
) -> Run:
    """Pretrain an encoder, with Barlow Twins or with ``config["method"]``; a run folder holds all that comes of it.

    config: a configuration's name, a YAML file or a mapping; ``overrides`` replace single settings. The setting
    encoder is a name, or a module, of which a copy is trained; ``load_run(path, encoder=...)`` reads that run later.
    out: the run folder; default ``runs/NAME``, or the next free ``runs/NAME-2``, ...
    data: images, or the name of an image set, to use instead of ``config["data"]``.
    resume: True goes on from the folder's last good checkpoint, and on the same machine, with as many processes and
    threads, the run ends with the same bits as one that was never stopped. "auto" goes on if there is a checkpoint,
    and begins if there is none: for jobs that are started again.
    on_snapshot(step, c) is called whenever a snapshot of C, (d, d), is taken.
    callbacks: objects that follow the run, such as loggers and probes: see ``barlow_edu.evaluation.callbacks``.

    Under torchrun the processes train as one: batch_size is that of all of them together, each takes its shard of
    every batch, batch norm and C are those of the whole batch, and process 0 alone writes. Views and order do not
    depend on the number of processes, so a run may be resumed on another number. Its sums are then added up in
    another order, which differs in the last bits of float32, and visibly where bfloat16 rounds them.

    With ``minutes`` the clock is the schedule: training ends when that time is over, including the time before a
    stop, and the rate and the snapshots follow it. How many steps that are depends on the machine, so such a run
    cannot be repeated bit by bit; the metrics hold the rate of each step.

    The last, partial batch of an epoch is dropped: C of fewer samples has a higher floor. Ctrl-C, SIGTERM and
    SIGUSR1, to any of the processes, let the step end, save, and raise TrainingInterrupted, a KeyboardInterrupt
    that says how to go on; after SIGUSR1 a SLURM job is requeued.

    Raises ValueError for settings that do not fit, FileExistsError if ``out`` holds a run and resume is False,
    FolderInUse if another process trains there, DiskFull if nothing more can be written, PeerLost if another rank
    has ended, and TrainingDiverged if the loss stops being finite.

    >>> run = pretrain(data="garments", limit=64, batch_size=32, out="first", progress=False)
    >>> [metrics["step"] for metrics in run.metrics]
    [1, 2]
    """
    # What is asked for: every setting, checked, and the encoder if it is a module of the caller's.
    if isinstance(data, str):
        overrides, data = {**overrides, "data": data}, None
    config, encoder = with_encoder(config, overrides)
    if on_snapshot is not None:
        callbacks = [*callbacks, SimpleNamespace(on_snapshot=on_snapshot)]
    with distributed.process_group(config["device"]):
        # Where, on what, for how long, on which device: what cannot be is refused before a folder is made.
        folder, resume = distributed.from_first(lambda: choose_folder(config["name"], out, resume))
        images = images_for(config, data)
        watched = images if data is not None else watched_images(config, images)
        schedule = Schedule.of(config, len(images), distributed.world_size())
        computer = Computer.choose(config)
        # All that changes while training: the model, initialised from the seed, its optimizer, the step.
        model = build_model(config, encoder, weights=True)
        state = TrainingState(config, model, computer, images.fingerprint(), DEFAULTS)
        distributed.check_same(state.images, "images (is a copy on one machine not whole?)")
        # Hold the folder, go on from its last checkpoint if there is one to go on from, and train.
        root = config["root"] if data is None else None
        with open_run(folder, resume, state, schedule.total, images, root) as writer:
            loop = Loop(config, schedule, state, images, writer, progress, callbacks, watched)
            loop.notify("on_begin", Run(folder, encoder), state.step)
            try:
                for _ in loop.steps():
                    pass
            finally:
                loop.notify("on_end")
    return Run(folder, encoder)


@dataclass
class Loop:
    """The training loop: it carries out a schedule on a state, and writes down what it sees."""

    config: Mapping[str, Any]
    schedule: Schedule
    state: TrainingState
    images: ImageSet | ImageStream
    writer: RunWriter
    progress: bool = False
    callbacks: Sequence[Any] = ()
    watched: ImageSet | ImageStream | None = None  # default: images

    def steps(self) -> Iterator[int]:
        """Train from the state's step to the schedule's last. Yields the number of each step when it is done."""
        config, schedule, state = self.config, self.schedule, self.state
        computer, size = state.computer, config["batch_size"]
        model, bar = self._prepare()
        with bar, computer.repeatable(state.threads), StopRequest() as stop:
            if state.step == 0 and schedule.snapshots:
                self._watch()
            now = self._now()
            while now < schedule.total:
                for batch in self._epoch():
                    # Draw two views of every image. What the model draws itself, as dropout does, comes from torch's
                    # own generators. Their seed follows from the step: a resumed run draws what it would have drawn.
                    view1, view2 = self._twins(batch, size, state.generator)
                    computer.seed(state.module_seed(self.rank))
                    # Embed both. The loss says how far C, the correlations of one view's embeddings with the
                    # other's, is from the identity.
                    with computer.autocast():
                        loss, metrics = model(view1, view2)
                    # Take a step down the gradient. The rate, too, follows from the step's number, or from the
                    # clock. Nothing so far has asked for a value: that would wait until the device has computed it.
                    ends = config["final_lr"], config["warmup_offset"]
                    factor = warmup_cosine(now, schedule.total, schedule.warmup, *ends)
                    lr = set_learning_rate(state.optimizer, factor)
                    state.optimizer.zero_grad(set_to_none=True)
                    loss = distributed.published_scale(loss, config["reference_processes"])
                    state.scaler.scale(loss).backward()  # by 1, unless half precision is float16
                    state.scaler.step(state.optimizer)
                    state.scaler.update()
                    state.step += 1
                    before, now = now, self._now()
                    state.model.after_step(now, schedule.total)  # BYOL's teacher follows
                    # Log, watch C, save. A signal may have reached one process alone, so all of them agree whether
                    # to stop: in the next step they would wait for the one that has.
                    bar.update()
                    finished = now >= schedule.total
                    measured = self._measure(finished)
                    logs = state.step % config["log_every"] == 0 or state.step == 1
                    if measured or logs or finished:
                        self._log(metrics, lr, bar, measured)
                    if any(before < time <= now for time in schedule.snapshots):
                        self._watch()
                    signum = distributed.agree(stop.signum or 0)
                    if finished or signum or state.step % schedule.checkpoint_every == 0:
                        self._checkpoint()
                    if signum and not finished:
                        self._stop(signum)
                    yield state.step
                    if finished:
                        break

    def _now(self) -> int:
        """How far the run is, in the units of its schedule: steps or milliseconds."""
        if self.config["minutes"] is None:
            return self.state.step
        return distributed.agree(round(60_000 * self.stopwatch.minutes()))

    def _prepare(self) -> tuple[nn.Module, tqdm]:
        """The model as it is trained, and the progress bar; and what the methods below need."""
        config, state, minutes = self.config, self.state, self.config["minutes"]
        self.rank, self.world_size = distributed.rank(), distributed.world_size()
        self.images, self.views = self.images.on(state.computer.device), build_views(config)
        self.probe = self._twins_to_watch()
        self.stopwatch, self.logged = Stopwatch(state.minutes), state.step
        model = torch.compile(state.model.train()) if config["compile"] else state.model.train()
        model = distributed.data_parallel(model)
        precision = f"{state.computer.precision}, {state.threads} threads"
        precision += f", {self.world_size} processes" if self.world_size > 1 else ""
        total = self.schedule.total if minutes is None else None
        if self.rank == 0:
            length = f"{total} steps" if total else f"{minutes:g} minutes"
            log.info("%s, %s, %s", self.images, length, precision)
        hidden = not self.progress or self.rank > 0
        bar = {"total": total, "initial": state.step, "unit": "step", "disable": hidden}
        return model, tqdm(desc=config["name"], **bar)

    def _epoch(self) -> Iterator[Batch]:
        """The batches of this epoch that are still to come, of each this process's shard."""
        size, done = self.config["batch_size"], self.state.step % self.schedule.per_epoch
        order = self.state.order(len(self.images), new_epoch=done == 0)
        # One batch after the other, the last only if it is whole: the same however many processes share them.
        rows = order.unfold(0, size, size)[done:, self._shard(size)]
        return self.images.batches(rows, itertools.count(self.state.module_seed()))

    def _twins(self, batch: Batch, total: int, generator: torch.Generator) -> list[Tensor]:
        """Both views of this process's shard of a batch of ``total`` images."""
        computer, shard = self.state.computer, self._shard(total)
        twins = self.views.of_batch(batch, computer.device, generator, shard, total)
        return [computer.place(view) for view in twins]

    def _twins_to_watch(self) -> list[Tensor]:
        """Two views of a fixed batch, from a generator of their own: every snapshot of C is of these."""
        generator = torch.Generator().manual_seed(self.config["seed"] + 1)
        images = self.watched or self.images
        count = min(self.config["probe_size"], len(images)) // self.world_size * self.world_size
        rows = torch.randperm(len(images), generator=generator)[self._shard(count)]
        return self._twins(images.load(rows), count, generator)

    def _shard(self, total: int) -> slice:
        """Where this process's rows lie in a batch of ``total``, in which the processes come in order."""
        return distributed.own_rows(total // self.world_size, distributed.active_group())

    def notify(self, event: str, *arguments: Any) -> list[Any]:
        """Call a method of every callback that has it, in process 0 alone; returns what they answer."""
        asked = [c for c in self.callbacks if hasattr(c, event) and distributed.rank() == 0]
        with distributed.alone():
            return [getattr(callback, event)(*arguments) for callback in asked]

    def _measure(self, finished: bool) -> dict[str, float]:
        """What callbacks measure of the model when an epoch is over, for the log."""
        if not self.callbacks or self.state.step % self.schedule.per_epoch and not finished:
            return {}
        with self.stopwatch.left_out():
            epoch = self.state.step / self.schedule.per_epoch
            answers = self.notify("on_epoch", epoch, self.state.model, finished)
        return {name: value for answer in answers if answer for name, value in answer.items()}

    def _log(self, metrics: Mapping[str, Tensor], lr: float, bar: tqdm, measured: dict) -> None:
        step = self.state.step
        values = dict(zip(metrics, torch.stack([*metrics.values()]).tolist(), strict=True))
        if not math.isfinite(values["loss"]):
            self._give_up(f"The loss is {values['loss']} at step {step}")
        rate = (step - self.logged) * self.config["batch_size"] / self.stopwatch.lap()
        self.logged = step
        about = {"lr": lr, "epoch": step / self.schedule.per_epoch, "images_per_second": rate}
        if self.config["minutes"] is not None:
            about["minutes"] = self.stopwatch.minutes()
        self.writer.metrics(step, values | about | measured)
        if self.callbacks:
            with self.stopwatch.left_out():
                self.notify("on_log", step, values | about | measured)
        shown = {"loss": f"{values['loss']:.4g}"}
        if self.state.model.method == "barlow_twins":
            shown["invariance"] = f"{values['on_diag_loss']:.1f}"
            shown["redundancy"] = f"{self.config['lambd'] * values['off_diag_loss']:.1f}"
        bar.set_postfix(shown, images=f"{rate:.0f}/s", refresh=False)

    def _watch(self) -> None:
        """Write down C of the fixed batch, and hand it to the caller."""
        dims = self.config["snapshot_dims"]
        with self.stopwatch.left_out():
            with self.state.computer.autocast():
                c = self.state.model.cross_correlation(*self.probe)
            c = c[:dims, :dims].float().cpu()
            self.writer.snapshot(self.state.step, c)
            self.notify("on_snapshot", self.state.step, c)

    def _checkpoint(self) -> None:
        with self.stopwatch.left_out():
            if not self.state.is_finite():
                self._give_up(f"A weight is no longer finite at step {self.state.step}")
            self.state.minutes = self.stopwatch.minutes()
            self.writer.checkpoint(self.state)

    def _stop(self, signum: int) -> None:
        minutes, left = self.config["minutes"], f" of {self.schedule.total}"
        if minutes is not None:
            left = f", {minutes - self.state.minutes:.1f} of {minutes:g} minutes left"
        text = f"Stopped and saved at step {self.state.step}{left}."
        if self.rank == 0:
            job = requeue() if signum == USR1 else None
            text += f" Job {job} is requeued." if job else f" {resume_hint(self.writer.path)}"
        raise TrainingInterrupted(text, signum)

    def _give_up(self, what: str) -> None:
        raise TrainingDiverged(
            f"{what}. The last good checkpoint is {self.writer.path / NEWEST}. Try a "
            f"lower lr (it is {self.config['lr']}), a longer warm-up, or precision='float32'."
        )
