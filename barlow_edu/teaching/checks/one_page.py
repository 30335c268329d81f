"""Checkers of notebook 06: a step of training written by the learner, and features that are to beat a number."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from barlow_edu.data import load_images
from barlow_edu.evaluation.probes import knn_accuracy
from barlow_edu.loss import plain_loss
from barlow_edu.teaching.checks.base import attempt, checker, features, judge, tell
from barlow_edu.teaching.checks.worlds import normal


def _trained(seed: int, lambd: float, step: Callable | None = None, **slip: bool | int) -> Tensor:
    """Losses of two steps and the weights (4, 5) after them, as one list."""
    torch.manual_seed(seed)
    network = nn.Linear(5, 4).double()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    x, noise = normal(12, 5, seed=seed), torch.Generator().manual_seed(seed)

    def view(x: Tensor) -> Tensor:
        # a generator of its own: an attempt sets the page's back, and the second step is to differ from the first
        return x + 0.5 * torch.randn(x.shape, generator=noise, dtype=x.dtype)

    losses = [attempt(step or _step, network, view, x, optimizer, lambd, **slip) for _ in "ab"]
    losses = [torch.as_tensor(loss).detach().double().reshape(1) for loss in losses]
    return torch.cat([*losses, network.weight.detach().flatten()])


def _step(network, view, x, optimizer, lambd, twins=True, zero=True, move=True, sign=1, stop=False):
    a = view(x)
    b = view(x) if twins else a
    z_a, z_b = network(a), network(b)
    loss = plain_loss(z_a, z_b.detach() if stop else z_b, lambd)
    if zero:
        optimizer.zero_grad()
    (sign * loss).backward()
    if move:
        optimizer.step()
    return loss


@checker
def train_step(function: Callable) -> None:
    """Check a function (network, view, x, optimizer, lambd) -> loss that makes one step of Barlow Twins."""
    worlds = [(60, 0.3), (61, 0.05)]
    judge(functools.partial(_trained, step=function), worlds, _trained, {
        "Both views are the same picture: call view(x) twice, so that each has its own distortion.": {"twins": False},
        "The gradients of the step before were added on top: call optimizer.zero_grad() first.": {"zero": False},
        "The weights have not moved: optimizer.step() is missing.": {"move": False},
        "The loss went up: backward() belongs to the loss, not to minus the loss.": {"sign": -1},
        "Only view A moves the network: leave out detach() and no_grad() for view B.": {"stop": True},
    }, "Loss and weights after two steps")  # fmt: skip


@checker
def better_features(function: Callable[[Tensor], Tensor], to_beat: float = 0.45) -> None:
    """Check features, uint8 images (N, 3, 32, 32) -> (N, k): are 20 neighbours right more often than ``to_beat``?"""
    known = load_images("garments", limit=3000)
    asked = load_images("garments", split="test", limit=1000)
    bank, queries = (features(function, x.images, "images") for x in (known, asked))
    accuracy = knn_accuracy(bank, known.labels, queries, asked.labels, k=20)
    tell({
        f"kNN {accuracy:.1%}: that is hardly above chance, 10 %. Is the encoder in eval() mode?": accuracy < 0.15,
        f"kNN {accuracy:.1%}, to beat: {to_beat:.1%}. Change one thing, and train again.": accuracy <= to_beat,
    })  # fmt: skip
