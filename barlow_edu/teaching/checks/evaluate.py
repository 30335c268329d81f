"""Checkers of notebooks 11, what did it learn, and 12, what may be said of differences between seeds."""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from barlow_edu.data import load_images
from barlow_edu.evaluation.features import extract_features
from barlow_edu.evaluation.probes import factor_probe
from barlow_edu.runs import load_run
from barlow_edu.teaching.checks.base import NotRight, Shaped, attempt, checker, judge, numbers, tell
from barlow_edu.teaching.checks.worlds import centred, cosines, drawn, normal

BROUGHT = 0.3  # of R², the least that training is to take or to bring


def _crowd(classes: int, seed: int, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """A bank (90, 4) of overlapping classes, its labels, and queries (n, 4); lengths vary."""
    generator = drawn(seed)
    centres = 0.7 * torch.randn(classes, 4, generator=generator, dtype=torch.float64)
    noise = torch.randn(90 + n, 4, generator=generator, dtype=torch.float64)
    length = 0.3 + 2.5 * torch.rand(90 + n, 1, generator=generator, dtype=torch.float64)
    labels = torch.cat([torch.arange(90), torch.arange(n)]) % classes
    x = (centres[labels] + noise) * length
    return x[:90], labels[:90], x[90:]


def _vote(bank, y, queries, k, t, like=cosines, weight=lambda s, t: (s / t).exp(), take=torch.topk):
    """A vote by its parts: how alike, how heavy, and who votes."""
    s, rows = take(like(queries, bank), k)
    votes = torch.zeros(len(s), int(y.max()) + 1, dtype=s.dtype)
    return votes.scatter_add(1, y[rows], weight(s, t)).argmax(1)


@checker
def knn_vote(function: Callable[[Tensor, Tensor, Tensor, int, float], Tensor]) -> None:
    """Check a function (bank (N, d), labels (N,), queries (Q, d), k, temperature) -> labels (Q,)."""
    worlds = [(*_crowd(3, 9, 600), 30, 0.3), (*_crowd(4, 10, 100), 11, 0.8)]
    judge(function, worlds, _vote, {
        "These are the votes, one column a class. Return the class with most of them: argmax(1).":
            lambda b, y, q, k, t: Shaped([len(q), int(y.max()) + 1]),
        "This has one column a neighbour. The neighbours must still vote, row by row.":
            lambda b, y, q, k, t: Shaped([len(q), k]),
        "This is one number. Return a label for each query, shape (Q,).": lambda *_: Shaped(),
        "You took the plain scalar product. Lengths must not count: divide queries and bank by theirs first.":
            {"like": lambda q, b: q @ b.T},
        "The features of the bank keep their lengths, so long ones win. Divide them by their lengths, too.":
            {"like": lambda q, b: F.normalize(q, dim=1) @ b.T},
        "The queries keep their lengths, so each has another temperature. Divide them by their lengths, too.":
            {"like": lambda q, b: q @ F.normalize(b, dim=1).T},
        "You divided every column by its length (dim 0). A feature is a row: normalise along dim 1.":
            {"like": lambda q, b: cosines(q, b, dim=0)},
        "These are the nearest by Euclidean distance, not by cosine.": {"like": lambda q, b: -torch.cdist(q, b)},
        "All neighbours have the same weight in your vote. Weigh each with exp(s / temperature).":
            {"weight": lambda s, t: torch.ones_like(s)},
        "You weigh with the similarity itself. The weight is exp(s / temperature).": {"weight": lambda s, t: s},
        "You multiply by the temperature. Divide: exp(s / temperature).": {"weight": lambda s, t: (s * t).exp()},
        "Your weight falls with the similarity. Leave out the minus: exp(s / temperature).":
            {"weight": lambda s, t: (-s / t).exp()},
        "The temperature is missing: exp(s / temperature).": {"weight": lambda s, t: s.exp()},
        "Only the nearest neighbour decides in your answer. All k vote.": {"take": lambda s, k: s.topk(1, 1)},
        "The whole bank votes. Keep the k most similar: topk.": {"take": lambda s, k: s.topk(s.shape[1], 1)},
        "You took the k least similar. topk takes the largest unless it is told otherwise.":
            {"take": lambda s, k: s.topk(k, 1, largest=False)},
        "You left out the nearest. That is for queries which are in the bank; these are not.":
            {"take": lambda s, k: [x[:, 1:] for x in s.topk(k + 1, 1)]},
        "These are row numbers of the bank. Look up their labels: labels[rows].":
            lambda b, y, q, k, t: cosines(q, b).argmax(1),
    }, "the list of labels", 1e-9)  # fmt: skip


def _rankme(x, values=torch.linalg.svdvals, share=lambda s: s / s.sum(), out=torch.exp) -> Tensor:
    p = share(values(x))
    return out(-torch.xlogy(p, p).sum())


@checker
def rankme_by_hand(function: Callable[[Tensor], Tensor]) -> None:
    """Check a function: features (N, D) -> RankMe, exp(entropy) of the shares of the singular values."""
    spread = torch.tensor([4.0, 2, 1, 1, 0.5, 0.25], dtype=torch.float64)
    x, other = normal(50, 6, seed=3) * spread + 0.8, normal(40, 4, seed=4) * spread[1:5] - 0.3
    judge(function, [(x,), (other,)], _rankme, {
        "This is a list of 6 numbers. RankMe is one: sum up, then take exp.": lambda x: Shaped(x.shape[1:]),
        "You centred the features first. That is the effective rank. RankMe takes the features as they are.":
            lambda x: _rankme(centred(x)),
        "Your shares are those of the covariance's eigenvalues. Take singular values, not centred.":
            {"values": lambda x: torch.linalg.svdvals(centred(x)) ** 2},
        "This is the entropy itself. Take exp of it: then D equal values count as D.": {"out": lambda h: h},
        "This is the entropy in bits. Use the natural logarithm, and take exp at the end.":
            {"out": lambda h: h / math.log(2)},
        "You took exp of an entropy in bits. Use the natural logarithm: log, not log2.":
            {"out": lambda h: (h / math.log(2)).exp()},
        "You took 2 to the power of an entropy in nats. Use exp.": {"out": torch.exp2},
        "The sign of the entropy is turned: it is minus the sum of p log p.": {"out": lambda h: (-h).exp()},
        "You squared the singular values. Here p is each one divided by their sum, without squares.":
            {"values": lambda x: torch.linalg.svdvals(x) ** 2},
        "The singular values were not divided by their sum. The shares must add up to 1.": {"share": lambda s: s},
        "You divided by the largest singular value. Divide by their sum: the shares must add up to 1.":
            {"share": lambda s: s / s[0]},
        "This counts every singular value above 0 as one. A small one should count for less.": lambda x: x.shape[1],
        "This is the participation ratio, (Σ s)² / Σ s². A fair count too, but not the one asked for.":
            lambda x: torch.linalg.svdvals(x).sum() ** 2 / x.square().sum(),
    }, "RankMe")  # fmt: skip


@checker
def two_questions(function: Callable[[Tensor], Tensor]) -> None:
    """Check a function: grey images (N, 32, 32), 0 to 255 -> (N, 2), what training takes away, and what it brings.

    Judged on test garments by R² (``factor_probe``) of ``garments_hero``, of its untrained twin, and of grey pixels.
    """
    grey, tables = _tables()
    wanted = "a tensor (N, 2): two numbers for each image"
    answers, again = (numbers(attempt(function, x), wanted, len(x), 2) for x in (grey, grey[:50]))
    other = ((again - answers[:50]).abs() > 1e-3 * answers.std(0)).any()
    tell({"An image gets another number in different company. Look at each by itself.": other})
    r2 = factor_probe(tables, {"First": answers[:, 0], "Second": answers[:, 1]})
    pixels, before, after = (list(r2[name].values()) for name in ("pixels", "untrained", "trained"))
    pairs = list(zip(before, after, strict=True))
    rise = [a - b for b, a in pairs]
    first, second = (f"R² is {b:.2f} before the training, {a:.2f} after it" for b, a in pairs)
    tell({
        f"Your columns seem to be swapped. First question: {first}.": rise[0] > BROUGHT and rise[1] < 0,
        f"First question: {first}. It should fall by {BROUGHT}. What do two views not share?": rise[0] > -BROUGHT,
        f"Second question: {second}. It should rise by {BROUGHT}. What do two views share?": rise[1] < BROUGHT,
        f"Second question: {second}, but the pixels have {pixels[1]:.2f}. Ask for something that no weighted sum of "
        f"pixels knows: be {BROUGHT} ahead of them.": after[1] < pixels[1] + BROUGHT,
    })  # fmt: skip


@cache
def _tables() -> tuple[Tensor, dict[str, Tensor]]:
    """Grey images (600, 32, 32), none of them on the page, and what is asked: name -> features (600, d)."""
    run, images = load_run("garments_hero"), load_images("garments", split="test").images[2000:2600]
    grey, normalize = images.float().mean(1), run.views().normalize
    encoders = {"untrained": run.load_model(weights=False), "trained": run.load_model()}
    features = {n: extract_features(m.encoder, images, normalize) for n, m in encoders.items()}
    return grey, {"pixels": grey.flatten(1)} | features


def _ends(a: Tensor, b: Tensor, t: float, sd=lambda a, b: (a - b).std(), power=0.5) -> Tensor:
    half = t * sd(a, b) / len(a) ** power
    return (a - b).mean() + torch.stack((-half, half))


@checker
def paired_interval(learner) -> None:
    """f(a, b, t) -> (low, high) of mean ± t sd / √n, of the differences a − b seed by seed."""
    a = torch.tensor([0.412, 0.371, 0.455, 0.430], dtype=torch.float64)
    b = torch.tensor([0.395, 0.360, 0.421, 0.418], dtype=torch.float64)
    # t of four and of six seeds; in the second world a and b have other deviations
    worlds = [(a, b, 3.182), (b.repeat(2)[:6], a.square().repeat(2)[:6], 2.571)]
    judge(learner, worlds, _ends, {
        "That is b − a. The question is how far a lies above b.": lambda a, b, t: _ends(b, a, t),
        "You took the deviations of a and of b apart. Subtract first, seed by seed: what a seed does to both "
        "then cancels.": {"sd": lambda a, b: (a.var() + b.var()).sqrt()},
        "Your deviation divides by n. With few seeds take n − 1, as torch's std does.":
            {"sd": lambda a, b: (a - b).std(correction=0)},
        "√n is missing: the mean of n seeds wavers less than one seed.": {"power": 0},
        "You divided by n. The mean wavers like 1 / √n.": {"power": 1},
        "t is missing: that is the standard error. With few seeds it is much too narrow.": {"t": 1.0},
        "Low comes first, then high.": lambda a, b, t: _ends(a, b, -t),
    }, "the interval", look=lambda x, *_: numbers(x, "two numbers: low, high"))  # fmt: skip


@checker
def reading(learner) -> None:
    """f(low, high, margin) -> "alike", "above", "below" or "undecided"."""
    cases = (
        (0.01, 0.08, "above", "It lies above 0, and it is not all within the margin."),
        (-0.08, -0.01, "below", "It lies below 0, and it is not all within the margin."),
        (-0.02, 0.01, "alike", "It lies within ± the margin: too little to care about."),
        (-0.07, 0.06, "undecided", "0 is inside, and so are differences that matter."),
        (-0.05, 0.09, "undecided", "0 is inside, and so are differences that matter."),
        (0.004, 0.02, "alike", "It lies above 0, but within the margin. Ask for the margin first."),
        (-0.02, -0.004, "alike", "It lies below 0, but within the margin. Ask for the margin first."),
        (-0.02, 0.05, "undecided", "Only one end is within the margin. Both must be."),
        (-0.05, 0.02, "undecided", "Only one end is within the margin. Both must be."),
    )  # fmt: skip
    words = ("alike", "above", "below", "undecided")
    for low, high, right, why in cases:
        answer = attempt(learner, low, high, 0.03)
        tell({
            f"Return one of the four words, not {type(answer).__name__}.": not isinstance(answer, str),
            f"{answer!r} is none of the four words.": answer not in words,
            f"[{low}, {high}] with a margin of 0.03: you say {answer!r}, it is {right!r}. {why}": answer != right,
        })  # fmt: skip
    by_heart = attempt(learner, -0.02, 0.01, 0.015) == "alike"
    tell({"You did not use the margin that you are given: here it is 0.015.": by_heart})


VARIANTS, BUDGET, WORLDS = 8, 40, 400
POINTS = 1.5  # standard deviation between variants, and between seeds of one, in points of kNN
EQUAL, AHEAD = 0.705, 0.03  # share of the worlds that five seeds each get right; beyond it


@checker
def choose_variant(learner) -> None:
    """f(train, variants, budget) -> the variant held best; train(variant) is kNN, in points, with one more seed."""
    right = 0.0
    for seed in range(WORLDS):
        draw = np.random.default_rng(seed)
        truth, noise = draw.normal(35, POINTS, VARIANTS), [*draw.normal(0, POINTS, BUDGET)]

        def train(variant: int, truth=truth, noise=noise) -> float:
            if not noise:
                raise RuntimeError(f"All {BUDGET} trainings are spent.")
            return float(truth[_number(variant)] + noise.pop())

        right += (_number(attempt(learner, train, VARIANTS, BUDGET)) == truth.argmax()) / WORLDS
    you = f"You choose the best variant in {right:.1%} of the worlds"
    tell({
        f"{you}, a blind choice in {1 / VARIANTS:.1%}. Train, and take the highest kNN.": right < 1.5 / VARIANTS,
        f"{you}, five seeds each in {EQUAL:.1%}: be {100 * AHEAD:.0f} points ahead. Spend all {BUDGET} trainings. "
        "Which variants need no further seed?": right < EQUAL + AHEAD,
    })  # fmt: skip


def _number(answer: object) -> int:
    if str(getattr(answer, "item", lambda: answer)()) not in map(str, range(VARIANTS)):
        raise NotRight(f"A variant is a number from 0 to {VARIANTS - 1}, not {answer!r:.60}.")
    return int(answer)
