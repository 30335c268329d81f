"""Pretraining: the run folder, determinism, resuming, and giving up in time."""

import functools
import itertools
import json
import math
import random
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import CONFIG, TinyEncoder, tiny_images
from torch.utils._python_dispatch import TorchDispatchMode

import barlow_edu as be
from barlow_edu import training
from barlow_edu.config import Schedule, load_config
from barlow_edu.models import ENCODERS
from barlow_edu.numerics.devices import Computer
from barlow_edu.numerics.distributed import own_rows
from barlow_edu.storage import checkpoints
from barlow_edu.training import Loop, TrainingDiverged, pretrain

pytestmark = pytest.mark.usefixtures("registered")


@pytest.fixture(scope="module")
def images():
    return tiny_images()


@pytest.fixture(scope="module")
def whole(tmp_path_factory, images):
    """A run that nothing interrupted, and the snapshots it told of."""
    seen = {}
    out = tmp_path_factory.mktemp("runs") / "whole"
    run = pretrain(CONFIG, out, images, progress=False, on_snapshot=seen.__setitem__)
    return run, seen


class Images(list):
    """What the loop asks of images before it has a batch of them."""

    def batches(self, rows, keys):
        return list(rows)


@given(st.integers(1, 99), st.integers(1, 8), st.sampled_from([1, 2, 3, 4, 8]), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_every_image_at_most_once_an_epoch_however_many_processes(more, share, processes, seed):
    batch = share * processes
    images = Images(range(batch + more))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    state = SimpleNamespace(step=0, order=lambda *_, **__: order, module_seed=lambda: 0)

    def epoch(rank, processes):
        schedule = SimpleNamespace(per_epoch=len(images) // batch)
        loop = Loop({"batch_size": batch}, schedule, state, images, None)
        loop._shard = lambda total: own_rows(total // processes, SimpleNamespace(rank=lambda: rank))
        return loop._epoch()

    parts = [epoch(rank, processes) for rank in range(processes)]
    assert len({len(p) for p in parts}) == 1  # as many steps in each
    together = [torch.cat(rows) for rows in zip(*parts, strict=True)]
    alone = epoch(0, 1)
    assert len(together) == len(alone) == len(images) // batch
    assert all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))
    seen = torch.cat(together).tolist()
    assert len(seen) == len(set(seen)) == len(images) // batch * batch  # all but the last, partial


def train(out, images, **options):
    return pretrain(CONFIG, out, images, progress=False, **options)


def weights(run):
    return run.load_model().state_dict()


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture
def built(monkeypatch):
    """The models that are built, newest first, so that a test can spoil one."""
    models, original = [], training.build_model

    def build_and_remember(*given, **options):
        models.insert(0, original(*given, **options))
        return models[0]

    monkeypatch.setattr(training, "build_model", build_and_remember)
    return models


# the run folder


def test_the_run_folder_holds_what_it_should(whole):
    run, _ = whole
    assert sorted(p.name for p in run.path.iterdir() if p.name != ".lock") == [
        "checkpoint.pt",
        "checkpoint_previous.pt",
        "config.yaml",
        "encoder.safetensors",
        "environment.json",
        "metrics.jsonl",
        "projector.safetensors",
        "snapshots",
    ]
    assert not [p for p in run.path.rglob("*") if p.name.endswith(".part")]


def test_the_configuration_is_complete(whole):
    run, _ = whole
    assert run.config == load_config(CONFIG)
    assert run.config == yaml.safe_load((run.path / "config.yaml").read_text())


def test_the_environment_says_where_and_on_what(whole):
    environment = whole[0].environment
    assert environment["data"] == "tiny"
    assert environment["images"] == 85
    assert environment["torch"] == torch.__version__
    assert environment["threads"] == 1
    assert environment["precision"].startswith("float32, channels last")
    assert 0 <= environment["minutes"] < 30


def test_metrics_are_logged_at_the_first_every_second_and_the_last_step(whole):
    run, _ = whole
    assert [m["step"] for m in run.metrics] == [1, 2, 4, 6, 8, 10]
    assert [m["epoch"] for m in run.metrics] == [0.2, 0.4, 0.8, 1.2, 1.6, 2.0]
    for m in run.metrics:
        assert set(m) >= {"loss", "on_diag_loss", "off_diag_loss", "cross_corr_diag_mean", "lr"}
        assert all(math.isfinite(v) for v in m.values())
        expected = m["on_diag_loss"] + 0.005 * m["off_diag_loss"]
        assert m["loss"] == pytest.approx(expected, rel=1e-4)
        assert m["images_per_second"] > 0


def test_the_last_partial_batch_is_dropped(whole, images):
    assert len(images) == 85 and CONFIG["batch_size"] == 16
    assert whole[0].metrics[-1]["step"] == 2 * (85 // 16)


def test_the_learning_rate_warms_up_and_falls(whole):
    _, rates = whole[0].history("lr")
    assert rates[0] == pytest.approx(0.01 / 2)  # half an epoch of warm-up: two steps
    assert rates[1] == pytest.approx(0.01)
    assert (np.diff(rates[1:]) < 0).all()


def test_history_names_the_metrics_there_are(whole):
    steps, losses = whole[0].history("loss")
    assert steps.tolist() == [1, 2, 4, 6, 8, 10] and losses.shape == (6,)
    with pytest.raises(KeyError, match="No metric 'accuracy'.*on_diag_loss"):
        whole[0].history("accuracy")


# snapshots of C


def test_snapshots_are_correlations_from_the_first_to_the_last_step(whole):
    run, seen = whole
    assert sorted(run.snapshots) == sorted(seen) == [0, 1, 4, 10]
    for step, c in run.snapshots.items():
        assert c.shape == (6, 6) and c.dtype == np.float32
        assert np.abs(c).max() <= 1
        np.testing.assert_allclose(c, seen[step].numpy(), atol=1e-3)  # kept as float16


def test_the_first_snapshot_is_c_of_the_untrained_model(whole, images):
    """Made again by hand: the twins of the watched batch, the seeded weights, the first dimensions."""
    run, seen = whole
    generator = torch.Generator().manual_seed(run.config["seed"] + 1)
    rows = torch.randperm(len(images), generator=generator)[: CONFIG["probe_size"]]
    twins = run.views()(images.images[rows], generator)
    model = run.load_model(weights=False).train()
    z1, z2 = (model.embed(x).detach().double() for x in twins)
    c = np.corrcoef(z1.T, z2.T)[:8, 8:]
    np.testing.assert_allclose(seen[0].numpy(), c[:6, :6], atol=1e-5)


def test_the_last_snapshot_is_c_of_the_trained_model(whole, images):
    run, seen = whole
    generator = torch.Generator().manual_seed(run.config["seed"] + 1)
    rows = torch.randperm(len(images), generator=generator)[: CONFIG["probe_size"]]
    twins = run.views()(images.images[rows], generator)
    c = run.load_model().cross_correlation(*twins)
    torch.testing.assert_close(seen[10], c[:6, :6])


def test_the_watched_pairs_may_be_of_images_that_are_never_trained_on(tmp_path):
    """More of them than there are training images, so that no mix-up can pass."""
    settings = {**CONFIG, "data": "garments", "image_size": 32, "limit": 64, "probe_split": "test"}
    run = pretrain(settings, tmp_path / "run", probe_size=48, snapshots=1, progress=False)
    test, generator = be.load_images("garments", split="test"), torch.Generator()
    generator.manual_seed(run.config["seed"] + 1)
    rows = torch.randperm(len(test), generator=generator)[:48]
    c = run.load_model().cross_correlation(*run.views()(test.images[rows], generator))
    last, shown = run.snapshots[max(run.snapshots)], run.config["snapshot_dims"]
    np.testing.assert_allclose(last, c[:shown, :shown], atol=1e-3)


@pytest.mark.parametrize(
    ("count", "steps"), [(0, []), (1, [0, 10]), (2, [0, 10]), (100, list(range(11)))]
)
def test_any_number_of_snapshots(tmp_path, images, count, steps):
    run = train(tmp_path / "run", images, snapshots=count)
    assert sorted(run.snapshots) == steps


def test_watching_changes_nothing(tmp_path, images, whole):
    run = train(tmp_path / "run", images, snapshots=0)
    assert equal(weights(run), weights(whole[0]))


# learning and determinism


def test_the_loss_falls_and_the_diagonal_rises(tmp_path):
    images = be.load_images("garments", split="test", limit=512)
    options = {"image_size": 32, "batch_size": 64, "epochs": 6, "snapshots": 2, "probe_size": 256}
    run = train(tmp_path / "run", images, **options)
    _, losses = run.history("loss")
    assert losses[-5:].mean() < 0.5 * losses[0]
    first, last = (np.trace(run.snapshots[step]) / 6 for step in sorted(run.snapshots))
    assert last > first + 0.15


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_training_is_this_loop(tmp_path, images, name):
    """The same weights as from torch's optimizer and schedule in a loop of a few lines."""
    settings = {"optimizer": name, "weight_decay": 0.1, "bias_lr": 0.02, "warmup_epochs": 0.6}
    run = train(tmp_path / "run", images, **settings)
    model, views = run.load_model(weights=False).train(), run.views()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    groups = [
        {"params": decayed, "lr": 0.01, "weight_decay": 0.1},
        {"params": others, "lr": 0.02, "weight_decay": 0.0},
    ]
    options = {"adamw": {}, "sgd": {"momentum": 0.9, "nesterov": True}}[name]
    optimizer = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[name](groups, **options)
    cosine = [1 / 3, 2 / 3, 1.0]  # three steps of warm-up, seven of a cosine to a thousandth
    cosine += [0.001 + 0.999 * (1 + math.cos(math.pi * i / 7)) / 2 for i in range(7)]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: [*cosine, 0.0][step])
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        order = torch.randperm(85, generator=generator)
        for rows in order[:80].split(16):
            optimizer.zero_grad()
            model(*views(images.images[rows], generator))[0].backward()
            optimizer.step()
            schedule.step()
    for (key, w), v in zip(model.state_dict().items(), weights(run).values(), strict=True):
        torch.testing.assert_close(v, w, rtol=1e-4, atol=1e-5, msg=key)


def test_the_same_seed_gives_the_same_run_whatever_torch_was_seeded_with(tmp_path, images, whole):
    torch.manual_seed(1234)
    run = train(tmp_path / "run", images)
    assert equal(weights(run), weights(whole[0]))
    assert [m["loss"] for m in run.metrics] == [m["loss"] for m in whole[0].metrics]
    assert all(np.array_equal(c, whole[0].snapshots[step]) for step, c in run.snapshots.items())


def test_another_seed_gives_another_run(tmp_path, images, whole):
    run = train(tmp_path / "run", images, seed=1)
    other, same = run.load_model(weights=False), whole[0].load_model(weights=False)
    assert not equal(other.state_dict(), same.state_dict())
    assert run.metrics[0]["loss"] != whole[0].metrics[0]["loss"]


def test_global_random_states_are_left_alone(tmp_path, images):
    torch.manual_seed(7)
    np.random.seed(7)
    random.seed(7)
    train(tmp_path / "run", images, epochs=1).load_model()
    drawn = torch.rand(3), np.random.rand(3), random.random()
    torch.manual_seed(7)
    np.random.seed(7)
    random.seed(7)
    assert torch.equal(drawn[0], torch.rand(3))
    assert np.array_equal(drawn[1], np.random.rand(3))
    assert drawn[2] == random.random()


def test_a_run_gives_its_model_back(whole, images):
    run, _ = whole
    model = run.load_model()
    assert not any(m.training for m in model.modules())
    state = torch.load(run.path / "checkpoint.pt", weights_only=True)["model"]
    assert equal(model.state_dict(), state)
    again = be.load_run(run.path).load_model()
    x = run.views().normalize(images.images[:20])
    assert torch.equal(model.encode(x), again.encode(x))
    assert torch.equal(model.embed(x), again.embed(x))
    assert not torch.equal(model.encode(x), run.load_model(weights=False).encode(x))


# precision


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16", "auto"])
@pytest.mark.parametrize("channels_last", [True, False])
def test_every_precision_and_layout_runs(tmp_path, images, precision, channels_last):
    settings = {"precision": precision, "channels_last": channels_last, "epochs": 1}
    run = train(tmp_path / "run", images, **settings)
    told = run.environment["precision"]
    assert any(f"{name}," in told for name in ("bfloat16", "float16", "float32")) and (
        precision in told or precision == "auto"
    )
    assert ("channels last" in told) is channels_last
    assert all(v.dtype in (torch.float32, torch.int64) for v in weights(run).values())


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_the_encoder_computes_in_the_precision_asked_for(tmp_path, images, built, name):
    seen = set()

    def look(step, c):
        if step == 0:  # all forward passes after this one, training and watching
            built[0].encoder.body[3].register_forward_hook(lambda m, i, out: seen.add(out.dtype))

    run = train(tmp_path / "run", images, precision=name, on_snapshot=look)
    assert seen == {getattr(torch, name)}
    assert all(m["loss"] < 20 for m in run.metrics)


def test_bfloat16_is_close_to_float32(tmp_path, images, whole):
    run = train(tmp_path / "run", images, precision="bfloat16")
    assert run.metrics[0]["loss"] == pytest.approx(whole[0].metrics[0]["loss"], rel=0.05)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told(tmp_path, images):
    with pytest.raises(ValueError, match="device='cuda', but torch finds no GPU"):
        train(tmp_path / "run", images, device="cuda")
    assert not (tmp_path / "run").exists()


def test_auto_precision_says_why():
    chosen = Computer.choose(load_config(device="cpu"))
    assert (chosen.half is torch.bfloat16) is ("no fast bfloat16" not in chosen.precision)


# how it is computed


def test_a_step_waits_for_the_device_only_to_log(tmp_path, images, monkeypatch):
    """No tensor is turned into a number while a step is computed; metrics are, once, where they are logged."""
    reads, steps = [], []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is torch.ops.aten._local_scalar_dense.default:
                reads.append(len(steps))
            return function(*args, **(kwargs or {}))

    factor, stacked, stack = training.warmup_cosine, [], torch.stack

    def count_steps(step, *arguments):
        steps.append(step)
        return factor(step, *arguments)

    def count(tensors, *arguments):
        stacked.append(len(steps))
        return stack(tensors, *arguments)

    monkeypatch.setattr(training, "warmup_cosine", count_steps)
    monkeypatch.setattr(torch, "stack", count)
    train(tmp_path / "run", images, optimizer="sgd", log_every=4, snapshots=0)
    assert len(steps) == 10 and reads == []
    logged = [s for s in dict.fromkeys(stacked) if s in (1, 4, 8, 10)]
    assert logged == [1, 4, 8, 10]
    with Watch():
        torch.ones(1).item()  # would be seen
    assert reads == [10]


def test_compiled_training_is_the_same_up_to_rounding(tmp_path, images, whole, monkeypatch):
    """Through torch.compile's tracing; its code generation needs a compiler, and has tests of its own."""
    compiled, original = [], torch.compile

    def compile_without_code(model):
        compiled.append(model)
        return original(model, backend="aot_eager")

    monkeypatch.setattr(torch, "compile", compile_without_code)
    run = train(tmp_path / "run", images, compile=True, epochs=1)
    assert len(compiled) == 1
    for m, n in zip(run.metrics[:3], whole[0].metrics, strict=False):
        assert m["loss"] == pytest.approx(n["loss"], rel=1e-2)


def test_both_views_at_once_is_another_training(tmp_path, images, whole):
    """Batch norm's statistics are then those of both views."""
    run = train(tmp_path / "run", images, joint_views=True)
    first, other = run.metrics[0], whole[0].metrics[0]
    assert first["loss"] != other["loss"]
    assert first["loss"] == pytest.approx(other["loss"], rel=0.5)
    assert run.config["joint_views"] is True and run.load_model().config["joint_views"] is True


def test_dropout_follows_from_the_seed_and_the_step(tmp_path, images, monkeypatch):
    class Forgetful(TinyEncoder):
        def __init__(self):
            super().__init__()
            self.body.append(torch.nn.Dropout(0.5))

    monkeypatch.setitem(ENCODERS, "tiny", lambda stem, size: (Forgetful(), 12))
    runs = []
    for i in range(2):
        torch.manual_seed(i)
        runs.append(train(tmp_path / f"run{i}", images))
    assert equal(*map(weights, runs))


# interruptions


class Stop(Exception):
    pass


def stop_at(step, now, c):
    if now == step:
        signal.raise_signal(signal.SIGINT)


def interrupt_at(step, error=Stop):
    def on_snapshot(now, c):
        if now >= step:
            raise error

    return on_snapshot


THREE = {"epochs": 3, "snapshots": 16}  # a snapshot at every step or two


@pytest.fixture(scope="module")
def three(tmp_path_factory, images):
    """A run of three epochs that nothing interrupted."""
    return train(tmp_path_factory.mktemp("runs") / "three", images, **THREE)


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt])
@pytest.mark.parametrize("step", [8, 10, 15])
def test_a_resumed_run_ends_as_the_uninterrupted_one(tmp_path, images, three, step, error):
    """Stopped in the second or the third epoch, at its end or at the very last step."""
    options, whole, out = THREE, three, tmp_path / "stopped"
    with pytest.raises(error):
        train(out, images, on_snapshot=interrupt_at(step, error), **options)
    assert torch.load(out / "checkpoint.pt", weights_only=True)["step"] == (step - 1) // 5 * 5
    assert not (out / "encoder.safetensors").exists()
    run = train(out, images, resume=True, **options)
    assert equal(weights(run), weights(whole))
    assert [m["step"] for m in run.metrics] == [m["step"] for m in whole.metrics]
    assert [m["loss"] for m in run.metrics] == [m["loss"] for m in whole.metrics]
    assert sorted(run.snapshots) == sorted(whole.snapshots)
    assert all(np.array_equal(c, whole.snapshots[s]) for s, c in run.snapshots.items())
    assert not [p for p in out.rglob("*") if p.name.endswith(".part")]


