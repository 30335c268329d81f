"""SimCLR, BYOL, VICReg and SimSiam: losses against loops and lightly's values, models, collapse."""

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import lightly_losses
from tiny import CONFIG, tiny_encoder, tiny_images
from torch import nn

import barlow_edu as be
from barlow_edu.config import build_model
from barlow_edu.evaluation.spectra import rankme
from barlow_edu.methods.ablations import AblatedBarlowTwins
from barlow_edu.methods.relatives import (
    METHODS,
    embedding_std,
    momentum,
    negative_cosine,
)
from barlow_edu.numerics import distributed
from barlow_edu.numerics.batchnorm import synchronize_batch_norm
from barlow_edu.scale.processes import run_processes

RELATIVES = ("simclr", "byol", "vicreg", "simsiam")


@pytest.fixture(autouse=True, scope="module")
def tiny():
    with tiny_encoder():
        yield


def pair(n=6, d=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z_a, noise = torch.randn(2, n, d, generator=generator, dtype=torch.float64)
    return 2 * z_a + 0.5, z_a + 0.3 * noise


# the losses, by the papers' formulas


def cosine(u, v):
    return sum(u * v) / math.sqrt(sum(u * u) * sum(v * v))


def simclr_by_loops(z_a, z_b, temperature):
    """Eq. 1 of Chen et al.: pairs (2k − 1, 2k) and (2k, 2k − 1), mean over all 2 N."""
    z = np.empty((2 * len(z_a), z_a.shape[1]))
    z[0::2], z[1::2] = z_a.numpy(), z_b.numpy()

    def loss(i, j):
        others = [math.exp(cosine(z[i], z[k]) / temperature) for k in range(len(z)) if k != i]
        return -math.log(math.exp(cosine(z[i], z[j]) / temperature) / sum(others))

    rows = range(0, len(z), 2)
    return sum(loss(k, k + 1) + loss(k + 1, k) for k in rows) / len(z)


def vicreg_by_loops(z_a, z_b):
    """Eq. 1 to 5 of Bardes et al., with the code's means; (invariance, variance, covariance)."""
    (n, d), z_a, z_b = z_a.shape, z_a.numpy(), z_b.numpy()
    invariance = sum((z_a[i, j] - z_b[i, j]) ** 2 for i in range(n) for j in range(d)) / (n * d)
    hinge, off = 0.0, 0.0
    for z in (z_a, z_b):
        mean = [sum(z[i, j] for i in range(n)) / n for j in range(d)]
        for j in range(d):
            variance = sum((z[i, j] - mean[j]) ** 2 for i in range(n)) / (n - 1)
            hinge += max(0.0, 1 - math.sqrt(variance + 1e-4)) / (2 * d)
            for k in set(range(d)) - {j}:
                products = ((z[i, j] - mean[j]) * (z[i, k] - mean[k]) for i in range(n))
                off += (sum(products) / (n - 1)) ** 2 / d
    return invariance, hinge, off


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(2, 1), (2, 5), (7, 3)])
def test_simclr_against_loops(shape, temperature):
    z_a, z_b = pair(*shape)
    expected = simclr_by_loops(z_a, z_b, temperature)
    assert be.simclr_loss(z_a, z_b, temperature).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("shape", [(2, 1), (3, 9), (9, 3), (5, 5)])
def test_vicreg_against_loops(shape):
    z_a, z_b = pair(*shape)
    z_a = 0.2 * z_a  # so that the hinge holds something
    terms = be.vicreg_loss(z_a, z_b)
    expected = vicreg_by_loops(z_a, z_b)
    assert [t.item() for t in terms[1:]] == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert terms.loss.item() == pytest.approx(np.dot([25, 25, 1], expected), rel=1e-9)
    assert be.vicreg_loss(z_a, z_b, 3, 2, 5).loss.item() == pytest.approx(
        np.dot([3, 2, 5], expected), rel=1e-9
    )


def test_byol_and_simsiam_against_loops():
    p, target = pair()
    cosines = [cosine(u, v) for u, v in zip(p.numpy(), target.numpy(), strict=True)]
    assert negative_cosine(p, target).item() == pytest.approx(-np.mean(cosines))
    # the paper's eq. 2: squared distance of the normalised vectors
    unit = [x.numpy() / np.linalg.norm(x.numpy(), axis=1, keepdims=True) for x in (p, target)]
    squares = ((unit[0] - unit[1]) ** 2).sum(1)
    assert be.byol_loss(p, target).item() == pytest.approx(squares.mean())


