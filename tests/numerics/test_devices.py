"""The one place where a device is chosen, and what a device without float64 and bfloat16 asks for."""

import pytest
import torch
from tiny import CONFIG, TinyEncoder, tiny_encoder, tiny_images
from torch.utils._python_dispatch import TorchDispatchMode

import barlow_edu as be
from barlow_edu.numerics.devices import Computer, choose_device
from barlow_edu.numerics.optim import build_optimizer


@pytest.fixture
def machine(monkeypatch):
    """A machine with GPUs that are not there."""

    def pretend(cuda=0, mps=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return pretend


@pytest.mark.parametrize(
    ("cuda", "mps", "name", "expected"),
    [
        (0, False, "auto", "cpu"),
        (0, True, "auto", "mps"),
        (2, False, "auto", "cuda:0"),
        (2, True, "auto", "cuda:0"),
        (2, True, "cpu", "cpu"),
        (2, False, "cuda:1", "cuda:1"),
        (0, True, "mps", "mps"),
    ],
)
def test_auto_takes_the_fastest_device_there_is(machine, cuda, mps, name, expected):
    machine(cuda, mps)
    assert choose_device(name) == Computer.choose(be.load_config(device=name)).device
    assert choose_device(name) == torch.device(expected)


def test_a_process_of_torchrun_takes_its_own_gpu(machine, monkeypatch):
    machine(cuda=4)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda", 3)
    assert choose_device("cuda:1") == torch.device("cuda", 1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cuda", "device='cuda', but torch finds no GPU. Take 'auto' or 'cpu'."),
        ("mps", "device='mps', but torch finds no Apple GPU. Take 'auto' or 'cpu'."),
        ("gpu", "device must be auto, cpu, cuda.*, or mps, got 'gpu'."),
        ("meta", "device must be auto, cpu, cuda.*, or mps, got 'meta'."),
        (3.5, "device must be auto.*got 3.5"),
    ],
)
def test_a_device_that_is_not_there_is_told(machine, name, message):
    machine()
    with pytest.raises(ValueError, match=message):
        choose_device(name)


def test_a_gpu_number_that_is_too_high_is_told(machine):
    machine(cuda=2)
    with pytest.raises(ValueError, match="device='cuda:2', but torch finds only 2 GPUs"):
        choose_device("cuda:2")


@pytest.mark.parametrize(("able", "half"), [(True, torch.bfloat16), (False, torch.float16)])
def test_a_gpu_without_bfloat16_computes_in_float16_with_a_scaler(machine, monkeypatch, able, half):
    machine(cuda=1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: able)
    computer = Computer.choose(be.load_config())
    assert computer.half is half and str(half).removeprefix("torch.") in computer.precision
    plain = Computer.choose(be.load_config(precision="float16", device="cpu"))
    assert plain.scaler().is_enabled() and plain.scaler().get_scale() > 1
    assert (
        not Computer.choose(be.load_config(precision="bfloat16", device="cpu"))
        .scaler()
        .is_enabled()
    )


def test_an_apple_gpu_computes_in_float32_and_draws_from_the_seed(machine, monkeypatch):
    machine(mps=True)
    seeds = []
    monkeypatch.setattr(torch.mps, "manual_seed", seeds.append)
    computer = Computer.choose(be.load_config())
    assert (computer.device.type, computer.half, computer.channels_last) == (
        "mps",
        None,
        False,
    )
    with torch.random.fork_rng(devices=[]):
        computer.seed(7)
    assert seeds == [7]


def test_nothing_on_the_device_needs_float64():
    """MPS has none. Crops are drawn in float64 where the generator is, on the CPU."""
    wide = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.dtype in (torch.float64, torch.complex128):
                wide.append(str(function))
            return out

    views, images = be.TwinViews("imagenet", size=16), tiny_images().images[:16]
    drawn = [views.draw(16, 16, 16, which) for which in (0, 1)]
    with tiny_encoder():
        model = be.BarlowTwinsModel({k: CONFIG[k] for k in ("encoder", "image_size", "proj_dim")})
    assert isinstance(model.encoder, TinyEncoder)
    optimizer = build_optimizer("lars", model, 0.1, 1e-4, None, 0.9)
    with Watch():
        loss, _ = model(*(views.apply(images, d) for d in drawn))
        loss.backward()
        optimizer.step()
        model.cross_correlation(*(views.apply(images, d) for d in drawn))
    assert not wide
