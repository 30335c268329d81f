"""Checkers of notebooks 10, pretraining, and 14: gradients over many processes, LARS, a plan for given GPUs."""

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from barlow_edu.config import load_config
from barlow_edu.numerics.optim import warmup_cosine
from barlow_edu.scale.planner import plan
from barlow_edu.teaching.checks.base import NotRight, attempt, checker, equal, judge, numbers, tell
from barlow_edu.teaching.checks.worlds import normal


def _minutes(images: int, n: int, epochs: int, rate: float, unit: float = 60) -> float:
    return images // n * epochs * n / rate / unit


@checker
def run_length(function: Callable[[int, int, int, float], tuple[int, float]]) -> None:
    """Check a function (images, batch_size, epochs, images_per_second) -> (steps, minutes)."""
    worlds = [(1000, 128, 6, 50.0), (50_000, 256, 40, 700.0)]  # neither is full batches alone
    names = "two numbers: the steps of the run and its minutes"
    judge(function, worlds, lambda i, n, e, r: i // n * e, {
        "You counted the scrap at the end of each epoch as a step. It is dropped: round down.":
            lambda i, n, e, r: math.ceil(i / n) * e,
        "These are the steps of one epoch. The run has several.": lambda i, n, e, r: i // n,
        "A step is a whole batch: round down, each epoch on its own.": lambda i, n, e, r: i / n * e,
        "You joined the epochs before dividing. Each epoch drops its own scrap.": lambda i, n, e, r: i * e // n,
        "That is the number of images of an epoch. A step takes a whole batch.": lambda i, n, e, r: i,
        "That is the number of epochs. Multiply it by the steps of an epoch.": lambda i, n, e, r: e,
    }, "the number of steps", look=lambda x, *_: numbers(x, names, 2)[0])  # fmt: skip
    judge(function, worlds, _minutes, {
        "These are seconds. Minutes are asked for.": {"unit": 1},
        "These are hours. Minutes are asked for.": {"unit": 3600},
        "You counted every image twice, once a view. The rate counts images, not views.": {"unit": 30},
        "The images that are dropped cost no time: count steps × batch size.": lambda i, n, e, r: i * e / r / 60,
        "This is the time of one epoch.": {"epochs": 1},
        "The rate is in images a second, not in steps a second.": lambda i, n, e, r: _minutes(i, n, e, r) / n,
        "You multiplied by the rate. Divide by it: faster means shorter.":
            lambda i, n, e, r: _minutes(i, n, e, r) * r**2,
    }, "the time in minutes", look=lambda x, *_: numbers(x, names, 2)[1])  # fmt: skip


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

    wanted = "one number, the factor at that step"
    worlds = [(20, 5, 0.1), (13, 0, 0.01)]  # and no warm-up, by which one cannot divide
    judge(every_step, worlds, _factors, {
        "There is no warm-up: the factor starts at 1.": {"warmup": 0},
        "The first step has the factor 0 and is lost. Steps count from 0, so take (step + 1) / warmup.": {"early": 0},
        "Your cosine starts at step 0, so the factor jumps where the warm-up ends. Start it there: progress = "
        "(step − warmup) / (total − warmup).": {"x": lambda s, t, w: s / t},
        "Your progress is (step − warmup) / total. It never gets to 1: divide by total − warmup.":
            {"x": lambda s, t, w: (s - w) / t},
        "You reach the final factor one step early. Divide by total − warmup, not by one less.":
            {"x": lambda s, t, w: (s - w) / (t - w - 1)},
        "The factor falls to 0. It should end at final: final + (1 − final) · half cosine.": {"final": 0},
        "You added final on top, so the factor starts above 1. Shrink the rest: (1 − final) · half cosine.":
            lambda t, w, f: _factors(t, w, f, top=1 + f),
        "Your cosine goes down and comes up again: half a period is π, not 2π.": {"fall": lambda x: _half(2 * x)},
        "The factor starts near 2 after the warm-up. Take half of 1 + cos, which runs from 1 to 0.":
            {"fall": lambda x: 2 * _half(x)},
        "Without the 1 the cosine goes below 0, and the rate with it. Take (1 + cos) / 2.":
            {"fall": lambda x: math.cos(math.pi * x)},
        "It falls on a straight line. Half a cosine is wanted: slow, fast, slow.": {"fall": lambda x: 1 - x},
        "It rises again after the warm-up: your cosine stands upside down.": {"fall": lambda x: _half(1 - x)},
    }, "the list of factors", 1e-6, look=lambda x, total, *_: numbers(x, wanted, total))  # fmt: skip


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
            f"You kept the {key} itself. It goes on changing, and a file of it needs this very code to be opened. "
            f"Keep a copy of {key}.state_dict().": isinstance(held, (nn.Module, torch.optim.Optimizer)),
            f"{key!r} should hold {key}.state_dict(), got {type(held).__name__}.": not isinstance(held, Mapping),
            "Something of the model is missing or changed. state_dict() holds the running averages of "
            "batch norm too, parameters() does not.": copied and not equal(held, right),
            f"state_dict() of the {key} holds the tensors themselves, not copies. Training went on and changed "
            "what you had kept. Use copy.deepcopy, or write it to a file at once.": not equal(held, right),
        })  # fmt: skip
    generator, step = state["generator"], state["step"]
    tell({
        "You kept the generator itself. It goes on drawing: keep its get_state().":
            isinstance(generator, torch.Generator),
        "'generator' should hold generator.get_state(), a tensor of bytes.": not isinstance(generator, Tensor),
        "This is not the state that the generator is in. initial_seed() and a fresh generator know where it "
        "began, get_state() knows where it is.": not equal(generator, then.generator.get_state()),
        f"step should be {then.step}, the steps already made, got {step!r}.": step != then.step,
    })  # fmt: skip


