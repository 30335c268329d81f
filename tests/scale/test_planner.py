"""The planner against real tensors: what they take, what they cost, and what the paper says it took."""

import json

import pytest
import torch
from tiny import CONFIG
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import resnet50

from barlow_edu.cli import main
from barlow_edu.config import build_model, load_config
from barlow_edu.loss import barlow_twins_loss
from barlow_edu.numerics.optim import build_optimizer
from barlow_edu.scale.planner import (
    MemoryMeter,
    loss_memory,
    loss_operations,
    plan,
    simulate,
)

pytestmark = pytest.mark.usefixtures("registered")


# the meter


@pytest.mark.parametrize("fake", [False, True])
def test_the_meter_counts_what_comes_and_goes(fake):
    def work():
        a = torch.ones(1000)  # 4000 bytes
        b = a * 2  # 8000
        c = b[10:20]  # a view: nothing more
        del a, b  # c keeps all of b: 4000
        b = c.new_empty(250)  # 5000
        b.add_(1)
        return b, c

    with MemoryMeter() as meter:
        if fake:
            with FakeTensorMode():
                kept = work()
        else:
            kept = work()
    assert (meter.current, meter.peak) == (5000, 8000)
    del kept
    assert meter.current == 0


def test_the_meter_leaves_out_what_was_there_before():
    x = torch.ones(100)
    with MemoryMeter() as meter:
        y = x.add_(1).view(10, 10)
    assert (meter.current, meter.peak) == (0, 0) and y is not x


# the network


