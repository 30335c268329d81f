"""Objects that follow a run: loggers, probes of the encoder while it trains, lines for a log file.

A callback may have any of these methods. Process 0 alone calls them, between two steps. What they draw at random
disturbs nothing, because every step seeds torch anew: with callbacks or without, the weights have the same bits.

    on_begin(run, step)               the Run in its folder; step is above 0 when it is resumed
    on_epoch(epoch, model, last)      after every epoch and at the end; returns numbers for the log, or None
    on_log(step, values)              the line that has just gone to metrics.jsonl
    on_snapshot(step, c)              C of the fixed batch, (d, d)
    on_end()                          the run has ended, also when it was stopped or has failed
"""

import csv
import importlib.util
import logging
import time
from collections.abc import Mapping
from itertools import chain
from typing import Any

from torch import Tensor, nn

from barlow_edu.data import ImageSet
from barlow_edu.evaluation.features import extract_features
from barlow_edu.evaluation.probes import FEW_REGULARIZATION, knn_accuracy, linear_probe
from barlow_edu.runs import Run
from barlow_edu.storage.libraries import missing

log = logging.getLogger("barlow_edu")


class OnlineProbe:
    """kNN accuracy, and with linear=True a linear probe, every ``every`` epochs and at the end.

    They appear as ``online_knn`` and ``online_linear``, in [0, 1], in metrics.jsonl and in every logger. train, test:
    labelled images; of each at most ``limit`` are taken, the first. Test images must not choose anything: to decide
    by what is seen here, hold training images out. The linear probe has a fixed penalty, so it is quick and a
    little below the one of ``evaluate``. Raises ValueError if ``every`` is below 1 or the images have one class.

    >>> from barlow_edu import load_images, pretrain
    >>> probe = OnlineProbe(load_images(limit=100), load_images(split="test", limit=50), every=1)
    >>> run = pretrain(limit=64, batch_size=32, epochs=1, out="online", progress=False, callbacks=[probe])
    >>> 0 <= run.metrics[-1]["online_knn"] <= 1
    True
    """

    def __init__(
        self, train: ImageSet, test: ImageSet, every: int = 1, linear=False, limit: int = 5000
    ):
        if every < 1 or len(train.labels.unique()) < 2:
            raise ValueError(
                f"An online probe needs every >= 1 and images of two classes or more, got every={every} and "
                f"{len(train.labels.unique())} classes in {train.name}."
            )
        self.sets = [s.subset(slice(limit)) for s in (train, test)]
        self.every, self.linear = every, linear

    def on_begin(self, run: Run, step: int) -> None:
        """Take the normalisation of the run's views."""
        self.normalize = run.views().normalize

    def on_epoch(self, epoch: float, model: nn.Module, last: bool) -> dict[str, float] | None:
        """Measure, if it is time: {"online_knn": ..., "online_linear": ...}, else None."""
        if epoch % self.every and not last:
            return None
        parts = []
        for images in self.sets:
            parts += [extract_features(model.encoder, images.images, self.normalize), images.labels]
        scores = {"online_knn": knn_accuracy(*parts)}
        if self.linear:
            scores["online_linear"] = linear_probe(*parts, FEW_REGULARIZATION)
        return scores


class Lines:
    """A line of text about every logged step, at most one in ``seconds``: for where no terminal shows a bar.

    step 300, epoch 1.50 of 30, loss 20.25, 800 images/s, 1.0 min left
    """

    def __init__(self, seconds: float = 10):
        self.seconds = seconds

    def on_begin(self, run: Run, step: int) -> None:
        """By the clock a run has so many minutes, else so many epochs."""
        self.unit = "minutes" if run.config["minutes"] else "epoch"
        self.total = run.config["minutes"] or run.config["epochs"]
        self.first, self.last = None, float("-inf")

    def on_log(self, step: int, values: Mapping[str, float]) -> None:
        """Write a line, unless the last one is too recent; the end and a probe always get one."""
        now, at = time.monotonic(), values[self.unit]
        self.first = self.first or (now, at)
        if now - self.last < self.seconds and at < self.total and "online_knn" not in values:
            return
        self.last, (began, start) = now, self.first
        parts = [f"step {step}", f"{self.unit} {at:.2f} of {self.total:g}"]
        parts.append(f"loss {values['loss']:.4g}")
        parts += [f"{100 * values[k]:.1f} % {k}" for k in values if k.startswith("online_")]
        parts.append(f"{values['images_per_second']:.0f} images/s")
        if at > start:  # else nothing is known yet about how fast it goes
            left = (now - began) / (at - start) * (self.total - at) / 60
            parts.append(f"{left:.1f} min left")
        log.info(", ".join(parts))


