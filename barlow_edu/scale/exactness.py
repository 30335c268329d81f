"""How exact are losses and gradients over several processes? This package's, and the usual ways, side by side.

One batch of images is shared out, so that every process holds different ones. A small model with batch norm
goes through DistributedDataParallel; its gradients are compared with those of one process that holds the whole
batch. Everything is float64: what differs, differs by method and not by rounding.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from barlow_edu.loss import barlow_twins_loss, standardize
from barlow_edu.models import BarlowTwinsModel
from barlow_edu.numerics import distributed
from barlow_edu.numerics.batchnorm import synchronize_batch_norm

BATCH, DIM, LAMBDA = 64, 16, 0.005


def small_model() -> BarlowTwinsModel:
    """Two convolutions and a projector of two layers, with three batch norms, in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first = [nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU()]
        encoder = nn.Sequential(*first, nn.Conv2d(8, 12, 3, stride=2), nn.Flatten())
        settings = {"encoder": encoder, "encoder_dim": 48, "proj_dim": DIM, "proj_layers": 2}
        return BarlowTwinsModel(settings, lambd=LAMBDA).double()


def batch(step: int = 0) -> tuple[Tensor, Tensor]:
    """Two views of the whole batch, (64, 3, 11, 11), other ones at every step."""
    generator = torch.Generator().manual_seed(step)
    x, noise = torch.randn(2, BATCH, 3, 11, 11, generator=generator, dtype=torch.float64)
    # Later images have more contrast: the processes' shares differ in mean and variance too.
    x = x * torch.linspace(0.5, 2, BATCH, dtype=torch.float64).view(-1, 1, 1, 1)
    return x, x + 0.5 * noise


def share(view: Tensor) -> Tensor:
    """This process's rows of the whole batch."""
    return view.chunk(distributed.world_size())[distributed.rank()]


def _unseen(c: Tensor) -> Tensor:
    """torch.distributed.all_reduce as autograd sees it: not at all."""
    total = distributed.add_up(c.detach().clone(), distributed.active_group())
    return c + (total - c.detach())


def _local(z: Tensor) -> Tensor:
    """Standardised along this process's rows alone."""
    return (z - z.mean(0)) / z.std(0, correction=0)


def _usual(z_a: Tensor, z_b: Tensor, normalise, reduce, rows: int) -> Tensor:
    """Equation 1 of the paper, on C from the given parts."""
    c = reduce(normalise(z_a).T @ normalise(z_b)) / rows
    diagonal = c.diagonal()
    off = c.square().sum() - diagonal.square().sum()
    return (1 - diagonal).square().sum() + LAMBDA * off


# The loss of a process's embeddings: name -> function
WAYS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "barlow_edu, matrix form": lambda a, b: barlow_twins_loss(a, b, LAMBDA, "matrix").loss,
    "barlow_edu, gram form": lambda a, b: barlow_twins_loss(a, b, LAMBDA, "gram").loss,
    "all-reduce of C unseen by autograd": lambda a, b: _usual(a, b, standardize, _unseen, BATCH),
    "the same, statistics of each share": lambda a, b: _usual(a, b, _local, _unseen, BATCH),
    "all-reduce of C seen, statistics of each share": lambda a, b: _usual(
        a, b, _local, distributed.all_reduce, BATCH
    ),
    "every process its own C": lambda a, b: _usual(a, b, _local, lambda c: c, len(a)),
}
PRACTICE = {
    "all-reduce of C unseen by autograd": "published code",
    "the same, statistics of each share": "solo-learn",
    "all-reduce of C seen, statistics of each share": "lightly, stable-pretraining",
    "every process its own C": "a single-process loss under DDP",
}


def gradients(way: str) -> dict[str, Any]:
    """Loss, every parameter's gradient and the running averages, after one backward pass in this process."""
    model = small_model()
    model.forward = lambda view1, view2: (model.embed(view1), model.embed(view2))  # no loss yet
    embed = distributed.data_parallel(synchronize_batch_norm(model))
    loss = WAYS[way](*embed(*map(share, batch())))
    loss.backward()
    grads = {name: p.grad for name, p in model.named_parameters()}
    buffers = {name: b.double() for name, b in model.named_buffers()}
    return {"loss": loss.item(), "gradients": grads, "buffers": buffers}


def compare(results: dict[str, Any], reference: dict[str, Any]) -> dict[str, float]:
    """What of ``gradients`` differs: of the loss, the largest of any gradient, and its length and direction."""
    sides = (results["gradients"], reference["gradients"])
    one, other = (torch.cat([side[name].flatten() for name in sides[1]]) for side in sides)
    return {
        "loss": abs(results["loss"] - reference["loss"]),
        "largest": (one - other).abs().max().item(),
        "length": (one.norm() / other.norm()).item(),
        "cosine": torch.cosine_similarity(one, other, dim=0).item(),
    }


def all_gradients() -> dict[str, dict[str, Any]]:
    """:func:`gradients` for every way."""
    return {way: gradients(way) for way in WAYS}