@pytest.mark.parametrize(
    "settings",
    [{"optimizer": "sgd"}, {"optimizer": "lars", "lr": 0.5}, {"precision": "float16"}],
)
def test_every_optimizer_resumes(tmp_path, images, settings):
    whole = train(tmp_path / "whole", images, **settings)
    with pytest.raises(Stop):
        train(tmp_path / "run", images, on_snapshot=interrupt_at(10), **settings)
    run = train(tmp_path / "run", images, resume=True, **settings)
    assert equal(weights(run), weights(whole))


def test_minutes_of_all_attempts_are_added(tmp_path, images):
    out = tmp_path / "run"
    with pytest.raises(Stop):
        train(out, images, on_snapshot=interrupt_at(10))
    state = torch.load(out / "checkpoint.pt", weights_only=True)
    assert 0 < state["minutes"] < 30
    checkpoints.write_checkpoint(out, state | {"minutes": 90.0})
    assert 90 <= train(out, images, resume=True).environment["minutes"] < 120


def test_watching_and_saving_do_not_count_in_the_images_per_second(tmp_path, images, monkeypatch):
    """By a clock that moves when it is read, and by an hour while the caller looks at C."""
    clock = itertools.count()
    hours = []
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock) + 3600 * len(hours))
    run = train(tmp_path, images, on_snapshot=lambda step, c: hours.append(step))
    assert len(hours) == 4 and (run.history("images_per_second")[1] > 1).all()
    assert run.environment["minutes"] > 180


