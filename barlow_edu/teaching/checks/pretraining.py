"""Checkers for notebook 10, pretraining."""

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from barlow_edu.numerics.optim import warmup_cosine
from barlow_edu.teaching.checks.base import NotRight, attempt, checker, equal, judge, numbers, tell


def _minutes(images: int, n: int, epochs: int, rate: float, unit: float = 60) -> float:
    return images // n * epochs * n / rate / unit


@checker
def run_length(function: Callable[[int, int, int, float], tuple[int, float]]) -> None:
    """Check a function (images, batch_size, epochs, images_per_second) -> (steps, minutes)."""
    worlds = [(1000, 128, 6, 50.0), (50_000, 256, 40, 700.0)]  # neither is full batches alone

    def part(k: int) -> Callable:
        names = "two numbers: the steps of the run and its minutes"
        return lambda answer, *_: numbers(answer, names, 2)[k]

    judge(function, worlds, lambda i, n, e, r: i // n * e, {
        "You counted the scrap at the end of each epoch. Round down.": lambda i, n, e, r: math.ceil(i / n) * e,
        "These are the steps of one epoch. The run has several.": lambda i, n, e, r: i // n,
        "A step is a whole batch: round down, each epoch on its own.": lambda i, n, e, r: i / n * e,
        "You joined the epochs before dividing. Each epoch drops its own scrap.": lambda i, n, e, r: i * e // n,
        "That is the number of images of an epoch. A step takes a whole batch.": lambda i, n, e, r: i,
        "That is the number of epochs. Multiply it by the steps of an epoch.": lambda i, n, e, r: e,
    }, "the number of steps", look=part(0))  # fmt: skip
    judge(function, worlds, _minutes, {
        "These are seconds. Minutes are asked for.": {"unit": 1},
        "These are hours. Minutes are asked for.": {"unit": 3600},
        "You counted every image twice, once a view. The rate counts images, not views.": {"unit": 30},
        "The images that are dropped cost no time: count steps × batch size.": lambda i, n, e, r: i * e / r / 60,
        "This is the time of one epoch.": {"epochs": 1},
        "The rate is in images a second, not in steps a second.": lambda i, n, e, r: _minutes(i, n, e, r) / n,
        "You multiplied by the rate. Divide by it: fast is short.": lambda i, n, e, r: _minutes(i, n, e, r) * r**2,
    }, "the time in minutes", look=part(1))  # fmt: skip


def _half(x: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * x))


def _factors(total, warmup, final, early=1, x=lambda s, t, w: (s - w) / (t - w), fall=_half, top=1):
    """(step + early) / warmup, then from ``top`` to ``final`` as ``fall`` says of the progress x, 0 to 1."""
    warm = [(step + early) / warmup for step in range(warmup)]
    cool = [fall(x(step, total, warmup)) for step in range(warmup, total)]
    return warm + [final + (top - final) * share for share in cool]


@checker
def warmup_factor(function: Callable[[int, int, int, float], float]) -> None:
    """Check a function (step, total, warmup, final) -> factor on the learning rate, steps counted from 0."""

    def every_step(total: int, *rest: float) -> list[float]:
        return [attempt(function, step, total, *rest) for step in range(total)]

    def listed(factors: list, total: int, *_) -> Tensor:
        return numbers(factors, "one number, the factor at that step", total)

    worlds = [(20, 5, 0.1), (13, 0, 0.01)]  # and no warm-up, by which one cannot divide
    judge(every_step, worlds, _factors, {
        "There is no warm-up: the factor starts at 1.": {"warmup": 0},
        "The first step has the factor 0 and is lost. Steps count from 0, so take (step + 1) / warmup.": {"early": 0},
        "Your cosine starts at step 0, not after the warm-up: the factor jumps.": {"x": lambda s, t, w: s / t},
        "Your progress is (step − warmup) / total: it never gets to 1.": {"x": lambda s, t, w: (s - w) / t},
        "You get to final one step early: divide by total − warmup.": {"x": lambda s, t, w: (s - w) / (t - w - 1)},
        "The factor falls to 0. It should end at final: final + (1 − final) · half cosine.": {"final": 0},
        "You added final, so that it starts above 1: shrink the rest.": lambda t, w, f: _factors(t, w, f, top=1 + f),
        "Your cosine goes down and comes up again: half a period is π, not 2π.": {"fall": lambda x: _half(2 * x)},
        "The factor starts near 2 after the warm-up. Take half of 1 + cos.": {"fall": lambda x: 2 * _half(x)},
        "Without the 1 the rate goes below 0: it is (1 + cos) / 2.": {"fall": lambda x: math.cos(math.pi * x)},
        "It falls on a straight line. Half a cosine is wanted: slow, fast, slow.": {"fall": lambda x: 1 - x},
        "It rises again after the warm-up: your cosine stands upside down.": {"fall": lambda x: _half(1 - x)},
    }, "the list of factors", 1e-6, look=listed)  # fmt: skip


