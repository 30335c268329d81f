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
    "autograd lost the way": lambda a, b, t: right(a, b, t).item(),
    "in place": spoils_its_input,
    "has shape": lambda a, b, t: F.cross_entropy(
        without_itself(cosines(a, b, t)), twins(a), reduction="none"
    ),
    "values differ": lambda a, b, t: right(a, b, t) ** 2,
}


def off(matrix):
    return matrix - torch.diag(matrix.diagonal())


def covariance(z):
    x = z - z.mean(0)
    return x.T @ x / (len(z) - 1)


def invariance_term(a, b):
    return F.mse_loss(a, b)


def hinge(z):
    return (1 - (z.var(0) + 1e-4).sqrt()).relu().mean()


def variance_term(a, b):
    return (hinge(a) + hinge(b)) / 2


def covariance_term(a, b):
    return sum(off(covariance(z)).square().sum() / z.shape[1] for z in (a, b))


def all_three(a, b):
    return invariance_term(a, b), variance_term(a, b), covariance_term(a, b)


def in_numpy(a, b):
    a, b = a.numpy(), b.numpy()
    c = [np.cov(z.T) for z in (a, b)]
    hinges = [np.maximum(0, 1 - np.std(z, axis=0, ddof=1)).mean() for z in (a, b)]
    squares = [(x**2).sum() - (np.diag(x) ** 2).sum() for x in c]
    return ((a - b) ** 2).mean(), sum(hinges) / 2, sum(squares) / a.shape[1]


def with_invariance(term):
    return lambda a, b: (term(a, b), variance_term(a, b), covariance_term(a, b))


def with_variance(term):
    return lambda a, b: (invariance_term(a, b), (term(a) + term(b)) / 2, covariance_term(a, b))


def with_covariance(term):
    return lambda a, b: (invariance_term(a, b), variance_term(a, b), term(a, b))


def between_views(a, b):
    x, y = a - a.mean(0), b - b.mean(0)
    return off(x.T @ y / (len(a) - 1)).square().sum() / a.shape[1]


def of_each(table):
    """Σ of squares off the diagonal of a table made of each view, over D."""
    return with_covariance(
        lambda a, b: sum(off(table(z)).square().sum() / z.shape[1] for z in (a, b))
    )


def times(factor):
    return with_covariance(lambda a, b: factor(*a.shape) * covariance_term(a, b))


def one_view(which):
    return with_covariance(lambda a, b: off(covariance((a, b)[which])).square().sum() / a.shape[1])


def one_hinge(which):
    return lambda a, b: (invariance_term(a, b), hinge((a, b)[which]), covariance_term(a, b))


WRONG_VICREG = {
    "summed over the dimensions": with_invariance(lambda a, b: (a - b).square().sum(1).mean()),
    "invariance is a sum": with_invariance(lambda a, b: (a - b).square().sum()),
    "takes magnitudes": with_invariance(lambda a, b: (a - b).abs().mean()),
    "root of what is asked": with_invariance(lambda a, b: invariance_term(a, b).sqrt()),
    "compares them as they are": with_invariance(
        lambda a, b: invariance_term(a - a.mean(0), b - b.mean(0))
    ),
    "variance term adds the views": with_variance(lambda z: 2 * hinge(z)),
    "variance term looks at view A": one_hinge(0),
    "variance term looks at view B": one_hinge(1),
    "hinge is missing": with_variance(lambda z: (1 - z.std(0)).mean()),
    "not the magnitude": with_variance(lambda z: (1 - z.std(0)).abs().mean()),
    "belongs on its root": with_variance(lambda z: (1 - z.var(0)).relu().mean()),
    "variance was divided by N": with_variance(
        lambda z: (1 - z.std(0, correction=0)).relu().mean()
    ),
    "sum over dimensions": with_variance(lambda z: (1 - z.std(0)).relu().sum()),
    "along the features": with_variance(lambda z: (1 - z.std(1)).relu().mean()),
    "diagonal too": with_covariance(
        lambda a, b: sum(covariance(z).square().sum() / z.shape[1] for z in (a, b))
    ),
    "not divided by D": times(lambda n, d: d),
    "divided by D² or": times(lambda n, d: 1 / d),
    "number of pairs, D (D − 1)": times(lambda n, d: 1 / (d - 1)),
    "covariance was divided by N": times(lambda n, d: ((n - 1) / n) ** 2),
    "covariance term looks at view A": one_view(0),
    "covariance term looks at view B": one_view(1),
    "mean of the views": times(lambda n, d: 1 / 2),
    "between the views": with_covariance(between_views),
    "at each view by itself": with_covariance(lambda a, b: 2 * between_views(a, b)),
    "not centred": of_each(lambda z: z.T @ z / (len(z) - 1)),
    "These are correlations": of_each(lambda z: torch.corrcoef(z.T)),
    "without their weights": lambda a, b: tuple(
        w * x for w, x in zip((25, 25, 1), all_three(a, b), strict=True)
    ),
    "order is turned round": lambda a, b: all_three(a, b)[::-1],
    "You gave 2": lambda a, b: all_three(a, b)[:2],
    "Return three numbers:": lambda a, b: sum(all_three(a, b)),
    "Return three numbers: invariance": with_invariance(lambda a, b: (a - b).square()),
}


def both_diagonals(contrast, rows, columns):
    return contrast + (rows**2).sum() - (columns**2).sum()


def by_dot(contrast, rows, columns):
    return float(contrast) + np.dot(rows, rows) - np.dot(columns, columns)


WRONG_DUALITY = {
    "diagonal and all": lambda c, r, k: c + (r**2).sum(),
    "diagonal of ZZᵀ is missing": lambda c, r, k: c - (k**2).sum(),
    "changed places": lambda c, r, k: c - (r**2).sum() + (k**2).sum(),
    "are equal and cancel": lambda c, r, k: c + r.sum() - k.sum(),
    "This is the contrast itself": lambda c, r, k: c,
    "Both diagonals were added": lambda c, r, k: c + (r**2).sum() + (k**2).sum(),
    "values differ": lambda c, r, k: c * r.sum(),
}
RIGHT = {
    "contrastive_loss": {"cross entropy": by_cross_entropy, "loops": by_loops},
    "vicreg_terms": {"torch": all_three, "numpy": in_numpy},
    "redundancy_from_contrast": {"squares": both_diagonals, "dot products": by_dot},
}
WRONG = {
    "contrastive_loss": WRONG_CONTRASTIVE,
    "vicreg_terms": WRONG_VICREG,
    "redundancy_from_contrast": WRONG_DUALITY,
}
