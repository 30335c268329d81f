"""The checkers of notebook 11: right answers pass, and every wrong one gets its own diagnosis."""

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.neighbors import KNeighborsClassifier

import barlow_edu as be


def vote(
    bank,
    labels,
    queries,
    k,
    temperature,
    unit=(1, 1),
    weigh=None,
    largest=True,
    skip=0,
    all_k=False,
):
    a = F.normalize(queries, dim=1) if unit[0] else queries
    b = F.normalize(bank, dim=1) if unit[1] else bank
    s, rows = (a @ b.T).topk(len(bank) if all_k else k + skip, dim=1, largest=largest)
    s, rows = s[:, skip:], rows[:, skip:]
    weights = (s / temperature).exp() if weigh is None else weigh(s, temperature)
    return (F.one_hot(labels[rows]) * weights[..., None]).sum(1).argmax(1)


def vote_in_a_loop(bank, labels, queries, k, temperature):
    found = []
    for q in queries:
        s = [float(q @ b / (q.norm() * b.norm())) for b in bank]
        nearest = sorted(range(len(bank)), key=lambda i: -s[i])[:k]
        votes = [
            sum(np.exp(s[i] / temperature) for i in nearest if labels[i] == c)
            for c in range(int(labels.max()) + 1)
        ]
        found.append(int(np.argmax(votes)))
    return found


def vote_by_sklearn(bank, labels, queries, k, temperature):
    knn = KNeighborsClassifier(k, metric="cosine", weights=lambda d: np.exp((1 - d) / temperature))
    return knn.fit(bank.numpy(), labels.numpy()).predict(queries.numpy())


def euclidean(bank, labels, queries, k, temperature):
    distance, rows = torch.cdist(queries, bank).topk(k, dim=1, largest=False)
    weights = (-distance / temperature).exp()
    return (F.one_hot(labels[rows]) * weights[..., None]).sum(1).argmax(1)


RIGHT_VOTE = {"torch": vote, "loop": vote_in_a_loop, "sklearn": vote_by_sklearn}
WRONG_VOTE = {
    "plain scalar product": lambda *x: vote(*x, unit=(0, 0)),
    "bank keep their lengths": lambda *x: vote(*x, unit=(1, 0)),
    "queries keep their lengths": lambda *x: vote(*x, unit=(0, 1)),
    "normalise along dim 1": lambda b, y, q, k, t: vote(
        F.normalize(b, dim=0), y, F.normalize(q, dim=0), k, t, unit=(0, 0)
    ),
    "right on other inputs": lambda b, y, q, k, t: vote(b, y, q, k, 0.3),
    "Euclidean": euclidean,
    "the same weight": lambda *x: vote(*x, weigh=lambda s, t: torch.ones_like(s)),
    "the similarity itself": lambda *x: vote(*x, weigh=lambda s, t: s),
    "multiply by the temperature": lambda *x: vote(*x, weigh=lambda s, t: (s * t).exp()),
    "falls with the similarity": lambda *x: vote(*x, weigh=lambda s, t: (-s / t).exp()),
    "temperature is missing": lambda *x: vote(*x, weigh=lambda s, t: s.exp()),
    "Only the nearest": lambda b, y, q, k, t: vote(b, y, q, 1, t),
    "whole bank": lambda *x: vote(*x, all_k=True),
    "least similar": lambda *x: vote(*x, largest=False),
    "left out the nearest": lambda *x: vote(*x, skip=1),
    "row numbers": lambda b, y, q, k, t: be.nearest(b, q, 1)[1][:, 0],
    "These are the votes": lambda b, y, q, k, t: torch.zeros(len(q), 3),
    "one column a neighbour": lambda b, y, q, k, t: y[be.nearest(b, q, k)[1]],
    "This is one number": lambda b, y, q, k, t: 0.5,
    "in place": lambda b, y, q, k, t: vote(b.div_(b.norm(dim=1, keepdim=True)), y, q, k, t),
    "returned nothing": lambda *x: None,
}


