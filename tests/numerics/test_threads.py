"""Two threads that each do a part of their own, and threads that sleep while they wait."""

import copy
import time

import pytest
import torch
from torch import nn
from torchvision.models import vit_b_16

import barlow_edu as be
from barlow_edu.numerics.threads import SideBySide, can_go_side_by_side, wait_asleep


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def network(width=8):
    torch.manual_seed(0)
    encoder, dim = be.build_encoder("narrow_resnet", "cifar")
    return nn.Sequential(encoder, be.Projector(dim, width)).train()


@pytest.fixture
def views():
    return torch.randn(2, 16, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("half", [False, True])
def test_gradients_and_averages_are_those_of_one_view_after_the_other(two_threads, views, half):
    model, weight = network(), torch.randn(16, 8)
    other = copy.deepcopy(model)
    with torch.autocast("cpu", torch.bfloat16, enabled=half, cache_enabled=False):
        torch.set_num_threads(1)
        expected = [other(x) for x in views]
        torch.set_num_threads(2)
        z = SideBySide(model)(*views)
    for a, b in zip(z, expected, strict=True):
        assert torch.equal(a, b) and a.requires_grad
    (z[0] * weight * z[1].roll(1, 0)).sum().backward()
    torch.set_num_threads(1)
    (expected[0] * weight * expected[1].roll(1, 0)).sum().backward()
    for (name, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad), name
    for (name, p), q in zip(model.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7, msg=name)


def test_the_number_of_threads_is_as_before(two_threads, views):
    both = SideBySide(network())
    z_a, z_b = both(*views)
    assert torch.get_num_threads() == 2
    (z_a + z_b).sum().backward()
    assert torch.get_num_threads() == 2
    with pytest.raises(RuntimeError, match="channels"):
        both(views[0], views[1][:, :2])
    assert torch.get_num_threads() == 2


def test_averages_stay_while_the_network_evaluates(two_threads, views):
    model = network().eval()
    before = copy.deepcopy(model.state_dict())
    z, _ = SideBySide(model)(*views)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(z, model(views[0]))


def test_what_draws_or_is_not_ours_goes_one_after_the_other():
    class Mine(nn.Module):
        """Nobody knows what it does."""

    assert can_go_side_by_side(network())
    for name in ("resnet18", "resnet50"):
        assert can_go_side_by_side(be.build_encoder(name)[0])
    assert not can_go_side_by_side(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)))
    assert not can_go_side_by_side(Mine())
    assert not can_go_side_by_side(nn.Sequential(network(), Mine()))
    assert not can_go_side_by_side(vit_b_16())


def processor_time_of_waiting():
    """Seconds of processor time, spent between operations on two threads while the main thread sleeps."""
    x, spent = torch.rand(1 << 18), 0.0
    for _ in range(10):
        x.exp()
        began = time.process_time()
        time.sleep(0.02)
        spent += time.process_time() - began
    return spent


def test_threads_sleep_while_they_wait(two_threads):
    """Where they spin it is some milliseconds each time."""
    wait_asleep()  # where the tests run on one thread the package has not yet done so
    assert min(processor_time_of_waiting() for _ in range(3)) < 0.01