class CSV:
    """metrics.csv in the run's folder, one row a logged step; written anew on resuming and for a new column."""

    def on_begin(self, run: Run, step: int) -> None:
        """Take over what a resumed run has logged."""
        self.path, self.columns = run.path / "metrics.csv", []
        self.rows = list(run.metrics) if (run.path / "metrics.jsonl").exists() else []

    def on_log(self, step: int, values: Mapping[str, float]) -> None:
        """Append a row; a new column means a new file."""
        self.rows.append({"step": step, **values})
        before, self.columns = self.columns, list(dict.fromkeys(chain(*self.rows)))
        new = self.columns != before
        with open(self.path, "w" if new else "a", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, self.columns)
            if new:
                table.writeheader()
            table.writerows(self.rows if new else self.rows[-1:])


class _Extra:
    """A logger of a ``package`` that is an extra. Raises RuntimeError without it, before a run has begun."""

    def __init__(self, **options: Any):
        if importlib.util.find_spec(self.package) is None:
            raise missing(self.package, f"{self.package} is not installed")
        self.options = options


class TensorBoard(_Extra):
    """Events in RUN/tensorboard, C as a picture: ``tensorboard --logdir runs``. Needs the extra "tensorboard"."""

    package = "tensorboard"

    def on_begin(self, run: Run, step: int) -> None:
        """Open the events; what was written beyond the checkpoint is purged."""
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(run.path / "tensorboard", purge_step=step + 1 if step else None)

    def on_log(self, step: int, values: Mapping[str, float]) -> None:
        """Write every value as a scalar."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def on_snapshot(self, step: int, c: Tensor) -> None:
        """Write C, (d, d), as a picture: black is -1, white 1."""
        self.writer.add_image("C", (c[None] + 1) / 2, step)

    def on_end(self) -> None:
        """Close the file."""
        self.writer.close()


class _Service(_Extra):
    """A logger whose run has a name of its own, noted in our run's folder, so that it is resumed with ours."""

    def on_begin(self, run: Run, step: int) -> None:
        note = run.path / f"{self.package}_id"
        known = note.read_text(encoding="utf-8") if step and note.exists() else None
        note.write_text(self._begin(run, known), encoding="utf-8")


class WandB(_Service):
    """A run of Weights & Biases, resumed with ours. Needs the extra "wandb"; options go to ``wandb.init``."""

    package = "wandb"

    def __init__(self, **options: Any):
        super().__init__(**options)
        if "mode" not in options:  # without an account it fails here, before a run has begun
            importlib.import_module("wandb").login()

    def _begin(self, run: Run, known: str | None) -> str:
        import wandb

        about = {"project": "barlow_edu", "resume": "allow", "name": run.path.name, "id": known}
        about |= {"dir": run.path, "config": run.config}
        self.run = wandb.init(**about | self.options)
        return self.run.id

    def on_log(self, step: int, values: Mapping[str, float]) -> None:
        """Send the line."""
        self.run.log(dict(values), step=step)

    def on_end(self) -> None:
        """Finish the run there."""
        self.run.finish()


class MLflow(_Service):
    """A run of MLflow, resumed with ours. Needs the extra "mlflow"; options go to ``mlflow.start_run``."""

    package = "mlflow"

    def _begin(self, run: Run, known: str | None) -> str:
        self.mlflow = importlib.import_module("mlflow")
        there = self.mlflow.start_run(**{"run_id": known, "run_name": run.path.name} | self.options)
        if not known:
            self.mlflow.log_params(run.config)
        return there.info.run_id

    def on_log(self, step: int, values: Mapping[str, float]) -> None:
        """Send the line."""
        self.mlflow.log_metrics(dict(values), step=step)

    def on_end(self) -> None:
        """End the run there."""
        self.mlflow.end_run()


# What ``pretrain --log`` knows.
LOGGERS = {"csv": CSV, "tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow}
