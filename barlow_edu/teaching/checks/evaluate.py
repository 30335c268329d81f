"""Checkers for notebook 09, what did it learn."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from barlow_edu.teaching.checks.base import NotRight, attempt, checker, compare

CHECKERS = ("knn_vote", "rankme_by_hand", "honest_number")

K, TEMPERATURE, CLASSES = 30, 0.3, 3


@checker
def knn_vote(function: Callable[[Tensor, Tensor, Tensor, int, float], Tensor]) -> None:
    """Check a function (bank (N, d), labels (N,), queries (Q, d), k, temperature) -> labels (Q,)."""
    bank, labels, queries = _crowd()
    answer = attempt(function, bank, labels, queries, K, TEMPERATURE)
    shape = getattr(answer, "shape", None)
    if shape == (len(queries), CLASSES):
        raise NotRight(
            "These are the votes, one column a class. Return the class with most of them: argmax(1)."
        )
    if shape == (len(queries), K):
        raise NotRight(
            "This has one column a neighbour. The neighbours must still vote, row by row."
        )
    if isinstance(answer, float) or shape == ():
        raise NotRight("This is one number. Return a label for each query, shape (Q,).")
    right = _vote(*_cosine(bank, queries), labels)
    compare(answer, right, _vote_mistakes(bank, labels, queries), "the list of labels", 1e-9)


def _vote_mistakes(bank: Tensor, labels: Tensor, queries: Tensor) -> dict[str, Tensor]:
    s, rows = _cosine(bank, queries)
    raw = queries @ bank.T
    half = F.normalize(queries, dim=1) @ bank.T
    other = queries @ F.normalize(bank, dim=1).T
    distance = torch.cdist(queries, bank)
    everyone = F.normalize(queries, dim=1) @ F.normalize(bank, dim=1).T
    far = everyone.topk(K, dim=1, largest=False)
    more = everyone.topk(K + 1, dim=1)
    lengths = "A feature's length must not count: divide queries and bank by their lengths first."
    return {
        "You took the plain scalar product. " + lengths: _vote(*raw.topk(K, 1), labels),
        "The features of the bank keep their lengths. " + lengths: _vote(*half.topk(K, 1), labels),
        "The queries keep their lengths, which changes the temperature. " + lengths: (
            _vote(*other.topk(K, 1), labels)
        ),
        "These are the nearest by Euclidean distance, not by cosine.": (
            _vote(*(-distance).topk(K, 1), labels)
        ),
        "All neighbours have the same weight in your vote. Weigh each with exp(s / temperature).": (
            _vote(s, rows, labels, lambda x: torch.ones_like(x))
        ),
        "You weigh with the similarity itself. The weight is exp(s / temperature).": (
            _vote(s, rows, labels, lambda x: x)
        ),
        "You multiply with the temperature. Divide: exp(s / temperature).": (
            _vote(s, rows, labels, lambda x: (x * TEMPERATURE).exp())
        ),
        "Your weight falls with the similarity. There is no minus: exp(s / temperature).": (
            _vote(s, rows, labels, lambda x: (-x / TEMPERATURE).exp())
        ),
        "The temperature is missing: exp(s / temperature).": _vote(s, rows, labels, torch.exp),
        "Only the nearest neighbour decides in your answer. All k vote.": labels[rows[:, 0]],
        "The whole bank votes. Keep the k most similar: topk.": (
            _vote(everyone, torch.arange(len(bank)).expand_as(everyone), labels)
        ),
        "You took the k least similar. topk takes the largest unless told otherwise.": (
            _vote(*far, labels)
        ),
        "You left out the nearest. That is for queries which are in the bank; these are not.": (
            _vote(more.values[:, 1:], more.indices[:, 1:], labels)
        ),
        "These are row numbers of the bank. Look up their labels: labels[rows].": rows[:, 0],
    }


def _crowd() -> tuple[Tensor, Tensor, Tensor]:
    """A bank (90, 4) of three overlapping classes, its labels, and queries (600, 4); lengths vary."""
    generator = torch.Generator().manual_seed(9)
    centres = 0.7 * torch.randn(CLASSES, 4, generator=generator, dtype=torch.float64)
    labels = torch.arange(90) % CLASSES
    noise = torch.randn(690, 4, generator=generator, dtype=torch.float64)
    length = 0.3 + 2.5 * torch.rand(690, 1, generator=generator, dtype=torch.float64)
    bank = (centres[labels] + noise[:90]) * length[:90]
    queries = (centres[torch.arange(600) % CLASSES] + noise[90:]) * length[90:]
    return bank, labels, queries


def _cosine(bank: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
    return tuple((F.normalize(queries, dim=1) @ F.normalize(bank, dim=1).T).topk(K, dim=1))


def _vote(s: Tensor, rows: Tensor, labels: Tensor, weight: Callable | None = None) -> Tensor:
    weights = (s / TEMPERATURE).exp() if weight is None else weight(s)
    votes = torch.zeros(len(s), CLASSES, dtype=s.dtype)
    return votes.scatter_add(1, labels[rows], weights).argmax(1)


@checker
def rankme_by_hand(function: Callable[[Tensor], Tensor]) -> None:
    """Check a function: features (N, D) -> RankMe, exp(entropy) of the shares of the singular values."""
    generator = torch.Generator().manual_seed(3)
    spread = torch.tensor([4.0, 2, 1, 1, 0.5, 0.25], dtype=torch.float64)
    x = torch.randn(50, 6, generator=generator, dtype=torch.float64) * spread + 0.8
    answer = attempt(function, x)
    if getattr(answer, "shape", ()) == (6,):
        raise NotRight("This is a list of 6 numbers. RankMe is one: sum up, then take exp.")
    s, c = torch.linalg.svdvals(x), torch.linalg.svdvals(x - x.mean(0))
    p = s / s.sum()
    entropy = -(p * p.log()).sum()
    mistakes = {
        "You centred the features first. That is the effective rank; RankMe takes them as they are.": (
            _rank(c)
        ),
        "Your shares are those of the squares. RankMe uses the singular values themselves.": (
            _rank(s**2)
        ),
        "Your shares are those of the covariance's eigenvalues. Take singular values, not centred.": (
            _rank(c**2)
        ),
        "This is the entropy. One exp is missing.": entropy,
        "The sign is lost: the entropy is minus the sum of p log p.": (-entropy).exp(),
        "You took exp of an entropy in bits. Use the natural logarithm, or 2 to the power.": (
            (entropy / torch.log(torch.tensor(2.0))).exp()
        ),
        "You took 2 to the power of an entropy in nats. Use exp.": 2**entropy,
        "Divide by the sum of the singular values, not by the largest: the shares must add up to 1.": (
            torch.exp(-((s / s[0]) * (s / s[0]).log()).sum())
        ),
        "This counts the directions that are not zero. RankMe weighs them.": torch.tensor(6.0),
        "This is the participation ratio, (sum)² / sum of squares. A good number, but another one.": (
            s.sum() ** 2 / (s**2).sum()
        ),
        "This is exp of the log of singular values that are no shares yet: divide by their sum.": (
            torch.exp(-(s * s.log()).sum())
        ),
    }
    compare(answer, _rank(s), mistakes, "RankMe")


def _rank(values: Tensor) -> Tensor:
    p = values / values.sum()
    return torch.exp(-(p * p.log()).sum())


@checker
def honest_number(function: Callable[[Tensor, Tensor], float]) -> None:
    """Check a function: accuracies of M candidates on validation and on test, (M,), (M,) -> the one to publish."""
    validation = torch.tensor([0.61, 0.58, 0.66, 0.64, 0.49, 0.63])
    test = torch.tensor([0.60, 0.67, 0.62, 0.65, 0.48, 0.57])
    answer = attempt(function, validation, test)
    best = int(validation.argmax())
    mistakes = {
        "This is the best test accuracy. You have chosen on the test images, and they have paid for it.": (
            test.max()
        ),
        "This is the validation accuracy of the choice. It won among six, so it is too good: give its "
        "accuracy on the test images.": validation.max(),
        "This is an average over candidates. You publish one: the one that validation has chosen.": (
            test.mean()
        ),
        "This is the number of the candidate. Return its accuracy on the test images.": best,
        "This is the average of validation and test for the choice. Validation had its say already.": (
            (validation[best] + test[best]) / 2
        ),
        "You took the worst on validation.": test[int(validation.argmin())],
        "You chose by the sum of both: the test images took part in the choice.": (
            test[int((validation + test).argmax())]
        ),
    }
    compare(answer, test[best], mistakes, "the number to publish", 1e-6)
