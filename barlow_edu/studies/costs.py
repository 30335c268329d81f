"""What a training step costs: processor time, what is kept for the way back, parameters."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from barlow_edu.config import build_model, build_views
from barlow_edu.data import load_images
from barlow_edu.numerics.devices import Computer
from barlow_edu.scale.planner import MemoryMeter, storage_bytes
from barlow_edu.state import TrainingState

ROUNDS = 12


def saved_bytes(forward: Callable[[], Tensor], model: nn.Module, *inputs: Tensor) -> int:
    """Bytes that a forward pass keeps for the way back, its inputs among them, the model's own memory not."""
    with MemoryMeter().ignore(*model.parameters(), *model.buffers()) as meter:
        result = forward()  # alive until here, and so is all that it keeps
    return meter.current + storage_bytes(*inputs) - storage_bytes(result)


def step_costs(
    configs: Mapping[str, Mapping[str, Any]], rounds: int = ROUNDS
) -> dict[str, dict[str, float]]:
    """What a step of each configuration costs, measured side by side: name -> costs.

    cpu_seconds: median of ``rounds`` steps of processor time, forward, backward and update, without the views; all
    configurations take turns, so that a busy machine slows all of them. saved_bytes: kept for the way back.
    parameters: that are trained; teacher_parameters: that are not.
    """
    steps = {name: _Step(config) for name, config in configs.items()}
    times: dict[str, list[float]] = {name: [] for name in configs}
    for _ in range(rounds + 2):
        for name, step in steps.items():
            begin = time.process_time()
            step.take()
            times[name].append(time.process_time() - begin)
    # The first steps set things up.
    medians = {name: round(float(np.median(seconds[2:])), 5) for name, seconds in times.items()}
    return {name: {"cpu_seconds": medians[name], **step.size()} for name, step in steps.items()}


class _Step:
    """A model with its optimizer, and one batch of twins on its device."""

    def __init__(self, config: Mapping[str, Any]):
        images = load_images(config["data"], config["root"], "train", config["limit"])
        computer = Computer.choose(config)
        self.state = TrainingState(config, build_model(config), computer, images.fingerprint())
        self.state.model.train()
        twins = build_views(config)(images.images[: config["batch_size"]], self.state.generator)
        self.views = tuple(map(computer.place, twins))

    def forward(self) -> Tensor:
        with self.state.computer.autocast():
            return self.state.model(*self.views)[0]

    def take(self) -> None:
        """One step of training."""
        state, loss = self.state, self.forward()
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        state.optimizer.step()
        state.step += 1
        state.model.after_step(state.step, 1000)

    def size(self) -> dict[str, int]:
        saved = saved_bytes(self.forward, self.state.model, *self.views)
        sizes = [(p.requires_grad, p.numel()) for p in self.state.model.parameters()]
        own, teacher = (sum(n for grad, n in sizes if grad == asked) for asked in (True, False))
        return {"saved_bytes": saved, "parameters": own, "teacher_parameters": teacher}