@pytest.mark.parametrize("shape", [(4, 3), (3, 5)])
@pytest.mark.parametrize(
    "loss", [be.simclr_loss, be.byol_loss, lambda a, b: be.vicreg_loss(a, b).loss]
)
def test_gradients_against_finite_differences(loss, shape):
    z_a, z_b = (0.3 * z.requires_grad_() for z in pair(*shape))
    assert torch.autograd.gradcheck(loss, (z_a, z_b))


@given(st.integers(2, 9), st.integers(1, 9), st.integers(0, 10_000), st.floats(0.05, 2))
@settings(max_examples=60, deadline=None)
def test_what_the_losses_do_not_see(n, d, seed, temperature):
    """The order of the images; for cosines the length of a vector; for VICReg a common shift of both views."""
    z_a, z_b = pair(n, d, seed)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    length = torch.linspace(0.5, 3, n, dtype=torch.float64)[:, None]
    simclr = be.simclr_loss(z_a, z_b, temperature)
    for a, b in ((z_b, z_a), (z_a[order], z_b[order]), (z_a * length, z_b)):
        torch.testing.assert_close(be.simclr_loss(a, b, temperature), simclr)
    assert 0 <= simclr <= math.log(2 * n - 1) + 2 / temperature
    byol = be.byol_loss(z_a, z_b)
    torch.testing.assert_close(be.byol_loss(z_a * length, z_b / length), byol)
    assert -1e-9 <= byol <= 4 + 1e-9
    vicreg = be.vicreg_loss(z_a, z_b)
    for a, b in ((z_b, z_a), (z_a[order], z_b[order]), (z_a + 7, z_b + 7)):
        for found, before in zip(be.vicreg_loss(a, b), vicreg, strict=True):
            torch.testing.assert_close(found, before, rtol=1e-6, atol=1e-9)
    assert all(term >= -1e-9 for term in vicreg)


def test_known_values():
    """Equal embeddings: SimCLR is at chance, log(2 N − 1); VICReg's variance term is at its highest."""
    same = torch.ones(5, 3, dtype=torch.float64)
    assert be.simclr_loss(same, same).item() == pytest.approx(math.log(9))
    terms = be.vicreg_loss(same, same)
    assert [t.item() for t in terms] == pytest.approx([25 * 0.99, 0, 0.99, 0])
    assert be.byol_loss(same, -same).item() == pytest.approx(4)
    assert embedding_std(same) == 0
    line = torch.tensor([[1.0, 0], [-1, 0]])
    assert embedding_std(line).item() == pytest.approx(math.sqrt(0.5))  # a line still looks alive
    assert rankme(line) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    z_a, z_b = (z.to(dtype) for z in pair(64, 32))
    losses = (be.simclr_loss, be.byol_loss, lambda a, b: be.vicreg_loss(a, b).loss)
    for loss in losses:
        with torch.autocast("cpu", dtype):
            found = loss(z_a, z_b)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, loss(z_a.float(), z_b.float()))


@pytest.mark.parametrize("loss", [be.simclr_loss, be.byol_loss, be.vicreg_loss])
@pytest.mark.parametrize(
    ("z_a", "z_b", "message"),
    [
        (torch.ones(3, 2), torch.ones(2, 2), r"same shape, got \(3, 2\) and \(2, 2\)"),
        (torch.ones(3, 2, 2), torch.ones(3, 2, 2), r"\(3, 2, 2\)"),
        (torch.ones(1, 2), torch.ones(1, 2), "two samples"),
        (torch.ones(3, 2).long(), torch.ones(3, 2).long(), "tensors, got torch.int64"),
    ],
)
def test_bad_embeddings_are_told(loss, z_a, z_b, message):
    with pytest.raises(ValueError, match=message):
        loss(z_a, z_b)


def test_bad_settings_are_told():
    with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
        be.simclr_loss(*pair(), temperature=0)
    with pytest.raises(ValueError, match="weight of covariance must be 0 or more, got -1"):
        be.vicreg_loss(*pair(), covariance=-1)


# lightly as an oracle: its values, kept by tests/helpers/oracles/lightly_losses.py, and live where it is installed


def ours(name, z_a, z_b, settings):
    if name == "simclr":
        return be.simclr_loss(z_a, z_b, settings["temperature"])
    if name == "vicreg":
        weights = (settings[key] for key in ("lambda_param", "mu_param", "nu_param"))
        return be.vicreg_loss(z_a, z_b, *weights).loss
    if name == "barlow_twins":  # by F.batch_norm, which adds to the variances
        return be.barlow_twins_loss(z_a, z_b, settings["lambda_param"], eps=1e-5).loss
    return negative_cosine(z_a, z_b)