def shares(x, centre=False, power=1):
    x = x - x.mean(0) if centre else x
    s = torch.linalg.svdvals(x) ** power
    return s / s.sum()


def entropy(p, log=torch.log):
    return -(p * log(p)).sum()


def rankme_by_eigenvalues(x):
    p = np.sqrt(np.linalg.eigvalsh(x.T.numpy() @ x.numpy()))
    p = p / p.sum()
    return float(np.prod(p**-p))


RIGHT_RANK = {
    "svd": lambda x: entropy(shares(x)).exp(),
    "eigenvalues": rankme_by_eigenvalues,
    "package": be.rankme,
    "bits": lambda x: 2 ** entropy(shares(x), torch.log2),
    "the paper's epsilon": lambda x: entropy(shares(x) + 1e-7).exp(),
}
WRONG_RANK = {
    "centred the features": lambda x: entropy(shares(x, True)).exp(),
    "You squared the singular values": lambda x: entropy(shares(x, power=2)).exp(),
    "covariance's eigenvalues": lambda x: entropy(shares(x, True, 2)).exp(),
    "the entropy itself": lambda x: entropy(shares(x)),
    "sign of the entropy is turned": lambda x: (-entropy(shares(x))).exp(),
    "entropy in bits": lambda x: entropy(shares(x), torch.log2).exp(),
    "entropy in nats": lambda x: 2 ** entropy(shares(x)),
    "divided by the largest": lambda x: entropy(shares(x) / shares(x)[0]).exp(),
    "counts every singular value": lambda x: torch.linalg.matrix_rank(x).double(),
    "participation ratio": lambda x: 1 / shares(x).square().sum(),
    "not divided by their sum": lambda x: entropy(torch.linalg.svdvals(x)).exp(),
    "list of 6 numbers": lambda x: shares(x) * shares(x).log(),
    "values differ": lambda x: entropy(shares(x)).exp() + 0.1,
}


def box(grey):
    """Where the garment is: grey (N, 32, 32) -> its rows (N, 32) and columns (N, 32), 0 or 1."""
    ground = torch.cat([grey[:, 0], grey[:, -1]], 1).median(1).values
    garment = ((grey - ground[:, None, None]).abs() > 20).double()
    return garment.amax(2), garment.amax(1)


def shape(grey):
    rows, columns = box(grey)
    return rows.sum(1) / columns.sum(1).clamp(min=1)


def stack(*answers):
    return lambda grey: torch.stack([answer(grey).double() for answer in answers], 1)


def ground(grey):
    return grey[:, 0].median(1).values


def darkest(grey):
    return grey.amin((1, 2))


def texture(grey):
    return grey.diff(dim=1).abs().mean((1, 2)) / grey.std((1, 2))


def noise(grey):
    return torch.rand(len(grey), generator=torch.Generator().manual_seed(len(grey)))


RIGHT_QUESTIONS = {
    "ground and shape": stack(ground, shape),
    "darkest and texture, as an array": lambda grey: stack(darkest, texture)(grey).numpy(),
}
WRONG_QUESTIONS = {
    "seem to be swapped": stack(shape, ground),
    "First question": stack(lambda grey: grey.std((1, 2)), shape),
    "It should rise": stack(ground, darkest),
    "but the pixels have": stack(ground, lambda grey: box(grey)[0].argmax(1)),
    "the same for all": stack(ground, lambda grey: torch.ones(len(grey))),
    "in different company": stack(ground, lambda grey: shape(grey) - shape(grey).mean()),
    "two numbers for each": shape,
    "NaN": stack(ground, lambda grey: shape(grey) / 0 * 0),
    "Look at each by itself": stack(noise, shape),
    "raised": lambda grey: grey.mean((1, 2, 3)),
}

RIGHT = {"knn_vote": RIGHT_VOTE, "rankme_by_hand": RIGHT_RANK, "two_questions": RIGHT_QUESTIONS}
WRONG = {"knn_vote": WRONG_VOTE, "rankme_by_hand": WRONG_RANK, "two_questions": WRONG_QUESTIONS}
