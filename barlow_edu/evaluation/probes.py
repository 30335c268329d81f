"""Questions asked of frozen features: neighbours, linear probe, few labels, which factors they hold."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

KNN_K = 200
KNN_TEMPERATURE = 0.1
# Weight of the squared norm beside the mean log loss, from strong to weak: what validation chooses from.
REGULARIZATIONS = (10.0, 1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5)
FEW_REGULARIZATION = 0.1  # too few labels to choose with; chosen on training images of garments
VALIDATION_SHARE = 0.1
SEARCH_LIMIT = 10_000  # images that the search fits to; the probe itself takes all
RIDGE_PENALTIES = np.logspace(-1, 5, 7)
log = logging.getLogger("barlow_edu")


class Score(NamedTuple):
    """Mean and standard deviation (divided by n - 1) over n seeds; sd is 0 for one seed."""

    mean: float
    sd: float
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Score:
        """The score of one value a seed."""
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        return cls(float(np.mean(values)), sd, len(values))


def nearest(bank: Tensor, queries: Tensor, k: int = 5) -> tuple[Tensor, Tensor]:
    """The k most similar rows of ``bank`` (N, dim) for each row of ``queries`` (Q, dim), by cosine.

    Returns similarities and row numbers, (Q, k) each, the most similar first. Raises ValueError if the
    dimensions differ, features are not finite, or k is not between 1 and N.
    """
    _check_pair(bank, queries)
    if not 1 <= k <= len(bank):
        raise ValueError(f"k must be between 1 and the {len(bank)} features there are, got {k}.")
    bank = F.normalize(bank.float(), dim=1)
    parts = [(F.normalize(q.float(), dim=1) @ bank.T).topk(k, dim=1) for q in queries.split(1000)]
    return torch.cat([p.values for p in parts]), torch.cat([p.indices for p in parts])


def knn_accuracy(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    k: int = KNN_K,
    temperature: float = KNN_TEMPERATURE,
) -> float:
    """Accuracy in [0, 1] of a weighted k-nearest-neighbour vote (Wu et al., CVPR 2018).

    Similarity is the cosine s of the features (N, dim); a neighbour votes with weight exp(s / temperature).
    k = 200 and temperature = 0.1 are what most published kNN numbers use. k is cut to the number of
    training images. Raises ValueError if shapes do not fit, features are not finite, or k < 1.
    """
    _check_features(train_features, train_labels, test_features, test_labels)
    if k < 1 or temperature <= 0:
        raise ValueError(
            f"k must be at least 1 and temperature above 0, got {k} and {temperature}."
        )
    similarity, rows = nearest(train_features, test_features, min(k, len(train_features)))
    classes = int(max(train_labels.max(), test_labels.max())) + 1
    # The largest similarity is taken off first: the vote is the same and nothing overflows.
    weights = ((similarity - similarity[:, :1]) / temperature).exp()
    votes = torch.zeros(len(rows), classes, device=weights.device)
    votes.scatter_add_(1, train_labels.to(rows.device)[rows], weights)
    return float((votes.argmax(1).cpu() == test_labels.cpu()).double().mean())


def linear_probe(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    regularization: float | None = None,
    max_iter: int = 200,
    seed: int = 0,
) -> float:
    """Accuracy in [0, 1] of scikit-learn's logistic regression on standardised frozen features.

    regularization: weight of the squared norm beside the mean log loss (scikit-learn's C is
    1 / (N regularization)); default, what ``choose_regularization`` finds on a validation split of the
    training images, drawn by ``seed``. The test images choose nothing. Raises ValueError if shapes do not
    fit, features are not finite or there is only one class.
    """
    _check_features(train_features, train_labels, test_features, test_labels)
    if regularization is None:
        regularization = choose_regularization(train_features, train_labels, seed, max_iter)
    x, y = _array(train_features), _classes(train_labels)
    scaler = _scaler(x)
    probe = _logistic(len(x), regularization, max_iter)
    _fit(probe, scaler.transform(x), y)
    return float(probe.score(scaler.transform(_array(test_features)), _array(test_labels)))


def choose_regularization(
    features: Tensor, labels: Tensor, seed: int = 0, max_iter: int = 200
) -> float:
    """The regularisation, of ``REGULARIZATIONS``, with the best accuracy on a held-out tenth of the images.

    features: (N, dim), of training images only. The split is drawn by ``seed``, every class in both parts
    where it has two images or more. The search goes from strong to weak, each fit starting from the last,
    and ends when two in a row were no better; the stronger wins a tie. It fits to at most 10,000 images.
    With fewer than 50 images there is nothing to choose with: 0.1 is returned.
    """
    x, y = _array(features), _classes(labels)
    if len(x) < 50:
        return FEW_REGULARIZATION
    held_out = max(len(y) // round(1 / VALIDATION_SHARE), len(np.unique(y)))
    fit, held = _split(y, min(held_out, len(y) // 2), seed)
    fit = fit[:SEARCH_LIMIT]
    scaler = _scaler(x[fit])
    x_fit, x_held = scaler.transform(x[fit]), scaler.transform(x[held])
    probe, scores = _logistic(len(fit), 1.0, max_iter, warm_start=True), []
    for regularization in REGULARIZATIONS:
        probe.set_params(C=1 / (len(fit) * regularization))
        _fit(probe, x_fit, y[fit], quiet=True)
        scores.append(probe.score(x_held, y[held]))
        if len(scores) > 2 and max(scores[-2:]) <= max(scores[:-2]):
            break
    return REGULARIZATIONS[int(np.argmax(scores))]


def few_label_probe(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    per_class: Sequence[int] = (1, 5, 10, 100),
    seeds: Sequence[int] = (0, 1, 2),
    regularization: float = FEW_REGULARIZATION,
) -> dict[int, Score]:
    """Linear probe with only a few labels a class: labels a class -> accuracy over seeds.

    A seed draws which images are labelled (the same for every kind of feature). All training images
    standardise the features, since that needs no labels. The regularisation is fixed: with so few labels a
    validation split would cost more than it brings, and a larger one would be labels in disguise. Raises
    ValueError if a class has fewer images than asked for.
    """
    _check_features(train_features, train_labels, test_features, test_labels)
    scaler = _scaler(_array(train_features))
    x, x_test = (scaler.transform(_array(f)) for f in (train_features, test_features))
    y, y_test = _array(train_labels), _array(test_labels)
    scores: dict[int, Score] = {}
    for n in per_class:
        found = []
        for seed in seeds:
            rows = labelled_subset(train_labels, n, seed).numpy()
            probe = _logistic(len(rows), regularization, 200)
            _fit(probe, x[rows], _classes(y[rows]))
            found.append(probe.score(x_test, y_test))
        scores[n] = Score.of(found)
    return scores


def labelled_subset(labels: Tensor, per_class: int, seed: int = 0) -> Tensor:
    """Rows of ``per_class`` images of every class, drawn by ``seed``, in order of their row.

    With the same seed fewer labels are a part of more. Raises ValueError if a class has too few.
    """
    counts = torch.bincount(labels)
    counts = counts[counts > 0]
    if per_class < 1 or counts.min() < per_class:
        raise ValueError(
            f"Every class needs {per_class} labelled images (at least 1), but one has "
            f"{int(counts.min())}. Ask for fewer a class."
        )
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    mixed = labels.numpy()[shuffled]
    rows = [shuffled[mixed == k][:per_class] for k in np.unique(mixed)]
    return torch.from_numpy(np.sort(np.concatenate(rows)))


def factor_probe(
    features: Mapping[str, Tensor], factors: Mapping[str, Tensor], seed: int = 0
) -> dict[str, dict[str, float]]:
    """How well each factor can be read from each layer, linearly: layer -> factor -> R² on held-out images.

    features: name -> (N, dim), e.g. of ``layer_features``. factors: name -> (N,) or (N, k) numbers, e.g.
    ``ImageSet.factors``; integer class labels become one column a class when their name is "class". Ridge
    regression (scikit-learn's RidgeCV) is fitted to one half of the images, its penalty chosen for each
    number by leave-one-out within that half; R² is measured on the other and averaged over a factor's
    columns: 1 is perfect, 0 is no better than the mean, below 0 is worse. Raises ValueError if the numbers
    of rows differ or a factor does not vary.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.metrics import r2_score

    columns = {name: _factor(name, x) for name, x in factors.items()}
    _check_factors(features, columns)
    targets = np.concatenate(list(columns.values()), axis=1)
    order = np.random.default_rng(seed).permutation(len(targets))
    fit, held = order[: len(order) // 2], order[len(order) // 2 :]
    table: dict[str, dict[str, float]] = {}
    for layer, x in features.items():
        x = _array(x).astype(np.float64)
        scaler = _scaler(x[fit])
        ridge = RidgeCV(RIDGE_PENALTIES, alpha_per_target=True)
        ridge.fit(scaler.transform(x[fit]), targets[fit])
        told = ridge.predict(scaler.transform(x[held])).reshape(len(held), -1)
        r2 = r2_score(targets[held], told, multioutput="raw_values")
        ends = np.cumsum([c.shape[1] for c in columns.values()])[:-1]
        parts = np.split(r2, ends)
        table[layer] = {n: float(p.mean()) for n, p in zip(columns, parts, strict=True)}
    return table


def _factor(name: str, x: Tensor) -> np.ndarray:
    """(N, k) float64."""
    x = _array(torch.as_tensor(x))
    if name == "class":
        x = x[:, None] == np.unique(x)
    return x.reshape(len(x), -1).astype(np.float64)


def _check_factors(features: Mapping[str, Tensor], columns: Mapping[str, np.ndarray]) -> None:
    sizes = {name: len(x) for name, x in (*features.items(), *columns.items())}
    if len(set(sizes.values())) != 1:
        raise ValueError(f"Features and factors need one row an image, got {sizes}.")
    for name, x in columns.items():
        if (x.max(0) == x.min(0)).any():
            raise ValueError(f"The factor {name!r} is the same for all images: leave it out.")


def _logistic(n: int, regularization: float, max_iter: int, warm_start: bool = False):
    from sklearn.linear_model import LogisticRegression

    if regularization <= 0:
        raise ValueError(f"regularization must be above 0, got {regularization}.")
    strength = 1 / (n * regularization)
    return LogisticRegression(C=strength, max_iter=max_iter, tol=1e-3, warm_start=warm_start)


def _fit(probe, x: np.ndarray, y: np.ndarray, quiet: bool = False) -> None:
    """Fit; where L-BFGS stops at its last iteration say so in the log, not on the page."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        probe.fit(x, y)
    if caught and not quiet:
        log.info("A probe on %d features stopped after %d iterations.", x.shape[1], probe.max_iter)


def _scaler(x: np.ndarray):
    from sklearn.preprocessing import StandardScaler

    return StandardScaler().fit(x)


def _split(y: np.ndarray, held: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to fit to and rows held out, shuffled, the classes in proportion where that can be."""
    from sklearn.model_selection import train_test_split

    counts = np.unique(y, return_counts=True)[1]
    stratify = y if counts.min() >= 2 else None
    fit, held_rows = train_test_split(
        np.arange(len(y)), test_size=held, random_state=seed, stratify=stratify
    )
    return fit, held_rows


def _classes(labels: Tensor | np.ndarray) -> np.ndarray:
    y = _array(torch.as_tensor(labels))
    if len(np.unique(y)) < 2:
        raise ValueError("A probe needs images of at least two classes, got one.")
    return y


def _array(x: Tensor) -> np.ndarray:
    """For scikit-learn, which knows no bfloat16, no gradients and no GPU."""
    x = x.detach().cpu()
    return (x.float() if x.is_floating_point() else x).numpy()


def _check_features(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor) -> None:
    _check_pair(train, test)
    if len(train) != len(train_labels) or len(test) != len(test_labels):
        raise ValueError(
            f"As many labels as features are needed, got {len(train_labels)} for {len(train)} and "
            f"{len(test_labels)} for {len(test)}."
        )


def _check_pair(train: Tensor, test: Tensor) -> None:
    if train.ndim != 2 or test.ndim != 2 or train.shape[1] != test.shape[1]:
        raise ValueError(
            "Features must be (N, dim) with the same dim, got "
            f"{tuple(train.shape)} and {tuple(test.shape)}."
        )
    if not (torch.isfinite(train).all() and torch.isfinite(test).all()):
        raise ValueError("Features hold NaN or infinity: did training diverge?")
