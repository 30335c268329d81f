"""Checkers of notebooks 05, the loss from scratch, and 06, Barlow Twins on one page."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from barlow_edu.data import load_images
from barlow_edu.evaluation.probes import knn_accuracy
from barlow_edu.loss import plain_loss
from barlow_edu.teaching.checks.base import attempt, checker, features, follow, judge, tell
from barlow_edu.teaching.checks.worlds import (
    ALONG_FEATURES,
    correlation,
    matrix,
    normal,
    off_diagonal,
    redundancy,
    standard,
    views,
)


def _worlds() -> list[tuple[Tensor, float]]:
    """A C and a λ: a second λ, and a second size, for who holds one by heart."""
    return [(matrix(5, seed=40), 0.07), (matrix(7, seed=41), 0.3)]


def _loss(c, lambd, on=torch.square, off=torch.square, add=torch.sum, target=1) -> Tensor:
    return add(on(target - c.diagonal())) + lambd * add(off(off_diagonal(c)))


@checker
def loss_from_c(function: Callable[[Tensor, float], Tensor]) -> None:
    """Check a function (D, D), lambd -> loss that autograd can follow."""
    judge(function, _worlds(), _loss, {
        "This is the sum on the diagonal alone, the invariance: the redundancy is missing.": {"lambd": 0},
        "This is the sum off the diagonal alone, times λ: the invariance is missing.": lambda c, w: w * redundancy(c),
        "λ is missing: it weighs the sum off the diagonal, the redundancy.": {"lambd": 1},
        "λ belongs to the sum off the diagonal, the redundancy. You multiplied the other sum by it.":
            lambda c, w: w * _loss(c, 1 / w),
        "You multiplied the whole loss by λ. It belongs to the sum off the diagonal alone, the redundancy.":
            lambda c, w: w * _loss(c, 1),
        "λ was squared with the entries: it stands before the square, not inside it.": lambda c, w: _loss(c, w**2),
        "The second sum runs over i ≠ j only: leave the entries with i = j, the diagonal, out of it.":
            lambda c, w: _loss(c, w) + w * c.diagonal().square().sum(),
        "You counted one side of the diagonal only. C is not symmetric: both sides count.":
            lambda c, w: _loss(c, 0) + w * redundancy(c.triu()),
        "You doubled the upper side of the diagonal. C is not symmetric: add up both sides.":
            lambda c, w: _loss(c, 0) + 2 * w * redundancy(c.triu()),
        "The target on the diagonal is 1, not 0: (1 − C_ii)².": {"target": 0},
        "You added magnitudes. The loss adds squares.": {"on": torch.abs, "off": torch.abs},
        "The squares are missing on the diagonal: (1 − C_ii)².": {"on": lambda x: x},
        "The squares are missing off the diagonal: C_ij².": {"off": lambda x: x},
        "You took the trace, one number, before you squared. Square 1 − C_ii for each i, then add.":
            lambda c, w: (1 - c.trace()) ** 2 + w * redundancy(c),
        "You added up 1 − C_ii before you squared. Square each, then add.": {"on": lambda x: x.sum() ** 2},
        "You added up the entries off the diagonal before you squared. Square each, then add.":
            {"off": lambda x: x.sum() ** 2},
        "You took means. The paper's loss is made of sums.": {"add": torch.mean},
        "You took means over all D² entries. The paper's loss is made of sums.": lambda c, w: _loss(c, w) / c.numel(),
        "You took the mean on the diagonal. The paper's loss is made of sums.": {"on": lambda x: x.square().mean()},
        "You took the mean off the diagonal. The paper's loss is made of sums.": {"off": lambda x: x.square().mean()},
    }, "The loss")  # fmt: skip
    follow(function, _worlds()[0], _loss)


def _gradient(c, lambd, on=1.0, off=1.0, target=1, factor=2) -> Tensor:
    diagonal = c.diagonal().diag()
    return factor * (on * (diagonal - target * torch.eye(len(c))) + off * lambd * (c - diagonal))


@checker
def gradient_of_c(function: Callable[[Tensor, float], Tensor]) -> None:
    """Check a function (D, D), lambd -> dL/dC (D, D)."""
    judge(function, _worlds(), _gradient, {
        "The factor 2 is missing: the derivative of a square is twice what is squared.": {"factor": 1},
        "The sign is turned round: this is the step that lowers the loss, minus the gradient.": {"factor": -2},
        "The sign is right off the diagonal, but not on it: d(1 − C)²/dC = −2 (1 − C).": {"on": -1},
        "λ is missing: entries off the diagonal weigh λ.": {"lambd": 1},
        "λ belongs to the entries off the diagonal only. On the diagonal the weight is 1.":
            lambda c, w: _gradient(c, w, on=w),
        "λ was squared: it stands before the square of the loss, not inside it.": lambda c, w: _gradient(c, w**2),
        "The weights have changed places: 1 belongs on the diagonal, λ off it.": lambda c, w: _gradient(c, 1, on=w),
        "The entries off the diagonal are missing: redundancy has a gradient too.": {"off": 0},
        "The diagonal is missing: invariance has a gradient too.": {"on": 0},
        "On the diagonal the target is 1, not 0: differentiate (1 − C_ii)².": {"target": 0},
        "This is the transpose of the gradient: C is not symmetric.": lambda c, w: _gradient(c, w).T,
        "This is the gradient of means. The paper's loss is made of sums.":
            lambda c, w: _gradient(c, w, on=1 / len(c), off=1 / (c.numel() - len(c))),
    }, "dL/dC")  # fmt: skip


def _through(z_a, z_b, lambd, cut=True, deviation=None, n=None, turned=False) -> Tensor:
    a, b = standard(z_a), standard(z_b)
    c = a.T @ b / len(a)
    g = _gradient(c, lambd)
    pulled = b @ (g if turned else g.T) - cut * a * (g * c).sum(1)
    return pulled / ((n or len(a)) * (z_a.std(0, correction=0) if deviation is None else deviation))


@checker
def gradient_of_z(function: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """Check a function (N, D), (N, D), lambd -> dL/dz_a (N, D), through the standardisation."""
    worlds = [(*views(9, 4, seed=44), 0.07), (*views(6, 5, seed=45), 0.3)]
    judge(function, worlds, _through, {
        "This is dL/dA, step 2. Go on through the standardisation.": {"cut": False, "deviation": 1},
        "The part along A_i is still in: subtract A_i times the sum of G_ij C_ij over j.": {"cut": False},
        "σ is missing: divide each column by its standard deviation.": {"deviation": 1},
        "You divided by the deviations of view B. The gradient of z_a has those of view A.":
            lambda a, b, w: _through(a, b, w, deviation=b.std(0, correction=0)),
        "This σ divides by N − 1. Use correction=0, as in C.": lambda a, b, w: _through(a, b, w, deviation=a.std(0)),
        "N is missing: C is an average over the batch.": {"n": 1},
        "G has to be transposed: row i of G belongs to dimension i of view A.": {"turned": True},
        "The sign is turned round: this is the step that lowers the loss, minus the gradient.":
            lambda a, b, w: -_through(a, b, w),
        "λ is missing: entries of G off the diagonal weigh λ.": {"lambd": 1},
        "This is the gradient of view B. The one of view A is asked for.": lambda a, b, w: _through(b, a, w),
    }, "dL/dz_a")  # fmt: skip


def _squares(c: Tensor) -> Tensor:
    return c.square().sum()


def _gram(a: Tensor, b: Tensor, every=_squares, diagonal=_squares) -> Tensor:
    """Σ_{i≠j} C_ij² as a sum over all of C without the diagonal's, each added up in its way."""
    c = correlation(a, b)
    return every(c) - diagonal(c.diagonal())