def test_a_finished_run_can_be_made_longer(tmp_path, images):
    train(tmp_path / "run", images, epochs=1)
    run = train(tmp_path / "run", images, resume=True, epochs=3)
    assert run.metrics[-1]["step"] == 15
    assert run.config["epochs"] == 3


def test_a_finished_run_cannot_be_made_shorter(tmp_path, images):
    before = train(tmp_path / "run", images)
    with pytest.raises(ValueError, match="done 10 steps, and epochs=1 are only 5. .* epochs=2 or"):
        train(tmp_path / "run", images, resume=True, epochs=1)
    assert be.load_run(tmp_path / "run").config["epochs"] == 2
    assert equal(weights(be.load_run(tmp_path / "run")), weights(before))


def test_resuming_a_finished_run_changes_nothing(tmp_path, images):
    first = train(tmp_path / "run", images)
    before = weights(first), first.metrics, first.snapshots.keys()
    again = train(tmp_path / "run", images, resume=True)
    assert equal(weights(again), before[0])
    assert again.metrics == before[1] and again.snapshots.keys() == before[2]


@pytest.mark.parametrize(("key", "value"), [("lr", 0.02), ("seed", 1), ("proj_dim", 9)])
def test_another_setting_is_refused_when_resuming(whole, images, key, value):
    with pytest.raises(ValueError, match=f"started with {key}={CONFIG.get(key, 0)}, not {value}"):
        train(whole[0].path, images, resume=True, **{key: value})


