"""Optimizers, parameter groups and the learning-rate schedule."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

OPTIMIZERS = ("adamw", "sgd", "lars")


class LARS(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling (You et al., 2017), as Barlow Twins uses it.

    For groups with ``adapt=True`` the gradient g of a tensor w, weight decay added, is scaled by
    trust = eta |w| / |g| (1 where either norm is zero), then accumulated with ``momentum``:
    v = momentum * v + trust * g, w = w - lr * v. (So the published code of Barlow Twins has it; You et al. divide by
    |g| without decay + weight_decay |w|.) The paper excludes biases and batch norm from decay and adaptation
    (section 3): give those a group with ``adapt=False, weight_decay=0``.
    """

    def __init__(
        self, params: Iterable, lr: float, weight_decay=0.0, momentum=0.9, eta=0.001, adapt=True
    ):
        defaults = dict(lr=lr, weight_decay=weight_decay, momentum=momentum, eta=eta, adapt=adapt)
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure=None):
        """One update of all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for w in group["params"]:
                if w.grad is not None:
                    self._update(w, group)
        return loss

    def _update(self, w: Tensor, group: dict) -> None:
        step = w.grad.add(w, alpha=group["weight_decay"])
        if group["adapt"]:
            w_norm, g_norm = torch.linalg.vector_norm(w), torch.linalg.vector_norm(step)
            trust = torch.where((w_norm > 0) & (g_norm > 0), group["eta"] * w_norm / g_norm, 1.0)
            step = step * trust
        state = self.state[w]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(w)
        state["momentum"].mul_(group["momentum"]).add_(step)
        w.add_(state["momentum"], alpha=-group["lr"])


def parameter_groups(
    model: nn.Module, lr: float, bias_lr: float, weight_decay: float
) -> list[dict]:
    """Two groups: weights, with decay, at ``lr``; and the 1-D rest (biases, batch norm), without, at ``bias_lr``."""
    trained = [p for p in model.parameters() if p.requires_grad]
    weights = [p for p in trained if p.ndim > 1]
    others = [p for p in trained if p.ndim <= 1]
    groups = [
        {"params": weights, "lr": lr, "base_lr": lr, "weight_decay": weight_decay},
        {"params": others, "lr": bias_lr, "base_lr": bias_lr, "weight_decay": 0.0},
    ]
    return [g for g in groups if g["params"]]


def build_optimizer(
    name: str,
    model: nn.Module,
    lr: float,
    weight_decay: float = 0.0,
    bias_lr: float | None = None,
    momentum: float = 0.9,
) -> torch.optim.Optimizer:
    """ "adamw", "sgd" (Nesterov) or "lars" over the groups of :func:`parameter_groups`.

    bias_lr defaults to lr. Raises ValueError for another name.
    """
    groups = parameter_groups(model, lr, lr if bias_lr is None else bias_lr, weight_decay)
    # One pass over all parameters, where torch has it: a few per cent of a step on a CPU.
    fused = all(p.device.type in ("cpu", "cuda") for p in model.parameters())
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, fused=fused)
    if name == "sgd":
        nesterov = momentum > 0
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, fused=fused)
    if name == "lars":
        for group in groups:
            group["adapt"] = group["params"][0].ndim > 1
        return LARS(groups, lr=lr, momentum=momentum)
    raise ValueError(f"No optimizer {name!r}. Choose one of {', '.join(OPTIMIZERS)}.")


def warmup_cosine(
    step: int, total: int, warmup: int, final: float = 0.001, offset: int = 1
) -> float:
    """Factor on the learning rate at ``step`` of ``total``: linear warm-up, then a half cosine to ``final``.

    The paper warms up for 10 of 1000 epochs and ends at a thousandth (section 3). The first step has the
    rate of ``offset`` steps of the warm-up: with 0, as in the published code, it moves nothing.

    >>> [round(warmup_cosine(step, total=6, warmup=2), 3) for step in range(7)]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.147, 0.001]
    """
    if step < warmup:
        return (step + offset) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Give every group ``factor`` times its base rate, and return the rate of the first group."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    return optimizer.param_groups[0]["lr"]
