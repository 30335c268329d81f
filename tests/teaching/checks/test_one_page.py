"""The checkers of notebook 06: a step that trains passes however it is written, and each slip has its diagnosis."""

import pytest
import torch
import torch.nn.functional as F

import barlow_edu as be
from barlow_edu import checks


def by_package(network, view, x, optimizer, lambd):
    loss = be.barlow_twins_loss(network(view(x)), network(view(x)), lambd).loss
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def by_corrcoef(network, view, x, optimizer, lambd):
    """C from torch.corrcoef, gradients cleared after the step."""
    z = torch.cat([network(view(x)), network(view(x))], 1)
    d = z.shape[1] // 2
    c = torch.corrcoef(z.T)[:d, d:]
    loss = (torch.full_like(c, lambd).fill_diagonal_(1) * (c - torch.eye(d)) ** 2).sum()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss


def slip(twice=True, zero=True, move=True, sign=1, cut=False):
    def step(network, view, x, optimizer, lambd):
        a = view(x)
        b = view(x) if twice else a
        z_b = network(b)
        loss = be.barlow_twins_loss(network(a), z_b.detach() if cut else z_b, lambd).loss
        if zero:
            optimizer.zero_grad()
        (sign * loss).backward()
        if move:
            optimizer.step()
        return loss

    return step


def edges(images):
    """How steep and in which direction grey changes, counted in 4 x 4 places: no training, better than pixels."""
    grey = images.float().mean(1, keepdim=True) / 255
    dx, dy = grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2], grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1]
    bins = ((torch.atan2(dy, dx) % torch.pi) / torch.pi * 8).long().clamp(max=7)
    strength = F.one_hot(bins[:, 0], 8).movedim(-1, 1) * (dx**2 + dy**2).sqrt()
    return F.normalize(F.adaptive_avg_pool2d(strength, 4).flatten(1).sqrt())


def coarse_edges(images):
    return 3 * edges(images)


RIGHT = {"train_step": [by_package, by_corrcoef], "better_features": [edges, coarse_edges]}
WRONG = {
    "train_step": {
        "same picture": slip(twice=False),
        "zero_grad": slip(zero=False),
        "not moved": slip(move=False),
        "went up": slip(sign=-1),
        "Only view A": slip(cut=True),
        "returned nothing": lambda network, view, x, optimizer, lambd: None,
    },
    "better_features": {
        "one row": lambda x: x[:-1].flatten(1).float(),
        "NaN": lambda x: torch.full((len(x), 3), torch.nan),
        "collapsed": lambda x: torch.ones(len(x), 3),
        "above chance": lambda x: torch.randn(
            len(x), 8, generator=torch.Generator().manual_seed(0)
        ),
        "to beat: 45.0%": lambda x: x.flatten(1).float(),  # the pixels themselves
    },
}


def test_features_are_judged_by_the_number_to_beat():
    with pytest.raises(checks.NotRight, match=r"to beat: 99.0%"):
        checks.better_features(edges, to_beat=0.99)
