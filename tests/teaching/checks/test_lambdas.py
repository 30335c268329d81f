"""Checkers of notebook 08: right answers pass, wrong ones get the diagnosis they deserve."""

import numpy as np
import torch


def stretch(lambdas, knn, margin, reach=0):
    best = low = high = int(knn.argmax())
    while low > 0 and knn[low - 1] >= knn[best] - margin:
        low -= 1
    while high < len(knn) - 1 and knn[high + 1] >= knn[best] - margin:
        high += 1
    return best, low - reach, high + reach


def strictly(lambdas, knn, margin):
    best = low = high = int(knn.argmax())
    while low > 0 and knn[low - 1] > knn[best] - margin:
        low -= 1
    while high < len(knn) - 1 and knn[high + 1] > knn[best] - margin:
        high += 1
    return lambdas[[best, low, high]]


def by_runs(lambdas, knn, margin):
    """The same with numpy: label the unbroken runs of good values."""
    knn, lambdas = np.asarray(knn), np.asarray(lambdas)
    good = knn >= knn.max() - margin
    label = np.cumsum(np.diff(good, prepend=good[0]))
    run = lambdas[(label == label[knn.argmax()]) & good]
    return lambdas[knn.argmax()], run.min(), run.max()


def everything_good(lambdas, knn, margin):
    good = lambdas[knn >= knn.max() - margin]
    return lambdas[knn.argmax()], good.min(), good.max()


RIGHT = {
    "same_balance": [
        lambda lambd, dim, new: lambd * (dim - 1) / (new - 1),
        lambda lambd, dim, new: (
            torch.tensor(lambd) / ((new**2 - new) / new) * ((dim**2 - dim) / dim)
        ),
    ],
    "schedule": [lambda t: 10 ** (-2 * t), lambda t: 10 ** (-0.2 - 1.8 * t)],
    "plateau": [
        lambda lambdas, knn, margin: [lambdas[i] for i in stretch(lambdas, knn, margin)],
        by_runs,
        lambda lambdas, knn, margin: lambdas[list(stretch(lambdas, knn, margin))],
    ],
}
WRONG = {
    "same_balance": {
        "other way round": lambda lambd, dim, new: lambd * (new - 1) / (dim - 1),
        "not D": lambda lambd, dim, new: lambd * dim / new,
        "diagonal grows too": lambda lambd, dim, new: lambd * dim * (dim - 1) / new / (new - 1),
        "D²": lambda lambd, dim, new: lambd * (dim / new) ** 2,
        "root": lambda lambd, dim, new: lambd * ((dim - 1) / (new - 1)) ** 0.5,
        "same λ": lambda lambd, dim, new: lambd,
        "weight": lambda lambd, dim, new: lambd * (dim - 1),
        "values differ": lambda lambd, dim, new: 1 / new,
        "returned nothing": lambda lambd, dim, new: None,
    },
    "schedule": {
        "All dimensions are copies": lambda t: 0,
        "are wanted. A higher": lambda t: 0.001,
        "twins disagree": lambda t: 10.0,
        "λ at t = 0 is 'high'": lambda t: "high",
        "λ at t = 0 is -1": lambda t: -1,
        "returned nothing": lambda t: None,
    },
    "plateau": {
        "places in the list": stretch,
        "accuracies": lambda lambdas, knn, margin: knn[list(stretch(lambdas, knn, margin))],
        "unbroken": everything_good,
        "too far": lambda lambdas, knn, margin: lambdas[list(stretch(lambdas, knn, margin, 1))],
        "stopped at the best": lambda lambdas, knn, margin: [lambdas[knn.argmax()]] * 3,
        "order is": lambda lambdas, knn, margin: sorted(
            float(lambdas[i]) for i in stretch(lambdas, knn, margin)
        ),
        "worst": lambda lambdas, knn, margin: [lambdas[knn.argmin()]] * 3,
        "relative": lambda lambdas, knn, margin: lambdas[
            list(stretch(lambdas, knn, margin * float(knn.max())))
        ],
        "so >= and not >": strictly,
        "three numbers": lambda lambdas, knn, margin: "0.005",
        "shape": lambda lambdas, knn, margin: [lambdas[3], lambdas[2]],
    },
}
