"""Callbacks: who calls what and when, loggers read by their own readers, and bits that nothing disturbs."""

import csv
import json
import logging
import random
import sys
from importlib.machinery import ModuleSpec
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import CONFIG, tiny_images

import barlow_edu as be
from barlow_edu.evaluation.callbacks import CSV, Lines, MLflow, OnlineProbe, TensorBoard, WandB
from barlow_edu.training import pretrain

pytestmark = pytest.mark.usefixtures("registered")


class Witness:
    """Writes down every call, and draws at random as a careless callback would."""

    def __init__(self, stop=None):
        self.calls, self.stop = [], stop

    def _note(self, *call):
        self.calls.append(call)
        torch.rand(3), np.random.rand(), random.random()

    def on_begin(self, run, step):
        self._note("begin", run.path.name, step)

    def on_epoch(self, epoch, model, last):
        self._note("epoch", epoch, last, model.training)
        return {"twice": 2 * epoch} if epoch == 2 else None

    def on_log(self, step, values):
        self._note("log", step, values.get("twice"))
        if step == self.stop:
            raise RuntimeError("enough")

    def on_snapshot(self, step, c):
        self._note("snapshot", step, tuple(c.shape))

    def on_end(self):
        self._note("end")


def train(out, *callbacks, **options):
    settings = {"epochs": 3, "log_every": 4, "snapshots": 2} | options
    return pretrain(CONFIG, out, tiny_images(), progress=False, callbacks=callbacks, **settings)


def weights(run):
    return run.load_model().state_dict()


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "plain")


def test_the_protocol_in_order(tmp_path):
    witness = Witness()
    train(tmp_path / "run", witness, object())  # one that has none of the methods is fine
    assert witness.calls == [
        ("begin", "run", 0),
        ("snapshot", 0, (6, 6)),
        ("log", 1, None),
        ("log", 4, None),
        ("epoch", 1.0, False, True),
        ("log", 8, None),
        ("epoch", 2.0, False, True),
        ("log", 10, 4.0),  # at no multiple of four: what is measured is logged
        ("log", 12, None),
        ("epoch", 3.0, True, True),
        ("log", 15, None),
        ("snapshot", 15, (6, 6)),
        ("end",),
    ]


def test_on_end_comes_also_after_a_failure(tmp_path):
    witness = Witness(stop=4)
    with pytest.raises(RuntimeError, match="enough"):
        train(tmp_path / "run", witness)
    assert witness.calls[-1] == ("end",)


def probe(**options):
    return OnlineProbe(tiny_images(40), tiny_images(24, seed=1), linear=True, **options)