def _grams(a: Tensor, b: Tensor, dim: int = 0) -> tuple[Tensor, Tensor]:
    a, b = standard(a, dim), standard(b, dim)
    return a @ a.T / len(a), b @ b.T / len(b)


@checker
def gram_redundancy(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check a function (N, D), (N, D) -> Σ_{i≠j} C_ij² that never holds a (D, D) tensor."""
    worlds = [views(6, 23, seed=42), views(9, 31, seed=43)]  # D > N: the detour is worth it
    judge(function, worlds, _gram, {
        "This is the sum of all squares. Take away those on the diagonal.": {"diagonal": lambda x: 0},
        "This is the sum of all squares of AᵀB. Divide by N², and take away the diagonal's.":
            lambda a, b: _squares(correlation(a, b, n=1)),
        "You divided the Gram part by N. It is made of squares of C = AᵀB / N, so divide by N².":
            lambda a, b: _gram(a, b, lambda c: _squares(c) * len(a)),
        "You forgot to divide the Gram part by N²: it is made of squares of C = AᵀB / N.":
            lambda a, b: _gram(a, b, lambda c: _squares(c) * len(a) ** 2),
        "You divided by D². The sum in C runs over images: C = AᵀB / N.":
            lambda a, b: _gram(a, b, lambda c: _squares(c) * len(a) ** 2 / len(c) ** 2),
        "The diagonal was not squared before you took it away.": {"diagonal": torch.sum},
        "You squared the trace. Square each C_ii, then add.": {"diagonal": lambda x: x.sum() ** 2},
        "You took away D, as if every C_ii were 1. Take away the sum of C_ii².": {"diagonal": len},
        "You took the mean over the D (D − 1) entries. The redundancy is their sum.":
            lambda a, b: off_diagonal(correlation(a, b)).square().mean(),
        "You used view A twice. The identity pairs the Gram matrix of A with that of B.":
            lambda a, b: _gram(a, b, lambda _: _squares(_grams(a, a)[0])),
        "You multiplied the Gram matrices as matrices. Multiply them entry by entry, then add.":
            lambda a, b: _gram(a, b, lambda _: torch.mm(*_grams(a, b)).sum()),
        ALONG_FEATURES: lambda a, b: (
            torch.mul(*_grams(a, b, 1)).sum() - (standard(a, 1) * standard(b, 1)).mean(0).square().sum()),
        "This is the redundancy times λ. The plain sum is asked for, without λ.": lambda a, b: 0.005 * _gram(a, b),
    }, "The redundancy")  # fmt: skip
    shapes = set()  # of all that torch functions return, for the value does not tell

    class Watch(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if torch.is_tensor(result):
                shapes.add(tuple(result.shape[-2:]))
            return result

    with Watch():
        attempt(function, *worlds[0])
    built = "The value is right, but a D x D matrix was built on the way. Use a @ a.T and b @ b.T, (N, N) each."
    tell({built: (23, 23) in shapes})


def _trained(seed: int, lambd: float, step: Callable | None = None, **slip: bool | int) -> Tensor:
    """Losses of two steps and the weights (4, 5) after them, as one list."""
    torch.manual_seed(seed)
    network = nn.Linear(5, 4).double()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    x, noise = normal(12, 5, seed=seed), torch.Generator().manual_seed(seed)

    def view(x: Tensor) -> Tensor:
        # a generator of its own: an attempt sets the page's back, and the second step is to differ from the first
        return x + 0.5 * torch.randn(x.shape, generator=noise, dtype=x.dtype)

    losses = [attempt(step or _step, network, view, x, optimizer, lambd, **slip) for _ in "ab"]
    losses = [torch.as_tensor(loss).detach().double().reshape(1) for loss in losses]
    return torch.cat([*losses, network.weight.detach().flatten()])


def _step(network, view, x, optimizer, lambd, twins=True, zero=True, move=True, sign=1, stop=False):
    a = view(x)
    b = view(x) if twins else a
    z_a, z_b = network(a), network(b)
    loss = plain_loss(z_a, z_b.detach() if stop else z_b, lambd)
    if zero:
        optimizer.zero_grad()
    (sign * loss).backward()
    if move:
        optimizer.step()
    return loss


@checker
def train_step(function: Callable) -> None:
    """Check a function (network, view, x, optimizer, lambd) -> loss that makes one step of Barlow Twins."""
    worlds = [(60, 0.3), (61, 0.05)]
    judge(functools.partial(_trained, step=function), worlds, _trained, {
        "Both views are the same picture: call view(x) twice, so that each has its own distortion.": {"twins": False},
        "The gradients of the step before were added on top: call optimizer.zero_grad() first.": {"zero": False},
        "The weights have not moved: optimizer.step() is missing.": {"move": False},
        "The loss went up: backward() belongs to the loss, not to minus the loss.": {"sign": -1},
        "Only view A moves the network: leave out detach() and no_grad() for view B.": {"stop": True},
    }, "Loss and weights after two steps")  # fmt: skip


@checker
def better_features(function: Callable[[Tensor], Tensor], to_beat: float = 0.45) -> None:
    """Check features, uint8 images (N, 3, 32, 32) -> (N, k): are 20 neighbours right more often than ``to_beat``?"""
    known = load_images("garments", limit=3000)
    asked = load_images("garments", split="test", limit=1000)
    bank, queries = (features(function, x.images, "images") for x in (known, asked))
    accuracy = knn_accuracy(bank, known.labels, queries, asked.labels, k=20)
    tell({
        f"kNN {accuracy:.1%}: that is hardly above chance, 10 %. Is the encoder in eval() mode?": accuracy < 0.15,
        f"kNN {accuracy:.1%}, to beat: {to_beat:.1%}. Change one thing, and train again.": accuracy <= to_beat,
    })  # fmt: skip
