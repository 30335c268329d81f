"""What did it learn? kNN, linear probe, effective rank, always beside pixels and a random encoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from barlow_edu.data import ImageSet, load_images
from barlow_edu.runs import Run, RunWriter, load_run

KNN_K = 200
KNN_TEMPERATURE = 0.1


@torch.no_grad()
def extract_features(
    encoder: Callable[[Tensor], Tensor],
    images: Tensor,
    normalize: Callable[[Tensor], Tensor],
    batch_size: int = 500,
    device: str | torch.device | None = None,
) -> Tensor:
    """Features of uint8 images (N, C, H, W): float32 (N, dim), on the CPU.

    encoder: a module (put into evaluation mode meanwhile) or a function of normalised float images.
    normalize: uint8 -> float, usually ``run.views().normalize``. device: default, where the encoder is.
    """
    if not isinstance(encoder, nn.Module):
        return _run_batches(encoder, images.split(batch_size), normalize, device or "cpu")
    device = device or next((p.device for p in encoder.parameters()), "cpu")
    was_training = {m: m.training for m in encoder.modules()}
    encoder.eval()
    try:
        return _run_batches(encoder, images.split(batch_size), normalize, device)
    finally:
        for m, training in was_training.items():
            m.training = training


def _run_batches(encoder, batches, normalize, device) -> Tensor:
    return torch.cat([encoder(normalize(batch.to(device))).float().cpu() for batch in batches])


def pixel_features(images: Tensor) -> Tensor:
    """The pixels themselves, uint8 (N, C, H, W) -> float32 (N, C H W) in [0, 1]: the baseline to beat."""
    return images.flatten(1).float() / 255


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
    bank = F.normalize(train_features.float(), dim=1)
    classes = int(max(train_labels.max(), test_labels.max())) + 1
    right = 0
    for queries, labels in zip(test_features.split(1000), test_labels.split(1000), strict=True):
        similarity = F.normalize(queries.float(), dim=1) @ bank.T
        top = similarity.topk(min(k, len(bank)), dim=1)
        # The largest similarity is taken off first: the vote is the same and nothing overflows.
        weights = ((top.values - top.values[:, :1]) / temperature).exp()
        votes = torch.zeros(len(queries), classes, device=weights.device)
        votes.scatter_add_(1, train_labels.to(weights.device)[top.indices], weights)
        right += int((votes.argmax(1).cpu() == labels.cpu()).sum())
    return right / len(test_labels)


def linear_probe(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    regularization: float = 1e-3,
    max_iter: int = 200,
) -> float:
    """Accuracy in [0, 1] of scikit-learn's logistic regression on standardised frozen features.

    regularization: weight of the squared norm beside the mean log loss (scikit-learn's C is
    1 / (N regularization)). Raises ValueError if shapes do not fit or features are not finite.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    _check_features(train_features, train_labels, test_features, test_labels)
    strength = 1 / (len(train_labels) * regularization)
    probe = make_pipeline(
        StandardScaler(), LogisticRegression(C=strength, max_iter=max_iter, tol=1e-3)
    )
    probe.fit(_array(train_features), _array(train_labels))
    return float(probe.score(_array(test_features), _array(test_labels)))


def _array(x: Tensor) -> np.ndarray:
    """For scikit-learn, which knows no bfloat16, no gradients and no GPU."""
    x = x.detach().cpu()
    return (x.float() if x.is_floating_point() else x).numpy()


def effective_rank(features: Tensor | np.ndarray) -> float:
    """exp(entropy) of the normalised singular values of the centred features (N, dim).

    Between 1 (one direction holds all) and min(N - 1, dim) (all directions alike). Roy and Vetterli, 2007;
    without centring it is RankMe (Garrido et al., 2023). Raises ValueError unless 2-D and finite.
    """
    x = torch.as_tensor(features)
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"features must be (N, dim) with N of 2 or more, got {tuple(x.shape)}.")
    if not torch.isfinite(x).all():
        raise ValueError("features hold NaN or infinity: did training diverge?")
    x = x.double()
    values = torch.linalg.svdvals(x - x.mean(0))
    total = values.sum()
    if total <= 1e-12 * x.abs().max() * len(x) or total == 0:
        return 1.0  # all rows alike
    p = values / total
    p = p[p > 0]
    return float(torch.exp(-(p * p.log()).sum()))