def assert_same(case):
    z_a, z_b = (z.requires_grad_() for z in lightly_losses.embeddings(case))
    loss = ours(case["loss"], z_a, z_b, case["settings"])
    loss.backward()
    assert loss.item() == pytest.approx(case["value"], rel=1e-5)
    assert z_a.grad.norm().item() == pytest.approx(case["gradient_norm"], rel=1e-4)


KEPT = json.loads(
    (Path(__file__).parents[1] / "helpers" / "oracles" / "lightly_losses.json").read_text()
)


@pytest.mark.parametrize("case", KEPT["cases"], ids=lambda c: f"{c['loss']}-{c['seed']}")
def test_losses_are_lightlys_kept_values(case):
    assert_same(case)


def test_losses_are_lightlys_live():
    pytest.importorskip("lightly")
    for case in lightly_losses.measured():
        assert_same(case)


# the models


def model(method, **options):
    return build_model({**CONFIG, "seed": 0, "method": method, **options})


def views(n=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, noise = torch.randn(2, n, 3, 16, 16, generator=generator)
    return x, x + 0.5 * noise


def test_the_five_methods_have_their_names():
    assert tuple(METHODS) == ("barlow_twins", *RELATIVES)
    classes = (be.SimCLRModel, be.BYOLModel, be.VICRegModel, be.SimSiamModel)
    assert tuple(METHODS[name] for name in RELATIVES) == classes


@pytest.mark.parametrize("method", METHODS)
def test_all_have_the_same_call(method):
    net = model(method)
    assert net.method == method and net.encoder_dim == 12
    loss, metrics = net(*views())
    assert loss.ndim == 0 and loss.requires_grad
    shared = {"loss", "on_diag_loss", "off_diag_loss", "cross_corr_diag_mean"}
    assert shared <= set(metrics)
    assert all(m.ndim == 0 and not m.requires_grad for m in metrics.values())
    assert metrics["loss"] == loss
    loss.backward()
    assert all(p.grad is not None for p in net.parameters() if p.requires_grad)
    assert net.encode(views()[0]).shape == (16, 12)
    assert net.embed(views()[0]).shape == (16, 8)
    assert net.cross_correlation(*views()).shape == (8, 8)
    with pytest.raises(ValueError, match="differ in batch size: 16 and 15"):
        net(views()[0], views(15)[0])


@pytest.mark.parametrize("method", RELATIVES)
def test_all_start_from_the_same_encoder(method):
    theirs, own = model("barlow_twins").encoder.state_dict(), model(method).encoder.state_dict()
    assert all(torch.equal(theirs[key], own[key]) for key in theirs)


@pytest.mark.parametrize("method", RELATIVES)
def test_the_correlation_metrics_are_those_of_barlow_twins(method):
    net = model(method).train()
    twin = copy.deepcopy(net)
    _, metrics = net(*views())
    c = be.cross_correlation(*map(twin.embed, views()))
    torch.testing.assert_close(metrics["cross_corr_diag_mean"], c.diagonal().mean().detach())
    off = c.square().sum() - c.diagonal().square().sum()
    torch.testing.assert_close(metrics["off_diag_loss"], off.detach(), rtol=1e-4, atol=1e-5)


def by_hand(net, x1, x2):
    z1, z2 = net.embed(x1), net.embed(x2)
    if net.method == "simclr":
        return be.simclr_loss(z1, z2, net.config["temperature"])
    if net.method == "vicreg":
        return be.vicreg_loss(z1, z2).loss
    p1, p2 = net.predictor(z1), net.predictor(z2)
    if net.method == "simsiam":
        return (negative_cosine(p1, z2.detach()) + negative_cosine(p2, z1.detach())) / 2
    with torch.no_grad():
        t1, t2 = (net.teacher_projector(net.teacher_encoder(x)) for x in (x1, x2))
    return be.byol_loss(p1, t2) + be.byol_loss(p2, t1)


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("method", RELATIVES)
def test_models_equal_their_parts_put_together_by_hand(method, joint):
    net = model(method, temperature=0.3, joint_views=joint)
    net.eval()  # batch norm then does the same for views apart and joint
    twin = copy.deepcopy(net)
    loss, expected = net(*views())[0], by_hand(twin, *views())
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    for (name, p), q in zip(net.named_parameters(), twin.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-6, msg=name)


def test_heads_end_as_in_the_papers():
    last = {m: type(model(m).projector[-1]).__name__ for m in METHODS}
    assert last == {
        "barlow_twins": "BatchNorm1d",
        "simclr": "BatchNorm1d",
        "simsiam": "BatchNorm1d",
        "byol": "Linear",
        "vicreg": "Linear",
    }


@pytest.mark.parametrize(
    ("method", "options", "hidden"),
    [
        ("simsiam", {}, 2),  # a quarter of 8: a bottleneck
        ("simsiam", {"pred_hidden": 5}, 5),
        ("byol", {}, 8),
        ("byol", {"proj_hidden": 20}, 20),
        ("byol", {"proj_hidden": 20, "pred_hidden": 7}, 7),
    ],
)
def test_predictors_have_their_width(method, options, hidden):
    predictor = model(method, **options).predictor
    linear = [m for m in predictor if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [(8, hidden), (hidden, 8)]
    kinds = [type(m).__name__ for m in predictor]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU", "Linear"]


@pytest.mark.parametrize("method", ["simsiam", "byol"])
def test_no_gradient_flows_through_the_targets(method):
    """With a predictor that returns a constant the embeddings get no gradient, unless the targets let it through."""
    for stop, flows in ((True, False), (False, True)):
        net = model(method, stop_gradient=stop)
        nn.init.zeros_(net.predictor[-1].weight)
        nn.init.ones_(net.predictor[-1].bias)
        net(*views())[0].backward()
        moved = sum(float(p.grad.abs().sum()) for p in net.encoder.parameters())
        assert (moved > 1e-6) == flows


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0}, "temperature must be a number of at least 0.001, got 0"),
        ({"tau": 1}, "Unknown setting tau. Known: .*temperature"),
    ],
)
@pytest.mark.parametrize("method", RELATIVES)
def test_impossible_relatives_are_told(method, options, message):
    with pytest.raises(ValueError, match=message):
        METHODS[method]({"encoder": "tiny", "proj_dim": 8, "image_size": 16}, **options)


