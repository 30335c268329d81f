"""Pretraining: one loop that one can read from top to bottom."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from barlow_edu.config import load_config
from barlow_edu.data import ImageSet, load_images
from barlow_edu.models import BarlowTwinsModel
from barlow_edu.optim import build_optimizer, set_learning_rate, warmup_cosine
from barlow_edu.runs import Run, RunWriter, build_model, build_views, describe_environment

CHECKPOINT_FORMAT = 1
log = logging.getLogger("barlow_edu")


class TrainingDiverged(RuntimeError):
    """The loss or the weights are no longer finite; the last good checkpoint is kept."""


def pretrain(
    config: str | Path | Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    data: ImageSet | str | None = None,
    resume: bool = False,
    progress: bool = True,
    on_snapshot: Callable[[int, Tensor], None] | None = None,
    **overrides: Any,
) -> Run:
    """Pretrain an encoder with Barlow Twins and keep everything in a run folder.

    config: a configuration's name, a YAML file or a mapping; ``overrides`` replace single settings. out: the
    run folder (default ``runs/NAME``, or the next free ``runs/NAME-2``...). data: images, or the name of an
    image set, to use instead of ``config["data"]``. resume: go on from the folder's last checkpoint.
    on_snapshot(step, c) is called whenever a snapshot of C, (d, d), is taken.

    The last, partial batch of an epoch is dropped: C of fewer samples has a higher floor. Raises ValueError
    for settings that do not fit, FileExistsError if ``out`` holds a run and resume is False, and
    TrainingDiverged if the loss stops being finite.
    """
    if isinstance(data, str):
        overrides, data = {**overrides, "data": data}, None
    config = load_config(config, **overrides)
    folder = _run_folder(config["name"], out, resume)
    data = data if data is not None else _load(config)
    plan = _plan(config, len(data))
    computer = Computer.choose(config)
    state = TrainingState(config, computer)
    if resume:
        state.load(folder / "checkpoint.pt")
        RunWriter(folder).rewind(state.step)
    writer = RunWriter(folder)
    environment = describe_environment(computer.device) | computer.describe()
    environment |= {"data": data.name, "images": len(data), "minutes": 0.0}
    writer.start(config, environment)
    Loop(config, plan, computer, state, writer, data, progress, on_snapshot).run()
    writer.environment(environment | {"minutes": round(state.minutes, 2)})
    writer.weights(state.model)
    return Run(folder)


@dataclass(frozen=True)
class Computer:
    """Where and in which precision to compute, and why."""

    device: torch.device
    bfloat16: bool
    channels_last: bool
    reason: str

    @classmethod
    def choose(cls, config: Mapping[str, Any]) -> Computer:
        """The device and precision a configuration asks for; "auto" goes by what the machine can do."""
        device = config["device"]
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        device = torch.device(device)
        if device.type == "cuda" and not torch.cuda.is_available():
            raise ValueError(
                f"device={config['device']!r}, but torch finds no GPU. Take 'auto' or 'cpu'."
            )
        able = _fast_bfloat16(device)
        precision, layout = config["precision"], config["channels_last"]
        bfloat16 = able if precision == "auto" else precision == "bfloat16"
        # oneDNN's and cuDNN's bfloat16 convolutions want channels last; float32 on a CPU gains little.
        channels_last = bfloat16 if layout == "auto" else layout
        why = "this device computes it fast" if able else "this device has no fast bfloat16"
        return cls(device, bfloat16, channels_last, why if precision == "auto" else "as configured")

    def describe(self) -> dict[str, Any]:
        """For environment.json and for the user."""
        precision = "bfloat16" if self.bfloat16 else "float32"
        layout = "channels last" if self.channels_last else "channels first"
        return {"precision": f"{precision}, {layout} ({self.reason})"}

    def autocast(self) -> torch.autocast:
        """The context of a forward pass."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16)

    def place(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) on the device, in its preferred layout."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return x.to(self.device, memory_format=layout, non_blocking=True)


def _fast_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    try:  # no public name for this yet
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    except AttributeError:
        return False


