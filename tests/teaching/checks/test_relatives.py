"""The checkers of notebook 13: right answers pass, and each known mistake gets its own diagnosis."""

import math

import numpy as np
import torch
import torch.nn.functional as F


def cosines(z_a, z_b, temperature):
    z = F.normalize(torch.cat((z_a, z_b)), dim=1)
    return z @ z.T / temperature


def without_itself(similarity):
    return similarity.masked_fill(torch.eye(len(similarity), dtype=torch.bool), -math.inf)


def twins(z):
    return torch.arange(2 * len(z)).roll(len(z))


def by_cross_entropy(z_a, z_b, t):
    return F.cross_entropy(without_itself(cosines(z_a, z_b, t)), twins(z_a))


def by_loops(z_a, z_b, t):
    n, s = len(z_a), cosines(z_a, z_b, t)
    losses = []
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        others = sum(s[i, k].exp() for k in range(2 * n) if k != i)
        losses.append(others.log() - s[i, j])
    return sum(losses) / (2 * n)


def between(a, b, t):
    return F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / t


def across(a, b, t):
    return F.cross_entropy(between(a, b, t), torch.arange(len(a)))


def not_normalised(a, b, t):
    z = torch.cat((a, b))
    return F.cross_entropy(without_itself(z @ z.T / t), twins(a))


def normalised_columns(a, b, t):
    z = F.normalize(torch.cat((a, b)), dim=0)
    return F.cross_entropy(without_itself(z @ z.T / t), twins(a))


def without_the_twin(a, b, t):
    s = without_itself(cosines(a, b, t))
    index = twins(a)
    twin = s[torch.arange(len(s)), index]
    rest = s.masked_fill(F.one_hot(index).bool(), -math.inf)
    return (rest.logsumexp(1) - twin).mean()


def view_a_alone(a, b, t):
    n = len(a)
    return F.cross_entropy(without_itself(cosines(a, b, t))[:n], twins(a)[:n])


def spoils_its_input(a, b, t):
    a /= a.norm(dim=1, keepdim=True)
    return by_cross_entropy(a, b, t)


right = by_cross_entropy
WRONG_CONTRASTIVE = {
    "may choose itself": lambda a, b, t: F.cross_entropy(cosines(a, b, t), twins(a)),
    "Those of its own view are negatives": lambda a, b, t: (across(a, b, t) + across(b, a, t)) / 2,
    "among the images of B": across,
    "mean runs over all 2 N": view_a_alone,
    "cosines, not products": not_normalised,
    "mask with −inf": lambda a, b, t: F.cross_entropy(
        cosines(a, b, t) * (1 - torch.eye(2 * len(a))), twins(a)
    ),
    "normalise along dim 1": normalised_columns,
    "in every term": lambda a, b, t: right(a, b, t) / 2 + float(right(a, b, t)) / 2,
    "temperature is missing": lambda a, b, t: right(a, b, 1.0),
    "multiplied by the temperature": lambda a, b, t: right(a, b, 1 / t),
    "sum over all 2 N": lambda a, b, t: right(a, b, t) * 2 * len(a),
    "You divided by N": lambda a, b, t: 2 * right(a, b, t),
    "sign is turned round": lambda a, b, t: -right(a, b, t),
    "twin itself is missing": without_the_twin,
    "Only the numerator": lambda a, b, t: -F.cosine_similarity(a, b).mean() / t,
    "autograd lost its way": lambda a, b, t: right(a, b, t).item(),
    "in place": spoils_its_input,
    "has shape": lambda a, b, t: F.cross_entropy(
        without_itself(cosines(a, b, t)), twins(a), reduction="none"
    ),
    "values differ": lambda a, b, t: right(a, b, t) ** 2,
}


def both_diagonals(contrast, rows, columns):
    return contrast + (rows**2).sum() - (columns**2).sum()


def by_dot(contrast, rows, columns):
    return float(contrast) + np.dot(rows, rows) - np.dot(columns, columns)


WRONG_DUALITY = {
    "diagonal and all": lambda c, r, k: c + (r**2).sum(),
    "diagonal of ZZᵀ is missing": lambda c, r, k: c - (k**2).sum(),
    "changed places": lambda c, r, k: c - (r**2).sum() + (k**2).sum(),
    "are equal, and cancel": lambda c, r, k: c + r.sum() - k.sum(),
    "This is the contrast itself": lambda c, r, k: c,
    "Both diagonals were added": lambda c, r, k: c + (r**2).sum() + (k**2).sum(),
    "values differ": lambda c, r, k: c * r.sum(),
}


def centred(z):
    return z - z.mean(0)


def whitened(z):
    u, _, v = torch.linalg.svd(centred(z), full_matrices=False)
    return len(z) ** 0.5 * u @ v


def without_the_strongest(z):
    strongest = torch.linalg.svd(centred(z))[2][0]
    return centred(z) - torch.outer(centred(z) @ strongest, strongest)


def away_from_the_others(z):
    return z - 0.5 * (F.normalize(z, dim=1) @ F.normalize(z, dim=1).T / 0.1).softmax(1) @ z


WRONG_TARGET = {
    "Collapsed": lambda z: z,
    "keeps them from all": centred,
    "learned nothing": lambda z: torch.randn(z.shape),
    "one target for each embedding": lambda z: z.mean(0),
    "same target": lambda z: torch.ones_like(z),
    "NaN or infinity": lambda z: centred(z) / (z.std(0) - z.std(0)),
}
RIGHT = {
    "contrastive_loss": {"cross entropy": by_cross_entropy, "loops": by_loops},
    "redundancy_from_contrast": {"squares": both_diagonals, "dot products": by_dot},
    "my_target": {
        "whitened": whitened,
        "deflated": without_the_strongest,
        "pushed": away_from_the_others,
    },
}
WRONG = {
    "contrastive_loss": WRONG_CONTRASTIVE,
    "redundancy_from_contrast": WRONG_DUALITY,
    "my_target": WRONG_TARGET,
}
