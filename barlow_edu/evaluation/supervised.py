"""The encoder trained with labels: fine-tuned from its pretrained weights, or from scratch to compare with."""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from barlow_edu.data import ImageSet
from barlow_edu.evaluation.features import extract_features, hidden
from barlow_edu.evaluation.probes import Score, labelled_subset
from barlow_edu.numerics.devices import Computer
from barlow_edu.numerics.optim import build_optimizer, set_learning_rate, warmup_cosine
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
BUDGETS = {"pretrained": asdict(Budget()), "random init": asdict(FROM_SCRATCH)}


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
    of the images and the views; the classifier starts at zero. The encoder handed over stays as it is, and where
    it is, which is where the work is done. progress: show a bar (None: on a terminal). Raises ValueError if there
    are fewer than two images or two classes.

    >>> images = ImageSet(torch.zeros(4, 3, 8, 8).byte(), torch.tensor([0, 0, 1, 1]), ["a", "b"], "dark")
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    >>> train_classifier(net, images, TwinViews("garments", 8), Budget(steps=2))[1]
    Linear(in_features=5, out_features=2, bias=True)
    """
    budget, classes = budget or Budget(), len(train.labels.unique())
    if len(train) < 2 or classes < 2:
        raise ValueError(
            f"A classifier needs images of at least two classes, got {len(train)} image(s) of {classes} "
            "class(es). Take more labels."
        )
    dim = extract_features(encoder, train.images[:2], views.normalize).shape[1]
    head = nn.Linear(dim, len(train.classes))
    for parameter in head.parameters():  # nothing is drawn: the seed decides order and views alone
        nn.init.zeros_(parameter)
    computer = Computer.of(encoder)
    classifier = nn.Sequential(copy.deepcopy(encoder), head).to(computer.device).requires_grad_()
    if computer.channels_last:
        classifier.to(memory_format=torch.channels_last)
    classifier.train()
    optimizer = build_optimizer("adamw", classifier, budget.lr, budget.weight_decay)
    generator = torch.Generator().manual_seed(seed)
    images, labels = train.images.to(computer.device), train.labels.to(computer.device)
    total, size = budget.length(len(train)), min(budget.batch_size, len(train))
    epoch: list[Tensor] = []
    for step in tqdm(range(total), "labels", leave=False, disable=hidden(progress)):
        if not epoch:  # a new one, in a new order; a last, partial batch is dropped
            order = torch.randperm(len(train), generator=generator)
            epoch = [rows for rows in order.split(size) if len(rows) == size]
        rows = epoch.pop(0).to(computer.device)
        drawn = views.draw(size, *images.shape[2:], which=0, generator=generator)
        x = computer.place(views.apply(images[rows], drawn))
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
    seeds: Sequence[int] = (0, 1, 2),
    budget: Budget | None = None,
    progress: bool | None = False,
) -> Score:
    """Test accuracy of the whole encoder trained on with labels, over seeds.

    per_class: so many labelled images a class, drawn by the seed; None, all. The seed also decides the
    order of the images and their views. Pass an untrained encoder for the comparison. Raises ValueError if
    a class has too few images.

    >>> shades = torch.tensor([0, 255] * 8, dtype=torch.uint8).view(16, 1, 1, 1).expand(16, 3, 8, 8)
    >>> images = ImageSet(shades, torch.arange(16) % 2, ["dark", "light"], "shades")
    >>> views, budget = TwinViews("garments", 8, jitter=0, solarise=(0, 0)), Budget(steps=20)
    >>> fine_tune(nn.Flatten(), images, images, views, 4, (0,), budget)
    Score(mean=1.0, sd=0.0, seeds=1)
    """

    def accuracy(seed: int) -> float:
        part = train
        if per_class is not None:
            part = train.subset(labelled_subset(train.labels, per_class, seed))
        classifier = train_classifier(encoder, part, views, budget, seed, progress)
        return classifier_accuracy(classifier, test, views.normalize)

    return Score.of([accuracy(seed) for seed in seeds])


def supervised_encoder(
    run: Run,
    train: ImageSet,
    test: ImageSet,
    epochs: int | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: bool | None = False,
) -> tuple[nn.Module, dict[str, Any]]:
    """The run's encoder trained with labels from its initial weights, and what that took and gave.

    epochs: default, as many as the run had (which showed two views an image, this shows one). Batch size and
    learning rate are the run's; augmentation is the run's, one view. The record: epochs, steps, batch_size, lr,
    images, minutes, seed, accuracy.
    """
    config, began = run.config, time.perf_counter()
    lr = config["lr"] if config["optimizer"] == "adamw" else FROM_SCRATCH.lr
    budget = Budget(0, epochs or config["epochs"], config["batch_size"], lr)
    encoder = run.untrained(seed).encoder.to(device)
    classifier = train_classifier(encoder, train, run.views(), budget, seed, progress)
    record = asdict(budget) | {"steps": budget.length(len(train)), "images": len(train)}
    record |= {"minutes": round((time.perf_counter() - began) / 60, 2), "seed": seed}
    accuracy = classifier_accuracy(classifier, test, run.views().normalize)
    return classifier[0], record | {"accuracy": round(accuracy, 4)}