class TrainingState:
    """All that changes while training: model, optimizer, random generator, step, minutes."""

    def __init__(self, config: Mapping[str, Any], computer: Computer):
        self.config = dict(config)
        self.computer = computer
        self.model: BarlowTwinsModel = build_model(config).to(computer.device)
        if computer.channels_last:
            self.model.to(memory_format=torch.channels_last)
        keys = ("optimizer", "lr", "weight_decay", "bias_lr", "momentum")
        name, *settings = (config[k] for k in keys)
        self.optimizer = build_optimizer(name, self.model, *settings)
        self.generator = torch.Generator().manual_seed(config["seed"])
        self.step = 0
        self.minutes = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The checkpoint."""
        return {
            "format": CHECKPOINT_FORMAT,
            "config": self.config,
            "step": self.step,
            "minutes": self.minutes,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load(self, path: Path) -> None:
        """Take up a checkpoint. Raises FileNotFoundError or ValueError saying what does not fit."""
        if not path.exists():
            raise FileNotFoundError(
                f"Nothing to resume: {path} is missing. Start with resume=False, in an empty folder."
            )
        found = torch.load(path, map_location=self.computer.device, weights_only=True)
        if found.get("format") != CHECKPOINT_FORMAT:
            raise ValueError(f"{path} is not a checkpoint of this version of barlow_edu.")
        free = ("epochs", "name", "device", "root")  # these may differ
        for key, value in self.config.items():
            if key not in free and found["config"].get(key) != value:
                raise ValueError(
                    f"The run in {path.parent} was started with {key}={found['config'].get(key)!r}, not "
                    f"{value!r}. Resume with the same setting, or start in another folder."
                )
        self.step, self.minutes = found["step"], found["minutes"]
        self.model.load_state_dict(found["model"])
        self.optimizer.load_state_dict(found["optimizer"])
        self.generator.set_state(found["generator"].cpu())

    def is_finite(self) -> bool:
        """Whether every weight and running average is a number."""
        return all(bool(torch.isfinite(x).all()) for x in self.model.state_dict().values())


@dataclass(frozen=True)
class Plan:
    """How many steps there are, and at which of them something happens."""

    per_epoch: int
    total: int
    warmup: int
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
    return Plan(per_epoch, total, warmup, frozenset(times))


@dataclass
class Loop:
    """The training loop over one plan."""

    config: Mapping[str, Any]
    plan: Plan
    computer: Computer
    state: TrainingState
    writer: RunWriter
    data: ImageSet
    progress: bool
    on_snapshot: Callable[[int, Tensor], None] | None

    def run(self) -> None:
        """Train from the state's step to the plan's last, epoch by epoch."""
        state, plan = self.state, self.plan
        self.images = self.data.images.to(self.computer.device)
        self.views = build_views(self.config)
        self.probe = self._twins_to_watch()
        self.clock, self.timed_step = time.perf_counter(), state.step
        self.began, self.minutes_before = self.clock, state.minutes
        log.info("%s, %d steps, %s", self.data, plan.total, self.computer.describe()["precision"])
        bar = tqdm(
            total=plan.total,
            initial=state.step,
            unit="step",
            desc=self.config["name"],
            disable=not self.progress,
        )
        state.model.train()
        if state.step == 0:
            self._take_snapshot()
        with bar:
            while state.step < plan.total:
                self._epoch(bar)
                self._checkpoint()

    def _epoch(self, bar: tqdm) -> None:
        state, n = self.state, self.config["batch_size"]
        order = torch.randperm(len(self.images), generator=state.generator)
        for i in range(self.plan.per_epoch):
            rows = order[i * n : (i + 1) * n].to(self.images.device)
            view1, view2 = self.views(self.images[rows], state.generator)
            factor = warmup_cosine(
                state.step, self.plan.total, self.plan.warmup, self.config["final_lr"]
            )
            lr = set_learning_rate(state.optimizer, factor)
            with self.computer.autocast():
                loss, metrics = state.model(self.computer.place(view1), self.computer.place(view2))
            state.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            state.optimizer.step()
            state.step += 1
            self._log(metrics, lr, bar)
            if state.step in self.plan.snapshots:
                self._take_snapshot()

    def _log(self, metrics: Mapping[str, Tensor], lr: float, bar: tqdm) -> None:
        bar.update()
        step, last = self.state.step, self.state.step == self.plan.total
        if step % self.config["log_every"] and not last and step != 1:
            return
        values = {key: value.item() for key, value in metrics.items()}
        if not math.isfinite(values["loss"]):
            self._give_up(f"The loss is {values['loss']} at step {step}")
        now, before = time.perf_counter(), self.clock
        rate = (step - self.timed_step) * self.config["batch_size"] / (now - before)
        self.clock, self.timed_step = now, step
        values |= {"lr": lr, "epoch": step / self.plan.per_epoch, "images_per_second": rate}
        self.writer.metrics(step, values)
        bar.set_postfix(
            loss=f"{values['loss']:.1f}",
            invariance=f"{values['on_diag_loss']:.1f}",
            redundancy=f"{self.config['lambd'] * values['off_diag_loss']:.1f}",
            images=f"{rate:.0f}/s",
            refresh=False,
        )

    def _twins_to_watch(self) -> tuple[Tensor, Tensor]:
        """Two views of a fixed batch, from a generator of their own: the film of C is always of these."""
        generator = torch.Generator().manual_seed(self.config["seed"] + 1)
        count = min(self.config["probe_size"], len(self.images))
        rows = torch.randperm(len(self.images), generator=generator)[:count]
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
        if not self.state.is_finite():
            self._give_up(f"A weight is no longer finite at step {self.state.step}")
        self.state.minutes = self.minutes_before + (time.perf_counter() - self.began) / 60
        self.writer.checkpoint(self.state.to_dict())

    def _give_up(self, what: str) -> None:
        kept = self.writer.path / "checkpoint.pt"
        where = f"The last good checkpoint is {kept}" if kept.exists() else "No epoch was finished"
        raise TrainingDiverged(
            f"{what}. {where}. Try a lower lr (it is {self.config['lr']}), a longer warm-up, or "
            "precision='float32'."
        )


def _load(config: Mapping[str, Any]) -> ImageSet:
    size = config["image_size"] if config["data"] == "folder" else None
    return load_images(config["data"], config["root"], "train", config["limit"], size)


def _run_folder(name: str, out: str | Path | None, resume: bool) -> Path:
    """The folder of a new run, or of the one to resume."""
    if out is not None or resume:
        folder = Path(out) if out is not None else Path("runs") / name
        if (folder / "config.yaml").exists() and not resume:
            raise FileExistsError(
                f"{folder} holds a run already. Give resume=True to go on with it, or another folder."
            )
        return folder
    folder, number = Path("runs") / name, 1
    while (folder / "config.yaml").exists():
        number += 1
        folder = Path("runs") / f"{name}-{number}"
    return folder
