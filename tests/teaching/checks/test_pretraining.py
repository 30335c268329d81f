"""The checkers of notebook 10: right answers pass, and each known mistake gets its own diagnosis."""

import copy
import io
import math

import numpy as np
import torch

from barlow_edu.teaching import checks


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

RIGHT = {
    "run_length": RIGHT_LENGTH,
    "warmup_factor": RIGHT_FACTOR,
    "checkpoint": RIGHT_CHECKPOINT,
}
WRONG = {
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
