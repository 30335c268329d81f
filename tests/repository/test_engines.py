"""Each script in examples/ trains in two processes as it does in one with the whole batch."""

import importlib.util
import os
import re
from pathlib import Path

import pytest
import torch
from tiny import tiny_images

from barlow_edu.numerics.distributed import rank, world_size
from barlow_edu.scale.exactness import small_model
from barlow_edu.scale.processes import run_processes

EXAMPLES = Path(__file__).parents[2] / "examples"
ENGINES = {  # script: what it needs
    "plain_loop": "torch",
    "with_fsdp2": "torch",
    "with_accelerate": "accelerate",
    "with_lightning": "pytorch_lightning",
}
INSTALLED = [name for name, needs in ENGINES.items() if importlib.util.find_spec(needs)]
WEIGHT = "encoder.0.weight"


def views(batch):
    """Two views that depend on the images alone, not on which process draws them; in float64."""
    x = batch[..., :11, :11].double() / 255
    return x, x.flip(-1).sqrt()


def load(name):
    """The example as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def train(name, images):
    """Losses of 4 epochs of one batch, and then a weight, as the example leaves it."""
    losses, model = [], small_model()
    torch.manual_seed(
        rank()
    )  # the scripts draw other views in every process, and must agree on the order
    if name == "with_lightning":
        from pytorch_lightning import Callback

        class Losses(Callback):
            def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
                losses.append(outputs["loss"].item())

        options = {"devices": world_size(), "callbacks": [Losses()]}
        options |= {"enable_progress_bar": False, "enable_model_summary": False}
    else:
        options = {"log": losses.append}
    load(name).train(model, images, views, batch_size=len(images), epochs=4, **options)
    weight = model.state_dict()[WEIGHT]
    weight = weight.full_tensor() if hasattr(weight, "full_tensor") else weight
    return losses, weight.detach().clone()


def in_a_group(folder):
    """Every example in a process that knows what torchrun would tell it."""
    os.environ |= {"RANK": str(rank()), "LOCAL_RANK": str(rank()), "GROUP_RANK": "0"}
    os.environ |= {"WORLD_SIZE": str(world_size()), "LOCAL_WORLD_SIZE": str(world_size())}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "TORCHELASTIC_RUN_ID": "test"}
    os.chdir(folder)
    return {name: train(name, tiny_images(64).images) for name in INSTALLED}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes with half of the batch each computed, by rank."""
    return run_processes(in_a_group, 2, tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def one():
    """The same steps on the whole batch in one process, with nothing of ours but the model."""
    losses, model = [], small_model()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    for _ in range(4):
        loss, _ = model(*views(tiny_images(64).images))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, model.state_dict()[WEIGHT]


def test_the_site_gives_each_script_a_command_that_the_script_gives_too():
    site = (EXAMPLES.parent / "barlow_edu/publishing/site/using.md").read_text(encoding="utf-8")
    commands = re.findall(r"^(?:torchrun|python) .*?examples/(\w+)\.py.*$", site, re.MULTILINE)
    assert sorted(commands) == sorted(ENGINES) == sorted(p.stem for p in EXAMPLES.glob("*.py"))
    for line in re.findall(r"^.* examples/\w+\.py.*$", site, re.MULTILINE):
        name = re.search(r"examples/(\w+)", line)[1]
        assert f"    {line}\n" in (EXAMPLES / f"{name}.py").read_text(encoding="utf-8"), line


@pytest.mark.parametrize("name", ENGINES)
def test_two_processes_train_as_one(name, one, two):
    if name not in INSTALLED:
        pytest.skip(f"{ENGINES[name]} is not installed")
    losses, weight = one
    assert (
        losses[0] - losses[-1] > 0.1
        and (weight - small_model().state_dict()[WEIGHT]).abs().max() > 1e-3
    )
    for found, _ in [results[name] for results in two][: 1 if name == "with_accelerate" else 2]:
        assert found == pytest.approx(losses, rel=1e-9)
    for results in two:
        torch.testing.assert_close(results[name][1], weight, rtol=1e-9, atol=1e-11)
