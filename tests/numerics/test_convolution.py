"""The short way of convolutions over few pixels, against torch's own gradients."""

import copy

import pytest
import torch
from torch import nn

from barlow_edu.models import build_encoder
from barlow_edu.numerics.convolution import FewPixelConv2d, shorten_convolutions, weight_gradient


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("height, width", [(1, 1), (2, 2), (3, 3), (4, 4), (2, 5), (1, 3)])
def test_the_gradient_is_torchs(height, width, stride):
    x = torch.randn(3, 4, height, width, dtype=torch.float64)
    w = torch.randn(5, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    y = torch.conv2d(x, w, None, stride, 1)
    grad = torch.randn_like(y)
    y.backward(grad)
    for layout in (torch.contiguous_format, torch.channels_last):
        got = weight_gradient(*(t.contiguous(memory_format=layout) for t in (x, grad)), stride)
        torch.testing.assert_close(got, w.grad)


@pytest.mark.parametrize("name, stem", [("small_resnet", "cifar"), ("resnet18", "imagenet")])
def test_a_net_gets_the_same_gradients_up_to_the_rounding_of_bfloat16(name, stem):
    plain, _ = build_encoder(name, stem, 32)
    plain.to(memory_format=torch.channels_last)
    short = copy.deepcopy(plain)
    shorten_convolutions(short)
    assert sum(type(m) is FewPixelConv2d for m in short.modules()) >= 8
    x = torch.randn(16, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    outputs = []
    for net in (plain, short):
        with torch.autocast("cpu", torch.bfloat16):
            outputs.append(net(x))
        outputs[-1].float().square().sum().backward()
    assert torch.equal(*outputs)
    for (key, p), q in zip(plain.named_parameters(), short.parameters(), strict=True):
        assert (p.grad - q.grad).norm() <= 0.02 * p.grad.norm(), key
    assert plain.state_dict().keys() == short.state_dict().keys()


def test_without_autocast_and_with_many_pixels_nothing_changes():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False))
    plain = copy.deepcopy(net)
    shorten_convolutions(net)
    for size in (2, 8):
        x = torch.randn(2, 3, size, size)
        for m in (net, plain):
            m.zero_grad()
            m(x).sum().backward()
        assert torch.equal(net[0].weight.grad, plain[0].weight.grad)


@pytest.mark.parametrize(
    "other",
    [
        {"padding": 0},
        {"bias": True},
        {"groups": 2},
        {"dilation": 2},
        {"stride": (1, 2)},
        {"kernel_size": 5},
        {"padding_mode": "reflect"},
    ],
)
def test_other_convolutions_are_left_alone(other):
    net = nn.Conv2d(4, 4, **({"kernel_size": 3, "padding": 1, "bias": False} | other))
    shorten_convolutions(net)
    assert type(net) is nn.Conv2d
