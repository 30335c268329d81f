"""Images a second of whole training steps: our loop, lightly's example, a loop in the official code's style.

    uv run --with lightly python benchmarks/pretrain.py --threads 1    # under four minutes
    uv run --with lightly python benchmarks/pretrain.py                # all threads, wall-clock time
    ... --quick    # one round; printed and not stored

All three train the same encoder with projectors of the same widths, at the same batch size, by the same
optimizer, on the same images. "lightly" is the loop of its published Barlow Twins example, built from its
parts: BYOLTransform without blur, as published for 32 pixels, a DataLoader, BarlowTwinsProjectionHead,
BarlowTwinsLoss. "official style" is a DataLoader over torchvision's transforms of PIL images, one forward pass
a view, and the D x D loss. Both compute in float32, as their code does on a CPU.

They take turns. On one thread it is the thread's processor time that counts, so other processes do not, and the
DataLoaders work in the same thread. On several threads it is the wall clock, and each DataLoader gets the number
of workers that is fastest for it, of 0, 1 and 2 (the published example has 8).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from common import describe, environment, table, write
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from barlow_edu.config import Schedule, build_model, load_config
from barlow_edu.data import load_images
from barlow_edu.models import build_encoder
from barlow_edu.numerics.devices import Computer
from barlow_edu.state import TrainingState
from barlow_edu.storage.run_folder import RunWriter
from barlow_edu.training import Loop

BAR = 3.0
WORKERS = (0, 1, 2)
# The net for two CPU cores, at the settings of its recipe, and the net and settings of lightly's example.
SMALL = {"encoder": "small_resnet", "stem": "cifar", "batch_size": 128, "proj_dim": 512}
EXAMPLE = {"encoder": "resnet18", "stem": "imagenet", "batch_size": 256, "proj_dim": 2048}
SGD = {"optimizer": "sgd", "lr": 0.06, "momentum": 0.0, "weight_decay": 0.0}
CASES = {
    "small residual net": SMALL | {"optimizer": "adamw", "lr": 0.005},
    "lightly's example": EXAMPLE | SGD,
}


class Ours:
    """The steps of ``pretrain``, one after the other."""

    name = "ours"

    def __init__(self, settings: dict, images, **options):
        never = {"epochs": 10**6, "log_every": 10**9, "checkpoint_every": 10**9, "snapshots": 0}
        config = load_config(None, data="garments", views="cifar", **settings, **never, **options)
        self.computer, self.folder = Computer.choose(config), tempfile.TemporaryDirectory()
        state = TrainingState(config, build_model(config), self.computer, images.fingerprint())
        plan, writer = Schedule.of(config, len(images)), RunWriter(self.folder.name)
        self.loop = Loop(config, plan, state, images, writer)

    def steps(self, workers: int) -> Iterator[int]:
        """Train; one step every time the iterator is asked."""
        return self.loop.steps()

    def parts(self) -> dict[str, Callable[[], object]]:
        """Functions that do a part of a step."""
        loop, model = self.loop, self.loop.state.model
        images, rows = loop.images.images, torch.arange(loop.config["batch_size"])
        place = self.computer.place
        views = [place(v) for v in loop.views(images[rows], loop.state.generator)]
        with self.computer.autocast(), torch.no_grad():
            z = [model.embed(v).float() for v in views]
        loss = partial(_loss_alone, lambda a, b: _ours_loss(model, a, b), z)
        return {
            "views": lambda: loop.views(images[rows], loop.state.generator),
            "loss": loss,
            "optimizer": loop.state.optimizer.step,
        }


def _ours_loss(model, z_a: Tensor, z_b: Tensor) -> Tensor:
    from barlow_edu.loss import barlow_twins_loss

    return barlow_twins_loss(z_a, z_b, model.config["lambd"], model.config["form"]).loss


def _loss_alone(loss, z: list[Tensor]) -> None:
    loss(*(x.clone().requires_grad_() for x in z)).backward()


class Pictures(Dataset):
    """PIL images through a transform, with a label, as torchvision's CIFAR-10 gives them."""

    def __init__(self, images, transform):
        self.pixels = images.images.permute(0, 2, 3, 1).contiguous().numpy()
        self.transform = transform

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, i):
        return self.transform(Image.fromarray(self.pixels[i])), 0