def evaluate(
    run: Run | str,
    train: ImageSet | None = None,
    test: ImageSet | None = None,
    linear: bool = True,
    k: int = KNN_K,
    temperature: float = KNN_TEMPERATURE,
    save: bool = False,
) -> dict[str, Any]:
    """kNN (and linear probe) of a run's encoder beside pixels and the same encoder untrained.

    train, test: image sets; default, those of the run's configuration. Features are taken before the
    projector. Returns {"data", "k", "temperature", "train_images", "test_images", "rows"}, where rows maps
    "pixels", "random encoder" and "trained encoder" to {"knn", "linear", "effective_rank"}; save=True
    keeps it in the run folder as evaluation.json. Raises ValueError if the run was trained on other images
    than its configuration loads, or if the splits differ in their classes.
    """
    run = run if isinstance(run, Run) else load_run(run)
    train = train if train is not None else _images(run, "train")
    test = test if test is not None else _images(run, "test")
    if train.classes != test.classes:
        raise ValueError(
            f"The classes differ: {train.classes} for training, {test.classes} for the test. "
            "A class folder must be there in both splits, even if it is empty."
        )
    normalize = run.views().normalize
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoders = {
        "pixels": None,
        "random encoder": run.load_model(weights=False).encoder.to(device),
        "trained encoder": run.load_model().encoder.to(device),
    }
    rows = {}
    for name, encoder in encoders.items():
        rows[name] = _scores(encoder, train, test, normalize, linear, k, temperature)
    results = {
        "data": test.name,
        "k": k,
        "temperature": temperature,
        "train_images": len(train),
        "test_images": len(test),
        "rows": rows,
    }
    if save:
        RunWriter(run.path).evaluation(results)
    return results


def _scores(encoder, train, test, normalize, linear, k, temperature) -> dict[str, float]:
    if encoder is None:
        features = [pixel_features(s.images) for s in (train, test)]
    else:
        features = [extract_features(encoder, s.images, normalize) for s in (train, test)]
    sets = (features[0], train.labels, features[1], test.labels)
    scores = {"knn": knn_accuracy(*sets, k, temperature)}
    if linear:
        scores["linear"] = linear_probe(*sets)
    scores["effective_rank"] = effective_rank(features[1][:2000])
    return {key: round(value, 4) for key, value in scores.items()}


def _images(run: Run, split: str) -> ImageSet:
    """The run's images. Raises ValueError if these are not what it was trained on."""
    config, label = run.config, run.environment["data"]
    limit = config["limit"] if split == "train" else None
    size = config["image_size"] if config["data"] == "folder" else None
    images = load_images(config["data"], config["root"], split, limit, size)
    if images.name != label:
        raise ValueError(
            f"{run} was trained on {label!r}, but its configuration loads {images.name!r}. Give train= and "
            "test= (on the command line --data and --root)."
        )
    return images


def _check_features(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor) -> None:
    if train.ndim != 2 or test.ndim != 2 or train.shape[1] != test.shape[1]:
        raise ValueError(
            "Features must be (N, dim) with the same dim, got "
            f"{tuple(train.shape)} and {tuple(test.shape)}."
        )
    if len(train) != len(train_labels) or len(test) != len(test_labels):
        raise ValueError(
            f"As many labels as features are needed, got {len(train_labels)} for {len(train)} and "
            f"{len(test_labels)} for {len(test)}."
        )
    if not (torch.isfinite(train).all() and torch.isfinite(test).all()):
        raise ValueError("Features hold NaN or infinity: did training diverge?")
