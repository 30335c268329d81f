"""All that changes while training, how it is saved, and how it is resumed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from barlow_edu.models import TwinModel
from barlow_edu.numerics.batchnorm import synchronize_batch_norm
from barlow_edu.numerics.devices import Computer
from barlow_edu.numerics.distributed import from_first, world_size
from barlow_edu.numerics.optim import build_optimizer
from barlow_edu.numerics.recompute import save_memory
from barlow_edu.numerics.threads import SideBySide, can_go_side_by_side
from barlow_edu.storage.checkpoints import read_checkpoint, write_checkpoint

# What may differ when a run is resumed: none of it changes what a step computes. (More epochs do, on purpose.)
MAY_DIFFER = ("epochs", "minutes", "name", "device", "root", "workers", "checkpoint_activations")
MAY_DIFFER += ("checkpoint_every", "log_every", "snapshots")


class TrainingState:
    """All that changes while training.

    model, optimizer, scaler, step, minutes, threads; generator, from which the views and the order of the images are
    drawn; and order_from, its state at the beginning of the epoch, from which the order can be drawn again. The
    learning rate, and the seed of whatever a module draws (dropout), follow from the step.

    model: from ``build_model``; it moves to the computer's device. images: the fingerprint of the images, so that a
    run does not go on with others. defaults: the values of settings that an older run has not written down.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        model: TwinModel,
        computer: Computer,
        images: str,
        defaults: Mapping[str, Any] | None = None,
    ):
        self.config, self.defaults = dict(config), defaults or {}
        self.computer, self.images = computer, images
        self.model = model.to(computer.device)
        if computer.channels_last:
            self.model.to(memory_format=torch.channels_last)
        if world_size() > 1:
            synchronize_batch_norm(self.model, computer.device)
        save_memory(self.model, config)
        # Both views side by side, each on half of a CPU's threads, unless another way to call the network is set.
        others = ("compile", "checkpoint_activations", "micro_batch")
        alone = computer.device.type == "cpu" and world_size() == 1
        network = nn.Sequential(self.model.encoder, self.model.projector)
        if alone and not any(map(config.get, others)) and can_go_side_by_side(network):
            self.model.side_by_side = SideBySide(network)
        keys = ("optimizer", "lr", "weight_decay", "bias_lr", "momentum")
        name, *settings = (config[k] for k in keys)
        self.optimizer = build_optimizer(name, self.model, *settings)
        self.scaler = computer.scaler()
        # On the CPU, whatever the device: so the same images get the same views on every one.
        self.generator = torch.Generator().manual_seed(config["seed"])
        self.order_from = self.generator.get_state()
        self.step, self.minutes = 0, 0.0
        self.threads = torch.get_num_threads()  # on which the last bits depend

    def order(self, images: int, new_epoch: bool) -> Tensor:
        """The order of the images, (images,), of a new epoch, or again of the one that is under way."""
        if new_epoch:
            self.order_from = self.generator.get_state()
            return torch.randperm(images, generator=self.generator)
        generator = torch.Generator()
        generator.set_state(self.order_from)
        return torch.randperm(images, generator=generator)

    def module_seed(self, rank: int = 0) -> int:
        """The seed of what modules draw in this step, in process ``rank``."""
        # Far apart: runs of neighbouring seeds would meet after a million steps, ranks after four billion.
        return ((self.config["seed"] * 1_000_003 + self.step) % 2**63 + (rank << 32)) % 2**63

    def is_finite(self) -> bool:
        """Whether every weight and running average is a number."""
        return all(bool(torch.isfinite(x).all()) for x in self.model.state_dict().values())

    def save(self, folder: Path) -> None:
        """Write the checkpoint, beside the one before it. Raises DiskFull, and leaves both unharmed."""
        content = {
            "config": self.config,
            "data": self.images,
            "step": self.step,
            "minutes": self.minutes,
            "threads": self.threads,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),  # empty without float16
            "generator": self.generator.get_state(),
            "order_from": self.order_from,
        }
        write_checkpoint(folder, content)

    def load(self, folder: Path) -> None:
        """Go on from the last good checkpoint. Process 0 reads it for all; there may be more or fewer than before.

        Raises FileNotFoundError if there is none, and ValueError if none is whole or it does not fit.
        """
        # What is sent to other processes is sent from the host.
        device = self.computer.device if world_size() == 1 else "cpu"
        saved = from_first(lambda: read_checkpoint(folder, device))
        before = {**self.defaults, **saved["config"], "images": saved["data"]}
        for key, value in {**self.config, "images": self.images}.items():
            if key not in MAY_DIFFER and before.get(key) != value:
                raise ValueError(
                    f"The run in {folder} was started with {key}={before.get(key)!r}, not {value!r}. "
                    f"Resume with the same {key}, or start in another folder."
                )
        self.step, self.minutes = saved["step"], saved["minutes"]
        if world_size() == 1:
            self.threads = saved.get("threads", self.threads)
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(saved["scaler"])
        self.generator.set_state(saved["generator"].cpu())
        self.order_from = saved["order_from"].cpu()