# BYOL's teacher


def test_the_teachers_momentum_rises_to_one_by_a_half_cosine():
    assert momentum(0.99, 0, 100) == pytest.approx(0.99)
    assert momentum(0.99, 50, 100) == pytest.approx(0.995)
    assert momentum(0.99, 100, 100) == momentum(0.99, 140, 100) == 1
    values = [momentum(0.9, k, 20) for k in range(21)]
    assert values == sorted(values)


def test_the_teacher_is_a_slow_average_without_gradient():
    net = model("byol", ema=0.9)
    start = copy.deepcopy(net)
    for a, b in zip(net.teacher_encoder.parameters(), net.encoder.parameters(), strict=True):
        assert torch.equal(a, b) and not a.requires_grad
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    for step, keep in ((1, 0.9), (2, 0.95)):  # the second is half way
        before = {k: v.clone() for k, v in net.named_parameters() if k.startswith("teacher_")}
        net(*views(seed=step))[0].backward()
        optimizer.step()
        net.after_step(step, 2)
        network = dict(net.named_parameters())
        for name, old in before.items():
            moved = keep * old + (1 - keep) * network[name.removeprefix("teacher_")]
            torch.testing.assert_close(network[name], moved, msg=name)
    assert not torch.equal(net.encoder.body[0].weight, start.encoder.body[0].weight)


@pytest.mark.parametrize("method", RELATIVES)
def test_a_resumed_run_ends_with_the_same_bits(method, tmp_path):
    """Stopped in the middle of an epoch; BYOL's teacher and its momentum go on too."""
    settings = {**CONFIG, "method": method, "checkpoint_every": 3, "ema": 0.9}
    images = tiny_images()
    whole = be.pretrain(settings, tmp_path / "whole", images, progress=False)

    class Enough(Exception):
        pass

    def stop(step, c):
        if step >= 4:
            raise Enough

    with pytest.raises(Enough):
        be.pretrain(settings, tmp_path / "two", images, progress=False, on_snapshot=stop)
    two = be.pretrain(settings, tmp_path / "two", images, progress=False, resume=True)
    states = [torch.load(r.path / "checkpoint.pt", weights_only=True) for r in (whole, two)]
    assert states[0]["step"] == states[1]["step"] == 10
    assert all(torch.equal(v, states[1]["model"][k]) for k, v in states[0]["model"].items())
    if method == "byol":
        assert any(k.startswith("teacher_encoder.") for k in states[0]["model"])
    same = ("loss", "embedding_std")
    assert [[m[k] for k in same] for m in whole.metrics] == [
        [m[k] for k in same] for m in two.metrics
    ]


