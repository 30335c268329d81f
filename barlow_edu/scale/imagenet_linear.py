"""Linear evaluation and fine-tuning as the paper does it, on images too many for memory.

A linear classifier on the encoder's features is trained by SGD with a cosine schedule, one random crop and flip an
image and epoch; the test is on centre crops. For the linear evaluation the encoder stays as it is, batch norm's
averages included. For the semi-supervised one all of it is trained on, with 1 % or 10 % of the labels.
"""

import copy
import logging
import math
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from barlow_edu.numerics.devices import Computer
from barlow_edu.numerics.optim import set_learning_rate, warmup_cosine
from barlow_edu.storage.checkpoints import read_checkpoint, write_checkpoint
from barlow_edu.storage.files import write_json
from barlow_edu.storage.stream import ImageStream
from barlow_edu.storage.trees import balanced
from barlow_edu.views import TwinViews

CHECKPOINTS = "linear"  # a folder of their own: beside a run's they would be taken for these
log = logging.getLogger("barlow_edu")


@dataclass(frozen=True)
class LinearProtocol:
    """How the classifier is trained. The defaults are the published code's, for the linear evaluation.

    percent: of the labels, an equal share of each class. lr: of the classifier. encoder_lr: of the encoder; 0 leaves
    it frozen. Both follow half a cosine, a step an epoch. crop: least area of the random crop.
    """

    percent: float = 100
    epochs: int = 100
    batch_size: int = 256
    lr: float = 0.3
    encoder_lr: float = 0.0
    weight_decay: float = 1e-6
    momentum: float = 0.9
    crop: float = 0.08
    seed: int = 0

    def __post_init__(self):
        if not 0 < self.percent <= 100:
            raise ValueError(f"percent must be above 0 and at most 100, got {self.percent}.")
        if self.epochs < 1 or self.batch_size < 1:
            sizes = f"epochs={self.epochs}, batch_size={self.batch_size}"
            raise ValueError(f"epochs and batch_size must be at least 1, got {sizes}.")
        if not self.lr > 0 or self.encoder_lr < 0:
            rates = f"lr={self.lr}, encoder_lr={self.encoder_lr}"
            raise ValueError(f"lr must be above 0 and encoder_lr at least 0, got {rates}.")


# Linear: the published code's defaults (its README has had lr 0.1 for an earlier release). Semi-supervised: its
# README for 1 %, with the paper's encoder rate of 0.002 (the code's present README: 0.005); the same for 10 %.
_SEMI = LinearProtocol(epochs=20, lr=0.5, encoder_lr=0.002, weight_decay=0.0)
PROTOCOLS = {
    "linear": LinearProtocol(),
    "1 %": replace(_SEMI, percent=1),
    "10 %": replace(_SEMI, percent=10),
}


def labelled_rows(labels: Tensor, percent: float, seed: int = 0) -> Tensor:
    """Row numbers of ``percent`` of the labels (N,), the classes balanced, drawn by ``seed``.

    Of ImageNet 12,811 at 1 % and 128,116 at 10 %: as many as the lists that published results use have, but
    other images.
    """
    if percent == 100:
        return torch.arange(len(labels))
    return balanced(labels, max(1, int(len(labels) * percent / 100)), seed)


