"""Checkers for notebook 14: the gradient that DDP leaves, one step of LARS, a plan for given GPUs."""

from collections.abc import Callable

import torch
from torch import Tensor

from barlow_edu.config import load_config
from barlow_edu.scale.planner import plan
from barlow_edu.teaching.checks.base import attempt, checker, judge, tell
from barlow_edu.teaching.checks.worlds import normal


def _one_tensor(answer, own: list[Tensor], seen: bool):
    one = (
        "You returned a list. After the averaging all processes hold the same gradient: one tensor."
    )
    tell({one: isinstance(answer, (list, tuple)) and len(answer) == len(own)})
    return answer


@checker
def after_ddp(function: Callable[[list[Tensor], bool], Tensor]) -> None:
    """Check a function (own, seen) -> the gradient that every process holds after DDP's averaging.

    own: one tensor a process, the gradient along the way through its own rows alone; they add up to the true
    gradient. seen: whether autograd sees the all-reduce of C.
    """
    worlds = [list(normal(3, 4, 2, seed=120)), list(normal(5, 3, seed=121))]
    judge(function, [(x, False) for x in worlds], lambda own, _: sum(own) / len(own), {
        "Unseen by autograd: this is the true gradient. DDP takes the mean of the parts.": lambda own, _: sum(own),
        "Unseen by autograd: this is one process's part. DDP takes the mean over all of them.": lambda own, _: own[0],
        "Unseen by autograd: this is W times the true gradient. Divide by W.": lambda own, _: sum(own) * len(own),
        "Unseen by autograd: divided by W twice. The mean divides once.": lambda own, _: sum(own) / len(own) ** 2,
        "Unseen by autograd: this divides by two. There are len(own) processes.": lambda own, _: sum(own) / 2,
    }, "Unseen by autograd: the gradient", look=_one_tensor)  # fmt: skip
    judge(function, [(x, True) for x in worlds], lambda own, _: sum(own), {
        "Seen by autograd: nothing has changed. The backward pass of the all-reduce adds up what all W losses say, "
        "W times a process's own part.": lambda own, _: sum(own) / len(own),
        "Seen by autograd: W times too much. DDP's mean divides by W again.": lambda own, _: sum(own) * len(own),
        "Seen by autograd: this is one process's part, times W. Take the mean.": lambda own, _: own[0] * len(own),
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
        (*normal(2, 5, 3, seed=121), 0.5, 0.2, 0.1),
        (*normal(2, 4, 6, seed=122), 1.7, 0.03, 0.02),
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
        "The matrix is right. But the bias did not move: leave out its adaptation, not its step.": lambda w, *_: w,
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