def test_what_changes_no_step_may_differ_when_resuming(tmp_path, images, whole):
    with pytest.raises(Stop):
        train(tmp_path, images, on_snapshot=interrupt_at(10))
    other = {"log_every": 1, "snapshots": 11, "checkpoint_every": 2, "name": "renamed"}
    run = train(tmp_path, images, resume=True, **other)
    assert equal(weights(run), weights(whole[0]))
    assert [m["step"] for m in run.metrics] == [1, 2, 4, 6, 7, 8, 9, 10]
    assert sorted(run.snapshots) == [0, 1, 4, 6, 8, 10] and run.config["log_every"] == 1


def test_the_order_of_an_epoch_is_kept_when_resuming_in_its_middle(tmp_path, images, monkeypatch):
    """Each image is seen once in the epoch, whether it is trained in one go or in three."""
    seen, load = [], be.ImageSet.load

    def note(images, rows):
        seen.append(rows.tolist())
        return load(images, rows)

    monkeypatch.setattr(be.ImageSet, "load", note)
    train(tmp_path / "whole", images, snapshots=11)
    whole, out = seen[1:], tmp_path / "run"  # the first is the batch to watch
    seen.clear()
    for step in (6, 8):
        stop = functools.partial(stop_at, step)
        with pytest.raises(KeyboardInterrupt, match=f"saved at step {step}"):
            train(out, images, resume="auto", snapshots=11, on_snapshot=stop)
    train(out, images, resume=True, snapshots=11)
    batches = [rows for rows in seen if len(rows) == 16]
    assert batches == whole and len({tuple(rows) for rows in batches}) == 10
    for epoch in (batches[:5], batches[5:]):
        assert len(set(sum(epoch, []))) == 80


