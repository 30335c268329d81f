"""Every setting changes the run or its record: a training of four steps, with the setting and without."""

import functools
import itertools
import json

import pytest
import torch
from tiny import CONFIG, TinyEncoder, tiny_encoder, write_tree
from torch import nn

import barlow_edu as be
from barlow_edu import training
from barlow_edu.config import SETTINGS
from barlow_edu.models import ENCODERS
from barlow_edu.state import TrainingState

BASE = CONFIG | {"data": "folder", "epochs": 1, "log_every": 1, "snapshots": 3, "probe_size": 16}
STREAM = {"stream": True, "workers": 0}
W, M, S = "weights", "metrics", "snapshots"
TRAINED = {W, M, S}
# setting: (another value, the settings that it needs, what differs for it, and nothing else).
CHANGES = {
    "name": ("other", {}, {"folder"}),
    "method": ("simclr", {}, TRAINED),
    "seed": (1, {}, TRAINED),
    "data": ("garments", {"limit": 64}, TRAINED | {"environment"}),
    "root": (5, {}, TRAINED),
    "limit": (32, {}, TRAINED | {"environment", "checkpoints", "calls"}),
    "stream": (True, {"workers": 0}, {"images"}),  # the same training
    "pipeline": ("per_image", STREAM, TRAINED | {"images"}),
    "canvas": (10, STREAM, TRAINED | {"images"}),
    "workers": (1, STREAM, {"images"}),
    "views": ("shortcut", {}, TRAINED),
    "augment": ({"scale": [0.9, 1]}, {}, TRAINED),
    "encoder": ("narrow_resnet", {}, TRAINED | {"calls"}),
    "stem": ("imagenet", {"encoder": "narrow_resnet"}, TRAINED),
    "image_size": (12, {}, TRAINED),
    "proj_dim": (7, {}, TRAINED),
    "proj_hidden": (9, {}, TRAINED),
    "proj_layers": (2, {}, TRAINED),
    "joint_views": (True, {}, TRAINED | {"calls"}),
    "lambd": (0.1, {}, TRAINED),
    "form": ("gram", {}, set()),  # but for rounding: see below
    "eps": (0.1, {}, TRAINED),
    "ablate": ({"terms": "invariance"}, {}, TRAINED),
    "temperature": (1.0, {"method": "simclr"}, TRAINED),
    "predictor": (False, {"method": "simsiam"}, TRAINED),
    "pred_hidden": (5, {"method": "simsiam"}, TRAINED),
    "stop_gradient": (False, {"method": "simsiam"}, TRAINED),
    "ema": (0.0, {"method": "byol"}, TRAINED),
    "invariance_weight": (1.0, {"method": "vicreg"}, TRAINED),
    "variance_weight": (1.0, {"method": "vicreg"}, TRAINED),
    "covariance_weight": (9.0, {"method": "vicreg"}, TRAINED),
    "batch_size": (8, {}, TRAINED | {"checkpoints", "calls"}),
    "epochs": (2, {}, TRAINED | {"checkpoints", "calls"}),
    "minutes": (0.05, {}, TRAINED | {"checkpoints", "calls"}),  # hundreds of steps
    "optimizer": ("sgd", {}, TRAINED),
    "lr": (0.1, {}, TRAINED),
    "bias_lr": (0.1, {}, TRAINED),
    "weight_decay": (1.0, {}, TRAINED),
    "momentum": (0.1, {"optimizer": "sgd"}, TRAINED),
    "warmup_epochs": (0.9, {}, TRAINED),
    "warmup_offset": (0, {}, TRAINED),
    "final_lr": (0.9, {}, TRAINED),
    "reference_processes": (16, {"optimizer": "sgd"}, TRAINED),
    "precision": ("bfloat16", {}, TRAINED | {"environment"}),
    "channels_last": (False, {}, {"environment"}),
    "compile": (True, {}, {"compiled"}),
    "checkpoint_activations": (True, {}, {"calls"}),
    "micro_batch": (4, {"encoder": "plain", "optimizer": "sgd"}, {"calls"}),
    "checkpoint_every": (1, {}, {"checkpoints"}),
    "log_every": (3, {}, {M}),
    "snapshots": (2, {}, {S, "calls"}),
    "snapshot_dims": (5, {}, {S}),
    "probe_size": (20, {}, {S, "calls"}),
    "probe_split": ("test", {}, {S, "calls"}),  # there are eight
}
# These change nothing that a run shows on a machine without a GPU; each is refused where it does not fit.
REFUSED = {
    "device": ("cuda:99", "device='cuda:99', but torch finds"),  # else: numerics/test_devices.py
    "encoder_dim": (13, "encoder_dim=13 does not match tiny, whose features have 12"),
}
MAY_ROUND = {"form", "micro_batch", "channels_last"}


