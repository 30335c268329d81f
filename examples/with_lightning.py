"""Barlow Twins with Lightning: a ``LightningModule`` of thirty lines.

    pip install pytorch-lightning
    python examples/with_lightning.py --devices 2

Lightning starts the processes, wraps the module in DistributedDataParallel and shares out the images. Its own
``sync_batchnorm`` is for GPUs; ``be.synchronize_batch_norm`` is for CPUs, too.
"""

import argparse

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

import barlow_edu as be


class BarlowTwins(pl.LightningModule):
    """Encoder, projector and loss, trained on batches of uint8 images (N, 3, H, W)."""

    def __init__(self, model, views, lr=0.05):
        super().__init__()
        self.model, self.views, self.lr = model, views, lr

    def configure_model(self):
        """Batch norm over all processes, before the module is wrapped."""
        be.synchronize_batch_norm(self.model, self.device)

    def training_step(self, batch, batch_idx):
        """The loss of the whole batch, in every process; DistributedDataParallel averages the gradients."""
        loss, metrics = self.model(*self.views(batch))
        self.log_dict(metrics, prog_bar=True)
        return loss

    def configure_optimizers(self):
        """Plain SGD, for a few steps."""
        return torch.optim.SGD(self.parameters(), self.lr, momentum=0.9)


def train(model, images, views, batch_size=128, epochs=1, devices=1, **options):
    """Train ``model``; ``batch_size`` is that of all processes together. options: of the ``Trainer``."""
    loader = DataLoader(images, batch_size // devices, shuffle=True, drop_last=True)
    strategy = "ddp" if devices > 1 else "auto"
    quiet = {"logger": False, "enable_checkpointing": False, "log_every_n_steps": 1}
    trainer = pl.Trainer(
        accelerator="cpu", devices=devices, strategy=strategy, max_epochs=epochs, **quiet | options
    )
    trainer.fit(BarlowTwins(model, views), loader)
    return trainer


def main():
    """A few steps on photographs of garments."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, default=1, help="processes on this machine")
    devices = parser.parse_args().devices
    torch.manual_seed(0)
    model = be.BarlowTwinsModel(encoder="small_resnet", stem="cifar", proj_dim=128)
    images = be.load_images("garments", limit=512).images
    trainer = train(model, images, be.TwinViews("garments"), devices=devices)
    if trainer.is_global_zero:
        print({name: round(value.item(), 3) for name, value in trainer.callback_metrics.items()})


if __name__ == "__main__":
    main()
