"""Checkers for notebook 08, pretraining."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from barlow_edu.optim import warmup_cosine
from barlow_edu.teaching.checks.base import NotRight, attempt, checker, compare

CHECKERS = ("run_length", "warmup_factor", "checkpoint")


@checker
def run_length(function: Callable[[int, int, int, float], tuple[int, float]]) -> None:
    """Check a function (images, batch_size, epochs, images_per_second) -> (steps, minutes)."""
    for images, n, epochs, rate in [(1000, 128, 6, 50.0), (50_000, 256, 40, 700.0)]:
        answer = attempt(function, images, n, epochs, rate)
        try:
            steps, minutes = answer
        except (TypeError, ValueError) as error:
            raise NotRight("Return two numbers: the steps of the run and its minutes.") from error
        right, full = images // n * epochs, math.ceil(images / n) * epochs
        compare(steps, right, _step_mistakes(images, n, epochs, full), "the number of steps")
        used = right * n / rate / 60
        compare(minutes, used, _minute_mistakes(images, n, epochs, rate), "the time in minutes")


def _step_mistakes(images: int, n: int, epochs: int, full: int) -> dict[str, float]:
    return {
        "You counted the scrap at the end of each epoch as a step. It is dropped: round down.": full,
        "These are the steps of one epoch. The run has several.": images // n,
        "A step is a whole batch: round down, each epoch on its own.": images / n * epochs,
        "You joined the epochs before dividing. Each epoch drops its own scrap.": images
        * epochs
        // n,
        "That is the number of images of an epoch. A step takes a whole batch.": images,
        "That is the number of epochs. Multiply it by the steps of an epoch.": epochs,
    }


def _minute_mistakes(images: int, n: int, epochs: int, rate: float) -> dict[str, float]:
    used = images // n * n * epochs
    return {
        "These are seconds. The question was for minutes.": used / rate,
        "These are hours.": used / rate / 3600,
        "You counted every image twice, once a view. The rate counts images, not views.": (
            2 * used / rate / 60
        ),
        "The images that are dropped cost no time: count steps × batch size.": (
            images * epochs / rate / 60
        ),
        "This is the time of one epoch.": used / epochs / rate / 60,
        "The rate is in images a second, not in steps a second.": used / n / rate / 60,
        "You multiplied by the rate. Divide by it: faster means shorter.": used * rate / 60,
    }


@checker
def warmup_factor(function: Callable[[int, int, int, float], float]) -> None:
    """Check a function (step, total, warmup, final) -> factor on the learning rate, steps counted from 0."""
    for total, warmup, final in [(20, 5, 0.1), (13, 0, 0.01)]:
        found = [attempt(function, step, total, warmup, final) for step in range(total)]
        try:
            answer = torch.tensor([float(x) for x in found], dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError) as error:
            raise NotRight("Return one number, the factor at that step.") from error
        right = [warmup_cosine(step, total, warmup, final) for step in range(total)]
        mistakes = {
            told: [_or_nan(f, step, total, warmup, final) for step in range(total)]
            for told, f in _SCHEDULE_MISTAKES.items()
        }
        compare(answer, right, mistakes, "the list of factors", tolerance=1e-6)


def _or_nan(f: Callable[..., float], *inputs: float) -> float:
    try:
        return f(*inputs)
    except ZeroDivisionError:
        return math.nan


def _half_cosine(x: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * x))


def _schedule(warm: Callable, cool: Callable) -> Callable[[int, int, int, float], float]:
    """A schedule of its two parts: warm(step, warmup), cool(progress of the second part, final)."""
    return lambda s, t, w, f: warm(s, w) if s < w else cool((s - w) / (t - w), f)


def _warm(s: int, w: int) -> float:
    return (s + 1) / w


def _cool(x: float, f: float) -> float:
    return f + (1 - f) * _half_cosine(x)


_SCHEDULE_MISTAKES: dict[str, Callable[[int, int, int, float], float]] = {
    "There is no warm-up: the factor starts at 1.": lambda s, t, w, f: _cool(s / t, f),
    "The first step has the factor 0 and is lost. Steps count from 0, so take (step + 1) / warmup.": (
        _schedule(lambda s, w: s / w, _cool)
    ),
    "Your cosine starts at step 0, so the factor jumps where the warm-up ends. Start it there: progress = "
    "(step − warmup) / (total − warmup).": (
        lambda s, t, w, f: _warm(s, w) if s < w else _cool(s / t, f)
    ),
    "Your progress is (step − warmup) / total: it never gets to 1, so the rate ends too high.": (
        lambda s, t, w, f: _warm(s, w) if s < w else _cool((s - w) / t, f)
    ),
    "You reach the final factor one step early. Divide by total − warmup, not by one less.": (
        lambda s, t, w, f: _warm(s, w) if s < w else _cool((s - w) / (t - w - 1), f)
    ),
    "The factor falls to 0. It should end at final: final + (1 − final) · half cosine.": (
        _schedule(_warm, lambda x, f: _half_cosine(x))
    ),
    "You added final on top, so the factor starts above 1. Shrink the rest: (1 − final) · half cosine.": (
        _schedule(_warm, lambda x, f: f + _half_cosine(x))
    ),
    "Your cosine goes down and comes up again: half a period is π, not 2π.": (
        _schedule(_warm, lambda x, f: _cool(2 * x, f))
    ),
    "The factor starts near 2 after the warm-up. Half of 1 + cos, so that it runs from 1 to 0.": (
        _schedule(_warm, lambda x, f: f + (1 - f) * 2 * _half_cosine(x))
    ),
    "Without the 1 the cosine goes below 0, and the rate with it: (1 + cos) / 2.": (
        _schedule(_warm, lambda x, f: f + (1 - f) * math.cos(math.pi * x))
    ),
    "It falls on a straight line. Wanted is half a cosine: slow, fast, slow.": (
        _schedule(_warm, lambda x, f: f + (1 - f) * (1 - x))
    ),
    "It rises again after the warm-up: your cosine stands upside down.": (
        _schedule(_warm, lambda x, f: f + (1 - f) * (1 - _half_cosine(x)))
    ),
}


@checker
def checkpoint(function: Callable[..., Mapping[str, Any]]) -> None:
    """Check a function (model, optimizer, generator, step) -> everything needed to go on, as a mapping.

    The keys are "model", "optimizer", "generator" and "step". Training goes on after the call; then a fresh
    process takes up what was kept, and must arrive at the same weights.
    """
    run = _Tiny()
    run.train(until=3)
    truth = copy.deepcopy(run)  # what an honest checkpoint would hold
    kept = attempt(function, run.model, run.optimizer, run.generator, run.step)
    if not isinstance(kept, Mapping):
        raise NotRight(f"Return a dictionary, not {type(kept).__name__}.")
    missing = [key for key in _LOST if key not in kept]
    if missing:
        raise NotRight(f"Your checkpoint has no {missing[0]!r}: {_LOST[missing[0]]}")
    _explain_objects(kept)
    run.train(until=6)
    _explain_contents(kept, truth, run)
    again = _Tiny()
    try:
        again.restore(kept)
    except Exception as error:
        raise NotRight(f"A fresh run could not take it up: {error}") from error
    again.train(until=6)
    if not again.same_weights(run):
        raise NotRight("The run can be taken up, but it arrives at other weights.")


_LOST = {
    "model": "the weights would start from the beginning.",
    "optimizer": "it remembers averages of past gradients. Without them the next steps differ.",
    "generator": "the next batches and views would be drawn anew.",
    "step": "the schedule would start with the warm-up again.",
}


class _Tiny:
    """A run of milliseconds: batch norm, AdamW, a schedule, random batches and noise as views."""

    def __init__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(8)
            self.model = nn.Sequential(
                nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)
            )
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.05)
        self.generator = torch.Generator().manual_seed(8)
        self.step = 0

    def train(self, until: int) -> None:
        """Train on up to that step."""
        data = torch.linspace(-1, 1, 64).reshape(16, 4)
        while self.step < until:
            x = data[torch.randperm(16, generator=self.generator)[:8]]
            x = x + 0.3 * torch.randn(x.shape, generator=self.generator)
            self.optimizer.param_groups[0]["lr"] = 0.05 * warmup_cosine(self.step, 6, 2)
            self.optimizer.zero_grad()
            (self.model(x) - x[:, :3]).square().mean().backward()
            self.optimizer.step()
            self.step += 1

    def restore(self, kept: Mapping[str, Any]) -> None:
        self.model.load_state_dict(kept["model"])
        self.optimizer.load_state_dict(kept["optimizer"])
        self.generator.set_state(kept["generator"])
        self.step = int(kept["step"])

    def same_weights(self, other: _Tiny) -> bool:
        return _equal(self.model.state_dict(), other.model.state_dict())


def _explain_objects(kept: Mapping[str, Any]) -> None:
    """Things themselves where their state should be."""
    for key, call in (("model", "state_dict"), ("optimizer", "state_dict")):
        if isinstance(kept[key], (nn.Module, torch.optim.Optimizer)):
            raise NotRight(
                f"You kept the {key} itself. It goes on changing, and a file of it needs this very code "
                f"to be opened: keep a copy of {key}.{call}()."
            )
        if not isinstance(kept[key], Mapping):
            raise NotRight(f"{key!r} should hold {key}.{call}(), got {type(kept[key]).__name__}.")
    if isinstance(kept["generator"], torch.Generator):
        raise NotRight("You kept the generator itself. It goes on drawing: keep its get_state().")
    if not isinstance(kept["generator"], Tensor):
        raise NotRight("'generator' should hold generator.get_state(), a tensor of bytes.")


def _explain_contents(kept: Mapping[str, Any], then: _Tiny, now: _Tiny) -> None:
    """What was kept against the truth at that step, ``then``, and after more training, ``now``."""
    for key in ("model", "optimizer"):
        found, right = kept[key], getattr(then, key).state_dict()
        if _equal(found, right):
            continue
        if _equal(found, getattr(now, key).state_dict()) or key == "optimizer":
            raise NotRight(
                f"state_dict() of the {key} holds the tensors themselves, not copies. Training went on and "
                "changed what you had kept. Use copy.deepcopy, or write it to a file at once."
            )
        raise NotRight(
            "Something of the model is missing or changed. state_dict() holds the running averages of "
            "batch norm too, parameters() does not."
        )
    if not torch.equal(kept["generator"], then.generator.get_state()):
        raise NotRight(
            "This is not the state that the generator is in. initial_seed() and a fresh generator know where it "
            "began, get_state() knows where it is."
        )
    if kept["step"] != then.step:
        raise NotRight(f"step should be {then.step}, the steps already made, got {kept['step']!r}.")


def _equal(a: Any, b: Any) -> bool:
    """Bit for bit, through nested mappings and lists."""
    if isinstance(b, Tensor):
        return isinstance(a, Tensor) and a.shape == b.shape and torch.equal(a, b)
    if isinstance(b, Mapping):
        return isinstance(a, Mapping) and set(a) == set(b) and all(_equal(a[k], b[k]) for k in b)
    if isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(_equal, a, b))
    return a == b