class Counted(nn.Module):
    """An encoder that writes down how many images it sees at a time."""

    sizes: list[int] = []

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        self.sizes.append(len(x))
        return self.body(x)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """run(name=value, ...) -> what that training did and left, computed once."""
    folder, count = tmp_path_factory.mktemp("settings"), itertools.count()
    roots = {seed: write_tree(folder / f"tree{seed}", 64, 8, seed) for seed in (0, 5)}

    @functools.cache
    def run(changes):
        settings = BASE | {"root": 0} | json.loads(changes)
        root = str(roots[settings["root"]])
        settings["root"] = root if settings["data"] == "folder" else None
        return observe(settings, folder / str(next(count)))

    with tiny_encoder(), pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENCODERS, "tiny", lambda stem, size: (Counted(TinyEncoder()), 12))
        patch.setitem(ENCODERS, "plain", lambda stem, size: (Counted(plain()), 12))
        yield lambda settings: run(json.dumps(settings))


def plain():
    """An encoder without batch norm."""
    return nn.Sequential(nn.Conv2d(3, 12, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def observe(settings, folder):
    """Train, and look at everything that a setting may change."""
    seen = {"checkpoints": [], "compiled": [], "images": None}
    save, images_for = TrainingState.save, training.images_for

    def look(config, images=None):
        images = images_for(config)
        stream = [getattr(images, k, None) for k in ("mode", "canvas", "workers")]
        seen["images"] = [type(images).__name__, *stream]
        return images

    def note(state, where):
        seen["checkpoints"].append(state.step)
        save(state, where)

    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "images_for", look)
        patch.setattr(TrainingState, "save", note)
        patch.setattr(torch, "compile", lambda model: seen["compiled"].append(1) or model)
        patch.setattr(Counted, "sizes", [])
        patch.chdir(folder)
        run = be.pretrain(settings, progress=False)
        model = run.load_model()
        return seen | {
            "folder": run.path.name,
            "weights": model.encoder.state_dict() | model.projector.state_dict(prefix="p."),
            "metrics": [{k: v for k, v in m.items() if "second" not in k} for m in run.metrics],
            "snapshots": {step: torch.from_numpy(c) for step, c in run.snapshots.items()},
            "environment": [run.environment[k] for k in ("precision", "data", "images")],
            "calls": Counted.sizes,
        }


def differs(a, b, close):
    """Whether two observations differ; close: by more than the order of additions explains."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() != b.keys() or any(differs(a[k], b[k], close) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) != len(b) or any(differs(x, y, close) for x, y in zip(a, b, strict=True))
    if isinstance(a, torch.Tensor):
        same = torch.allclose if close and a.is_floating_point() else torch.equal
        tolerance = {"rtol": 1e-2, "atol": 1e-3} if same is torch.allclose else {}
        return a.shape != b.shape or not same(a, b, **tolerance)
    return a != (pytest.approx(b, rel=1e-3) if close and isinstance(b, float) else b)


def test_every_setting_is_looked_at():
    assert set(CHANGES) | set(REFUSED) == set(SETTINGS)
    assert not set(CHANGES) & set(REFUSED)


@pytest.mark.parametrize("name", CHANGES)
def test_a_setting_changes_the_run_or_its_record_and_nothing_else(runs, name):
    value, needs, expected = CHANGES[name]
    without, with_it = runs(needs), runs(needs | {name: value})
    assert value != (BASE | needs).get(name, SETTINGS[name].default)
    changed = {key for key in without if differs(without[key], with_it[key], name in MAY_ROUND)}
    assert changed == expected


def test_the_form_of_the_loss_shows_in_the_last_bits_alone(runs):
    """Beyond them it changes nothing, as is tested above."""
    assert differs(runs({})["weights"], runs({"form": "gram"})["weights"], close=False)


def test_what_modules_draw_follows_the_seed_and_differs_at_every_step(runs, monkeypatch, tmp_path):
    masks = []

    class Noisy(TinyEncoder):
        def forward(self, x):
            if self.training:
                masks.append(nn.functional.dropout(torch.ones(64), 0.5))
            return super().forward(x)

    monkeypatch.setitem(ENCODERS, "tiny", lambda stem, size: (Noisy(), 12))
    settings = BASE | {"data": "garments", "limit": 64, "image_size": 32, "joint_views": True}
    drawn = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        masks.clear()
        be.pretrain(settings, tmp_path / name, seed=seed, snapshots=0, progress=False)
        drawn[name] = [tuple(mask.tolist()) for mask in masks]
    assert drawn["a"] == drawn["b"] and len(set(drawn["a"] + drawn["c"])) == 8


@pytest.mark.parametrize("name", REFUSED)
def test_a_setting_that_does_not_fit_the_machine_or_the_model_is_refused(runs, name):
    value, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        runs({name: value})