class LinearEvaluation:
    """One evaluation of an encoder by a :class:`LinearProtocol`; ``run`` it.

    encoder: images -> (N, dim); a copy of it is used. train: a stream, mode "decode_once"; test: mode "centre". out:
    a folder where every epoch is kept, so that ``run`` goes on where it was stopped.
    Raises ValueError for streams of the wrong kind or with different classes.
    """

    def __init__(
        self,
        encoder: nn.Module,
        train: ImageStream,
        test: ImageStream,
        protocol: LinearProtocol | None = None,
        out: str | Path | None = None,
    ):
        _check_streams(train, test)
        self.train, self.test, self.out = train, test, None if out is None else Path(out)
        self.protocol = p = protocol or LinearProtocol()
        self.computer, self.tuned = Computer.of(encoder), p.encoder_lr > 0
        self.encoder = copy.deepcopy(encoder).requires_grad_(self.tuned)
        self.weights = None if self.out is None else _checksum(encoder)
        # One view: a random crop, bilinear as torchvision's default, and a flip.
        plain = {"jitter": 0.0, "grey": 0.0, "blur": (0.0, 0.0), "solarise": (0.0, 0.0)}
        plain |= {"scale": (p.crop, 1.0), "interpolation": "bilinear"}
        self.views = TwinViews("imagenet", train.size, **plain)
        self.rows = labelled_rows(train.labels, p.percent, p.seed)
        self.generator = torch.Generator().manual_seed(p.seed)
        self.head = self._head()
        rates = [(self.head, p.lr)] + [(self.encoder, p.encoder_lr)] * self.tuned
        groups = [{"params": [*part.parameters()], "base_lr": lr} for part, lr in rates]
        self.optimizer = torch.optim.SGD(groups, p.lr, p.momentum, weight_decay=p.weight_decay)
        self.epoch, self.history = 0, []

    def run(self, progress: bool | None = False) -> dict[str, Any]:
        """Train, test after every epoch, and return the last epoch's result.

        {"top1", "top5", "history", "protocol", "train_images", "test_images", "unreadable"}, accuracies in [0, 1].
        The last epoch counts, not the best: the test images choose nothing. progress: show bars (None: on a
        terminal; the log has a line an epoch). Raises ValueError if the folder holds another evaluation.
        """
        self._load()
        hidden, epochs = None if progress is None else not progress, self.protocol.epochs
        while self.epoch < epochs:
            set_learning_rate(self.optimizer, warmup_cosine(self.epoch, epochs, 0, final=0.0))
            steps = math.ceil(len(self.rows) / self.protocol.batch_size)
            name = f"epoch {self.epoch + 1} of {epochs}"
            # A frozen encoder keeps batch norm's averages, too; as no weight needs a gradient, none is computed.
            self.encoder.train(self.tuned)
            for x, labels in tqdm(self._batches(), name, steps, disable=hidden):
                loss = F.cross_entropy(self._logits(x), labels)
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()
                self.optimizer.step()
            self.history.append(self.accuracy(hidden))
            self.epoch += 1
            self._save()
            if progress is None:
                log.info("%s: top-1 %.1f %%", name, 100 * self.history[-1]["top1"])
        result = dict(self.history[-1]) | {"history": self.history}
        result |= {"protocol": asdict(self.protocol), "train_images": len(self.rows)}
        unreadable = len(self.train.unreadable) + len(self.test.unreadable)
        result |= {"test_images": len(self.test), "unreadable": unreadable}
        if self.out is not None:
            write_json(self.out / "linear.json", result)
        return result

    @torch.no_grad()
    def accuracy(self, hidden: bool | None = True) -> dict[str, float]:
        """Top-1 and top-5 accuracy on the centre crops of all readable test images; ``hidden`` as tqdm's disable."""
        self.encoder.eval()
        hits: list[Tensor] = []
        batches = torch.arange(len(self.test)).split(self.protocol.batch_size)
        shown = tqdm(batches, "test", leave=False, disable=hidden)
        for asked, batch in zip(shown, self.test.batches(batches), strict=True):
            # Another image stands in for an unreadable one: it would be counted twice.
            readable = batch.rows == asked
            x = self.views.normalize(batch.images[readable].to(self.computer.device))
            best = self._logits(x).topk(min(5, self.head.out_features), 1).indices.cpu()
            right = best == self.test.labels[asked[readable]].view(-1, 1)
            hits.append(torch.stack([right[:, 0], right.any(1)], 1))
        top1, top5 = torch.cat(hits).double().mean(0).tolist()
        return {"top1": top1, "top5": top5}

    def _logits(self, x: Tensor) -> Tensor:
        with self.computer.autocast():
            return self.head(self.encoder(self.computer.place(x))).float()

    @torch.no_grad()
    def _head(self) -> nn.Linear:
        x = torch.zeros(2, 3, self.train.size, self.train.size, device=self.computer.device)
        head = nn.Linear(self.encoder.eval()(x).shape[1], len(self.train.classes))
        nn.init.normal_(head.weight, std=0.01, generator=self.generator)
        nn.init.zeros_(head.bias)
        return head.to(self.computer.device)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """An epoch: normalised crops and labels, every image once."""
        order = self.rows[torch.randperm(len(self.rows), generator=self.generator)]
        for batch in self.train.batches(order.split(self.protocol.batch_size)):
            images = batch.images.to(self.computer.device, non_blocking=True)
            shape = (len(images), *batch.sizes.unbind(1))
            drawn = self.views.draw(*shape, which=0, generator=self.generator)
            labels = self.train.labels[batch.rows].to(self.computer.device)
            yield self.views.apply(images, drawn), labels

    def _subject(self) -> dict[str, Any]:
        """What is evaluated, and how: a folder holds one evaluation."""
        data = {"data": self.train.fingerprint(), "test": self.test.fingerprint()}
        return {"protocol": asdict(self.protocol), **data, "weights": self.weights}

    def _save(self) -> None:
        if self.out is None:
            return
        state = {
            "step": self.epoch,
            "history": self.history,
            "unreadable": [self.train.unreadable, self.test.unreadable],
            "head": self.head.state_dict(),
            "encoder": self.encoder.state_dict() if self.tuned else None,
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
        }
        write_checkpoint(self.out / CHECKPOINTS, self._subject() | state)

    def _load(self) -> None:
        if self.out is None or not (self.out / CHECKPOINTS).exists():
            return
        state = read_checkpoint(self.out / CHECKPOINTS, self.computer.device)
        for key, value in self._subject().items():
            if state.get(key) != value:
                raise ValueError(
                    f"{self.out} holds another evaluation: {key} is {state.get(key)}, not {value}. Choose another "
                    "folder, or remove it."
                )
        self.epoch, self.history = state["step"], state["history"]
        for stream, names in zip((self.train, self.test), state["unreadable"], strict=True):
            stream.unreadable.update(names)
        self.head.load_state_dict(state["head"])
        if self.tuned:
            self.encoder.load_state_dict(state["encoder"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"].cpu())


def _checksum(encoder: nn.Module) -> str:
    """Of the encoder's weights and averages as they were handed over."""
    check = 0
    for value in encoder.state_dict().values():
        raw = value.detach().cpu().contiguous().view(-1).view(torch.uint8)
        check = zlib.crc32(raw.numpy(), check)
    return f"checksum {check:08x}"


def _check_streams(train: ImageStream, test: ImageStream) -> None:
    for name, stream, mode in (("train", train, "decode_once"), ("test", test, "centre")):
        if stream.mode != mode:
            raise ValueError(f"{name} must be a stream of mode {mode!r}, got {stream.mode!r}.")
    if train.classes != test.classes:
        raise ValueError(
            f"The classes differ: {len(train.classes)} for training, {len(test.classes)} for the test. "
            "A class folder must be there in both splits, even if it is empty."
        )
    if len(train.classes) < 2:
        raise ValueError(
            "An evaluation needs classes: folders train/CLASS/image and val/CLASS/image."
        )