class Loaded:
    """A loop over a DataLoader in float32; lightly's and the official style differ in the parts."""

    def __init__(self, settings: dict, images, **options):
        encoder, dim = build_encoder(settings["encoder"], settings["stem"], 32)
        self.model = nn.Sequential(encoder, self.projector(dim, settings["proj_dim"])).train()
        self.loss = self.criterion(settings["proj_dim"])
        self.data, self.batch = Pictures(images, self.transform()), settings["batch_size"]
        parameters = self.model.parameters()
        if settings["optimizer"] == "adamw":
            self.optimizer = torch.optim.AdamW(parameters, lr=settings["lr"])
        else:
            self.optimizer = torch.optim.SGD(parameters, lr=settings["lr"])

    def loader(self, workers: int) -> DataLoader:
        """Batches of ((view 1, view 2), label)."""
        options = {"batch_size": self.batch, "shuffle": True, "drop_last": True}
        return DataLoader(self.data, num_workers=workers, **options)

    def steps(self, workers: int) -> Iterator[None]:
        """Train; one step every time the iterator is asked."""
        while True:
            for (view1, view2), _ in self.loader(workers):
                loss = self.loss(self.model(view1), self.model(view2))
                loss.backward()
                self.optimizer.step()
                self.optimizer.zero_grad()
                yield

    def parts(self) -> dict[str, Callable[[], object]]:
        """Functions that do a part of a step."""
        batches = iter(self.loader(0))
        with torch.no_grad():
            z = [self.model(view) for view in next(batches)[0]]
        loss = partial(_loss_alone, self.loss, z)
        return {"views": lambda: next(batches), "loss": loss, "optimizer": self._update}

    def _update(self) -> None:
        for p in self.model.parameters():
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        self.optimizer.step()


class Lightly(Loaded):
    """The parts of lightly's published example."""

    name = "lightly"

    def projector(self, inputs: int, dim: int) -> nn.Module:
        from lightly.models.modules import BarlowTwinsProjectionHead

        return BarlowTwinsProjectionHead(inputs, dim, dim)

    def criterion(self, dim: int) -> nn.Module:
        from lightly.loss import BarlowTwinsLoss

        return BarlowTwinsLoss()

    def transform(self):
        from lightly.transforms.byol_transform import (
            BYOLTransform,
            BYOLView1Transform,
            BYOLView2Transform,
        )

        views = [
            v(input_size=32, gaussian_blur=0.0) for v in (BYOLView1Transform, BYOLView2Transform)
        ]
        return BYOLTransform(*views)


class Official(Loaded):
    """The parts as the official code has them, for images of 32 pixels (no blur)."""

    name = "official style"

    def projector(self, inputs: int, dim: int) -> nn.Module:
        parts: list[nn.Module] = []
        for width in (inputs, dim):
            parts += [nn.Linear(width, dim, bias=False), nn.BatchNorm1d(dim), nn.ReLU(inplace=True)]
        return nn.Sequential(*parts, nn.Linear(dim, dim, bias=False))

    def criterion(self, dim: int):
        normalise = nn.BatchNorm1d(dim, affine=False)

        def loss(z_a: Tensor, z_b: Tensor) -> Tensor:
            c = normalise(z_a).T @ normalise(z_b) / len(z_a)
            on = (c.diagonal() - 1).square().sum()
            off = c.flatten()[:-1].view(dim - 1, dim + 1)[:, 1:].flatten().square().sum()
            return on + 0.005 * off

        return loss

    def transform(self):
        pipelines = [self._view(solarise) for solarise in (0.0, 0.2)]
        return lambda picture: [view(picture) for view in pipelines]

    @staticmethod
    def _view(solarise: float):
        jitter = transforms.ColorJitter(0.4, 0.4, 0.2, 0.1)
        return transforms.Compose(
            [
                transforms.RandomResizedCrop(32, interpolation=InterpolationMode.BICUBIC),
                transforms.RandomHorizontalFlip(),
                transforms.RandomApply([jitter], p=0.8),
                transforms.RandomGrayscale(0.2),
                transforms.RandomSolarize(128, p=solarise),
                transforms.ToTensor(),
                transforms.Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
            ]
        )


