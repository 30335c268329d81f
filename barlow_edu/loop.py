"""The training loop, step by step."""

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

from barlow_edu.config import build_views
from barlow_edu.data import ImageSet
from barlow_edu.numerics.devices import Computer
from barlow_edu.numerics.distributed import (
    active_group,
    agree,
    alone,
    data_parallel,
    own_rows,
    published_scale,
    rank,
    world_size,
)
from barlow_edu.optim import set_learning_rate, warmup_cosine
from barlow_edu.runs import RunWriter
from barlow_edu.state import NEWEST, TrainingState
from barlow_edu.storage.interrupts import USR1, StopRequest, TrainingInterrupted, requeue
from barlow_edu.storage.stream import ImageStream, shares

log = logging.getLogger("barlow_edu")


class TrainingDiverged(RuntimeError):
    """The loss or the weights are no longer finite; the last good checkpoint is kept."""


@dataclass(frozen=True)
class Plan:
    """How many steps there are, and at which of them something happens."""

    per_epoch: int
    total: int
    warmup: int
    checkpoint_every: int
    snapshots: frozenset[int]


def _plan(config: Mapping[str, Any], images: int, processes: int = 1) -> Plan:
    size = config["batch_size"]
    if processes > 1 and (config["method"] != "barlow_twins" or config.get("ablate")):
        raise ValueError(
            f"Several processes train Barlow Twins as one; the loss of {config['method']} with these settings would "
            "be that of each share. Start one process, or set method=barlow_twins and no ablate."
        )
    if size % processes:
        near = (size // processes * processes, (size // processes + 1) * processes)
        raise ValueError(
            f"batch_size={size} is that of all {processes} processes together and must be a multiple of their "
            f"number. Take {' or '.join(str(n) for n in near if n)}."
        )
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
    writer: RunWriter | None  # in process 0, which writes for all
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
            disable=not self.progress or rank() > 0,
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
                    signum = agree(stop.signum or 0)
                    if finished or signum or state.step % plan.checkpoint_every == 0:
                        self._checkpoint()
                    if signum and not finished:
                        self._stop(signum)

    def _prepare(self) -> None:
        state = self.state
        self.streamed = isinstance(self.data, ImageStream)
        self.images = None if self.streamed else self.data.images.to(self.computer.device)
        self.views = build_views(self.config)
        self.probe = self._twins_to_watch()
        model = torch.compile(state.model) if self.config["compile"] else state.model
        self.model = data_parallel(model)
        self.clock, self.timed_step = time.perf_counter(), state.step
        self.began, self.minutes_before = self.clock, state.minutes
        state.model.train()
        told = self.computer.describe()["precision"]
        told += f", {world_size()} processes" if world_size() > 1 else ""
        if rank() == 0:
            log.info("%s, %d steps, %s", self.data, self.plan.total, told)

    def _rest_of_epoch(self) -> Iterator[Tensor]:
        """The batches of this epoch that are still to come: this process's share, as rows of the images."""
        n, done = self.config["batch_size"], self.state.step % self.plan.per_epoch
        order = self.state.order(len(self.data), new_epoch=done == 0)
        order = order if self.streamed else order.to(self.images.device)
        yield from shares(order, n, rank(), world_size())[done:]

    def _batches(self) -> Iterator[Any]:
        """The rest of the epoch: rows of the images in memory, or what the stream's workers made of them."""
        if not self.streamed:
            return self._rest_of_epoch()
        first = self.state.module_seed()
        return self.data.batches(self._rest_of_epoch(), itertools.count(first))

    def _twins(self, batch: Any, total: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Both views of this process's share of a batch of ``total``, of which every process draws all."""
        own = own_rows(total // world_size(), active_group())
        if self.streamed:
            device = self.computer.device
            return self.data.twins(batch, self.views, generator, device, own, total)
        images = self.images[batch]
        sizes = torch.tensor([images.shape[2:]]).expand(total, 2)
        return self.views.of_part(images, sizes, own, generator)

    def _step(self, batch: Any) -> tuple[Mapping[str, Tensor], float]:
        """One update. Nothing in it waits for the device."""
        state, plan = self.state, self.plan
        self.computer.seed((state.module_seed() + (rank() << 32)) % 2**63)
        view1, view2 = self._twins(batch, self.config["batch_size"], state.generator)
        factor = warmup_cosine(state.step, plan.total, plan.warmup, self.config["final_lr"])
        lr = set_learning_rate(state.optimizer, factor)
        with self.computer.autocast():
            loss, metrics = self.model(self.computer.place(view1), self.computer.place(view2))
        state.optimizer.zero_grad(set_to_none=True)
        published_scale(loss, self.config["reference_processes"]).backward()
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
        if self.writer is not None:
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
        count -= count % world_size()
        rows = torch.randperm(len(self.data), generator=generator)[:count]
        rows = rows[own_rows(count // world_size(), active_group())]
        batch = self.data.load(rows) if self.streamed else rows.to(self.images.device)
        return self._twins(batch, count, generator)

    def _take_snapshot(self) -> None:
        if not self.plan.snapshots:
            return
        began = time.perf_counter()
        dims = self.config["snapshot_dims"]
        with self.computer.autocast():
            c = self.state.model.cross_correlation(*map(self.computer.place, self.probe))
        if self.writer is not None:
            c = c[:dims, :dims].float().cpu()
            self.writer.snapshot(self.state.step, c)
            if self.on_snapshot is not None:
                with alone():
                    self.on_snapshot(self.state.step, c)
        self.clock += time.perf_counter() - began

    def _checkpoint(self) -> None:
        began = time.perf_counter()
        if not self.state.is_finite():
            self._give_up(f"A weight is no longer finite at step {self.state.step}")
        self.state.minutes = self.minutes_before + (began - self.began) / 60
        if self.writer is not None:
            self.state.save(self.writer.path)
        self.clock += time.perf_counter() - began

    def _stop(self, signum: int) -> None:
        told = f"Stopped and saved at step {self.state.step} of {self.plan.total}."
        if self.writer is not None:
            job = requeue() if signum == USR1 else None
            told += f" Job {job} is requeued." if job else f" {how_to_go_on(self.writer.path)}"
        raise TrainingInterrupted(told, signum)

    def _give_up(self, what: str) -> None:
        kept = NEWEST if self.writer is None else self.writer.path / NEWEST
        raise TrainingDiverged(
            f"{what}. The last good checkpoint is {kept}. Try a "
            f"lower lr (it is {self.config['lr']}), a longer warm-up, or precision='float32'."
        )


def how_to_go_on(folder: Path) -> str:
    """For the user, whose run has stopped."""
    return (
        "To go on: pretrain(...) as before with "
        f"out={str(folder)!r} and resume=True, or on the command line "
        f'python -m barlow_edu pretrain "{folder / "config.yaml"}" --out "{folder}" --resume'
    )
