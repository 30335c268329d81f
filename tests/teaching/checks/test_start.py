"""Checkers of notebook 00: right answers pass, wrong ones get the diagnosis they deserve."""

import torch
import torch.nn.functional as F


def off(c):
    return c[~torch.eye(len(c), dtype=torch.bool)]


RIGHT = {
    "off_diagonal_rms": [
        lambda c: off(c).square().mean().sqrt(),
        lambda c: (
            ((c.pow(2).sum() - c.diagonal().pow(2).sum()) / (len(c) * (len(c) - 1))).item() ** 0.5
        ),
    ],
    "find_twins": [
        lambda a, b: (F.normalize(a, dim=1) @ F.normalize(b, dim=1).T).argmax(1),
        lambda a, b: torch.cdist(F.normalize(a, dim=1), F.normalize(b, dim=1)).argmin(1),
        lambda a, b: [int(torch.cosine_similarity(x[None], b).argmax()) for x in a],
    ],
}
WRONG = {
    "off_diagonal_rms": {
        "Leave the diagonal out": lambda c: c.square().mean().sqrt(),
        "entries remain": lambda c: (off(c).square().sum() / len(c) ** 2).sqrt(),
        "Take its root": lambda c: off(c).square().mean(),
        "cancel": lambda c: off(c).mean(),
        "absolute": lambda c: off(c).abs().mean(),
        "in place": lambda c: c.fill_diagonal_(0).square().mean().sqrt(),
        "before you take the root": lambda c: off(c).square().sum().sqrt(),
        "standard deviation": lambda c: off(c).std(),
        "returned nothing": lambda c: None,
        "raised": lambda c: c.no_such_method(),
    },
    "find_twins": {
        "other way round": lambda a, b: (F.normalize(a, dim=1) @ F.normalize(b, dim=1).T).argmax(0),
        "normalise along dim 1": lambda a, b: (
            F.normalize(a, dim=0) @ F.normalize(b, dim=0).T
        ).argmax(1),
        "Long vectors": lambda a, b: (a @ b.T).argmax(1),
        "least similar": lambda a, b: (F.normalize(a, dim=1) @ F.normalize(b, dim=1).T).argmin(1),
        "found itself": lambda a, b: (a @ a.T).argmax(1) * 0 + torch.arange(len(a)),
        "distance": lambda a, b: torch.cdist(a, b).argmin(1),
        "not similarities": lambda a, b: (a @ b.T).max(1).values,
    },
}