def _one_tensor(answer, own: list[Tensor], seen: bool):
    tell({
        "You returned a list. After the averaging all processes hold the same gradient: return one tensor.":
            isinstance(answer, (list, tuple)) and len(answer) == len(own),
    })  # fmt: skip
    return answer


@checker
def after_ddp(function: Callable[[list[Tensor], bool], Tensor]) -> None:
    """Check a function (own, seen) -> the gradient that every process holds after DDP's averaging.

    own: one tensor a process, the gradient along the way through its own rows alone; they add up to the true
    gradient. seen: whether autograd sees the all-reduce of C.
    """
    worlds = [list(normal(3, 4, 2, seed=120)), list(normal(5, 3, seed=121))]
    judge(function, [(x, False) for x in worlds], lambda own, _: sum(own) / len(own), {
        "Unseen by autograd: this is the true gradient, the sum of all parts. But each process knows its own part "
        "alone, and DDP takes the mean of the parts, not their sum.": lambda own, _: sum(own),
        "Unseen by autograd: this is one process's part, not yet averaged. DDP takes the mean over all of them.":
            lambda own, _: own[0],
        "Unseen by autograd: this is W times the true gradient. Nothing multiplies here: DDP takes a mean.":
            lambda own, _: sum(own) * len(own),
        "Unseen by autograd: you divided by W twice. The mean divides once.": lambda own, _: sum(own) / len(own) ** 2,
        "Unseen by autograd: this divides by two. There are len(own) processes.": lambda own, _: sum(own) / 2,
    }, "Unseen by autograd: the gradient", look=_one_tensor)  # fmt: skip
    judge(function, [(x, True) for x in worlds], lambda own, _: sum(own), {
        "Seen by autograd: you gave the same answer as for the unseen case. The backward pass of the all-reduce "
        "adds up what all W losses say, so each process holds W times its own part. Then comes the mean.":
            lambda own, _: sum(own) / len(own),
        "Seen by autograd: this is W times too much. Each process holds W times its own part, and DDP's mean "
        "divides the sum by W.": lambda own, _: sum(own) * len(own),
        "Seen by autograd: this is one process's part, times W. The mean over the processes is missing.":
            lambda own, _: own[0] * len(own),
        "Seen by autograd: this is one process's part alone.": lambda own, _: own[0],
    }, "Seen by autograd: the gradient", look=_one_tensor)  # fmt: skip


def _lars(w, g, lr, decay, eta, ratio=lambda w, g, step: w.norm() / step.norm(), out=torch.sub):
    """What comes ``out`` of the weight w and a step by the gradient g; ``ratio``: the trust in it."""
    step = g + decay * w
    return out(w, lr * eta * ratio(w, g, step) * step)