def test_the_rate_ends_where_it_is_told_to(tmp_path, images):
    """The last step is one before the end of the cosine, as the first is none of the warm-up."""
    for final in (0.0, 0.5):
        rates = train(tmp_path / str(final), images, final_lr=final, log_every=1).history("lr")[1]
        cosine = [final + (1 - final) * (1 + math.cos(math.pi * i / 8)) / 2 for i in range(8)]
        np.testing.assert_allclose(rates, [0.005, 0.01, *(0.01 * x for x in cosine)], rtol=1e-4)


def test_nothing_to_resume_is_told_and_nothing_is_made(tmp_path, images):
    with pytest.raises(FileNotFoundError, match=r"Nothing to resume: .*checkpoint.pt is missing"):
        train(tmp_path / "run", images, resume=True)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_something_else_is_refused(tmp_path, images):
    content = {"weights": torch.zeros(1)}
    torch.save(content, tmp_path / "checkpoint.pt")  # by another program
    with pytest.raises(ValueError, match="is not a checkpoint of this version of .* Move it away"):
        train(tmp_path, images, resume=True)
    checkpoints.write_checkpoint(tmp_path, content | {"format": 1})  # by an older version
    with pytest.raises(ValueError, match="is not a checkpoint of this version"):
        train(tmp_path, images, resume=True)


