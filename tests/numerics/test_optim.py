"""LARS against its formula in numpy, the parameter groups, and the schedule against torch's."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from barlow_edu.numerics.optim import (
    LARS,
    OPTIMIZERS,
    build_optimizer,
    parameter_groups,
    set_learning_rate,
    warmup_cosine,
)

# LARS


def lars_by_hand(w, gradients, rates, decay, momentum, eta, adapt):
    """You et al. (2017), as the published code of Barlow Twins has it, in plain numpy."""
    v = np.zeros_like(w)
    for g, lr in zip(gradients, rates, strict=True):
        d = g + decay * w
        if adapt:
            w_norm, d_norm = math.sqrt((w**2).sum()), math.sqrt((d**2).sum())
            if w_norm > 0 and d_norm > 0:
                d = d * (eta * w_norm / d_norm)
        v = momentum * v + d
        w = w - lr * v
    return w


def lars_steps(start, gradients, rates, **options):
    w = nn.Parameter(torch.from_numpy(start.copy()))
    optimizer = LARS([w], lr=rates[0], **options)
    for g, lr in zip(gradients, rates, strict=True):
        optimizer.param_groups[0]["lr"] = lr
        w.grad = torch.from_numpy(g.copy())
        optimizer.step()
    return w.detach().numpy()


@pytest.mark.parametrize("adapt", [True, False])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("decay", [0.0, 1e-2])
def test_lars_follows_its_formula(adapt, momentum, decay):
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(4, 3)), rng.normal(size=(6, 4, 3))
    rates = [0.1, 0.5, 1.0, 0.7, 0.3, 0.1]  # as a schedule would change them
    options = dict(momentum=momentum, eta=0.02, adapt=adapt)
    expected = lars_by_hand(start, gradients, rates, decay, **options)
    found = lars_steps(start, gradients, rates, weight_decay=decay, **options)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)
    assert np.abs(expected - start).max() > 1e-3


@pytest.mark.parametrize("zero", ["weights", "gradients", "both"])
def test_lars_does_not_divide_by_zero_norms(zero):
    rng = np.random.default_rng(0)
    start = rng.normal(size=(4, 3)) * (zero == "gradients")
    gradients = rng.normal(size=(3, 4, 3))
    gradients[0] *= zero == "weights"
    options = dict(momentum=0.9, eta=0.02, adapt=True)
    found = lars_steps(start, gradients, [0.1] * 3, weight_decay=0.0, **options)
    expected = lars_by_hand(start, gradients, [0.1] * 3, 0.0, **options)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)


def test_lars_without_adaptation_is_sgd():
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(3, 2)) for _ in range(2))
    lars = LARS([ours], lr=0.1, weight_decay=0.01, momentum=0.9, adapt=False)
    sgd = torch.optim.SGD([theirs], lr=0.1, weight_decay=0.01, momentum=0.9)
    for _ in range(5):
        ours.grad = torch.randn(3, 2)
        theirs.grad = ours.grad.clone()
        lars.step()
        sgd.step()
    torch.testing.assert_close(ours, theirs)


@given(st.floats(1e-3, 1e3))
def test_the_size_of_the_gradient_does_not_matter_to_lars(scale):
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(4, 3)), rng.normal(size=(3, 4, 3))
    options = dict(weight_decay=0.0, momentum=0.9, eta=0.02, adapt=True)
    found = lars_steps(start, scale * gradients, [0.5] * 3, **options)
    np.testing.assert_allclose(found, lars_steps(start, gradients, [0.5] * 3, **options))


def test_lars_skips_what_has_no_gradient_and_calls_the_closure():
    used, unused = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = LARS([used, unused], lr=0.1, weight_decay=0.1)

    def closure():
        optimizer.zero_grad()
        loss = used.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 4
    assert (used < 1).all()
    assert (unused == 1).all() and unused not in optimizer.state


def test_lars_continues_from_its_state():
    torch.manual_seed(0)
    gradients = torch.randn(4, 3, 2)

    def run(w, optimizer, rows):
        for g in rows:
            w.grad = g.clone()
            optimizer.step()

    w1 = nn.Parameter(torch.ones(3, 2))
    first = LARS([w1], lr=0.1)
    run(w1, first, gradients[:2])
    w2 = nn.Parameter(w1.detach().clone())
    second = LARS([w2], lr=99.0)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    run(w1, first, gradients[2:])
    run(w2, second, gradients[2:])
    assert torch.equal(w1, w2)


# groups


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))


def test_groups_part_matrices_from_biases_and_norms():
    net = network()
    net[3].bias.requires_grad_(False)
    weights, others = parameter_groups(net, lr=1.0, bias_lr=0.5, weight_decay=0.1)
    assert [id(p) for p in weights["params"]] == [id(net[0].weight), id(net[3].weight)]
    assert [id(p) for p in others["params"]] == [id(p) for p in (net[0].bias, *net[1].parameters())]
    assert (weights["lr"], weights["weight_decay"]) == (1.0, 0.1)
    assert (others["lr"], others["weight_decay"]) == (0.5, 0.0)


def test_an_empty_group_is_left_out():
    assert len(parameter_groups(nn.Linear(2, 2, bias=False), 1.0, 1.0, 0.1)) == 1


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_decay_reaches_matrices_only(name):
    """With no gradient at all, decay is what moves a weight."""
    net = network()
    before = {k: p.detach().clone() for k, p in net.named_parameters()}
    optimizer = build_optimizer(name, net, lr=0.1, weight_decay=0.5)
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for key, p in net.named_parameters():
        shrunk = p.norm() < before[key].norm()
        assert shrunk if p.ndim > 1 else torch.equal(p, before[key]), key


@pytest.mark.parametrize(("name", "nesterov"), [("sgd", True), ("adamw", None)])
def test_sgd_and_adamw_are_torchs(name, nesterov):
    # float64: where a gradient is zero but for rounding, Adam would make a step of the rounding
    ours, theirs = network().double(), network().double()
    optimizer = build_optimizer(name, ours, lr=0.1, weight_decay=0.01, momentum=0.8)
    groups = [
        {"params": [p for p in theirs.parameters() if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in theirs.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    if name == "sgd":
        reference = torch.optim.SGD(groups, lr=0.1, momentum=0.8, nesterov=True)
    else:
        reference = torch.optim.AdamW(groups, lr=0.1)
    x = torch.randn(8, 1, 3, 3, dtype=torch.float64)
    for _ in range(3):
        for net, opt in ((ours, optimizer), (theirs, reference)):
            opt.zero_grad()
            net(x).square().mean().backward()
            opt.step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-9)  # fused kernels round differently


def test_lars_adapts_matrices_only():
    optimizer = build_optimizer("lars", network(), lr=0.2, weight_decay=1e-6, bias_lr=0.0048)
    assert isinstance(optimizer, LARS)
    told = [(g["adapt"], g["lr"], g["weight_decay"]) for g in optimizer.param_groups]
    assert told == [(True, 0.2, 1e-6), (False, 0.0048, 0.0)]  # the paper's exclusions, section 3
    assert {g["eta"] for g in optimizer.param_groups} == {0.001}


def test_a_schedule_of_lars_is_the_paper_s_recipe_by_hand():
    """Two rates, warm-up and cosine, decay and adaptation for matrices alone: every parameter, at every step."""
    net = network().double()
    rates = {"weights": 0.2, "others": 0.0048}  # the published code's
    optimizer = build_optimizer("lars", net, rates["weights"], 1e-2, rates["others"])
    start = {name: p.detach().numpy().copy() for name, p in net.named_parameters()}
    rng, gradients, factors = np.random.default_rng(0), {name: [] for name in start}, []
    for step in range(8):
        factors.append((step + 1) / 3 if step < 3 else _cosine((step - 3) / 5))
        assert set_learning_rate(optimizer, warmup_cosine(step, 8, 3)) == pytest.approx(
            rates["weights"] * factors[-1]
        )
        for name, p in net.named_parameters():
            gradients[name].append(rng.normal(size=p.shape))
            p.grad = torch.from_numpy(gradients[name][-1].copy())
        optimizer.step()
        for name, p in net.named_parameters():
            matrix = p.ndim > 1
            lr = rates["weights" if matrix else "others"]
            options = dict(momentum=0.9, eta=0.001, adapt=matrix)
            schedule, decay = [lr * f for f in factors], 1e-2 if matrix else 0.0
            expected = lars_by_hand(start[name], gradients[name], schedule, decay, **options)
            np.testing.assert_allclose(p.detach(), expected, rtol=0, atol=1e-12, err_msg=name)


def _cosine(progress):
    return 0.001 + 0.999 * (1 + math.cos(math.pi * progress)) / 2


def test_sgd_without_momentum_is_plain():
    [group, _] = build_optimizer("sgd", network(), lr=0.1, momentum=0.0).param_groups
    assert (group["momentum"], group["nesterov"]) == (0.0, False)


def test_an_unknown_optimizer_is_told():
    with pytest.raises(ValueError, match="No optimizer 'adam'. Choose one of adamw, sgd, lars"):
        build_optimizer("adam", network(), lr=0.1)


# the schedule


def test_the_schedule_is_torchs_cosine_after_a_linear_warm_up():
    total, warmup, lr = 50, 10, 0.3
    reference = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(
        reference, total - warmup, eta_min=lr / 1000
    )
    for step in range(warmup, total + 1):
        assert warmup_cosine(step, total, warmup) * lr == pytest.approx(cosine.get_last_lr()[0])
        reference.step()
        cosine.step()
    rising = [warmup_cosine(step, total, warmup) for step in range(warmup)]
    np.testing.assert_allclose(rising, np.arange(1, 11) / 10)


@given(st.integers(1, 300), st.integers(0, 100), st.floats(0, 1))
def test_the_schedule_rises_then_falls_between_its_ends(total, warmup, final):
    warmup = min(warmup, total)
    factors = [warmup_cosine(step, total, warmup, final) for step in range(total + 1)]
    rise, fall = np.diff(factors[: warmup + 1]), np.diff(factors[warmup:])
    assert (rise >= 0).all() and (fall <= 1e-12).all()
    assert all(0 <= f <= 1 + 1e-12 for f in factors)
    assert factors[0] > 0
    assert factors[total] == pytest.approx(final if warmup < total else 1.0)


def test_the_schedule_starts_full_without_warm_up_and_ends_at_a_thousandth():
    assert warmup_cosine(0, 100, 0) == 1
    assert warmup_cosine(50, 100, 0, final=0.0) == pytest.approx(0.5)
    assert warmup_cosine(100, 100, 10) == pytest.approx(0.001)
    assert warmup_cosine(200, 100, 10) == pytest.approx(0.001)  # and stays there


@pytest.mark.parametrize("warmup", [0, 1, 10])
def test_the_schedule_is_lightlys(warmup):
    scheduler = pytest.importorskip("lightly.utils.scheduler")
    for step in range(101):  # theirs is at its end a step earlier
        theirs = scheduler.cosine_warmup_schedule(step, 101, 1.0, 0.001, warmup, 0.0)
        assert warmup_cosine(step, 100, warmup) == pytest.approx(theirs)


def test_the_rate_is_set_from_the_base_not_from_the_last():
    optimizer = build_optimizer("adamw", network(), lr=0.2, bias_lr=0.1)
    for factor in (0.5, 0.25):
        assert set_learning_rate(optimizer, factor) == 0.2 * factor
        assert [g["lr"] for g in optimizer.param_groups] == [0.2 * factor, 0.1 * factor]
