"""Barlow Twins with one thing changed: each loss against plain loops, each model against what it should do."""

import math

import pytest
import torch
from torch import nn

import barlow_edu as be
from barlow_edu.config import build_model, load_config
from barlow_edu.methods.ablations import AblatedBarlowTwins, ablated_loss

LAMBD = 0.3


def twins(n=7, d=4):
    generator = torch.Generator().manual_seed(3)
    z = torch.randn(n, d, generator=generator)
    return z + 0.2, z + torch.randn(n, d, generator=generator)


def normalised(z, how):
    rows = [[float(v) for v in row] for row in z]
    n, d = len(rows), len(rows[0])
    if how in ("features", "both"):
        rows = [[v * math.sqrt(d / sum(w * w for w in row)) for v in row] for row in rows]
    if how in ("batch", "both"):
        for j in range(d):
            column = [row[j] for row in rows]
            mean = sum(column) / n
            sd = math.sqrt(sum((v - mean) ** 2 for v in column) / n)
            for row in rows:
                row[j] = (row[j] - mean) / sd
    return rows


def by_loops(z_a, z_b, how):
    """(invariance, redundancy) by the paper's formula, entry by entry."""
    a, b = normalised(z_a, how), normalised(z_b, how)
    n, d = len(a), len(a[0])
    on = off = 0.0
    for i in range(d):
        for j in range(d):
            c = sum(a[k][i] * b[k][j] for k in range(n)) / n
            if i == j:
                on += (1 - c) ** 2
            else:
                off += c**2
    return on, off


@pytest.mark.parametrize("how", ["batch", "both", "features", "none"])
def test_the_losses_are_the_formulas_by_loops(how):
    z_a, z_b = twins()
    on, off = by_loops(z_a, z_b, how)
    terms = ablated_loss(z_a, z_b, LAMBD, how)
    got = [terms.loss, terms.invariance, terms.redundancy]
    torch.testing.assert_close(torch.stack(got), torch.tensor([on + LAMBD * off, on, off]))
    assert float(ablated_loss(z_a, z_b, LAMBD, how, "invariance").loss) == pytest.approx(on, 1e-5)
    alone = ablated_loss(z_a, z_b, LAMBD, how, "redundancy").loss
    assert float(alone) == pytest.approx(LAMBD * off, 1e-5)


def model(**ablate):
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(12, 6))
    settings = {"encoder": encoder, "encoder_dim": 6, "proj_dim": 5, "proj_hidden": 8}
    return AblatedBarlowTwins(settings, ablate=ablate)


VIEWS = (torch.randn(16, 3, 2, 2), torch.randn(16, 3, 2, 2))


def test_with_nothing_changed_it_is_the_paper_s_model():
    ablated = model()
    plain = be.BarlowTwinsModel(
        {k: ablated.config[k] for k in ("encoder", "encoder_dim", "proj_dim", "proj_hidden")}
    )
    plain.load_state_dict(ablated.state_dict())
    assert torch.equal(plain(*VIEWS)[0], ablated(*VIEWS)[0])


def norms(net):
    return [m for m in net.projector if isinstance(m, nn.BatchNorm1d)]


def test_the_hidden_norms_go_and_the_last_one_stays():
    net = model(hidden_bn=False)
    [last] = norms(net)
    assert not last.affine
    linear = [m for m in net.projector if isinstance(m, nn.Linear)]
    assert [m.bias is not None for m in linear] == [True, True, False]


@pytest.mark.parametrize("how", ["both", "features", "none"])
def test_other_normalisations_take_the_last_norm_away(how):
    net = model(standardise=how)
    assert all(norm.affine for norm in norms(net)) and len(norms(net)) == 2
    loss, metrics = net(*VIEWS)
    assert torch.isfinite(loss) and set(metrics) >= {"loss", "on_diag_loss", "off_diag_loss"}


def test_a_stop_gradient_halves_the_ways_back():
    gradients = {}
    for stop in (False, True):
        net = model(stop_gradient=stop)
        view = VIEWS[1].clone().requires_grad_()
        net(VIEWS[0], view)[0].backward()
        gradients[stop] = view.grad
    assert gradients[True] is None and gradients[False].abs().sum() > 0


def test_the_predictor_stands_behind_the_first_view_alone():
    net = model(predictor=True)
    with torch.no_grad():
        z_a, z_b = net.embed(VIEWS[0]), net.embed(VIEWS[1])
        expected = be.barlow_twins_loss(net.predictor(z_a), z_b).loss
    torch.testing.assert_close(net(*VIEWS)[0].detach(), expected)


def test_a_configuration_builds_it():
    built = build_model(load_config(None, ablate={"terms": "invariance"}))
    assert isinstance(built, AblatedBarlowTwins) and built.ablate["terms"] == "invariance"
    assert type(build_model(load_config(None))) is be.BarlowTwinsModel


@pytest.mark.parametrize(
    "ablate, told",
    [
        ({"norm": 1}, "Unknown setting ablate.norm. Known: hidden_bn"),
        ({"terms": "none"}, "terms must be one of both, invariance, redundancy, got 'none'"),
        ({"predictor": 1}, "predictor must be one of True, False, got 1"),
        ([1], "ablate must be 'key: value' pairs"),
    ],
)
def test_what_cannot_be_is_named(ablate, told):
    with pytest.raises(ValueError, match=told):
        AblatedBarlowTwins(encoder="small_resnet", ablate=ablate)
    with pytest.raises(ValueError, match=told):
        load_config(None, ablate=ablate)


def test_it_is_for_barlow_twins():
    with pytest.raises(ValueError, match="ablate is for Barlow Twins"):
        load_config(None, method="simclr", ablate={"predictor": True})
