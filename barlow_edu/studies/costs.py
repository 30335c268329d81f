"""What a training step costs: processor time, what is kept for the way back, parameters."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from barlow_edu.config import build_model, build_views
from barlow_edu.data import load_images
from barlow_edu.numerics.devices import Computer
from barlow_edu.state import TrainingState

ROUNDS = 12


def saved_bytes(forward: Callable[[], Any], model: nn.Module) -> int:
    """Bytes that a forward pass keeps for the way back, without the model's own parameters and buffers.

    Each piece of memory counts once, however many operations keep it. What a custom function of autograd keeps
    counts too, if it uses ``save_for_backward``.
    """
    own = {x.untyped_storage().data_ptr() for x in [*model.parameters(), *model.buffers()]}
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        result = forward()  # alive until here, and so is all that it keeps
    del result
    return sum(kept.values())


def step_costs(
    configs: Mapping[str, Mapping[str, Any]], rounds: int = ROUNDS
) -> dict[str, dict[str, float]]:
    """What a step of each configuration costs, measured side by side: name -> costs.

    cpu_seconds: median of ``rounds`` steps of processor time, forward, backward and update, without the views; all
    configurations take turns, so that a busy machine slows all of them. saved_bytes: kept for the way back.
    parameters: that are trained; teacher_parameters: that are not.
    """
    states = {name: _state(config) for name, config in configs.items()}
    times: dict[str, list[float]] = {name: [] for name in configs}
    for i in range(rounds + 2):
        for name, (state, views) in states.items():
            begin = time.process_time()
            _step(state, views)
            if i >= 2:  # the first steps set things up
                times[name].append(time.process_time() - begin)
    return {
        name: {"cpu_seconds": round(float(np.median(times[name])), 5), **_size(*states[name])}
        for name in configs
    }


def _state(config: Mapping[str, Any]) -> tuple[TrainingState, tuple[Tensor, Tensor]]:
    """A model with its optimizer, and one batch of twins on its device."""
    images = load_images(config["data"], config["root"], "train", config["limit"])
    computer = Computer.choose(config)
    state = TrainingState(config, build_model(config), computer, images.fingerprint())
    state.model.train()
    twins = build_views(config)(images.images[: config["batch_size"]], state.generator)
    return state, tuple(map(computer.place, twins))


def _forward(state: TrainingState, views: tuple[Tensor, Tensor]) -> Tensor:
    with state.computer.autocast():
        return state.model(*views)[0]


def _step(state: TrainingState, views: tuple[Tensor, Tensor]) -> None:
    loss = _forward(state, views)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    state.optimizer.step()
    state.step += 1
    state.model.after_step(state.step, 1000)


def _size(state: TrainingState, views: tuple[Tensor, Tensor]) -> dict[str, int]:
    parameters = list(state.model.parameters())
    return {
        "saved_bytes": saved_bytes(lambda: _forward(state, views), state.model),
        "parameters": sum(p.numel() for p in parameters if p.requires_grad),
        "teacher_parameters": sum(p.numel() for p in parameters if not p.requires_grad),
    }