def rate(contender, workers: int, steps: int, clock) -> float:
    """Images a second over some steps, after one that is not counted."""
    turn = contender.steps(workers)
    next(turn)
    began = clock()
    for _ in range(steps):
        next(turn)
    seconds = clock() - began
    turn.close()
    return steps * contender.batch / seconds


def measure(settings: dict, rounds: int, steps: int) -> dict:
    """One case: rates of all, best workers, and the shares of a step."""
    images = load_images("garments")
    contenders = [Ours(settings, images), Lightly(settings, images), Official(settings, images)]
    contenders[0].batch = settings["batch_size"]
    alone = torch.get_num_threads() == 1
    clock = time.thread_time if alone else time.perf_counter
    workers = {c.name: 0 for c in contenders}
    if not alone:
        for c in contenders[1:]:
            workers[c.name] = max(WORKERS, key=lambda w: rate(c, w, steps, clock))
    rates = {c.name: [] for c in contenders}
    for _ in range(rounds):
        for c in contenders:
            rates[c.name].append(rate(c, workers[c.name], steps, clock))
    medians = {name: statistics.median(found) for name, found in rates.items()}
    return {
        "settings": settings,
        "precision": contenders[0].computer.precision,
        "workers": workers,
        "rates": rates,
        "images a second": medians,
        "shares": {c.name: shares(c, medians[c.name], clock) for c in contenders},
    }


def shares(contender, images_a_second: float, clock, times: int = 5) -> dict[str, float]:
    """Share of a step's time in views, loss, optimizer; what is left is the encoder, forward and backward."""
    step, found = contender.batch / images_a_second, {}
    for name, part in contender.parts().items():
        part()
        seconds = []
        for _ in range(times):
            began = clock()
            part()
            seconds.append(clock() - began)
        found[name] = statistics.median(seconds) / step
    return found | {"encoder": 1 - sum(found.values())}


def show(row: dict) -> list[dict[str, object]]:
    ours = row["images a second"]["ours"]
    return [
        {
            "loop": name,
            "images/s": f"{found:,.0f}",
            "ours is": f"{ours / found:.2f} x",
            **{part: f"{100 * share:.0f} %" for part, share in row["shares"][name].items()},
            "workers": row["workers"][name],
        }
        for name, found in row["images a second"].items()
    ]


def title(name: str, settings: dict) -> str:
    return (
        f"**{name}**: {settings['encoder']}, {settings['stem']} stem, batch {settings['batch_size']}, "
        f"projector {settings['proj_dim']} wide, {settings['optimizer']}"
    )


def report(env: dict, rows: dict[str, dict]) -> str:
    import lightly

    threads = env["threads"]
    clock = "processor time" if threads == 1 else "wall-clock time"
    [precision] = {row["precision"] for row in rows.values()}
    parts = [
        "# Pretraining: images a second of whole steps",
        f"{describe(env)}, lightly {lightly.__version__}. Made by "
        f"`uv run --with lightly python benchmarks/pretrain.py --threads {threads}`.",
        f"32 x 32 images, two views each; medians of turns, {clock}. Ours: {precision}; the others float32. "
        "The encoder's share is what the views, the loss and the optimizer, each timed alone, leave; with "
        "workers, a DataLoader's views run beside the rest, and the shares add up to less. "
        f"The bar is {BAR:g} x lightly.",
    ]
    for name, row in rows.items():
        parts += [title(name, row["settings"]), table(show(row))]
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round; nothing is stored")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5, help="turns of each loop")
    parser.add_argument("--case", choices=CASES, action="append", help="only this one")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rounds, rows = 1 if options.quick else options.rounds, {}
    for name in options.case or CASES:
        settings = CASES[name]
        rows[name] = measure(settings, rounds, steps=1024 // settings["batch_size"])
        print(title(name, settings), table(show(rows[name])), sep="\n", flush=True)
    if not options.quick and not options.case:
        env = environment()
        name = "pretrain_1_thread" if options.threads == 1 else "pretrain"
        write(name, report(env, rows), {"environment": env, "rows": rows})


if __name__ == "__main__":
    main()
