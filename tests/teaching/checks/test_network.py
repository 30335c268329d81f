"""The checkers of notebook 09: right answers pass, and each known mistake gets its own diagnosis."""

import math

import torch
from torch import nn
from torchvision.models import resnet18

import barlow_edu as be
from barlow_edu.teaching import checks


def halved(size):
    return (size + 1) // 2


def by_formula(size, stem, padding=1, pool=None, strides=(1, 2, 2, 2), plus=1, pads=True):
    def after(n, k, s, p):
        return (n + 2 * p * pads - k) // s + plus

    size = after(size, 7, 2, 3) if stem == "imagenet" else after(size, 3, 1, padding)
    if stem == "imagenet" if pool is None else pool:
        size = after(size, 3, 2, 1)
    found = [size]
    for stride in strides:
        found.append(after(found[-1], 3, stride, 1))
    return found


def by_halving(size, stem):
    first = halved(halved(size)) if stem == "imagenet" else size
    return first, first, halved(first), halved(halved(first)), halved(halved(halved(first)))


def by_running_it(size, stem):
    """torchvision's network itself, on nothing."""
    with torch.device("meta"):
        net = be.build_encoder("resnet18", stem)[0].eval()
        x = net.maxpool(net.conv1(torch.empty(1, 3, size, size)))
        found = [x.shape[-1]]
        for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
            x = stage(x)
            found.append(x.shape[-1])
    return found


RIGHT_RESOLUTIONS = {"formula": by_formula, "halving": by_halving, "network": by_running_it}
WRONG_RESOLUTIONS = {
    "That is the cifar stem": lambda size, stem: by_formula(size, "cifar"),
    "That is the imagenet stem": lambda size, stem: by_formula(size, "imagenet"),
    "max-pool is missing": lambda size, stem: by_formula(size, stem, pool=False),
    "cifar stem has no max-pool": lambda size, stem: by_formula(size, stem, pool=True),
    "first stage does not halve": lambda size, stem: by_formula(size, stem, strides=(2,) * 4),
    "You forgot that stages": lambda size, stem: by_formula(size, stem, strides=(1,) * 4),
    "rounded down": lambda size, stem: [
        n // (4 if stem == "imagenet" else 1) for n in (size, size, size // 2, size // 4, size // 8)
    ],
    "left out the padding": lambda size, stem: [
        max(n, 0) for n in by_formula(size, stem, pads=False)
    ],
    "left out the + 1": lambda size, stem: by_formula(size, stem, plus=0),
    "padded by 2": lambda size, stem: by_formula(size, stem, padding=2),
    "You gave six numbers": lambda size, stem: [size, *by_formula(size, stem)],
    "Return five numbers": lambda size, stem: by_formula(size, stem)[1:],
    "whole number of pixels": lambda size, stem: [
        (size / 4 if stem == "imagenet" else size) / 2**k for k in (0, 0, 1, 2, 3)
    ],
    "list of five whole": lambda size, stem: {"stem": size},
    "values differ": lambda size, stem: [n + 5 for n in by_formula(size, stem)],
    "returned nothing": lambda size, stem: None,
}


def sequence(inputs, dim, hidden=None, bias=False, affine=True, last="bare norm", relu=nn.ReLU):
    """The projector layer by layer, and variants of it."""
    hidden = hidden or dim
    layers = []
    for i, o in ((inputs, hidden), (hidden, hidden)):
        layers += [nn.Linear(i, o, bias=bias), nn.BatchNorm1d(o, affine=affine), relu()]
    layers.append(nn.Linear(hidden, dim, bias=bias))
    if last != "nothing":
        layers.append(nn.BatchNorm1d(dim, affine=last == "norm"))
    return nn.Sequential(*layers)


class Written(nn.Module):
    """The same in another style: layers in lists, functional ReLU, norms registered first."""

    def __init__(self, inputs, dim):
        super().__init__()
        self.norms = nn.ModuleList([nn.BatchNorm1d(dim, affine=i < 2) for i in range(3)])
        self.maps = nn.ModuleList([nn.Linear(i, dim, False) for i in (inputs, dim, dim)])

    def forward(self, x):
        for i in range(3):
            x = self.norms[i](self.maps[i](x))
            x = torch.relu(x) if i < 2 else x
        return x


def edited(change):
    """A function that builds the right layers, has ``change(list of layers)`` alter them, and chains them."""

    def build(inputs, dim):
        layers = list(sequence(inputs, dim))
        return nn.Sequential(*(change(layers) or layers))

    return build


