"""What is asked of every kind of features, the same for the encoder and for its baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from barlow_edu.data import ImageSet
from barlow_edu.evaluation.features import extract_features, pixel_features
from barlow_edu.evaluation.probes import (
    FEW_REGULARIZATION,
    REGULARIZATIONS,
    Score,
    choose_regularization,
    few_label_probe,
    knn_accuracy,
    linear_probe,
)
from barlow_edu.evaluation.spectra import DECAY_RANKS, effective_rank, rankme, spectrum_decay

SPECTRUM_IMAGES = 2000
SEED_CHANGES = {
    "knn": "nothing, unless the encoder differs",
    "linear": "the validation split that chooses the regularisation",
    "few": "which images are labelled",
    "fine_tuning": "which images are labelled, their order and views",
    "random encoder": "its initial weights, in every column (seed 0: those the run started from)",
    "supervised encoder": "its initial weights, the order of the images and their views",
}


@dataclass(frozen=True)
class Protocol:
    """kNN with ``k`` and ``temperature``, linear probe, probes with ``few`` labels a class, spectrum."""

    linear: bool
    k: int
    temperature: float
    seeds: tuple[int, ...]
    few: tuple[int, ...]

    def describe(self, train: ImageSet, test: ImageSet) -> dict[str, Any]:
        """The head of the results: on what, and how."""
        first, last = DECAY_RANKS
        told = {
            "features": "before the projector, no augmentation",
            "knn": f"cosine, {self.k} neighbours, weight exp(cosine / {self.temperature})",
            "linear": "logistic regression on standardised features, regularisation chosen from "
            f"{list(REGULARIZATIONS)} on a held-out tenth of the training images",
            "few": f"the same with regularisation {FEW_REGULARIZATION}",
            "spectrum": f"first {SPECTRUM_IMAGES} test images; alpha over ranks {first} to {last}",
            "seeds": list(self.seeds),
            "seed_changes": SEED_CHANGES,
        }
        return {
            "data": test.name,
            "k": self.k,
            "temperature": self.temperature,
            "train_images": len(train),
            "test_images": len(test),
            "protocol": told,
        }

    def row(
        self,
        encoder_of: Callable[[int], nn.Module | None],
        varies: bool,
        train: ImageSet,
        test: ImageSet,
        normalize: Callable[[Tensor], Tensor],
    ) -> dict[str, Any]:
        """One line of the table: means over the seeds; "sd", the deviations of what a seed changed.

        encoder_of: seed -> encoder, None for the pixels themselves. varies: whether it differs by seed.
        """
        found: list[_Answers] = []
        for seed in self.seeds:
            if varies or seed == self.seeds[0]:
                encoder = encoder_of(seed)
                features = [_features(encoder, s, normalize) for s in (train, test)]
                sets = (features[0], train.labels, features[1], test.labels)
                fixed = {"knn": knn_accuracy(*sets, self.k, self.temperature)}
                fixed |= _spectrum(features[1][:SPECTRUM_IMAGES])
                linear: dict[float, float] = {}  # regularisation -> accuracy, for these features
            found.append(self._ask(sets, seed, dict(fixed), linear))
        return _row(found)

    def _ask(self, sets, seed: int, scores: dict, linear: dict[float, float]) -> _Answers:
        """What depends on the seed: the probes."""
        answers = _Answers(scores)
        if self.linear:
            answers.regularization = chosen = choose_regularization(*sets[:2], seed)
            if chosen not in linear:
                linear[chosen] = linear_probe(*sets, chosen)
            answers.scores["linear"] = linear[chosen]
        if self.few:
            few = few_label_probe(*sets, self.few, (seed,))
            answers.few = {n: score.mean for n, score in few.items()}
        return answers


@dataclass
class _Answers:
    """What came of one seed."""

    scores: dict[str, float | None]
    regularization: float | None = None
    few: dict[int, float] = field(default_factory=dict)


def _row(found: Sequence[_Answers]) -> dict[str, Any]:
    columns = {key: [f.scores[key] for f in found] for key in found[0].scores}
    row: dict[str, Any] = {
        key: None if None in values else round(Score.of(values).mean, 4)
        for key, values in columns.items()
    }
    if found[0].regularization is not None:
        row["regularization"] = [f.regularization for f in found]
    row["seeds"] = len(found)
    if len(found) > 1:
        sd = {key: Score.of(v).sd for key, v in columns.items() if key in ("knn", "linear")}
        row["sd"] = {key: round(x, 4) for key, x in sd.items() if x > 0}
    if found[0].few:
        row["few"] = {str(n): told(Score.of([f.few[n] for f in found])) for n in found[0].few}
    return row


def told(score: Score) -> dict[str, float]:
    """A score as it is written to evaluation.json."""
    return {"mean": round(score.mean, 4), "sd": round(score.sd, 4), "seeds": score.seeds}


def _features(encoder: nn.Module | None, images: ImageSet, normalize) -> Tensor:
    if encoder is None:
        return pixel_features(images.images)
    return extract_features(encoder, images.images, normalize)


def _spectrum(features: Tensor) -> dict[str, float | None]:
    scores = {"effective_rank": effective_rank(features), "rankme": rankme(features)}
    try:
        scores["alpha"] = spectrum_decay(features).alpha
    except ValueError:  # too few images, or a collapse: no power law
        scores["alpha"] = None
    return scores
