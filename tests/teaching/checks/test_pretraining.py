"""The checkers of notebook 10: right answers pass, and each known mistake gets its own diagnosis."""

import copy
import io
import math

import numpy as np
import pytest
import torch

from barlow_edu.teaching import checks
from barlow_edu.teaching.checks import pretraining


def length(images, n, epochs, rate):
    steps = images // n * epochs
    return steps, steps * n / rate / 60


def changed(steps=lambda s, *_: s, minutes=lambda m, *_: m):
    """The right answer with one of its parts spoiled."""

    def answer(images, n, epochs, rate):
        right = length(images, n, epochs, rate)
        given = images, n, epochs, rate
        return steps(right[0], *given), minutes(right[1], *given)

    return answer


RIGHT_LENGTH = {
    "floor": length,
    "numpy": lambda i, n, e, r: np.array([i // n * e, (i - i % n) * e / r / 60]),
    "a loop": lambda i, n, e, r: (
        len([k for _ in range(e) for k in range(0, i - n + 1, n)]),
        sum(n / r / 60 for _ in range(e) for _ in range(i // n)),
    ),
}
WRONG_LENGTH = {
    "counted the scrap": changed(lambda s, i, n, e, r: math.ceil(i / n) * e),
    "steps of one epoch": changed(lambda s, i, n, e, r: i // n),
    "round down, each epoch": changed(lambda s, i, n, e, r: i / n * e),
    "joined the epochs": changed(lambda s, i, n, e, r: i * e // n),
    "number of images": changed(lambda s, i, n, e, r: i),
    "number of epochs": changed(lambda s, i, n, e, r: e),
    "These are seconds": changed(minutes=lambda m, *_: 60 * m),
    "These are hours": changed(minutes=lambda m, *_: m / 60),
    "once a view": changed(minutes=lambda m, *_: 2 * m),
    "cost no time": changed(minutes=lambda m, i, n, e, r: i * e / r / 60),
    "time of one epoch": changed(minutes=lambda m, i, n, e, r: m / e),
    "not in steps a second": changed(minutes=lambda m, i, n, e, r: m / n),
    "Divide by it": changed(minutes=lambda m, i, n, e, r: m * r * r),
    "Return two numbers": lambda i, n, e, r: i // n * e,
    "returned nothing": lambda *_: None,
}


def half(x):
    return (1 + math.cos(math.pi * x)) / 2


def factor(step, total, warmup, final, warm=None, cool=None, progress=None):
    if step < warmup:
        return (warm or (lambda s: (s + 1) / warmup))(step)
    x = (progress or (lambda: (step - warmup) / (total - warmup)))()
    return (cool or (lambda x: final + (1 - final) * half(x)))(x)


def by_torch(step, total, warmup, final):
    """torch's own schedulers, stepped from the start."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total - warmup, eta_min=final)
    if step < warmup:
        return torch.tensor((step + 1.0) / warmup, dtype=torch.float64)
    for _ in range(step - warmup):
        optimizer.step()
        cosine.step()
    return optimizer.param_groups[0]["lr"]


RIGHT_FACTOR = {
    "formula": factor,
    "torch": by_torch,
    "sine": lambda s, t, w, f: (
        (s + 1) / w if s < w else 1 - (1 - f) * math.sin(math.pi / 2 * (s - w) / (t - w)) ** 2
    ),
}
WRONG_FACTOR = {
    "no warm-up": lambda s, t, w, f: factor(s, t, 0, f),
    "is lost": lambda s, t, w, f: factor(s, t, w, f, warm=lambda s: s / w),
    "starts at step 0": lambda s, t, w, f: factor(s, t, w, f, progress=lambda: s / t),
    "never gets to 1": lambda s, t, w, f: factor(s, t, w, f, progress=lambda: (s - w) / t),
    "one step early": lambda s, t, w, f: factor(s, t, w, f, progress=lambda: (s - w) / (t - w - 1)),
    "falls to 0": lambda s, t, w, f: factor(s, t, w, 0.0),
    "starts above 1": lambda s, t, w, f: factor(s, t, w, f, cool=lambda x: f + half(x)),
    "comes up again": lambda s, t, w, f: factor(
        s, t, w, f, cool=lambda x: f + (1 - f) * half(2 * x)
    ),
    "near 2": lambda s, t, w, f: factor(s, t, w, f, cool=lambda x: f + (1 - f) * 2 * half(x)),
    "below 0": lambda s, t, w, f: factor(
        s, t, w, f, cool=lambda x: f + (1 - f) * math.cos(math.pi * x)
    ),
    "straight line": lambda s, t, w, f: factor(s, t, w, f, cool=lambda x: 1 - (1 - f) * x),
    "upside down": lambda s, t, w, f: factor(
        s, t, w, f, cool=lambda x: f + (1 - f) * (1 - half(x))
    ),
    "ZeroDivisionError": lambda s, t, w, f: min((s + 1) / w, factor(s, t, w, f)),
    "one number": lambda s, t, w, f: [s, t],
    "values differ": lambda s, t, w, f: 0.9 * factor(s, t, w, f),
}


def keep(model, optimizer, generator, step):
    return {
        "model": copy.deepcopy(model.state_dict()),
        "optimizer": copy.deepcopy(optimizer.state_dict()),
        "generator": generator.get_state(),
        "step": step,
    }


def through_a_file(*run):
    file = io.BytesIO()
    torch.save(keep(*run), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def without(key):
    return lambda *run: {k: v for k, v in keep(*run).items() if k != key}


def instead(**what):
    return lambda *run: keep(*run) | {key: make(*run) for key, make in what.items()}


RIGHT_CHECKPOINT = {
    "deepcopy": keep,
    "file": through_a_file,
    "clones": lambda m, o, g, s: (
        keep(m, o, g, s)
        | {"model": {k: v.clone() for k, v in m.state_dict().items()}, "step": torch.tensor(s)}
    ),
    "more than needed": lambda *run: keep(*run) | {"epoch": 1},
}
WRONG_CHECKPOINT = {
    "no 'model'": without("model"),
    "averages of past gradients": without("optimizer"),
    "drawn anew": without("generator"),
    "warm-up again": without("step"),
    "kept the model itself": instead(model=lambda m, o, g, s: m),
    "kept the optimizer itself": instead(optimizer=lambda m, o, g, s: o),
    "goes on drawing": instead(generator=lambda m, o, g, s: g),
    "of the model holds the tensors": instead(model=lambda m, o, g, s: m.state_dict()),
    "of the optimizer holds the tensors": instead(optimizer=lambda m, o, g, s: o.state_dict()),
    "running averages": instead(
        model=lambda m, o, g, s: {k: v.detach().clone() for k, v in m.named_parameters()}
    ),
    "a tensor of bytes": instead(generator=lambda m, o, g, s: g.initial_seed()),
    "where it began": instead(
        generator=lambda m, o, g, s: torch.Generator().manual_seed(8).get_state()
    ),
    "steps already made, got 4": instead(step=lambda m, o, g, s: s + 1),
    "not list": lambda *run: list(keep(*run).values()),
    "should hold model.state_dict": instead(model=lambda m, o, g, s: list(m.parameters())),
    "raised": lambda m, o, g, s: m.keep(),
}


def on_a_line(share):
    """At the full rate, and for the last share of the run down to 0 on a line."""
    return lambda step, total: min(1, (total - step) / (share * total))


RIGHT_SCHEDULE = {
    "forty per cent": on_a_line(0.4),
    "a third": on_a_line(1 / 3),
    "half, with warm-up": lambda s, t: min((s + 1) / 5, on_a_line(0.5)(s, t)),
    "a late cosine": lambda s, t: 1.0 if s < t / 2 else half((s - t / 2) / (t / 2)),
    "a tensor": lambda s, t: torch.tensor(on_a_line(0.4)(s, t)),
}
WRONG_SCHEDULE = {
    "last steps are long": lambda s, t: 1.0,
    "at 1.33 times": lambda s, t: 1,
    "flat directions have a long way": lambda s, t: half(s / t),
    "stay at the full rate for longer": lambda s, t: 1 / (1 + s),
    "between 0 and 1": lambda s, t: 2 * on_a_line(0.4)(s, t),
    "With 60 steps": lambda s, t: on_a_line(0.4)(s, 100) if t == 100 else 0.0,
    "returned nothing": lambda s, t: None,
}
RIGHT = {
    "better_schedule": RIGHT_SCHEDULE,
    "run_length": RIGHT_LENGTH,
    "warmup_factor": RIGHT_FACTOR,
    "checkpoint": RIGHT_CHECKPOINT,
}
WRONG = {
    "better_schedule": WRONG_SCHEDULE,
    "run_length": WRONG_LENGTH,
    "warmup_factor": WRONG_FACTOR,
    "checkpoint": WRONG_CHECKPOINT,
}


def test_checking_draws_nothing_from_the_global_generator():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    checks.checkpoint(keep)
    assert torch.equal(torch.rand(4), expected)


def test_the_loss_to_be_expected_is_that_of_many_descents():
    """The mean over 20,000 descents with drawn noise, and no other formula."""
    factors = torch.linspace(1, 0.1, 30)
    generator = torch.Generator().manual_seed(0)
    h = torch.logspace(-2, 0, 20)
    w = torch.ones(20_000, 20)
    for factor in factors:
        w = w - factor * (h * w + 0.05 * torch.randn(w.shape, generator=generator))
    measured = (h * w.square()).sum(1).mean() / 2
    assert float(pretraining._left(factors)) == pytest.approx(float(measured), rel=0.02)