def test_callbacks_and_a_stop_change_no_bit(tmp_path, plain):
    """Watched by everything here, stopped in the second epoch and resumed: the weights of the run that nobody saw."""
    out = tmp_path / "run"
    with pytest.raises(RuntimeError, match="enough"):
        train(out, probe(), CSV(), Witness(stop=8))
    run = train(out, probe(), CSV(), Witness(), resume=True)
    a, b = weights(run), weights(plain)
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    steps = [m["step"] for m in run.metrics]
    assert steps == [1, 4, 5, 8, 10, 12, 15]  # each once
    losses = {m["step"]: m["loss"] for m in run.metrics}
    assert all(losses[m["step"]] == m["loss"] for m in plain.metrics)
    with open(out / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == steps
    assert [row["twice"] for row in rows if row["twice"]] == ["4.0"]
    for row, line in zip(rows, run.metrics, strict=True):
        assert float(row["loss"]) == pytest.approx(line["loss"], rel=1e-5)


def test_the_online_probe_is_that_of_the_trained_encoder(tmp_path):
    run = train(tmp_path / "run", probe(every=2))
    steps, knn = run.history("online_knn")
    assert steps.tolist() == [10, 15]  # every second epoch, and the last
    encoder, normalize = run.load_model().encoder, run.views().normalize
    sets = [tiny_images(40), tiny_images(24, seed=1)]
    parts = [x for s in sets for x in (be.extract_features(encoder, s.images, normalize), s.labels)]
    assert knn[-1] == pytest.approx(be.knn_accuracy(*parts), abs=1e-5)
    assert run.metrics[-1]["online_linear"] == pytest.approx(be.linear_probe(*parts, 0.1), abs=1e-5)
    assert len(run.history("loss")[0]) == len(run.metrics)
    with pytest.raises(KeyError, match="online_knn"):
        run.history("nothing")


@pytest.mark.parametrize("wrong", [{"every": 0}, {"train": tiny_images(8, classes=1)}])
def test_an_impossible_probe_is_refused(wrong):
    with pytest.raises(ValueError, match="every >= 1 and images of two classes"):
        OnlineProbe(**{"train": tiny_images(8), "test": tiny_images(8), **wrong})


def test_lines_for_a_log_file(tmp_path, caplog):
    caplog.set_level(logging.INFO, "barlow_edu")
    train(tmp_path / "run", Lines(seconds=0))
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("step ")]
    assert [line.split(",")[0] for line in lines] == [
        "step 1",
        "step 4",
        "step 8",
        "step 12",
        "step 15",
    ]
    assert "epoch 3.00 of 3" in lines[-1] and lines[-1].endswith("0.0 min left")
    assert "min left" not in lines[0]
    caplog.clear()
    train(tmp_path / "other", Lines(seconds=3600))
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("step ")]
    assert [line.split(",")[0] for line in lines] == ["step 1", "step 15"]


def test_tensorboard_reads_what_was_logged(tmp_path):
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train(tmp_path / "run", TensorBoard())
    events = EventAccumulator(str(run.path / "tensorboard")).Reload()
    assert [e.step for e in events.Scalars("loss")] == [m["step"] for m in run.metrics]
    logged = [e.value for e in events.Scalars("loss")]
    assert logged == pytest.approx([m["loss"] for m in run.metrics], rel=1e-5)
    assert [e.step for e in events.Images("C")] == sorted(run.snapshots)


def test_mlflow_reads_what_was_logged(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    mlflow.set_tracking_uri(f"sqlite:///{(tmp_path / 'mlflow.db').as_posix()}")
    train(tmp_path / "run", MLflow(), epochs=2)
    run = train(tmp_path / "run", MLflow(), resume=True)
    (stored,) = mlflow.MlflowClient().search_runs(["0"])  # one, resumed
    assert stored.info.run_name == "run" and stored.info.status == "FINISHED"
    assert stored.data.params["batch_size"] == "16"
    history = mlflow.MlflowClient().get_metric_history(stored.info.run_id, "loss")
    assert [m.step for m in history] == [m["step"] for m in run.metrics]


def test_weights_and_biases_gets_the_configuration_and_every_line(tmp_path, monkeypatch):
    given, logged = {}, []

    class Fake:
        id = "abc"

        def log(self, values, step):
            logged.append((step, values["loss"]))

        def finish(self):
            logged.append("finished")

    def init(**options):
        given.update(options)
        return Fake()

    stand_in = SimpleNamespace(init=init, __spec__=ModuleSpec("wandb", None))
    stand_in.login = lambda: logged.append("an account")
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    run = train(tmp_path / "run", WandB(mode="offline"))
    assert logged[-1] == "finished" and [s for s, _ in logged[:-1]] == [1, 4, 8, 12, 15]
    assert given["config"] == run.config and given["mode"] == "offline" and given["name"] == "run"
    assert json.loads(json.dumps(given["config"])) and given["id"] is None
    train(tmp_path / "run", WandB(mode="offline"), epochs=4, resume=True)
    assert given["id"] == "abc" and given["resume"] == "allow" and "an account" not in logged
    WandB()
    assert logged[-1] == "an account"  # wanted before a run begins
