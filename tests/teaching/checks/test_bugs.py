"""The checkers of notebook 16: right answers pass, and each known mistake gets its own diagnosis.

The notebook plays several processes in one. That the play is faithful is tested here against two real ones.
"""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms.v2.functional import solarize

from barlow_edu.loss import cross_correlation, standardize


def centred(z):
    return z - z.mean(0)


def correlation(z_a, z_b, correction=0, n=None):
    a, b = (centred(z) / z.std(0, correction=correction) for z in (z_a, z_b))
    return a.T @ b / (n or len(z_a))


def unbiased_twice(z_a, z_b):
    return correlation(z_a, z_b, correction=1, n=len(z_a) - 1)


def by_numpy(z_a, z_b):
    return np.corrcoef(z_a.numpy().T, z_b.numpy().T)[: z_a.shape[1], z_a.shape[1] :]


RIGHT_DIAGONAL = {
    "biased": correlation,
    "N - 1 twice": unbiased_twice,
    "numpy": by_numpy,
    "batch norm": lambda a, b: (
        torch.nn.functional.batch_norm(a, None, None, training=True, eps=1e-9).T
        @ torch.nn.functional.batch_norm(b, None, None, training=True, eps=1e-9)
        / len(a)
    ),
}
WRONG_DIAGONAL = {
    "Nothing has changed": lambda a, b: correlation(a, b, correction=1),
    "too large": lambda a, b: correlation(a, b, n=len(a) - 1),
    "one view only": lambda a, b: (
        (centred(a) / a.std(0)).T @ (centred(b) / b.std(0, correction=0)) / len(a)
    ),
    "divided by the diagonal": lambda a, b: correlation(a, b) / correlation(a, b).diagonal(),
    "wrote ones": lambda a, b: correlation(a, b).fill_diagonal_(1),
    "divided by D": lambda a, b: correlation(a, b, n=a.shape[1]),
    "covariance": lambda a, b: centred(a).T @ centred(b) / len(a),
    "subtract the mean": lambda a, b: (
        (a / a.std(0, correction=0)).T @ (b / b.std(0, correction=0)) / len(a)
    ),
    "along the features (dim 1)": lambda a, b: standardize(a.T) @ standardize(b.T).T / len(a),
    "row i belongs to view A": lambda a, b: correlation(b, a),
    "compares images with images": lambda a, b: correlation(a.T, b.T),
    "values differ": lambda a, b: correlation(a, b) + 0.1,
    "returned nothing": lambda a, b: None,
}


def batches(z_a, z_b, size):
    return list(zip(z_a.split(size), z_b.split(size), strict=True))


def real_size(z_a, z_b, size):
    return [correlation(a, b) for a, b in batches(z_a, z_b, size) if len(a) > 1]


def by_loader(z_a, z_b, size):
    loader = DataLoader(TensorDataset(z_a, z_b), batch_size=size, drop_last=True)
    return [cross_correlation(a, b) for a, b in loader]


def whole(z_a, z_b, size):
    a, b = standardize(z_a), standardize(z_b)
    return [x.T @ y / len(x) for x, y in batches(a, b, size) if len(x) > 1]


def overlapping(z_a, z_b, size):
    """The scrap filled up with samples of the batch before, for the statistics alone."""
    out = real_size(z_a, z_b, size)
    if len(out) == 3:
        a, b = standardize(z_a[size:])[size:], standardize(z_b[size:])[size:]
        out[2] = a.T @ b / len(a)
    return out