def measured(config, rows):
    """(bytes kept, peak, kept according to autograd's own hooks) of a real forward and backward pass."""
    model = build_model(config).train()
    views = [torch.randn(rows, 3, config["image_size"], config["image_size"]) for _ in range(2)]
    own = [*model.parameters(), *model.buffers(), *views]
    mine = {x.untyped_storage().data_ptr() for x in own}
    saved = {}

    def pack(x):
        saved[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with MemoryMeter().ignore(*own) as meter:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            z = model._embed_both(*views)
        kept = meter.current
        torch.autograd.backward(z, [torch.empty_like(x) for x in z])
    return kept, meter.peak, sum(size for key, size in saved.items() if key not in mine)


@pytest.mark.parametrize("settings", [{}, {"encoder": "small_resnet", "stem": "cifar"}])
def test_the_simulation_counts_as_real_tensors_do(settings):
    config = load_config(CONFIG | settings)
    network = simulate(config, 6)
    kept, peak, saved = measured(config, 6)
    embeddings = 2 * 4 * 6 * config["proj_dim"]  # alive after the forward pass, not saved
    assert network.saved == kept
    assert network.peak == peak
    # What autograd keeps is all there is after a forward pass, but for the embeddings and counters.
    assert saved <= network.saved <= saved + embeddings + 1000
    assert network.peak > network.saved


def test_parameters_buffers_and_optimizer_states_are_those_of_the_real_model():
    for name, per in (("adamw", 8), ("sgd", 4), ("lars", 4)):
        config = load_config(CONFIG, optimizer=name)
        planned = plan(config, images=100)
        model, network = build_model(config), planned.network
        assert network.parameters == sum(p.numel() for p in model.parameters())
        stored = {x.untyped_storage().data_ptr(): x.nbytes for x in model.state_dict().values()}
        assert network.fixed == sum(stored.values())
        optimizer = build_optimizer(name, model, 0.1)
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        optimizer.step()
        states = [v for s in optimizer.state.values() for v in s.values()]
        real = sum(4 * v.numel() for v in states if torch.is_tensor(v) and v.ndim)
        assert planned.optimizer == real == per * network.parameters


def test_operations_are_those_counted_by_hand():
    n = 6
    first, second = 7 * 7 * 8 * 3 * 9, 3 * 3 * 12 * 8 * 9  # 16 -> 7 -> 3 pixels
    head = 12 * 8 + 8 * 8 + 8 * 8
    # Forward, gradient of the weights, and, but for the first layer, gradient of the input; two views
    by_hand = 2 * n * 2 * (2 * first + 3 * second + 3 * head)
    assert simulate(load_config(CONFIG), n).operations == by_hand


def test_bfloat16_keeps_less():
    full = simulate(load_config(CONFIG, proj_dim=64), 64)
    half = simulate(load_config(CONFIG, proj_dim=64, precision="bfloat16"), 64)
    assert half.saved < 0.85 * full.saved
    assert half.operations == full.operations


def test_a_machine_that_chooses_is_planned_in_half_precision():
    chosen, half = (simulate(load_config(CONFIG, precision=p), 32) for p in ("auto", "bfloat16"))
    assert chosen == half


def test_several_processes_hold_their_gradients_twice():
    """Once more packed, to be sent; the matrix form of the loss takes the same whoever else has a part."""
    alone, two = (
        plan(CONFIG, gpus=gpus, batch_size=16 * gpus, images=100, form="matrix") for gpus in (1, 2)
    )
    once = 4 * alone.network.parameters
    assert (alone.gradients, two.gradients) == (once, 2 * once)
    assert two.peak(16) - alone.peak(16) == once


def test_activations_that_are_computed_again_are_not_kept():
    usual, again = (
        simulate(load_config(CONFIG, encoder="small_resnet", checkpoint_activations=on), 32)
        for on in (False, True)
    )
    assert again.saved < 0.6 * usual.saved
    # Four passes in place of three.
    assert 1.2 * usual.operations < again.operations < 1.4 * usual.operations


# the loss


@pytest.mark.parametrize("form", ["matrix", "gram"])
@pytest.mark.parametrize(("n", "d"), [(64, 512), (256, 256), (512, 64)])
def test_memory_and_operations_of_the_loss(form, n, d):
    z = [torch.randn(n, d, requires_grad=True) for _ in range(2)]
    with MemoryMeter() as meter, FlopCounterMode(display=False) as flops:
        loss = barlow_twins_loss(*z, form=form).loss
        kept = meter.current
        loss.backward()
    told_kept, told_peak = loss_memory(n, d, form)
    assert kept == pytest.approx(told_kept, rel=0.02)
    assert meter.peak == pytest.approx(told_peak, rel=0.05)
    assert flops.get_total_flops() == pytest.approx(loss_operations(n, d, form), rel=1e-6)


def test_several_processes_share_the_loss():
    alone, shared = loss_memory(256, 8192, "matrix"), loss_memory(32, 8192, "matrix", 8)
    assert shared[0] < alone[0]
    # Gram form: everyone holds all embeddings, and only its own rows of the N x N matrices.
    kept = loss_memory(32, 8192, "gram", 8)[0]
    assert kept == 4 * (2 * 256 * 8192 + 2 * 32 * 256 + 3 * 8192)


# plans


def test_the_peak_of_another_batch_is_that_of_its_own_simulation():
    config = dict(CONFIG, batch_size=64)
    told = plan(config, images=1000).peak(256)
    assert told == pytest.approx(
        plan(config | {"batch_size": 256}, images=1000).peak(256), rel=0.02
    )


def test_the_largest_batch_fits_and_one_more_does_not():
    p = plan(CONFIG, gpu_memory=0.01, images=10**6)
    limit = 0.92 * 1e7  # the rest is for libraries, and for gaps between tensors
    assert p.peak(p.largest_rows) <= limit < p.peak(p.largest_rows + 1)
    assert p.as_dict()["fits"] == (p.rows <= p.largest_rows)
    tiny = plan(CONFIG, gpu_memory=1e-5, images=100)
    assert tiny.largest_rows == 0 and "DOES NOT FIT" in str(tiny)
    assert "a smaller encoder" in str(tiny)


def test_the_papers_run_is_counted_whole():
    p = plan("imagenet_resnet50", gpus=32)
    assert p.images == 1_281_167 and p.steps == 625 * 1000
    # ResNet-50: 4.09 GMAC an image at 224 pixels, as published with its weights; the head is a product of
    # matrices. Two views, three passes, but no gradient of the images themselves.
    head = 2048 * 8192 + 2 * 8192**2
    assert p.as_dict()["operations_per_image"] == pytest.approx(12 * (4.09e9 + head), rel=0.03)
    assert p.network.parameters == 23_508_032 + head + 4 * 8192  # and two batch norms
    assert p.form == "gram"


@pytest.fixture(scope="module")
def resnet50_operations():
    """Operations of torchvision's ResNet-50 for an image of 224 pixels, forward and back, as PyTorch counts them."""
    with FakeTensorMode(), FlopCounterMode(display=False) as flops:
        resnet50()(torch.empty(2, 3, 224, 224)).sum().backward()
    return flops.get_total_flops() / 2


@pytest.mark.parametrize(
    (
        "gpu",
        "images_per_second",
        "peak",
        "memory",
    ),  # of eight GPUs, published; 10^12/s and GB of one, data sheets
    [("v100", 8_322, 125, 16), ("a100", 16_621, 312, 80), ("h100", 22_088, 989, 80)],
)
def test_a_gpu_has_the_rate_that_is_published(
    gpu, images_per_second, peak, memory, resnet50_operations
):
    p = plan(CONFIG, images=160, gpu=gpu)
    assert p.rate == pytest.approx(images_per_second / 8 * resnet50_operations / 1e12, rel=0.01)
    assert 0.05 * peak < p.rate < 0.25 * peak  # convolutions wait for memory
    assert gpu.upper() in p.rate_source and p.as_dict()["gpu_memory_gb"] == memory
    other = plan(CONFIG, images=160, gpu=gpu, gpu_memory=12, tflops=3)
    assert (other.as_dict()["gpu_memory_gb"], other.rate) == (12, 3)


def test_the_published_runs_lie_between_a_plan_and_half_of_full_precision(resnet50_operations):
    """Two are published: 32 V100 for 124 hours (paper), 16 V100 for 7 days (README of the authors' code)."""
    p = plan("imagenet_resnet50", gpu="v100", gpus=32)
    work, foreseen = p.as_dict()["operations"], p.as_dict()["gpu_hours"]
    paper, readme = 32 * 124, 16 * 7 * 24
    assert (paper, readme) == (3_968, 2_688)
    assert [work / hours / 3600e12 for hours in (paper, readme)] == pytest.approx(
        [4.53, 6.68], abs=0.01
    )
    # NVIDIA's eight V100 in float32, 2,855 images a second: slower than any run in mixed precision should be.
    float32 = work / (2_855 / 8 * resnet50_operations) / 3600
    assert 600 < foreseen < float32 < readme < paper < 2 * float32
    # Two views of an image are two images of a supervised ResNet-50, and 4 % for projector and loss.
    supervised = 2 * p.config["batch_size"] * resnet50_operations
    assert p.operations == pytest.approx(1.04 * supervised, rel=0.01)


def test_hours_and_cost_follow_from_the_rate():
    p = plan(CONFIG, gpus=2, images=160, tflops=1e-3, price_per_gpu_hour=3.0)
    assert p.steps == 20
    seconds = 20 * p.operations / 2e9
    assert p.hours == pytest.approx(seconds / 3600)
    assert p.as_dict()["cost"] == round(2 * 3.0 * p.hours, 2)
    measured = plan(CONFIG, gpus=2, images=160, images_per_second=40.0)
    assert measured.hours == pytest.approx(20 * 16 / 80 / 3600)


def test_the_form_that_is_planned_is_the_one_that_is_taken():
    assert plan(CONFIG, images=100).form == "matrix"  # 4 x 16 is more than 3 x 8
    assert plan(CONFIG, images=100, proj_dim=64).form == "gram"
    assert plan(CONFIG, images=100, form="gram").form == "gram"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"gpus": 3}, "batch_size=16 is that of all 3 processes .*Take 15 or 18"),
        ({"gpus": 16}, "batch_size=16 leaves 16 GPUs less .*--set batch_size=32"),
        ({"gpus": 0}, "gpus must be a whole number of at least 1, got 0"),
        ({"gpu": "k80"}, "gpu must be one of v100, a100, h100, got 'k80'"),
        ({"gpu_memory": 0}, "gpu_memory must be a number of at least 1e-09, or null, got 0"),
        ({"tflops": -1}, "tflops must be a number of at least 1e-09, or null, got -1"),
        ({"tflops": 1, "images_per_second": 1}, "not both"),
        (
            {"price_per_gpu_hour": -1},
            "price_per_gpu_hour must be a number of at least 0, or null, got -1",
        ),
        ({"images": 10}, "batch_size=16 is more than the 10 images"),
        ({"method": "simclr"}, "method='simclr'.*--set method=barlow_twins"),
    ],
)
def test_what_cannot_be_planned_is_named(options, told):
    with pytest.raises(ValueError, match=told):
        plan(CONFIG, **options)