RIGHT_PROJECTOR = {
    "layers": sequence,
    "package": be.Projector,
    "class": Written,
    "evaluation mode": lambda inputs, dim: sequence(inputs, dim).eval(),
}
WRONG_PROJECTOR = {
    "bias=False": lambda i, d: sequence(i, d, bias=True),
    "as in the paper's text": lambda i, d: sequence(i, d, last="nothing"),
    "The last batch norm has a weight": lambda i, d: sequence(i, d, last="norm"),
    "Only the last one": lambda i, d: sequence(i, d, affine=False),
    "12 → 12": lambda i, d: sequence(i, d, hidden=i),
    "three linear layers; yours has 2": edited(lambda layers: layers[3:6] + layers[6:]),
    "three linear layers; yours has 0": edited(lambda layers: [nn.Identity()]),
    "ReLU after the last": edited(lambda layers: layers.append(nn.ReLU())),
    "no more than one": lambda i, d: sequence(i, d, relu=nn.Identity),
    "A ReLU is missing after the first": edited(lambda layers: layers.__delitem__(2)),
    "A ReLU is missing after the second": edited(lambda layers: layers.__delitem__(5)),
    "ReLU comes before": edited(
        lambda layers: [layers[k] for k in (0, 2, 1, 3, 5, 4)] + layers[6:]
    ),
    "yours has 1": edited(lambda layers: [m for k, m in enumerate(layers) if k not in (1, 4)]),
    "no batch norm": edited(
        lambda layers: [m for m in layers if not isinstance(m, nn.BatchNorm1d)]
    ),
    "layer norm": edited(
        lambda layers: [nn.LayerNorm(20) if isinstance(m, nn.BatchNorm1d) else m for m in layers]
    ),
    "not a list": lambda i, d: list(sequence(i, d)),
    "values differ": edited(lambda layers: layers.insert(2, nn.Tanh())),
    "raised": lambda i, d: nn.Linear(i),
    "shape (20, 64)": edited(lambda layers: layers.append(Turned())),
}


class Turned(nn.Module):
    def forward(self, x):
        return x.T


def trained(lambd=0.3, steps=200, dim=None):
    """The projector, trained by the loss on the features of both views."""

    def embed(h_a, h_b, wanted):
        torch.manual_seed(0)
        head = be.Projector(h_a.shape[1], dim or wanted)
        optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
        for _ in range(steps):
            rows = torch.randint(len(h_a), (256,))
            loss = be.barlow_twins_loss(head(h_a[rows]), head(h_b[rows]), lambd).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return head.eval()

    return embed


def directions(h_a, h_b, dim):
    """No training: whitened features, and the directions in which the views agree most."""
    both = torch.cat([h_a, h_b])
    mean = both.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(both.T))
    white = vectors / values.sqrt()
    shared = ((h_a - mean) @ white).T @ ((h_b - mean) @ white)
    matrix = white @ torch.linalg.eigh(shared + shared.T).eigenvectors[:, -dim:]
    return lambda h: (h - mean) @ matrix


def loudest(h_a, h_b, dim):
    """Principal components of one view: what is loud, shared or not."""
    matrix = torch.linalg.svd(h_a - h_a.mean(0)).Vh[:dim].T
    return lambda h: h @ matrix


def repeated(h_a, h_b, dim):
    first = directions(h_a, h_b, 1)
    return lambda h: first(h).repeat(1, dim) + 0.01 * h[:, :dim]


RIGHT_OWN = {"trained": trained(), "computed": directions}
WRONG_OWN = {
    "only one of two twins has": loudest,
    "holds much that only one": trained(steps=0),
    "dimensions repeat each other": repeated,
    "RMS is": trained(lambd=0.0),
    "never changes": lambda h_a, h_b, dim: lambda h: torch.ones(len(h), dim),
    "NaN or infinity": lambda h_a, h_b, dim: lambda h: h[:, :dim] / 0,
    "has the shape (1000, 24)": lambda h_a, h_b, dim: lambda h: h,
    "has the shape (1000, 5)": trained(dim=5, steps=0),
    "function or a module, not Tensor": lambda h_a, h_b, dim: h_a[:, :dim],
    "raised": lambda h_a, h_b, dim: lambda h: h @ h,
}

RIGHT = {
    "stem_resolutions": RIGHT_RESOLUTIONS,
    "build_projector": RIGHT_PROJECTOR,
    "own_projector": RIGHT_OWN,
}
WRONG = {
    "stem_resolutions": WRONG_RESOLUTIONS,
    "build_projector": WRONG_PROJECTOR,
    "own_projector": WRONG_OWN,
}


def test_the_checker_leaves_the_learner_s_running_averages_alone():
    heads = []
    checks.build_projector(lambda *sizes: heads.append(sequence(*sizes)) or heads[-1])
    for head in heads:
        assert torch.equal(head[1].running_mean, torch.zeros(head[1].num_features))
        assert head.training and head[7].num_batches_tracked == 0


def test_resolutions_are_those_of_torchvision():
    net = resnet18()
    seen = []
    for part in (net.maxpool, net.layer1, net.layer2, net.layer3, net.layer4):
        part.register_forward_hook(lambda m, i, output: seen.append(output.shape[-1]))
    net(torch.zeros(2, 3, 97, 97))
    assert seen == list(by_halving(97, "imagenet")) and seen[0] == math.ceil(97 / 4)