RIGHT_BATCH = {
    "real size": real_size,
    "drop_last": by_loader,
    "counted": lambda a, b, n: [
        correlation(a[k : k + n], b[k : k + n]) for k in range(0, len(a) // n * n, n)
    ],
}
WRONG_BATCH = {
    "still divided by 8": lambda a, b, n: [correlation(*p, n=n) for p in batches(a, b, n)],
    "two full batches": lambda a, b, n: real_size(a, b, n)[:-1],
    "not 2 or 3": lambda a, b, n: real_size(a, b, n) + real_size(a, b, n) * (len(a) > 16),
    "size of the whole set": lambda a, b, n: [correlation(*p, n=len(a)) for p in batches(a, b, n)],
    "standardised the whole set": whole,
    "together with another": overlapping,
    "a single one is left over. One": lambda a, b, n: [correlation(*p) for p in batches(a, b, n)],
    r"a single one is left over, and one": lambda a, b, n: [
        cross_correlation(*p) for p in batches(a, b, n)
    ],
    "list of matrices": lambda a, b, n: 3.0,
    "raised": lambda a, b, n: correlation(a, c),  # noqa: F821
}

RIGHT_PIXELS = {
    "half": lambda x: torch.where(x < 0.5, x, 1 - x),
    "torchvision": lambda x: solarize(x, 128 / 255),
    "through uint8": lambda x: solarize((x * 255).round().to(torch.uint8), 128) / 255,
    "arithmetic": lambda x: 0.5 - (x - 0.5).abs(),
    "numpy": lambda x: np.where(x.numpy() >= 128 / 255, 1 - x.numpy(), x.numpy()),
}
WRONG_PIXELS = {
    "Nothing has changed": lambda x: torch.where(x < 128, x, 255 - x),
    "far out of": lambda x: torch.where(x < 0.5, x, 255 - x),
    "every pixel": lambda x: 1 - x,
    "Upside down": lambda x: torch.where(x < 0.5, 1 - x, x),
    "wrong scale": lambda x: 255 * torch.where(x < 0.5, x, 1 - x),
    "cut the bright": lambda x: torch.where(x < 0.5, x, torch.zeros(())),
    "returned uint8": lambda x: solarize((x * 255).round().to(torch.uint8), 128),
    "in place": lambda x: x.mul_(255),
    "values differ": lambda x: torch.where(x < 0.3, x, 1 - x),
}


class Recipe:
    lr, warmup = 0.5, 8

    def configure_optimizer(self, parameters):
        return torch.optim.SGD(parameters, lr=self.lr)

    def rate(self, step):
        return self.lr * min(1, (step + 1) / self.warmup)

    def take(self, step, optimizer, before=True, go=True):
        if before:
            optimizer.param_groups[0]["lr"] = self.rate(step)
        if go:
            optimizer.step()
        optimizer.param_groups[0]["lr"] = self.rate(step)


class Mended(Recipe):
    def optimizer_step(self, step, optimizer):
        self.take(step, optimizer)


class Scheduled(Recipe):
    """The same from torch's own scheduler, which starts at 1/8."""

    def configure_optimizer(self, parameters):
        optimizer = super().configure_optimizer(parameters)
        self.schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / 8, 1, total_iters=7)
        return optimizer

    def optimizer_step(self, step, optimizer):
        optimizer.step()
        self.schedule.step()


class FromZero(Mended):
    def rate(self, step):
        return self.lr * min(1, step / self.warmup)


def recipe(rate=None, **how):
    """A recipe with another rate, or that takes its steps another way."""
    body = {"optimizer_step": lambda self, step, optimizer: self.take(step, optimizer, **how)}
    return type("Answer", (Recipe,), body | ({"rate": rate} if rate else {}))


class Raising(Recipe):
    def optimizer_step(self, step):
        pass


class Twice(Mended):
    def optimizer_step(self, step, optimizer):
        super().optimizer_step(step, optimizer)
        optimizer.step()