@pytest.mark.parametrize(
    ("damage", "steps"),
    [
        (lambda content: content + b'{"step": 9, "lo', [1, 2, 4, 6, 8, 10]),
        (lambda content: content + bytes(4096), [1, 2, 4, 6, 8, 10]),
        (lambda content: bytes(100) + content[100:], [2, 4, 6, 8, 10]),
        (lambda content: None, [6, 8, 10]),
    ],
    ids=["a line cut in half", "zeros at the end", "zeros at the beginning", "no file"],
)
def test_damaged_metrics_do_not_stand_in_the_way(tmp_path, images, whole, caplog, damage, steps):
    """What a crash or a power cut leaves behind: the checkpoint is good, and the run goes on from it."""
    with pytest.raises(Stop):
        train(tmp_path, images, on_snapshot=interrupt_at(10))
    path = tmp_path / "metrics.jsonl"
    content = damage(path.read_bytes())
    path.write_bytes(content) if content else path.unlink()
    run = train(tmp_path, images, resume=True)
    losses = {m["step"]: m["loss"] for m in whole[0].metrics}
    assert [(m["step"], m["loss"]) for m in run.metrics] == [(s, losses[s]) for s in steps]
    assert equal(weights(run), weights(whole[0]))
    lost = "metrics.jsonl has lost lines: the run goes on from step 5 without them."
    assert (lost in caplog.text) is (len(steps) < 6)


