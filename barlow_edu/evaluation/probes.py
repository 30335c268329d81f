"""Questions asked of frozen features: neighbours, linear probe, few labels, which factors they hold."""

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
VALIDATION_PART = 10  # one in ten images
SEARCH_LIMIT = 10_000  # images that the search fits to; the probe itself takes all
MAX_ITER = 200  # of L-BFGS
RIDGE_PENALTIES = np.logspace(-1, 5, 7)
log = logging.getLogger("barlow_edu")


class Score(NamedTuple):
    """Mean and standard deviation (divided by n - 1) over n seeds; sd is 0 for one seed."""

    mean: float
    sd: float
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Score":
        """The score of one value a seed."""
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        return cls(float(np.mean(values)), sd, len(values))

    def rounded(self) -> dict[str, float]:
        """The score as it is written to evaluation.json."""
        return {"mean": round(self.mean, 4), "sd": round(self.sd, 4), "seeds": self.seeds}


def nearest(bank: Tensor, queries: Tensor, k: int = 5) -> tuple[Tensor, Tensor]:
    """The k most similar rows of ``bank`` (N, dim) for each row of ``queries`` (Q, dim), by cosine.

    Returns similarities and row numbers, (Q, k) each, the most similar first. Raises ValueError if the dimensions
    differ, features are not finite, or k is not between 1 and N.

    >>> bank = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 3.0]])
    >>> nearest(bank, torch.tensor([[5.0, 0.1]]), k=2)[1]
    tensor([[0, 2]])
    """
    _check_pair(bank, queries)
    if not 1 <= k <= len(bank):
        raise ValueError(f"k must be between 1 and the {len(bank)} features there are, got {k}.")
    # Inside autocast the products would be of half precision, and neighbours would change places.
    with torch.autocast(bank.device.type, enabled=False):
        bank = F.normalize(bank.float(), dim=1).T
        parts = [(F.normalize(q.float(), dim=1) @ bank).topk(k, dim=1) for q in queries.split(1000)]
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

    >>> features, labels = torch.eye(3), torch.tensor([0, 1, 2])
    >>> knn_accuracy(features, labels, features[[0, 1]], torch.tensor([0, 2]))
    0.5
    """
    _check_features(train_features, train_labels, test_features, test_labels)
    whole = isinstance(k, (int, np.integer)) and not isinstance(k, bool)
    if not whole or k < 1 or not temperature > 0:
        raise ValueError(
            f"k must be at least 1 and temperature above 0, got {k} and {temperature}."
        )
    similarity, rows = nearest(train_features, test_features, min(k, len(train_features)))
    names, numbers = train_labels.cpu().unique(return_inverse=True)  # few, however large
    # The largest similarity is taken off first: the vote is the same and nothing overflows.
    weights = ((similarity - similarity[:, :1]) / temperature).exp()
    votes = weights.new_zeros(len(rows), len(names))
    votes.scatter_add_(1, numbers.to(rows.device)[rows], weights)
    return float((names[votes.argmax(1).cpu()] == test_labels.cpu()).double().mean())


def linear_probe(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    regularization: float | None = None,
    seed: int = 0,
) -> float:
    """Accuracy in [0, 1] of scikit-learn's logistic regression on standardised frozen features (N, dim).

    regularization: weight of the squared norm beside the mean log loss (scikit-learn's C is 1 / (N regularization));
    default, what ``choose_regularization`` finds with ``seed``. The test images choose nothing. Raises ValueError if
    shapes do not fit, features are not finite or there is only one class.

    >>> features, labels = torch.eye(4), torch.tensor([0, 0, 1, 1])
    >>> linear_probe(features, labels, features[:2], torch.tensor([0, 1]))
    0.5
    """
    _check_features(train_features, train_labels, test_features, test_labels)
    if regularization is None:
        regularization = choose_regularization(train_features, train_labels, seed)
    x, x_test = _standardised(train_features, test_features)
    probe = _fit(x, _classes(train_labels), regularization)
    return float(probe.score(x_test, _array(test_labels)))


def choose_regularization(features: Tensor, labels: Tensor, seed: int = 0) -> float:
    """The regularisation, of ``REGULARIZATIONS``, with the best accuracy on a held-out tenth of the images.

    features: (N, dim), of training images only. The split is drawn by ``seed``, every class in both parts
    where it has two images or more. The search goes from strong to weak, each fit starting from the last,
    and ends when two in a row were no better; the stronger wins a tie. It fits to at most 10,000 images.
    With fewer than 50 images there is nothing to choose with: 0.1 is returned.
    """
    from sklearn.model_selection import train_test_split

    y = _classes(labels)
    if len(y) < 50:
        return FEW_REGULARIZATION
    counts = np.unique(y, return_counts=True)[1]
    size = min(max(len(y) // VALIDATION_PART, len(counts)), len(y) // 2)
    split = {"test_size": size, "random_state": seed, "stratify": y if counts.min() > 1 else None}
    fit, held = train_test_split(np.arange(len(y)), **split)
    fit = fit[:SEARCH_LIMIT]
    x_fit, x_held = _standardised(features[fit], features[held])
    probe, scores = None, []
    for regularization in REGULARIZATIONS:
        probe = _fit(x_fit, y[fit], regularization, probe)
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

    A seed draws which images are labelled (the same for every kind of feature). All training images standardise the
    features, since that needs no labels. The regularisation is fixed: with so few labels a validation split would
    cost more than it brings, and a larger one would be labels in disguise. Raises ValueError if a class has fewer
    images than asked for.

    >>> features, labels = torch.eye(2).repeat(9, 1), torch.arange(18) % 2
    >>> few_label_probe(features, labels, features, labels, per_class=(1, 5))[5]
    Score(mean=1.0, sd=0.0, seeds=3)
    """
    _check_features(train_features, train_labels, test_features, test_labels)
    x, x_test = _standardised(train_features, test_features)

    def accuracy(n: int, seed: int) -> float:
        rows = labelled_subset(train_labels, n, seed)
        probe = _fit(x[rows.numpy()], _classes(train_labels[rows]), regularization)
        return probe.score(x_test, _array(test_labels))

    return {n: Score.of([accuracy(n, seed) for seed in seeds]) for n in per_class}


def labelled_subset(labels: Tensor, per_class: int, seed: int = 0) -> Tensor:
    """Rows of ``per_class`` images of every class, drawn by ``seed``, in order of their row.

    With the same seed fewer labels are a part of more. Raises ValueError if a class has too few.
    """
    fewest = int(labels.unique(return_counts=True)[1].min())
    if not isinstance(per_class, int) or not 1 <= per_class <= fewest:
        raise ValueError(
            f"Labels a class must be between 1 and {fewest}, the number of images of the smallest class, or "
            f"(fine-tuning only) 'all'; got {per_class!r}."
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

    >>> side = torch.arange(20.0)
    >>> layers = {"stem": torch.stack([side, side.cos()], 1), "z": side.cos()[:, None]}
    >>> {name: r2["side"] > 0.9 for name, r2 in factor_probe(layers, {"side": side}).items()}
    {'stem': True, 'z': False}
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.metrics import r2_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    columns = {name: _factor(name, x) for name, x in factors.items()}
    sizes = {name: len(x) for name, x in (*features.items(), *columns.items())}
    if len(set(sizes.values())) != 1:
        raise ValueError(f"Features and factors need one row an image, got {sizes}.")
    targets = np.concatenate(list(columns.values()), axis=1)
    ends = np.cumsum([c.shape[1] for c in columns.values()])[:-1]
    order = np.random.default_rng(seed).permutation(len(targets))
    fit, held = order[: len(order) // 2], order[len(order) // 2 :]
    table: dict[str, dict[str, float]] = {}
    for layer, x in features.items():
        x = _array(x).astype(np.float64)
        ridge = make_pipeline(StandardScaler(), RidgeCV(RIDGE_PENALTIES, alpha_per_target=True))
        predicted = ridge.fit(x[fit], targets[fit]).predict(x[held]).reshape(len(held), -1)
        r2 = np.split(r2_score(targets[held], predicted, multioutput="raw_values"), ends)
        table[layer] = {n: float(values.mean()) for n, values in zip(columns, r2, strict=True)}
    return table


def _factor(name: str, x: Tensor) -> np.ndarray:
    """(N, k) float64."""
    x = _array(torch.as_tensor(x))
    if name == "class":
        x = x[:, None] == np.unique(x)
    x = x.reshape(len(x), -1).astype(np.float64)
    if (x.max(0) == x.min(0)).any():
        raise ValueError(f"The factor {name!r} is the same for all images: leave it out.")
    return x


def _fit(x: np.ndarray, y: np.ndarray, regularization: float, start=None):
    """scikit-learn's logistic regression, fitted to (N, dim) and (N,).

    start: an earlier fit of a search, from which it goes on. Where L-BFGS stops at its last iteration the log says
    so, not the page, and of a search nothing.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    if not 0 < regularization < np.inf:
        raise ValueError(f"regularization must be above 0, got {regularization}.")
    probe = start or LogisticRegression(max_iter=MAX_ITER, tol=1e-3, warm_start=True)
    probe.set_params(C=1 / (len(x) * regularization))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        probe.fit(x, y)
    if caught and start is None:
        log.info("A probe on %d features stopped after %d iterations.", x.shape[1], MAX_ITER)
    return probe


def _standardised(features: Tensor, others: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Both by the mean and deviation of the first."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(_array(features))
    return scaler.transform(_array(features)), scaler.transform(_array(others))


def _classes(labels: Tensor) -> np.ndarray:
    y = _array(labels)
    if len(np.unique(y)) < 2:
        raise ValueError("A probe needs images of at least two classes, got one.")
    return y


def _array(x: Tensor) -> np.ndarray:
    """For scikit-learn, which knows no bfloat16, no gradients and no GPU."""
    x = x.detach().cpu()
    return (x.float() if x.is_floating_point() else x).numpy()


def _check_features(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor) -> None:
    _check_pair(train, test)
    for y in (train_labels, test_labels):
        kind = getattr(y, "dtype", type(y).__name__)
        if not isinstance(y, Tensor) or kind != torch.long or y.ndim != 1 or (y < 0).any():
            raise ValueError(
                "labels must be whole numbers of at least 0, an int64 tensor of shape (N,), got "
                f"{kind} of shape {tuple(np.shape(y))}. Leave images without a label out; else give "
                "torch.as_tensor(labels).long().flatten()."
            )
    if len(train) != len(train_labels) or len(test) != len(test_labels):
        raise ValueError(
            f"As many labels as features are needed, got {len(train_labels)} for {len(train)} and "
            f"{len(test_labels)} for {len(test)}."
        )


def _check_pair(train: Tensor, test: Tensor) -> None:
    shapes = [tuple(np.shape(x)) for x in (train, test)]
    fit = all(len(s) == 2 and 0 not in s and s[1] == shapes[0][1] for s in shapes)
    if not fit or not all(isinstance(x, Tensor) for x in (train, test)):
        raise ValueError(
            f"Features must be (N, dim), tensors with the same dim, got {shapes[0]} and {shapes[1]}."
        )
    if not (torch.isfinite(train).all() and torch.isfinite(test).all()):
        raise ValueError("Features hold NaN or infinity: did training diverge?")