def test_a_run_of_a_relative_is_read_again(tmp_path):
    run = be.pretrain(
        {**CONFIG, "method": "vicreg"}, tmp_path / "run", tiny_images(), progress=False
    )
    net = run.load_model()
    assert isinstance(net, be.VICRegModel)
    assert {"invariance", "variance", "covariance"} <= set(run.metrics[-1])
    assert math.isfinite(run.history("embedding_std")[1][-1])


# collapse


def after_training(method, seed, steps=200, lr=0.3, **options):
    """A small network on noisy mixtures of eight signals; (embedding_std, RankMe of z / |z|) at the end."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    mixing = torch.randn(8, 32, generator=generator)
    encoder = nn.Sequential(
        nn.Linear(32, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 16)
    )
    sizes = {"encoder": encoder, "encoder_dim": 16, "proj_dim": 16, "proj_layers": 2}
    net = METHODS[method](sizes, ema=0.9, **options)
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    for step in range(1, steps + 1):
        signals = torch.randn(128, 8, generator=generator) * 0.9 ** torch.arange(8) @ mixing
        twins = [signals + 4 * torch.randn(128, 32, generator=generator) for _ in range(2)]
        loss, _ = net(*twins)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        net.after_step(step, steps)
    with torch.no_grad():
        z = net.embed(twins[0])
    return embedding_std(z).item(), rankme(nn.functional.normalize(z))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("method", ["simsiam", "byol"])
def test_without_stop_gradient_or_predictor_the_embeddings_collapse(method, seed):
    """Onto a line or a point: of 16 dimensions fewer than 3 are left. With both, more than 4."""
    alive_std, alive = after_training(method, seed)
    assert alive > 4 and alive_std > 0.6
    for switched_off in ({"stop_gradient": False}, {"predictor": False}):
        std, rank = after_training(method, seed, **switched_off)
        assert rank < 3, switched_off
        if method == "byol":  # no batch norm at the end of its head: all the way to a point
            assert std < 0.1, switched_off


# several processes


def trained_together(cases):
    """Losses, metrics and weights after three steps of each model, every process with its rows of the batch."""
    results = {}
    for method, options in cases:
        encoder = nn.Sequential(nn.Conv2d(3, 4, 3, stride=3), nn.BatchNorm2d(4), nn.Flatten())
        shape = {"encoder": encoder, "encoder_dim": 36, "proj_dim": 6, "image_size": 9}
        kind = AblatedBarlowTwins if "ablate" in options else METHODS[method]
        torch.manual_seed(0)
        for p in encoder.parameters():
            nn.init.normal_(p, std=0.3)
        model = kind(**shape, **options).double()
        parallel = distributed.data_parallel(synchronize_batch_norm(model))
        weights = [p for p in model.parameters() if p.requires_grad]
        update, metrics = torch.optim.SGD(weights, 0.05), []
        for step in range(3):
            noise = torch.randn(2, 8, 3, 9, 9, generator=torch.Generator().manual_seed(step))
            views = (noise + noise[:1] + torch.arange(8.0).view(8, 1, 1, 1) / 4).double()
            own = (v.chunk(distributed.world_size())[distributed.rank()] for v in views)
            loss, seen = parallel(*own)
            update.zero_grad()
            loss.backward()
            update.step()
            model.after_step(step + 1, 3)
            metrics.append({k: v.item() for k, v in seen.items()})
        results[method, str(options)] = metrics, model.state_dict()
    return results


def test_two_processes_train_as_one():
    """Negatives, variances and covariances are those of all images; so are the weights, to the last digits."""
    cases = [*((m, {}) for m in METHODS), ("byol", {"joint_views": True, "ema": 0.9})]
    cases += [("barlow_twins", {"ablate": {"standardise": how}}) for how in ("none", "features")]
    one, several = trained_together(cases), run_processes(trained_together, 2, cases)
    for case, (metrics, weights) in one.items():
        for found in several:
            for step, expected in zip(found[case][0], metrics, strict=True):
                assert step == pytest.approx(expected, rel=1e-9, abs=1e-12), case
            for name, value in found[case][1].items():
                torch.testing.assert_close(value, weights[name], rtol=1e-9, atol=1e-11)
        assert metrics[2]["loss"] != metrics[0]["loss"]