def test_a_folder_that_is_renamed_while_training_is_told(tmp_path, images):
    def rename(step, c):
        if step == 4:
            (tmp_path / "run").rename(tmp_path / "renamed")

    with pytest.raises(
        FileNotFoundError, match="run is gone: somebody .* Give it its name back, and go on"
    ):
        train(tmp_path / "run", images, on_snapshot=rename)
    assert not (tmp_path / "run").exists()
    assert train(tmp_path / "renamed", images, resume=True).metrics[-1]["step"] == 10


def test_an_existing_run_is_not_overwritten(whole, images):
    run, _ = whole
    before = (run.path / "metrics.jsonl").read_bytes()
    with pytest.raises(FileExistsError, match="holds a run already. Give resume=True .--resume"):
        train(run.path, images)
    assert (run.path / "metrics.jsonl").read_bytes() == before


def test_without_out_the_next_free_folder_is_taken(tmp_path, images, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = [train(None, images, epochs=1) for _ in range(3)]
    assert [run.path.as_posix() for run in runs] == ["runs/tiny", "runs/tiny-2", "runs/tiny-3"]
    again = train(None, images, epochs=1, resume=True)
    assert again.path == runs[0].path


# divergence


def test_a_diverging_run_stops_with_the_last_good_checkpoint(tmp_path, images, built):
    def spoil(step, c):
        if step >= 8:
            next(built[0].parameters()).data.fill_(math.nan)

    with pytest.raises(TrainingDiverged) as caught:
        train(tmp_path / "run", images, on_snapshot=spoil, snapshots=100)
    told = str(caught.value)
    assert "The loss is nan at step 10" in told and "Try a lower lr (it is 0.01)" in told
    assert f"The last good checkpoint is {tmp_path / 'run' / 'checkpoint.pt'}" in told
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert state["step"] == 5
    assert all(torch.isfinite(v).all() for v in state["model"].values())
    # the rows before it are kept, and no line holds what is not a number
    assert [m["step"] for m in be.load_run(tmp_path / "run").metrics] == [1, 2, 4, 6, 8]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_huge_rate_is_noticed(tmp_path, images, optimizer):
    with pytest.raises(TrainingDiverged, match="The last good checkpoint is"):
        settings = {"lr": 1e12, "optimizer": optimizer, "weight_decay": 1.0, "warmup_epochs": 0}
        train(tmp_path / "run", images, epochs=4, **settings)


def test_weights_that_are_no_numbers_are_never_checkpointed(tmp_path, images, built):
    """Even where no loss was looked at since: they are looked at before they are kept."""

    def spoil(step, c):
        if step == 10:
            built[0].encoder.body[1].running_mean.fill_(math.inf)

    with pytest.raises(TrainingDiverged, match="no longer finite at step 10.*checkpoint is"):
        train(tmp_path / "run", images, on_snapshot=spoil)
    assert torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["step"] == 5


# settings that do not fit


def test_a_batch_larger_than_the_data_is_refused(tmp_path, images):
    with pytest.raises(ValueError, match="batch_size=86 is more than the 85 images there are"):
        train(tmp_path / "run", images, batch_size=86)
    assert not (tmp_path / "run").exists()


def test_a_batch_of_all_the_data_is_fine(tmp_path, images):
    assert train(tmp_path / "run", images, batch_size=85).metrics[-1]["step"] == 2


@pytest.mark.parametrize("bad", [{"learning_rate": 1}, {"augment": {"interpolation": "x"}}])
def test_a_wrong_setting_leaves_no_folder_behind(tmp_path, images, bad):
    with pytest.raises(ValueError):
        train(tmp_path / "run", images, **bad)
    assert not (tmp_path / "run").exists()


def test_an_image_set_can_be_named(tmp_path):
    settings = {"image_size": 32, "limit": 40, "epochs": 1}
    run = train(tmp_path / "run", "garments", **settings)
    assert run.environment["data"] == "garments"
    assert run.environment["images"] == 40
    with pytest.raises(ValueError, match="data must be one of garments.*got 'mnist'"):
        train(tmp_path / "other", "mnist")


def test_a_plan_looks_more_often_early():
    plan = Schedule.of(load_config(CONFIG, epochs=100, snapshots=24), 85)
    steps = sorted(plan.snapshots)
    assert (steps[0], steps[-1], plan.total) == (0, 500, 500)
    assert (np.diff(steps, 2) >= -1).all()  # the gaps grow
    assert plan.warmup == 2


# what is shown


def test_the_progress_bar_shows_both_parts_of_the_loss(tmp_path, images, capsys):
    pretrain(CONFIG, tmp_path / "run", images, epochs=1)
    told = capsys.readouterr()
    assert told.out == ""  # what is printed to the output belongs to the caller
    last = told.err.strip().split("\r")[-1]
    assert "5/5" in last and all(x in last for x in ("loss=", "invariance=", "redundancy=", "/s"))


def test_nothing_is_shown_without_progress(tmp_path, images, capsys):
    train(tmp_path / "run", images, epochs=1)
    told = capsys.readouterr()
    assert told.out + told.err == ""


def test_the_environment_file_is_json_with_a_date(whole):
    environment = json.loads((whole[0].path / "environment.json").read_text())
    year, month, day = map(int, environment["date"].split("-"))
    assert year >= 2024 and 1 <= month <= 12 and 1 <= day <= 31


@pytest.mark.parametrize("data", [torch.zeros(99, 3, 16, 16, dtype=torch.uint8), Path("garments")])
def test_what_is_no_image_set_is_told(tmp_path, data):
    with pytest.raises(ValueError, match="data must be an ImageSet, .* got a (Tensor|.*Path)"):
        train(tmp_path / "run", data)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def clock(monkeypatch):
    """Time passes by half a second whenever somebody looks at it; also the time itself."""
    now = [0.0]

    def look():
        now[0] += 0.5
        return now[0]

    monkeypatch.setattr(time, "perf_counter", look)
    return now


def test_by_the_clock_training_ends_when_the_time_is_over(tmp_path, images, clock):
    began = clock[0]
    run = pretrain(CONFIG, tmp_path, images, progress=False, minutes=1, log_every=1, final_lr=0.1)
    spent = [m["minutes"] for m in run.metrics]
    assert len(spent) > 20 and spent == sorted(spent)  # CONFIG alone has ten steps
    assert 60 <= clock[0] - began < 70 and 1 <= run.environment["minutes"] < 1.15
    assert run.metrics[0]["lr"] < 0.0075 < run.metrics[10]["lr"]  # warming up, and warm
    for before, m in zip(spent, run.metrics[1:], strict=False):
        share = min(1, max(0, (before - 0.05) / 0.95))
        rate = 0.01 * (0.1 + 0.9 * (1 + math.cos(math.pi * share)) / 2)
        assert m["lr"] == pytest.approx(rate, abs=5e-4) or before < 0.07
    # Each third of the snapshots' times, (i / 3)^2 of a minute, has one; the last is of the last step.
    assert len(run.snapshots) == 4 and max(run.snapshots) == run.metrics[-1]["step"]
    assert (tmp_path / "encoder.safetensors").exists()


def test_stopped_by_the_clock_a_run_has_the_time_left_that_it_had(tmp_path, images, clock):
    def stop(step, c):
        if step > 1:
            signal.raise_signal(signal.SIGINT)

    settings = dict(
        config=CONFIG, out=tmp_path, data=images, progress=False, minutes=1, snapshots=9
    )
    with pytest.raises(be.TrainingInterrupted, match=r"at step \d+, 0\.\d of 1 minutes left"):
        pretrain(**settings, on_snapshot=stop)
    before = clock[0]
    run = pretrain(**settings, resume=True)
    assert clock[0] - before < 62 and 1 <= run.environment["minutes"] < 1.15
    assert [m["step"] for m in run.metrics] == sorted({m["step"] for m in run.metrics})