@checker
def better_schedule(function: Callable[[int, int], float]) -> None:
    """Check a schedule (step, total) -> factor, 0 to 1: it must beat half a cosine in a noisy valley.

    The valley has twenty directions of curvature 0.01 to 1, SGD goes down it at rate 1, and every gradient has
    noise of 0.05. The loss that is to be expected at the end is computed, not drawn.
    """
    for total in (100, 60):
        factors = [attempt(function, step, total) for step in range(total)]
        factors = numbers(factors, "one number, the factor at that step", total)
        cosine = torch.tensor([warmup_cosine(s, total, total // 10) for s in range(total)])
        inside = bool(((factors >= 0) & (factors <= 1)).all())
        ratio = float(_left(factors) / _left(cosine)) if inside else 2.0
        part = f"With {total} steps yours ends at {ratio:.2f} times the loss of half a cosine; 0.9 is wanted. "
        late = ratio > 0.9 and factors[-5:].mean() > 0.3
        tell({
            "A factor lies between 0 and 1, at every step.": not inside,
            part + "Its last steps are long, so the noise of the gradients stays in the weights.": late,
            part + "The flat directions have a long way to go: stay at the full rate for longer.": ratio > 0.9,
        })  # fmt: skip


def _left(factors: Tensor) -> Tensor:
    """The loss to be expected after SGD with these factors: E[w²] follows (1 − ηh)² E[w²] + η² noise²."""
    h = torch.logspace(-2, 0, 20, dtype=torch.float64)
    squares = torch.ones_like(h)
    for rate in factors.double():
        squares = (1 - rate * h) ** 2 * squares + (0.05 * rate) ** 2
    return (h * squares).sum() / 2


@checker
def checkpoint(function: Callable[..., Mapping[str, Any]]) -> None:
    """Check a function (model, optimizer, generator, step) -> everything needed to go on, as a mapping.

    The keys are "model", "optimizer", "generator" and "step". Training goes on after the call; then a fresh
    process takes up what was kept, and must arrive at the same weights.
    """
    for steps in (3, 5):
        run = _Tiny()
        run.train(until=steps)
        truth = copy.deepcopy(run)  # what an honest checkpoint would hold
        state = attempt(function, run.model, run.optimizer, run.generator, run.step)
        tell({f"Return a dictionary, not {type(state).__name__}.": not isinstance(state, Mapping)})
        tell({f"Your checkpoint has no {k!r}: {why}": k not in state for k, why in _LOST.items()})
        run.train(until=steps + 3)
        _explain(state, truth, run)
        again = _Tiny()
        try:
            again.model.load_state_dict(state["model"])
            again.optimizer.load_state_dict(state["optimizer"])
            again.generator.set_state(state["generator"])
            again.step = int(state["step"])
        except Exception as error:
            raise NotRight(f"A fresh run could not take it up: {error}") from error
        again.train(until=steps + 3)
        other = not equal(again.model.state_dict(), run.model.state_dict())
        tell({"The run can be taken up, but it arrives at other weights.": other})


_LOST = {
    "model": "the weights would start from the beginning.",
    "optimizer": "it remembers averages of past gradients. Without them the next steps differ.",
    "generator": "the next batches and views would be drawn anew.",
    "step": "the schedule would start with the warm-up again.",
}


class _Tiny:
    """A run of milliseconds: batch norm, AdamW, a schedule, random batches and noise as views."""

    def __init__(self) -> None:
        torch.manual_seed(8)
        self.model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.05)
        self.generator = torch.Generator().manual_seed(8)
        self.step = 0

    def train(self, until: int) -> None:
        """Train on up to that step."""
        data = torch.linspace(-1, 1, 64).reshape(16, 4)
        while self.step < until:
            x = data[torch.randperm(16, generator=self.generator)[:8]]
            x = x + 0.3 * torch.randn(x.shape, generator=self.generator)
            self.optimizer.param_groups[0]["lr"] = 0.05 * warmup_cosine(self.step, 8, 2)
            self.optimizer.zero_grad()
            (self.model(x) - x[:, :3]).square().mean().backward()
            self.optimizer.step()
            self.step += 1


def _explain(state: Mapping[str, Any], then: _Tiny, now: _Tiny) -> None:
    """What was kept against the truth at that step, ``then``, and after more training, ``now``."""
    for key in ("model", "optimizer"):
        held, right = state[key], getattr(then, key).state_dict()
        # tensors that were not copied have gone on with the training; those of who left some out have not
        copied = key == "model" and not equal(held, getattr(now, key).state_dict())
        tell({
            f"You kept the {key} itself, which goes on changing: keep a copy of {key}.state_dict().":
                isinstance(held, (nn.Module, torch.optim.Optimizer)),
            f"{key!r} should hold {key}.state_dict(), got {type(held).__name__}.": not isinstance(held, Mapping),
            "Something of the model is missing or changed. state_dict() holds the running averages of "
            "batch norm too, parameters() does not.": copied and not equal(held, right),
            f"state_dict() of the {key} holds the tensors themselves, not copies. Training went on and changed "
            "what you had kept. Use copy.deepcopy, or write it to a file at once.": not equal(held, right),
        })  # fmt: skip
    generator, step = state["generator"], state["step"]
    tell({
        "You kept the generator itself. It goes on drawing: get_state().": isinstance(generator, torch.Generator),
        "'generator' should hold generator.get_state(), a tensor of bytes.": not isinstance(generator, Tensor),
        "This is not the state that the generator is in. initial_seed() and a fresh generator know where it "
        "began, get_state() knows where it is.": not equal(generator, then.generator.get_state()),
        f"step should be {then.step}, the steps already made, got {step!r}.": step != then.step,
    })  # fmt: skip