@checker
def lars_step(function: Callable[[Tensor, Tensor, float, float, float], Tensor]) -> None:
    """Check a function (w, grad, lr, weight_decay, eta) -> w after one step of LARS, without momentum.

    A tensor with one axis (a bias, batch norm) takes a plain step: no decay, no adaptation.
    """
    worlds = [
        (*normal(2, 5, 3, seed=12), 0.5, 0.2, 0.1),
        (*normal(2, 4, 6, seed=13), 1.7, 0.03, 0.2),
    ]
    judge(function, worlds, _lars, {
        "Nothing has moved. Return the new weight.": lambda w, *_: w,
        "This went uphill: subtract the step.": {"out": torch.add},
        "A plain step: the trust ratio is missing.": {"ratio": lambda *_: 1, "eta": 1},
        "The weight decay is missing. It is added to the gradient before the norms are taken.": {"decay": 0},
        "The ratio was taken with the norm of the gradient alone. LARS adds the decay first, and takes the "
        "norm of the sum.": {"ratio": lambda w, g, step: w.norm() / g.norm()},
        "The decay was added after the adaptation, so that it is not scaled with the rest.":
            lambda w, g, lr, decay, eta: _lars(w, g, lr, 0, eta) - lr * decay * w,
        "The ratio is upside down: a small gradient is to be made longer, so |g| stands below.":
            {"ratio": lambda w, g, step: step.norm() / w.norm()},
        "eta is missing: the step is as long as the weight itself, times lr.": {"eta": 1},
        "The learning rate is missing.": {"lr": 1},
        "You returned the step. The new weight is w minus the step.": {"out": lambda w, step: step},
        "The norms were taken row by row. One ratio for the whole tensor.":
            {"ratio": lambda w, g, step: w.norm(dim=-1, keepdim=True) / step.norm(dim=-1, keepdim=True)},
    }, "The weight", 1e-6)  # fmt: skip
    biases = [(w[:, 0].clone(), grad[:, 0].clone(), *rest) for w, grad, *rest in worlds]
    judge(function, biases, lambda w, g, lr, *_: w - lr * g, {
        "The matrix is right. But the bias was adapted too; the paper leaves biases and batch norm out. Look "
        "at w.ndim.": lambda w, g, lr, _, eta: _lars(w, g, lr, 0, eta),
        "The matrix is right. But the bias was treated like a weight, decayed and adapted. Look at w.ndim.": _lars,
        "The matrix is right. But the bias was decayed: no weight decay for a tensor with one axis.":
            lambda w, g, lr, decay, _: w - lr * (g + decay * w),
        "The matrix is right. But the bias did not move: it is left out of the adaptation, not of the step.":
            lambda w, *_: w,
    }, "The bias", 1e-6)  # fmt: skip


@checker
def run_plan(function: Callable[[], dict], hours: float = 48, **machine: float) -> None:
    """Check a plan, a function () -> settings that change imagenet_resnet50: does the run fit, end in time, and pay?

    hours: those there are. machine: gpus, gpu_memory (GB), tflops of one; default eight of 16 GB, 30 each.
    """
    machine = {"gpus": 8, "gpu_memory": 16, "tflops": 30, **machine}
    settings = attempt(function)
    names = isinstance(settings, dict) and settings and all(isinstance(k, str) for k in settings)
    tell({'Return a dict of settings, such as {"epochs": 400}.': not names})
    given = sorted(set(settings) & {*machine, "images", "images_per_second", "root", "limit"})
    tell({f"The machine and the images are given: leave out {', '.join(given)}.": bool(given)})
    config = load_config("imagenet_resnet50", **settings)
    small = config["batch_size"] < 256 or config["epochs"] < 300 or config["proj_dim"] < 2048
    tell({
        "The network is a ResNet-50: leave the encoder as it is.": config["encoder"] != "resnet50",
        "Too little is left of the run: 300 epochs, a batch of 256 and 2048 dimensions at least.": small,
    })  # fmt: skip
    p = plan(config, **machine).as_dict()
    tell({
        f"It takes {p['memory_gb']['peak']:.1f} GB of each GPU's {machine['gpu_memory']:g}, and a little must stay "
        "free. Most of it is activations.": not p["fits"],
        f"It takes {p['hours']:.0f} hours; there are {hours:g}.": p["hours"] > hours,
    })  # fmt: skip
