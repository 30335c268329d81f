"""Batch norm in a process on its own; several processes are in test_distributed.py."""

import copy
import pickle

import pytest
import torch
from torch import nn

from barlow_edu.numerics.batchnorm import batch_statistics, synchronize_batch_norm, untracked


def test_conversion_keeps_parameters_and_names():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm1d(4)))
    before = {k: id(v) for k, v in net.named_parameters()}, list(net.state_dict())
    x = torch.randn(5, 3, 2, 2)
    expected = net[1](net[0](x))
    assert synchronize_batch_norm(net) is net
    assert ({k: id(v) for k, v in net.named_parameters()}, list(net.state_dict())) == before
    assert torch.equal(net[1](net[0](x)), expected)  # alone it is torch's
    with pytest.raises(ValueError, match="2D or 3D"):
        net[2][0](x)


def test_untracked_leaves_the_averages_and_changes_nothing_else():
    norm = nn.BatchNorm1d(3)
    x = torch.randn(4, 3)
    with untracked(norm):
        quiet = norm(x)
    assert norm.num_batches_tracked == 0 and norm.running_mean.abs().max() == 0
    assert torch.equal(norm(x), quiet) and norm.num_batches_tracked == 1


def test_inside_batch_statistics_the_model_evaluates_but_for_batch_norm():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)).eval()
    net[2].train()
    before = copy.deepcopy(net.state_dict())
    x = 5 + torch.randn(8, 3)
    with batch_statistics(net):
        assert [m.training for m in net] == [False, True, False]
        out = net(x)
    torch.testing.assert_close(out.mean(0), torch.zeros(4), rtol=0, atol=1e-5)
    assert [m.training for m in net] == [False, False, True]
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_a_synchronised_net_can_be_copied_and_pickled():
    net = synchronize_batch_norm(
        nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm2d(2), nn.BatchNorm3d(2))
    )
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert [type(m) for m in twin] == [type(m) for m in net]
