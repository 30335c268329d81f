"""The checkers of notebook 14: right answers pass, and each known mistake gets its own diagnosis."""

import torch

from barlow_edu.numerics.optim import build_optimizer


def by_two_passes(own, seen):
    """What the processes hold before DDP, and the mean of it."""
    # Every process's loss pulls on every part: the backward pass of the all-reduce gives W times the own one.
    held = [len(own) * x if seen else x for x in own]
    return torch.stack(held).mean(0)


RIGHT_DDP = {
    "the sum, or the mean": lambda own, seen: sum(own) / (1 if seen else len(own)),
    "process by process": by_two_passes,
    "stacked": lambda own, seen: torch.stack(own).sum(0) if seen else torch.stack(own).mean(0),
}
WRONG_DDP = {
    "Unseen by autograd: this is the true gradient": lambda own, seen: sum(own),
    "Unseen by autograd: this is one process's part": lambda own, seen: own[0],
    "Unseen by autograd: this is W times": lambda own, seen: sum(own) * len(own),
    "Unseen by autograd: you divided by W twice": lambda own, seen: sum(own) / len(own) ** 2,
    "Unseen by autograd: this divides by two": lambda own, seen: sum(own) / 2,
    "the same answer as for the unseen case": lambda own, seen: torch.stack(own).mean(0),
    "Seen by autograd: this is W times too much": lambda own, seen: (
        sum(own) * len(own) if seen else sum(own) / len(own)
    ),
    "Seen by autograd: this is one process's part, times W": lambda own, seen: (
        own[0] * len(own) if seen else sum(own) / len(own)
    ),
    "You returned a list": lambda own, seen: own,
    "in place": lambda own, seen: own[0].add_(own[1]),
    "returned nothing": lambda own, seen: None,
}


def optimizer_step(w, grad, lr, weight_decay, eta):
    model = torch.nn.ParameterList([torch.nn.Parameter(w.clone())])
    optimizer = build_optimizer("lars", model, lr, weight_decay, momentum=0.0)
    optimizer.param_groups[0]["eta"] = eta
    model[0].grad = grad.clone()
    optimizer.step()
    return model[0]


def step_by_hand(w, grad, lr, weight_decay, eta, adapt=None):
    if w.ndim == 1 if adapt is None else not adapt:
        return w - lr * grad
    step = grad + weight_decay * w
    return w - lr * eta * w.norm() / step.norm() * step


def adapted(w, grad, lr, weight_decay, eta):
    if w.ndim == 1:
        weight_decay = 0
    return step_by_hand(w, grad, lr, weight_decay, eta, adapt=True)


def decayed(w, grad, lr, weight_decay, eta):
    if w.ndim == 1:
        return w - lr * (grad + weight_decay * w)
    return step_by_hand(w, grad, lr, weight_decay, eta)


def by_rows(w, grad, lr, weight_decay, eta):
    step = grad + weight_decay * w
    ratio = torch.linalg.vector_norm(w, dim=-1, keepdim=True)
    return w - lr * eta * ratio / torch.linalg.vector_norm(step, dim=-1, keepdim=True) * step


def decay_late(w, grad, lr, weight_decay, eta):
    return w - lr * (eta * w.norm() / grad.norm() * grad + weight_decay * w)


RIGHT_LARS = {"the package's": optimizer_step, "by hand": step_by_hand}
WRONG_LARS = {
    "Nothing has moved": lambda w, g, lr, wd, eta: w,
    "uphill": lambda w, g, lr, wd, eta: step_by_hand(w, g, -lr, wd, eta),
    "trust ratio is missing": lambda w, g, lr, wd, eta: w - lr * (g + wd * w),
    "weight decay is missing": lambda w, g, lr, wd, eta: step_by_hand(w, g, lr, 0, eta),
    "norm of the gradient alone": lambda w, g, lr, wd, eta: (
        w - lr * eta * w.norm() / g.norm() * (g + wd * w)
    ),
    "added after the adaptation": decay_late,
    "upside down": lambda w, g, lr, wd, eta: (
        w - lr * eta * (g + wd * w).norm() / w.norm() * (g + wd * w)
    ),
    "eta is missing": lambda w, g, lr, wd, eta: step_by_hand(w, g, lr, wd, 1),
    "learning rate is missing": lambda w, g, lr, wd, eta: step_by_hand(w, g, 1, wd, eta),
    "You returned the step": lambda w, g, lr, wd, eta: w - step_by_hand(w, g, lr, wd, eta),
    "row by row": by_rows,
    "But the bias was adapted too": adapted,
    "treated like a weight": lambda *given: step_by_hand(*given, adapt=True),
    "But the bias was decayed": decayed,
    "But the bias did not move": lambda w, *rest: w if w.ndim == 1 else step_by_hand(w, *rest),
    "in place": lambda w, g, lr, wd, eta: w.sub_(lr * g),
}


RIGHT_PLAN = {
    "a smaller batch, fewer epochs": lambda: {"batch_size": 1024, "epochs": 500},
    "a small one": lambda: {"batch_size": 512, "epochs": 600},
}
WRONG_PLAN = {
    "Return a dict of settings": lambda: ["batch_size", 1024],
    "leave out gpu_memory, gpus": lambda: {"gpus": 64, "gpu_memory": 80},
    "leave the encoder": lambda: {"encoder": "resnet18", "stem": "imagenet"},
    "Too little is left": lambda: {"epochs": 299, "batch_size": 1024},
    "a batch of 256": lambda: {"epochs": 300, "batch_size": 128},
    "Most of it is activations": lambda: {"epochs": 300},
    "hours; there are 48": lambda: {"batch_size": 1024},
    "Unknown setting epoch": lambda: {"epoch": 400},
    "returned nothing": lambda: None,
}

RIGHT = {"after_ddp": RIGHT_DDP, "lars_step": RIGHT_LARS, "run_plan": RIGHT_PLAN}
WRONG = {"after_ddp": WRONG_DDP, "lars_step": WRONG_LARS, "run_plan": WRONG_PLAN}