def test_the_command_line_prints_a_table_or_json(capsys, tmp_path):
    run = ["plan", "garments_wide", "--price-per-gpu-hour", "2", "--gpu-memory", "8"]
    assert main(run) == 0
    table = capsys.readouterr().out
    assert (
        "garments_wide: small_resnet at 32 pixels" in table and "largest batch that fits" in table
    )
    assert main([*run, "--json", "--set", "epochs=3"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == 20_000 and found["epochs"] == 3 and found["fits"]
    assert main(["plan", "garments_wide", "--gpus", "3"]) == 2
    assert "Take 126 or 129." in capsys.readouterr().err


def test_a_plan_without_options_assumes_as_few_gpus_as_the_batch_fits_on(capsys):
    assert main(["plan", "imagenet_resnet50", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["gpus"] == 4 and found["fits"] and found["hours"] < 100
    assert found["rate_source"].startswith("ResNet-50 on A100, as published")
    one = plan("imagenet_resnet50", gpu_memory=80.0)
    assert one.largest_rows < one.config["batch_size"] / 2  # two would not have been enough
    assert main(["plan", "imagenet_resnet50", "--gpus", "1", "--tflops", "4.53"]) == 0
    assert "DOES NOT FIT" in capsys.readouterr().out  # as asked
    assert main(["plan", "imagenet_resnet50", "--gpu", "v100", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gpus"] == 16


def test_images_of_a_folder_are_counted(tmp_path):
    for k in range(3):
        (tmp_path / "train" / "a").mkdir(parents=True, exist_ok=True)
        (tmp_path / "train" / "a" / f"{k}.png").touch()
    settings = CONFIG | {"data": "folder", "root": str(tmp_path), "batch_size": 2}
    assert plan(settings).images == 3
    assert plan(settings, limit=2).images == 2
