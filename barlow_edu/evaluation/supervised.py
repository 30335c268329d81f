"""The encoder trained with labels: fine-tuned from its pretrained weights, or from scratch to compare with."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from barlow_edu.config import build_model
from barlow_edu.data import ImageSet
from barlow_edu.evaluation.features import extract_features
from barlow_edu.evaluation.probes import Score, labelled_subset
from barlow_edu.numerics.devices import Computer
from barlow_edu.optim import build_optimizer, set_learning_rate, warmup_cosine
from barlow_edu.runs import Run
from barlow_edu.views import TwinViews


@dataclass(frozen=True)
class Budget:
    """How a classifier is trained: AdamW, cosine schedule, cross-entropy, one augmented view an image.

    At least ``steps`` steps and at least ``epochs`` epochs, of batches of ``batch_size`` images (all there
    are, if that is fewer). The warm-up takes a twentieth.
    """

    steps: int = 300
    epochs: int = 3
    batch_size: int = 64
    lr: float = 3e-3
    weight_decay: float = 1e-4

    def length(self, images: int) -> int:
        """Steps for that many images."""
        return max(self.steps, self.epochs * (images // min(self.batch_size, images)))


FROM_SCRATCH = Budget(lr=5e-3)  # an untrained encoder wants larger steps


def train_classifier(
    encoder: nn.Module,
    train: ImageSet,
    views: TwinViews,
    budget: Budget | None = None,
    seed: int = 0,
    progress: bool | None = False,
) -> nn.Sequential:
    """Train a copy of the encoder with labels and a linear classifier on top: returns both, (N, classes) logits.

    views: as for pretraining; one view of each image is drawn, of the first kind. ``seed`` decides the order
    of the images and the views; the classifier starts at zero. The encoder handed over stays as it is.
    progress: show a bar (None: on a terminal). Raises ValueError if there are fewer than two images or
    two classes.
    """
    budget = budget or Budget()
    if len(train) < 2 or len(train.labels.unique()) < 2:
        raise ValueError(
            f"A classifier needs images of at least two classes, got {len(train)} image(s) of "
            f"{len(train.labels.unique())} class(es). Take more labels."
        )
    computer = _computer(encoder)
    classifier = _classifier(encoder, train, views, computer.channels_last)
    optimizer = build_optimizer("adamw", classifier, budget.lr, budget.weight_decay)
    generator = torch.Generator().manual_seed(seed)
    images, labels = train.images.to(computer.device), train.labels.to(computer.device)
    total = budget.length(len(train))
    batches = _batches(len(train), budget.batch_size, total, generator)
    for step, rows in enumerate(tqdm(batches, "labels", total, False, disable=_hidden(progress))):
        rows = rows.to(computer.device)
        x = computer.place(_one_view(views, images[rows], generator))
        set_learning_rate(optimizer, warmup_cosine(step, total, total // 20))
        with computer.autocast():
            logits = classifier(x)
        loss = F.cross_entropy(logits.float(), labels[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return classifier.eval()


def classifier_accuracy(
    classifier: nn.Module, test: ImageSet, normalize: Callable[[Tensor], Tensor]
) -> float:
    """Share of test images whose largest logit is the right class, in [0, 1]."""
    logits = extract_features(classifier, test.images, normalize)
    return float((logits.argmax(1) == test.labels).double().mean())


def fine_tune(
    encoder: nn.Module,
    train: ImageSet,
    test: ImageSet,
    views: TwinViews,
    per_class: int | None = None,
    seeds: tuple[int, ...] = (0, 1, 2),
    budget: Budget | None = None,
    progress: bool | None = False,
) -> Score:
    """Test accuracy of the whole encoder trained on with labels, over seeds.

    per_class: so many labelled images a class, drawn by the seed; None, all. The seed also decides the
    order of the images and their views. Pass an untrained encoder for the comparison. Raises ValueError if
    a class has too few images.
    """
    found = []
    for seed in seeds:
        part = train
        if per_class is not None:
            part = train.subset(labelled_subset(train.labels, per_class, seed))
        classifier = train_classifier(encoder, part, views, budget, seed, progress)
        found.append(classifier_accuracy(classifier, test, views.normalize))
    return Score.of(found)


def supervised_encoder(
    run: Run,
    train: ImageSet,
    epochs: int | None = None,
    seed: int = 0,
    progress: bool | None = False,
) -> tuple[nn.Sequential, dict[str, Any]]:
    """The run's encoder trained with labels from its initial weights, and what that took.

    epochs: default, as many as the run had (which showed two views an image, this shows one). Batch size and
    learning rate are the run's; augmentation is the run's, one view. Returns the classifier (its encoder is
    ``classifier[0]``) and a record: epochs, steps, batch_size, lr, images, minutes, seed.
    """
    config, began = run.config, time.perf_counter()
    epochs = epochs or config["epochs"]
    lr = config["lr"] if config["optimizer"] == "adamw" else FROM_SCRATCH.lr
    budget = Budget(0, epochs, config["batch_size"], lr)
    encoder = build_model(config | {"seed": config["seed"] + seed}).encoder
    classifier = train_classifier(_to_device(encoder), train, run.views(), budget, seed, progress)
    record = asdict(budget) | {"steps": budget.length(len(train)), "images": len(train)}
    record |= {"minutes": round((time.perf_counter() - began) / 60, 2), "seed": seed}
    return classifier, record


def _classifier(encoder: nn.Module, train: ImageSet, views: TwinViews, channels_last: bool):
    dim = extract_features(encoder, train.images[:2], views.normalize).shape[1]
    head = nn.Linear(dim, len(train.classes))
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    encoder = copy.deepcopy(encoder)
    device = next((p.device for p in encoder.parameters()), "cpu")
    classifier = nn.Sequential(encoder, head).to(device).requires_grad_()
    if channels_last:
        classifier.to(memory_format=torch.channels_last)
    return classifier.train()


def _computer(encoder: nn.Module) -> Computer:
    """Precision and layout as pretraining chooses them, on the encoder's device."""
    device = next((p.device for p in encoder.parameters()), torch.device("cpu"))
    config = {"device": str(device), "precision": "auto", "channels_last": "auto"}
    return Computer.choose(config)


def _to_device(module: nn.Module) -> nn.Module:
    return module.to("cuda" if torch.cuda.is_available() else "cpu")


def _one_view(views: TwinViews, images: Tensor, generator: torch.Generator) -> Tensor:
    drawn = views.draw(len(images), *images.shape[2:], which=0, generator=generator)
    return views.apply(images, drawn)


def _batches(n: int, size: int, total: int, generator: torch.Generator) -> Iterator[Tensor]:
    """``total`` batches of row numbers, epoch after epoch, each shuffled; the last, partial batch is dropped."""
    size, done = min(size, n), 0
    while done < total:
        for rows in torch.randperm(n, generator=generator).split(size)[: n // size]:
            if done < total:
                yield rows
            done += 1


def _hidden(progress: bool | None) -> bool | None:
    """tqdm's ``disable``: None hides the bar where there is no terminal."""
    return None if progress is None else not progress