RIGHT_RECIPE = {"mended": Mended, "scheduler": Scheduled, "from zero": FromZero}
WRONG_RECIPE = {
    "finds no optimizer_step": type("Answer", (Recipe,), {"optimizer_steps": Recipe.take}),
    "full one from the first": recipe(lambda self, step: self.lr),
    "goes on growing": recipe(lambda self, step: self.lr * (step + 1) / self.warmup),
    "not after it": recipe(before=False),
    "throws the fraction away": recipe(lambda self, step: self.lr * min(1, (step + 1) // 8)),
    "no weight ever moves": recipe(go=False),
    "not an object": Mended(),
    "raised TypeError": Raising,
    "moved the weights": Twice,
    "values differ": recipe(lambda self, step: self.lr * min(1, (step + 1) / 4)),
}

RIGHT_BACKWARD = {
    "sum": lambda grads: [sum(grads)] * len(grads),
    "stack": lambda grads: torch.stack(grads).sum(0).expand(len(grads), *grads[0].shape),
    "tuple": lambda grads: tuple(torch.stack(list(grads)).sum(0) for _ in grads),
}
WRONG_BACKWARD = {
    "own gradient alone": lambda grads: grads,
    "mean over ranks": lambda grads: [sum(grads) / len(grads)] * len(grads),
    "same loss": lambda grads: [len(grads) * g for g in grads],
    "W times too much": lambda grads: [len(grads) * sum(grads)] * len(grads),
    "Only rank 0": lambda grads: [sum(grads)] + [torch.zeros_like(g) for g in grads[1:]],
    "rank's own loss": lambda grads: [sum(grads) - g for g in grads],
    "one tensor": lambda grads: sum(grads),
    "returned 2 gradients": lambda grads: [sum(grads)] * 2,
    "list of gradients, one a rank": lambda grads: 1.0,
    "in place": lambda grads: [grads[0].add_(g) for g in grads],
}


def globally(shards):
    return list(standardize(torch.cat(shards)).split([len(s) for s in shards]))


def by_sums(shards, mean_of_means=False):
    n = sum(map(len, shards))
    mean = sum(s.sum(0) for s in shards) / n
    if mean_of_means:
        mean = sum(s.mean(0) for s in shards) / len(shards)
    variance = sum((s - mean).square().sum(0) for s in shards) / n
    return [(s - mean) / variance.sqrt() for s in shards]


def by_moments(shards):
    n = sum(map(len, shards))
    mean = sum(s.sum(0) for s in shards) / n
    scale = (sum(s.square().sum(0) for s in shards) / n - mean**2).rsqrt()
    return [(s - mean) * scale for s in shards]


def with_parts(mean, scale):
    """Answers that take mean and scale from the whole batch z or from the shard s."""
    return lambda shards: [
        (s - mean(torch.cat(shards), s)) / scale(torch.cat(shards), s) for s in shards
    ]


def deviation(z):
    return z.std(0, correction=0)


def within(shards):
    z = torch.cat(shards)
    variance = sum(len(s) * s.var(0, correction=0) for s in shards) / len(z)
    return [(s - z.mean(0)) / variance.sqrt() for s in shards]


RIGHT_SHARDS = {"cat": globally, "sums": by_sums, "moments": by_moments}
WRONG_SHARDS = {
    "own mean and its own": lambda shards: [standardize(s) for s in shards],
    "divides by its own": with_parts(lambda z, s: z.mean(0), lambda z, s: deviation(s)),
    "subtracts its own": with_parts(lambda z, s: s.mean(0), lambda z, s: deviation(z)),
    "mean of the ranks' means": lambda shards: by_sums(shards, mean_of_means=True),
    "how far their means": within,
    "bug of case 1": with_parts(lambda z, s: z.mean(0), lambda z, s: z.std(0)),
    "Take its root": with_parts(lambda z, s: z.mean(0), lambda z, s: deviation(z) ** 2),
    "one piece": lambda shards: standardize(torch.cat(shards)),
    "autograd lost its way": lambda shards: [s.detach() for s in globally(shards)],
    "Is a mean or a deviation detached": with_parts(
        lambda z, s: z.mean(0).detach(), lambda z, s: deviation(z)
    ),
    "have the shapes": lambda shards: globally(shards)[::-1],
    "list of shards": lambda shards: 1.0,
    "values differ": lambda shards: [2 * s for s in globally(shards)],
}

RIGHT = {
    "unit_diagonal": RIGHT_DIAGONAL,
    "every_batch": RIGHT_BATCH,
    "bright_pixels": RIGHT_PIXELS,
    "first_steps": RIGHT_RECIPE,
    "all_reduce_backward": RIGHT_BACKWARD,
    "shards_as_one": RIGHT_SHARDS,
}
WRONG = {
    "unit_diagonal": WRONG_DIAGONAL,
    "every_batch": WRONG_BATCH,
    "bright_pixels": WRONG_PIXELS,
    "first_steps": WRONG_RECIPE,
    "all_reduce_backward": WRONG_BACKWARD,
    "shards_as_one": WRONG_SHARDS,
}


# One rank of two: synchronised standardisation, its part of C, a sum over ranks, the loss, and the mean of
# the gradients as DDP takes it. ``way`` is "raw" or "autograd".
RANK = """
import json, sys
import torch
import torch.distributed as dist
import torch.distributed.nn.functional as with_grad
from barlow_edu.loss import standardize

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
g = torch.Generator().manual_seed(3)
x_a, x_b = torch.randn(2, 12, 5, generator=g, dtype=torch.float64)
w = torch.randn(5, 4, generator=g, dtype=torch.float64).requires_grad_()
out = {}
for way in ("raw", "autograd"):
    halves = []
    for x in (x_a, x_b):
        z = x.chunk(2)[rank] @ w
        mean = with_grad.all_reduce(z.sum(0)) / 12
        variance = with_grad.all_reduce((z - mean).square().sum(0)) / 12
        halves.append((z - mean) / variance.sqrt())
    c = halves[0].T @ halves[1] / 12
    if way == "raw":
        dist.all_reduce(c)
    else:
        c = with_grad.all_reduce(c)
    diagonal = c.diagonal()
    loss = (1 - diagonal).square().sum() + 0.1 * (c.square().sum() - diagonal.square().sum())
    gradient, = torch.autograd.grad(loss, w)
    dist.all_reduce(gradient)
    out[way] = {"loss": loss.item(), "gradient": (gradient / 2).tolist()}
if rank == 0:
    print(json.dumps(out))
dist.destroy_process_group()
"""


def simulated(world, all_reduce):
    """What notebook 16 does in one process: loss on rank 0, and the gradient that DDP would use."""
    g = torch.Generator().manual_seed(3)
    x_a, x_b = torch.randn(2, 12, 5, generator=g, dtype=torch.float64)
    w = torch.randn(5, 4, generator=g, dtype=torch.float64).requires_grad_()
    a, b = standardize(x_a @ w), standardize(x_b @ w)
    parts = [p.T @ q / 12 for p, q in zip(a.chunk(world), b.chunk(world), strict=True)]
    losses = []
    for c in all_reduce(parts):
        diagonal = c.diagonal()
        losses.append(
            (1 - diagonal).square().sum() + 0.1 * (c.square().sum() - diagonal.square().sum())
        )
    return losses[0].item(), torch.autograd.grad(sum(losses) / world, w)[0]


def in_place(parts):
    total = sum(part.data for part in parts)
    for part in parts:
        part.data.copy_(total)
    return parts


def test_the_notebooks_ranks_behave_like_two_real_processes(tmp_path):
    script = tmp_path / "rank.py"
    script.write_text(textwrap.dedent(RANK))
    ranks = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", str(script), str(rank), str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    real = json.loads([rank.communicate(timeout=240)[0] for rank in ranks][0])
    one = simulated(1, lambda parts: parts)
    for way, all_reduce in {"raw": in_place, "autograd": lambda p: [sum(p)] * len(p)}.items():
        loss, gradient = simulated(2, all_reduce)
        found = torch.tensor(real[way]["gradient"], dtype=torch.float64)
        assert real[way]["loss"] == pytest.approx(loss, rel=1e-12)
        assert torch.allclose(found, gradient, rtol=1e-10, atol=1e-14)
        share = 0.5 if way == "raw" else 1.0
        assert loss == pytest.approx(one[0], rel=1e-12)
        assert torch.allclose(gradient, share * one[1], rtol=1e-10, atol=1e-14)
